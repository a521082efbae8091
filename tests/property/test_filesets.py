"""Many filesets do what plain dictionaries do: random changes, snapshots of several, restores, deletions, crashes."""

from __future__ import annotations

import pytest

from idemfs.store import store as store_module
from tests.property.filesets import run

STEP_COUNT = 150


@pytest.mark.parametrize("compression", ["none", "zstd"])
@pytest.mark.parametrize("number", [*range(6), *(pytest.param(n, marks=pytest.mark.long) for n in range(6, 100))])
def test_random_steps_in_many_filesets(
    number: int, compression: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if number % 2:
        monkeypatch.setattr(store_module, "GROUP_RECORD_COUNT_MAX", 60)
    run(seed * 1_000_000 + number, STEP_COUNT, compression)
