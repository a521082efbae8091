"""What the suites run on: trees with the methods of ``FileSystem``, and how their failures are checked."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


class Raised:
    """The error of a ``with fails``, once it is left."""

    value: OSError


@contextmanager
def fails(number: int, filename: str | None = None) -> Iterator[Raised]:
    """The block raises ``OSError`` with this errno and, if given, this ``filename``."""
    raised = Raised()
    with pytest.raises(OSError) as caught:
        yield raised
    raised.value = caught.value
    assert raised.value.errno == number, f"{raised.value!r}, not {os.strerror(number)}"
    if filename is not None:
        assert raised.value.filename == filename
