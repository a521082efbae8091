"""Commands that are interrupted after each step, and at each write point: the same command leads to the same end.

And random sequences of writes, commands, crashes and cut links, of which each is followed by the two invariants:
never two writable stores in the highest epoch, and no acknowledged content that is nowhere.
"""

from __future__ import annotations

from contextlib import suppress

import pytest

from idemfs.errors import RoleError
from idemfs.failover import actions
from idemfs.failover.facts import Frozen
from idemfs.failover.observe import observe
from idemfs.format.role import Role
from tests.sim.nodes import Nodes
from tests.sim.scenes import (
    SCENES,
    Scene,
    behind,
    come_back,
    end_of,
    failback,
    failover,
    interrupt_after_every_step,
    made,
    meet,
    random_life,
    repeat,
    replicate,
    switchover,
    taken_over,
)
from tests.sim.world import World

scenes = pytest.mark.parametrize("scene", [pytest.param(scene, id=name) for name, scene in SCENES.items()])


worlds = pytest.mark.parametrize("nested", [False, True], ids=["one fileset", "nested"])


@worlds
@scenes
def test_a_command_that_is_interrupted_after_any_step_and_repeated_leads_to_the_same_end(
    scene: Scene, nested: bool
) -> None:
    interrupt_after_every_step(scene, nested=nested)


@pytest.mark.parametrize("nested", [False, pytest.param(True, marks=pytest.mark.long)], ids=["one fileset", "nested"])
@scenes
def test_a_power_cut_at_any_write_point_leads_to_the_same_end(scene: Scene, nested: bool) -> None:
    start = made(scene, nested=nested)
    world = start.copy()
    world.run(scene.store, scene.command, reach=scene.reach)
    wanted = end_of(world)
    after = 1
    while True:
        world = start.copy()
        if not world.run_with_power_cut(scene.store, scene.command, after, reach=scene.reach):
            break
        world.check()
        repeat(world, scene)
        assert end_of(world) == wanted, f"power cut at write point {after}"
        after += 1
    assert after > 2


@pytest.mark.parametrize("world_of", [World, Nodes])
def test_a_switchover_is_finished_though_a_takeover_was_begun_meanwhile_and_not_done(world_of: type[World]) -> None:
    """Frozen for B, A has what B has not; B has heard of an epoch that nobody ever began."""
    world = world_of("ABC")
    behind(world)
    with world.opened("A") as tree:
        actions.freeze(tree, Frozen(peer=world.machines["B"].guid, epoch=2))
    world.run("B", failover, steps=3)
    assert world.side("B").role.seen_epoch > world.side("A").role.epoch and world.side("B").is_standby
    world.run("A", switchover)
    assert world.side("B").is_primary and world.side("A").is_standby
    assert world.side("A").digest == world.side("B").digest
    meet(world)


def test_after_a_power_cut_in_a_failback_the_primary_alone_can_bring_the_returned_store_up() -> None:
    """Once the old primary is a standby again, ``replicate`` of the new one finishes what failback began."""
    world = World()
    taken_over(world)
    world.run("A", failback, steps=4)
    assert world.side("A").is_standby
    world.run("B", replicate)
    assert world.side("A").digest == world.side("B").digest
    end_of(world)


def test_both_sides_end_equal_and_everything_is_kept_after_the_whole_life() -> None:
    world = World()
    come_back(world)
    world.run("B", switchover)
    world.write("A")
    world.run("A", replicate)
    a, b = world.side("A"), world.side("B")
    assert (a.role.role, b.role.role) == (Role.PRIMARY, Role.STANDBY)
    assert a.digest == b.digest
    assert [held.name for held in a.snapshots if held.name.startswith("diverged")] == ["diverged-1"]
    end_of(world)


def test_a_returned_store_shows_what_it_received_and_not_what_it_kept() -> None:
    world = World()
    taken_over(world)
    world.run("A", failback, steps=4)
    with world.opened("A") as tree:
        reader = tree.newest_reader()
        side = observe(tree, "A")
        assert reader.snapshot is not None and reader.snapshot.guid == side.base
        assert side.newest is not None and side.newest.name == "diverged-1"


def test_an_old_primary_that_lost_its_right_refuses_writes_also_after_it_was_opened_anew() -> None:
    world = World()
    taken_over(world)
    with pytest.raises(RoleError):
        world.run("A", replicate)
    for _ in range(2):
        with pytest.raises(RoleError, match="failback"):
            world.write("A")


def test_inode_numbers_of_two_primaries_never_meet() -> None:
    """Both make files after they parted, and again after they came together."""
    world = World()
    taken_over(world)
    world.write("A", 5)
    world.run("A", failback)
    world.run("B", switchover)
    world.write("A", 5)
    world.run("A", replicate)
    end_of(world)
    assert world.side("A").digest == world.side("B").digest


def test_two_stores_that_took_over_apart_from_each_other_become_one_line_when_they_meet() -> None:
    """Neither hears of the other until they meet; then one stays, and what the other one had is kept."""
    world = World("ABC")
    world.write("A", 3)
    world.run("A", replicate)
    for name in "BC":
        world.run(name, failover, reach=name)
        world.write(name, 2)
        world.check()
    with suppress(RoleError):
        world.run("B", replicate)
    with suppress(RoleError):
        world.run("C", replicate)
    assert [world.side(name).is_primary for name in "BC"].count(True) == 1
    meet(world)
    kept = [held.name for name in "BC" for held in world.side(name).snapshots]
    assert any(name.startswith("diverged") for name in kept)


@worlds
@pytest.mark.parametrize("names", ["AB", "ABC"])
def test_random_lives(names: str, nested: bool, seed: int) -> None:
    for offset in range(6):
        world = World(names, seed=seed * 1000 + offset, nested=nested)
        print(f"life {offset}")
        random_life(world, 40)


@pytest.mark.long
@worlds
@pytest.mark.parametrize("names", ["AB", "ABC"])
def test_many_random_lives(names: str, nested: bool, seed: int) -> None:
    for offset in range(150):
        world = World(names, seed=seed * 1000 + 100 + offset, nested=nested)
        print(f"life {100 + offset}")
        random_life(world, 60)
