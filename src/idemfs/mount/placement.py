"""On which CPU requests are served: on that of the program that asks, if it is one.

A program waits for each answer. To wake it on another CPU, which has gone to sleep meanwhile, takes longer than most
answers, above all in a virtual machine; on its own CPU it goes on as soon as the server sleeps. So the thread that
serves follows the program. When several ask in turn, the thread may run anywhere, as it may at first.

Threads: each has its own. Threads that one starts while it follows a program would be bound with it, so none does.
"""

from __future__ import annotations

import os
from contextlib import suppress

PERIOD = 32
"""After so many requests it is looked at again."""
_CHANGE_COUNT_MAX = PERIOD // 8
_CPU_FIELD = 36
"""``processor`` in ``/proc/PID/stat``, counted from the field behind the program's name (proc(5))."""


def is_one_program(change_count: int) -> bool:
    """Whether the last ``PERIOD`` requests, between which the asking thread changed so often, count as one's."""
    return change_count <= _CHANGE_COUNT_MAX


class Placement:
    """The place of the calling thread. ``follows``: it is bound to the CPU of who asks."""

    def __init__(self) -> None:
        self._allowed = os.sched_getaffinity(0)
        self._cpu: int | None = None
        self._pid = 0
        self._change_count = 0
        self._left = PERIOD

    @property
    def follows(self) -> bool:
        return self._cpu is not None

    def saw(self, pid: int) -> bool:
        """The kernel asks for this thread, 0 if for nobody; whether ``follows`` may have changed."""
        if pid != self._pid and pid:
            self._pid = pid
            self._change_count += 1
        self._left -= 1
        if self._left:
            return False
        cpu = _cpu_of(self._pid) if self._pid and is_one_program(self._change_count) else None
        self._left, self._change_count = PERIOD, 0
        if cpu == self._cpu:
            return False
        self._bind(cpu if cpu in self._allowed else None)
        return True

    def _bind(self, cpu: int | None) -> None:
        # The administrator may have taken CPUs away meanwhile.
        with suppress(OSError):
            os.sched_setaffinity(0, self._allowed if cpu is None else {cpu})
            self._cpu = cpu


def _cpu_of(pid: int) -> int | None:
    """The CPU on which a thread ran last; None if it is gone, or in another namespace."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            fields = file.read(4096).rpartition(b")")[2].split()
        return int(fields[_CPU_FIELD])
    except (OSError, IndexError):
        return None
