"""Copy a tree of the host into a store: modes, times, owners (as root), hard links, extended attributes, holes.

A file that is there already is replaced in one step; a new one that could not be copied to
its end is removed again. With ``mirror`` the target becomes equal to the source: what the source does not have is
removed, and files whose size and modification time agree keep their content.

Invariant of hard links: the names of one host file get one inode, and no two host files get the same one.

Threads: one for one copy; the store's lock is held for one operation at a time.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Collection
from itertools import chain

from idemfs.ids import FilesetId, Ino, fileset_of
from idemfs.vfs.copying import STEP_BYTES, Copy, Outcome, Watcher, is_same
from idemfs.vfs.paths import Paths, check_absolute
from idemfs.vfs.reader import posix
from idemfs.vfs.removal import remove_tree
from idemfs.vfs.tree import Tree

HostKey = tuple[int, int]
"""Device and inode number of a host file."""
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NO_ATTRIBUTES = frozenset({errno.ENOTSUP, errno.EPERM, errno.EACCES})


def put(
    tree: Tree,
    source: bytes,
    target: bytes,
    *,
    mirror: bool = False,
    watcher: Watcher | None = None,
    leave_out: Collection[HostKey] = (),
) -> Outcome:
    """Copy the content of directory ``source`` into directory ``target`` of the store, or one file to ``target``.

    ``target`` is made when it is missing; a file goes into it when it is a directory. ``leave_out``: what is not to be
    copied, as the store itself. Raises ``OSError`` when nothing can be copied, ``NoSpace``, ``NotPrimary``, ``Fenced``.
    """
    tree.refuse_unless_primary()
    return _Put(tree, mirror, watcher, leave_out).run(source, target)


class _Level:
    """A directory that is being copied; ``is_new``: nothing can be in it yet."""

    __slots__ = ("ino", "is_new", "path", "rest", "status")

    def __init__(self, path: bytes, ino: Ino, status: os.stat_result, is_new: bool) -> None:
        self.path = path
        self.ino = ino
        self.status = status
        self.is_new = is_new
        self.rest: list[os.DirEntry[bytes]] = []


class _Put:
    def __init__(self, tree: Tree, mirror: bool, watcher: Watcher | None, leave_out: Collection[HostKey]) -> None:
        self._tree = tree
        self._mirror = mirror
        self._leave_out = leave_out
        self._copy = Copy(watcher, (errno.EROFS,))
        self._inline_size = tree.store.superblock.inline_size
        self._step = max(STEP_BYTES, tree.store.block_size)
        self._made: dict[tuple[int, int, FilesetId], Ino] = {}
        """Host files of several names, and the inodes they have become."""
        self._taken: set[Ino] = set()
        """The same inodes."""

    def run(self, source: bytes, target: bytes) -> Outcome:
        status = os.stat(source)
        paths = Paths(self._tree.reader)
        try:
            check_absolute(target)
            if stat.S_ISDIR(status.st_mode):
                parent, name = self._directory(paths, target), b""
            else:
                parent, name = self._place(paths, os.path.basename(source), target)
        except OSError as error:
            error.filename = error.filename or target
            raise
        if name:
            # What is named on the command line is followed, what is found in a directory is not.
            self._file(parent, name, os.path.realpath(source), status, self._present(parent, name))
        else:
            self._walk(_Level(source, parent, status, is_new=False))
        return self._copy.outcome

    def _place(self, paths: Paths, name: bytes, target: bytes) -> tuple[Ino, bytes]:
        """Directory and name that a file is to have; ``name`` in a directory that is there, or is asked for."""
        try:
            found = paths.find(target)
            if self._tree.reader.inode(found).is_dir:
                return found, name
        except FileNotFoundError:
            if target.endswith(b"/"):
                return self._directory(paths, target), name
        head, _, last = target.rpartition(b"/")
        return self._directory(paths, head or b"/"), last

    def _present(self, parent: Ino, name: bytes) -> Ino | None:
        """What the name leads to in the store."""
        ino = self._tree.names.find(parent, name)
        return None if ino is None else self._tree.reader.through(ino)

    def _directory(self, paths: Paths, target: bytes) -> Ino:
        """The directory at ``target``, made with those above it if need be."""
        ino = self._tree.root
        end = -1
        while end < len(target) - 1:
            end = target.find(b"/", end + 1)
            end = len(target) if end < 0 else end
            try:
                ino = paths.directory(target[: end + 1])
            except FileNotFoundError:
                parent, name, _ = paths.entry(target[: end + 1])
                ino = self._create(parent, name, stat.S_IFDIR | 0o755)
        return ino

    # -- directories ---------------------------------------------------------------------------------

    def _walk(self, top: _Level) -> None:
        levels = [top]
        self._list(top)
        while levels:
            level = levels[-1]
            if not level.rest:
                levels.pop()
                self._leave(level)
                continue
            entry = level.rest.pop()
            try:
                below = self._entry(level, entry)
            except OSError as error:
                self._copy.failed(entry.path, error)
                continue
            if below is not None:
                levels.append(below)
                self._list(below)

    def _list(self, level: _Level) -> None:
        """Read the directory; in a mirror, remove what it does not have."""
        try:
            with os.scandir(level.path) as entries:
                level.rest = sorted(entries, key=lambda entry: entry.name, reverse=True)
        except OSError as error:
            self._copy.failed(level.path, error)
            return
        if self._mirror and not level.is_new:
            names = {entry.name for entry in level.rest}
            for name, _, _ in list(self._tree.reader.all_entries(level.ino)):
                if name not in names:
                    self._remove(level.ino, name)

    def _remove(self, parent: Ino, name: bytes) -> None:
        try:
            self._copy.outcome.removed_count += remove_tree(self._tree, parent, name)
        except OSError as error:
            # Most often a fileset, which is not emptied.
            self._copy.failed(self._tree.reader.path(parent).rstrip(b"/") + b"/" + name, error)

    def _leave(self, level: _Level) -> None:
        """The directory's own attributes, last, since what is done in it changes its times."""
        try:
            self._attributes(level.ino, level.path, level.status, is_new=level.is_new)
            self._copy.done()
        except OSError as error:
            self._copy.failed(level.path, error)

    def _entry(self, level: _Level, entry: os.DirEntry[bytes]) -> _Level | None:
        """Copy one name; a directory is made and returned."""
        status = entry.stat(follow_symlinks=False)
        if (status.st_dev, status.st_ino) in self._leave_out:
            self._copy.warn("the store itself is", entry.path, OSError(errno.ELOOP, "it would be copied into itself"))
            return None
        present = None if level.is_new else self._present(level.ino, entry.name)
        if not stat.S_ISDIR(status.st_mode):
            self._file(level.ino, entry.name, entry.path, status, present)
            return None
        if present is not None and not self._tree.reader.inode(present).is_dir:
            self._make_way(level.ino, entry.name, errno.ENOTDIR)
            present = None
        if present is not None:
            return _Level(entry.path, present, status, is_new=False)
        ino = self._create(level.ino, entry.name, status.st_mode)
        return _Level(entry.path, ino, status, is_new=True)

    def _make_way(self, parent: Ino, name: bytes, number: int) -> None:
        """What is at the target is of another kind: a mirror removes it. Raises ``OSError``."""
        if not self._mirror:
            raise posix(number, "the store has something of another kind there")
        self._copy.outcome.removed_count += remove_tree(self._tree, parent, name)

    # -- files ---------------------------------------------------------------------------------------

    def _file(self, parent: Ino, name: bytes, path: bytes, status: os.stat_result, present: Ino | None) -> None:
        """Copy what is no directory."""
        if present is not None and self._tree.reader.inode(present).is_dir:
            self._make_way(parent, name, errno.EISDIR)
            present = None
        # Names of one file outside that lie in two filesets become two files.
        key = (status.st_dev, status.st_ino, fileset_of(parent))
        if status.st_nlink > 1 and key in self._made:
            self._link(self._made[key], parent, name, present)
            self._copy.done()
            return
        if self._mirror and present is not None and self._is_same(present, path, status):
            self._attributes(present, path, status)
            self._copy.kept(status.st_size if stat.S_ISREG(status.st_mode) else 0)
            ino = present
        elif present is None:
            ino = self._new(parent, name, path, status)
        else:
            fresh = self._fresh_name()
            ino = self._new(parent, fresh, path, status)
            self._tree.rename(parent, fresh, parent, name)
        if status.st_nlink > 1:
            self._made[key] = ino
            self._taken.add(ino)

    def _link(self, ino: Ino, parent: Ino, name: bytes, present: Ino | None) -> None:
        if present is None:
            self._tree.link(ino, parent, name)
        elif present != ino:
            fresh = self._fresh_name()
            self._tree.link(ino, parent, fresh)
            self._tree.rename(parent, fresh, parent, name)

    def _fresh_name(self) -> bytes:
        return b".idemfs-put-" + self._tree.store.clock.random_bytes(8).hex().encode()

    def _is_same(self, ino: Ino, path: bytes, status: os.stat_result) -> bool:
        """Whether the file in the store can stay as it is, but for attributes."""
        return ino not in self._taken and is_same(self._tree.reader, ino, path, status)

    def _create(self, parent: Ino, name: bytes, mode: int, device: int = 0, data: bytes = b"") -> Ino:
        return self._tree.create(parent, name, mode, os.geteuid(), os.getegid(), rdev=device, data=data)

    def _new(self, parent: Ino, name: bytes, path: bytes, status: os.stat_result) -> Ino:
        """A new inode with what ``path`` has, whole or not at all."""
        if stat.S_ISREG(status.st_mode):
            return self._new_regular(parent, name, path)
        target = os.readlink(path) if stat.S_ISLNK(status.st_mode) else b""
        is_device = stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode)
        ino = self._create(parent, name, status.st_mode, status.st_rdev if is_device else 0, target)
        self._attributes(ino, path, status, is_new=True)
        self._copy.done()
        return ino

    def _new_regular(self, parent: Ino, name: bytes, path: bytes) -> Ino:
        fd = os.open(path, _OPEN)
        try:
            # Before reading: what is changed while it is read has another time then, and is copied by the next mirror.
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise posix(errno.EBUSY, "it became something else while it was copied")
            head = os.read(fd, self._inline_size + 1)
            if len(head) <= self._inline_size and len(head) == status.st_size:
                ino = self._create(parent, name, status.st_mode, data=head)
                size = len(head)
            else:
                ino = self._create(parent, name, stat.S_IFREG | 0o600)
                size = 0
            try:
                if not size and (head or status.st_size):
                    self._content(ino, fd, status)
                self._attributes(ino, path, status, fd, is_new=True)
            except BaseException:
                self._tree.unlink(parent, name)
                raise
        finally:
            os.close(fd)
        self._copy.done(size)
        return ino

    def _content(self, ino: Ino, fd: int, status: os.stat_result) -> None:
        os.lseek(fd, 0, os.SEEK_SET)
        if status.st_blocks * 512 < status.st_size:
            self._ranges(ino, fd)
            return
        offset = 0
        while data := os.read(fd, self._step):
            offset = self._write(ino, offset, data)

    def _ranges(self, ino: Ino, fd: int) -> None:
        """Copy a file with holes: only what is none."""
        offset = 0
        while True:
            try:
                offset = os.lseek(fd, offset, os.SEEK_DATA)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
                break
            end = os.lseek(fd, offset, os.SEEK_HOLE)
            while offset < end and (data := os.pread(fd, min(self._step, end - offset), offset)):
                offset = self._write(ino, offset, data)
            offset = end
        size = os.fstat(fd).st_size
        if size > self._tree.reader.inode(ino).size:
            self._tree.truncate(ino, size)

    def _write(self, ino: Ino, offset: int, data: bytes) -> int:
        """Write all of ``data``; the offset behind it."""
        done = 0
        while done < len(data):
            done += self._tree.write(ino, offset + done, memoryview(data)[done:])
        self._copy.moved(len(data))
        return offset + len(data)

    # -- attributes ----------------------------------------------------------------------------------

    def _attributes(
        self, ino: Ino, path: bytes, status: os.stat_result, fd: int | None = None, is_new: bool = False
    ) -> None:
        """Extended attributes, owner, mode and times. What is equal already is not touched."""
        self._xattrs(ino, path, fd, is_new)
        node = self._tree.reader.inode(ino)
        uid, gid = (status.st_uid, status.st_gid) if self._copy.is_root else (node.uid, node.gid)
        wanted = (stat.S_IMODE(status.st_mode), uid, gid, status.st_mtime_ns)
        if (stat.S_IMODE(node.mode), node.uid, node.gid, node.mtime) != wanted:
            self._tree.set_attributes(
                ino,
                mode=wanted[0],
                uid=uid,
                gid=gid,
                atime_ns=status.st_atime_ns,
                mtime_ns=status.st_mtime_ns,
            )

    def _xattrs(self, ino: Ino, path: bytes, fd: int | None, is_new: bool) -> None:
        wanted = self._host_xattrs(path, fd)
        present = [] if is_new else self._tree.reader.xattr_names(ino)
        for name in chain(present, wanted):
            try:
                if name not in wanted:
                    self._tree.remove_xattr(ino, name)
                elif name not in present or self._tree.reader.xattr(ino, name) != wanted[name]:
                    self._tree.set_xattr(ino, name, wanted[name])
            except OSError as error:
                if error.errno not in (errno.ERANGE, errno.E2BIG):
                    raise
                self._copy.warn("an extended attribute that is too large is", path, error)

    def _host_xattrs(self, path: bytes, fd: int | None) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        try:
            # By descriptor where there is one, since then the path cannot mean another file by now.
            names = os.listxattr(path, follow_symlinks=False) if fd is None else os.listxattr(fd)
        except OSError as error:
            if error.errno not in _NO_ATTRIBUTES:
                raise
            return found
        for text in names:
            name = os.fsencode(text)
            try:
                value = os.getxattr(path, name, follow_symlinks=False) if fd is None else os.getxattr(fd, name)
            except OSError as error:
                if error.errno == errno.ENODATA:
                    continue
                self._copy.warn(f"extended attributes {text.partition('.')[0]}.* are", path, error)
                continue
            found[name] = value
        return found
