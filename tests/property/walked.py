"""Whole trees, read name by name: what differences, versions and purges are compared with.

Threads: one.
"""

from __future__ import annotations

import stat
from typing import NamedTuple

from idemfs.api.view import TreeView

Place = tuple[int, str]
"""Inode number of a directory, and a name in it."""


class Seen(NamedTuple):
    """One inode."""

    mode: int
    owner: tuple[int, int]
    device: int
    mtime: int
    ctime: int
    nlink: int
    content: object
    """Bytes of a file, target of a symlink, names of a directory."""
    xattrs: tuple[tuple[str, bytes], ...]

    @property
    def is_dir(self) -> bool:
        return stat.S_ISDIR(self.mode)


class Walked(NamedTuple):
    """One state of a fileset."""

    inodes: dict[int, Seen]
    paths: dict[str, int]
    """Each path with its inode number."""
    places: dict[Place, tuple[int, str]]
    """Each entry with the inode that it names, and its path."""


def walk(view: TreeView) -> Walked:
    root = view.lstat("/").st_ino
    found = Walked({}, {"/": root}, {})
    waiting = ["/"]
    while waiting:
        path = waiting.pop()
        number = found.paths[path]
        names = view.listdir(path) if view.is_dir(path) and not view.is_symlink(path) else []
        found.inodes[number] = _seen(view, path, names)
        for name in names:
            below = path.rstrip("/") + "/" + name
            child = view.lstat(below).st_ino
            found.paths[below] = child
            found.places[number, name] = child, below
            waiting.append(below)
    return found


def _seen(view: TreeView, path: str, names: list[str]) -> Seen:
    status = view.lstat(path)
    content: object = None
    if stat.S_ISLNK(status.st_mode):
        content = "to a number" if view.is_dynamic_link(path) else view.readlink(path)
    elif stat.S_ISREG(status.st_mode):
        content = view.read_bytes(path)
    elif stat.S_ISDIR(status.st_mode):
        content = tuple(sorted(names))
    xattrs = tuple(
        (each, view.getxattr(path, each, follow_symlinks=False))
        for each in sorted(view.listxattr(path, follow_symlinks=False))
    )
    owner = status.st_uid, status.st_gid
    times = status.st_mtime_ns, status.st_ctime_ns
    return Seen(status.st_mode, owner, status.st_rdev, *times, status.st_nlink, content, xattrs)
