"""Which records may differ between two states of a fileset: those that the snapshots from the base on own.

No tree is walked: the cost follows what changed. Records that only grew (appended
blocks) are not named, but their inode is.

Threads: under the store's lock; the caller has settled the open group.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from itertools import groupby

from idemfs.format import keys
from idemfs.ids import FilesetId, Ino, SnapshotId
from idemfs.limits import SCAN_COUNT
from idemfs.store.store import Store

_PAGE_KEY_COUNT_MIN = 16
"""Of each owner: with many of them, pages are small, so that together they are about as large as one."""


def changed_inodes(
    store: Store, fileset: FilesetId, base: SnapshotId, target: SnapshotId | None, after: Ino = Ino(-1)
) -> Iterator[tuple[Ino, list[bytes]]]:
    """Inodes greater than ``after`` with their changed keys, ascending; ``target`` None is the active state."""
    for ino, changed in changed_groups(store, fileset, base, target, after):
        yield ino, list(changed)


def changed_groups(
    store: Store, fileset: FilesetId, base: SnapshotId, target: SnapshotId | None, after: Ino = Ino(-1)
) -> Iterator[tuple[Ino, Iterator[bytes]]]:
    """As ``changed_inodes``, but the keys of an inode are fetched as they are asked for: a directory may have millions.

    They are gone when the next inode is asked for.
    """
    owners = [
        snapshot.id
        for snapshot in store.catalog.all_snapshots(fileset)
        if snapshot.id >= base and (target is None or snapshot.id < target)
    ]
    limit = max(_PAGE_KEY_COUNT_MIN, SCAN_COUNT // max(1, len(owners)))
    streams = [_owned_keys(store, owner, after, limit) for owner in owners]
    for ino, group in groupby(heapq.merge(*streams), key=keys.ino_of):
        yield ino, (key for key, _ in groupby(group))


def _owned_keys(store: Store, owner: SnapshotId, after: Ino, limit: int) -> Iterator[bytes]:
    start, end = keys.owned_range(owner)
    if after >= 0:
        start = keys.owned(owner, keys.ino_range(after)[1])
    while pairs := store.owned.scan(start, end, limit):
        for key, _ in pairs:
            yield key[8:]
        if len(pairs) < limit:
            return
        start = pairs[-1][0] + b"\0"
