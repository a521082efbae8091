"""Small logs: those of all stores are copied for each crash."""

from __future__ import annotations

import pytest

from idemfs.store import intents


@pytest.fixture(autouse=True)
def small_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intents, "LOG_HALF_SECTOR_COUNT", 40)
