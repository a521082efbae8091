"""Names and attributes of the active file system, changed by path.

Threads: any; each call is one operation, which happens whole or not at all, but for ``makedirs`` and ``rmtree``.
"""

from __future__ import annotations

import errno
import math
import os
import stat
from contextlib import suppress
from typing import SupportsIndex

from idemfs.api.names import AnyPath, attribute_name, encode, named, naming
from idemfs.api.view import TreeView
from idemfs.ids import Ino
from idemfs.vfs.paths import Paths
from idemfs.vfs.reader import posix
from idemfs.vfs.removal import remove_tree
from idemfs.vfs.tree import RenameFlag, Tree, XattrFlag


class Editable(TreeView):
    """The changing methods, named as in ``os`` and ``shutil``. What is made belongs to the user of this process."""

    umask: int
    """Permissions that new files and directories do not get; that of the process when the store was opened."""

    def __init__(self, tree: Tree) -> None:
        super().__init__(tree, Paths(tree.reader, lambda: tree.moves))
        self.umask = process_umask()

    def _writing(self) -> Paths:
        """Paths through the active file system. Raises ``NotPrimary``, ``Fenced``, ``OSError`` (EROFS)."""
        self.tree.refuse_unless_primary()
        if self.tree.store.readonly:
            raise posix(errno.EROFS, "the store is open for reading only")
        return self._paths

    def _new(self, path: bytes, mode: int, device: int = 0, data: bytes = b"") -> Ino:
        """Make what is no directory."""
        parent, name, slash = self._writing().entry(path)
        if slash:
            raise posix(errno.ENOENT if self._paths.locate(path, False).ino is None else errno.EEXIST)
        return self.tree.create(parent, name, mode, os.geteuid(), os.getegid(), rdev=device, data=data)

    # -- directories ---------------------------------------------------------------------------------

    @naming
    def mkdir(self, path: AnyPath, mode: int = 0o777) -> None:
        self._mkdir(encode(path), mode)

    def _mkdir(self, path: bytes, mode: int) -> None:
        parent, name, _ = self._writing().entry(path)
        mode = stat.S_IFDIR | mode & 0o7777 & ~self.umask
        self.tree.create(parent, name, mode, os.geteuid(), os.getegid())

    @naming
    def makedirs(self, path: AnyPath, mode: int = 0o777, exist_ok: bool = False) -> None:
        """Make a directory with those above it that are missing; those get the usual permissions."""
        raw = encode(path)
        paths = self._writing()
        end = raw.find(b"/", 1)
        while end >= 0 and raw[end:].strip(b"/"):
            try:
                paths.directory(raw[:end])
            except FileNotFoundError:
                with suppress(FileExistsError):
                    self._mkdir(raw[:end], 0o777)
            end = raw.find(b"/", end + 1)
        try:
            self._mkdir(raw, mode)
        except FileExistsError:
            if not exist_ok or not self.is_dir(raw):
                raise

    @naming
    def rmdir(self, path: AnyPath) -> None:
        parent, name, _ = self._writing().entry(encode(path))
        if name == b"." and parent == self.tree.root:
            raise posix(errno.EBUSY)
        self.tree.rmdir(parent, name)

    @naming
    def rmtree(self, path: AnyPath) -> None:
        """Remove a directory with everything in it; symlinks are removed, not followed."""
        parent, name, _ = self._writing().entry(encode(path))
        if name in (b".", b".."):
            raise posix(errno.EBUSY)
        self.tree.reader.directory(self.tree.reader.lookup(parent, name))
        remove_tree(self.tree, parent, name)

    # -- names ---------------------------------------------------------------------------------------

    @naming
    def unlink(self, path: AnyPath) -> None:
        """Remove a name; the file goes with its last one, when nobody has it open."""
        raw = encode(path)
        parent, name, slash = self._writing().entry(raw)
        if slash and not self.tree.reader.inode(self.tree.reader.lookup(parent, name)).is_dir:
            raise posix(errno.ENOTDIR)
        self.tree.unlink(parent, name)

    remove = unlink

    def rename(self, source: AnyPath, target: AnyPath, *, noreplace: bool = False, exchange: bool = False) -> None:
        """As ``rename(2)``, also over a file or an empty directory; with ``exchange`` both stay, each in the other's
        place; with ``noreplace`` nothing may have the new name."""
        flags = RenameFlag.NOREPLACE if noreplace else RenameFlag.NONE
        flags |= RenameFlag.EXCHANGE if exchange else RenameFlag.NONE
        try:
            paths = self._writing()
            parent, name, slash = paths.entry(encode(source))
            new_parent, new_name, new_slash = paths.entry(encode(target))
            if slash or new_slash:
                self.tree.reader.directory(self.tree.reader.lookup(parent, name))
            self.tree.rename(parent, name, new_parent, new_name, flags)
        except OSError as error:
            named(error, source, target)
            raise

    replace = rename

    def link(self, source: AnyPath, target: AnyPath, *, follow_symlinks: bool = False) -> None:
        """Give a file a further name. As on Linux, a symlink itself is linked unless it is to be followed."""
        try:
            paths = self._writing()
            ino = paths.find(encode(source), follow_symlinks)
            parent, name, slash = paths.entry(encode(target))
            if slash:
                raise posix(errno.ENOENT if paths.locate(encode(target), False).ino is None else errno.EEXIST)
            self.tree.link(ino, parent, name)
        except OSError as error:
            named(error, source, target)
            raise

    def symlink(self, target: AnyPath, path: AnyPath) -> None:
        """Make ``path`` a symlink to ``target``, which need not exist."""
        try:
            content = encode(target)
            if not content:
                raise posix(errno.ENOENT)
            self._new(encode(path), stat.S_IFLNK | 0o777, data=content)
        except OSError as error:
            named(error, target, path)
            raise

    def dynamic_link(self, path: AnyPath, link: AnyPath) -> None:
        """Make ``link`` a link to the file or directory at ``path`` as the newest snapshot has it, whichever that is
        and whatever its name is there then; while there is no snapshot, to the active one. Symlinks are followed."""
        try:
            self._writing()
            with self.tree.store.lock:
                ino = self._paths.look(encode(path))[1]
                parent, name, slash = self._paths.entry(encode(link))
                if slash:
                    raise posix(errno.ENOENT if self._paths.locate(encode(link), False).ino is None else errno.EEXIST)
                self.tree.create_dynamic_link(parent, name, ino, os.geteuid(), os.getegid())
        except OSError as error:
            named(error, path, link)
            raise

    @naming
    def mknod(self, path: AnyPath, mode: int = 0o600, device: int = 0) -> None:
        """Make a file, fifo, socket or device, as the type in ``mode`` says."""
        kind = stat.S_IFMT(mode) or stat.S_IFREG
        if kind in (stat.S_IFDIR, stat.S_IFLNK):
            raise posix(errno.EPERM if kind == stat.S_IFDIR else errno.EINVAL)
        is_device = kind in (stat.S_IFCHR, stat.S_IFBLK)
        self._new(encode(path), kind | mode & 0o7777 & ~self.umask, device if is_device else 0)

    def mkfifo(self, path: AnyPath, mode: int = 0o666) -> None:
        self.mknod(path, stat.S_IFIFO | mode & 0o7777)

    # -- attributes ----------------------------------------------------------------------------------

    @naming
    def chmod(self, path: AnyPath, mode: int, *, follow_symlinks: bool = True) -> None:
        ino = self._writing().find(encode(path), follow_symlinks)
        if stat.S_ISLNK(self.tree.reader.inode(ino).mode):
            raise posix(errno.EOPNOTSUPP)
        self.tree.set_attributes(ino, mode=mode & 0o7777)

    @naming
    def chown(self, path: AnyPath, uid: int, gid: int, *, follow_symlinks: bool = True) -> None:
        """-1 leaves what is there."""
        ino = self._writing().find(encode(path), follow_symlinks)
        self.tree.set_attributes(ino, uid=None if uid == -1 else uid, gid=None if gid == -1 else gid)

    @naming
    def utime(
        self,
        path: AnyPath,
        times: tuple[float, float] | None = None,
        *,
        ns: tuple[int, int] | None = None,
        follow_symlinks: bool = True,
    ) -> None:
        """Set access and modification time: seconds, or exact with ``ns``; without either, now."""
        if times is not None and ns is not None:
            raise ValueError("utime: you may specify either 'times' or 'ns' but not both")
        ino = self._writing().find(encode(path), follow_symlinks)
        if ns is not None:
            atime, mtime = ns
        elif times is not None:
            atime, mtime = map(_ns, times)
        else:
            atime = mtime = self.tree.store.clock.now_ns()
        self.tree.set_attributes(ino, atime_ns=atime, mtime_ns=mtime)

    @naming
    def setxattr(
        self,
        path: AnyPath,
        attribute: str | bytes,
        value: bytes | bytearray | memoryview,
        flags: int = 0,
        *,
        follow_symlinks: bool = True,
    ) -> None:
        """``flags``: ``os.XATTR_CREATE`` or ``os.XATTR_REPLACE``."""
        ino = self._writing().find(encode(path), follow_symlinks)
        self.tree.set_xattr(ino, attribute_name(attribute), bytes(value), XattrFlag(flags))

    @naming
    def removexattr(self, path: AnyPath, attribute: str | bytes, *, follow_symlinks: bool = True) -> None:
        ino = self._writing().find(encode(path), follow_symlinks)
        self.tree.remove_xattr(ino, attribute_name(attribute))

    # -- size ----------------------------------------------------------------------------------------

    @naming
    def truncate(self, path: AnyPath, length: SupportsIndex) -> None:
        """Set the size; what is cut off is gone, what is added reads as zeros and takes no space."""
        self.tree.truncate(self._writing().find(encode(path)), length.__index__())

    @naming
    def punch_hole(self, path: AnyPath, offset: int, size: int) -> None:
        """Let a range read as zeros and take no space; the size of the file stays."""
        self.tree.punch(self._writing().find(encode(path)), offset, size)


def _ns(seconds: float) -> int:
    if isinstance(seconds, int):
        return seconds * 1_000_000_000
    return math.floor(seconds * 1e9)


def process_umask() -> int:
    """That of this process. ``os.umask`` could tell it only by changing it, for all threads."""
    try:
        with open("/proc/self/status", "rb") as file:
            for line in file:
                if line.startswith(b"Umask:"):
                    return int(line[6:], 8)
    except OSError:
        return 0o022
    return 0o022
