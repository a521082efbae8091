"""How much content the active state of a fileset has that one of its snapshots has not, in bytes.

No data is read: blocks count by the part of them that lies inside their file, whatever they compress to.

Threads: under the store's lock, or taking it for one inode at a time (``estimate``, ``reaches``).
"""

from __future__ import annotations

from collections.abc import Iterator

from idemfs.format import keys
from idemfs.format.inode import Inode, unpack
from idemfs.ids import FilesetId, Ino, SnapshotId
from idemfs.limits import INDIRECT_ENTRY_COUNT
from idemfs.snapshots.changes import changed_inodes
from idemfs.versions.active import Active
from idemfs.versions.resolve import View
from idemfs.versions.state import ActiveView, tail_size


def bytes_since(active: Active, fileset: FilesetId, base: SnapshotId | None) -> int:
    """Bytes of content in the active state that the snapshot ``base`` has not; all of them without one."""
    return sum(_sizes(active, fileset, base))


def estimate(active: Active, fileset: FilesetId, base: SnapshotId | None) -> int:
    """As ``bytes_since``, while others change what is measured: they are let in all the while."""
    return sum(_patiently(active, fileset, base))


def reaches(active: Active, fileset: FilesetId, base: SnapshotId | None, enough: int) -> bool:
    """Whether ``bytes_since`` is ``enough`` or more; it looks no further then, and lets others in all the while."""
    total = 0
    for size in _patiently(active, fileset, base):
        total += size
        if total >= enough:
            return True
    return enough <= 0


def _patiently(active: Active, fileset: FilesetId, base: SnapshotId | None) -> Iterator[int]:
    """``_sizes``, taking the lock for one at a time."""
    store = active.store
    with store.lock:
        if not store.readonly:
            active.settle()
        sizes = _sizes(active, fileset, base)
    while True:
        with store.lock:
            size = next(sizes, None)
        if size is None:
            return
        yield size


def _sizes(active: Active, fileset: FilesetId, base: SnapshotId | None) -> Iterator[int]:
    """What each inode adds."""
    if base is None:
        yield from _all_sizes(active, fileset)
        return
    view, older = ActiveView(active), View(active, base)
    for ino, _ in changed_inodes(active.store, fileset, base, None):
        node = view.inode(ino)
        if node is not None:
            yield _file_bytes(active, ino, node, older.inode(ino), older)


def _file_bytes(active: Active, ino: Ino, node: Inode, before: Inode | None, older: View) -> int:
    if not node.is_file or node.is_inline:
        return 0 if before is not None and before.data == node.data else len(node.data)
    kept = before if before is not None and before.is_file and not before.is_inline else None
    total = 0
    for index in ActiveView(active).map_indexes(ino, node.size):
        now = active.map(ino, index)
        then = older.file_map(ino, kept, index) if kept else None
        for entry, address, _ in now.real_entries():
            number = index * INDIRECT_ENTRY_COUNT + entry
            size = tail_size(node.size, number, active.store.block_size)
            if then is None or then.get(entry)[0] != address:
                total += size
    return total


def _all_sizes(active: Active, fileset: FilesetId) -> Iterator[int]:
    view = ActiveView(active)
    for key, value in view.records(*keys.fileset_range(fileset)):
        if key[8:9] != keys.INODE:
            continue
        node = unpack(value)
        if not node.is_file or node.is_inline:
            yield len(node.data)
            continue
        for index in view.map_indexes(keys.ino_of(key), node.size):
            block = active.map(keys.ino_of(key), index)
            numbers = (index * INDIRECT_ENTRY_COUNT + entry for entry, _, _ in block.real_entries())
            yield sum(tail_size(node.size, number, active.store.block_size) for number in numbers)
