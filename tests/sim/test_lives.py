"""Random lives of two and three nodes and their network, by the thousand from one seed."""

from __future__ import annotations

import pytest

from tests.sim.lives import live, swap_under_load
from tests.sim.nodes import Nodes

worlds = pytest.mark.parametrize("nested", [False, True], ids=["one fileset", "nested"])
small_frames = pytest.mark.usefixtures("small_frames")
SWAP_COUNT = 20


@small_frames
@worlds
@pytest.mark.parametrize("names", ["AB", "ABC"])
def test_lives_with_a_network(names: str, nested: bool, seed: int) -> None:
    for offset in range(40 if names == "AB" else 12):
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
