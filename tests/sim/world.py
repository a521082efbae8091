"""Several stores in memory, commands on them, and crashes, which nothing of a store outlives but what was committed.

Stores find each other by name. Which ones can be reached is said for each command. A command is interrupted after a
number of steps, or by a power cut at a write point, after which its stores are opened anew from what the cut left.
"""

from __future__ import annotations

import errno
import io
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from copy import copy
from random import Random
from typing import Self

from idemfs.errors import CommitFailed, RoleError, StreamInterrupted
from idemfs.failover import records
from idemfs.failover.driver import carry_out
from idemfs.failover.facts import Decision, Refusal, Side, Unreachable
from idemfs.failover.observe import observe
from idemfs.failover.stage import Stage
from idemfs.format import role
from idemfs.format.role import Role, RoleRecord
from idemfs.format.tables import Snapshot
from idemfs.ids import ROOT_FILESET, ROOT_NUMBER, Guid, Ino, fileset_of, make_ino, number_of
from idemfs.replication.apply import receive
from idemfs.replication.send import Frames
from idemfs.snapshots import manage, received
from idemfs.store.files import first_records, new_superblock
from idemfs.store.store import Store
from idemfs.testing.blocks import CrashingBlocks, FaultyBlocks
from idemfs.testing.builders import content_of
from idemfs.testing.clock import Simulated, Skewed
from idemfs.testing.faults import Cut, Faults, Kind, PowerCut
from idemfs.testing.kv import CrashingKV, FaultyKV
from idemfs.vfs.reader import Reader
from idemfs.vfs.tree import Tree
from tests.sim.watch import Watch, assert_holds_have_owners

Decide = Callable[[Stage], Decision]


class Machine:
    """One store that stands still: its engines, from which it can be opened."""

    def __init__(self, name: str, clock: Simulated, fileset: Guid) -> None:
        self.name = name
        self.clock = Skewed(clock)
        self.power = Cut()
        self.faults: Faults | None = None
        """Of its disk, where something is to fail."""
        self.superblock = new_superblock(self.clock, 4096, "none")
        self.kv = CrashingKV(self.power)
        self.blocks, self.log = CrashingBlocks(self.power), CrashingBlocks(self.power)
        first_records(self.kv, fileset)

    @property
    def guid(self) -> Guid:
        return self.superblock.guid

    def open(self) -> Tree:
        return Tree(self.store())

    def store(self) -> Store:
        if self.faults is None:
            return Store(self.superblock, self.kv, self.blocks, self.clock, log=self.log)
        kv, blocks = FaultyKV(self.kv, self.faults), FaultyBlocks(self.blocks, self.faults)
        return Store(self.superblock, kv, blocks, self.clock, log=self.log)

    def fill_disk(self) -> None:
        """From now on nothing more fits."""
        assert self.faults is not None
        for kind in (Kind.RESERVE, Kind.WRITE):
            self.faults.add(kind, errno.ENOSPC, times=None)

    def crash(self, rng: Random, cut: Cut | None = None) -> None:
        """The engines as they are found after a power cut; ``cut`` is the next one."""
        self.power = cut or Cut()
        self.kv, self.blocks = self.kv.crash(rng, self.power), self.blocks.crash(rng, self.power)
        self.log = self.log.crash(rng, self.power)


class World:
    """Stores that all know all others; the first one is primary at the start.

    ``nested``: with filesets in filesets, written to in turn, and more of them made by whoever is primary.
    """

    def __init__(self, names: str = "AB", seed: int = 0, *, nested: bool = False) -> None:
        self.nested = nested
        self.filesets_made = self.files_made = 0
        self.rng = Random(seed)
        self.clock = Simulated(seed)
        fileset = Guid(self.clock.random_bytes(16))
        self.machines = {name: Machine(name, self.clock, fileset) for name in names}
        self.acknowledged: dict[bytes, bytes] = {}
        """Every content that a store said was durable, by the name of its file, which is used once."""
        self.numbers: dict[tuple[Guid, int], bytes] = {}
        self.watch = Watch()
        for name, machine in self.machines.items():
            store = machine.store()
            store.admit(2, 10_000)
            if name != names[0]:
                store.small.put(role.KEY, role.pack(RoleRecord(Role.STANDBY, 1, 1)))
            members = [records.PeerRecord(guid=m.guid, path=m.name, name=m.name) for m in self.machines.values()]
            records.commit_members(store, members)
            store.close()
        if nested:
            self.nest(names[0])
            self.nest(names[0])

    def copy(self) -> Self:
        """The same world once more; the two go on apart."""
        twin = type(self).__new__(type(self))
        twin.rng, twin.clock, twin.nested = Random(0), self.clock, self.nested
        twin.filesets_made, twin.files_made = self.filesets_made, self.files_made
        twin.watch = self.watch.copy()
        twin.acknowledged, twin.numbers = self.acknowledged.copy(), self.numbers.copy()
        twin.machines = {}
        for name, machine in self.machines.items():
            twin.machines[name] = copy(machine)
            twin.machines[name].crash(twin.rng)
        return twin

    # -- users -------------------------------------------------------------------------------------

    @contextmanager
    def opened(self, name: str) -> Iterator[Tree]:
        tree = self.machines[name].open()
        try:
            yield tree
        finally:
            tree.store.close()

    def nest(self, name: str) -> None:
        """One more fileset, in the one that was made last and still has a place."""
        with self.opened(name) as tree:
            self.filesets_made += 1
            tree.make_fileset(self._roots(tree)[-1], b"in%d" % self.filesets_made, f"in{self.filesets_made}", 0, 0)

    def _roots(self, tree: Tree) -> list[Ino]:
        """Root directories of the filesets that appear, in the order in which they were made."""
        filesets = tree.store.catalog.listed_filesets() if self.nested else []
        return [tree.root, *(make_ino(each.number, ROOT_NUMBER) for each in filesets if each.junction)]

    def write(self, name: str, count: int = 1, *, size: int | None = None) -> None:
        """Files of their own content, some inline, some with blocks; acknowledged when they are durable.

        The last one is so by the log alone: the process is killed then.
        """
        with self.opened(name) as tree:
            fresh: dict[bytes, bytes] = {}
            numbers: dict[tuple[Guid, int], bytes] = {}
            for _ in range(count):
                file, content = self._new_content(name)
                content *= size // len(content) if size else self.rng.choice((1, 10, 900))
                roots = self._roots(tree)
                ino = tree.create(roots[self.files_made % len(roots)], file, stat.S_IFREG | 0o644, 0, 0)
                given = tree.active.fileset(ino).guid, int(number_of(ino))
                assert given not in self.numbers, f"number {ino} was given to {self.numbers[given]!r} before"
                numbers[given] = file
                if len(fresh) < count - 1:
                    tree.write(ino, 0, content)
                fresh[file] = content
            tree.store.commit()
            for start in range(0, len(content), 50_000):
                tree.write(ino, start, content[start : start + 50_000])
                tree.sync_file(ino)
            self.acknowledged |= fresh
            self.numbers |= numbers
            tree.store.abandon()

    def write_into(self, tree: Tree, name: str) -> None:
        """A file more in a store that a process has open; acknowledged when it is durable."""
        file, content = self._new_content(name)
        ino = tree.create(tree.root, file, stat.S_IFREG | 0o644, 0, 0)
        tree.write(ino, 0, content)
        tree.store.commit()
        self.acknowledged[file] = content

    def _new_content(self, name: str) -> tuple[bytes, bytes]:
        self.files_made += 1
        file = b"w%d" % self.files_made
        return file, b"%s by %s. " % (file, name.encode())

    def overwrite(self, name: str) -> None:
        """Change a file that is there, after a snapshot has it, so that blocks move."""
        with self.opened(name) as tree:
            tree.refuse_unless_primary()
            filesets = [fileset_of(root) for root in self._roots(tree)]
            self.clock.advance(0.001 if self.nested else 0)
            places = [(each, manage.unique_name(tree.store, each, "before")) for each in filesets]
            manage.create_all(tree.store, places)
            for root in self._roots(tree):
                entries = [each for each in tree.reader.all_entries(root) if each[2] == stat.S_IFREG >> 12]
                if entries:
                    file, ino, _ = self.rng.choice(entries)
                    tree.write(ino, 0, b"again")
                    tree.unlink(root, file) if self.rng.random() < 0.3 else tree.truncate(ino, 7)
            tree.store.commit()

    def snapshot(self, name: str) -> None:
        with self.opened(name) as tree:
            tree.refuse_unless_primary()
            manage.create(tree.store, ROOT_FILESET, manage.unique_name(tree.store, ROOT_FILESET, "user"))

    def receive_half(self, source: str, target: str) -> None:
        """The next change set breaks off in the middle, and what came of it is durable."""
        with self.opened(source) as sender, self.opened(target) as receiver:
            snapshots = sender.store.catalog.snapshots(ROOT_FILESET)
            base = received.base(receiver.store, ROOT_FILESET)
            assert base is not None
            newer = [snapshot for snapshot in snapshots if snapshot.id > _by_guid(snapshots, base.guid).id]
            stream = b"".join(Frames(sender, _by_guid(snapshots, base.guid), newer[0]))
            with suppress(StreamInterrupted):
                receive(receiver, io.BytesIO(stream[: len(stream) * 9 // 10]).read)

    # -- commands ----------------------------------------------------------------------------------

    def run(self, name: str, decide: Decide, *, reach: Iterable[str] | None = None, steps: int | None = None) -> int:
        """One command on store ``name``; how many steps were done. With ``steps``, its process is killed after these.

        Raises the error of a refusal.
        """
        stage = self.stage(name, reach)
        done = 0
        try:
            decision = decide(stage)
            if isinstance(decision, Refusal):
                raise decision.error
            if steps != 0:
                for _ in carry_out(decision, stage):
                    done += 1
                    if done == steps:
                        break
            return done
        finally:
            # Every step is durable by itself: nothing is committed here.
            for tree in (stage.me, *stage.peers.values()):
                assert isinstance(tree, Tree)
                tree.store.abandon()

    def stage(self, name: str, reach: Iterable[str] | None = None) -> Stage:
        reachable = self.machines.keys() if reach is None else set(reach)
        me = self.machines[name]
        others = [machine for machine in self.machines.values() if machine is not me]
        return Stage(
            me=me.open(),
            peers={other.guid: other.open() for other in others if other.name in reachable},
            paths={machine.guid: machine.name for machine in self.machines.values()},
            missing=[
                Unreachable(guid=other.guid, path=other.name, reason="cut off")
                for other in others
                if other.name not in reachable
            ],
        )

    def run_with_power_cut(self, name: str, decide: Decide, after: int, *, reach: Iterable[str] | None = None) -> bool:
        """As ``run``, with a power cut at the ``after``-th write point of all stores; whether it came to that."""
        cut = Cut(after, effective=self.rng.random() < 0.5)
        self._crash(cut)
        try:
            with suppress(RoleError, CommitFailed):
                self.run(name, decide, reach=reach)
        except PowerCut:
            assert cut.happened
        self._crash(None)
        return cut.happened

    def _crash(self, cut: Cut | None) -> None:
        for machine in self.machines.values():
            machine.crash(self.rng, cut)

    # -- looking -----------------------------------------------------------------------------------

    def side(self, name: str) -> Side:
        with self.opened(name) as tree:
            return observe(tree, name)

    def check(self) -> None:
        """What must be true at any time."""
        sides: dict[str, Side] = {}
        found: set[tuple[bytes, bytes]] = set()
        for name in self.machines:
            with self.opened(name) as tree:
                sides[name] = observe(tree, name)
                found |= contents(tree)
                assert_holds_have_owners(name, tree, sides[name])
        writable = [side for side in sides.values() if side.is_primary]
        highest = max((side.role.epoch for side in writable), default=0)
        assert sum(side.role.epoch == highest for side in writable) <= 1, f"two writable stores in epoch {highest}"
        self.watch.look(sides)
        lost = [file for file, content in self.acknowledged.items() if (file, content) not in found]
        assert not lost, f"acknowledged, and nowhere any more: {lost}"


def _by_guid(snapshots: list[Snapshot], guid: Guid) -> Snapshot:
    return next(snapshot for snapshot in snapshots if snapshot.guid == guid)


def contents(tree: Tree) -> set[tuple[bytes, bytes]]:
    """Names and contents of the files of the active state and of every snapshot."""
    found = set()
    for fileset in tree.store.catalog.listed_filesets():
        snapshots = tree.store.catalog.snapshots(fileset.number)
        readers: list[Reader] = [tree.reader, *map(tree.snapshot_reader, snapshots)]
        for reader in readers:
            with suppress(FileNotFoundError):
                for name, ino, kind in reader.all_entries(make_ino(fileset.number, ROOT_NUMBER)):
                    if kind == stat.S_IFREG >> 12:
                        found.add((name, content_of(reader, ino)))
    return found
