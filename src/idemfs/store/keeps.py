"""Holds and locks of all snapshots at once, for listings: two short scans, whatever the number of snapshots.

Plain, since listing snapshots must not wait for imports. Threads: under the store's lock, or without a store.
"""

from __future__ import annotations

from idemfs.format import keys
from idemfs.ids import SnapshotId
from idemfs.limits import SCAN_COUNT
from idemfs.store.records import Records

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


class Keep:
    """What keeps one snapshot from being deleted; some of it may have expired."""

    __slots__ = ("holds", "locked_until_ns")

    def __init__(self) -> None:
        self.locked_until_ns = 0
        self.holds: list[tuple[str, int]] = []
        """Owner, and when the hold expires in ns."""


def read_keeps(small: Records) -> dict[SnapshotId, Keep]:
    """Of snapshots that have any."""
    found: dict[SnapshotId, Keep] = {}
    for key, value in _records(small, b"L"):
        keep = found.setdefault(_snapshot_of(key), Keep())
        keep.locked_until_ns = int.from_bytes(value, "little")
    for key, value in _records(small, b"H"):
        keep = found.setdefault(_snapshot_of(key), Keep())
        keep.holds.append((key[9:].decode(), int.from_bytes(value, "little")))
    return found


def _snapshot_of(key: bytes) -> SnapshotId:
    return SnapshotId(int.from_bytes(key[1:9], "big"))


def _records(small: Records, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
    start, end = keys.prefix_range(prefix)
    while pairs := small.scan(start, end, SCAN_COUNT):
        yield from pairs
        if len(pairs) < SCAN_COUNT:
            return
        start = pairs[-1][0] + b"\0"
