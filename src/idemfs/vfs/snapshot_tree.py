"""A snapshot that is open for writing, with the methods of ``Tree``.

Every operation is written through when it ends, so that whoever reads the snapshot sees it: nothing of it waits in
memory for the group to be sealed. Nothing is told to the log of synced writes, which is the active file system's; so
``sync_file`` commits. Access times are not noted. What the fileset's quota of bytes counts of its snapshots, it counts
here; a quota of inodes is of the active file system alone.

Threads: as in ``namespace``.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import suppress
from functools import partial, wraps
from typing import Concatenate, ParamSpec, TypeVar

from idemfs.errors import CommitFailed, NoSpace, SnapshotHeld, SnapshotMissing
from idemfs.format import keys
from idemfs.format.inode import Inode
from idemfs.format.tables import SNAPSHOTS_COUNT, Snapshot
from idemfs.ids import ROOT_NUMBER, Address, Ino, make_ino
from idemfs.limits import INDIRECT_ENTRY_COUNT
from idemfs.snapshots import write as writing_rules
from idemfs.versions.writing import Writing, WritingView
from idemfs.vfs.beside import Beside
from idemfs.vfs.contents import Contents
from idemfs.vfs.fileset_state import RECLAIM_BLOCK_COUNT, RECLAIM_BYTES, RECLAIM_RECORD_COUNT
from idemfs.vfs.names import Names
from idemfs.vfs.reader import Reader, posix
from idemfs.vfs.tree import Tree

_P = ParamSpec("_P")
_T = TypeVar("_T")
_COVERED_STEP_COUNT = 4096
"""Blocks of newer ones are hidden before an operation grows a file over them, so many in one group."""
_MAP_BYTES = 50_000
"""What the indirect blocks of this snapshot and of the next older one may take: two of each, and of the snapshot of
a clone the one in which its origin ends."""


class SnapshotContents(Contents):
    """Content of the files of one snapshot."""

    active: Writing

    def write(self, ino: Ino, node: Inode, offset: int, data: bytes | bytearray | memoryview) -> int:
        self._uncover(ino, node, offset + len(data))
        return super().write(ino, node, offset, data)

    def truncate(self, ino: Ino, node: Inode, size: int) -> None:
        self._uncover(ino, node, size)
        super().truncate(ino, node, size)

    def share(self, ino: Ino, node: Inode, number: int, address: Address, checksum: int, length: int) -> None:
        self._uncover(ino, node, number * self.block_size + length)
        super().share(ino, node, number, address, checksum, length)

    def _uncover(self, ino: Ino, node: Inode, end: int) -> None:
        if end > (self._inline_size if node.is_inline else node.size):
            self.active.uncover(ino, node, end)


class SnapshotTree(Beside):
    """``snapshot`` to be changed in place. ``close`` it; one at a time for a snapshot.

    Raises ``SnapshotHeld``, ``SnapshotError``, ``NotPrimary``, ``Fenced``, ``OSError`` (EROFS).
    """

    active: Writing

    def __init__(self, tree: Tree, snapshot: Snapshot) -> None:
        # Not by Tree's: this one is no owner of the store, and has nothing to recover.
        with tree.store.lock:
            tree.refuse_unless_primary()
            if tree.store.readonly:
                raise posix(errno.EROFS, "the store is open for reading only")
            writing_rules.refuse_changing(tree.active, snapshot)
            self.base = tree
            """The active file system of the same store."""
            self.snapshot = snapshot
            self.store = tree.store
            self.fileset = snapshot.fileset
            self.root = make_ino(snapshot.fileset, ROOT_NUMBER)
            self.active = Writing(tree.active, snapshot)
            self.contents = SnapshotContents(self.active)
            self.names = Names(self.active)
            self.reader = Reader(
                WritingView(self.active),
                self.fileset,
                snapshot=snapshot,
                dirty=self.contents.waiting,
                dirty_numbers=self.contents.waiting_numbers,
                link_reader=self.link_reader,
            )
            self.contents.name_damage = self.reader.damaged
            self._limited = tree.store.catalog.limited
            # What a file of a clone needs before it changes is for its active state.
            self._clones = set()
            self._junctions = {}
            self._open_counts = {}
            self._orphan_key = partial(keys.snapshot_orphan, snapshot.id)
            self._unnamed = set()
            self._is_ending = self._is_closed = False
            tree.active.written.add(snapshot.id)
        # Nothing has changed yet: what others keep of the snapshot they give up, and keep no more while it is written.
        try:
            self._tell_watchers()
        except BaseException:
            self.close()
            raise

    @property
    def shows_active(self) -> bool:
        """It shows its snapshot, also when the store is a standby meanwhile."""
        return True

    def _tell_watchers(self) -> None:
        """Whoever shows the store. They may wait for others, who need the store's lock; so without it."""
        for told in self.watchers:
            told()

    def close(self) -> None:
        """What was changed is part of the open group; files that are open here fail from now on."""
        with self.store.lock:
            if self._is_ending:
                return
            self._is_ending = True
        try:
            self._end()
        finally:
            try:
                # Nothing changes any more: what others have got of it meanwhile they give up, before they keep more.
                self._tell_watchers()
            finally:
                with self.store.lock:
                    self.base.active.written.discard(self.snapshot.id)

    def _end(self) -> None:
        with self.store.lock:
            opened, self._open_counts = self._open_counts, {}
            try:
                for ino in opened:
                    self._reclaim_orphan(ino)
                self.flush()
            finally:
                self._is_closed = True
                self.store.before_seal.remove(self.contents.flush)
                self.active.close()

    def snapshot_reader(self, snapshot: Snapshot) -> Reader:
        return self.base.snapshot_reader(snapshot)

    def flush(self) -> None:
        """An operation has ended, or failed after a part of it."""
        self.contents.flush()
        self.active.flush()

    def refuse_if_kept(self) -> None:
        """Raises ``OSError``: ESTALE when the snapshot is gone, EBUSY when it must not change any more."""
        if self._is_closed:
            raise posix(errno.ESTALE, f"snapshot {self.snapshot.name} is not open for writing any more")
        try:
            writing_rules.refuse_if_kept(self.store, self.snapshot)
        except SnapshotMissing as gone:
            raise posix(errno.ESTALE, str(gone)) from gone
        except SnapshotHeld as held:
            raise posix(errno.EBUSY, str(held)) from held

    def _change(
        self,
        ino: Ino,
        records: int,
        size: int,
        *,
        frees: bool = False,
        grows: bool = False,
        data: int = 0,
        inodes: int = 0,
    ) -> None:
        self.flush()
        self.refuse_if_kept()
        counts = self.store.catalog.filesets[self.fileset].flags & SNAPSHOTS_COUNT
        # Each record has a version here and one in the next older snapshot, and both are listed.
        super()._change(
            ino, 2 * records, 2 * size + _MAP_BYTES, frees=frees, grows=grows and bool(counts), data=data, inodes=0
        )
        # Again, since admitting may have waited.
        self.refuse_if_kept()
        self.active.begin()

    # -- what is different ---------------------------------------------------------------------------

    def touch_atime(self, ino: Ino) -> None:
        """Snapshots note no access times."""

    def sync_file(self, ino: Ino, *, before_commit: Callable[[], None] | None = None) -> None:
        if before_commit is not None:
            before_commit()
        # crash: nothing of a snapshot is in the log, so its group has to be durable.
        self.store.commit()

    def _write(self, ino: Ino, node: Inode, offset: int, data: bytes | bytearray | memoryview) -> int:
        if not data:
            return 0
        count = self.contents.write(ino, node, offset, data)
        node.mtime = node.ctime = self.store.clock.now_ns()
        return count

    def write(self, ino: Ino, offset: int, data: bytes | bytearray | memoryview) -> int:
        with self.store.lock:
            self._uncover(ino, offset + len(data))
            return super().write(ino, offset, data)

    def share_blocks(self, reader: Reader, source: Ino, first: int, ino: Ino, target: int, size: int) -> int:
        with self.store.lock:
            self._uncover(ino, target * self.store.block_size + size)
            return super().share_blocks(reader, source, first, ino, target, size)

    def truncate(self, ino: Ino, size: int) -> None:
        with self.store.lock:
            self._uncover(ino, size)
            super().truncate(ino, size)

    def _uncover(self, ino: Ino, end: int) -> None:
        """Blocks that newer ones have where the file is going to be are hidden first, a part at a time."""
        while self._covered(ino, end) > _COVERED_STEP_COUNT:
            self._change(ino, 4 * _COVERED_STEP_COUNT, 100 * _COVERED_STEP_COUNT)
            self.active.hide(ino, end, _COVERED_STEP_COUNT)

    def _covered(self, ino: Ino, end: int) -> int:
        node = self.active.inode(ino)
        if node is None or not node.is_file or end <= max(node.size, self.store.superblock.inline_size):
            return 0
        return self.active.covered_count(ino, node, end)

    # -- open files ----------------------------------------------------------------------------------

    def _gone(self, ino: Ino) -> None:
        """As for the active file system; a file that waits for something is noted as an orphan of this snapshot."""
        if ino in self._open_counts or self._block_bound(ino) > INDIRECT_ENTRY_COUNT:
            self.store.small.put(self._orphan_key(ino), b"")
            if ino not in self._open_counts:
                self._reclaim(ino)
        else:
            self.contents.drop(ino)
            self.active.remove_inode(ino)

    def _reclaim(self, ino: Ino) -> None:
        """Remove an orphan, a part at a time, from its end. Without room it stays until the store is opened again."""
        with suppress(NoSpace):
            while True:
                self._change(ino, RECLAIM_RECORD_COUNT, RECLAIM_BYTES, frees=True)
                self.contents.drop(ino)
                bound = self._block_bound(ino)
                if bound <= RECLAIM_BLOCK_COUNT:
                    break
                node = self.active.change_inode(ino)
                self.contents.truncate(ino, node, (bound - RECLAIM_BLOCK_COUNT) * self.store.block_size)
            self.active.remove_inode(ino)
            self.store.small.put(self._orphan_key(ino), None)

    def release(self, ino: Ino) -> None:
        with self.store.lock:
            count = self._open_counts.get(ino, 0) - 1
            if count > 0:
                self._open_counts[ino] = count
                return
            self._unnamed.discard(ino)
            if self._open_counts.pop(ino, None) is not None:
                self._reclaim_orphan(ino)

    def _reclaim_orphan(self, ino: Ino) -> None:
        """Nobody has the inode open any more. What cannot be removed now is when the store is opened again."""
        node = self.active.inode(ino)
        if node is not None and not node.nlink:
            with suppress(OSError, CommitFailed):
                self._reclaim(ino)


def _written_through(
    method: Callable[Concatenate[SnapshotTree, _P], _T],
) -> Callable[Concatenate[SnapshotTree, _P], _T]:
    @wraps(method)
    def operation(self: SnapshotTree, /, *arguments: _P.args, **options: _P.kwargs) -> _T:
        with self.store.lock:
            try:
                return method(self, *arguments, **options)
            finally:
                self.flush()

    return operation


OPERATIONS = (
    "allocate",
    "append",
    "clear_set_id",
    "create",
    "drop_capability",
    "link",
    "punch",
    "release",
    "remove_xattr",
    "rename",
    "rmdir",
    "set_acl",
    "set_attributes",
    "set_xattr",
    "share_blocks",
    "truncate",
    "unlink",
    "write",
)
"""Every method that changes something."""
for _name in OPERATIONS:
    setattr(SnapshotTree, _name, _written_through(getattr(SnapshotTree, _name)))
