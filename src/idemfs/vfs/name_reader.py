"""Names by inode number, in the active file system or in a snapshot: the part of ``Reader`` that knows directories.

Threads: as in ``reader``.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from functools import cache

from idemfs.format import entry, keys
from idemfs.format.inode import Inode
from idemfs.format.tables import COMPLETE, Snapshot
from idemfs.ids import ROOT_NUMBER, FilesetId, Ino, Number, fileset_of, make_ino, number_of
from idemfs.limits import NAME_SIZE_MAX, SCAN_COUNT
from idemfs.versions.resolve import AFTER
from idemfs.versions.state import Records

_text = cache(os.strerror)


def posix(number: int, what: str = "") -> OSError:
    """The builtin subclass of ``OSError`` for ``number``."""
    return OSError(number, f"{_text(number)}: {what}" if what else _text(number))


class NameReader:
    """One state of a fileset. ``crosses``: names lead through junctions into other filesets; else their directories
    are what they are in their own fileset, empty."""

    def __init__(
        self, view: Records, fileset: FilesetId, *, snapshot: Snapshot | None = None, crosses: bool = False
    ) -> None:
        self.view = view
        self.store = view.store
        self.fileset = fileset
        self.root = make_ino(fileset, ROOT_NUMBER)
        self.snapshot = snapshot
        self._crosses = crosses
        self._junctions: dict[Ino, FilesetId] = self.store.catalog.junctions if crosses else {}

    def _check(self) -> None:
        if self.snapshot is not None and self.snapshot.state != COMPLETE:
            raise posix(errno.ESTALE, f"snapshot {self.snapshot.name} was deleted")

    def inode(self, ino: Ino) -> Inode:
        """Raises ``OSError`` (ENOENT, ESTALE). What is returned is not changed, and not kept across calls."""
        with self.store.lock:
            self._check()
            node = self.view.inode(ino)
            if node is None:
                raise posix(errno.ENOENT)
            return node

    def directory(self, ino: Ino) -> Inode:
        """As ``inode``; raises ENOTDIR for anything else."""
        node = self.inode(ino)
        if not node.is_dir:
            raise posix(errno.ENOTDIR)
        return node

    def lookup(self, directory: Ino, name: bytes) -> Ino:
        """The inode number that ``name`` has in ``directory``; ``.`` and ``..`` are names too.

        A junction has that of the root of the fileset that appears there.
        """
        with self.store.lock:
            return self.through(self.named(directory, name))

    def named(self, directory: Ino, name: bytes) -> Ino:
        """As ``lookup``, of what has the name itself: of a junction, the directory in its own fileset."""
        with self.store.lock:
            node = self.directory(directory)
            if name == b".":
                return directory
            if name == b"..":
                return self._above(directory, node)
            if len(name) > NAME_SIZE_MAX:
                raise posix(errno.ENAMETOOLONG)
            value = self.view.version(keys.entry(directory, name))
            if value is None:
                raise posix(errno.ENOENT)
            return make_ino(fileset_of(directory), entry.unpack(value)[0])

    def _above(self, directory: Ino, node: Inode) -> Ino:
        junction = self._junction_of(directory)
        if junction is not None:
            directory, node = junction, self.directory(junction)
        return make_ino(fileset_of(directory), node.parent)

    def _junction_of(self, ino: Ino) -> Ino | None:
        """The directory where the fileset appears of which ``ino`` is the root, if this state shows it there."""
        if not self._crosses or number_of(ino) != ROOT_NUMBER:
            return None
        fileset = self.store.catalog.filesets.get(fileset_of(ino))
        return fileset.junction or None if fileset is not None else None

    def through(self, ino: Ino) -> Ino:
        """What a name leads to that has ``ino`` in its directory."""
        fileset = self._junctions.get(ino)
        return ino if fileset is None else make_ino(fileset, ROOT_NUMBER)

    def entries(self, directory: Ino, after: bytes = b"", limit: int = SCAN_COUNT) -> list[tuple[bytes, Ino, int]]:
        """Up to ``limit`` (name, inode number, type) in order of names, from the first name past ``after``."""
        with self.store.lock:
            self.directory(directory)
            start, end = keys.kind_range(directory, keys.ENTRY)
            at: bytes | None = start + after + AFTER if after else start
            fileset = fileset_of(directory)
            found: list[tuple[bytes, Ino, int]] = []
            while at is not None and len(found) < limit:
                pairs, at = self.view.page(at, end, limit)
                for key, value in pairs:
                    number, kind = entry.unpack(value)
                    found.append((key[keys.NAME_AT :], make_ino(fileset, number), kind))
            del found[limit:]
            if self._junctions:
                found = [(name, self.through(ino), kind) for name, ino, kind in found]
            return found

    def all_entries(self, directory: Ino) -> Iterator[tuple[bytes, Ino, int]]:
        """Every entry, page by page; entries that stay meanwhile come exactly once."""
        after = b""
        while page := self.entries(directory, after):
            yield from page
            after = page[-1][0]

    def links(self, ino: Ino) -> list[tuple[Number, bytes]]:
        """Every (directory number, name) of an inode, the first one first; empty for what was unlinked."""
        with self.store.lock:
            node = self.inode(ino)
            found = [(node.parent, node.name)] if node.name else []
            for key, _ in self.view.records(*keys.kind_range(ino, keys.LINK)):
                found.append((Number(int.from_bytes(key[9:17], "big")), key[17:]))
            return found

    def path(self, ino: Ino) -> bytes:
        """The path of an inode by its first back-reference; ``b"?"`` stands for what has no name any more."""
        with self.store.lock:
            path = self.path_inside(ino)
            while junction := self._junction_of(make_ino(fileset_of(ino), ROOT_NUMBER)):
                ino = junction
                path = (self.path_inside(ino) + path).rstrip(b"/")
            return path

    def path_inside(self, ino: Ino) -> bytes:
        """As ``path``, from the root of its fileset."""
        parts: list[bytes] = []
        with self.store.lock:
            while number_of(ino) != ROOT_NUMBER:
                node = self.view.inode(ino)
                if node is None or not node.name or len(parts) > 100_000:
                    parts.append(b"?")
                    break
                parts.append(node.name)
                ino = make_ino(fileset_of(ino), node.parent)
        return b"/" + b"/".join(reversed(parts))

    def what(self) -> str:
        """This state in words."""
        return "the active file system" if self.snapshot is None else f"snapshot {self.snapshot.name}"
