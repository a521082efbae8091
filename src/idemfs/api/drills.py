"""Drills of an open store: what a standby has, to be changed for a test, while replication goes on.

Threads: any.
"""

from __future__ import annotations

import builtins
from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

from idemfs.api.contents import Writable
from idemfs.format.tables import Snapshot
from idemfs.snapshots import clones
from idemfs.snapshots.drills import Drill as DrillRecord
from idemfs.snapshots.drills import listed
from idemfs.snapshots.usage import active_bytes
from idemfs.store.store import Store
from idemfs.vfs import drilling
from idemfs.vfs.fileset_tree import FilesetTree
from idemfs.vfs.tree import Tree


class DrillInfo(NamedTuple):
    """One drill as it was when it was asked for. ``filesets``: their names, that of its root first."""

    name: str
    started_ns: int
    snapshot: str | None
    """What names the snapshot that the root is a clone of; None when it has become independent of it."""
    snapshot_deleted: bool
    """Whether that has lost its name, and stays for the drill alone."""
    filesets: tuple[str, ...]
    active_bytes: int
    """What it has changed: extents in whole sectors, and records."""


class DrillPlan(NamedTuple):
    """What a drill would have: names of snapshots, and of the filesets that are made of them."""

    name: str
    pieces: tuple[tuple[str, str], ...]


class Drill:
    """One drill of an open store."""

    def __init__(self, tree: Tree, record: DrillRecord) -> None:
        self._tree = tree
        self._record = record

    @property
    def name(self) -> str:
        return self._record.name

    @property
    def fileset(self) -> str:
        """The name of its root fileset, which ``idemfs mount --fileset`` shows."""
        return self._tree.store.catalog.filesets[self._record.filesets[0]].name

    @cached_property
    def files(self) -> Writable:
        """Its files, with the reading and changing methods of a ``FileSystem``."""
        return Writable(FilesetTree(self._tree, self._record.filesets[0]))

    def info(self) -> DrillInfo:
        store = self._tree.store
        with store.lock:
            if not store.readonly:
                # What the open group changes is counted when it is sealed.
                self._tree.active.settle()
            filesets = [store.catalog.filesets[number] for number in self._record.filesets]
            origin = clones.origin_of(store, filesets[0])
            return DrillInfo(
                self._record.name,
                self._record.started_ns,
                None if origin is None else origin[0],
                origin is not None and origin[1],
                tuple(each.name for each in filesets),
                sum(active_bytes(store, each) for each in filesets),
            )

    def __repr__(self) -> str:
        return f"<Drill {self.name!r}>"


class Drills:
    """The drills of a store; iterating gives a ``DrillInfo`` each. ``DrillError`` is raised for unknown names."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._store = tree.store

    def start(self, name: str | None = None, *, snapshot: str | None = None) -> Drill:
        """Begin a drill; durable on return. Without a name it is the first free one of ``drill``, ``drill-2`` …

        It has what this standby received last, or had received at ``snapshot``: ``NAME`` of the root fileset, or
        ``FILESET@NAME`` for that fileset and what appears in it. Raises ``NotStandby``, ``DrillError``,
        ``BadFilesetName``, ``SnapshotMissing``, ``NoSpace``, ``CommitFailed``.
        """
        with self._store.exclusive():
            return Drill(self._tree, drilling.start(self._tree, self._name(name), self._find(snapshot)))

    def plan(self, name: str | None = None, *, snapshot: str | None = None) -> DrillPlan:
        """What ``start`` would make; raises what it would raise."""
        with self._store.lock:
            pieces = drilling.plan(self._tree, self._name(name), self._find(snapshot))
            return DrillPlan(
                pieces[0].name, tuple((_operand(self._store, each.snapshot), each.name) for each in pieces)
            )

    def end(self, name: str) -> None:
        """Throw a drill away; durable on return. Raises ``DrillError``, ``FilesetInUse``, ``NoSpace``."""
        drilling.end(self._tree, name)

    def check_endable(self, name: str) -> None:
        """Raises what ``end`` would raise."""
        drilling.refuse_ending(self._tree, drilling.find(self._store, name))

    def list(self) -> builtins.list[DrillInfo]:
        with self._store.lock:
            return [Drill(self._tree, each).info() for each in listed(self._store)]

    def __iter__(self) -> Iterator[DrillInfo]:
        return iter(self.list())

    def __getitem__(self, name: str) -> Drill:
        with self._store.lock:
            return Drill(self._tree, drilling.find(self._store, name))

    def _name(self, name: str | None) -> str:
        return drilling.free_name(self._store) if name is None else name

    def _find(self, snapshot: str | None) -> Snapshot | None:
        if snapshot is None:
            return None
        return self._store.catalog.by_name(*self._store.catalog.snapshot_place(snapshot))


def _operand(store: Store, snapshot: Snapshot) -> str:
    """What names a snapshot in its store."""
    return f"{store.catalog.filesets[snapshot.fileset].name}@{snapshot.name}" if snapshot.fileset else snapshot.name
