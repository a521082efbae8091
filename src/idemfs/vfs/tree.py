"""Changing the active file system, by inode number.

Every operation is atomic: it happens in one transaction group, or not at all.
``OSError`` carries the errno of POSIX. Permissions are the adapters' affair in so far as
they know a caller; who calls from here is the store's owner.

Threads: each call takes the store's lock, and admits its records before it looks at
anything, since admitting may let others in.
"""

from __future__ import annotations

import errno
import os
import stat
from enum import IntFlag

from idemfs.errors import Fenced, NotPrimary
from idemfs.format import keys, role
from idemfs.format.inode import INLINE, Inode
from idemfs.format.role import Role, RoleRecord
from idemfs.format.tables import Snapshot
from idemfs.ids import (
    NO_SNAPSHOT,
    ROOT_FILESET,
    ROOT_NUMBER,
    FilesetId,
    Ino,
    fileset_of,
    make_ino,
    number_of,
)
from idemfs.limits import (
    LINK_COUNT_MAX,
    SCAN_COUNT,
    SECTOR_SIZE,
    SYMLINK_SIZE_MAX,
    TIME_NS_MAX,
    TIME_NS_MIN,
    XATTR_NAME_SIZE_MAX,
    XATTR_VALUE_SIZE_MAX,
)
from idemfs.snapshots import bring_back, delete, received
from idemfs.store.store import Store
from idemfs.versions.active import Active
from idemfs.versions.resolve import View
from idemfs.versions.state import ActiveView
from idemfs.vfs.contents import Contents
from idemfs.vfs.names import Names, check_name
from idemfs.vfs.reader import Reader, posix

_RECLAIM_BLOCK_COUNT = 16384
"""A file of more blocks than this is freed in several groups."""
_RECORD_SIZE = 600
"""What an operation's records may take, but for content: names, back-references, shadows."""


class RenameFlag(IntFlag):
    """Of ``renameat2(2)``."""

    NONE = 0
    NOREPLACE = 1
    EXCHANGE = 2


class XattrFlag(IntFlag):
    """Of ``setxattr(2)``."""

    NONE = 0
    CREATE = 1
    REPLACE = 2


class Tree:
    """The root fileset's active file system, and readers of it and of its snapshots."""

    def __init__(self, store: Store, fileset: FilesetId = ROOT_FILESET) -> None:
        self.store = store
        self.fileset = fileset
        self.root = make_ino(fileset, ROOT_NUMBER)
        self.active = Active(store)
        self.contents = Contents(self.active)
        self.names = Names(self.active)
        self.reader = Reader(
            ActiveView(self.active),
            fileset,
            dirty=self.contents.waiting,
            dirty_numbers=self.contents.waiting_numbers,
        )
        self._open_counts: dict[Ino, int] = {}
        self.moves = 0
        """Grows when a directory is renamed, removed or restored: paths to inodes may be other ones then."""
        self.reload_role()
        if not store.readonly:
            self.recover()

    def recover(self) -> None:
        """What a crash or another primary left: interrupted deletions and restores, files unlinked while open."""
        bring_back.resume(self.active)
        delete.resume(self.active)
        if self.role.role is Role.PRIMARY:
            for key, _ in self.store.small.scan(*keys.prefix_range(b"O"), 1 << 30):
                self._reclaim(Ino(int.from_bytes(key[1:], "big")))
            if self.active.inode(self.root) is None and self._is_untouched():
                self.make_root()

    def _is_untouched(self) -> bool:
        return self.active.fileset(self.root).next_number == 1

    def make_root(self) -> None:
        """The root directory of a new fileset; a standby gets its primary's instead."""
        with self.store.lock:
            self.store.admit(2, _RECORD_SIZE)
            fileset = self.active.fileset(self.root)
            ino = self.store.catalog.new_ino(fileset)
            assert ino == self.root
            now = self.store.clock.now_ns()
            node = _new_inode(stat.S_IFDIR | 0o755, os.getuid(), os.getgid(), now)
            node.parent = ROOT_NUMBER
            self.active.insert_inode(ino, node)
            self.store.commit()

    # -- roles and readers ---------------------------------------------------------------------------

    def reload_role(self) -> None:
        """Take over the role that the store's role record names."""
        self.role: RoleRecord = role.unpack(self.store.small.get(role.KEY))

    def _change(self, records: int, size: int) -> None:
        """Called by every operation first. Raises ``NotPrimary``, ``Fenced``, ``NoSpace``, ``CommitFailed``."""
        if self.role.role is not Role.PRIMARY:
            if self.role.role is Role.STANDBY:
                raise NotPrimary("this store is a standby: write to its primary, or 'idemfs failover' makes it one")
            raise Fenced(
                f"epoch {self.role.seen_epoch} has ended this store's right to write; "
                "'idemfs failback' makes it a standby of the new primary"
            )
        self.store.admit(records, size)

    def snapshot_reader(self, snapshot: Snapshot) -> Reader:
        return Reader(View(self.active, snapshot.id), snapshot.fileset, snapshot=snapshot)

    def newest_reader(self) -> Reader:
        """What readers see: on a standby the snapshot that it received last, else the active file system."""
        if self.role.role is Role.STANDBY:
            with self.store.lock:
                base = received.base(self.store, self.fileset)
            if base is not None:
                return self.snapshot_reader(base)
            # Nothing is older than snapshot 0: what is half-received stays unseen.
            return Reader(View(self.active, NO_SNAPSHOT), self.fileset)
        return self.reader

    # -- names ---------------------------------------------------------------------------------------

    def create(
        self, parent: Ino, name: bytes, mode: int, uid: int, gid: int, *, rdev: int = 0, data: bytes = b""
    ) -> Ino:
        """A new inode of the type that ``mode`` says. ``data``: a symlink's target, or what a small file holds.

        A directory with the set-group-id bit gives its group, and to directories the bit.
        """
        with self.store.lock:
            self._change(8, _RECORD_SIZE + len(data))
            directory = self.reader.directory(parent)
            check_name(name)
            kind = mode & 0o170000
            if len(data) > (SYMLINK_SIZE_MAX if kind == stat.S_IFLNK else self.store.superblock.inline_size):
                raise posix(errno.ENAMETOOLONG if kind == stat.S_IFLNK else errno.EFBIG)
            if not directory.name and parent != self.root:
                raise posix(errno.ENOENT, "the directory was removed")
            if self.active.records.get(keys.entry(parent, name)) is not None:
                raise posix(errno.EEXIST)
            if kind == stat.S_IFDIR and directory.nlink >= LINK_COUNT_MAX:
                raise posix(errno.EMLINK)
            if directory.mode & stat.S_ISGID:
                gid = directory.gid
                mode |= stat.S_ISGID if kind == stat.S_IFDIR else 0
            now = self.store.clock.now_ns()
            ino = self.store.catalog.new_ino(self.active.fileset(parent))
            node = _new_inode(mode, uid, gid, now, rdev, data)
            node.parent, node.name = number_of(parent), name
            self.active.insert_inode(ino, node, is_new=True)
            self.names.add(parent, name, ino, mode, now)
            return ino

    def link(self, ino: Ino, parent: Ino, name: bytes) -> None:
        """A further name for a file."""
        with self.store.lock:
            self._change(8, _RECORD_SIZE)
            node = self.reader.inode(ino)
            self.reader.directory(parent)
            check_name(name)
            if node.is_dir:
                raise posix(errno.EPERM)
            if not node.nlink:
                raise posix(errno.ENOENT)
            if node.nlink >= LINK_COUNT_MAX:
                raise posix(errno.EMLINK)
            if fileset_of(ino) != fileset_of(parent):
                raise posix(errno.EXDEV)
            if self.names.find(parent, name) is not None:
                raise posix(errno.EEXIST)
            now = self.store.clock.now_ns()
            node = self.active.change_inode(ino)
            node.nlink += 1
            node.ctime = now
            self.names.add_back_reference(ino, node, number_of(parent), name)
            self.names.add(parent, name, ino, node.mode, now)

    def unlink(self, parent: Ino, name: bytes) -> None:
        with self.store.lock:
            self._change(10, _RECORD_SIZE * 2)
            ino = self.reader.lookup(parent, name)
            node = self.reader.inode(ino)
            if node.is_dir:
                raise posix(errno.EISDIR)
            now = self.store.clock.now_ns()
            self.names.remove(parent, name, node.mode, now)
            self._drop_link(ino, number_of(parent), name, now)

    def rmdir(self, parent: Ino, name: bytes) -> None:
        with self.store.lock:
            self._change(10, _RECORD_SIZE * 2)
            if name in (b".", b".."):
                raise posix(errno.EINVAL if name == b"." else errno.ENOTEMPTY)
            ino = self.reader.lookup(parent, name)
            node = self.reader.directory(ino)
            if node.size:
                raise posix(errno.ENOTEMPTY)
            now = self.store.clock.now_ns()
            self.names.remove(parent, name, node.mode, now)
            self._drop_directory(ino, now)

    def _drop_directory(self, ino: Ino, now: int) -> None:
        self.moves += 1
        node = self.active.change_inode(ino)
        node.nlink = 0
        node.ctime = now
        node.name = b""
        self._gone(ino)

    def _drop_link(self, ino: Ino, parent: int, name: bytes, now: int) -> None:
        node = self.active.change_inode(ino)
        self.names.remove_back_reference(ino, node, number_of(Ino(parent)), name)
        node.nlink -= 1
        node.ctime = now
        if not node.nlink:
            self._gone(ino)

    def _gone(self, ino: Ino) -> None:
        """The last link is gone: the inode goes too, or waits as an orphan until it is closed."""
        if ino in self._open_counts or self._block_bound(ino) > _RECLAIM_BLOCK_COUNT:
            self.store.small.put(keys.orphan(ino), b"")
            if ino not in self._open_counts:
                self._reclaim(ino)
        else:
            self.contents.drop(ino)
            self.active.remove_inode(ino)

    def _block_bound(self, ino: Ino) -> int:
        node = self.active.inode(ino)
        return 0 if node is None or node.is_inline else -(-node.size // self.store.block_size)

    def _reclaim(self, ino: Ino) -> None:
        """Free an orphan, a part at a time, from its end."""
        with self.store.lock:
            while True:
                self.store.admit(20 + 3 * SCAN_COUNT, 16 << 20)
                node = self.active.inode(ino)
                if node is None:
                    break
                self.contents.drop(ino)
                bound = self._block_bound(ino)
                if bound <= _RECLAIM_BLOCK_COUNT:
                    self.active.remove_inode(ino)
                    break
                node = self.active.change_inode(ino)
                size = (bound - _RECLAIM_BLOCK_COUNT) * self.store.block_size
                self.contents.truncate(ino, node, size)
            self.store.small.put(keys.orphan(ino), None)

    def rename(
        self, parent: Ino, name: bytes, new_parent: Ino, new_name: bytes, flags: RenameFlag = RenameFlag.NONE
    ) -> None:
        """All cases of ``renameat2(2)`` but whiteouts."""
        with self.store.lock:
            self._change(24, _RECORD_SIZE * 4)
            for each in (name, new_name):
                if each in (b".", b".."):
                    raise posix(errno.EBUSY)
            check_name(new_name)
            if flags == RenameFlag.NOREPLACE | RenameFlag.EXCHANGE:
                raise posix(errno.EINVAL)
            self.reader.directory(new_parent)
            ino = self.reader.lookup(parent, name)
            node = self.reader.inode(ino)
            if fileset_of(parent) != fileset_of(new_parent):
                raise posix(errno.EXDEV)
            target = self.names.find(new_parent, new_name)
            if node.is_dir and self.names.is_inside(new_parent, ino):
                raise posix(errno.EINVAL)
            if flags & RenameFlag.NOREPLACE and target is not None:
                raise posix(errno.EEXIST)
            if flags & RenameFlag.EXCHANGE:
                self._exchange(parent, name, ino, new_parent, new_name, target)
            elif target != ino:
                self._move(parent, name, ino, node, new_parent, new_name, target)

    def _move(
        self, parent: Ino, name: bytes, ino: Ino, node: Inode, new_parent: Ino, new_name: bytes, target: Ino | None
    ) -> None:
        now = self.store.clock.now_ns()
        mode = node.mode
        if target is not None:
            self._check_replaced(node, self.reader.inode(target), parent, target)
        elif node.is_dir and parent != new_parent and self.reader.inode(new_parent).nlink >= LINK_COUNT_MAX:
            raise posix(errno.EMLINK)
        if target is not None:
            replaced = self.reader.inode(target)
            self.names.remove(new_parent, new_name, replaced.mode, now)
        self.names.remove(parent, name, mode, now)
        self.names.add(new_parent, new_name, ino, mode, now)
        node = self.active.change_inode(ino)
        node.ctime = now
        self.names.move_back_reference(ino, node, (number_of(parent), name), (number_of(new_parent), new_name))
        self.moves += node.is_dir
        if target is not None:
            if replaced.is_dir:
                self._drop_directory(target, now)
            else:
                self._drop_link(target, number_of(new_parent), new_name, now)

    def _check_replaced(self, node: Inode, replaced: Inode, parent: Ino, target: Ino) -> None:
        if node.is_dir and not replaced.is_dir:
            raise posix(errno.ENOTDIR)
        if replaced.is_dir and not node.is_dir:
            raise posix(errno.EISDIR)
        if replaced.is_dir and (replaced.size or self.names.is_inside(parent, target)):
            raise posix(errno.ENOTEMPTY)

    def _exchange(
        self, parent: Ino, name: bytes, ino: Ino, new_parent: Ino, new_name: bytes, target: Ino | None
    ) -> None:
        if target is None:
            raise posix(errno.ENOENT)
        if target == ino:
            return
        other = self.reader.inode(target)
        if other.is_dir and self.names.is_inside(parent, target):
            raise posix(errno.EINVAL)
        now = self.store.clock.now_ns()
        node = self.active.change_inode(ino)
        other = self.active.change_inode(target)
        self.names.point(parent, name, target, other.mode, now)
        self.names.point(new_parent, new_name, ino, node.mode, now)
        if node.is_dir != other.is_dir and parent != new_parent:
            shift = 1 if other.is_dir else -1
            self.active.change_inode(parent).nlink += shift
            self.active.change_inode(new_parent).nlink -= shift
        node.ctime = other.ctime = now
        here, there = (number_of(parent), name), (number_of(new_parent), new_name)
        self.names.move_back_reference(ino, node, here, there)
        self.names.move_back_reference(target, other, there, here)
        self.moves += 1

    # -- attributes ----------------------------------------------------------------------------------

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
            self._change(4, _RECORD_SIZE + self.store.superblock.inline_size)
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
                if node.is_file and node.mode & 0o111:
                    node.mode &= ~(stat.S_ISUID | stat.S_ISGID)
            if mode is not None:
                node.mode = node.mode & 0o170000 | mode & 0o7777
            if atime_ns is not None:
                node.atime = atime_ns
            if mtime_ns is not None:
                node.mtime = mtime_ns
            node.ctime = self.store.clock.now_ns()

    def touch_atime(self, ino: Ino) -> None:
        """A file was read: as with ``relatime``, the time follows when it is older than a change, or than a day."""
        with self.store.lock:
            node = self.active.inode(ino)
            if node is None or self.role.role is not Role.PRIMARY or self.store.readonly:
                return
            now = self.store.clock.now_ns()
            if node.atime <= node.mtime or node.atime <= node.ctime or now - node.atime >= 86_400_000_000_000:
                self.store.admit(1, _RECORD_SIZE + self.store.superblock.inline_size)
                self.active.touch_atime(ino, now)

    def set_xattr(self, ino: Ino, name: bytes, value: bytes, flags: XattrFlag = XattrFlag.NONE) -> None:
        with self.store.lock:
            self._change(6, _RECORD_SIZE + 2 * len(value) + self.store.superblock.inline_size)
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
            self._change(6, _RECORD_SIZE + XATTR_VALUE_SIZE_MAX)
            self.reader.inode(ino)
            key = keys.xattr(ino, name)
            if self.active.records.get(key) is None:
                raise posix(errno.ENODATA)
            node = self.active.change_inode(ino)
            self.active.delete_record(key, node)
            node.ctime = self.store.clock.now_ns()

    # -- content -------------------------------------------------------------------------------------

    def _changing_file(self, ino: Ino, size: int) -> Inode:
        """Admit a change of ``size`` bytes of content, and return the inode to be changed."""
        block_count = size // self.store.block_size + 2
        self._change(3 * block_count + 6, _RECORD_SIZE + 40 * block_count + 4 * self.store.superblock.inline_size)
        node = self.reader.inode(ino)
        if not node.is_file:
            raise posix(errno.EISDIR if node.is_dir else errno.EINVAL)
        return self.active.change_inode(ino)

    def write(self, ino: Ino, offset: int, data: bytes | bytearray | memoryview) -> int:
        """Write at ``offset``; how many bytes were written: fewer than given when space ran out after some."""
        with self.store.lock:
            node = self._changing_file(ino, len(data))
            if not data:
                return 0
            count = self.contents.write(ino, node, offset, data)
            node.mtime = node.ctime = self.store.clock.now_ns()
            return count

    def append(self, ino: Ino, data: bytes | bytearray | memoryview) -> int:
        """Write at the end of the file, wherever that is now; the offset behind what was written."""
        with self.store.lock:
            offset = self.reader.inode(ino).size
            return offset + self.write(ino, offset, data)

    def truncate(self, ino: Ino, size: int) -> None:
        with self.store.lock:
            node = self._changing_file(ino, 0)
            if size < 0:
                raise posix(errno.EINVAL)
            step = _RECLAIM_BLOCK_COUNT * self.store.block_size
            while node.size - size > step:
                # A file that is far longer is cut a part at a time, each in its group.
                self.contents.truncate(ino, node, node.size - step)
                self._change(3 * SCAN_COUNT, 16 << 20)
                node = self.active.change_inode(ino)
            self.contents.truncate(ino, node, size)
            node.mtime = node.ctime = self.store.clock.now_ns()

    def punch(self, ino: Ino, offset: int, size: int) -> None:
        """As ``fallocate(2)`` with FALLOC_FL_PUNCH_HOLE: the range reads as zeros, the size stays."""
        with self.store.lock:
            node = self._changing_file(ino, min(size, self.reader.inode(ino).size))
            if offset < 0 or size <= 0:
                raise posix(errno.EINVAL)
            self.contents.punch(ino, node, offset, size)
            node.mtime = node.ctime = self.store.clock.now_ns()

    # -- handles, whole store --------------------------------------------------------------------------

    def open(self, ino: Ino) -> None:
        """Somebody uses the inode: unlinked, it stays until the last ``release``."""
        with self.store.lock:
            self.reader.inode(ino)
            self._open_counts[ino] = self._open_counts.get(ino, 0) + 1

    def release(self, ino: Ino) -> None:
        with self.store.lock:
            count = self._open_counts[ino] - 1
            if count:
                self._open_counts[ino] = count
                return
            del self._open_counts[ino]
            node = self.active.inode(ino)
            if node is not None and not node.nlink and self.role.role is Role.PRIMARY and not self.store.readonly:
                self._reclaim(ino)

    def sync(self) -> None:
        """Everything that was changed before is durable on return."""
        self.store.commit()

    def statfs(self) -> os.statvfs_result:
        """The host's free space, seen through the store."""
        with self.store.lock:
            free = self.store.space.free_sectors() + self.store.blocks.free_bytes() // SECTOR_SIZE
            used = self.store.space.sector_count - self.store.space.free_sectors()
            inode_count = self.active.fileset(self.root).inode_count
        inodes_free = 1 << 40
        total = used + free
        return os.statvfs_result(
            (
                self.store.block_size,
                SECTOR_SIZE,
                total,
                free,
                free,
                inode_count + inodes_free,
                inodes_free,
                inodes_free,
                0,
                255,
            )
        )


def _new_inode(mode: int, uid: int, gid: int, now: int, rdev: int = 0, data: bytes = b"") -> Inode:
    is_directory = mode & 0o170000 == stat.S_IFDIR
    return Inode(
        birth=NO_SNAPSHOT,
        seen=NO_SNAPSHOT,
        atime=now,
        mode=mode,
        uid=uid,
        gid=gid,
        nlink=2 if is_directory else 1,
        rdev=rdev,
        size=len(data),
        mtime=now,
        ctime=now,
        btime=now,
        flags=INLINE if mode & 0o170000 == stat.S_IFREG else 0,
        parent=ROOT_NUMBER,
        name=b"",
        data=data,
    )
