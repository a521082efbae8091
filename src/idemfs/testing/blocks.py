"""Block engines that fail on order: ``CrashingBlocks`` loses its power, ``FaultyBlocks`` returns errors.

``CrashingBlocks`` promises no more than the interface does, and breaks whatever else a disk may break: of what was
not synced any part survives, in any order, torn at 512 bytes, the unit that a disk writes whole. Sectors
that were discarded, and the rest of a last sector, hold garbage.

Threads: as the interface of an engine says.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from random import Random

from idemfs.engines.blocks.api import Blocks
from idemfs.limits import SECTOR_SIZE
from idemfs.testing.faults import Cut, Faults, Kind

TEAR_SIZE = 512
_GARBAGE = b"\xdb\xad\xca\xfe" * (SECTOR_SIZE // 4)
_ZEROS = bytes(SECTOR_SIZE)


class CrashingBlocks:
    """A block engine in memory that knows what a power cut may take.

    Invariant: ``_present`` is ``_durable`` with all of ``_unsynced`` done in order.
    """

    def __init__(self, cut: Cut | None = None, *, sectors: dict[int, bytes] | None = None) -> None:
        self._cut = cut or Cut()
        self._lock = threading.Lock()
        self._durable = dict(sectors or {})
        self._present = self._durable.copy()
        self._unsynced: list[tuple[int, list[bytes]]] = []

    def crash(self, rng: Random, cut: Cut | None = None) -> CrashingBlocks:
        """The engine as found after the power came back: one of the states that the host may have left."""
        with self._lock:
            sectors = self._durable.copy()
            for sector, pieces in rng.sample(self._unsynced, rng.randint(0, len(self._unsynced))):
                torn = rng.random() < 0.5
                for index, piece in enumerate(pieces, sector):
                    sectors[index] = _tear(sectors.get(index, _ZEROS), piece, rng) if torn else piece
        return CrashingBlocks(cut, sectors=sectors)

    def reserve(self, sector: int, count: int) -> None:
        assert sector > 0
        assert count > 0
        self._cut.check()

    def write(self, sector: int, data: bytes | bytearray | memoryview) -> None:
        assert sector > 0
        whole = bytes(data)
        pieces = [whole[start : start + SECTOR_SIZE] for start in range(0, len(whole), SECTOR_SIZE)]
        if pieces:
            pieces[-1] += _GARBAGE[len(pieces[-1]) :]
        falls = self._cut.begin()
        with self._lock:
            self._present.update(enumerate(pieces, sector))
            self._unsynced.append((sector, pieces))
        if falls:
            self._cut.fall()

    def read(self, sector: int, size: int) -> bytes:
        self._cut.check()
        count = -(-size // SECTOR_SIZE)
        with self._lock:
            return b"".join([self._present.get(sector + index, _ZEROS) for index in range(count)])[:size]

    def sync(self) -> None:
        falls = self._cut.begin()
        with self._lock:
            for sector, pieces in self._unsynced:
                self._durable.update(enumerate(pieces, sector))
            self._unsynced.clear()
        if falls:
            self._cut.fall()

    def discard(self, runs: Sequence[tuple[int, int]]) -> None:
        falls = self._cut.begin()
        with self._lock:
            for sector, count in runs:
                garbage = dict.fromkeys(range(sector, sector + count), _GARBAGE)
                self._present.update(garbage)
                self._durable.update(garbage)
                # As a write too: unsynced writes to these sectors may come before it or after it.
                self._unsynced.append((sector, [_GARBAGE] * count))
        if falls:
            self._cut.fall()

    def used_bytes(self) -> int:
        self._cut.check()
        with self._lock:
            return sum(piece is not _GARBAGE for piece in self._present.values()) * SECTOR_SIZE

    def free_bytes(self) -> int:
        self._cut.check()
        return (1 << 40) - self.used_bytes()

    def close(self) -> None:
        """Nothing; allowed after the cut, so that a test can tidy up."""


class FaultyBlocks:
    """Any block engine, with errors in front. A call that fails does not reach the engine."""

    def __init__(self, engine: Blocks, faults: Faults) -> None:
        self._engine = engine
        self.faults = faults

    def reserve(self, sector: int, count: int) -> None:
        self.faults.check(Kind.RESERVE)
        self._engine.reserve(sector, count)

    def write(self, sector: int, data: bytes | bytearray | memoryview) -> None:
        self.faults.check(Kind.WRITE)
        self._engine.write(sector, data)

    def read(self, sector: int, size: int) -> bytes:
        self.faults.check(Kind.READ)
        return self._engine.read(sector, size)

    def sync(self) -> None:
        self.faults.check(Kind.SYNC)
        # crash: whoever calls this says what it is for.
        self._engine.sync()

    def discard(self, runs: Sequence[tuple[int, int]]) -> None:
        self.faults.check(Kind.DISCARD)
        self._engine.discard(runs)

    def used_bytes(self) -> int:
        return self._engine.used_bytes()

    def free_bytes(self) -> int:
        return self._engine.free_bytes()

    def close(self) -> None:
        self._engine.close()


def _tear(old: bytes, new: bytes, rng: Random) -> bytes:
    """A sector of which each unit is either the old or the new one."""
    starts = range(0, SECTOR_SIZE, TEAR_SIZE)
    return b"".join([rng.choice((old, new))[start : start + TEAR_SIZE] for start in starts])
