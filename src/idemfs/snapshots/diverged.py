"""Snapshots that this store alone had when it came to follow another one, and that nobody has released yet. Records::

    Cs snapshot    released(1) · epoch(8) · id of the common snapshot(8), all little-endian

*Epoch* is the one in which the store had its role before. What diverged is never pruned, nor is the common snapshot
that it is told apart from, until a user releases it by name; both can be deleted by name at any time. A record stays as
long as its snapshot: one that was released is not reported again, and is still none of the primary's.

Threads: under the store's lock; what is put is part of the open group.
"""

from __future__ import annotations

from struct import Struct, error
from typing import NamedTuple

from idemfs.errors import Damaged
from idemfs.format import keys
from idemfs.format.tables import COMPLETE, Snapshot
from idemfs.ids import NO_SNAPSHOT, FilesetId, SnapshotId
from idemfs.limits import SCAN_COUNT
from idemfs.store.store import Store

_LAYOUT = Struct("<BQQ")


class Mark(NamedTuple):
    """``since``: the common snapshot, or ``NO_SNAPSHOT``: there was none."""

    epoch: int
    since: SnapshotId = NO_SNAPSHOT
    is_released: bool = False


def pack(mark: Mark) -> bytes:
    return _LAYOUT.pack(mark.is_released, mark.epoch, mark.since)


def unpack(value: bytes) -> Mark:
    """Raises ``Damaged``."""
    try:
        is_released, epoch, since = _LAYOUT.unpack(value)
    except error as bad:
        raise Damaged("the mark of a snapshot that diverged is damaged") from bad
    return Mark(epoch, SnapshotId(since), bool(is_released))


def of(store: Store, snapshot: Snapshot) -> Mark | None:
    value = store.small.get(keys.diverged(snapshot.id))
    return None if value is None else unpack(value)


def marks(store: Store) -> dict[SnapshotId, Mark]:
    """Of all filesets, those that were released included."""
    found: dict[SnapshotId, Mark] = {}
    start, end = keys.diverged_range()
    while pairs := store.small.scan(start, end, SCAN_COUNT):
        found.update((SnapshotId(int.from_bytes(key[2:], "big")), unpack(value)) for key, value in pairs)
        start = pairs[-1][0] + b"\0"
    return found


def unreleased(store: Store) -> list[tuple[Snapshot, Mark]]:
    """What is to be reported, fileset by fileset, oldest first."""
    known = {snapshot_id: mark for snapshot_id, mark in marks(store).items() if not mark.is_released}
    if not known:
        return []
    return [
        (snapshot, known[snapshot.id])
        for fileset in store.catalog.listed_filesets()
        for snapshot in store.catalog.snapshots(fileset.number)
        if snapshot.id in known
    ]


def kept(store: Store) -> dict[SnapshotId, str]:
    """Why no rule may delete a snapshot: it diverged, or what diverged is told apart from it."""
    found: dict[SnapshotId, str] = {}
    for snapshot_id, mark in marks(store).items():
        if not mark.is_released:
            found[snapshot_id] = f"diverged in epoch {mark.epoch}, and not released"
            if mark.since:
                found.setdefault(mark.since, "what diverged and is not released began there")
    return found


def put_newer(store: Store, fileset: FilesetId, since: Snapshot | None, epoch: int) -> None:
    """All snapshots of a fileset that are newer than ``since`` diverged. The caller has admitted a record for each."""
    for snapshot in newer(store, fileset, since):
        if of(store, snapshot) is None:
            put(store, snapshot, Mark(epoch, NO_SNAPSHOT if since is None else since.id))


def newer(store: Store, fileset: FilesetId, since: Snapshot | None) -> list[Snapshot]:
    return [each for each in store.catalog.snapshots(fileset) if since is None or each.id > since.id]


def put(store: Store, snapshot: Snapshot, mark: Mark) -> None:
    store.small.put(keys.diverged(snapshot.id), pack(mark))


def release(store: Store, snapshot: Snapshot) -> bool:
    """It is like any other from now on; whether it was not so before. The caller has admitted a record."""
    mark = of(store, snapshot)
    if mark is None or mark.is_released or snapshot.state != COMPLETE:
        return False
    put(store, snapshot, mark._replace(is_released=True))
    return True


def forget(store: Store, snapshot: Snapshot) -> None:
    """The snapshot goes. The caller has admitted a record."""
    if store.small.get(keys.diverged(snapshot.id)) is not None:
        store.small.put(keys.diverged(snapshot.id), None)
