"""Changing names in the active file system, by inode number.

Every operation is atomic: it happens in one transaction group, or not at all.
``OSError`` carries the errno of POSIX. Permissions are the adapters' affair in so far as
they know a caller; who calls from here is the store's owner.

Threads: each call takes the store's lock, and admits its records before it looks at
anything, since admitting may let others in.
"""

from __future__ import annotations

import errno
import stat
from enum import IntFlag

from idemfs.format import keys
from idemfs.format.inode import DYNAMIC, Inode, pack_named
from idemfs.ids import Ino, fileset_of, number_of
from idemfs.limits import LINK_COUNT_MAX, SYMLINK_SIZE_MAX
from idemfs.vfs import acl
from idemfs.vfs.fileset_state import RECORD_SIZE, REMOVAL_SIZE, FilesetState, new_inode
from idemfs.vfs.names import check_name
from idemfs.vfs.reader import posix

_LINK, _DIRECTORY, _SET_GROUP = stat.S_IFLNK, stat.S_IFDIR, stat.S_ISGID


class RenameFlag(IntFlag):
    """Of ``renameat2(2)``."""

    NONE = 0
    NOREPLACE = 1
    EXCHANGE = 2


class Namespace(FilesetState):
    """Creates, links, removes and renames."""

    def _directory(self, ino: Ino) -> Inode:
        """A directory that can be given entries: one that was removed, and is still open, cannot."""
        node = self.active.inode(ino)
        if node is None:
            raise posix(errno.ENOENT)
        if not node.is_dir:
            raise posix(errno.ENOTDIR)
        if not node.nlink:
            raise posix(errno.ENOENT, "the directory was removed")
        if ino in self._junctions:
            raise posix(errno.EBUSY, "a fileset appears in the place of this directory")
        return node

    def refuse_as_parent(self, ino: Ino) -> None:
        """Raises what making something in this directory would raise, whatever it is."""
        self._directory(ino)

    def refuse_junction(self, ino: Ino) -> None:
        """Before a directory is removed or replaced. Raises ``OSError`` (EBUSY)."""
        number = self._junctions.get(ino)
        if number is not None:
            name = self.store.catalog.filesets[number].name
            raise posix(errno.EBUSY, f"fileset {name!r} appears here; 'idemfs fileset delete' removes it")

    def create(
        self,
        parent: Ino,
        name: bytes | None,
        mode: int,
        uid: int,
        gid: int,
        *,
        rdev: int = 0,
        data: bytes = b"",
        umask: int | None = None,
        flags: int = 0,
    ) -> Ino:
        """A new inode of the type that ``mode`` says. ``data``: a symlink's target, or what a small file holds.

        ``name``: None for a file that has none, as of O_TMPFILE. It is open, for whom ``release`` is called, and may be
        given a name by ``link`` until then; without one it goes.

        A directory with the set-group-id bit gives its group, and to directories the bit. With ``umask``, the
        directory's default access control list is inherited, or if it has none, the mode masked.
        """
        with self.store.lock:
            lists: dict[bytes, bytes] = {}
            if umask is not None:
                mode, lists = self._inherit(parent, mode, umask)
            size = sum(map(len, lists.values())) if lists else 0
            self._change(parent, 8 + len(lists), RECORD_SIZE + len(data) + size, grows=True, inodes=1)
            directory = self._directory(parent)
            kind = mode & 0o170000
            if name is not None:
                check_name(name)
            if len(data) > (SYMLINK_SIZE_MAX if kind == _LINK else self.store.superblock.inline_size):
                raise posix(errno.ENAMETOOLONG if kind == _LINK else errno.EFBIG)
            key = b"" if name is None else keys.entry(parent, name)
            if key and self.active.records.get(key) is not None:
                raise posix(errno.EEXIST)
            if kind == _DIRECTORY and directory.nlink >= LINK_COUNT_MAX:
                raise posix(errno.EMLINK)
            if directory.mode & _SET_GROUP:
                gid = directory.gid
                mode |= _SET_GROUP if kind == _DIRECTORY else 0
            now = self.store.clock.now_ns()
            ino = self.store.catalog.new_ino(self.active.fileset(parent))
            node = new_inode(mode, uid, gid, now, rdev, data)
            node.flags |= flags
            if name is None:
                node.nlink = 0
            else:
                node.parent, node.name = number_of(parent), name
            self.active.insert_inode(ino, node, is_new=True)
            for attribute, value in lists.items():
                self.active.add_record(keys.xattr(ino, attribute), keys.PRESENT + value, node)
            if key:
                self.names.add_at(key, parent, ino, mode, now)
            else:
                self.store.small.put(self._orphan_key(ino), b"")
                self._unnamed.add(ino)
                self.open(ino)
            return ino

    def create_dynamic_link(self, parent: Ino, name: bytes, named: Ino, uid: int, gid: int) -> Ino:
        """A link to whatever the newest snapshot has as inode ``named``, which is there, or in a snapshot."""
        if fileset_of(named) != fileset_of(parent):
            raise posix(errno.EXDEV)
        data = pack_named(number_of(named))
        return self.create(parent, name, stat.S_IFLNK | 0o777, uid, gid, data=data, flags=DYNAMIC)

    def _inherit(self, parent: Ino, mode: int, umask: int) -> tuple[int, dict[bytes, bytes]]:
        """The mode of what is created in ``parent``, and its access control lists."""
        if mode & 0o170000 == stat.S_IFLNK:
            return mode, {}
        value = self.active.records.get(keys.xattr(parent, acl.DEFAULT))
        if value is None:
            return mode & ~umask, {}
        mode, entries = acl.inherit(acl.unpack(value[1:]), mode)
        lists = {acl.ACCESS: acl.pack(entries)} if acl.is_extended(entries) else {}
        if mode & 0o170000 == stat.S_IFDIR:
            lists[acl.DEFAULT] = value[1:]
        return mode, lists

    def link(self, ino: Ino, parent: Ino, name: bytes) -> None:
        """A further name for a file."""
        with self.store.lock:
            self._change(parent, 8, RECORD_SIZE, grows=True)
            node = self.reader.inode(ino)
            self._directory(parent)
            check_name(name)
            if node.is_dir:
                raise posix(errno.EPERM)
            if not node.nlink and ino not in self._unnamed:
                raise posix(errno.ENOENT)
            if node.is_dynamic:
                # Where it leads is told from where it stands, so it stands in one place.
                raise posix(errno.EMLINK, "a dynamic link has one name; make another link to the same file")
            if node.nlink >= LINK_COUNT_MAX:
                raise posix(errno.EMLINK)
            if fileset_of(ino) != fileset_of(parent):
                raise posix(errno.EXDEV)
            if self.names.find(parent, name) is not None:
                raise posix(errno.EEXIST)
            now = self.store.clock.now_ns()
            node = self.active.change_inode(ino)
            if not node.nlink:
                self._unnamed.discard(ino)
                self.store.small.put(self._orphan_key(ino), None)
            node.nlink += 1
            node.ctime = now
            self.names.add_back_reference(ino, node, number_of(parent), name)
            self.names.add(parent, name, ino, node.mode, now)

    def unlink(self, parent: Ino, name: bytes) -> tuple[Ino, Inode]:
        """What lost this name, as it is now: without a link it is gone, or goes when it is closed."""
        with self.store.lock:
            self._change(parent, 14, REMOVAL_SIZE, frees=True)
            ino = self.reader.named(parent, name)
            node = self.reader.inode(ino)
            if node.is_dir:
                raise posix(errno.EISDIR)
            now = self.store.clock.now_ns()
            self.names.remove(parent, name, node.mode, now)
            return ino, self._drop_link(ino, number_of(parent), name, now)

    def rmdir(self, parent: Ino, name: bytes) -> tuple[Ino, Inode]:
        """The directory, as it was in the end."""
        with self.store.lock:
            self._change(parent, 14, REMOVAL_SIZE, frees=True)
            if name in (b".", b".."):
                raise posix(errno.EINVAL if name == b"." else errno.ENOTEMPTY)
            ino = self.reader.named(parent, name)
            self.refuse_junction(ino)
            node = self.reader.directory(ino)
            if node.size:
                raise posix(errno.ENOTEMPTY)
            now = self.store.clock.now_ns()
            self.names.remove(parent, name, node.mode, now)
            return ino, self._drop_directory(ino, now)

    def _drop_directory(self, ino: Ino, now: int) -> Inode:
        self.moves += 1
        node = self.active.change_inode(ino)
        node.nlink = 0
        node.ctime = now
        node.name = b""
        self._gone(ino)
        return node

    def _drop_link(self, ino: Ino, parent: int, name: bytes, now: int) -> Inode:
        node = self.active.change_inode(ino)
        self.names.remove_back_reference(ino, node, number_of(Ino(parent)), name)
        node.nlink -= 1
        node.ctime = now
        if not node.nlink:
            self._gone(ino)
        return node

    def rename(
        self, parent: Ino, name: bytes, new_parent: Ino, new_name: bytes, flags: RenameFlag = RenameFlag.NONE
    ) -> None:
        """All cases of ``renameat2(2)`` but whiteouts."""
        with self.store.lock:
            self._change(parent, 24, RECORD_SIZE * 4)
            for each in (name, new_name):
                if each in (b".", b".."):
                    raise posix(errno.EBUSY)
            check_name(new_name)
            if flags == RenameFlag.NOREPLACE | RenameFlag.EXCHANGE:
                raise posix(errno.EINVAL)
            self._directory(new_parent)
            ino = self.reader.named(parent, name)
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
        self.refuse_junction(target)
        if replaced.is_dir and (replaced.size or self.names.is_inside(parent, target)):
            raise posix(errno.ENOTEMPTY)

    def _exchange(
        self, parent: Ino, name: bytes, ino: Ino, new_parent: Ino, new_name: bytes, target: Ino | None
    ) -> None:
        if target is None:
            raise posix(errno.ENOENT)
        if target == ino:
            return
        node, other = self.reader.inode(ino), self.reader.inode(target)
        if other.is_dir and self.names.is_inside(parent, target):
            raise posix(errno.EINVAL)
        if node.is_dir != other.is_dir and parent != new_parent:
            if self.reader.inode(parent if other.is_dir else new_parent).nlink >= LINK_COUNT_MAX:
                raise posix(errno.EMLINK)
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
