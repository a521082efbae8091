"""How much content a store has that a snapshot of it has not: what is at risk, or still to be sent, in bytes.

No data is read: blocks count by the part of them that lies inside their file, whatever they compress to.

Threads: under the store's lock, a page of records at a time.
"""

from __future__ import annotations

from idemfs.format import keys
from idemfs.format.inode import Inode, unpack
from idemfs.ids import Guid, Ino, SnapshotId
from idemfs.limits import INDIRECT_ENTRY_COUNT
from idemfs.snapshots.changes import changed_inodes
from idemfs.versions.resolve import View
from idemfs.versions.state import ActiveView, tail_size
from idemfs.vfs.tree import Tree


def bytes_since(tree: Tree, guid: Guid | None) -> int:
    """Bytes of content in the active state that the snapshot ``guid`` has not; all of them without one."""
    with tree.store.lock:
        base = tree.store.catalog.by_guid(tree.fileset, guid) if guid else None
        if base is None:
            return _all_bytes(tree)
        return _bytes_since(tree, base.id)


def _bytes_since(tree: Tree, base: SnapshotId) -> int:
    view, older = ActiveView(tree.active), View(tree.active, base)
    total = 0
    for ino, _ in changed_inodes(tree.store, tree.fileset, base, None):
        node = view.inode(ino)
        if node is not None:
            before = older.inode(ino)
            total += _file_bytes(tree, ino, node, before, older)
    return total


def _file_bytes(tree: Tree, ino: Ino, node: Inode, before: Inode | None, older: View) -> int:
    if not node.is_file or node.is_inline:
        return 0 if before is not None and before.data == node.data else len(node.data)
    kept = before if before is not None and before.is_file and not before.is_inline else None
    total = 0
    for index in ActiveView(tree.active).map_indexes(ino, node.size):
        now = tree.active.map(ino, index)
        then = older.file_map(ino, kept, index) if kept else None
        for entry, address, _ in now.real_entries():
            number = index * INDIRECT_ENTRY_COUNT + entry
            size = tail_size(node.size, number, tree.store.block_size)
            if then is None or then.get(entry)[0] != address:
                total += size
    return total


def _all_bytes(tree: Tree) -> int:
    view = ActiveView(tree.active)
    total = 0
    for key, value in view.records(*keys.fileset_range(tree.fileset)):
        if key[8:9] != keys.INODE:
            continue
        node = unpack(value)
        if not node.is_file or node.is_inline:
            total += len(node.data)
            continue
        for index in view.map_indexes(keys.ino_of(key), node.size):
            block = tree.active.map(keys.ino_of(key), index)
            numbers = (index * INDIRECT_ENTRY_COUNT + entry for entry, _, _ in block.real_entries())
            total += sum(tail_size(node.size, number, tree.store.block_size) for number in numbers)
    return total
