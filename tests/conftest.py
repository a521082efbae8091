"""What every test has: the seed of randomized runs, and the profiles of hypothesis.

A default run is the same on every machine; ``--seed`` and ``HYPOTHESIS_PROFILE=long`` look further.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

# A slow machine is no failure: tests here have no deadline, only the limit on each test in pyproject.toml.
settings.register_profile("default", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("long", parent=settings.get_profile("default"), derandomize=False, max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, default=1, help="seed of simulated and randomized runs (default: 1)")


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """The seed of this run. A test that fails shows the command that repeats it."""
    value: int = request.config.getoption("--seed")
    print(f"repeat with: .venv/bin/pytest -m '' --seed={value} '{request.node.nodeid}'")
    return value
