"""What the rules need alone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.tidy import source


@pytest.fixture(scope="package", autouse=True)
def _read_once() -> Iterator[None]:
    """The trees of all modules go with the last rule: with millions of objects, every collection of garbage is slow."""
    yield
    source.modules.cache_clear()
