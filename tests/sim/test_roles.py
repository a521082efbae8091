"""Commands that are interrupted after each step, and at each write point: the same command leads to the same end.

And random sequences of writes, commands, crashes and cut links, of which each is followed by the two invariants:
never two writable stores in the highest epoch, and no acknowledged content that is nowhere.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

import pytest

from idemfs.errors import RoleError
from idemfs.failover import decisions
from idemfs.failover.facts import Decision, Side
from idemfs.failover.stage import Stage
from idemfs.format.role import Role
from idemfs.testing.builders import assert_clean
from tests.sim.world import Decide, World


def replicate(stage: Stage) -> Decision:
    return decisions.replicate(*stage.facts())


def failover(stage: Stage) -> Decision:
    return decisions.failover(*stage.facts())


def failback(stage: Stage) -> Decision:
    return decisions.failback(*stage.facts())


def switchover(stage: Stage) -> Decision:
    return decisions.switchover(*stage.facts())


class Scene(NamedTuple):
    """A state of the world, and a command in it."""

    prepare: Callable[[World], None]
    store: str
    command: Decide
    reach: str = "AB"


def follow(world: World) -> None:
    world.write("A", 3)
    world.run("A", replicate)
    world.overwrite("A")
    world.run("A", replicate)


def behind(world: World) -> None:
    follow(world)
    world.overwrite("A")
    world.write("A", 3)


def half_received(world: World) -> None:
    follow(world)
    # More than one frame of changes, so that the break finds some of them applied.
    world.write("A", 15, size=100_000)
    world.snapshot("A")
    world.write("A", 3)
    world.receive_half("A", "B")
    side = world.side("B")
    assert side.half_received and side.digest != side.held(side.base).digest  # type: ignore[union-attr]


def taken_over(world: World) -> None:
    behind(world)
    world.run("B", failover, reach="B")
    world.write("B", 2)
    world.overwrite("B")


def come_back(world: World) -> None:
    taken_over(world)
    world.run("A", failback)
    world.write("B", 2)


SCENES = {
    "replicate": Scene(behind, "A", replicate),
    "replicate on": Scene(half_received, "A", replicate),
    "failover": Scene(behind, "B", failover, "B"),
    "failover of a half-received one": Scene(half_received, "B", failover, "B"),
    "failover beside the primary": Scene(behind, "B", failover),
    "failback": Scene(taken_over, "A", failback),
    "switchover": Scene(behind, "A", switchover),
    "reversion": Scene(come_back, "B", switchover),
}
scenes = pytest.mark.parametrize("scene", [pytest.param(scene, id=name) for name, scene in SCENES.items()])


def end_of(world: World) -> dict[str, object]:
    """The world as users see it. How many epochs were used up on the way is nobody's concern."""
    world.check()
    sides = {name: world.side(name) for name in world.machines}
    for name in sides:
        with world.opened(name) as tree:
            assert_clean(tree)
    primaries = [side for side in sides.values() if side.is_primary]
    top = max(side.role.epoch for side in sides.values())
    assert all(side.role.epoch == top for side in primaries if side is max(primaries, key=_epoch))
    return {name: _seen(side) for name, side in sides.items()}


def _epoch(side: Side) -> int:
    return side.role.epoch


def _seen(side: Side) -> object:
    base = side.held(side.base)
    names = [(held.name, held.digest) for held in side.snapshots]
    return side.role.role, side.digest, names, base.name if base and side.is_standby else None, side.half_received


def made(scene: Scene) -> World:
    world = World()
    scene.prepare(world)
    return world


@scenes
def test_a_command_that_is_interrupted_after_any_step_and_repeated_leads_to_the_same_end(scene: Scene) -> None:
    start = made(scene)
    world = start.copy()
    count = world.run(scene.store, scene.command, reach=scene.reach)
    wanted = end_of(world)
    for steps in range(count + 1):
        world = start.copy()
        world.run(scene.store, scene.command, reach=scene.reach, steps=steps)
        world.check()
        repeat(world, scene)
        assert end_of(world) == wanted, f"after {steps} of {count} steps"


def repeat(world: World, scene: Scene) -> None:
    """The command again, as a user does who was told nothing; what is done already is refused."""
    with suppress(RoleError):
        world.run(scene.store, scene.command, reach=scene.reach)


@scenes
def test_a_power_cut_at_any_write_point_leads_to_the_same_end(scene: Scene) -> None:
    start = made(scene)
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
        base = world_base(tree)
        assert reader.snapshot is not None and reader.snapshot.name == base
        assert not base.startswith("diverged")


def world_base(tree: object) -> str:
    from idemfs.failover.observe import observe
    from idemfs.vfs.tree import Tree

    assert isinstance(tree, Tree)
    side = observe(tree, "")
    held = side.held(side.base)
    assert held is not None
    return held.name


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


COMMANDS: tuple[Decide, ...] = (replicate, failover, failback, switchover)


def random_life(world: World, length: int) -> None:
    for _ in range(length):
        name = world.rng.choice([*world.machines])
        reach = {other for other in world.machines if other == name or world.rng.random() < 0.75}
        world.clock.advance(world.rng.random() * 3)
        kind = world.rng.random()
        if kind < 0.35:
            with suppress(RoleError):
                world.rng.choice((world.write, world.overwrite, world.snapshot))(name)
            continue
        command = world.rng.choice(COMMANDS)
        with suppress(RoleError):
            if kind < 0.6:
                world.run_with_power_cut(name, command, world.rng.randint(1, 40), reach=reach)
            elif kind < 0.75:
                world.run(name, command, reach=reach, steps=world.rng.randint(0, 7))
            else:
                world.run(name, command, reach=reach)
        world.check()
    meet(world)
    for name in world.machines:
        with world.opened(name) as tree:
            assert_clean(tree)


def meet(world: World) -> None:
    """All reach all again, and everybody does what the refusals say, until all stores are equal."""
    for _ in range(3):
        for name in world.machines:
            for command in (replicate, switchover, failback):
                with suppress(RoleError):
                    if command is not switchover or world.side(name).frozen:
                        world.run(name, command)
                world.check()
    sides = [world.side(name) for name in world.machines]
    if not any(side.is_primary for side in sides):
        fenced = max(sides, key=lambda side: (not side.is_standby, side.role.epoch))
        world.run(fenced.path, failover)
        meet(world)
        return
    assert sum(side.is_primary for side in sides) == 1
    primary = next(side for side in sides if side.is_primary)
    world.run(primary.path, replicate)
    assert {world.side(name).digest for name in world.machines} == {world.side(primary.path).digest}


def test_two_stores_that_took_over_apart_from_each_other_become_one_line_when_they_meet() -> None:
    """Both have the same epoch. Neither knows of the other until they meet; then one stays, and what the other
    one had is kept."""
    world = World("ABC")
    world.write("A", 3)
    world.run("A", replicate)
    for name in "BC":
        world.run(name, failover, reach=name)
        world.write(name, 2)
    assert world.side("B").role.epoch == world.side("C").role.epoch
    with suppress(RoleError):
        world.run("B", replicate)
    with suppress(RoleError):
        world.run("C", replicate)
    assert [world.side(name).is_primary for name in "BC"].count(True) == 1
    meet(world)
    kept = [held.name for name in "BC" for held in world.side(name).snapshots]
    assert any(name.startswith("diverged") for name in kept)


@pytest.mark.parametrize("names", ["AB", "ABC"])
def test_random_lives(names: str, seed: int) -> None:
    for offset in range(6):
        world = World(names, seed=seed * 1000 + offset)
        print(f"life {offset}")
        random_life(world, 40)


@pytest.mark.long
@pytest.mark.parametrize("names", ["AB", "ABC"])
def test_many_random_lives(names: str, seed: int) -> None:
    for offset in range(150):
        world = World(names, seed=seed * 1000 + 100 + offset)
        print(f"life {100 + offset}")
        random_life(world, 60)
