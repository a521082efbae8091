"""Signals that a thread waits for.

A handler in Python is run by the main thread alone, between two of its instructions: while that waits for a lock, it
sleeps through a signal that another thread was interrupted by, or that came just before it began to wait. What the
interpreter writes to a descriptor of its own in that moment is not missed.

Source: signal(7); ``signal.set_wakeup_fd`` of the Python library reference.

Threads: made by the main thread, once in a process; one waits.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Collection


class Signals:
    """From now on these signals do nothing but end a ``wait``."""

    def __init__(self, numbers: Collection[int]) -> None:
        self._numbers = frozenset(numbers)
        self._reading, writing = os.pipe()
        os.set_blocking(writing, False)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        for number in self._numbers:
            signal.signal(number, _nothing)

    def wait(self) -> int:
        """The next of them."""
        while (number := os.read(self._reading, 1)[0]) not in self._numbers:
            # Somebody handles it, which writes it as well.
            pass
        return number


def _nothing(_number: int, _frame: object) -> None:
    """What the system would do else is to end the process."""
