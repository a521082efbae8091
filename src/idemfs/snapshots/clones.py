"""Clones: writable filesets that are seen through to a snapshot of another fileset, their origin.

Invariant: a snapshot on which clones rest stays, and what it sees does not change. When it is deleted it loses
its name and is *pinned*; it goes when the last of its clones is deleted or promoted, in the group that says so.
A clone that is being deleted needs its origin no more.

Threads: under the store's lock.
"""

from __future__ import annotations

from idemfs.errors import FilesetInUse, SnapshotHeld
from idemfs.format.tables import COMPLETE, PINNED, SWEEPING, Fileset, Snapshot
from idemfs.ids import ROOT_FILESET, FilesetId
from idemfs.store.store import Store
from idemfs.versions import origin as origins
from idemfs.versions.active import Active


def clones_of(store: Store, snapshot: Snapshot) -> list[Fileset]:
    """The clones that rest on a snapshot: it must neither be written to nor go while there are any."""
    return [clone for clone in _resting(store, snapshot.fileset) if _origin_id(clone) == snapshot.id]


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


def _resting(store: Store, fileset: FilesetId) -> list[Fileset]:
    """All that rest on snapshots of a fileset."""
    found = (store.catalog.filesets[number] for number in sorted(store.catalog.clones))
    return [clone for clone in found if _origin_id(clone) and clone.origin and clone.origin.fileset == fileset]


def _origin_id(clone: Fileset) -> int:
    """0 for what rests on nothing."""
    if clone.origin is None or clone.state != COMPLETE or clone.origin.state == SWEEPING:
        return 0
    return clone.origin.snapshot


def have_clones(store: Store, fileset: Fileset) -> bool:
    """Whether clones rest on snapshots of a fileset."""
    return bool(_resting(store, fileset.number))


def refuse_if_origin(store: Store, fileset: Fileset) -> None:
    """Raises ``FilesetInUse`` while clones rest on snapshots of a fileset that is to be deleted."""
    names = [clone.name for clone in _resting(store, fileset.number)]
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
    snapshot = store.catalog.snapshot(origin.fileset, origin.snapshot)
    if snapshot.state != PINNED or clones_of(store, snapshot):
        return None
    store.catalog.end_snapshot(snapshot)
    return snapshot
