"""Restore through a mount, by ordinary system calls: whoever may read the snapshot and write the place may do it.

A copy is made beside the place, with the attributes that the caller may set, and takes its name when it is whole:
in one step, also over a directory, which exchanges names with it and is removed then. What fails before leaves the
place as it was. Other filesets are neither copied nor emptied.

Threads: one.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from contextlib import suppress

from idemfs.ids import NUMBER_BITS

FOLDER = ".snapshots"
_COPY_BYTES = 16 << 20
_EXCHANGE = 2
_AT_FDCWD = -100
_COPIES_OTHERWISE = frozenset({errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP})
"""Of ``copy_file_range(2)``: nothing is wrong, but the bytes have to be copied another way."""
_NAME_COUNT_MAX = 1000


class MountedRestore:
    """What a restore did. ``left``: what had the place before, if it could not be removed."""

    __slots__ = ("count", "left", "undo")

    def __init__(self, count: int, undo: str | None, left: str | None) -> None:
        self.count = count
        self.undo = undo
        self.left = left


def is_root(directory: str) -> bool:
    """Whether this is a directory of a mount that shows snapshots."""
    return os.path.isdir(os.path.join(directory, FOLDER, ""))


def restore(directory: str, snapshot: str, path: str, to: str | None, undo_name: str | None = None) -> MountedRestore:
    """Bring back what snapshot has at ``path``, both as from ``directory``, to ``path`` or to ``to``.

    If the caller may take snapshots, one is taken first, unless it goes to a new place. Raises ``OSError``.
    """
    source = _source(directory, snapshot, path)
    os.lstat(source)
    target = os.path.join(directory, (path if to is None else to).strip("/"))
    if not os.path.basename(target).strip(".") or not (path if to is None else to).strip("/"):
        raise OSError(errno.EINVAL, "name a file or directory, not the root of the mount", path)
    replaces = os.path.lexists(target)
    if replaces and to is not None:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), to)
    if replaces:
        _refuse_filesets(target)
    undo = _take_snapshot(directory, undo_name or f"before-restore-{snapshot}") if to is None else None
    staged = _free_name(target)
    copy = _Copy()
    try:
        copy.tree(source, staged)
        _put_in_place(staged, target, replaces=replaces)
    except BaseException:
        with suppress(OSError):
            remove(staged)
        raise
    left = None
    if os.path.lexists(staged):
        try:
            remove(staged)
        except OSError:
            left = staged
    return MountedRestore(copy.count, undo, left)


def count(directory: str, snapshot: str, path: str) -> int:
    """How many files and directories the snapshot has there. Raises ``OSError``."""
    source = _source(directory, snapshot, path)
    found = 1
    if stat.S_ISDIR(os.lstat(source).st_mode):
        for _, directories, files in os.walk(source, onerror=_raise):
            found += len(directories) + len(files)
    return found


def _source(directory: str, snapshot: str, path: str) -> str:
    """Where the snapshot has ``path``. ``latest`` is the one that it leads to now: another one may be taken first."""
    folder = os.path.join(directory, FOLDER)
    name = snapshot
    with suppress(OSError):
        name = os.readlink(os.path.join(folder, snapshot))
    if name in ("", ".", "..") or "/" in name or not os.path.lexists(os.path.join(folder, name)):
        raise FileNotFoundError(errno.ENOENT, f"no snapshot has this name; those there are: ls {folder}", snapshot)
    if ".." in path.split("/"):
        raise OSError(errno.EINVAL, "in a snapshot a path leads down, without '..'", path)
    return os.path.join(folder, name, path.strip("/"))


def _raise(error: OSError) -> None:
    raise error


def _take_snapshot(directory: str, wanted: str) -> str | None:
    """A snapshot of the state before, for whoever may take one."""
    for number in range(1, _NAME_COUNT_MAX):
        name = wanted if number == 1 else f"{wanted}-{number}"
        try:
            os.mkdir(os.path.join(directory, FOLDER, name))
        except FileExistsError:
            continue
        except PermissionError:
            return None
        return name
    return None


def _free_name(target: str) -> str:
    above, name = os.path.split(target)
    for number in range(_NAME_COUNT_MAX):
        # A name of 255 bytes has no room for more.
        staged = os.path.join(above, os.fsdecode(os.fsencode(f".restore-{number}-{os.getpid()}-{name}")[:255]))
        if not os.path.lexists(staged):
            return staged
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target)


def _put_in_place(staged: str, target: str, *, replaces: bool) -> None:
    if replaces and (_is_dir(staged) or _is_dir(target)):
        _exchange(staged, target)
    else:
        os.rename(staged, target)


def _is_dir(path: str) -> bool:
    return stat.S_ISDIR(os.lstat(path).st_mode)


def _exchange(first: str, second: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _EXCHANGE):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), second)


def _fileset(status: os.stat_result) -> int:
    return status.st_ino >> NUMBER_BITS


def _refuse_filesets(top: str) -> None:
    status = os.lstat(top)
    if not stat.S_ISDIR(status.st_mode):
        return
    for where, directories, _ in os.walk(top, onerror=_raise):
        for name in directories:
            path = os.path.join(where, name)
            if _fileset(os.lstat(path)) != _fileset(status):
                raise OSError(errno.EBUSY, "a fileset appears here; let it appear elsewhere first", path)


def remove(top: str) -> None:
    """Remove a name with all below it, but no other fileset: that is ``EBUSY``."""
    status = os.lstat(top)
    if not stat.S_ISDIR(status.st_mode):
        os.unlink(top)
        return
    # By descriptors: whoever owns what goes may put a link in the place of a directory meanwhile.
    for where, directories, files, fd in os.fwalk(top, topdown=False, onerror=_raise):
        if _fileset(os.fstat(fd)) != _fileset(status):
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), where)
        for name in files:
            os.unlink(name, dir_fd=fd)
        for name in directories:
            if stat.S_ISLNK(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode):
                os.unlink(name, dir_fd=fd)
            else:
                os.rmdir(name, dir_fd=fd)
    os.rmdir(top)


class _Copy:
    """Copies a tree; what has several names in it has them in the copy."""

    def __init__(self) -> None:
        self.count = 0
        self._linked: dict[int, str] = {}

    def tree(self, source: str, target: str) -> None:
        status = os.lstat(source)
        self.count += 1
        if not stat.S_ISDIR(status.st_mode):
            self._one(source, target, status)
            return
        os.mkdir(target, 0o700)
        for entry in os.scandir(source):
            self.tree(entry.path, os.path.join(target, entry.name))
        _keep_attributes(source, target, status)

    def _one(self, source: str, target: str, status: os.stat_result) -> None:
        if status.st_nlink > 1 and status.st_ino in self._linked:
            os.link(self._linked[status.st_ino], target, follow_symlinks=False)
            return
        self._linked[status.st_ino] = target
        if stat.S_ISLNK(status.st_mode):
            os.symlink(os.readlink(source), target)
        elif stat.S_ISREG(status.st_mode):
            _copy_content(source, target, status.st_size)
        else:
            os.mknod(target, stat.S_IFMT(status.st_mode) | 0o600, status.st_rdev)
        _keep_attributes(source, target, status)


def _copy_content(source: str, target: str, size: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    with open(source, "rb", buffering=0) as reading, open(os.open(target, flags, 0o600), "wb", buffering=0) as writing:
        at = 0
        while at < size:
            try:
                start = os.lseek(reading.fileno(), at, os.SEEK_DATA)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
                break
            at = os.lseek(reading.fileno(), start, os.SEEK_HOLE)
            _copy_range(reading.fileno(), writing.fileno(), start, at)
        os.ftruncate(writing.fileno(), size)


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


def _keep_attributes(source: str, target: str, status: os.stat_result) -> None:
    """As far as the caller may: who is not root owns what comes, and gives it to groups of its own only."""
    mode = stat.S_IMODE(status.st_mode)
    now = os.lstat(target)
    for uid, gid in ((status.st_uid, -1), (-1, status.st_gid)):
        if (uid if uid >= 0 else now.st_uid, gid if gid >= 0 else now.st_gid) != (now.st_uid, now.st_gid):
            try:
                os.chown(target, uid, gid, follow_symlinks=False)
            except PermissionError:
                # These bits would give the rights of somebody else than they did.
                mode &= ~(stat.S_ISUID if uid >= 0 else stat.S_ISGID)
    if not stat.S_ISLNK(status.st_mode):
        os.chmod(target, mode)
    for name in os.listxattr(source, follow_symlinks=False):
        with suppress(PermissionError):
            value = os.getxattr(source, name, follow_symlinks=False)
            os.setxattr(target, name, value, follow_symlinks=False)
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=False)
