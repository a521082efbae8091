"""How much space comes back when a set of snapshots is deleted: exactly what ``delete`` would free, without doing it.

Extents count in whole sectors. Records are not counted: the room that they leave is used again
by the store, and not given back to the host.

Threads: under the store's lock; the caller has settled the open group, or has opened the store to read.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from itertools import groupby

from idemfs.format import indirect, keys
from idemfs.format.address import HOLE, sector_count_of
from idemfs.ids import Address, FilesetId, SnapshotId
from idemfs.limits import SCAN_COUNT, SECTOR_SIZE
from idemfs.snapshots.clones import clones_of
from idemfs.store.store import Store
from idemfs.versions import rule, state
from idemfs.versions.active import Active
from idemfs.versions.resolve import View


def bytes_freed(active: Active, gone: Mapping[FilesetId, Collection[SnapshotId]]) -> int:
    """What the host gets back if just the snapshots ``gone`` of each fileset are deleted, in whatever order."""
    given_up: Counter[Address] = Counter()
    for fileset, snapshots in gone.items():
        _give_up_all(active, fileset, snapshots, given_up)
    sectors = sum(
        sector_count_of(address)
        for address, count in given_up.items()
        # A shared extent is free when the last record that names it has given it up.
        if address != HOLE and count >= active.store.space.reference_count(address)
    )
    return sectors * SECTOR_SIZE


def _give_up_all(active: Active, fileset: FilesetId, gone: Collection[SnapshotId], given_up: Counter[Address]) -> None:
    """What the snapshots ``gone`` of one fileset give up."""
    # Those that clones rest on stay, without their names.
    gone = [each for each in gone if not clones_of(active.store, active.store.catalog.snapshot(fileset, each))]
    heirs = _heirs(active.store, fileset, gone)
    streams = [_owned_blocks(active.store, snapshot) for snapshot in gone]
    for key, group in groupby(heapq.merge(*streams), key=lambda pair: pair[0]):
        _give_up(active, key, [snapshot for _, snapshot in group], heirs, given_up)


def _heirs(store: Store, fileset: FilesetId, gone: Collection[SnapshotId]) -> dict[SnapshotId, SnapshotId | None]:
    """For each snapshot that goes, the next older one that stays."""
    heirs: dict[SnapshotId, SnapshotId | None] = {}
    heir = None
    for snapshot in store.catalog.all_snapshots(fileset):
        if snapshot.id in gone:
            heirs[snapshot.id] = heir
        else:
            heir = snapshot.id
    return heirs


def _owned_blocks(store: Store, snapshot: SnapshotId) -> Iterator[tuple[bytes, SnapshotId]]:
    start, end = keys.owned_range(snapshot)
    while pairs := store.owned.scan(start, end, SCAN_COUNT):
        for key, _ in pairs:
            if keys.kind_of(key[8:]) == keys.BLOCK:
                yield key[8:], snapshot
        start = pairs[-1][0] + b"\0"


def _give_up(
    active: Active,
    key: bytes,
    owners: list[SnapshotId],
    heirs: dict[SnapshotId, SnapshotId | None],
    given_up: Counter[Address],
) -> None:
    """What one indirect block gives up; ``owners`` are those of its versions that go, oldest first."""
    store = active.store
    for heir, group in groupby(owners, key=lambda owner: heirs[owner]):
        kept, count = indirect.ShadowBlock(), 0
        if heir is not None:
            value = store.shadow.get(keys.shadow(key, heir))
            if value is not None:
                kept = indirect.unpack_shadow(value)
            node = View(active, heir).inode(keys.ino_of(key))
            count = state.entry_count(store, node, keys.index_of(key)) if node else 0
        for owner in group:
            shadow = indirect.unpack_shadow(store.shadow.get(keys.shadow(key, owner)) or b"")
            outcome = rule.hand_down(shadow.entries, kept.entries, count)
            kept.entries.update(outcome.moved)
            given_up.update(outcome.freed)
