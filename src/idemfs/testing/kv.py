"""Metadata engines that fail on order: ``CrashingKV`` loses its power, ``FaultyKV`` returns errors.

Threads: as the interface of an engine says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from idemfs.engines.kv.api import KV, Batch, Precondition, Table
from idemfs.engines.kv.memory import MemoryKV
from idemfs.testing.faults import Cut, Faults, Kind


class CrashingKV:
    """A metadata engine in memory whose commits are atomic and durable, until ``cut`` falls before or after one."""

    def __init__(self, cut: Cut | None = None, *, records: MemoryKV | None = None) -> None:
        self._cut = cut or Cut()
        self._records = records or MemoryKV()

    def crash(self, rng: Random, cut: Cut | None = None) -> CrashingKV:
        """The engine as found after the power came back. ``rng`` decides nothing here: a commit was done or not."""
        return CrashingKV(cut, records=self._records.copy())

    def get(self, table: Table, key: bytes) -> bytes | None:
        self._cut.check()
        return self._records.get(table, key)

    def get_many(self, table: Table, keys: Sequence[bytes]) -> list[bytes | None]:
        self._cut.check()
        return self._records.get_many(table, keys)

    def scan(
        self, table: Table, start: bytes, end: bytes, limit: int, reverse: bool = False
    ) -> list[tuple[bytes, bytes]]:
        self._cut.check()
        return self._records.scan(table, start, end, limit, reverse)

    def commit(
        self, batch: Batch, precondition: Precondition | None = None, on_written: Callable[[], None] | None = None
    ) -> None:
        falls = self._cut.begin()
        try:
            self._records.commit(batch, precondition, on_written)
        finally:
            if falls:
                self._cut.fall()

    def reserve(self, record_count: int, value_bytes: int) -> None:
        self._cut.check()
        self._records.reserve(record_count, value_bytes)

    def used_bytes(self) -> int:
        self._cut.check()
        return self._records.used_bytes()

    def close(self) -> None:
        """Nothing; allowed after the cut, so that a test can tidy up."""


class FaultyKV:
    """Any metadata engine, with errors in front: reserve, read, commit. A call that fails does not reach the engine."""

    def __init__(self, engine: KV, faults: Faults) -> None:
        self._engine = engine
        self.faults = faults

    def get(self, table: Table, key: bytes) -> bytes | None:
        self.faults.check(Kind.READ)
        return self._engine.get(table, key)

    def get_many(self, table: Table, keys: Sequence[bytes]) -> list[bytes | None]:
        self.faults.check(Kind.READ)
        return self._engine.get_many(table, keys)

    def scan(
        self, table: Table, start: bytes, end: bytes, limit: int, reverse: bool = False
    ) -> list[tuple[bytes, bytes]]:
        self.faults.check(Kind.READ)
        return self._engine.scan(table, start, end, limit, reverse)

    def commit(
        self, batch: Batch, precondition: Precondition | None = None, on_written: Callable[[], None] | None = None
    ) -> None:
        self.faults.check(Kind.COMMIT)
        self._engine.commit(batch, precondition, on_written)

    def reserve(self, record_count: int, value_bytes: int) -> None:
        self.faults.check(Kind.RESERVE)
        self._engine.reserve(record_count, value_bytes)

    def used_bytes(self) -> int:
        return self._engine.used_bytes()

    def close(self) -> None:
        self._engine.close()
