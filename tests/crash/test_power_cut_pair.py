"""The power goes at every write point of the life of a pair: replication, failover, failback, and back again.

Both stores lose their power at once. Each then opens by itself, has every snapshot that it ever
acknowledged, shows its users a state that it was in, and has an owner for each sector. The
command that was cut is given again, and leads to where it would have led.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from random import Random
from typing import NamedTuple

import pytest

from idemfs.errors import RoleError
from idemfs.failover import decisions, records
from idemfs.failover.driver import carry_out
from idemfs.failover.facts import Decision, Refusal, Unreachable
from idemfs.failover.stage import Stage
from idemfs.format import role
from idemfs.format.role import Role, RoleRecord
from idemfs.ids import Guid
from idemfs.replication import applier, codec
from idemfs.store.store import Store
from idemfs.testing.builders import assert_clean
from idemfs.testing.faults import Cut
from idemfs.vfs.tree import Tree
from tests.crash.audit import audit
from tests.crash.disk import BLOCK_SIZE, Disk, Witness, new_disk, tighten
from tests.crash.dump import Dump, State, difference, dump_of
from tests.crash.workload import Hands

IMAGE_COUNT = 2
AGAIN_EVERY = 7
"""Of this many cuts one is followed by a second one, in the middle of the command that is given again."""

Command = Callable[["Pair"], None]


class Pair:
    """Two stores that know each other, open."""

    def __init__(self, disks: dict[str, Disk]) -> None:
        self.disks = disks
        self.trees = {name: disk.open() for name, disk in disks.items()}

    def stage(self, name: str, reach: str) -> Stage:
        other = "B" if name == "A" else "A"
        guids = {each: disk.superblock.guid for each, disk in self.disks.items()}
        missing = [] if other in reach else [Unreachable(guid=guids[other], path=other, reason="lost")]
        return Stage(
            me=self.trees[name],
            peers={} if missing else {guids[other]: self.trees[other]},
            paths={guids[each]: each for each in guids},
            missing=missing,
        )

    def crash(self, rng: Random, cut: Cut | None = None) -> dict[str, Disk]:
        return {name: disk.crash(rng, cut) for name, disk in self.disks.items()}

    def views(self) -> dict[str, State]:
        return {name: view_of(tree) for name, tree in self.trees.items()}


def new_pair(cut: Cut, seed: int) -> Pair:
    fileset = Guid(b"fileset of pairs")
    disks = {
        "A": new_disk(cut, seed=seed, fileset_guid=fileset),
        "B": new_disk(cut, seed=seed + 1, fileset_guid=fileset),
    }
    for name, disk in disks.items():
        store = Store(disk.superblock, disk.kv, disk.blocks, disk.clock)
        store.admit(2, 10_000)
        if name == "B":
            store.small.put(role.KEY, role.pack(RoleRecord(Role.STANDBY, 1, 1)))
        members = [records.PeerRecord(guid=disk.superblock.guid, path=each, name=each) for each, disk in disks.items()]
        records.commit_members(store, members)
        store.close()
    return Pair(disks)


def view_of(tree: Tree) -> State:
    """What users see."""
    active: Dump = {}
    with suppress(FileNotFoundError):
        active = dump_of(tree.newest_reader())
    snapshots = tree.store.catalog.snapshots(tree.fileset)
    return State(active, {snapshot.name: dump_of(tree.snapshot_reader(snapshot)) for snapshot in snapshots})


def command(name: str, decide: Callable[[Stage], Decision], reach: str = "AB") -> Command:
    def run(pair: Pair) -> None:
        stage = pair.stage(name, reach)
        decision = decide(stage)
        if isinstance(decision, Refusal):
            raise decision.error
        for _ in carry_out(decision, stage):
            """Each step."""

    return run


replicate_a = command("A", lambda stage: decisions.replicate(*stage.facts()))
replicate_b = command("B", lambda stage: decisions.replicate(*stage.facts()))
fail_over = command("B", lambda stage: decisions.failover(*stage.facts()), "B")
fail_back = command("A", lambda stage: decisions.failback(*stage.facts()))
switch_over = command("B", lambda stage: decisions.switchover(*stage.facts()))


class Phase(NamedTuple):
    name: str
    run: Command
    is_command: bool = True


def life(seed: int) -> Iterator[Phase]:
    """What is done by users, which each sync at the end; and commands between."""

    def user(store: str, work: Callable[[Hands], None]) -> Phase:
        def run(pair: Pair) -> None:
            hands = Hands(pair.trees[store], seed)
            work(hands)
            hands.sync()

        return Phase(f"user of {store}: {work.__name__}", run, is_command=False)

    yield user("A", begin)
    yield Phase("replicate for the first time", replicate_a)
    yield user("A", change)
    yield Phase("replicate", replicate_a)
    yield user("A", diverge)
    yield Phase("failover", fail_over)
    yield user("B", change_again)
    yield Phase("failback", fail_back)
    yield user("B", come_and_go)
    yield Phase("reversion", switch_over)
    yield user("A", go_on)
    yield Phase("replicate again", replicate_a)


def begin(hands: Hands) -> None:
    hands.mkdir("a")
    hands.write("a/inline", 0, 300)
    hands.write("a/large", 0, 3 * BLOCK_SIZE + 500)
    hands.write("a/tail", 0, 5000)
    hands.link("a/tail", "linked")
    hands.take("first")


def change(hands: Hands) -> None:
    hands.append("a/tail", 600)
    hands.write("a/large", BLOCK_SIZE, 400)
    hands.rename("a/inline", "renamed")
    hands.write("a/more", 0, 2 * BLOCK_SIZE)
    hands.take("second")
    hands.unlink("linked")
    hands.truncate("a/large", BLOCK_SIZE + 7)
    hands.take("third")


def diverge(hands: Hands) -> None:
    hands.append("a/tail", 900)
    hands.write("only on A", 0, BLOCK_SIZE)
    hands.unlink("a/more")


def change_again(hands: Hands) -> None:
    hands.write("a/large", 100, 2 * BLOCK_SIZE)
    hands.write("only on B", 0, 3000)
    hands.append("a/tail", 300)
    hands.take("fourth")
    hands.drop("second")


def come_and_go(hands: Hands) -> None:
    hands.unlink("only on B")
    hands.write("a/large", BLOCK_SIZE, 300)
    hands.take("fifth")


def go_on(hands: Hands) -> None:
    hands.write("a/new", 0, 2 * BLOCK_SIZE)
    hands.take("sixth")


class Image(NamedTuple):
    point: int
    phase: int
    disks: dict[str, Disk]


def carry_out_life(seed: int) -> tuple[list[Phase], list[dict[str, State]], list[Image]]:
    """Views after each phase, and images at every write point."""
    witness = Witness()
    pair = new_pair(witness, seed)
    rng = Random(seed)
    phases = [Phase("begin", lambda pair: None)]
    views = [pair.views()]
    images: list[Image] = []

    def seen() -> None:
        images.extend(Image(witness.count, len(views), pair.crash(rng)) for _ in range(IMAGE_COUNT))

    for phase in life(seed):
        phases.append(phase)
        witness.seen = seen
        phase.run(pair)
        witness.seen = None
        views.append(pair.views())
        for tree in pair.trees.values():
            audit(tree)
            assert_clean(tree)
            for each in pair.disks.values():
                each.clock.advance(5)
    return phases, views, images


def verify(image: Image, phase: Phase, before: dict[str, State], after: dict[str, State], rng: Random) -> None:
    pair = Pair(image.disks)
    found = pair.views()
    for name, tree in pair.trees.items():
        tree.sync()
        audit(tree)
        assert_kept(name, found[name], before[name], after[name], phase)
    if not phase.is_command:
        return
    if image.point % AGAIN_EVERY == 0:
        pair = cut_again(pair, phase, rng)
    with suppress(RoleError):
        # Who is already where the command leads, refuses it.
        phase.run(pair)
    for name, view in pair.views().items():
        if view != after[name]:
            pytest.fail(f"{phase.name}, {image.point}: {name} got elsewhere\n{difference(after[name], view)}")
        pair.trees[name].sync()
        audit(pair.trees[name])
        assert_clean(pair.trees[name])


def cut_again(pair: Pair, phase: Phase, rng: Random) -> Pair:
    """The command, cut at some write point."""
    witness = Witness()
    again = Pair(pair.crash(rng, witness))
    images: list[dict[str, Disk]] = [again.crash(rng)]
    witness.seen = lambda: images.append(again.crash(rng))
    with suppress(RoleError):
        phase.run(again)
    return Pair(rng.choice(images))


def assert_kept(name: str, found: State, before: State, after: State, phase: Phase) -> None:
    """Every snapshot is whole; those of before are there, but for what the phase deletes."""
    for snapshot, dump in found.snapshots.items():
        wanted = before.snapshots.get(snapshot) or after.snapshots.get(snapshot)
        assert dump == wanted, f"{phase.name}: snapshot {snapshot} of {name}"
    missing = before.snapshots.keys() & after.snapshots.keys() - found.snapshots.keys()
    assert not missing, f"{phase.name}: {name} has lost {missing}"
    if phase.is_command:
        seen = [before.active, after.active, *before.snapshots.values(), *after.snapshots.values()]
        assert found.active in seen, f"{phase.name}: users of {name} see what never was"


@pytest.fixture(autouse=True)
def tight(monkeypatch: pytest.MonkeyPatch) -> None:
    tighten(monkeypatch)
    monkeypatch.setattr(codec, "STREAM_BATCH_BYTES", 3000)
    monkeypatch.setattr(applier, "_STEP_RECORD_COUNT", 7)


def run(seed: int) -> None:
    phases, views, images = carry_out_life(seed)
    assert len(images) > 150
    rng = Random(seed)
    for image in images:
        verify(image, phases[image.phase], views[image.phase - 1], views[image.phase], rng)


def test_a_pair_survives_power_cuts(seed: int) -> None:
    run(seed)


@pytest.mark.long
@pytest.mark.parametrize("offset", range(5))
def test_a_pair_survives_power_cuts_whatever_the_hosts_keep(offset: int, seed: int) -> None:
    run(1000 * seed + offset)
