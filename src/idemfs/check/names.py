"""Entries, back-references and link counts; every inode can be reached from the root.

Each entry is followed to its inode and each back-reference to its entry, so that nothing but
the directories' parents is remembered. When a fileset is between two states, what its newest
complete state has is checked, since names in between need not fit together.

Threads: under the store's lock.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator
from itertools import groupby
from typing import Protocol

from idemfs.check.clones import is_unseen_orphan
from idemfs.check.context import Context, decoded
from idemfs.check.findings import Finding, Kind
from idemfs.check.scans import merged, pairs
from idemfs.errors import Damaged
from idemfs.format import entry, keys
from idemfs.format.inode import Inode
from idemfs.ids import ROOT_NUMBER, FilesetId, Ino, Number, SnapshotId, fileset_of, make_ino, number_of

_DIRECTORY = 4
"""The type of a directory in an entry."""


class State(Protocol):
    """The active state of a fileset, or one of its snapshots."""

    is_active: bool

    def get(self, key: bytes) -> bytes | None: ...
    def records(self) -> Iterator[tuple[bytes, bytes]]: ...


class ActiveState:
    """The records of a fileset as they are."""

    is_active = True

    def __init__(self, context: Context, fileset: FilesetId) -> None:
        self._active = context.store.active
        self._range = keys.fileset_range(fileset)
        self.get = self._active.get

    def records(self) -> Iterator[tuple[bytes, bytes]]:
        return pairs(self._active, *self._range)


class SnapshotState:
    """The records of a fileset, without indirect blocks, as a snapshot sees them."""

    is_active = False

    def __init__(self, context: Context, fileset: FilesetId, snapshot: SnapshotId) -> None:
        self._context = context
        self._snapshot = snapshot
        self._range = keys.fileset_range(fileset)

    def get(self, key: bytes) -> bytes | None:
        found = self._context.store.shadow.first(*keys.shadow_range(key, self._snapshot))
        if found is not None:
            return found[1] or None
        return self._unless_younger(key, self._context.store.active.get(key))

    def _unless_younger(self, key: bytes, value: bytes | None) -> bytes | None:
        if value is not None and keys.kind_of(key) == keys.INODE:
            node = decoded(value)
            return None if node is None or node.birth >= self._snapshot else value
        return value

    def records(self) -> Iterator[tuple[bytes, bytes]]:
        for ino, group in groupby(merged(self._context.store, *self._range), key=_ino_of_merged):
            if self.get(keys.inode(ino)) is None:
                continue
            for key, versions, active in group:
                seen = next((value for owner, value in versions if owner >= self._snapshot), active)
                if seen and keys.kind_of(key) != keys.BLOCK:
                    yield key, seen


def _ino_of_merged(record: tuple[bytes, object, object]) -> Ino:
    return keys.ino_of(record[0])


class Names:
    """One pass over the records of one state of a fileset."""

    def __init__(self, context: Context, fileset: FilesetId, state: State) -> None:
        self._context = context
        self._fileset = fileset
        self._state = state
        self._root = make_ino(fileset, ROOT_NUMBER)
        self._directories = array("Q")
        self._parents = array("Q")
        self._start(self._root)

    def _start(self, ino: Ino) -> None:
        self._ino = ino
        self._node: Inode | None = None
        self._entry_count = self._directory_count = self._link_count = 0

    def check(self) -> Iterator[Finding]:
        """Nothing is expected of a fileset that no inode was ever made in."""
        is_used = False
        for key, value in self._state.records():
            is_used = True
            if keys.ino_of(key) != self._ino:
                yield from self._end()
                self._start(keys.ino_of(key))
            match keys.kind_of(key):
                case keys.INODE:
                    self._node = decoded(value)
                    if self._node is not None and self._node.name:
                        yield from self._back_reference(Number(self._node.parent), self._node.name)
                case keys.ENTRY:
                    yield from self._entry(key[keys.NAME_AT :], value)
                case keys.LINK:
                    yield from self._link(Number(int.from_bytes(key[9:17], "big")), key[17:])
        yield from self._end()
        yield from self._unreachable()
        if is_used and self._state.get(keys.inode(self._root)) is None:
            yield Finding(Kind.INODE, self._context.path(self._root), "the root directory is missing")

    def _entry(self, name: bytes, value: bytes) -> Iterator[Finding]:
        self._entry_count += 1
        try:
            number, kind = entry.unpack(value)
        except Damaged:
            return
        self._directory_count += kind == _DIRECTORY
        child = make_ino(self._fileset, number)
        child_value = self._state.get(keys.inode(child))
        if child_value is None:
            yield self._finding(Kind.ENTRY, f"entry {os.fsdecode(name)!r} names inode {number}, which is missing")
            return
        node = decoded(child_value)
        if node is None:
            return
        if node.mode >> 12 != kind:
            what = f"entry {os.fsdecode(name)!r} says type {kind}, and the inode has type {node.mode >> 12}"
            yield self._finding(Kind.ENTRY, what)
        parent = number_of(self._ino)
        if (node.parent, node.name) != (parent, name) and self._state.get(keys.link(child, parent, name)) is None:
            what = f"entry {os.fsdecode(name)!r} names inode {number}, which has no back-reference to it"
            yield self._finding(Kind.BACK_REFERENCE, what)

    def _back_reference(self, parent: Number, name: bytes) -> Iterator[Finding]:
        self._link_count += 1
        value = self._state.get(keys.entry(make_ino(self._fileset, parent), name))
        if not self._names_this(value):
            what = f"has a back-reference to {os.fsdecode(name)!r} in inode {parent}, where no entry names it"
            yield self._finding(Kind.BACK_REFERENCE, what)

    def _names_this(self, value: bytes | None) -> bool:
        try:
            return value is not None and entry.unpack(value)[0] == number_of(self._ino)
        except Damaged:
            return True

    def _link(self, parent: Number, name: bytes) -> Iterator[Finding]:
        if self._node is not None and (self._node.parent, self._node.name) == (parent, name):
            yield self._finding(Kind.BACK_REFERENCE, f"has the back-reference to {os.fsdecode(name)!r} twice")
        else:
            yield from self._back_reference(parent, name)

    def _end(self) -> Iterator[Finding]:
        node = self._node
        if node is None:
            return
        if node.is_dir:
            yield from self._end_directory(node)
        else:
            if self._entry_count:
                yield self._finding(Kind.ENTRY, f"has {self._entry_count} entries and is no directory")
            if node.nlink != self._link_count:
                what = f"has a link count of {node.nlink}, and {self._link_count} back-references"
                yield self._finding(Kind.LINK_COUNT, what)
        if self._state.is_active:
            is_orphan = self._context.store.small.get(keys.orphan(self._ino)) is not None
            if is_orphan != (node.nlink == 0) and not is_unseen_orphan(self._context, self._ino):
                what = "is an orphan and has links" if is_orphan else "has no links and is no orphan"
                yield self._finding(Kind.ORPHAN, what)

    def _end_directory(self, node: Inode) -> Iterator[Finding]:
        if node.size != self._entry_count:
            what = f"says that it has {node.size} entries; it has {self._entry_count}"
            yield self._finding(Kind.DIRECTORY_SIZE, what)
        is_root = self._ino == self._root
        # A removed one is open still: it has neither a name nor links.
        is_removed = not node.nlink and not is_root
        expected = 0 if is_removed else 2 + self._directory_count
        if node.nlink != expected:
            what = f"has a link count of {node.nlink}, and {self._directory_count} directories in it"
            yield self._finding(Kind.LINK_COUNT, what)
        if is_root:
            if node.name or node.parent != ROOT_NUMBER:
                yield self._finding(Kind.BACK_REFERENCE, "the root directory has a name, or another parent than itself")
        elif self._link_count != (0 if is_removed else 1):
            what = f"is a directory with {self._link_count} back-references"
            yield self._finding(Kind.BACK_REFERENCE, what)
        elif not is_removed:
            self._directories.append(number_of(self._ino))
            self._parents.append(node.parent)

    def _unreachable(self) -> Iterator[Finding]:
        """Directories from which the way up goes in a circle. A way up that ends was reported where it ends."""
        if not self._directories:
            return
        import numpy as np

        count = len(self._directories)
        numbers = np.array(self._directories, np.uint64)
        parents = np.array(self._parents, np.uint64)
        at = np.minimum(np.searchsorted(numbers, parents), count - 1)
        # Whatever is no directory below the root stands for the end of the way, and leads to itself.
        up = np.append(np.where(numbers[at] == parents, at, count), count)
        for _ in range(count.bit_length()):
            up = up[up]
        for place in np.flatnonzero(up[:count] != count).tolist():
            number = Number(self._directories[place])
            what = "cannot be reached from the root: its parents go in a circle"
            yield Finding(Kind.UNREACHABLE, self._context.number(make_ino(self._fileset, number)), what)

    def _finding(self, kind: Kind, what: str) -> Finding:
        return Finding(kind, self._context.path(self._ino), what)


def check_orphans(context: Context) -> Iterator[Finding]:
    """Each orphan is an inode."""
    for key, _ in pairs(context.store.small, *keys.prefix_range(b"O")):
        ino = Ino(int.from_bytes(key[1:], "big"))
        if fileset_of(ino) in context.filesets and context.is_going(fileset_of(ino)):
            continue
        if context.store.active.get(keys.inode(ino)) is None:
            yield Finding(Kind.ORPHAN, context.number(ino), "is an orphan, and the inode is missing")
