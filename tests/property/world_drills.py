"""The life of ``WorldPair``, with drills on the standby: begun, written to, and ended, while all else goes on.

At all times a drill has what it was given when it was written to last. Nothing is purged here: what a drill keeps of
what was purged is told in tests of its own.

Threads: one.
"""

from __future__ import annotations

from collections.abc import Callable

from idemfs.api.contents import Writable
from idemfs.ids import FilesetId
from idemfs.snapshots import clones, received
from idemfs.vfs import drilling
from idemfs.vfs.fileset_tree import FilesetTree
from idemfs.vfs.tree import Tree
from tests.property.states import State, read
from tests.property.world_pair import WorldPair

DRILLS_MAX = 2


def files_of(tree: Tree, fileset: FilesetId) -> Writable:
    """One fileset of a drill, with the methods of a file system."""
    return Writable(FilesetTree(tree, fileset))


class WorldDrills(WorldPair):
    """``drills`` are those of ``drilled``, which is the standby but for the time of a change of roles."""

    def __init__(self, seed: int, compression: str = "none") -> None:
        super().__init__(seed, compression)
        self.drilled = self.standby
        self.drills: dict[str, dict[FilesetId, State]] = {}

    def steps(self) -> dict[Callable[[], None], int]:
        found = {step: weight for step, weight in super().steps().items() if step != self.purge}
        return found | {self.drill: 10, self.end_drill: 2}

    def drill(self) -> None:
        """Begin a drill, and change something in one."""
        tree = self.drilled.tree
        if received.base(tree.store, tree.fileset) is None:
            return
        if len(self.drills) < DRILLS_MAX:
            self.begin(tree)
        name = self.rng.choice(sorted(self.drills))
        number = self.rng.choice(sorted(self.drills[name]))
        self.change(files_of(tree, number), self.drills[name][number])
        tree.sync()
        self.drills[name][number] = read(files_of(tree, number))
        self.compare_standby()

    def begin(self, tree: Tree) -> None:
        found = drilling.start(tree, drilling.free_name(tree.store))
        states = self.drills[found.name] = {each: read(files_of(tree, each)) for each in found.filesets}
        for number, state in states.items():
            origin = clones.origin_snapshot(tree.store, number)
            assert origin is not None
            self.compare_state(state, self.had(tree.store, origin.guid), f"{found.name} as it began")

    def change(self, files: Writable, state: State) -> None:
        known = sorted(path for path, node in state.items() if node is not None)
        if known and self.rng.random() < 0.3:
            files.unlink(f"/{self.rng.choice(known)}")
            return
        path = self.rng.choice([*known, f"drill{self.rng.randint(0, 3)}"])
        with files.open(f"/{path}", "r+b" if path in known else "wb") as file:
            file.seek(self.rng.randint(0, 9000))
            file.write(self.rng.randbytes(self.rng.choice((100, 9000))))

    def end_drill(self) -> None:
        if self.drills:
            drilling.end(self.drilled.tree, self.drills.popitem()[0])
            self.compare_standby()

    def compare_standby(self) -> None:
        super().compare_standby()
        self.compare_drills()

    def compare_drills(self) -> None:
        for name, states in self.drills.items():
            for number, state in states.items():
                self.compare_state(read(files_of(self.drilled.tree, number)), state, f"drill {name}")

    def switch_over(self) -> None:
        super().switch_over()
        self.follow_roles()

    def fail_over(self) -> None:
        super().fail_over()
        self.follow_roles()

    def follow_roles(self) -> None:
        """A drill goes on where it was; here it is ended then, since users of a primary are told of its clones."""
        if self.drilled is self.standby:
            return
        self.compare_drills()
        for name in self.drills:
            drilling.end(self.drilled.tree, name)
        self.drills.clear()
        self.drilled = self.standby
        self.compare()
