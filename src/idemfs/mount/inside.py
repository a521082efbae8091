"""Paths inside a directory that stands for the root: no symlink on the way leads out of it.

They are walked as the store walks its own: an absolute symlink begins at that root again, and above the root is the
root. The last name is not followed. It is done name by name, with descriptors, so that whoever may change the tree
meanwhile cannot lead the walk elsewhere; and with the rights of the caller, as every system call.

Threads: any.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence

from idemfs.limits import SYMLINK_FOLLOW_COUNT_MAX
from idemfs.mount.descending import naming

_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Place:
    """A name in a directory that is open. ``shown``: its path, for messages."""

    __slots__ = ("directory", "name", "shown")

    def __init__(self, directory: int, name: str, shown: str) -> None:
        self.directory = directory
        self.name = name
        self.shown = shown

    @property
    def folder(self) -> str:
        """The directory's path, for messages."""
        return os.path.dirname(self.shown)

    def status(self) -> os.stat_result:
        """Raises ``OSError``."""
        with naming(self.shown):
            return os.stat(self.name, dir_fd=self.directory, follow_symlinks=False)

    def is_there(self) -> bool:
        try:
            self.status()
        except FileNotFoundError:
            return False
        return True


def names_of(path: str) -> list[str]:
    """The names of a path; ``.`` on the way is none."""
    return [name for name in path.split("/") if name not in ("", ".")]


def without_symlinks(root: int, path: str) -> list[str]:
    """The names that lead from ``root`` to what ``path`` names, all but the last one of directories.

    Nothing needs to have the last name. Raises ``OSError``.
    """
    found: list[str] = []
    left = names_of(path)[::-1]
    symlink_count = 0
    at = os.dup(root)
    try:
        while left:
            name = left.pop()
            if name == "..":
                del found[-1:]
                at = _replaced(at, open_directory(root, found))
            elif not left:
                found.append(name)
            elif not stat.S_ISLNK(os.stat(name, dir_fd=at, follow_symlinks=False).st_mode):
                at = _replaced(at, os.open(name, _DIRECTORY, dir_fd=at))
                found.append(name)
            else:
                symlink_count += 1
                if symlink_count > SYMLINK_FOLLOW_COUNT_MAX:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                target = os.readlink(name, dir_fd=at)
                if target.startswith("/"):
                    found.clear()
                    at = _replaced(at, os.dup(root))
                left += names_of(target)[::-1]
    finally:
        os.close(at)
    return found


def open_directory(root: int, names: Sequence[str]) -> int:
    """A descriptor, for paths only, of the directory that these names lead to, none of them a symlink.

    Raises ``OSError``.
    """
    at = os.dup(root)
    try:
        for name in names:
            at = _replaced(at, os.open(name, _DIRECTORY, dir_fd=at))
    except BaseException:
        os.close(at)
        raise
    return at


def open_root(path: str) -> int:
    """Raises ``OSError``."""
    return os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def _replaced(old: int, new: int) -> int:
    os.close(old)
    return new
