"""Copy a tree of a store or snapshot to the host: modes, times, owners (as root), hard links, attributes, holes.

Each file is written under another name and then given its own, so that what was there before is
replaced in one step. Symlinks that the host has inside the target are not followed.

Threads: one for one copy; the store's lock is held for one read at a time.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress

from idemfs.format.inode import Inode
from idemfs.ids import Ino
from idemfs.store.peek import is_store, refuse_inside
from idemfs.vfs.copying import STEP_BYTES, Copy, Outcome, Watcher
from idemfs.vfs.paths import Paths
from idemfs.vfs.reader import Reader, posix

_ENDS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ESTALE})
"""The host is full, or the snapshot was deleted."""
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def get(reader: Reader, source: bytes, target: bytes, *, watcher: Watcher | None = None) -> Outcome:
    """Copy the content of directory ``source`` into directory ``target`` of the host, or one file to ``target``.

    ``target`` is made when it is missing; a file goes into it when it is a directory.
    Nothing is copied into a store's own directory: ``InsideStore`` for ``target``, a failure for what lies below it.
    Raises ``OSError`` when nothing can be copied, or nothing more.
    """
    return _Get(reader, watcher).run(source, target)


class _Level:
    """A directory that is being copied."""

    __slots__ = ("entries", "ino", "path")

    def __init__(self, path: bytes, ino: Ino, entries: Iterator[tuple[bytes, Ino, int]]) -> None:
        self.path = path
        self.ino = ino
        self.entries = entries


class _Get:
    def __init__(self, reader: Reader, watcher: Watcher | None) -> None:
        self._reader = reader
        self._copy = Copy(watcher, _ENDS)
        self._step = max(STEP_BYTES, reader.store.block_size)
        self._made: dict[Ino, bytes] = {}
        """Files of several names, and the path at which the host has them."""

    def run(self, source: bytes, target: bytes) -> Outcome:
        # What is named on the command line is followed, what is found in a directory is not.
        self._reader, ino = Paths(self._reader).look(source)
        refuse_inside(os.fsdecode(target))
        if self._reader.inode(ino).is_dir:
            os.makedirs(target, exist_ok=True)
            self._walk(_Level(target, ino, self._reader.all_entries(ino)))
            return self._copy.outcome
        if target.endswith(b"/"):
            os.makedirs(target, exist_ok=True)
        if os.path.isdir(target):
            target = os.path.join(target, os.path.basename(source))
        else:
            os.makedirs(os.path.dirname(target) or b".", exist_ok=True)
        self._file(target, ino)
        return self._copy.outcome

    # -- directories ---------------------------------------------------------------------------------

    def _walk(self, top: _Level) -> None:
        levels = [top]
        while levels:
            level = levels[-1]
            path = level.path
            try:
                name, ino, _ = next(level.entries)
                path = os.path.join(level.path, name)
                if self._reader.inode(ino).is_dir:
                    self._make_directory(path)
                    levels.append(_Level(path, ino, self._reader.all_entries(ino)))
                else:
                    self._file(path, ino)
            except StopIteration:
                levels.pop()
                self._leave(level)
            except OSError as error:
                self._copy.failed(path, error)

    def _make_directory(self, path: bytes) -> None:
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            if not stat.S_ISDIR(os.lstat(path).st_mode):
                raise posix(errno.ENOTDIR, "something of another kind is there") from None
            if is_store(os.fsdecode(path)):
                raise posix(errno.EEXIST, "it is an idemfs store") from None

    def _leave(self, level: _Level) -> None:
        """The directory's own attributes, last, since what is done in it changes its times."""
        try:
            fd = os.open(level.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                self._attributes(fd, level.path, level.ino, self._reader.inode(level.ino))
            finally:
                os.close(fd)
            self._copy.done()
        except OSError as error:
            self._copy.failed(level.path, error)

    # -- files ---------------------------------------------------------------------------------------

    def _file(self, path: bytes, ino: Ino) -> None:
        """Copy what is no directory."""
        node = self._reader.inode(ino)
        known = self._made.get(ino) if node.nlink > 1 else None
        if known is not None:
            self._in_place(path, lambda fresh: os.link(known, fresh, follow_symlinks=False))
        elif node.is_file:
            self._in_place(path, lambda fresh: self._regular(fresh, path, ino, node))
        else:
            self._in_place(path, lambda fresh: self._special(fresh, path, ino, node))
        if node.nlink > 1:
            self._made.setdefault(ino, path)
        self._copy.done(len(node.data) if node.is_inline and known is None else 0)

    def _in_place(self, path: bytes, make: Callable[[bytes], None]) -> None:
        """Let ``make`` make a file under another name, and give it ``path``."""
        name = b".idemfs-get-" + self._reader.store.clock.random_bytes(8).hex().encode()
        fresh = os.path.join(os.path.dirname(path), name)
        try:
            make(fresh)
            os.rename(fresh, path)
        except BaseException as error:
            with suppress(FileNotFoundError):
                os.unlink(fresh)
            if isinstance(error, OSError):
                # The name that nobody has asked for is not the one to tell of.
                error.filename, error.filename2 = path, None
            raise
        # Renaming one name of a file to another one of it does nothing at all.
        with suppress(FileNotFoundError):
            os.unlink(fresh)

    def _regular(self, fresh: bytes, path: bytes, ino: Ino, node: Inode) -> None:
        fd = os.open(fresh, _CREATE, 0o600)
        try:
            if node.is_inline:
                _write(fd, node.data, 0)
            else:
                for start, end in self._reader.data_ranges(ino):
                    self._range(fd, ino, start, end)
                os.ftruncate(fd, node.size)
            self._attributes(fd, path, ino, node)
        finally:
            os.close(fd)

    def _range(self, fd: int, ino: Ino, start: int, end: int) -> None:
        while start < end:
            # Whole blocks, so that none is read twice.
            data = self._reader.read(ino, start, min(self._step - start % self._step, end - start))
            if not data:
                return
            _write(fd, data, start)
            start += len(data)
            self._copy.moved(len(data))

    def _special(self, fresh: bytes, path: bytes, ino: Ino, node: Inode) -> None:
        """A symlink, fifo, socket or device."""
        if stat.S_ISLNK(node.mode):
            os.symlink(self._reader.readlink(ino), fresh)
        else:
            os.mknod(fresh, stat.S_IFMT(node.mode) | 0o600, node.rdev)
        self._attributes(fresh, path, ino, node)

    # -- attributes ----------------------------------------------------------------------------------

    def _attributes(self, file: int | bytes, path: bytes, ino: Ino, node: Inode) -> None:
        """Owner, extended attributes, mode and times, in this order: each may undo a part of the later ones."""
        follow = isinstance(file, int)
        mode = stat.S_IMODE(node.mode)
        if self._copy.is_root:
            os.chown(file, node.uid, node.gid, follow_symlinks=follow)
        elif node.is_file:
            # Rights that were another user's are not given to this one.
            mode &= ~(stat.S_ISUID if node.uid != os.geteuid() else 0) & ~(
                stat.S_ISGID if node.gid != os.getegid() else 0
            )
        self._xattrs(file, path, ino, follow)
        if not stat.S_ISLNK(node.mode):
            os.chmod(file, mode)
        os.utime(file, ns=(node.atime, node.mtime), follow_symlinks=follow)

    def _xattrs(self, file: int | bytes, path: bytes, ino: Ino, follow: bool) -> None:
        for name in self._reader.xattr_names(ino):
            try:
                os.setxattr(file, name, self._reader.xattr(ino, name), follow_symlinks=follow)
            except OSError as error:
                if error.errno in _ENDS:
                    raise
                kind = os.fsdecode(name.partition(b".")[0])
                self._copy.warn(f"extended attributes {kind}.* are", path, error)


def _write(fd: int, data: bytes, offset: int) -> None:
    done = 0
    while done < len(data):
        done += os.pwrite(fd, memoryview(data)[done:], offset + done)
