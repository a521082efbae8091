"""Delete a snapshot: what the next older one sees through it is handed down, the rest is freed.

Any order. The cost follows what the snapshot owns. The work goes in steps, each
atomic; a snapshot that is being deleted has no name any more but still takes part in
resolving until its last record is gone, so that a crash between two steps loses nothing.

Threads: the store's lock is held for one step at a time.
"""

from __future__ import annotations

from idemfs.errors import NoSpace, SnapshotMissing
from idemfs.format import indirect, keys
from idemfs.format.address import HOLE, sector_count_of
from idemfs.format.indirect import ShadowBlock
from idemfs.format.inode import ABSENT
from idemfs.format.tables import COMPLETE, DELETING, Snapshot
from idemfs.ids import Ino
from idemfs.limits import FREEING_BYTES, FREEING_RECORD_COUNT, INDIRECT_ENTRY_COUNT, SECTOR_SIZE
from idemfs.snapshots.clones import clones_of
from idemfs.snapshots.manage import drop_holds, refuse_if_held
from idemfs.store.store import Store
from idemfs.versions import rule, state
from idemfs.versions.active import Active
from idemfs.versions.resolve import View

_STEP_RECORD_COUNT = 256
_STEP_BYTES = 2 << 20
_SMALL_STEP_RECORD_COUNT = FREEING_RECORD_COUNT // 5
_SMALL_STEP_BYTES = FREEING_BYTES * 3 // 4


def delete(active: Active, snapshot: Snapshot, *, wait: bool = True) -> None:
    """Delete ``snapshot``. What it gives back comes with the next group; with ``wait`` it is durable on return that it
    goes, else that comes with the next group, too.

    One that clones rest on loses its name, and goes with the last of them.
    Raises ``SnapshotHeld``, ``SnapshotMissing``, ``NoSpace``, ``CommitFailed``. Without space it has begun, has
    freed what it could, and goes on when the store is opened again.
    """
    store = active.store
    with store.lock:
        store.admit(2, 1000, frees=True)
        # After admitting, which may have let others in.
        refuse_if_held(store, snapshot)
        if snapshot.state != COMPLETE:
            raise SnapshotMissing(f"snapshot {snapshot.name!r} is being deleted already")
        if clones_of(store, snapshot):
            # Clones see through to it. It goes with the last of them.
            store.catalog.pin_snapshot(snapshot)
            store.commit()
            return
        store.catalog.end_snapshot(snapshot)
        if wait:
            # crash: from here on the deletion happens, now or when the store is opened again.
            store.commit(until_freed=False)
    finish(active, snapshot)


def resume(active: Active) -> None:
    """Finish the deletions that a crash interrupted."""
    for fileset in active.store.catalog.filesets_with_deletions():
        for snapshot in active.store.catalog.all_snapshots(fileset):
            if snapshot.state == DELETING:
                finish(active, snapshot)
        active.store.catalog.has_no_deletions(fileset)


def finish(active: Active, snapshot: Snapshot) -> None:
    """Carry a deletion that has begun to its end."""
    store = active.store
    while True:
        with store.lock:
            record_count, size_max = _admit_step(store)
            # Both may let others in, whose changes must be settled before records are moved.
            while active.settle():
                record_count, size_max = _admit_step(store)
            if not store.catalog.has_snapshot(snapshot):
                # Its fileset was deleted meanwhile, and it went with it.
                return
            if not _step(active, snapshot, record_count, size_max):
                drop_holds(store, snapshot)
                store.catalog.remove_snapshot(snapshot)
                active.resolved.clear()
                return


def _admit_step(store: Store) -> tuple[int, int]:
    """How many records, of how many bytes together, the next step may hand down: fewer on a host that is full."""
    try:
        store.admit(4 * _STEP_RECORD_COUNT, _STEP_BYTES, frees=True)
        return _STEP_RECORD_COUNT, _STEP_BYTES // 2
    except NoSpace:
        store.admit(4 * _SMALL_STEP_RECORD_COUNT, _SMALL_STEP_BYTES, frees=True)
        return _SMALL_STEP_RECORD_COUNT, _SMALL_STEP_BYTES // 2


def _step(active: Active, snapshot: Snapshot, record_count: int, size_max: int) -> bool:
    """Hand down some records; whether there were any."""
    store = active.store
    pairs = store.owned.scan(*keys.owned_range(snapshot.id), record_count)
    older = store.catalog.next_older(snapshot.fileset, snapshot.id)
    hand_down = _HandDown(active, snapshot, older)
    size = 0
    for owned_key, _ in pairs:
        size += hand_down.record(owned_key[8:])
        if size > size_max:
            break
    return bool(pairs)


class _HandDown:
    """The records of one step, in key order."""

    def __init__(self, active: Active, snapshot: Snapshot, older: Snapshot | None) -> None:
        self._active = active
        self._store = active.store
        self._snapshot = snapshot
        self._older = older
        self._view = View(active, older.id) if older else None
        self._ino = Ino(-1)

    def record(self, key: bytes) -> int:
        """Hand down or free one record; the bytes of its value."""
        ino = keys.ino_of(key)
        if ino != self._ino:
            self._ino = ino
            # Looked up before the inode's own record is handed down; the answer is the same after it.
            self._node = self._view.inode(ino) if self._view else None
        value = self._store.shadow.get(keys.shadow(key, self._snapshot.id)) or b""
        if key[8:9] == keys.BLOCK:
            self._block(key, indirect.unpack_shadow(value))
        elif self._older and self._is_wanted(key, value, self._older):
            if self._store.shadow.get(keys.shadow(key, self._older.id)) is None:
                self._active.shadows.put(key, self._older, value)
        self._active.shadows.drop(key, self._snapshot)
        return len(value)

    def _is_wanted(self, key: bytes, value: bytes, older: Snapshot) -> bool:
        """Whether the older snapshot, or through it one that is older still, sees this version.

        What an inode got after it had been brought back is absent for all who saw it before it went.
        """
        if key[8:9] == keys.INODE or self._node is not None:
            return True
        return value == ABSENT and self._active.shadows.is_seen(self._ino, older.id)

    def _block(self, key: bytes, shadow: ShadowBlock) -> None:
        kept = ShadowBlock()
        count = hole_count = 0
        if self._older:
            value = self._store.shadow.get(keys.shadow(key, self._older.id))
            if value is not None:
                kept = indirect.unpack_shadow(value)
            index = keys.index_of(key)
            count = state.entry_count(self._store, self._node, index) if self._node else 0
            if any(entry >= count and address == HOLE for entry, (address, _) in shadow.entries.items()):
                size = self._active.shadows.largest_size(self._ino, self._older.id)
                hole_count = rule.entry_count(
                    size, self._store.block_size, index * INDIRECT_ENTRY_COUNT, INDIRECT_ENTRY_COUNT
                )
        outcome = rule.hand_down(shadow.entries, kept.entries, count, hole_count)
        for address in outcome.freed:
            self._store.free(address)
        if outcome.moved and self._older:
            kept.entries.update(outcome.moved)
            self._active.shadows.put(key, self._older, kept.pack())
            self._older.data_bytes += sum(sector_count_of(a) for a, _ in outcome.moved.values()) * SECTOR_SIZE
        self._snapshot.data_bytes -= sum(sector_count_of(a) for a, _ in shadow.entries.values()) * SECTOR_SIZE
