"""Time that a test moves, and randomness from a seed: the other ``clock.Clock``. And clocks of several machines, which
agree on how much time passes, and not on what time it is.

Threads: any.
"""

from __future__ import annotations

import threading
from random import Random

_START_NS = 1_700_000_000_000_000_000


class Simulated:
    """A clock that stands still until ``advance``; ``random_bytes`` follows from ``seed``."""

    def __init__(self, seed: int = 0, start_ns: int = _START_NS) -> None:
        self._lock = threading.Lock()
        self._random = Random(seed)
        self._start_ns = start_ns
        self._passed_ns = 0

    def advance(self, seconds: float) -> None:
        assert seconds >= 0
        with self._lock:
            self._passed_ns += round(seconds * 1e9)

    def jump(self, seconds: float) -> None:
        """Somebody sets the time of day; no time passes."""
        with self._lock:
            self._start_ns += round(seconds * 1e9)

    def now_ns(self) -> int:
        return self._start_ns + self._passed_ns

    def monotonic_seconds(self) -> float:
        return self._passed_ns / 1e9

    def since_boot_ns(self) -> int:
        return self._passed_ns

    def random_bytes(self, size: int) -> bytes:
        with self._lock:
            return self._random.randbytes(size)


class Skewed:
    """The clock of one machine: time passes as on ``clock``, and the time of day is what somebody set it to."""

    def __init__(self, clock: Simulated) -> None:
        self._clock = clock
        self._ahead_ns = 0

    def jump(self, seconds: float) -> None:
        """Somebody sets the time of day of this machine; no time passes."""
        self._ahead_ns += round(seconds * 1e9)

    def now_ns(self) -> int:
        return self._clock.now_ns() + self._ahead_ns

    def monotonic_seconds(self) -> float:
        return self._clock.monotonic_seconds()

    def since_boot_ns(self) -> int:
        return self._clock.since_boot_ns()

    def random_bytes(self, size: int) -> bytes:
        return self._clock.random_bytes(size)
