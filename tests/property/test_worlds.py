"""All operations together, in random lives of one store, and of a store with its standby; ``soak`` goes on with it."""

from __future__ import annotations

import pytest

from idemfs.store import store as store_module
from tests.property import soak
from tests.property.world import World
from tests.property.world_drills import WorldDrills
from tests.property.world_open import WorldOpen
from tests.property.world_pair import WorldPair

RUNS, STEP_COUNT = 4, 120
KINDS = {"alone": World, "with a standby": WorldPair, "with open snapshots": WorldOpen}


@pytest.mark.parametrize("compression", ["none", "zstd"])
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
def test_random_lives(kind: type[World], compression: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(RUNS):
        if number == RUNS // 2:
            monkeypatch.setattr(store_module, "GROUP_RECORD_COUNT_MAX", soak.SMALL_GROUP)
        kind(seed * 1_000_000 + number, compression).live(STEP_COUNT)


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_random_lives_with_drills(compression: str, seed: int) -> None:
    for number in range(RUNS // 2):
        WorldDrills(seed * 2_000_000 + number, compression).live(STEP_COUNT)


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_a_soak_of_all_drivers(seed: int) -> None:
    assert soak.soak(60_000, seed * 1_000_000) == []


def test_a_soak_goes_on_after_a_failure_and_names_its_seed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def live(seed: int) -> int:
        if seed == 11:
            raise AssertionError("a bug")
        return 10

    monkeypatch.setattr(soak, "LIVES", {"a kind": live})
    assert soak.soak(40, 10) == [11]
    out = capsys.readouterr().out
    assert "repeat with --seed 11 --steps 1" in out and "40 steps, seeds 10 to 14; failed: [11]" in out
