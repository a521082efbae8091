"""Failures on order: a power cut at the n-th write point, an error at the n-th call of a kind.

``Cut`` is shared by all engines of a store, so that one number names one instant of the
whole. A test counts the write points of a workload with ``Cut()``, and then runs it again
with ``Cut(after=n)`` for each n from 1 on, in both variants.

``PowerCut`` is a ``BaseException``: what handles errors must not handle the end of the world.

Threads: any.
"""

from __future__ import annotations

import errno
import os
import threading
from enum import Enum
from typing import NamedTuple

from idemfs.errors import NoSpace


class PowerCut(BaseException):
    """The machine has lost its power: nothing more happens on it."""


class Cut:
    """When the power goes: at write point ``after`` (from 1), or never.

    Write points are writes, syncs, discards and commits. The one that is hit has no effect, or with
    ``effective`` has its effect, and is not told so. After the cut every call of every engine raises ``PowerCut``.
    """

    def __init__(self, after: int | None = None, *, effective: bool = False) -> None:
        self._after = after
        self._effective = effective
        self._lock = threading.Lock()
        self.count = 0
        """Write points seen so far."""
        self.happened = False

    def check(self) -> None:
        """To be called by whatever is not a write point. Raises ``PowerCut`` after the cut."""
        if self.happened:
            raise PowerCut

    def begin(self) -> bool:
        """To be called before the effect of a write point. True: call ``fall`` after it."""
        with self._lock:
            self.check()
            self.count += 1
            if self.count != self._after:
                return False
            if self._effective:
                return True
        self.fall()
        return False

    def fall(self) -> None:
        """Cut the power now."""
        self.happened = True
        raise PowerCut


class Kind(Enum):
    """The kinds of calls that can be made to fail."""

    RESERVE = "reserve"
    WRITE = "write"
    READ = "read"
    SYNC = "sync"
    DISCARD = "discard"
    COMMIT = "commit"


class Fault(NamedTuple):
    """Calls number ``first`` (from 1) to ``last`` of a kind fail with this errno; ``last`` None means for ever."""

    kind: Kind
    first: int
    last: int | None
    number: int = errno.EIO


class Faults:
    """Faults of one engine, and how many calls of each kind it has seen."""

    def __init__(self, *faults: Fault) -> None:
        self._faults = list(faults)
        self._lock = threading.Lock()
        self.counts = dict.fromkeys(Kind, 0)

    def add(self, kind: Kind, number: int = errno.EIO, *, after: int = 1, times: int | None = 1) -> None:
        """Let the ``after``-th call from now on fail, ``times`` times in a row (None: for ever)."""
        with self._lock:
            first = self.counts[kind] + after
            self._faults.append(Fault(kind, first, None if times is None else first + times - 1, number))

    def clear(self) -> None:
        """No call fails any more."""
        with self._lock:
            self._faults.clear()

    def check(self, kind: Kind) -> None:
        """Count one call. Raises ``NoSpace`` for ENOSPC, else ``OSError``."""
        with self._lock:
            self.counts[kind] += 1
            count = self.counts[kind]
            for fault in self._faults:
                if fault.kind is kind and fault.first <= count and (fault.last is None or count <= fault.last):
                    break
            else:
                return
        if fault.number == errno.ENOSPC:
            raise NoSpace(f"fault on order: {kind.value} number {count}")
        raise OSError(fault.number, f"{os.strerror(fault.number)} (fault on order: {kind.value} number {count})")
