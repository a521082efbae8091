"""The life of ``World``, with snapshots that stay open for writing, and removed files open in them, while all goes on.

Threads: one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from idemfs import FileSystem
from idemfs.api.contents import Writable
from idemfs.api.snapshot_writing import WritableSnapshot
from idemfs.errors import QuotaExceeded
from idemfs.ids import Ino
from tests.property.states import Editor, State, put
from tests.property.twins import Twin
from tests.property.world import World

OPEN_MAX = 3
ALONGSIDE = (
    *("edit", "orphan", "copy", "snapshot", "hold", "create", "clone"),
    *("open_snapshot", "open_clone", "edit_open", "unlink_open", "release_one", "close_one", "crash_open"),
)
"""Steps that are done while snapshots are open."""


class Open(NamedTuple):
    """A snapshot that is open for writing."""

    written: WritableSnapshot
    twin: Twin
    name: str


class Growing(Editor):
    """Files grow in place, at their ends and behind them, more often than anything else happens."""

    def edit(self) -> None:
        picked = self.pick() if self.rng.random() < 0.5 else None
        if picked is None:
            super().edit()
            return
        path, node, ino = picked
        size = len(node.content)
        data = self.rng.randbytes(self.rng.choice((0, 100, 3000)))
        end = size + self.rng.choice((0, 100, 5000)) + len(data)
        try:
            self.writable.tree.truncate(ino, end)
            self.writable.tree.write(ino, end - len(data), data)
        except QuotaExceeded:
            end = self.writable.tree.reader.inode(ino).size
            data = b""
        put(self.state, path, node._replace(content=node.content.ljust(end - len(data), b"\0") + data))


class WorldOpen(World):
    """``opened`` are the snapshots, ``files`` what is open in them without a name."""

    def __init__(self, seed: int, compression: str = "none") -> None:
        super().__init__(seed, compression)
        self.opened: list[Open] = []
        self.files: list[tuple[Open, Ino]] = []

    def steps(self) -> dict[Callable[[], None], int]:
        return super().steps() | {
            self.open_snapshot: 12,
            self.open_clone: 5,
            self.edit_open: 50,
            self.unlink_open: 5,
            self.release_one: 3,
            self.close_one: 4,
            self.crash_open: 2,
        }

    def do(self, step: Callable[[], None]) -> None:
        """What may refuse a snapshot that is open, or ends the process, finds none."""
        if step.__name__ not in ALONGSIDE:
            self.close_all()
        super().do(step)

    def open_snapshot(self) -> None:
        picked = self.pick_snapshot()
        if picked is not None and self.may_change(*picked):
            self.open(*picked)

    def open_clone(self) -> None:
        """A clone is made, and a snapshot of it, which sees everything through the origin."""
        count = len(self.twins)
        self.clone()
        for twin in self.twins[count:]:
            name = f"s{self.count}"
            self.fs.snapshots.create(f"{twin.name}@{name}")
            twin.snapshots[name] = dict(twin.state)
            self.open(twin, name)

    def open(self, twin: Twin, name: str) -> None:
        if len(self.opened) < OPEN_MAX and (twin, name) not in [(each.twin, each.name) for each in self.opened]:
            self.opened.append(Open(self.fs.snapshots.write(f"{twin.name}@{name}"), twin, name))

    def pick_open(self) -> Open | None:
        """One that may change still."""
        found = [each for each in self.opened if self.may_change(each.twin, each.name)]
        return self.rng.choice(found) if found else None

    def editor(self, writable: Writable, base: str, state: State) -> Editor:
        return Growing(self.rng, writable, base, state)

    def editor_of(self, opened: Open) -> Editor:
        return self.editor(opened.written, "", opened.twin.snapshots[opened.name])

    def edit_open(self) -> None:
        opened = self.pick_open()
        if opened is None:
            self.open_snapshot()
            return
        editor = self.editor_of(opened)
        for _ in range(self.rng.choice((1, 2, 5))):
            editor.edit()

    def unlink_open(self) -> None:
        opened = self.pick_open()
        picked = None if opened is None else self.editor_of(opened).pick()
        if opened is not None and picked is not None:
            path, _, ino = picked
            opened.written.tree.open(ino)
            self.files.append((opened, ino))
            opened.written.unlink(f"/{path}")
            del opened.twin.snapshots[opened.name][path]
            self.allow(opened.twin)

    def release_one(self) -> None:
        if self.files:
            opened, ino = self.files.pop(self.rng.randrange(len(self.files)))
            opened.written.tree.release(ino)
            self.allow(opened.twin)

    def close_one(self) -> None:
        if self.opened:
            opened = self.opened.pop(self.rng.randrange(len(self.opened)))
            self.files = [each for each in self.files if each[0] is not opened]
            opened.written.close()
            # What is removed in a snapshot, which no quota refuses, the next older one owns from then on.
            self.allow(opened.twin)

    def close_all(self) -> None:
        while self.opened:
            self.close_one()

    def crash_open(self) -> None:
        """The power goes while they are open."""
        self.fs.sync()
        self.opened, self.files = [], []
        self.machine.crash()
        self.fs = FileSystem(self.machine.tree)
        for twin in self.twins:
            self.allow(twin)
        self.compare()
