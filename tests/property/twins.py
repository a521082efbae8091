"""A store of many filesets and what it should be: plain dictionaries, beside which ``World`` does its steps.

A guid names one content for ever. So when a step was interrupted, or another store took over, the model is learned from
the store, and every snapshot that was known by its guid is compared all the same.

Threads: one.
"""

from __future__ import annotations

from random import Random

from idemfs import FileSystem
from idemfs.format.role import Role
from idemfs.format.tables import PINNED, Snapshot
from idemfs.ids import Guid
from idemfs.snapshots import clones, manage
from idemfs.snapshots.usage import FilesetInfo
from idemfs.testing.builders import assert_clean
from idemfs.testing.clock import Simulated
from idemfs.vfs.tree import Tree
from tests.property.machine import Machine
from tests.property.states import State, below, differences, number_at, read

QUOTA, SLACK = 150_000, 40_000
PINNED_NAME = " (deleted)"
"""What is added here to the name of an origin that has none any more: another snapshot may have it."""


class Twin:
    """What one fileset should be."""

    def __init__(self, name: str, path: str | None) -> None:
        self.name = name
        self.path = path
        """None: it appears nowhere."""
        self.state: State = {}
        self.snapshots: dict[str, State] = {}
        """Oldest first."""
        self.origin: tuple[Twin, str] | None = None
        self.allowed: int | None = None
        """What it may hold: its quota, or what a restore, which is let through, made of it; None: anything."""

    def __repr__(self) -> str:
        return self.name


class Twins:
    """A store and its twins."""

    def __init__(self, seed: int, compression: str = "none") -> None:
        self.rng = Random(seed)
        self.clock = Simulated()
        self.machine = Machine(self.clock, compression, Guid(bytes(16)), Role.PRIMARY)
        self.fs = FileSystem(self.machine.tree)
        self.twins = [Twin("root", "")]
        self.known: dict[Guid, State] = {}
        """What every snapshot that there ever was has; a guid names one content."""
        self.count = 0
        self.done: list[str] = []

    # -- picking -------------------------------------------------------------------------------------

    def pick(self) -> Twin:
        """One that appears somewhere."""
        return self.rng.choice([twin for twin in self.twins if twin.path is not None])

    def pick_snapshot(self) -> tuple[Twin, str] | None:
        found = [(twin, name) for twin in self.twins if twin.path is not None for name in twin.snapshots]
        return self.rng.choice(found) if found else None

    def record(self, twin: Twin, name: str) -> Snapshot:
        catalog = self.fs.tree.store.catalog
        return catalog.by_name(catalog.fileset_named(twin.name).number, name)

    def may_change(self, twin: Twin, name: str) -> bool:
        """Whether a snapshot may be written to."""
        store, snapshot = self.fs.tree.store, self.record(twin, name)
        rests = any(other.origin == (twin, name) for other in self.twins)
        assert rests == bool(clones.clones_of(store, snapshot)), f"who rests on {twin}@{name}"
        return not rests and not manage.holders(store, snapshot)

    def may_purge(self, twin: Twin, name: str) -> bool:
        """Whether something may be purged from a snapshot: also from what a standby starts from."""
        store, snapshot = self.fs.tree.store, self.record(twin, name)
        owners = [owner for owner in manage.holders(store, snapshot) if not owner.startswith("standby:")]
        return not owners and not clones.clones_of(store, snapshot)

    def has_filesets(self, twin: Twin) -> bool:
        return any(other.path and other.path.startswith(f"{twin.path}/") for other in self.twins)

    def allow(self, twin: Twin) -> None:
        """What no quota refuses was done to it."""
        if twin.allowed is not None:
            twin.allowed = max(twin.allowed, self.used(twin))

    def used(self, twin: Twin) -> int:
        """What counts against the quota of bytes."""
        info = self.fs.filesets[twin.name].info()
        return info.active_bytes + (info.snapshot_bytes if info.snapshots_count else 0)

    def pinned_having(self, twin: Twin, path: str) -> bool:
        """Whether a snapshot that was deleted, and stays for clones, has this path."""
        catalog = self.fs.tree.store.catalog
        snapshots = catalog.all_snapshots(catalog.fileset_named(twin.name).number)
        return any(path in self.known[each.guid] for each in snapshots if each.state == PINNED)

    # -- learning ------------------------------------------------------------------------------------

    def place(self, twin: Twin, then: State, path: str, new: str) -> None:
        """What ``then`` has at a path is at ``new`` now. Its numbers are learned; links inside stay links."""
        numbers: dict[int, int] = {}
        for each in below(then, path):
            node, there = then[each], new + each.removeprefix(path)
            if node is None:
                twin.state[there] = None
                continue
            number = number_at(self.fs, f"{twin.path}/{there}")
            assert numbers.setdefault(node.number, number) == number, "what was one file is two"
            twin.state[there] = node._replace(number=number)
        assert len(set(numbers.values())) == len(numbers), "what were two files is one"

    def settle_files(self) -> None:
        """What was written since the last durable step may be there: files are then as they are."""
        for twin in self.twins:
            if twin.path is not None:
                twin.state = read(self.fs, twin.path)

    def note(self) -> None:
        """The content of every snapshot, by guid."""
        for twin in self.twins:
            for name, state in twin.snapshots.items():
                known = self.known.setdefault(self.record(twin, name).guid, dict(state))
                assert known == state, f"two contents had the guid of {twin.name}@{name}"

    def learn(self) -> None:
        """What the store has now. Snapshots whose guids are known have to be what they were, and are compared later."""
        old = {twin.name: twin for twin in self.twins}
        catalog = self.fs.tree.store.catalog
        self.twins = []
        records = {}
        for info in self.listed():
            twin = Twin(info.name, None if info.path is None else info.path.rstrip("/"))
            record = records[catalog.fileset_named(info.name).number] = catalog.fileset_named(info.name), twin
            if twin.path is not None:
                twin.state = read(self.fs, twin.path)
            for snapshot in catalog.snapshots(record[0].number):
                state = self.known.get(snapshot.guid)
                if state is None:
                    state = read(self.fs.snapshots[f"{info.name}@{snapshot.name}"])
                twin.snapshots[snapshot.name] = dict(state)
            if info.quota_bytes is not None:
                before = old[twin.name].allowed if twin.name in old else None
                twin.allowed = max(QUOTA, before or 0, self.used(twin))
            self.twins.append(twin)
        for fileset, twin in records.values():
            if fileset.origin is not None and clones.origin_of(self.fs.tree.store, fileset) is not None:
                origin = catalog.snapshot(fileset.origin.fileset, fileset.origin.snapshot)
                name = origin.name + PINNED_NAME if origin.state == PINNED else origin.name
                twin.origin = records[fileset.origin.fileset][1], name

    # -- what is -------------------------------------------------------------------------------------

    def listed(self) -> list[FilesetInfo]:
        """The filesets of the store, but for those of drills."""
        drilled = {name for each in self.fs.drills for name in each.filesets}
        return [info for info in self.fs.filesets if info.name not in drilled]

    def compare_state(self, found: State, wanted: State, where: str) -> None:
        assert found == wanted, f"{where}: {differences(found, wanted)}"

    def compare(self) -> None:
        fs = self.fs
        assert {info.name: info.path for info in self.listed()} == {
            twin.name: twin.path if twin.path is None else twin.path or "/" for twin in self.twins
        }
        for twin in self.twins:
            info = fs.filesets[twin.name].info()
            assert (info.origin is None) == (twin.origin is None), twin.name
            if twin.origin:
                assert info.origin_deleted == (twin.origin[1] not in twin.origin[0].snapshots), twin.name
            if twin.path is not None:
                self.compare_state(read(fs, twin.path), twin.state, twin.name)
            assert [each.name for each in fs.filesets[twin.name].snapshots] == list(twin.snapshots)
            for name, state in twin.snapshots.items():
                whole = f"{twin.name}@{name}"
                self.compare_state(read(fs.snapshots[whole]), state, whole)
        self.check(fs.tree)
        for twin in self.twins:
            assert twin.allowed is None or self.used(twin) <= twin.allowed + SLACK, f"{twin.name} is over its quota"

    def check(self, tree: Tree) -> None:
        """Nothing is wrong with the store in itself."""
        assert_clean(tree)
