"""A metadata engine in memory, for tests and for trying things out. Nothing is durable.

Invariant: ``_used_bytes`` is what ``_cost`` says of every record.

Threads: one lock around every call.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from itertools import islice

from sortedcontainers import SortedDict

from idemfs.engines.kv.api import Batch, Precondition, Table
from idemfs.engines.kv.batch import fenced, measure
from idemfs.errors import NoSpace
from idemfs.limits import KEY_SIZE_MAX

_RECORD_COST = 16


class MemoryKV:
    """A metadata engine in memory; with ``capacity_bytes`` it can be full."""

    def __init__(self, capacity_bytes: int | None = None) -> None:
        self._capacity_bytes = capacity_bytes
        self._lock = threading.Lock()
        self._tables: dict[Table, SortedDict[bytes, bytes]] = {table: SortedDict() for table in Table}
        self._used_bytes = 0

    def get(self, table: Table, key: bytes) -> bytes | None:
        with self._lock:
            return self._tables[table].get(key)

    def get_many(self, table: Table, keys: Sequence[bytes]) -> list[bytes | None]:
        with self._lock:
            return [self._tables[table].get(key) for key in keys]

    def scan(
        self, table: Table, start: bytes, end: bytes, limit: int, reverse: bool = False
    ) -> list[tuple[bytes, bytes]]:
        with self._lock:
            records = self._tables[table]
            keys = records.irange(start, end, inclusive=(True, False), reverse=reverse)
            return [(key, records[key]) for key in islice(keys, limit)]

    def commit(
        self, batch: Batch, precondition: Precondition | None = None, on_written: Callable[[], None] | None = None
    ) -> None:
        measure(batch)
        with self._lock:
            if precondition is not None and self._tables[Table.SMALL].get(precondition.key) != precondition.value:
                raise fenced("memory", precondition)
            growth = sum(
                _cost(key, value) - _cost(key, self._tables[table].get(key))
                for table, records in batch.items()
                for key, value in records.items()
            )
            if growth > 0:
                self._refuse_if_full(growth)
            for table, records in batch.items():
                target = self._tables[table]
                for key, value in records.items():
                    if value is None:
                        target.pop(key, None)
                    else:
                        target[key] = bytes(value)
            self._used_bytes += growth
        if on_written is not None:
            on_written()

    def reserve(self, record_count: int, value_bytes: int) -> None:
        with self._lock:
            self._refuse_if_full(value_bytes + record_count * (KEY_SIZE_MAX + _RECORD_COST))

    def used_bytes(self) -> int:
        with self._lock:
            return self._used_bytes

    def close(self) -> None:
        """Nothing to release; the records stay, so that a test can look at them."""

    def copy(self) -> MemoryKV:
        """Another engine with the same records and capacity."""
        twin = MemoryKV(self._capacity_bytes)
        with self._lock:
            twin._tables = {table: records.copy() for table, records in self._tables.items()}
            twin._used_bytes = self._used_bytes
        return twin

    def _refuse_if_full(self, growth: int) -> None:
        if self._capacity_bytes is not None and self._used_bytes + growth > self._capacity_bytes:
            raise NoSpace(f"memory: more than the {self._capacity_bytes} bytes of this engine; remove something")


def _cost(key: bytes, value: bytes | None) -> int:
    return 0 if value is None else len(key) + len(value) + _RECORD_COST
