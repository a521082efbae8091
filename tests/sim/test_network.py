"""Commands over a network to which something happens at each message: repeated, they lead to the same end.

Each kind of trouble befalls each message of each command, and either node loses its power at each of them. Other
things that happen meanwhile: the standby's disk is full, snapshots are pruned, a clock is set to another time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress

import pytest

from idemfs.errors import ConnectionLost, NoSpace, RoleError, SnapshotError
from idemfs.failover.facts import Side
from idemfs.testing.faults import PowerCut
from idemfs.testing.network import Trouble
from idemfs.vfs.tree import Tree
from tests.sim.lives import prune
from tests.sim.nodes import Nodes
from tests.sim.scenes import (
    Scene,
    behind,
    come_back,
    end_of,
    failback,
    failover,
    follow,
    meet,
    repeat,
    replicate,
    switchover,
    taken_over,
)
from tests.sim.test_purges import SCENES as PURGES
from tests.sim.world import World

pytestmark = pytest.mark.usefixtures("small_frames")


def half_sent(world: World) -> None:
    """The connection broke in the midst of a change set."""
    assert isinstance(world, Nodes)
    follow(world)
    world.write("A", 8, size=900)
    world.snapshot("A")
    world.write("A", 3)
    number = 1
    while not has_a_part(world.side("B")):
        world.befall = {number: Trouble.CUT}
        assert isinstance(world.run_befallen("A", replicate), RoleError)
        number += 1


def has_a_part(side: Side) -> bool:
    base = side.held(side.base)
    return side.half_received and base is not None and side.digest != base.digest


SCENES = {
    "replicate": Scene(behind, "A", replicate),
    "replicate on": Scene(half_sent, "A", replicate),
    "failover beside the primary": Scene(half_sent, "B", failover),
    "failback": Scene(taken_over, "A", failback),
    "switchover": Scene(behind, "A", switchover),
    "reversion": Scene(come_back, "B", switchover),
}
scenes = pytest.mark.parametrize("scene", [pytest.param(scene, id=name) for name, scene in SCENES.items()])
nested = pytest.mark.parametrize(
    "nested", [False, pytest.param(True, marks=pytest.mark.long)], ids=["one fileset", "nested"]
)


def made(scene: Scene, *, nested: bool) -> Nodes:
    world = Nodes(nested=nested)
    scene.prepare(world)
    return world


def undisturbed(start: Nodes, scene: Scene) -> tuple[object, int]:
    """The end when nothing happens, and how many messages lead to it."""
    world = start.copy()
    world.run(scene.store, scene.command, reach=scene.reach)
    count = len(world.passed)
    return settled_end(world), count


def settled_end(world: Nodes) -> object:
    """When whoever is primary has spoken to all others: to one, too, that it did not reach when it took over."""
    world.check()
    primary = max(world.machines, key=lambda name: (world.side(name).is_primary, world.side(name).role.epoch))
    with suppress(RoleError):
        world.run(primary, replicate)
    ends = end_of(world)
    assert isinstance(ends, dict)
    return {name: _nameless(end) for name, end in ends.items()}


def _nameless(end: object) -> object:
    """Snapshots that are named by the time of a command have another name when that was repeated later."""
    if isinstance(end, str):
        return re.sub(r"^auto-.*", "auto", end)
    if isinstance(end, (tuple, list)):
        return [_nameless(each) for each in end]
    return end


def at_each_message(
    scene: Scene,
    befall: Trouble | Callable[[Nodes, Mapping[str, Tree]], None],
    judge: Callable[[Nodes, BaseException | None], None],
    *,
    nested: bool,
    compare: bool = True,
) -> None:
    start = made(scene, nested=nested)
    wanted, count = undisturbed(start, scene)
    assert count > 5
    for number in range(1, count + 1):
        world = start.copy()
        world.rng.seed(number)
        world.befall = {number: befall}
        judge(world, world.run_befallen(scene.store, scene.command, reach=scene.reach))
        world.check()
        repeat(world, scene)
        end = settled_end(world)
        assert not compare or end == wanted, f"{befall} at message {number} of {count}"


def lost_or_done(world: Nodes, failure: BaseException | None) -> None:
    """The network is to blame for all that fails, and what is damaged is never taken for something else."""
    assert failure is None or isinstance(failure, (ConnectionLost, PowerCut, RoleError)), failure


def pruned_or_done(world: Nodes, failure: BaseException | None) -> None:
    """What is missing is said; when everybody has done what the refusals say, all stores are equal."""
    assert failure is None or isinstance(failure, (SnapshotError, RoleError)), failure
    meet(world)


WORST = {Trouble.CUT, Trouble.CORRUPT, Trouble.KILL_SENDER, Trouble.KILL_RECEIVER}
troubles = pytest.mark.parametrize(
    "trouble",
    [pytest.param(each, id=each.name, marks=() if each in WORST else pytest.mark.long) for each in Trouble],
)


@nested
@troubles
@scenes
def test_whatever_befalls_any_message(scene: Scene, trouble: Trouble, nested: bool) -> None:
    at_each_message(scene, trouble, lost_or_done, nested=nested)


@pytest.mark.long
@pytest.mark.parametrize("trouble", Trouble)
@pytest.mark.parametrize("scene", [pytest.param(scene, id=name) for name, scene in PURGES.items()])
def test_whatever_befalls_any_message_of_a_command_that_tells_of_a_purge(scene: Scene, trouble: Trouble) -> None:
    at_each_message(scene, trouble, lost_or_done, nested=False)


@nested
@scenes
def test_the_process_of_the_command_is_killed_after_any_step(scene: Scene, nested: bool) -> None:
    start = made(scene, nested=nested)
    wanted, _ = undisturbed(start, scene)
    count = start.copy().run(scene.store, scene.command, reach=scene.reach)
    for steps in range(count + 1):
        world = start.copy()
        world.run(scene.store, scene.command, reach=scene.reach, steps=steps)
        world.check()
        repeat(world, scene)
        assert settled_end(world) == wanted, f"after {steps} of {count} steps"


@pytest.mark.long
@scenes
def test_a_power_cut_of_one_node_at_any_of_its_write_points(scene: Scene) -> None:
    start = made(scene, nested=False)
    wanted, _ = undisturbed(start, scene)
    for name in start.machines:
        after = 1
        while True:
            world = start.copy()
            if not world.cut_power_of(name, after, scene.store, scene.command, reach=scene.reach):
                break
            world.check()
            repeat(world, scene)
            assert settled_end(world) == wanted, f"power cut of {name} at write point {after}"
            after += 1


# -- what else happens meanwhile -----------------------------------------------------------------------


@pytest.mark.parametrize("trouble", [each for each in Trouble if each not in WORST])
def test_whatever_befalls_any_message_of_a_transfer(trouble: Trouble) -> None:
    at_each_message(SCENES["replicate"], trouble, lost_or_done, nested=False)


@pytest.mark.parametrize("full", [pytest.param("A", marks=pytest.mark.long), "B"])
@scenes
def test_a_disk_is_full_from_any_message_on(scene: Scene, full: str) -> None:
    def fill(world: Nodes, _: Mapping[str, Tree]) -> None:
        world.machines[full].fill_disk()

    def judge(world: Nodes, failure: BaseException | None) -> None:
        assert failure is None or isinstance(failure, (NoSpace, RoleError)), failure
        world.make_room()

    at_each_message(scene, fill, judge, nested=False)


@scenes
def test_snapshots_are_pruned_while_a_change_set_is_in_flight(scene: Scene) -> None:
    """All of a store that nothing holds; the link goes on, or is told so and goes on when it is repeated."""

    at_each_message(scene, prune, pruned_or_done, nested=False, compare=False)


@pytest.mark.parametrize("seconds", [-3600, pytest.param(3600, marks=pytest.mark.long)])
@scenes
def test_the_clock_of_the_standby_is_an_hour_off_from_any_message_on(scene: Scene, seconds: int) -> None:
    def jump(world: Nodes, _: Mapping[str, Tree]) -> None:
        world.machines["B"].clock.jump(seconds)

    def judge(world: Nodes, failure: BaseException | None) -> None:
        assert failure is None, failure

    at_each_message(scene, jump, judge, nested=False)


@pytest.mark.parametrize("seconds", [-400 * 86_400, pytest.param(400 * 86_400, marks=pytest.mark.long)])
@scenes
def test_a_clock_is_set_to_another_year(scene: Scene, seconds: int) -> None:
    def jump(world: Nodes, _: Mapping[str, Tree]) -> None:
        world.machines["A"].clock.jump(seconds)

    def judge(world: Nodes, failure: BaseException | None) -> None:
        assert failure is None, failure

    at_each_message(scene, jump, judge, nested=False)
