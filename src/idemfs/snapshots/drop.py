"""Delete a fileset: its snapshots, oldest first, which hand nothing down, then its active records.

The work goes in steps, each atomic. A fileset that is being deleted has neither a name nor a place where it appears;
what is left of it is found by its number, so that a crash between two steps loses nothing.

Threads: the store's lock is held for one step at a time.
"""

from __future__ import annotations

from idemfs.errors import NoSpace, SnapshotHeld
from idemfs.format import keys
from idemfs.format.tables import COMPLETE, DELETING, Fileset, Snapshot
from idemfs.limits import FREEING_BYTES, FREEING_RECORD_COUNT, SCAN_COUNT
from idemfs.snapshots import clones, delete, drills, manage
from idemfs.store.store import Store
from idemfs.versions.active import Active

_STEP_RECORD_COUNT = 1024
_STEP_BLOCK_COUNT = 32
"""Indirect blocks, each of which frees up to 512 extents."""
_STEP_BYTES = 2 << 20
_SMALL_STEP_RECORD_COUNT = FREEING_RECORD_COUNT // 5
_SMALL_STEP_BYTES = FREEING_BYTES * 3 // 4


def resume(active: Active) -> None:
    """Finish the deletions that a crash interrupted."""
    for fileset in list(active.store.catalog.filesets.values()):
        if fileset.state == DELETING:
            finish(active, fileset)


def begin(active: Active, fileset: Fileset) -> Snapshot | None:
    """From the open group on the fileset goes; a snapshot that goes with it, since it was the last clone of that.

    The caller commits, and hands the fileset to ``finish`` and the snapshot to ``delete.finish``.
    """
    drills.forget(active.store, fileset.number)
    active.store.catalog.end_fileset(fileset)
    return None if fileset.origin is None else clones.let_go(active, fileset)


def finish(active: Active, fileset: Fileset) -> None:
    """Carry a deletion that has begun to its end; what it gives back comes with the next group.

    Raises ``NoSpace``, ``CommitFailed``; then it has freed what it could, and goes on when the store is opened again.
    """
    store = active.store
    for snapshot in store.catalog.all_snapshots(fileset.number):
        with store.lock:
            store.admit(4, 2000, frees=True)
            if snapshot.state == COMPLETE:
                store.catalog.end_snapshot(snapshot)
        delete.finish(active, snapshot)
    while _step(active, fileset):
        pass
    with store.lock:
        # The digest of the last records is taken off before the record that has it goes.
        store.commit(wait=False)
        if fileset.origin is not None:
            # Inodes that were seen through have no record that went.
            active.settle(forgets=True)
        store.admit(12, 12_000, frees=True)
        for key, _ in store.small.scan(*keys.fileset_replication_range(fileset.number), SCAN_COUNT):
            store.small.put(key, None)
        for key_of in (keys.policy, keys.schedule_state, keys.hooks):
            key = key_of(fileset.number)
            if store.small.get(key) is not None:
                store.small.put(key, None)
        store.catalog.remove_fileset(fileset)


def empty(active: Active, fileset: Fileset) -> None:
    """Free all that a fileset without snapshots holds; it stays. May be interrupted, and done again."""
    store = active.store
    while _step(active, fileset):
        pass
    with store.lock:
        store.commit(wait=False)
        active.settle(forgets=True)
        store.admit(2, 1000)
        # Also if it was a clone, whose sums began with those of its origin.
        fileset.digest = fileset.inode_count = fileset.sectors = fileset.record_bytes = 0
        store.catalog.changed_fileset(fileset.number)


def _step(active: Active, fileset: Fileset) -> bool:
    """Free some active records; whether there were any."""
    store = active.store
    with store.lock:
        count = _admit_step(store)
        # Both may let others in, who may still have files open there.
        while active.settle():
            count = _admit_step(store)
        pairs = store.active.scan(*keys.fileset_range(fileset.number), count)
        blocks = 0
        for key, _ in pairs:
            blocks += keys.kind_of(key) == keys.BLOCK
            active.drop_record(key)
            if blocks == _STEP_BLOCK_COUNT:
                break
        if not pairs:
            for key, _ in store.small.scan(*keys.orphan_range(fileset.number), count):
                store.small.put(key, None)
                pairs.append((key, b""))
        return bool(pairs)


def _admit_step(store: Store) -> int:
    """How many records the next step may free: fewer on a host that is full."""
    try:
        store.admit(2 * _STEP_RECORD_COUNT, _STEP_BYTES, frees=True)
        return _STEP_RECORD_COUNT
    except NoSpace:
        store.admit(2 * _SMALL_STEP_RECORD_COUNT, _SMALL_STEP_BYTES, frees=True)
        return _SMALL_STEP_RECORD_COUNT


def locked_snapshots(store: Store, fileset: Fileset) -> list[str]:
    """Names of its snapshots that nobody may delete yet."""
    now_ns = store.clock.now_ns()
    return [each.name for each in store.catalog.snapshots(fileset.number) if manage.locked_until(store, each) > now_ns]


def held_snapshots(store: Store, fileset: Fileset) -> list[str]:
    """Names of its snapshots that cannot be deleted."""
    names = []
    for snapshot in store.catalog.snapshots(fileset.number):
        try:
            manage.refuse_if_held(store, snapshot)
        except SnapshotHeld:
            names.append(snapshot.name)
    return names
