"""What a thread that works in turns waits for in between: that something changed, or that it is to end.

Threads: one waits; any may ring. ``lock`` may be held around more than one call.
"""

from __future__ import annotations

import threading


class Bell:
    """``is_over``: the thread is to end."""

    def __init__(self) -> None:
        self.lock = threading.Condition()
        self.is_over = False
        self._is_rung = False

    def ring(self) -> None:
        """Who waits goes on at once, or does not begin to wait."""
        with self.lock:
            self._is_rung = True
            self.lock.notify_all()

    def end(self) -> None:
        """Nobody waits from now on."""
        with self.lock:
            self.is_over = True
            self.lock.notify_all()

    def wait(self, seconds: float | None) -> None:
        """Until it rings, or for so many seconds; None: however long that takes."""
        with self.lock:
            self.lock.wait_for(lambda: self._is_rung or self.is_over, seconds)
            self._is_rung = False
