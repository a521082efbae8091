"""Restore through a mount, by ordinary system calls: whoever may read the snapshot and write the place may do it.

A copy is made beside the place, with the attributes that the caller may set, and takes its name when it is whole:
in one step, also over a directory, which exchanges names with it and is removed then. What fails before leaves the
place as it was. Other filesets are neither copied nor emptied. Symlinks on the way lead as in a restore by the store:
those of the snapshot inside of it, and in place no others.

Threads: one.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from idemfs.ids import NUMBER_BITS
from idemfs.mount.inside import names_of, open_directory, open_root, without_symlinks
from idemfs.mount.nodes import SNAPSHOT_BIT

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


class _Place:
    """A name in a directory that is open. ``shown``: its path, for messages."""

    __slots__ = ("directory", "name", "shown")

    def __init__(self, directory: int, name: str, shown: str) -> None:
        self.directory = directory
        self.name = name
        self.shown = shown

    @property
    def path(self) -> str:
        return f"/proc/self/fd/{self.directory}/{self.name}"

    def status(self) -> os.stat_result:
        """Raises ``OSError``."""
        with _naming(self.shown):
            return os.stat(self.name, dir_fd=self.directory, follow_symlinks=False)

    def is_there(self) -> bool:
        try:
            self.status()
        except FileNotFoundError:
            return False
        return True


def restore(directory: str, snapshot: str, path: str, to: str | None, undo_name: str | None = None) -> MountedRestore:
    """Bring back what snapshot has at ``path``, both as from ``directory``, to ``path`` or to ``to``.

    If the caller may take snapshots, one is taken first, unless it goes to a new place. Raises ``OSError``.
    """
    with _opened(directory) as root, _source(root, directory, snapshot, path) as (source, names):
        source.status()
        with _target(root, directory, names, to) as target:
            return _restored(directory, snapshot, source, target, undo_name, in_place=to is None)


def _restored(
    directory: str, snapshot: str, source: _Place, target: _Place, undo_name: str | None, *, in_place: bool
) -> MountedRestore:
    replaces = target.is_there()
    if replaces and not in_place:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target.shown)
    if replaces:
        _refuse_filesets(target.path)
    undo = _take_snapshot(directory, undo_name or f"before-restore-{snapshot}") if in_place else None
    staged = _free_name(target)
    copy = _Copy()
    try:
        copy.tree(source.path, staged.path)
        _put_in_place(staged.path, target.path, replaces=replaces)
    except BaseException:
        with suppress(OSError):
            remove(staged.path)
        raise
    left = None
    if staged.is_there():
        try:
            remove(staged.path)
        except OSError:
            left = staged.shown
    return MountedRestore(copy.count, undo, left)


def count(directory: str, snapshot: str, path: str) -> int:
    """How many files and directories the snapshot has there. Raises ``OSError``."""
    with _opened(directory) as root, _source(root, directory, snapshot, path) as (source, _):
        found = 1
        if stat.S_ISDIR(source.status().st_mode):
            for _, directories, files in os.walk(source.path, onerror=_raise):
                found += len(directories) + len(files)
    return found


@contextmanager
def _opened(directory: str) -> Iterator[int]:
    fd = open_root(directory)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def _naming(path: str) -> Iterator[None]:
    """An ``OSError`` in it names this path."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from error


@contextmanager
def _source(root: int, directory: str, snapshot: str, path: str) -> Iterator[tuple[_Place, Sequence[str]]]:
    """Where the snapshot has ``path``, and the names that lead there from the snapshot's root."""
    wanted = names_of(path)
    _refuse_path(path, wanted)
    name = _snapshot_name(root, os.path.join(directory, FOLDER), snapshot)
    with _naming(os.path.join(directory, FOLDER, name, *wanted)):
        inside = open_directory(root, (FOLDER, name))
        try:
            names = without_symlinks(inside, path)
            above = open_directory(inside, names[:-1])
        finally:
            os.close(inside)
    try:
        yield _Place(above, names[-1], os.path.join(directory, FOLDER, name, *names)), names
    finally:
        os.close(above)


@contextmanager
def _target(root: int, directory: str, names: Sequence[str], to: str | None) -> Iterator[_Place]:
    """In place by these names, which are directories here, too; or where ``to`` leads."""
    if to is not None:
        _refuse_path(to, names_of(to))
        with _naming(os.path.join(directory, *names_of(to))):
            names = without_symlinks(root, to)
            above = open_directory(root, names[:-1])
    else:
        try:
            above = open_directory(root, names[:-1])
        except (FileNotFoundError, NotADirectoryError) as error:
            shown = os.path.join(directory, *names[:-1])
            raise OSError(errno.ENOENT, "it is there no more; restore that, or elsewhere", shown) from error
    try:
        shown = os.path.join(directory, *names)
        if os.fstat(above).st_ino >= SNAPSHOT_BIT:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), shown)
        yield _Place(above, names[-1], shown)
    finally:
        os.close(above)


def _refuse_path(path: str, names: Sequence[str]) -> None:
    if ".." in names:
        raise OSError(errno.EINVAL, "from the directory that is given a path leads down, without '..'", path)
    if not names or path.rstrip("/").rpartition("/")[2] == ".":
        raise OSError(errno.EINVAL, "name a file or directory, not the root of the mount", path)


def _snapshot_name(root: int, folder: str, snapshot: str) -> str:
    """``latest`` is the one that it leads to now: another one may be taken first."""
    name = snapshot
    with suppress(OSError):
        name = os.readlink(os.path.join(FOLDER, snapshot), dir_fd=root)
    is_name = name not in ("", ".", "..") and "/" not in name
    try:
        if is_name:
            os.stat(os.path.join(FOLDER, name), dir_fd=root, follow_symlinks=False)
            return name
    except FileNotFoundError:
        is_name = False
    raise FileNotFoundError(errno.ENOENT, f"no snapshot has this name; those there are: ls {folder}", snapshot)


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


def _free_name(target: _Place) -> _Place:
    for number in range(_NAME_COUNT_MAX):
        # A name of 255 bytes has no room for more.
        name = os.fsdecode(os.fsencode(f".restore-{number}-{os.getpid()}-{target.name}")[:255])
        staged = _Place(target.directory, name, os.path.join(os.path.dirname(target.shown), name))
        if not staged.is_there():
            return staged
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target.shown)


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
