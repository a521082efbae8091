"""Small logs: those of all stores are copied for each crash. And small frames and groups, for who wants them."""

from __future__ import annotations

import pytest

from idemfs.replication import codec, difference
from idemfs.store import intents
from idemfs.store import store as store_module


@pytest.fixture(autouse=True)
def small_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intents, "LOG_HALF_SECTOR_COUNT", 40)


@pytest.fixture
def small_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    """A change set is many messages, and what came of it is durable often."""
    monkeypatch.setattr(codec, "STREAM_BATCH_BYTES", 1500)
    monkeypatch.setattr(difference, "STREAM_BATCH_BYTES", 1500)
    monkeypatch.setattr(store_module, "GROUP_RECORD_COUNT_MAX", 60)
