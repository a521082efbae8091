"""Any life of a link between two stores in memory: backlogs, users' snapshots, interruptions, retention on both sides.

After each round that was let end, the other store has the newest snapshot of every fileset, what users named or hold
since the last round, and nothing wrong with it.
"""

from __future__ import annotations

from random import Random

from idemfs.ids import Guid
from idemfs.node import link_round
from idemfs.replication.link import hold_owner, replicate_into
from idemfs.replication.receiver import LocalReceiver
from idemfs.snapshots import manage
from idemfs.snapshots.policy import Policy
from idemfs.testing.builders import assert_clean
from idemfs.testing.clock import Simulated
from idemfs.vfs.tree import Tree
from tests.unit.replication.pairs import standby_of
from tests.unit.replication.test_link_filesets import nested, write

KEEPS = (Policy(), Policy(keep_last=1), Policy(keep_last=3), Policy(keep_hourly=2, keep_last=1))


class Stopped(Exception):
    """Somebody stopped a transfer."""


class Life:
    """A primary with three filesets, and its standby."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.source = nested()
        self.target = standby_of(self.source)
        self.keep = random.choice(KEEPS)
        self.named: set[str] = set()
        self.count = 0

    @property
    def clock(self) -> Simulated:
        clock = self.source.store.clock
        assert isinstance(clock, Simulated)
        return clock

    def work(self) -> None:
        for _ in range(self.random.randrange(4)):
            self.clock.advance(self.random.choice([1, 700]))
            kind = self.random.random()
            if kind < 0.6:
                write(self.source, self.random.randbytes(self.random.randrange(1, 9000)))
            elif kind < 0.9:
                link_round.take(self.source)
            else:
                self.name()
        link_round.take(self.source)

    def name(self) -> None:
        self.count += 1
        store = self.source.store
        filesets = store.catalog.listed_filesets()
        chosen = [each.number for each in filesets if not each.number or self.random.random() < 0.5]
        manage.create_all(store, [(number, f"mine{self.count}") for number in chosen])
        self.named.add(f"mine{self.count}")

    def round(self, stops_after: int | None) -> None:
        calls = [0]

        def progress(_: Guid, __: int) -> None:
            calls[0] += 1
            if calls[0] == stops_after:
                raise Stopped

        receiver = LocalReceiver(self.target)
        until_ns = self.clock.now_ns() + link_round.HOLD_NS
        replicate_into(self.source, receiver, progress, keep=self.keep, holds_until_ns=until_ns)
        receiver.prune([Guid(each.guid) for each in self.source.store.catalog.listed_filesets()], self.keep)
        link_round.let_go(self.source)

    def check(self) -> None:
        owner = hold_owner(Guid(self.target.store.superblock.guid))
        for fileset in self.source.store.catalog.listed_filesets():
            there = next(each for each in self.target.store.catalog.listed_filesets() if each.guid == fileset.guid)
            mine = self.source.store.catalog.snapshots(fileset.number)
            others = {each.guid: each for each in self.target.store.catalog.snapshots(there.number)}
            assert others[mine[-1].guid].digest == mine[-1].digest == there.digest
            assert [each.name for each in mine if owner in manage.holders(self.source.store, each)] == [mine[-1].name]
            wanted = {each.name for each in mine if each.name in self.named}
            assert wanted <= {each.name for each in others.values()}
        assert_clean(self.target)
        assert_clean(self.source)


def own_count(tree: Tree) -> int:
    return max(len(tree.store.catalog.snapshots(each.number)) for each in tree.store.catalog.listed_filesets())


def test_any_life_of_a_link(seed: int) -> None:
    random = Random(seed)
    for _ in range(12):
        life = Life(random)
        for _ in range(random.randrange(2, 8)):
            life.work()
            while random.random() < 0.4:
                try:
                    life.round(random.randrange(1, 5))
                except Stopped:
                    life.work()
            life.round(None)
            life.check()
        # Of what links took, the source has only the newest.
        assert own_count(life.source) <= len(life.named) + 1
