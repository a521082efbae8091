"""How fast a link may send: a bucket that fills with time. Pure; time is an argument.

What is sent is taken from the bucket, which may go below empty: whoever sends then waits until it is not. So a message
of any size is sent at once and paid for afterwards, and over any time no more is sent than the rate gives, one burst
and one message. A clock that goes back fills nothing.

Threads: one.
"""

from __future__ import annotations

BURST_SECONDS = 0.25
"""What is not used is kept for so long, and no longer."""


class Bucket:
    """``bytes_per_second`` 0: no limit."""

    __slots__ = ("_at", "_level", "bytes_per_second")

    def __init__(self, bytes_per_second: float, now: float) -> None:
        self.bytes_per_second = bytes_per_second
        self._level = 0.0
        self._at = now

    def take(self, size: int, now: float) -> float:
        """``size`` bytes were sent; how many seconds to wait before the next."""
        if not self.bytes_per_second:
            return 0.0
        self._fill(now)
        self._level -= size
        return self.wait(now)

    def wait(self, now: float) -> float:
        """How many seconds to wait from now on, when nothing else is sent."""
        if not self.bytes_per_second:
            return 0.0
        self._fill(now)
        return max(0.0, -self._level / self.bytes_per_second)

    def set_rate(self, bytes_per_second: float, now: float) -> None:
        """Another rate from now on. What is owed is paid at the new one."""
        self._fill(now)
        self.bytes_per_second = bytes_per_second
        self._level = min(self._level, bytes_per_second * BURST_SECONDS) if bytes_per_second else 0.0

    def _fill(self, now: float) -> None:
        passed = max(0.0, now - self._at)
        self._at = now
        most = self.bytes_per_second * BURST_SECONDS
        self._level = min(most, self._level + passed * self.bytes_per_second)
