"""What idemfs asks of a metadata engine: ordered keys, ranges, and one atomic batch.

Invariants: a batch is durable as a whole or not at all when ``commit`` returns or fails;
a read that starts after ``commit`` returned sees the batch. Keys are at most
``limits.KEY_SIZE_MAX`` bytes, values at most ``limits.RECORD_SIZE_MAX``.

Threads: reads may come from any thread, also during a commit; one commit at a time.
The interface holds no iterators or transactions across calls, so that an engine
behind a network serves it with one round trip a call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import Enum

# Not at run time: importing ``typing`` takes a quarter as long as listing snapshots may.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol
else:
    Protocol = object


class Table(Enum):
    """The tables of a store; the value is the name on disk."""

    ACTIVE = "active"
    SHADOW = "shadow"
    OWNED = "owned"
    SMALL = "small"

    # Members are compared by identity; the hash of their names costs as much as a short read.
    __hash__ = object.__hash__


class Precondition:
    """``commit`` does nothing but raise ``Fenced`` unless ``key`` in ``SMALL`` has ``value`` (None: is missing)."""

    __slots__ = ("key", "value")

    def __init__(self, key: bytes, value: bytes | None) -> None:
        self.key = key
        self.value = value


Batch = Mapping[Table, Mapping[bytes, bytes | None]]
"""New values per table; None removes the key. Order does not matter."""


class KV(Protocol):
    """A metadata engine."""

    def get(self, table: Table, key: bytes) -> bytes | None:
        """The value, or None."""
        ...

    def get_many(self, table: Table, keys: Sequence[bytes]) -> list[bytes | None]:
        """One value or None per key, in the order asked, all from one committed state."""
        ...

    def scan(
        self, table: Table, start: bytes, end: bytes, limit: int, reverse: bool = False
    ) -> list[tuple[bytes, bytes]]:
        """Up to ``limit`` pairs with ``start <= key < end``, ascending; with ``reverse`` the last ones, descending."""
        ...

    def commit(
        self, batch: Batch, precondition: Precondition | None = None, on_written: Callable[[], None] | None = None
    ) -> None:
        """Make ``batch`` durable, atomically.

        ``on_written`` may be called once, when the records stand in the engine's transaction and only the wait
        for the host is left. Raises ``Fenced`` when the precondition does not hold, ``NoSpace`` when the host is full,
        and then nothing has changed.
        """
        ...

    def reserve(self, record_count: int, value_bytes: int) -> None:
        """Make sure that the next commit, of up to this many records and bytes, finds room. Raises ``NoSpace``.

        A later call replaces the earlier one. Engines whose host has no such notion do nothing.
        """
        ...

    def used_bytes(self) -> int:
        """Bytes on the host that the records take."""
        ...

    def close(self) -> None:
        """Release the host's resources; what was not committed is gone."""
        ...
