"""A copy of a tree of a snapshot, by ordinary system calls, with what the caller may set of its attributes.

Content is shared with the snapshot where the kernel can have that done. Nobody needs room for paths: it is done in
directories that are open, few at a time, however deep the tree is.

Threads: one.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress

from idemfs.mount.descending import Descent, Walk, naming
from idemfs.mount.inside import Place, open_directory

_COPY_BYTES = 16 << 20
_COPIES_OTHERWISE = frozenset({errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP})
"""Of ``copy_file_range(2)``: nothing is wrong, but the bytes have to be copied another way."""


class Copy(Walk):
    """Copies what ``source`` is beside ``target``, by the name ``staged``. What has several names in it has them in
    the copy. Messages name what is read, or what ``target`` is going to be."""

    def __init__(self, source: Place, target: Place, staged: str) -> None:
        super().__init__(source.directory, source.folder)
        self.count = 0
        self._place = target
        self._staged = staged
        self._made = Descent(target.directory)
        self._statuses: list[os.stat_result] = []
        """Of the directories that are open in the source."""
        self._linked: dict[int, list[str]] = {}

    def close(self) -> None:
        self._made.close()
        super().close()

    def _name(self, name: str) -> str:
        return name if self._made.names else self._staged

    def _target(self, *name: str) -> str:
        return os.path.join(self._place.shown, *[*self._made.names, *name][1:])

    def entered(self) -> None:
        self.count += 1
        self._statuses.append(os.fstat(self.tree.fd))
        name = self._name(self.tree.names[-1])
        with naming(self._target(name)):
            os.mkdir(name, 0o700, dir_fd=self._made.fd)
            self._made.down(name)

    def leaving(self) -> None:
        with naming(self._target()):
            _keep_attributes(self.tree.fd, self._made.fd, self._statuses.pop())

    def left(self, name: str) -> None:
        with naming(self._target()):
            self._made.up()

    def other(self, name: str) -> None:
        self.count += 1
        with naming(self.shown(name)):
            status = os.stat(name, dir_fd=self.tree.fd, follow_symlinks=False)
        made = self._name(name)
        if status.st_nlink > 1 and status.st_ino in self._linked:
            with naming(self._target(made)):
                self._link(self._linked[status.st_ino], made)
            return
        if status.st_nlink > 1:
            self._linked[status.st_ino] = [*self._made.names, made]
        with ExitStack() as opened:
            flags = os.O_RDONLY if stat.S_ISREG(status.st_mode) else os.O_PATH
            with naming(self.shown(name)):
                reading = opened.enter_context(_open(name, flags, self.tree.fd))
            with naming(self._target(made)):
                writing = opened.enter_context(self._make(name, made, status))
                if stat.S_ISREG(status.st_mode):
                    _copy_content(reading, writing, status.st_size)
                _keep_attributes(reading, writing, status)

    def _make(self, name: str, made: str, status: os.stat_result) -> AbstractContextManager[int]:
        if stat.S_ISREG(status.st_mode):
            return _open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, self._made.fd)
        if stat.S_ISLNK(status.st_mode):
            os.symlink(os.readlink(name, dir_fd=self.tree.fd), made, dir_fd=self._made.fd)
        else:
            os.mknod(made, stat.S_IFMT(status.st_mode) | 0o600, status.st_rdev, dir_fd=self._made.fd)
        return _open(made, os.O_PATH, self._made.fd)

    def _link(self, first: list[str], made: str) -> None:
        above = open_directory(self._place.directory, first[:-1])
        try:
            os.link(first[-1], made, src_dir_fd=above, dst_dir_fd=self._made.fd, follow_symlinks=False)
        finally:
            os.close(above)


@contextmanager
def _open(name: str, flags: int, directory: int) -> Iterator[int]:
    fd = os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=directory)
    try:
        yield fd
    finally:
        os.close(fd)


def _copy_content(reading: int, writing: int, size: int) -> None:
    at = 0
    while at < size:
        try:
            start = os.lseek(reading, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            break
        at = os.lseek(reading, start, os.SEEK_HOLE)
        _copy_range(reading, writing, start, at)
    os.ftruncate(writing, size)


def _copy_range(reading: int, writing: int, at: int, end: int) -> None:
    """By the kernel if it can, which then need not bring the bytes here."""
    while at < end:
        try:
            done = os.copy_file_range(reading, writing, min(end - at, _COPY_BYTES), at, at)
        except OSError as error:
            if error.errno not in _COPIES_OTHERWISE:
                raise
            done = os.pwrite(writing, os.pread(reading, min(end - at, _COPY_BYTES), at), at)
        if not done:
            raise OSError(errno.EIO, "the snapshot has less than it says")
        at += done


def _keep_attributes(reading: int, writing: int, status: os.stat_result) -> None:
    """As far as the caller may: who is not root owns what comes, and gives it to groups of its own only."""
    # By these names it is also done to a symlink itself, or a device, whose descriptor is for paths only.
    source, target = f"/proc/self/fd/{reading}", f"/proc/self/fd/{writing}"
    mode = stat.S_IMODE(status.st_mode)
    now = os.fstat(writing)
    for uid, gid in ((status.st_uid, -1), (-1, status.st_gid)):
        if (uid if uid >= 0 else now.st_uid, gid if gid >= 0 else now.st_gid) != (now.st_uid, now.st_gid):
            try:
                os.chown(target, uid, gid)
            except PermissionError:
                # These bits would give the rights of somebody else than they did.
                mode &= ~(stat.S_ISUID if uid >= 0 else stat.S_ISGID)
    if not stat.S_ISLNK(status.st_mode):
        os.chmod(target, mode)
    for name in os.listxattr(source):
        with suppress(PermissionError):
            os.setxattr(target, name, os.getxattr(source, name))
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
