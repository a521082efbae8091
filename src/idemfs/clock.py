"""Time and randomness as arguments: what decides takes a ``Clock``, and never asks the machine.

``System`` is the only reader of the machine's clock and random source.
``testing.clock.Simulated`` is the other implementation.
"""

from __future__ import annotations

import os
import time
from typing import Protocol


class Clock(Protocol):
    """A source of time and of identifiers. Implementations are safe to call from any thread."""

    def now_ns(self) -> int:
        """Nanoseconds since 1970-01-01 UTC."""
        ...

    def monotonic_seconds(self) -> float:
        """Seconds on a clock that never goes back."""
        ...

    def since_boot_ns(self) -> int:
        """Nanoseconds on a clock that never goes back, and goes on while the machine is suspended."""
        ...

    def random_bytes(self, size: int) -> bytes:
        """``size`` unpredictable bytes, for guids."""
        ...


class System:
    """The machine's clock and random source."""

    def now_ns(self) -> int:
        return time.time_ns()

    def monotonic_seconds(self) -> float:
        return time.monotonic()

    def since_boot_ns(self) -> int:
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    def random_bytes(self, size: int) -> bytes:
        return os.urandom(size)
