"""States of the world with a command in each, ends to compare, and random lives."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from idemfs.check import find
from idemfs.errors import RoleError
from idemfs.failover import decisions
from idemfs.failover.facts import Decision, Side
from idemfs.failover.stage import Stage
from idemfs.vfs.tree import Tree
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
    world.write("A", 45 if world.nested else 15, size=100_000)
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


def end_of(world: World) -> dict[str, object]:
    """The world as users see it. How many epochs were used up on the way is nobody's concern."""
    world.check()
    sides = {name: world.side(name) for name in world.machines}
    for name in sides:
        with world.opened(name) as tree:
            assert_sound(tree)
    epochs = [side.role.epoch for side in sides.values() if side.is_primary]
    assert not epochs or max(epochs) == max(side.role.epoch for side in sides.values())
    return {name: _seen(side) for name, side in sides.items()}


def _seen(side: Side) -> object:
    base = side.held(side.base)
    names = [(held.name, held.digest) for held in side.snapshots]
    # Filesets that only one store has are not in any order that means something.
    others = sorted(
        (part.name, part.digest, [(held.name, held.digest) for held in part.snapshots]) for part in side.others
    )
    shown = base.name if base and side.is_standby else None
    return side.role.role, side.digest, names, shown, side.half_received, others


def made(scene: Scene, *, nested: bool = False) -> World:
    world = World(nested=nested)
    scene.prepare(world)
    return world


def interrupt_after_every_step(scene: Scene, *, nested: bool = False) -> None:
    """The command, killed after each of its steps and repeated, leads to the same end."""
    start = made(scene, nested=nested)
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


COMMANDS: tuple[Decide, ...] = (replicate, failover, failback, switchover)


def random_life(world: World, length: int) -> None:
    for _ in range(length):
        name = world.rng.choice([*world.machines])
        reach = {other for other in world.machines if other == name or world.rng.random() < 0.75}
        world.clock.advance(world.rng.random() * 3)
        kind = world.rng.random()
        if kind < 0.35:
            with suppress(RoleError):
                nest = (world.nest,) if world.nested else ()
                world.rng.choice((world.write, world.overwrite, world.snapshot, *nest))(name)
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
            assert_sound(tree)


def assert_sound(tree: Tree) -> None:
    """A fileset that a store alone had was put aside when it followed another one, and appears nowhere since."""
    findings = [each for each in find(tree, read_data=True) if not each.what.startswith("appears nowhere")]
    assert not findings, "\n".join(map(str, findings))


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
    wanted = {part.fileset: part.digest for part in world.side(primary.path).parts}
    for name in world.machines:
        there = {part.fileset: part.digest for part in world.side(name).parts}
        assert {guid: there.get(guid) for guid in wanted} == wanted, f"{name} has not the same in all filesets"
