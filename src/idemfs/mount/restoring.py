"""Restore through a mount, by ordinary system calls: whoever may read the snapshot and write the place may do it.

A copy is made beside the place, with the attributes that the caller may set, and takes its name when it is whole:
in one step, also over a directory, which exchanges names with it and is removed then. What fails before leaves the
place as it was, and no snapshot either. Other filesets are neither copied nor emptied. Symlinks on the way lead as in
a restore by the store: those of the snapshot inside of it, and in place no others.

Threads: one.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple

from idemfs.ids import NUMBER_BITS
from idemfs.mount.descending import Walk, naming
from idemfs.mount.inside import Place, names_of, open_directory, open_root, without_symlinks
from idemfs.mount.nodes import SNAPSHOT_BIT
from idemfs.mount.tree_copy import Copy

FOLDER = ".snapshots"
_EXCHANGE = 2
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
    with _opened(directory) as root, _source(root, directory, snapshot, path) as (source, names):
        source.status()
        with _target(root, directory, names, to) as target:
            return _restored(root, snapshot, source, target, undo_name, in_place=to is None)


def _restored(
    root: int, snapshot: str, source: Place, target: Place, undo_name: str | None, *, in_place: bool
) -> MountedRestore:
    replaces = target.is_there()
    if replaces and not in_place:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target.shown)
    if replaces:
        _Refusal(target.directory, target.folder).run(target.name)
    undo = _take_snapshot(root, undo_name or f"before-restore-{snapshot}") if in_place else None
    staged, made = _free_name(target), None
    try:
        copy = Copy(source, target, staged.name)
        copy.run(source.name)
        made = staged.status().st_ino
        _put_in_place(staged, target, replaces=replaces)
        return MountedRestore(copy.count, None if undo is None else undo.name, _removed(staged))
    except (OSError, KeyboardInterrupt) as error:
        is_done = made is not None and target.is_there() and target.status().st_ino == made
        remains = _what_is_left(staged, undo) if is_done else _what_is_not_undone(root, staged, undo)
        if not remains:
            raise
        number, what = (error.errno, error.strerror) if isinstance(error, OSError) else (errno.EINTR, "interrupted")
        named = error.filename if isinstance(error, OSError) else target.shown
        raise OSError(number, "; ".join((what or "failed", *remains)), named) from error


def _removed(staged: Place) -> str | None:
    """Remove what has this name, if it is there. The path, if that is not possible."""
    try:
        if staged.is_there():
            remove(staged.name, staged.directory)
    except OSError:
        return staged.shown
    return None


def _what_is_left(staged: Place, undo: _Undo | None) -> list[str]:
    """In words, after what is restored has taken its place."""
    told = ["it is restored"]
    if staged.is_there():
        told.append(f"what was there is {staged.shown} now")
    return [*told, *_told(undo)]


def _what_is_not_undone(root: int, staged: Place, undo: _Undo | None) -> list[str]:
    """In words, before what is restored has taken its place; nothing if all of it is undone."""
    left = _removed(staged)
    if left is not None:
        return [f"a part of the copy is {left}", *_told(undo)]
    if undo is not None and not _is_taken_back(root, undo):
        return _told(undo)
    return []


def _told(undo: _Undo | None) -> list[str]:
    return [] if undo is None else [f"'{undo.name}' is the state before"]


def count(directory: str, snapshot: str, path: str) -> int:
    """How many files and directories the snapshot has there. Raises ``OSError``."""
    with _opened(directory) as root, _source(root, directory, snapshot, path) as (source, _):
        counting = _Count(source.directory, source.folder)
        counting.run(source.name)
        return counting.count


@contextmanager
def _opened(directory: str) -> Iterator[int]:
    fd = open_root(directory)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def _source(root: int, directory: str, snapshot: str, path: str) -> Iterator[tuple[Place, Sequence[str]]]:
    """Where the snapshot has ``path``, and the names that lead there from the snapshot's root."""
    wanted = names_of(path)
    _refuse_path(path, wanted)
    name = _snapshot_name(root, os.path.join(directory, FOLDER), snapshot)
    with naming(os.path.join(directory, FOLDER, name, *wanted)):
        inside = open_directory(root, (FOLDER, name))
        try:
            names = without_symlinks(inside, path)
            above = open_directory(inside, names[:-1])
        finally:
            os.close(inside)
    try:
        yield Place(above, names[-1], os.path.join(directory, FOLDER, name, *names)), names
    finally:
        os.close(above)


@contextmanager
def _target(root: int, directory: str, names: Sequence[str], to: str | None) -> Iterator[Place]:
    """In place by these names, which are directories here, too; or where ``to`` leads."""
    if to is not None:
        _refuse_path(to, names_of(to))
        with naming(os.path.join(directory, *names_of(to))):
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
        yield Place(above, names[-1], shown)
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


class _Undo(NamedTuple):
    """The snapshot that was taken first, and its directory's number: somebody may take another one by that name."""

    name: str
    inode: int


def _take_snapshot(root: int, wanted: str) -> _Undo | None:
    """A snapshot of the state before, for whoever may take one."""
    for number in range(1, _NAME_COUNT_MAX):
        name = wanted if number == 1 else f"{wanted}-{number}"
        path = os.path.join(FOLDER, name)
        try:
            os.mkdir(path, dir_fd=root)
        except FileExistsError:
            continue
        except PermissionError:
            return None
        return _Undo(name, os.stat(path, dir_fd=root).st_ino)
    return None


def _is_taken_back(root: int, undo: _Undo) -> bool:
    """Delete it. False: it is there still."""
    path = os.path.join(FOLDER, undo.name)
    try:
        if os.stat(path, dir_fd=root).st_ino == undo.inode:
            os.rmdir(path, dir_fd=root)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _free_name(target: Place) -> Place:
    for number in range(_NAME_COUNT_MAX):
        # A name of 255 bytes has no room for more.
        name = os.fsdecode(os.fsencode(f".restore-{number}-{os.getpid()}-{target.name}")[:255])
        staged = Place(target.directory, name, os.path.join(target.folder, name))
        if not staged.is_there():
            return staged
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target.shown)


def _put_in_place(staged: Place, target: Place, *, replaces: bool) -> None:
    with naming(target.shown):
        if replaces and (_is_dir(staged) or _is_dir(target)):
            _exchange(staged, target)
        else:
            os.rename(staged.name, target.name, src_dir_fd=staged.directory, dst_dir_fd=target.directory)


def _is_dir(place: Place) -> bool:
    return stat.S_ISDIR(place.status().st_mode)


def _exchange(first: Place, second: Place) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(first.name), os.fsencode(second.name)
    if libc.renameat2(first.directory, names[0], second.directory, names[1], _EXCHANGE):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _fileset(status: os.stat_result) -> int:
    return status.st_ino >> NUMBER_BITS


def remove(name: str, directory: int) -> None:
    """Remove a name with all below it, but no other fileset: that is ``EBUSY``."""
    _Removal(directory, "").run(name)


class _Count(Walk):
    def __init__(self, start: int, shown: str) -> None:
        super().__init__(start, shown)
        self.count = 0

    def entered(self) -> None:
        self.count += 1

    def other(self, name: str) -> None:
        self.count += 1


class _Refusal(Walk):
    """Raises ``OSError`` (EBUSY) for a fileset that appears below what it begins with."""

    def __init__(self, start: int, shown: str) -> None:
        super().__init__(start, shown)
        self._own: int | None = None

    def entering(self, name: str) -> None:
        found = _fileset(os.stat(name, dir_fd=self.tree.fd, follow_symlinks=False))
        if self._own not in (None, found):
            raise OSError(errno.EBUSY, "a fileset appears here; let it appear elsewhere first", self.shown(name))
        self._own = found


class _Removal(Walk):
    """By descriptors: whoever owns what goes may put a link in the place of a directory meanwhile."""

    def __init__(self, start: int, shown: str) -> None:
        super().__init__(start, shown)
        self._own: int | None = None

    def entered(self) -> None:
        found = _fileset(os.fstat(self.tree.fd))
        if self._own not in (None, found):
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), self.shown())
        self._own = found

    def other(self, name: str) -> None:
        with naming(self.shown(name)):
            os.unlink(name, dir_fd=self.tree.fd)

    def left(self, name: str) -> None:
        with naming(self.shown(name)):
            os.rmdir(name, dir_fd=self.tree.fd)
