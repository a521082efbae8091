"""The active file system of all filesets: attributes and content, on top of names.

Threads: as in ``namespace``.
"""

from __future__ import annotations

import errno
import stat
from collections.abc import Callable
from contextlib import suppress
from enum import IntFlag
from typing import TypeVar

from idemfs.errors import CommitFailed, Damaged, DamagedBlock, NoSpace
from idemfs.format import keys
from idemfs.format.address import is_compressed, stored_size_of
from idemfs.format.inode import Inode
from idemfs.format.intent import Intent
from idemfs.ids import Ino, fileset_of
from idemfs.limits import (
    FILE_SIZE_MAX,
    INDIRECT_ENTRY_COUNT,
    SECTOR_SIZE,
    TIME_NS_MAX,
    TIME_NS_MIN,
    XATTR_NAME_SIZE_MAX,
    XATTR_VALUE_SIZE_MAX,
)
from idemfs.versions.origin import own_tail
from idemfs.vfs import acl
from idemfs.vfs.fileset_state import RECLAIM_BLOCK_COUNT, RECLAIM_BYTES, RECLAIM_RECORD_COUNT, RECORD_SIZE
from idemfs.vfs.junctions import Junctions
from idemfs.vfs.namespace import RenameFlag
from idemfs.vfs.reader import Reader, posix

__all__ = ["RenameFlag", "Tree", "XattrFlag"]

_T = TypeVar("_T")

CAPABILITY = b"security.capability"


def without_set_id(mode: int) -> int:
    """The mode after a change of owner or content. Set-group-id without the right to execute means something else."""
    if mode & stat.S_IXGRP:
        mode &= ~stat.S_ISGID
    return mode & ~stat.S_ISUID


class AllocateFlag(IntFlag):
    """Of ``fallocate(2)``; others are not supported."""

    NONE = 0
    KEEP_SIZE = 1
    PUNCH_HOLE = 2
    ZERO_RANGE = 16


_EMPTYING = (AllocateFlag.PUNCH_HOLE, AllocateFlag.ZERO_RANGE)


class XattrFlag(IntFlag):
    """Of ``setxattr(2)``."""

    NONE = 0
    CREATE = 1
    REPLACE = 2


class Tree(Junctions):
    """The active file system, and readers of it and of its snapshots."""

    def set_attributes(
        self,
        ino: Ino,
        *,
        mode: int | None = None,
        uid: int | None = None,
        gid: int | None = None,
        atime_ns: int | None = None,
        mtime_ns: int | None = None,
    ) -> None:
        """Those that are not None. ``mode``: the permission bits. A new owner clears set-id bits of files."""
        with self.store.lock:
            lists = 0 if mode is None else len(self.active.records.get(keys.xattr(ino, acl.ACCESS)) or b"")
            self._change(ino, 8, RECORD_SIZE + 2 * lists + self.store.superblock.inline_size)
            self.reader.inode(ino)
            for time in (atime_ns, mtime_ns):
                if time is not None and not TIME_NS_MIN <= time <= TIME_NS_MAX:
                    raise posix(errno.EOVERFLOW, "the time lies outside the years 1677 to 2262")
            for number in (uid, gid):
                if number is not None and not 0 <= number < (1 << 32) - 1:
                    raise posix(errno.EINVAL)
            node = self.active.change_inode(ino)
            if uid is not None or gid is not None:
                node.uid = node.uid if uid is None else uid
                node.gid = node.gid if gid is None else gid
                if not node.is_dir:
                    self._clear_set_id(ino, node)
            if mode is not None:
                node.mode = node.mode & 0o170000 | mode & 0o7777
                self._follow_mode(ino, node)
            if atime_ns is not None:
                node.atime = atime_ns
            if mtime_ns is not None:
                node.mtime = mtime_ns
            node.ctime = self.store.clock.now_ns()

    def clear_set_id(self, ino: Ino) -> None:
        """Before a change of content by somebody without the right to keep them: the bits that give rights go."""
        with self.store.lock:
            node = self.reader.inode(ino)
            if node.is_file and without_set_id(node.mode) != node.mode:
                self._change(ino, 4, RECORD_SIZE + self.store.superblock.inline_size)
                self._clear_set_id(ino, self.active.change_inode(ino))

    def drop_capability(self, ino: Ino) -> None:
        """Before a change of content by anybody: a program's capabilities go. What nobody can run has none."""
        with self.store.lock:
            if self.reader.inode(ino).mode & 0o111 and self.active.records.get(keys.xattr(ino, CAPABILITY)) is not None:
                self.remove_xattr(ino, CAPABILITY)

    def _clear_set_id(self, ino: Ino, node: Inode) -> None:
        node.mode = without_set_id(node.mode)
        node.ctime = self.store.clock.now_ns()
        key = keys.xattr(ino, CAPABILITY)
        if node.mode & 0o111 and self.active.records.get(key) is not None:
            self.active.delete_record(key, node)

    def _follow_mode(self, ino: Ino, node: Inode) -> None:
        """An access control list says what the mode says."""
        key = keys.xattr(ino, acl.ACCESS)
        value = self.active.records.get(key)
        if value is not None:
            entries = acl.with_mode(acl.unpack(value[1:]), node.mode)
            self.active.put_record(key, keys.PRESENT + acl.pack(entries), node)

    def set_acl(self, ino: Ino, value: bytes, *, clears_setgid: bool = False) -> None:
        """Set the access control list; the mode follows it, and what the mode alone can say is not kept twice."""
        with self.store.lock:
            entries = acl.unpack(value)
            self._change(ino, 8, RECORD_SIZE + 2 * len(value) + self.store.superblock.inline_size, grows=True)
            self.reader.inode(ino)
            node = self.active.change_inode(ino)
            node.mode = acl.mode_of(entries, node.mode)
            if clears_setgid:
                node.mode &= ~stat.S_ISGID
            key = keys.xattr(ino, acl.ACCESS)
            if acl.is_extended(entries):
                self.active.put_record(key, keys.PRESENT + value, node)
            elif self.active.records.get(key) is not None:
                self.active.delete_record(key, node)
            node.ctime = self.store.clock.now_ns()

    def touch_atime(self, ino: Ino) -> None:
        """A file was read: as with ``relatime``, the time follows when it is older than a change, or than a day."""
        with self.store.lock:
            node = self.active.inode(ino)
            if node is None or self.store.readonly or not self._may_change(ino):
                return
            if self.write_lease is not None and not self.write_lease.is_live():
                return
            now = self.store.clock.now_ns()
            if node.atime <= node.mtime or node.atime <= node.ctime or now - node.atime >= 86_400_000_000_000:
                # Whoever reads is served, also from a store that takes no changes any more.
                with suppress(NoSpace, CommitFailed):
                    self.store.admit(1, RECORD_SIZE + self.store.superblock.inline_size)
                    self.active.touch_atime(ino, now)

    def set_xattr(self, ino: Ino, name: bytes, value: bytes, flags: XattrFlag = XattrFlag.NONE) -> None:
        with self.store.lock:
            self._change(ino, 6, RECORD_SIZE + 2 * len(value) + self.store.superblock.inline_size, grows=True)
            self.reader.inode(ino)
            if not name or b"\0" in name:
                raise posix(errno.EINVAL)
            if len(name) > XATTR_NAME_SIZE_MAX:
                raise posix(errno.ERANGE)
            if len(value) > XATTR_VALUE_SIZE_MAX:
                raise posix(errno.E2BIG)
            key = keys.xattr(ino, name)
            exists = self.active.records.get(key) is not None
            if exists and flags & XattrFlag.CREATE:
                raise posix(errno.EEXIST)
            if not exists and flags & XattrFlag.REPLACE:
                raise posix(errno.ENODATA)
            node = self.active.change_inode(ino)
            self.active.put_record(key, keys.PRESENT + value, node)
            node.ctime = self.store.clock.now_ns()

    def remove_xattr(self, ino: Ino, name: bytes) -> None:
        with self.store.lock:
            self._change(ino, 6, RECORD_SIZE + XATTR_VALUE_SIZE_MAX, frees=True)
            self.reader.xattr(ino, name)
            key = keys.xattr(ino, name)
            node = self.active.change_inode(ino)
            self.active.delete_record(key, node)
            node.ctime = self.store.clock.now_ns()

    # -- content -------------------------------------------------------------------------------------

    def _changing_file(self, ino: Ino, size: int, *, frees: bool = False, at: int | None = None) -> Inode:
        """Admit a change of ``size`` bytes of content, and return the inode to be changed.

        ``at``: the offset of bytes that are written, of which the log is told; without it, nothing is added.
        """
        block_count = size // self.store.block_size + 2
        records = RECORD_SIZE + 40 * block_count + 4 * self.store.superblock.inline_size
        if at is None or not self._limited:
            self._change(ino, 3 * block_count + 6, records, frees=frees)
        else:
            self._change(ino, 3 * block_count + 6, records, grows=True, data=self._added_bytes(ino, at, size))
        node = self.reader.inode(ino)
        if not node.is_file:
            raise posix(errno.EISDIR if node.is_dir else errno.EINVAL)
        node = self.active.change_inode(ino, is_logged=at is not None)
        if self._clones:
            _own_tail(self, ino, node, frees=frees)
        return node

    def _added_bytes(self, ino: Ino, offset: int, size: int) -> int:
        """The most that extents of what is written may take, beside those that waiting blocks have already."""
        node = self.active.inode(ino)
        end = offset + size
        if node is None or not size or (node.is_inline and end <= self.store.superblock.inline_size):
            return 0
        block_size = self.store.block_size
        first, last = (0 if node.is_inline else offset // block_size), -(-end // block_size)
        stop = min(max(node.size, end), last * block_size)
        waiting = self.contents.waiting(ino, first)
        counted = 0 if waiting is None else -(-len(waiting) // SECTOR_SIZE) * SECTOR_SIZE
        return max(0, -(-(stop - first * block_size) // SECTOR_SIZE) * SECTOR_SIZE - counted)

    def _with_room(self, change: Callable[[], _T]) -> _T:
        """Do ``change``, which does all or nothing; once more, when space was freed that waits for its group."""
        with self.store.lock:
            try:
                return change()
            except NoSpace:
                if not self.store.space.is_freeing:
                    raise
                self.store.commit()
                return change()

    def write(self, ino: Ino, offset: int, data: bytes | bytearray | memoryview) -> int:
        """Write at ``offset``; how many bytes were written: fewer than given when space ran out after some."""
        return self._with_room(lambda: self._write(ino, self._changing_file(ino, len(data), at=offset), offset, data))

    def _write(self, ino: Ino, node: Inode, offset: int, data: bytes | bytearray | memoryview) -> int:
        if not data:
            return 0
        try:
            count = self.contents.write(ino, node, offset, data)
        except BaseException:
            # A part may have been written.
            self.store.intents.otherwise.add(ino)
            raise
        node.mtime = node.ctime = self.store.clock.now_ns()
        self.store.intents.remember(ino, offset, data if count == len(data) else memoryview(data)[:count])
        return count

    def append(self, ino: Ino, data: bytes | bytearray | memoryview) -> tuple[int, int]:
        """Write at the end of the file, wherever that is now; the offset behind what was written, and its size."""

        def change() -> tuple[int, int]:
            known = self.active.inode(ino)
            node = self._changing_file(ino, len(data), at=0 if known is None else known.size)
            count = self._write(ino, node, node.size, data)
            return node.size, count

        return self._with_room(change)

    def sync_file(self, ino: Ino, *, before_commit: Callable[[], None] | None = None) -> None:
        """What was changed of this inode before is durable on return: by the log if it was only written to.

        ``before_commit`` is called when it is not, for a commit may take long.
        """
        store = self.store
        with store.lock:
            if before_commit is not None and store.intents.is_sealed(ino):
                before_commit()
            store.wait_while(lambda: store.intents.is_sealed(ino))
            node = self.active.inode(ino)
            ticket = None if node is None else store.intents.append(ino, node.mtime, node.ctime)
        # crash: what is synced here was appended above; what is not in the log is in the one open group.
        if ticket is None or not store.intents.sync(ticket):
            if before_commit is not None:
                before_commit()
            store.commit(until_freed=False)

    def recover(self) -> None:
        """Also what was synced, and is in no group that came to be durable."""
        super().recover()
        with self.store.lock:
            # Of a store that is no primary these are of drills: a primary's are done again before it loses its role.
            records = [each for each in self.store.intents.pending() if self._may_change(each.ino)]
            # It fitted when it was written; what was removed for it may have come back, which is no reason to lose it.
            limited, self._limited = self._limited, set()
            # It was accepted before, too.
            lease, self.write_lease = self.write_lease, None
            try:
                for record in records:
                    self._replay(record)
            finally:
                self._limited = limited
                self.write_lease = lease
            if records:
                self.store.admit(1, RECORD_SIZE)
                self.store.intents.replayed(records[-1])
                # crash: the records that were replayed become obsolete with the group that holds what they say.
                self.store.commit()

    def _replay(self, record: Intent) -> None:
        """Do again what a record of the log says. Once more is no harm: it says what stood where, not what changed."""
        with suppress(DamagedBlock, Damaged):
            # What is damaged meanwhile stays as it is, and is said to be when it is read.
            node = self.active.inode(record.ino)
            if node is None or not node.is_file or not node.nlink:
                return
            for offset, data in record.pieces:
                done = 0
                while done < len(data):
                    done += self.write(record.ino, offset + done, data[done:])
            node = self.active.change_inode(record.ino)
            node.mtime, node.ctime = record.mtime, record.ctime

    def share_blocks(self, reader: Reader, source: Ino, first: int, ino: Ino, target: int, size: int) -> int:
        """Let bytes from block ``target`` on be those of another file, from its block ``first`` on, ``size`` at most.

        How many were shared: those that lie in whole blocks, and the last block of the source where the target ends
        with it; fewer where a block waits to be written, or may hold more than that. Raises as ``write``.
        """

        def change() -> int:
            return self._share_blocks(reader, source, first, ino, target, size)

        with self.store.lock:
            return self._with_room(change) if _shareable(self, reader, source, first, ino, target, size) else 0

    def _share_blocks(self, reader: Reader, source: Ino, first: int, ino: Ino, target: int, size: int) -> int:
        block_size = self.store.block_size
        count = -(-size // block_size)
        record_bytes = RECORD_SIZE + 100 * count + 4 * self.store.superblock.inline_size
        data = -(-size // SECTOR_SIZE) * SECTOR_SIZE
        self._change(ino, 5 * count + 20, record_bytes, grows=True, data=data)
        # Again, since admitting may have waited, while others changed either file.
        size = _shareable(self, reader, source, first, ino, target, size)
        if not size:
            return 0
        node = self.active.change_inode(ino)
        if self._clones:
            _own_tail(self, ino, node)
        for number, done in enumerate(range(0, size, block_size)):
            address, checksum = reader.view.block(source, first + number)
            self.contents.share(ino, node, target + number, address, checksum, min(block_size, size - done))
        node.mtime = node.ctime = self.store.clock.now_ns()
        return size

    def truncate(self, ino: Ino, size: int) -> None:
        if size < 0:
            raise posix(errno.EINVAL)
        self._with_room(lambda: self._truncate(ino, size))

    def _truncate(self, ino: Ino, size: int) -> None:
        block_size = self.store.block_size
        node = self._changing_file(ino, 0, frees=True)
        if node.size - size > INDIRECT_ENTRY_COUNT * block_size:
            # A file that is far longer is cut a part at a time, each in its group.
            while True:
                self._change(ino, RECLAIM_RECORD_COUNT, RECLAIM_BYTES, frees=True)
                node = self.active.change_inode(ino)
                bound = -(-node.size // block_size) - RECLAIM_BLOCK_COUNT
                if bound * block_size <= size:
                    break
                self.contents.truncate(ino, node, bound * block_size)
        self.contents.truncate(ino, node, size)
        node.mtime = node.ctime = self.store.clock.now_ns()

    def punch(self, ino: Ino, offset: int, size: int) -> None:
        """As ``fallocate(2)`` with FALLOC_FL_PUNCH_HOLE: the range reads as zeros, the size stays."""
        if offset < 0 or size <= 0:
            raise posix(errno.EINVAL)
        self._with_room(lambda: self._punch(ino, offset, size))

    def _punch(self, ino: Ino, offset: int, size: int) -> None:
        node = self._changing_file(ino, min(size, self.reader.inode(ino).size))
        self.contents.punch(ino, node, offset, size)
        node.mtime = node.ctime = self.store.clock.now_ns()

    def allocate(self, ino: Ino, offset: int, size: int, flags: AllocateFlag = AllocateFlag.NONE) -> None:
        """As ``fallocate(2)``. Blocks are never written in place, so room is not kept: the size is set, no more."""
        with self.store.lock:
            node = self.reader.inode(ino)
            if not node.is_file:
                raise posix(errno.EISDIR if node.is_dir else errno.ENODEV)
            if offset < 0 or size <= 0:
                raise posix(errno.EINVAL)
            if offset + size > FILE_SIZE_MAX:
                raise posix(errno.EFBIG)
            match flags:
                case AllocateFlag.NONE | AllocateFlag.KEEP_SIZE:
                    self.refuse_changing(fileset_of(ino))
                case AllocateFlag.ZERO_RANGE:
                    self.punch(ino, offset, size)
                case _ if flags & AllocateFlag.KEEP_SIZE and flags & ~AllocateFlag.KEEP_SIZE in _EMPTYING:
                    self.punch(ino, offset, size)
                case _:
                    raise posix(errno.EOPNOTSUPP)
            if not flags & AllocateFlag.KEEP_SIZE and offset + size > self.reader.inode(ino).size:
                self.truncate(ino, offset + size)


def _own_tail(tree: Tree, ino: Ino, node: Inode, *, frees: bool = False) -> None:
    """Before content or size of a file changes, which may be that of a clone."""
    try:
        own_tail(tree.active, ino, node, frees=frees)
    except DamagedBlock as damaged:
        raise tree.reader.damaged(ino, node.size // tree.store.block_size, damaged) from damaged


def _shareable(tree: Tree, reader: Reader, source: Ino, first: int, ino: Ino, target: int, size: int) -> int:
    """How many of these bytes can be shared, block by block."""
    block_size = tree.store.block_size
    node, at = reader.inode(source), first * block_size
    if node.is_inline:
        return 0
    size = min(size, node.size - at)
    is_end = at + size == node.size and tree.reader.inode(ino).size <= target * block_size + size
    done = 0
    while done < size:
        number, length = first + done // block_size, min(block_size, size - done)
        if reader.waits(source, number):
            break
        if length < block_size:
            address, _ = reader.view.block(source, number)
            if not is_end or is_compressed(address) or stored_size_of(address) > length:
                break
        done += length
    return done
