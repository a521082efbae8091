"""Paths to inode numbers, in one state of a fileset, as POSIX walks them.

A path is absolute: ``/`` is the root of that state, also for the targets of its symlinks. A dynamic link leads to
another state, the newest snapshot: ``look`` goes there, and what is to be changed must not lie there. A slash at
the end says that a directory is meant. ``.`` and ``..`` are names that every directory has.

Inode numbers of directories are remembered by path, since most calls name files of a few
directories. Invariant: a remembered path goes through no symlink, and is forgotten when
``moves`` of the tree changes; so nothing but the walk itself could tell another number.

Threads: any; a walk holds the store's lock.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import NamedTuple

from idemfs.ids import Ino
from idemfs.limits import RECORD_CACHE_COUNT_MAX, SYMLINK_FOLLOW_COUNT_MAX
from idemfs.vfs.reader import Reader, posix

_LINK = 0o120000


class Place(NamedTuple):
    """Where a name stands, whether or not something has it: ``ino`` is None when nothing has."""

    reader: Reader
    parent: Ino
    name: bytes
    ino: Ino | None


class Entry(NamedTuple):
    """A name to be made, moved or removed, itself and not what it may point to."""

    parent: Ino
    name: bytes
    slash: bool
    """The path ends in a slash: it can only mean a directory."""


class Paths:
    """Walks through what ``reader`` shows. ``moves``: a number that changes when remembered paths may be wrong."""

    def __init__(self, reader: Reader, moves: Callable[[], int] | None = None) -> None:
        self.reader = reader
        self._moves = moves or (lambda: 0)
        self._known: dict[bytes, Ino] = {}
        self._known_at = self._moves()

    def look(self, path: bytes, follow: bool = True) -> tuple[Reader, Ino]:
        """What has this path, and in which state, to be read; with ``follow``, what a symlink leads to.

        Raises ``OSError``.
        """
        place = self._locate(path, follow)
        if place.ino is None:
            raise posix(errno.ENOENT)
        return place.reader, place.ino

    def find(self, path: bytes, follow: bool = True) -> Ino:
        """As ``look``, in this state. Raises ``OSError`` (EROFS) where a dynamic link leads to a snapshot."""
        reader, ino = self.look(path, follow)
        self._own(reader)
        return ino

    def _own(self, reader: Reader) -> None:
        if reader is not self.reader:
            raise posix(errno.EROFS, "a dynamic link leads to the newest snapshot, which is for reading only")

    def entry(self, path: bytes) -> Entry:
        """The last name of the path, and its directory. ``/`` is the name ``.`` of the root."""
        check_absolute(path)
        bare = path.rstrip(b"/")
        if not bare:
            return Entry(self.reader.root, b".", False)
        head, _, name = bare.rpartition(b"/")
        return Entry(self.directory(head), name, len(bare) != len(path))

    def locate(self, path: bytes, follow: bool = True) -> Place:
        """The place that the path leads to; a symlink without a target leads to where the target would stand.

        Raises ``OSError`` as ``find`` does.
        """
        place = self._locate(path, follow)
        self._own(place.reader)
        return place

    def _locate(self, path: bytes, follow: bool) -> Place:
        check_absolute(path)
        head, _, name = path.rpartition(b"/")
        with self.reader.store.lock:
            if name and head:
                reader, directory = self._directory(head)
                return _Walk(reader).go(directory, [name], follow)
            return _Walk(self.reader).go(self.reader.root, _names(path), follow)

    def directory(self, path: bytes) -> Ino:
        """The directory at this path, of which ``""`` is the root.

        Raises ``OSError`` (ENOENT, ENOTDIR, ELOOP, EROFS).
        """
        known = self._known.get(path) if self._known_at == self._moves() else None
        if known is not None:
            return known
        reader, ino = self._learn(path)
        self._own(reader)
        return ino

    def _directory(self, path: bytes) -> tuple[Reader, Ino]:
        known = self._known.get(path) if self._known_at == self._moves() else None
        return self._learn(path) if known is None else (self.reader, known)

    def _learn(self, path: bytes) -> tuple[Reader, Ino]:
        with self.reader.store.lock:
            if path:
                check_absolute(path)
            walk = _Walk(self.reader)
            head, _, name = path.rpartition(b"/")
            above = self._known.get(head) if name and self._known_at == self._moves() else None
            start, names = (self.reader.root, _names(path)) if above is None else (above, [name])
            place = walk.go(start, names, True)
            if place.ino is None:
                raise posix(errno.ENOENT)
            place.reader.directory(place.ino)
            if walk.left == SYMLINK_FOLLOW_COUNT_MAX:
                # Nothing moves while the lock is held.
                moves = self._moves()
                if self._known_at != moves or len(self._known) >= RECORD_CACHE_COUNT_MAX:
                    self._known.clear()
                    self._known_at = moves
                self._known[path] = place.ino
            return place.reader, place.ino


class _Walk:
    """One walk; ``left`` counts down the symlinks that it may still follow."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self.left = SYMLINK_FOLLOW_COUNT_MAX

    def go(self, start: Ino, names: list[bytes], follow: bool) -> Place:
        """From ``start`` along ``names``, of which the last one comes first."""
        reader = self._reader
        place = Place(reader, start, b".", start)
        at = start
        while names:
            name = names.pop()
            try:
                ino = reader.lookup(at, name)
            except FileNotFoundError:
                if names:
                    raise
                return Place(reader, at, name, None)
            place = Place(reader, at, name, ino)
            if not names and not follow:
                break
            node = reader.inode(ino)
            if node.mode & 0o170000 != _LINK:
                at = ino
                continue
            if not self.left:
                raise posix(errno.ELOOP)
            self.left -= 1
            if node.is_dynamic:
                reader, at = reader.follow(ino, node)
                place = Place(reader, at, b".", at)
                continue
            if not node.data:
                raise posix(errno.ENOENT)
            if node.data[:1] == b"/":
                at = reader.root
                place = Place(reader, at, b".", at)
            names += _names(node.data)
        return place


def _names(path: bytes) -> list[bytes]:
    """The names of a path, the last one first; a slash at the end asks for the directory's own name."""
    names = [name for name in path.split(b"/") if name]
    if path[-1:] == b"/":
        names.append(b".")
    names.reverse()
    return names


def check_absolute(path: bytes) -> None:
    """Raises ``OSError`` (ENOENT, EINVAL) for what is no path."""
    if path[:1] != b"/":
        raise posix(errno.EINVAL, "a path in a store begins with '/'") if path else posix(errno.ENOENT)
