"""What a tree holds, file by file, and how two trees differ first.

A manifest is made by reading everything through the public interface; so it finds what digests would
not: that a digest is kept rightly but something else is read.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import stat
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

Manifest = dict[str, "Entry"]
READ_SIZE = 1 << 20


class Entry(NamedTuple):
    """One path. ``content``: SHA-256 of the bytes or a link's target; ``same_as``: an earlier path of the same file."""

    mode: int
    uid: int
    gid: int
    mtime_ns: int
    size: int
    content: str
    same_as: str


class View(Protocol):
    """What ``idemfs.FileSystem``, snapshots of it, and ``Host`` have in common."""

    def walk(self, top: str) -> Iterator[tuple[str, list[str], list[str]]]: ...
    def lstat(self, path: str) -> os.stat_result: ...
    def readlink(self, path: str) -> str: ...
    def read_bytes(self, path: str) -> bytes: ...


class Host:
    """A directory of this machine, with the paths that its files have in a store."""

    def __init__(self, directory: str, leave_out: frozenset[tuple[int, int]] = frozenset()) -> None:
        """``leave_out``: device and inode number of folders that are not looked into."""
        self._directory = directory
        self._leave_out = leave_out

    def _real(self, path: str) -> str:
        return self._directory + path.rstrip("/")

    def walk(self, top: str) -> Iterator[tuple[str, list[str], list[str]]]:
        for at, directories, others in os.walk(self._real(top)):
            directories[:] = sorted(name for name in directories if not self._is_left_out(at, name))
            yield at[len(self._directory) :] or "/", directories, others

    def _is_left_out(self, at: str, name: str) -> bool:
        status = os.lstat(os.path.join(at, name))
        return (status.st_dev, status.st_ino) in self._leave_out

    def lstat(self, path: str) -> os.stat_result:
        return os.lstat(self._real(path))

    def readlink(self, path: str) -> str:
        return os.readlink(self._real(path))

    def read_bytes(self, path: str) -> bytes:
        with open(self._real(path), "rb") as file:
            return file.read()


def make(view: View, top: str = "/", advance: Callable[[int], object] = lambda _: None) -> Manifest:
    """Everything below ``top``, by its path from there. ``advance`` is told of each file's size."""
    found: Manifest = {}
    first_names: dict[int, str] = {}
    for at, directories, others in view.walk(top):
        for name in sorted([*directories, *others]):
            full = posixpath.join(at, name)
            path = full[len(top.rstrip("/")) :]
            found[path] = _entry(view, full, path, first_names)
            advance(found[path].size)
    return found


def _entry(view: View, full: str, path: str, first_names: dict[int, str]) -> Entry:
    status = view.lstat(full)
    kind = stat.S_IFMT(status.st_mode)
    content = b""
    if kind == stat.S_IFLNK:
        content = os.fsencode(view.readlink(full))
    elif kind == stat.S_IFREG:
        content = view.read_bytes(full)
    same_as = ""
    if kind != stat.S_IFDIR and status.st_nlink > 1:
        # The other names of a file may lie outside the tree.
        first = first_names.setdefault(status.st_ino, path)
        same_as = "" if first == path else first
    size = 0 if kind == stat.S_IFDIR else status.st_size
    return Entry(status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, size, sha256(content), same_as)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def first_difference(one: Manifest, other: Manifest, *, owners: bool = True) -> str | None:
    """The first path, in order, at which two manifests differ, and in what; None when they are equal."""
    for path in sorted(one.keys() | other.keys()):
        left, right = one.get(path), other.get(path)
        if left is None or right is None:
            return f"{path}: only in the {'second' if left is None else 'first'} one"
        for field, mine, its in zip(Entry._fields, left, right, strict=True):
            if mine != its and (owners or field not in ("uid", "gid")):
                return f"{path}: {field} is {_shown(field, mine)} in the first one, {_shown(field, its)} in the second"
    return None


def _shown(field: str, value: object) -> str:
    return oct(value) if field == "mode" and isinstance(value, int) else repr(value)


def total_bytes(manifest: Manifest) -> int:
    return sum(entry.size for entry in manifest.values())
