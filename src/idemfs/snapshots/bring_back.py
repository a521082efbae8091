"""Make the active file system what a snapshot has: *restore* (any snapshot, newer ones stay) and *rollback*.

A restore first takes a snapshot that undoes it, then shares the addresses of the
restored snapshot. A rollback goes back to the newest snapshot, which then gives up what it
owned, so that its addresses have moved. Neither copies data, but for the tail block of a file
that somebody appended to. Both can be interrupted, and go on when the store is opened.

Threads: the store's lock is held for one inode at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from idemfs.errors import DamagedBlock, NoSpace
from idemfs.format import indirect, keys
from idemfs.format.address import sector_count_of
from idemfs.format.inode import Inode, unpack
from idemfs.format.tables import Snapshot
from idemfs.ids import FilesetId, Ino, SnapshotId
from idemfs.limits import INDIRECT_ENTRY_COUNT, SECTOR_SIZE
from idemfs.snapshots import delete, manage
from idemfs.snapshots.changes import changed_inodes
from idemfs.store.store import Store
from idemfs.versions import state
from idemfs.versions.active import Active
from idemfs.versions.resolve import View

_RESTORE = keys.replication("restore")
_ROLLBACK = keys.replication("rollback")
_UNDO = keys.replication("undo")
"""The snapshot that holds the state before the restore that is under way."""


def restore(active: Active, snapshot: Snapshot, undo_name: str | None = None) -> Snapshot:
    """Make the active state that of ``snapshot``; the snapshot to undo it with. Durable on return.

    Raises ``SnapshotExists`` for an ``undo_name`` that is taken, ``CommitFailed``, and ``OSError``, most often
    ``NoSpace``; then all is as it was before.
    """
    store = active.store
    with store.exclusive():
        name = undo_name or manage.unique_name(store, snapshot.fileset, f"before-restore-{snapshot.name}"[:180])
        # crash: a restore that fits into one group is there as a whole, or not at all. Of a larger one the first
        # group has the snapshot to undo it with and the mark by which the next opening goes on.
        undo = manage.begin_group_with(store, snapshot.fileset, name)
        store.small.put(_UNDO, undo.id.to_bytes(8, "big"))
        _mark(active, snapshot)
        try:
            _restore_all(active, snapshot)
        except OSError:
            _give_up(active, undo)
            raise
        return undo


def go_back(active: Active, snapshot: Snapshot) -> None:
    """As ``restore`` without a snapshot to undo it: what no snapshot holds is gone. Durable on return."""
    store = active.store
    with store.exclusive():
        store.admit(1, 100)
        with _to_its_end(store):
            _mark(active, snapshot)
            store.commit(wait=False)
            _restore_all(active, snapshot)


def _mark(active: Active, snapshot: Snapshot) -> None:
    """From the open group on, the active state is on its way to ``snapshot``."""
    value = snapshot.fileset.to_bytes(2, "big") + snapshot.id.to_bytes(8, "big")
    active.store.small.put(_RESTORE, value)


def _restore_all(active: Active, snapshot: Snapshot) -> None:
    """The open group has changed no inode yet, so that the tables tell what is to be brought back."""
    store = active.store
    view = View(active, snapshot.id)
    for ino, changed in changed_inodes(store, snapshot.fileset, snapshot.id, None):
        bring_back_inode(active, view, ino, changed)
    _detach(active, snapshot.fileset)
    store.admit(2, 200)
    store.small.put(_RESTORE, None)
    store.small.put(_UNDO, None)
    store.commit()


def _detach(active: Active, parent: FilesetId) -> None:
    """Filesets whose junction is there no more appear nowhere: the inode number may come back as something else."""
    catalog = active.store.catalog
    for fileset in catalog.children(parent):
        node = active.inode(fileset.junction)
        if node is None or not node.is_dir or not node.nlink or node.size:
            active.store.admit(1, 500)
            catalog.change_fileset(fileset, junction=Ino(0))


def _give_up(active: Active, undo: Snapshot) -> None:
    """A restore cannot go on, most often for want of room: back to what was before it, which the host holds already."""
    rollback(active, undo.fileset)
    delete.delete(active, undo)


def rollback(active: Active, fileset: FilesetId) -> None:
    """Undo every change since the newest snapshot; durable on return. There is one."""
    store = active.store
    with store.exclusive():
        newest = store.catalog.filesets[fileset].newest
        assert newest, "a rollback needs a snapshot to go back to"
        snapshot = store.catalog.snapshot(fileset, newest)
        store.admit(3, 300, frees=True)
        store.small.put(_ROLLBACK, fileset.to_bytes(2, "big") + newest.to_bytes(8, "big"))
        # A restore that is given up.
        store.small.put(_RESTORE, None)
        store.small.put(_UNDO, None)
        store.commit(wait=False)
        # A hole in the tail block that was filled past the size since then is remembered as the hole that it reads as;
        # the address that stands there now is the one to compare with.
        active.resolved.clear()
        active.shadows.is_rolling_back = True
        with _to_its_end(store):
            try:
                _roll_back_all(active, snapshot)
            finally:
                active.shadows.is_rolling_back = False
            store.admit(1, 100, frees=True)
            store.small.put(_ROLLBACK, None)
            active.resolved.clear()
            store.commit()


@contextmanager
def _to_its_end(store: Store) -> Iterator[None]:
    """Nothing else is changed when it fails halfway; it goes on when the store is opened again."""
    try:
        yield
    except BaseException as failure:
        store.stop(failure)
        raise


def _roll_back_all(active: Active, snapshot: Snapshot) -> None:
    waiting: list[tuple[Ino, list[bytes]]] = []
    for ino, changed in changed_inodes(active.store, snapshot.fileset, snapshot.id, None):
        try:
            _roll_back_inode(active, snapshot, ino, changed)
        except NoSpace:
            waiting.append((ino, changed))
    for ino, changed in waiting:
        # The others have freed space, and so does each of these.
        active.store.commit()
        _roll_back_inode(active, snapshot, ino, changed)


def _roll_back_inode(active: Active, snapshot: Snapshot, ino: Ino, changed: list[bytes]) -> None:
    view = View(active, snapshot.id)
    target = view.inode(ino)
    bring_back_inode(active, view, ino, changed, frees=True)
    _disown(active, snapshot, ino, changed, target)


def resume(active: Active) -> None:
    """Go on with what a crash interrupted."""
    store = active.store
    value = store.small.get(_RESTORE)
    if value is not None:
        fileset, snapshot_id = _target(value)
        undo_id = store.small.get(_UNDO)
        with store.exclusive():
            try:
                store.commit(wait=False)
                _restore_all(active, store.catalog.snapshot(fileset, snapshot_id))
            except OSError:
                if undo_id is None:
                    raise
                _give_up(active, store.catalog.snapshot(fileset, SnapshotId(int.from_bytes(undo_id, "big"))))
    value = store.small.get(_ROLLBACK)
    if value is not None:
        rollback(active, _target(value)[0])


def pending(store: Store) -> Snapshot | None:
    """The snapshot that ``resume`` will bring the active state to, when the store is opened to write."""
    value = store.small.get(_RESTORE) or store.small.get(_ROLLBACK) or store.small.get(keys.UNDOING)
    return None if value is None else store.catalog.snapshot(*_target(value))


def _target(value: bytes) -> tuple[FilesetId, SnapshotId]:
    return FilesetId(int.from_bytes(value[:2], "big")), SnapshotId(int.from_bytes(value[2:], "big"))


def bring_back_inode(active: Active, view: View, ino: Ino, changed: list[bytes], *, frees: bool = False) -> None:
    """Give one inode and its changed records the state that ``view`` has, preserving like any change.

    Raises ``NoSpace``; the inode may be half brought back then, and is brought back by trying again.
    """
    store = active.store
    block_count = sum(key[8:9] == keys.BLOCK for key in changed)
    store.admit(4 * len(changed) + 20, 4 * sum(map(len, changed)) + 20_000 * block_count + (1 << 17), frees=frees)
    target = view.inode(ino)
    current = active.inode(ino)
    if target is None:
        if current is not None:
            active.remove_inode(ino)
            store.small.put(keys.orphan(ino), None)
        return
    if current is None:
        fresh = unpack(target.pack())
        fresh.sectors = 0
        active.insert_inode(ino, fresh)
    node = active.change_inode(ino)
    _bring_back_blocks(active, view, ino, node, target, changed, frees)
    for key in changed:
        if key[8:9] not in (keys.INODE, keys.BLOCK):
            value = view.version(key)
            if value is None:
                active.delete_record(key, node)
            else:
                active.put_record(key, value, node)
    _copy_portable(target, node)
    store.small.put(keys.orphan(ino), None if target.nlink else b"")


def _bring_back_blocks(
    active: Active, view: View, ino: Ino, node: Inode, target: Inode, changed: list[bytes], frees: bool
) -> None:
    store = active.store
    block_size = store.block_size
    has_blocks = target.is_file and not target.is_inline
    active.drop_blocks(ino, node, -(-target.size // block_size) if has_blocks else 0)
    if not has_blocks:
        return
    for key in changed:
        if key[8:9] != keys.BLOCK:
            continue
        index = keys.index_of(key)
        wanted = view.file_map(ino, target, index)
        present = active.map(ino, index).copy()
        for entry in range(max(len(wanted.addresses), len(present.addresses))):
            address, checksum = wanted.get(entry)
            if present.get(entry)[0] != address:
                store.space.share(address)
                number = index * INDIRECT_ENTRY_COUNT + entry
                active.set_block(ino, node, number, address, checksum, number * block_size)
    trim_tail(active, ino, node, target, frees)


def trim_tail(active: Active, ino: Ino, node: Inode, target: Inode, frees: bool) -> None:
    """Active blocks hold nothing past the size of their file: the one block that a restore may have to write."""
    store = active.store
    number = target.size // store.block_size
    inside = state.tail_size(target.size, number, store.block_size)
    if not inside:
        return
    address, checksum = active.block(ino, number)
    if not state.holds_more(address, inside):
        return
    try:
        content = store.data.read(address, checksum)
    except DamagedBlock:
        # Nobody reads it, so nobody sees what lies past the end; and an order to go back must come to its end.
        return
    if len(content) > inside:
        new_address, new_checksum = store.data.write(content[:inside], frees=frees)
        active.set_block(ino, node, number, new_address, new_checksum, target.size)


def _copy_portable(source: Inode, node: Inode) -> None:
    for field in ("mode", "uid", "gid", "nlink", "rdev", "size", "mtime", "ctime", "btime", "flags"):
        setattr(node, field, getattr(source, field))
    node.parent, node.name, node.data = source.parent, source.name, source.data


def _disown(active: Active, snapshot: Snapshot, ino: Ino, changed: list[bytes], target: Inode | None) -> None:
    """The newest snapshot's versions of one inode stand in the active file system now, which shares their extents."""
    for key in changed:
        if key[8:9] == keys.BLOCK:
            value = active.store.shadow.get(keys.shadow(key, snapshot.id))
            if value is not None:
                for address, _ in indirect.unpack_shadow(value).entries.values():
                    snapshot.data_bytes -= sector_count_of(address) * SECTOR_SIZE
                    active.store.free(address)
        active.shadows.drop(key, snapshot)
    if target is not None:
        node = active.change_inode_kept(ino)
        node.birth, node.seen = target.birth, target.seen
        # At once, since the snapshot looks through its ditto at the record, not at what waits in memory.
        active.records.put(keys.inode(ino), node.pack())
