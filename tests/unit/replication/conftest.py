"""What links do, they do with a store of the same process and with one at the end of a connection."""

from __future__ import annotations

import pytest

from idemfs.testing.connected import replicate_apart


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if hasattr(metafunc.module, "replicate_into"):
        metafunc.fixturenames.append("place")
        metafunc.parametrize("place", ["here", "apart"], indirect=True)


@pytest.fixture
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where the standby is."""
    chosen: str = request.param
    if chosen == "apart":
        monkeypatch.setattr(request.module, "replicate_into", replicate_apart)
    return chosen
