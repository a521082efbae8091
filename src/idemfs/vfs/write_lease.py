"""The right of a primary to take changes, for stores that require a lease: it ends by itself.

A store requires one from the moment at which that is recorded in it, whoever opens it; so a process that nobody
renews a lease for takes no change. A change is accepted when it was looked at in time: it may become durable
later, and is then part of what this primary had.

Threads: ``until_ns`` is set by who renews, and looked at under the store's lock before every change.
"""

from __future__ import annotations

from collections.abc import Callable

from idemfs.errors import LeaseOver
from idemfs.format import lease
from idemfs.store.store import Store

_NS = 1_000_000_000


class WriteLease:
    """``until_ns``: on the clock that counts since boot. It has run out until it is extended."""

    __slots__ = ("_now_ns", "duration_ns", "is_over", "until_ns")

    def __init__(self, now_ns: Callable[[], int], duration_ns: int) -> None:
        self._now_ns = now_ns
        self.duration_ns = duration_ns
        self.until_ns = 0
        self.is_over = True
        """It was found to have run out; a change that is asked for then looks again before it takes up room."""

    def check(self) -> None:
        """Raises ``LeaseOver``."""
        if self._now_ns() < self.until_ns:
            self.is_over = False
            return
        self.is_over = True
        raise LeaseOver(
            f"the write lease of {self.duration_ns / _NS:g} s has run out, so this store takes no changes until it "
            "is renewed: 'idemfs serve' does that, as long as it reaches those who grant it"
        )

    def is_live(self) -> bool:
        return self._now_ns() < self.until_ns

    def extend(self, until_ns: int) -> None:
        """It is live until then, if that is later than what was known."""
        self.until_ns = max(self.until_ns, until_ns)

    def end(self) -> None:
        """No change is accepted from now on."""
        self.until_ns = 0
        self.is_over = True


def lease_of(store: Store) -> WriteLease | None:
    """What the store requires. Raises ``Damaged``."""
    duration_ns = lease.unpack_required(store.small.get(lease.REQUIRED))
    return None if duration_ns is None else WriteLease(store.clock.since_boot_ns, duration_ns)


def granted_until_ns(store: Store) -> int:
    """Until when what this store granted may be used, as far as a process knows that has just opened it."""
    granted = lease.unpack_granted(store.small.get(lease.GRANTED))
    return 0 if granted is None else store.clock.since_boot_ns() + granted.duration_ns
