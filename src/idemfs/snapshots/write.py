"""Who may write to a snapshot, and what a crash left of somebody who did.

A file that is unlinked in a snapshot while it is open there stays until it is closed, or until the store is opened
again: a ``W`` record names it. If the snapshot is held or locked meanwhile, or cloned, it stays as long as
that: a snapshot that must not change does not.

Threads: under the store's lock.
"""

from __future__ import annotations

from idemfs.errors import SnapshotError, SnapshotHeld, SnapshotLocked, SnapshotMissing
from idemfs.format import keys
from idemfs.format.tables import COMPLETE, Snapshot
from idemfs.ids import FilesetId, Ino, SnapshotId, fileset_of
from idemfs.limits import INDIRECT_ENTRY_COUNT, SCAN_COUNT
from idemfs.snapshots import manage
from idemfs.snapshots.clones import refuse_if_clones_rest
from idemfs.store.store import Store
from idemfs.versions.active import Active
from idemfs.versions.resolve import View
from idemfs.versions.shadows import block_bytes
from idemfs.versions.writing import Writing

_RECORDS, _BYTES = 100, 1 << 18
_MAP_BYTES = 20_000
"""What a full indirect block of a snapshot and of the next older one takes."""


def refuse_changing(active: Active, snapshot: Snapshot) -> None:
    """Before the content of a snapshot changes. Raises ``SnapshotHeld``, ``SnapshotLocked``, ``SnapshotMissing``."""
    refuse_if_kept(active.store, snapshot)
    refuse_if_open(active, snapshot)


def refuse_if_open(active: Active, snapshot: Snapshot) -> None:
    """Raises ``SnapshotError``."""
    if snapshot.id in active.written:
        raise SnapshotError(f"snapshot {snapshot.name!r} is open for writing already; end that first")


def refuse_if_kept(store: Store, snapshot: Snapshot) -> None:
    """Raises ``SnapshotHeld``, ``SnapshotLocked``, ``SnapshotMissing``."""
    if snapshot.state != COMPLETE:
        raise SnapshotMissing(f"snapshot {snapshot.name!r} was deleted")
    until_ns = manage.locked_until(store, snapshot)
    if until_ns > store.clock.now_ns():
        raise SnapshotLocked(
            f"snapshot {snapshot.name!r} is locked: nobody can change it before {manage.show_time(until_ns)}; "
            "restore it, and take a snapshot of that to change instead"
        )
    owners = manage.holders(store, snapshot)
    if any(owner.startswith("standby:") for owner in owners):
        raise SnapshotHeld(
            f"snapshot {snapshot.name!r} is what the next change set of a standby begins from ({', '.join(owners)}), "
            "so it cannot change; bring the standby to a newer one first: 'idemfs snapshot create', 'idemfs replicate'"
        )
    if owners:
        raise SnapshotHeld(
            f"snapshot {snapshot.name!r} is held by {', '.join(owners)} as it is; 'idemfs snapshot release' lets it go"
        )
    refuse_if_clones_rest(store, snapshot)


def resume(active: Active) -> None:
    """Remove files that were open when their last name in a snapshot went, and nobody closed.

    A snapshot that must not change keeps them, nameless, until the store is opened when it may.
    """
    store = active.store
    start, end = keys.prefix_range(keys.SNAPSHOT_ORPHAN)
    while pairs := store.small.scan(start, end, SCAN_COUNT):
        for key, _ in pairs:
            snapshot_id, ino = keys.snapshot_orphan_parts(key)
            with store.lock:
                snapshot = _find(store, fileset_of(ino), snapshot_id)
                if snapshot is not None and not _may_change(store, snapshot):
                    continue
                node = None if snapshot is None else View(active, snapshot.id).inode(ino)
                map_count = 0 if node is None else block_bytes(node) // (INDIRECT_ENTRY_COUNT * store.block_size) + 1
                store.admit(_RECORDS + 5 * map_count, _BYTES + _MAP_BYTES * map_count, frees=True)
                store.small.put(key, None)
                if snapshot is not None and node is not None and not node.nlink:
                    _remove(active, snapshot, ino)
        start = pairs[-1][0] + b"\0"


def _may_change(store: Store, snapshot: Snapshot) -> bool:
    try:
        refuse_if_kept(store, snapshot)
    except SnapshotError:
        return False
    return True


def _find(store: Store, fileset: FilesetId, snapshot_id: SnapshotId) -> Snapshot | None:
    if fileset not in store.catalog.filesets:
        return None
    return next((each for each in store.catalog.snapshots(fileset) if each.id == snapshot_id), None)


def _remove(active: Active, snapshot: Snapshot, ino: Ino) -> None:
    writing = Writing(active, snapshot)
    try:
        writing.remove_inode(ino)
    finally:
        writing.close()
