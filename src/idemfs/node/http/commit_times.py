"""How long transaction groups of a store take to become durable, counted as a Prometheus histogram has it.

Threads: groups are counted by whoever commits them, and looked at by any.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from itertools import accumulate

from idemfs.node.config import StoreConfig
from idemfs.node.owner import OwnedStore
from idemfs.store.store import Store

COMMIT_TIMES = "commit_times"
"""The name of the part of a store that counts them."""
BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Seconds: the upper ends of the buckets; one more is without an end."""


class CommitTimes:
    """A part of an owned store, while it is open."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._counts = [0] * (len(BOUNDS) + 1)
        self._seconds = 0.0

    def start(self) -> None:
        self._store.after_commit.append(self._count)

    def wake(self) -> None:
        """Nothing waits."""

    def close(self) -> None:
        self._store.after_commit.remove(self._count)

    def configure(self, config: StoreConfig) -> bool:
        return True

    def buckets(self) -> tuple[list[tuple[str, float]], float]:
        """Upper ends with how many groups took no longer, as Prometheus writes them; and seconds in all."""
        with self._lock:
            counts, seconds = list(accumulate(self._counts)), self._seconds
        return list(zip([*map(str, BOUNDS), "+Inf"], map(float, counts), strict=True)), seconds

    def _count(self, seconds: float) -> None:
        with self._lock:
            self._counts[bisect_left(BOUNDS, seconds)] += 1
            self._seconds += seconds


def counting(store: OwnedStore) -> CommitTimes:
    """The factory of the part."""
    return CommitTimes(store.tree.store)
