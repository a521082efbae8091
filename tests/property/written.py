"""Steps that change what snapshots hold: writing inside of one, and refreshing one, whole and interrupted.

What is done inside of a snapshot are the same steps that are done to the active file system.

Threads: one.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from idemfs.errors import SnapshotHeld
from idemfs.snapshots import manage, refresh
from idemfs.vfs.snapshot_tree import SnapshotTree
from idemfs.vfs.tree import Tree
from tests.property.compare import compare_nodes, compare_snapshot
from tests.property.machine import Machine
from tests.property.model import Model

INSIDE: tuple[tuple[str, int], ...] = (
    ("create", 4),
    ("create", 4),
    ("link", 3),
    ("unlink", 1),
    ("unlink", 1),
    ("rmdir", 1),
    ("rename", 4),
    ("set_attributes", 3),
    ("set_xattr", 3),
    ("remove_xattr", 2),
    ("write", 4),
    ("write", 4),
    ("append", 3),
    ("append", 3),
    ("truncate", 2),
    ("truncate", 2),
    ("punch", 3),
)
"""Steps that can be done inside a snapshot, and how many numbers they take."""


class WrittenSteps:
    """The part of ``Driver`` about this."""

    machine: Machine
    model: Model
    _written: SnapshotTree | None

    if TYPE_CHECKING:

        @property
        def tree(self) -> Tree: ...
        def compare_all(self) -> None: ...
        def _pick_snapshot(self, which: int) -> str | None: ...
        def _cut(self, after: int) -> AbstractContextManager[None]: ...
        def _after_cut(self) -> bool: ...

    def write_inside(self, which: int, step: int, *numbers: int) -> None:
        """Change one thing in a snapshot."""
        name = self._pick_snapshot(which)
        if name is not None:
            self._write_inside(name, [(step, numbers)])

    def write_more_inside(self, which: int, first: int, second: int, third: int, *numbers: int) -> bool | None:
        """Change several things in a snapshot, most often in one group."""
        name = self._pick_snapshot(which)
        if name is None:
            return None
        self._write_inside(name, [(step, numbers[at:]) for at, step in enumerate((first, second, third))])
        self.tree.sync()
        return True

    def _write_inside(self, name: str, steps: list[tuple[int, tuple[int, ...]]]) -> None:
        snapshot = self.machine.snapshot(name)
        guid = snapshot.guid
        try:
            written = SnapshotTree(self.machine.tree, snapshot)
        except SnapshotHeld:
            assert manage.holders(self.tree.store, snapshot), "a snapshot that nobody holds cannot be written to"
            return
        before, self._written = self.model.snapshots[name], written
        try:
            with self.model.inside(name):
                for step, numbers in steps:
                    method, count = INSIDE[step % len(INSIDE)]
                    getattr(self, method)(*(numbers * count)[:count])
                    state = self.model.active
                    compare_nodes(written.reader, state, state, f"snapshot {name} as it is written to")
        finally:
            self._written = None
            written.close()
        assert before == self.model.snapshots[name] or snapshot.guid != guid, "two states have one guid"
        compare_snapshot(self.tree, name, self.model.snapshots[name])

    def refresh(self, which: int, to: int) -> bool | None:
        """Let a snapshot become what a newer one is, or the active state."""
        names = list(self.model.snapshots)
        name = self._pick_snapshot(which)
        if name is None or manage.holders(self.tree.store, self.machine.snapshot(name)):
            return None
        newer = [None, *names[names.index(name) + 1 :]]
        target = newer[to % len(newer)]
        if target is None and self.is_elsewhere(name):
            return None
        snapshot = self.machine.snapshot(name)
        refresh.refresh(self.tree.active, snapshot, self.machine.snapshot(target) if target else None)
        self.model.refresh(name, target)
        if target:
            assert snapshot.digest == self.machine.snapshot(target).digest, "equal snapshots have equal digests"
        self.compare_all()
        return True

    def is_elsewhere(self, name: str) -> bool:
        """Whether another store has a snapshot of this name, and would give one that comes another name."""
        return False

    def torn_refresh(self, which: int, to: int, after: int) -> bool | None:
        names = list(self.model.snapshots)
        name = self._pick_snapshot(which)
        if name is None or manage.holders(self.tree.store, self.machine.snapshot(name)):
            return None
        newer = names[names.index(name) + 1 :]
        if not newer:
            return None
        target = newer[to % len(newer)]
        digest, commits = self.machine.snapshot(target).digest, self.machine.kv.commit_count
        with self._cut(after):
            refresh.refresh(self.tree.active, self.machine.snapshot(name), self.machine.snapshot(target))
        if self.machine.kv.commit_count > commits and self.machine.is_refreshed(name, digest):
            self.model.refresh(name, target)
            self.model.commit()
        return self._after_cut()

    def torn_refresh_to_active(self, which: int, after: int) -> bool | None:
        name = self._pick_snapshot(which)
        if name is None or manage.holders(self.tree.store, self.machine.snapshot(name)) or self.is_elsewhere(name):
            return None
        before = self.machine.snapshot(name).id
        with self._cut(after):
            refresh.refresh(self.tree.active, self.machine.snapshot(name), None)
        if self.machine.durable_id(name) != before:
            self.model.refresh(name, None)
            self.model.commit()
        return self._after_cut()
