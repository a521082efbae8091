"""Which inode of which state a number of the kernel's means.

::

    number of an active inode (fileset · number)           the active file system; 1 is the root of the root fileset
    1 · snapshot id (28 bits) · number (35 bits)            an inode as a snapshot sees it
    1 · 0 (28 bits) · 1, 2, 3                               .snapshots, .snapshots/latest, .snapshots/NAME/.snapshots

No number is ever reused, so nothing is kept for what the kernel knows, and forgetting costs nothing. On a standby,
and in a mount of one snapshot, the root stands for that snapshot's root, and all below it has its numbers.

Threads: any.
"""

from __future__ import annotations

import errno
import stat

from idemfs.errors import SnapshotMissing
from idemfs.format.inode import Inode
from idemfs.format.role import Role
from idemfs.format.tables import Snapshot
from idemfs.ids import ROOT_INO, ROOT_NUMBER, Ino, SnapshotId, make_ino, number_of
from idemfs.mount import wire
from idemfs.vfs.fileset_state import new_inode
from idemfs.vfs.reader import Reader, posix
from idemfs.vfs.received_reader import ReceivedReader
from idemfs.vfs.tree import Tree

SNAPSHOT_BIT = 1 << 63
ID_BITS, NUMBER_BITS = 28, 35
_NUMBER_MASK = (1 << NUMBER_BITS) - 1

ROOT = int(ROOT_INO)
FOLDER = SNAPSHOT_BIT | 1
LATEST = SNAPSHOT_BIT | 2
UP = SNAPSHOT_BIT | 3
"""In the root of each snapshot, a link to ``..``: a dynamic link is told the same way from there as from the root."""
UP_TARGET = b".."
MADE_UP = (FOLDER, LATEST, UP)

FOLDER_NAME = b".snapshots"
_READER_COUNT_MAX = 1000

LONG_SECONDS = 3600
"""How long the kernel may believe what it was told: nobody else changes it, or else the kernel is told."""
SHORT_SECONDS = 1
"""The same for a kernel that cannot be told to forget all names, after a restore."""


class Nodes:
    """The numbers of one mount. ``snapshot``: the only one that is shown, if it is one."""

    def __init__(self, tree: Tree, snapshot: Snapshot | None = None) -> None:
        self.tree = tree
        self.active = tree.reader
        self.snapshot = snapshot
        self.fileset = tree.fileset if snapshot is None else snapshot.fileset
        """Whose snapshots are shown."""
        self.seconds = LONG_SECONDS
        self._block_size = min(tree.store.block_size, wire.WRITE_SIZE_MAX)
        self._readers: dict[int, Reader] = {}

    @property
    def shows_active(self) -> bool:
        return self.snapshot is None and self.tree.role.role is not Role.STANDBY

    def place(self, node: int) -> tuple[Reader, Ino]:
        """Raises ``OSError`` (ESTALE)."""
        if node < SNAPSHOT_BIT:
            if self.shows_active:
                return self.active, Ino(node)
            if node != ROOT:
                raise posix(errno.ESTALE)
            reader = self.shown_reader()
            return reader, reader.root
        snapshot_id = SnapshotId(node >> NUMBER_BITS & (1 << ID_BITS) - 1)
        number = number_of(Ino(node & _NUMBER_MASK))
        if self.snapshot is None and not self.shows_active:
            shown = self.shown_reader()
            fileset = shown.fileset_at(snapshot_id) if isinstance(shown, ReceivedReader) else None
            if fileset is not None:
                return shown, make_ino(fileset, number)
        reader = self.snapshot_reader(snapshot_id)
        return reader, make_ino(reader.fileset, number)

    def shown_reader(self) -> Reader:
        """What the root shows when it is not the active file system."""
        if self.snapshot is not None:
            return self.snapshot_reader(self.snapshot.id)
        return self.tree.newest_reader()

    def snapshot_reader(self, number: int) -> Reader:
        reader = self._readers.get(number)
        if reader is None:
            with self.tree.store.lock:
                try:
                    snapshot = self._snapshot(SnapshotId(number))
                except SnapshotMissing:
                    raise posix(errno.ESTALE) from None
                if len(self._readers) >= _READER_COUNT_MAX:
                    self._readers.clear()
                reader = self._readers[number] = self.tree.snapshot_reader(snapshot)
        return reader

    def _snapshot(self, snapshot_id: SnapshotId) -> Snapshot:
        """Of the fileset whose snapshots are shown; on a standby also of one that appears in it. The ids of a store
        are all different."""
        catalog = self.tree.store.catalog
        if self.snapshot is None and not self.shows_active:
            for fileset in catalog.junctions.values():
                if any(each.id == snapshot_id for each in catalog.snapshots(fileset)):
                    return catalog.snapshot(fileset, snapshot_id)
        return catalog.snapshot(self.fileset, snapshot_id)

    def changing(self, node: int) -> Ino:
        """The active inode of this number, to be changed. Raises ``OSError`` (EROFS)."""
        if node >= SNAPSHOT_BIT or self.snapshot is not None:
            raise posix(errno.EROFS)
        if not self.shows_active:
            self.tree.refuse_unless_primary()
        return Ino(node)

    def number(self, reader: Reader, ino: Ino) -> int:
        """The kernel's number of an inode in this state. Raises ``OSError`` (EOVERFLOW)."""
        snapshot = reader.snapshot_of(ino)
        if snapshot is None:
            return int(ino)
        number = int(number_of(ino))
        if snapshot.id >> ID_BITS or number >> NUMBER_BITS:
            raise posix(errno.EOVERFLOW, "this snapshot or inode has a number that the mount cannot show")
        return SNAPSHOT_BIT | snapshot.id << NUMBER_BITS | number

    def inode(self, node: int) -> Inode:
        """What the kernel's number names. Raises ``OSError`` (ENOENT, ESTALE)."""
        if node in MADE_UP:
            return self._made_up(node)
        reader, ino = self.place(node)
        try:
            return reader.inode(ino)
        except FileNotFoundError:
            if node == ROOT and not self.shows_active:
                return new_inode(stat.S_IFDIR | 0o555, 0, 0, self.tree.store.superblock.created_ns)
            raise

    def _made_up(self, node: int) -> Inode:
        """``.snapshots`` belongs to the store's owner: who may write there takes and deletes snapshots."""
        with self.tree.store.lock:
            snapshots = self.tree.store.catalog.snapshots(self.fileset)
            root = self.tree.reader.view.inode(make_ino(self.fileset, ROOT_NUMBER))
        time = max((each.created_ns for each in snapshots), default=self.tree.store.superblock.created_ns)
        mode = stat.S_IFDIR | 0o755 if node == FOLDER else stat.S_IFLNK | 0o777
        made = new_inode(mode, root.uid if root else 0, root.gid if root else 0, time)
        if node == FOLDER:
            made.size = len(snapshots)
        else:
            newest = None if node == UP else self.tree.newest_snapshot(self.fileset)
            made.size = len(newest.name.encode()) if newest is not None else len(UP_TARGET)
        made.nlink = 2 + len(snapshots) if node == FOLDER else 1
        return made

    def attributes(self, node: int) -> bytes:
        """``struct fuse_attr`` of the kernel's number."""
        return self.pack(node, *self.place(node)) if node not in (*MADE_UP, ROOT) else self._pack_special(node)

    def _pack_special(self, node: int) -> bytes:
        if node == ROOT and self.shows_active:
            return self.pack(node, self.active, Ino(node))
        inode = self.inode(node)
        return wire.attributes(inode, node, inode.size, 0, self._block_size)

    def pack(self, node: int, reader: Reader, ino: Ino) -> bytes:
        return self._told(node, reader, ino)[1]

    def _told(self, node: int, reader: Reader, ino: Ino) -> tuple[int, bytes]:
        """For how many seconds the kernel may believe the attributes, and they."""
        with reader.store.lock:
            inode = reader.inode(ino)
            seconds, size = self.seconds, inode.size
            if inode.is_dynamic:
                seconds, size = 0, reader.shown_size(ino, inode)
            return seconds, wire.attributes(inode, node, size, reader.sector_count(ino, inode), self._block_size)

    def entry(self, reader: Reader, ino: Ino) -> bytes:
        """``struct fuse_entry_out`` of an inode that was looked up, created or linked."""
        node = self.number(reader, ino)
        # Below a root that moves forward, a name leads elsewhere from one moment to the next.
        seconds = self.seconds if self.snapshot is not None or reader.snapshot is None or self.shows_active else 0
        return wire.entry_out(node, seconds, *self._told(node, reader, ino))

    def attr(self, node: int) -> bytes:
        """``struct fuse_attr_out`` of the kernel's number."""
        if node not in (*MADE_UP, ROOT):
            return wire.attr_out(*self._told(node, *self.place(node)))
        is_steady = node == ROOT and self.shows_active
        return wire.attr_out(self.seconds if is_steady else 0, self._pack_special(node))
