"""Clones: writable filesets that are seen through to a snapshot of another fileset, their origin.

Invariant: a snapshot on which clones rest stays, and what it sees does not change. When it is deleted it loses
its name and is *pinned*; it goes when the last of its clones is deleted or promoted, in the group that says so.
A clone that is being deleted needs its origin no more.

Threads: under the store's lock.
"""

from __future__ import annotations

from idemfs.errors import FilesetInUse, SnapshotHeld
from idemfs.format.tables import COMPLETE, PINNED, SWEEPING, Fileset, Origin, Snapshot
from idemfs.ids import ROOT_FILESET, FilesetId
from idemfs.store.store import Store
from idemfs.versions import origin as origins
from idemfs.versions.active import Active


def clones_of(store: Store, snapshot: Snapshot) -> list[Fileset]:
    """The clones that rest on a snapshot: it must neither be written to nor go while there are any."""
    return [clone for clone in resting(store, snapshot.fileset) if _origin_id(clone) == snapshot.id]


def refuse_if_clones_rest(store: Store, snapshot: Snapshot) -> None:
    """Before what a snapshot sees changes. Raises ``SnapshotHeld``."""
    resting = clones_of(store, snapshot)
    names = ", ".join(clone.name for clone in resting)
    if resting and snapshot.state != COMPLETE:
        raise SnapshotHeld(
            f"deleted snapshot {snapshot.name!r} stays as it is for the clones that rest on it: {names}; "
            "'idemfs fileset promote' makes them independent of it, or delete them ('idemfs fileset delete')"
        )
    if resting:
        raise SnapshotHeld(
            f"clones rest on snapshot {snapshot.name!r} as it is: {names}; "
            "'idemfs fileset promote' makes them independent of it"
        )


def rest_on(store: Store, fileset: Fileset) -> bool:
    """Whether clones rest on snapshots of a fileset."""
    return bool(resting(store, fileset.number))


def resting(store: Store, fileset: FilesetId) -> list[Fileset]:
    """The clones that rest on snapshots of a fileset."""
    found = (store.catalog.filesets[number] for number in sorted(store.catalog.clones))
    return [clone for clone in found if _origin_id(clone) and clone.origin and clone.origin.fileset == fileset]


def _origin_id(clone: Fileset) -> int:
    """0 for what rests on nothing."""
    if clone.origin is None or clone.state != COMPLETE or clone.origin.state == SWEEPING:
        return 0
    return clone.origin.snapshot


def refuse_if_origin(store: Store, fileset: Fileset) -> None:
    """Raises ``FilesetInUse`` while clones rest on snapshots of a fileset that is to be deleted."""
    names = [clone.name for clone in resting(store, fileset.number)]
    if names:
        raise FilesetInUse(
            f"clones rest on snapshots of fileset {fileset.name!r}: {', '.join(names)}; 'idemfs fileset promote' makes "
            "them independent of it, or delete them first"
        )


def origin_of(store: Store, fileset: Fileset) -> tuple[str, bool] | None:
    """What names the snapshot that a clone was made from, and whether it was deleted; None for what is no clone."""
    origin = fileset.origin
    if origin is None or origin.state == SWEEPING or origin.fileset not in store.catalog.filesets:
        return None
    snapshot = store.catalog.snapshot(origin.fileset, origin.snapshot)
    where = "" if origin.fileset == ROOT_FILESET else f"{store.catalog.filesets[origin.fileset].name}@"
    return where + snapshot.name, snapshot.state != COMPLETE


def is_origin(store: Store, snapshot: Snapshot, fileset: FilesetId) -> bool:
    """Whether this fileset is a clone that rests on ``snapshot``."""
    clone = store.catalog.filesets.get(fileset)
    if clone is None or clone.origin is None or clone.origin.fileset != snapshot.fileset:
        return False
    return _origin_id(clone) == snapshot.id


def origin_snapshot(store: Store, fileset: FilesetId) -> Snapshot | None:
    """The snapshot that a fileset rests on, which may be pinned; None if it rests on nothing."""
    clone = store.catalog.filesets[fileset]
    if not _origin_id(clone) or clone.origin is None:
        return None
    return store.catalog.snapshot(clone.origin.fileset, clone.origin.snapshot)


def last_origin(store: Store, fileset: FilesetId) -> Snapshot | None:
    """The pinned snapshot that goes when this clone does, since no other rests on it."""
    snapshot = origin_snapshot(store, fileset)
    if snapshot is None or snapshot.state != PINNED or len(clones_of(store, snapshot)) > 1:
        return None
    return snapshot


def rest(active: Active, fileset: Fileset, snapshot: Snapshot, next_number: int) -> None:
    """An empty fileset has all that ``snapshot`` has, from the open group on; the caller has admitted three records.

    Inodes with ``next_number`` or a greater one will be its own.
    """
    store = active.store
    fileset.next_number = max(fileset.next_number, next_number)
    fileset.digest, fileset.inode_count = snapshot.digest, snapshot.inode_count
    store.catalog.set_origin(fileset, Origin(snapshot.fileset, snapshot.id, next_number))
    origins.begin(active, fileset)


def forsake(active: Active, clone: Fileset) -> Snapshot | None:
    """A clone that nobody has seen yet rests on nothing from the open group on, and is to be emptied. Settled, and
    nothing is kept in memory.

    Returns what ``let_go`` does.
    """
    store, origin = active.store, clone.origin
    if origin is None:
        return None
    store.catalog.set_origin(clone, None)
    origins.end(active, clone)
    return _no_more_needed(store, origin)


def _no_more_needed(store: Store, origin: Origin) -> Snapshot | None:
    snapshot = store.catalog.snapshot(origin.fileset, origin.snapshot)
    if snapshot.state != PINNED or clones_of(store, snapshot):
        return None
    store.catalog.end_snapshot(snapshot)
    return snapshot


def let_go(active: Active, clone: Fileset) -> Snapshot | None:
    """The clone rests on its origin no more, from the open group on; a snapshot that is to be deleted with that.

    Its record says so already: it is being deleted, or swept. The caller hands the snapshot to ``delete.finish``.
    """
    store, origin = active.store, clone.origin
    assert origin is not None
    origins.end(active, clone)
    origins.begin(active, clone)
    if origin.state == SWEEPING and clone.state != COMPLETE:
        # It had let go before.
        return None
    return _no_more_needed(store, origin)
