"""Commands that tell of a purge, interrupted after each step and at each write point, lead to the same end."""

from __future__ import annotations

import stat

import pytest

from idemfs.ids import ROOT_FILESET
from idemfs.snapshots import purge
from idemfs.snapshots.audit import Purge
from tests.sim.scenes import (
    Scene,
    behind,
    end_of,
    failback,
    failover,
    interrupt_after_every_step,
    made,
    repeat,
    replicate,
    switchover,
    taken_over,
)
from tests.sim.world import World


def purge_one(world: World, name: str) -> None:
    """What a file's name leads to goes from all snapshots of the root fileset, and is missed by nobody."""
    with world.opened(name) as tree:
        reader = tree.snapshot_reader(tree.store.catalog.snapshots(ROOT_FILESET)[0])
        file = next(file for file, _, kind in reader.all_entries(reader.root) if kind == stat.S_IFREG >> 12)
        wanted = Purge(1, int(ROOT_FILESET), "root", file.decode(), 0, "", "", False, (), 0, (), 0)
        done = purge.purge(tree.active, wanted, file)
        assert done.snapshot_count > 1
        del world.acknowledged[file]


def on_a(world: World) -> None:
    behind(world)
    purge_one(world, "A")


def on_b(world: World) -> None:
    taken_over(world)
    purge_one(world, "B")


def on_a_alone(world: World) -> None:
    behind(world)
    purge_one(world, "A")
    world.run("B", failover, reach="B")
    world.write("B", 2)


SCENES = {
    "replicate": Scene(on_a, "A", replicate),
    "switchover": Scene(on_a, "A", switchover),
    "failback": Scene(on_b, "A", failback),
    "failback of the one that purged": Scene(on_a_alone, "A", failback),
}
scenes = pytest.mark.parametrize("scene", [pytest.param(scene, id=name) for name, scene in SCENES.items()])


@scenes
def test_interrupted_after_any_step(scene: Scene) -> None:
    interrupt_after_every_step(scene)


@scenes
def test_a_power_cut_at_any_write_point(scene: Scene) -> None:
    start = made(scene)
    world = start.copy()
    world.run(scene.store, scene.command, reach=scene.reach)
    wanted = end_of(world)
    guids = [{held.guid for held in world.side(name).snapshots} for name in "AB"]
    assert guids[0] & guids[1]
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
