"""Which inode of which state a number of the kernel's means.

::

    number of an active inode (fileset · number)           the active file system; 1 is the root of the root fileset
    1 · snapshot id (28 bits) · number (35 bits)            an inode as a snapshot sees it
    1 · 0 (28 bits) · fileset (33 bits) · 1, 2, 3           .snapshots, .snapshots/latest, .snapshots/NAME/.snapshots

No number is ever reused, so nothing is kept for what the kernel knows, and forgetting costs nothing; of which fileset a
snapshot is, is remembered, and looked for if it is not. On a standby,
and in a mount of one snapshot, the root stands for that snapshot's root, and all below it has its numbers.

A mount of one fileset has that one's root as its own, and shows what lies below it.

Threads: any.
"""

from __future__ import annotations

import errno
import stat
from contextlib import suppress

from idemfs.errors import SnapshotMissing
from idemfs.format.inode import Inode
from idemfs.format.tables import COMPLETE, Snapshot
from idemfs.ids import ROOT_INO, ROOT_NUMBER, FilesetId, Ino, SnapshotId, fileset_of, make_ino, number_of
from idemfs.mount import wire
from idemfs.vfs.fileset_state import new_inode
from idemfs.vfs.fileset_tree import FilesetTree
from idemfs.vfs.names import SNAPSHOTS_NAME
from idemfs.vfs.reader import Reader, posix
from idemfs.vfs.received_reader import ReceivedReader
from idemfs.vfs.snapshot_tree import SnapshotTree
from idemfs.vfs.tree import Tree

SNAPSHOT_BIT = 1 << 63
ID_BITS, NUMBER_BITS = 28, 35
_NUMBER_MASK = (1 << NUMBER_BITS) - 1

ROOT = int(ROOT_INO)
FOLDER, LATEST, UP = 1, 2, 3
"""What the mount makes up for each fileset. The last one is, in the root of each snapshot, a link to ``..``: a dynamic
link is told the same way from there as from the root."""
_KIND_BITS = 2
_FIRST_IN_SNAPSHOTS = SNAPSHOT_BIT | 1 << NUMBER_BITS
UP_TARGET = b".."

FOLDER_NAME = SNAPSHOTS_NAME
_READER_COUNT_MAX = 1000

LONG_SECONDS = 3600
"""How long the kernel may believe what it was told: nobody else changes it, or else the kernel is told."""
SHORT_SECONDS = 1
"""The same for a kernel that cannot be told to forget all names, after a restore."""


def made_up(fileset: FilesetId, kind: int) -> int:
    """The kernel's number of what the mount makes up."""
    return SNAPSHOT_BIT | fileset << _KIND_BITS | kind


def kind_of(node: int) -> int:
    """``FOLDER``, ``LATEST`` or ``UP``; 0 for what is in the store."""
    return node & (1 << _KIND_BITS) - 1 if SNAPSHOT_BIT <= node < _FIRST_IN_SNAPSHOTS else 0


def fileset_of_made_up(node: int) -> FilesetId:
    return FilesetId((node & _NUMBER_MASK) >> _KIND_BITS)


def is_in_snapshot(node: int) -> bool:
    return node >= _FIRST_IN_SNAPSHOTS


class Nodes:
    """The numbers of one mount. ``snapshot``: the only one that is shown, if it is one."""

    def __init__(self, tree: Tree, snapshot: Snapshot | None = None) -> None:
        self.tree = tree
        self.active = tree.reader
        """What can be changed: the active file system, or in its place a snapshot that is mounted to be written to."""
        self.snapshot = snapshot
        self.fileset = tree.fileset if snapshot is None else snapshot.fileset
        """Whose root is shown at the root of the mount."""
        self._shows = tree.shows if isinstance(tree, FilesetTree) else None
        self._written = (tree.base if isinstance(tree, SnapshotTree) else tree).active.written
        self.seconds = LONG_SECONDS
        self.block_size = min(tree.store.block_size, wire.WRITE_SIZE_MAX)
        self._readers: dict[int, Reader] = {}
        self._filesets: dict[int, FilesetId] = {}
        """Of snapshots that the kernel may have been told of."""

    @property
    def shows_active(self) -> bool:
        return self.snapshot is None and self.tree.shows_active

    def place(self, node: int) -> tuple[Reader, Ino]:
        """Raises ``OSError`` (ESTALE)."""
        if node < SNAPSHOT_BIT:
            if self.shows_active:
                return self.active, self.ino(node)
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
                return shown, self._shown(make_ino(fileset, number))
        reader = self.snapshot_reader(snapshot_id)
        return reader, self._shown(make_ino(reader.fileset, number))

    def folder_at(self, node: int) -> int:
        """The number of ``.snapshots`` in a directory, the root of a fileset; 0 for others, which have none."""
        if node == ROOT:
            return made_up(self.fileset, FOLDER)
        is_root = node < SNAPSHOT_BIT and number_of(Ino(node)) == ROOT_NUMBER and self.shows_active
        return made_up(fileset_of(Ino(node)), FOLDER) if is_root else 0

    def root_of(self, fileset: FilesetId) -> int:
        """The number of the directory that ``.snapshots`` is in."""
        return ROOT if fileset == self.fileset else int(make_ino(fileset, ROOT_NUMBER))

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

    def _snapshot(self, number: SnapshotId) -> Snapshot:
        """Raises ``SnapshotMissing``."""
        catalog = self.tree.store.catalog
        known = self._filesets.get(number)
        if known is not None and known in catalog.filesets:
            return catalog.snapshot(known, number)
        for fileset in (self.fileset, *catalog.filesets):
            with suppress(SnapshotMissing):
                found = catalog.snapshot(fileset, number)
                self._filesets[number] = fileset
                return found
        raise SnapshotMissing(f"snapshot {number} does not exist any more")

    def changing(self, node: int) -> Ino:
        """The active inode of this number, to be changed. Raises ``OSError`` (EROFS)."""
        if node >= SNAPSHOT_BIT or self.snapshot is not None:
            raise posix(errno.EROFS)
        if not self.shows_active:
            self.tree.refuse_unless_primary()
        return self.ino(node)

    def ino(self, node: int) -> Ino:
        """Of the kernel's number of what can be changed. The root may be that of any fileset.

        Raises ``OSError`` (ESTALE).
        """
        return self.tree.root if node == ROOT else self._shown(Ino(node))

    def _shown(self, ino: Ino) -> Ino:
        """``ino``, if its fileset is shown: a file handle may name anything. Raises ``OSError`` (ESTALE)."""
        if self._shows is not None and not self._shows(ino):
            raise posix(errno.ESTALE)
        return ino

    def is_written_elsewhere(self, reader: Reader) -> bool:
        """Whether this is a snapshot that is open for writing, by another mount, by other names of this one, or by a
        command: the kernel then keeps nothing of it."""
        return reader is not self.active and reader.snapshot is not None and reader.snapshot.id in self._written

    def number(self, reader: Reader, ino: Ino) -> int:
        """The kernel's number of an inode in this state. Raises ``OSError`` (EOVERFLOW)."""
        if reader is self.active:
            return ROOT if ino == reader.root else int(ino)
        snapshot = reader.snapshot_of(ino)
        if snapshot is None:
            return int(ino)
        number = int(number_of(ino))
        if snapshot.id >> ID_BITS or number >> NUMBER_BITS:
            raise posix(errno.EOVERFLOW, "this snapshot or inode has a number that the mount cannot show")
        self._filesets[snapshot.id] = snapshot.fileset
        return SNAPSHOT_BIT | snapshot.id << NUMBER_BITS | number

    def inode(self, node: int) -> Inode:
        """What the kernel's number names. Raises ``OSError`` (ENOENT, ESTALE)."""
        if kind_of(node):
            return self._made_up(node)
        reader, ino = self.place(node)
        try:
            return reader.inode(ino)
        except FileNotFoundError:
            if node == ROOT and not self.shows_active:
                return new_inode(stat.S_IFDIR | 0o555, 0, 0, self.tree.store.superblock.created_ns)
            raise

    def is_empty(self, node: int) -> bool:
        """Whether it is the root of a standby that has received nothing yet: it has a mode, and no more."""
        if node != ROOT or self.shows_active:
            return False
        reader, ino = self.place(node)
        return reader.view.inode(ino) is None

    def _made_up(self, node: int) -> Inode:
        """``.snapshots`` belongs to the store's owner: who may write there takes and deletes snapshots."""
        kind, fileset = kind_of(node), fileset_of_made_up(node)
        with self.tree.store.lock:
            snapshots = self.snapshots(fileset)
            root = self.tree.reader.view.inode(make_ino(fileset, ROOT_NUMBER))
        time = max((each.created_ns for each in snapshots), default=self.tree.store.superblock.created_ns)
        mode = stat.S_IFDIR | 0o755 if kind == FOLDER else stat.S_IFLNK | 0o777
        made = new_inode(mode, root.uid if root else 0, root.gid if root else 0, time)
        if kind == FOLDER:
            made.size = len(snapshots)
        else:
            newest = None if kind == UP else self.tree.newest_snapshot(fileset)
            made.size = len(newest.name.encode()) if newest is not None else len(UP_TARGET)
        made.nlink = 2 + len(snapshots) if kind == FOLDER else 1
        return made

    def snapshots(self, fileset: FilesetId) -> list[Snapshot]:
        """Those that a fileset shows. Raises ``OSError`` (ESTALE) for one that is no more, or that is not shown."""
        self._shown(make_ino(fileset, ROOT_NUMBER))
        found = self.tree.store.catalog.filesets.get(fileset)
        if found is None or found.state != COMPLETE:
            raise posix(errno.ESTALE, "the fileset was deleted")
        return self.tree.store.catalog.snapshots(fileset)

    def attributes(self, node: int) -> bytes:
        """``struct fuse_attr`` of the kernel's number."""
        return self.pack(node, *self.place(node)) if node != ROOT and not kind_of(node) else self._pack_special(node)

    def _pack_special(self, node: int) -> bytes:
        if node == ROOT and self.shows_active:
            return self.pack(node, self.active, self.ino(node))
        inode = self.inode(node)
        return wire.attributes(inode, node, inode.size, 0, self.block_size)

    def pack(self, node: int, reader: Reader, ino: Ino) -> bytes:
        return self.told(node, reader, ino)[1]

    def told(self, node: int, reader: Reader, ino: Ino) -> tuple[int, bytes]:
        """For how many seconds the kernel may believe the attributes, and they."""
        with reader.store.lock:
            inode = reader.inode(ino)
            seconds, size = 0 if self.is_written_elsewhere(reader) else self.seconds, inode.size
            if inode.is_dynamic:
                seconds, size = 0, reader.shown_size(ino, inode)
            return seconds, wire.attributes(inode, node, size, reader.sector_count(ino, inode), self.block_size)

    def entry(self, reader: Reader, ino: Ino) -> bytes:
        """``struct fuse_entry_out`` of an inode that was looked up, created or linked."""
        node = self.number(reader, ino)
        # Below a root that moves forward, a name leads elsewhere from one moment to the next.
        seconds = self.seconds if self.snapshot is not None or reader.snapshot is None or self.shows_active else 0
        if self.is_written_elsewhere(reader):
            seconds = 0
        return wire.entry_out(node, seconds, *self.told(node, reader, ino))

    def attr(self, node: int) -> bytes:
        """``struct fuse_attr_out`` of the kernel's number."""
        if node != ROOT and not kind_of(node):
            return wire.attr_out(*self.told(node, *self.place(node)))
        is_steady = node == ROOT and self.shows_active
        return wire.attr_out(self.seconds if is_steady else 0, self._pack_special(node))
