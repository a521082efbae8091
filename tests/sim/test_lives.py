"""Random lives of two and three nodes and their network, by the thousand from one seed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.sim.lives import live, swap_under_load
from tests.sim.nodes import Nodes
from tests.sim.scenes import behind, come_back, failback, failover, meet, replicate, switchover, taken_over
from tests.sim.world import Decide, World

worlds = pytest.mark.parametrize("nested", [False, True], ids=["one fileset", "nested"])
small_frames = pytest.mark.usefixtures("small_frames")
SWAP_COUNT = 20
LONG = pytest.mark.long


@small_frames
@worlds
@pytest.mark.parametrize("names", ["AB", "ABC"])
def test_lives_with_a_network(names: str, nested: bool, seed: int) -> None:
    for offset in range(15 if names == "AB" else 5):
        print(f"life {offset}")
        live(Nodes(names, seed=seed * 1000 + offset, nested=nested), 20)


@pytest.mark.long
@small_frames
@worlds
@pytest.mark.parametrize("names", ["AB", "ABC"])
def test_many_lives_with_a_network(names: str, nested: bool, seed: int) -> None:
    for offset in range(500):
        print(f"life {100 + offset}")
        live(Nodes(names, seed=seed * 1000 + 100 + offset, nested=nested), 40)


@small_frames
def test_roles_are_exchanged_twenty_times_under_load(seed: int) -> None:
    world = Nodes(seed=seed)
    assert swap_under_load(world, SWAP_COUNT) > 3 * SWAP_COUNT


@small_frames
@pytest.mark.parametrize(
    ("prepare", "first", "second"),
    [
        pytest.param(behind, ("A", replicate), ("B", failover), id="failover in a transfer"),
        pytest.param(behind, ("A", switchover), ("B", failover), id="failover in a switchover"),
        pytest.param(
            behind, ("A", switchover), ("A", replicate), id="replicate in a switchover", marks=pytest.mark.long
        ),
        pytest.param(
            taken_over, ("A", failback), ("B", replicate), id="replicate in a failback", marks=pytest.mark.long
        ),
        pytest.param(taken_over, ("A", failback), ("A", failover), id="failover in a failback", marks=LONG),
        pytest.param(
            come_back, ("B", switchover), ("A", failover), id="failover in a reversion", marks=pytest.mark.long
        ),
    ],
)
def test_a_second_command_begins_at_any_message_of_the_first(
    prepare: Callable[[World], None], first: tuple[str, Decide], second: tuple[str, Decide]
) -> None:
    """Never do two nodes write in one epoch; and when everybody does what the refusals say, all stores are equal."""
    start = Nodes()
    prepare(start)
    number = message_count = 1
    while number <= message_count:
        world = start.copy()
        world.rng.seed(number)
        world.run_together(first, second, at=number)
        message_count = len(world.passed)
        world.check()
        meet(world)
        number += 1
    assert number > 20
