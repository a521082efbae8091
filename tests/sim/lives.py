"""Random lives of nodes and their network, and load while roles are exchanged.

After each step everything that must always be true is looked at; at the end all reach all, everybody does what the
refusals say, and all stores are to be equal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress

from idemfs.errors import IdemfsError, RoleError, SnapshotError
from idemfs.format.role import Role
from idemfs.ids import ROOT_FILESET
from idemfs.snapshots import delete, received
from idemfs.testing.network import Trouble
from idemfs.vfs.tree import Tree
from tests.sim.nodes import Nodes
from tests.sim.scenes import COMMANDS, assert_sound, meet, replicate, switchover
from tests.sim.world import contents

CHANCE_MAX = 0.15
LOAD_EVERY = 3
"""Messages from one write to the next."""


def live(world: Nodes, length: int) -> None:
    for _ in range(length):
        world.clock.advance(world.rng.random() * 3)
        name = world.rng.choice([*world.machines])
        act = world.rng.choices(list(ACTS), weights=list(ACTS.values()))[0]
        act(world, name)
        world.check()
    world.calm()
    world.blocked.clear()
    meet(world)
    for name in world.machines:
        with world.opened(name) as tree:
            assert_sound(tree)


# -- what happens --------------------------------------------------------------------------------------


def use(world: Nodes, name: str) -> None:
    """Somebody works on a node, which its role may not allow."""
    nest = (world.nest,) if world.nested else ()
    with suppress(RoleError):
        world.rng.choice((world.write, world.write, world.overwrite, world.snapshot, *nest))(name)


def order(world: Nodes, name: str) -> None:
    """A command, while the network is as bad as it likes to be."""
    troubles = world.rng.sample(list(Trouble), world.rng.randint(0, 3))
    world.chances = {trouble: world.rng.random() * CHANCE_MAX for trouble in troubles}
    world.run_befallen(name, world.rng.choice(COMMANDS))


def order_and_kill(world: Nodes, name: str) -> None:
    """A command whose process is killed after some steps."""
    with suppress(IdemfsError):
        world.run(name, world.rng.choice(COMMANDS), steps=world.rng.randint(0, 7))


def order_and_cut_power(world: Nodes, name: str) -> None:
    world.run_with_power_cut(name, world.rng.choice(COMMANDS), world.rng.randint(1, 40))


def order_without_room(world: Nodes, name: str) -> None:
    """A command, in the midst of which a disk gets full. Later somebody makes room."""
    full = world.machines[world.rng.choice([*world.machines])]
    world.befall = {world.rng.randint(1, 30): lambda *_: full.fill_disk()}
    world.run_befallen(name, world.rng.choice(COMMANDS))
    world.make_room()


def order_under_load(world: Nodes, name: str) -> None:
    """A command beside users who write, and a schedule that prunes."""
    world.befall = dict.fromkeys(range(2, 200, LOAD_EVERY), load)
    if len(world.machines) == 2:
        # What a third one has that is out of reach is held by nobody once another store is primary.
        world.befall[world.rng.randint(1, 30)] = prune
    world.run_befallen(name, world.rng.choice(COMMANDS))


def part(world: Nodes, name: str) -> None:
    """Some do not hear others any more, in one direction or both."""
    other = world.rng.choice([each for each in world.machines if each != name])
    world.blocked.add((name, other))
    if world.rng.random() < 0.6:
        world.blocked.add((other, name))


def heal(world: Nodes, _: str) -> None:
    world.blocked.clear()


def set_clock(world: Nodes, name: str) -> None:
    world.machines[name].clock.jump(world.rng.choice((-1, 1)) * world.rng.choice((0.5, 3600, 40_000_000)))


ACTS: dict[Callable[[Nodes, str], None], int] = {
    use: 35,
    order: 30,
    order_under_load: 8,
    order_and_kill: 7,
    order_and_cut_power: 7,
    order_without_room: 4,
    part: 4,
    heal: 3,
    set_clock: 2,
}


# -- meanwhile -----------------------------------------------------------------------------------------


def load(world: Nodes, trees: Mapping[str, Tree]) -> None:
    """Users of whichever open store lets them write."""
    for name, tree in trees.items():
        if tree.role.role is Role.PRIMARY:
            with suppress(RoleError):
                world.write_into(tree, name)


def prune(world: Nodes, trees: Mapping[str, Tree]) -> None:
    """Older snapshots of the root fileset go, unless something holds them; what they alone had is given up."""
    before = {each for tree in trees.values() for each in contents(tree)}
    for tree in trees.values():
        for snapshot in tree.store.catalog.snapshots(ROOT_FILESET)[:-1]:
            is_kept = snapshot.name.startswith("diverged") or snapshot is received.base(tree.store, ROOT_FILESET)
            if not is_kept:
                with suppress(SnapshotError):
                    delete.delete(tree.active, snapshot)
                    world.watch.discard(snapshot.guid)
    for file, _ in before - {each for tree in trees.values() for each in contents(tree)}:
        world.acknowledged.pop(file, None)


def swap_under_load(world: Nodes, count: int) -> int:
    """The roles of A and B are exchanged, again and again, while users write; how much was written meanwhile."""
    primary, other = "A", "B"
    world.write(primary, 3)
    world.run(primary, replicate)
    before = world.files_made
    for _ in range(count):
        world.clock.advance(1)
        world.write(primary)
        world.befall = dict.fromkeys(range(1, 400, LOAD_EVERY), load)
        failure = world.run_befallen(primary, switchover)
        assert failure is None, failure
        world.check()
        primary, other = other, primary
        assert world.side(primary).is_primary and world.side(other).is_standby
    return world.files_made - before
