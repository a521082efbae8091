"""Promote a clone: it is given all that it still sees through its origin, and needs it no more.

Records are copied, extents are shared, no data is copied but the tail block of a file that somebody appended to in the
origin's fileset. The work goes in steps, each atomic, and others may use the clone meanwhile: what they see is the
same before and after each. The clone's record says that it is being promoted, then that it is
being swept of marks of absence, so that a crash between two steps loses nothing.

Threads: the store's lock is held for one step at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from idemfs.errors import DamagedBlock, NoSpace
from idemfs.format import indirect, keys
from idemfs.format.address import sector_count_of
from idemfs.format.indirect import PartialBlock
from idemfs.format.tables import COMPLETE, PROMOTING, RESTING, SWEEPING, Fileset, Origin
from idemfs.ids import Ino
from idemfs.limits import INDIRECT_ENTRY_COUNT
from idemfs.snapshots import delete
from idemfs.snapshots.clones import let_go
from idemfs.versions import through
from idemfs.versions.active import Active
from idemfs.versions.origin import end, own_tail, source
from idemfs.versions.state import ActiveView

_STEP_RECORD_COUNT = 256
_STEP_RECORD_BYTES = 1 << 20
_MAP_RECORD_COUNT = INDIRECT_ENTRY_COUNT + 16
_MAP_BYTES = 40_000


def promote(active: Active, clone: Fileset) -> None:
    """Durable on return. Raises ``NoSpace``, ``CommitFailed``; then it goes on when the store is opened again."""
    store = active.store
    with store.lock:
        store.admit(2, 500)
        if clone.state != COMPLETE or clone.origin is None:
            return
        if clone.origin.state == RESTING:
            clone.origin.state = PROMOTING
            store.catalog.changed_fileset(clone.number)
            # crash: from here on the clone is promoted, now or when the store is opened again.
            store.commit()
    _finish(active, clone)


def resume(active: Active) -> None:
    """Finish what a crash interrupted, if there is room; what there is not waits for the next opening."""
    for number in sorted(active.store.catalog.clones):
        clone = active.store.catalog.filesets[number]
        if clone.state == COMPLETE and clone.origin is not None and clone.origin.state != RESTING:
            with suppress(NoSpace):
                _finish(active, clone)


def _finish(active: Active, clone: Fileset) -> None:
    store = active.store
    at: bytes | None
    if _state(clone) == PROMOTING:
        at = keys.fileset_range(clone.number)[0]
        while at is not None and _state(clone) == PROMOTING:
            at = _take_over(active, clone, at)
        with store.lock:
            store.commit(wait=False)
            store.admit(6, 1000)
            if _state(clone) != PROMOTING:
                return
            _sweep_from_now_on(active, clone)
    at = keys.fileset_range(clone.number)[0]
    while at is not None and _state(clone) == SWEEPING:
        at = _sweep(active, clone, at)
    with store.lock:
        # The last marks leave the sums while it is known that they are marks.
        store.commit(wait=False)
        store.admit(2, 500)
        if _state(clone) == SWEEPING:
            store.catalog.set_origin(clone, None)
            end(active, clone)
        store.commit()


def _state(clone: Fileset) -> int:
    """RESTING too for what is no clone any more, or is being deleted."""
    return RESTING if clone.state != COMPLETE or clone.origin is None else clone.origin.state


def _sweep_from_now_on(active: Active, clone: Fileset) -> None:
    """Everything is the clone's own."""
    store, origin = active.store, clone.origin
    assert origin is not None
    store.catalog.set_origin(clone, Origin(origin.fileset, origin.snapshot, origin.next_number, SWEEPING))
    gone = let_go(active, clone)
    # crash: the origin may go from here on, and with this the clone is known not to need it.
    store.commit()
    if gone is not None:
        delete.finish(active, gone)


def _take_over(active: Active, clone: Fileset, at: bytes) -> bytes | None:
    """Some records from ``at`` on; the key to go on from, or None."""
    store = active.store
    with store.lock:
        store.admit(2 * _STEP_RECORD_COUNT, _STEP_RECORD_BYTES)
        if _state(clone) != PROMOTING:
            return None
        pairs, after = source(active, clone).page(at, keys.fileset_range(clone.number)[1], _STEP_RECORD_COUNT // 4)
        size = 0
        files: list[Ino] = []
        for key, value in pairs:
            if size > _STEP_RECORD_BYTES // 2:
                after = key
                break
            size += len(key) + len(value)
            ino = keys.ino_of(key)
            if keys.kind_of(key) == keys.INODE:
                files.append(ino)
            elif store.active.get_own(key) is None:
                store.active.put(key, value)
    for ino in files:
        _take_over_inode(active, clone, ino)
    return after


def _take_over_inode(active: Active, clone: Fileset, ino: Ino) -> None:
    store = active.store
    done = -1
    while True:
        with store.lock:
            store.admit(_MAP_RECORD_COUNT, _MAP_BYTES)
            node = active.inode(ino)
            if node is None or _state(clone) != PROMOTING:
                return
            with suppress(DamagedBlock):
                # What nobody can read is shared as it is.
                own_tail(active, ino, node)
            index = next(iter(source(active, clone).map_indexes(ino, done + 1, 1)), None)
            if index is None:
                node.sectors = sum(_sectors(active, ino))
                if not node.nlink:
                    store.small.put(keys.orphan(ino), b"")
                # As when it is read: nothing is preserved, and its record is the clone's own.
                active.touch_atime(ino, node.atime)
                return
            done = index
            _take_over_map(active, ino, index)


def _take_over_map(active: Active, ino: Ino, index: int) -> None:
    block = active.own_map(ino, index)
    if not isinstance(block, PartialBlock):
        return
    origin = through.origin_map(active, ino, index)
    for entry, address, checksum in [] if origin is None else origin.real_entries():
        if entry not in block.entries:
            active.store.space.share(address)
            through.own_block(active, block, ino, (index, entry), (address, checksum))
    active.change_map(ino, index)


def _sectors(active: Active, ino: Ino) -> Iterator[int]:
    """Of the extents of one file."""
    node = active.inode(ino)
    if node is None or not node.is_file or node.is_inline:
        return
    for index in ActiveView(active).map_indexes(ino, node.size):
        yield from (sector_count_of(address) for _, address, _ in active.map(ino, index).real_entries())


def _sweep(active: Active, clone: Fileset, at: bytes) -> bytes | None:
    """Remove marks of absence from some records from ``at`` on; the key to go on from, or None.

    No new ones are made meanwhile, since there is nothing beneath any more.
    """
    store = active.store
    with store.lock:
        store.admit(2 * _STEP_RECORD_COUNT, _STEP_RECORD_BYTES, frees=True)
        while active.settle():
            store.admit(2 * _STEP_RECORD_COUNT, _STEP_RECORD_BYTES, frees=True)
        if _state(clone) != SWEEPING:
            return None
        pairs = store.active.scan_own(at, keys.fileset_range(clone.number)[1], _STEP_RECORD_COUNT)
        for key, value in pairs:
            if not value or (value == indirect.NO_BLOCKS and keys.kind_of(key) == keys.BLOCK):
                store.active.put(key, None)
        return pairs[-1][0] + b"\0" if len(pairs) == _STEP_RECORD_COUNT else None
