"""A block engine in memory, for tests and for trying things out. Nothing is durable.

Invariant: ``_sectors`` holds exactly the sectors that were claimed or written, and not discarded.

Threads: one lock around every call.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from idemfs.errors import NoSpace
from idemfs.limits import SECTOR_SIZE

_ZEROS = bytes(SECTOR_SIZE)
_UNLIMITED_SECTOR_COUNT = 1 << 28
"""What an engine without a capacity says that it could give (1 TiB)."""


class MemoryBlocks:
    """A block engine in memory; with ``capacity_sectors`` it can be full."""

    def __init__(self, capacity_sectors: int | None = None) -> None:
        self._capacity_sectors = capacity_sectors
        self._lock = threading.Lock()
        self._sectors: dict[int, bytes] = {}

    def reserve(self, sector: int, count: int) -> None:
        assert sector > 0
        with self._lock:
            self._claim(range(sector, sector + count))

    def write(self, sector: int, data: bytes | bytearray | memoryview) -> None:
        assert sector > 0
        pieces = split(data)
        with self._lock:
            self._claim(range(sector, sector + len(pieces)))
            self._sectors.update(enumerate(pieces, sector))

    def read(self, sector: int, size: int) -> bytes:
        count = -(-size // SECTOR_SIZE)
        with self._lock:
            return b"".join([self._sectors.get(sector + index, _ZEROS) for index in range(count)])[:size]

    def sync(self) -> None:
        """Nothing is ever durable here."""

    def discard(self, runs: Sequence[tuple[int, int]]) -> None:
        with self._lock:
            for sector, count in runs:
                for index in range(sector, sector + count):
                    self._sectors.pop(index, None)

    def used_bytes(self) -> int:
        with self._lock:
            return len(self._sectors) * SECTOR_SIZE

    def free_bytes(self) -> int:
        capacity = _UNLIMITED_SECTOR_COUNT if self._capacity_sectors is None else self._capacity_sectors
        return capacity * SECTOR_SIZE - self.used_bytes()

    def close(self) -> None:
        """Nothing to release; the sectors stay, so that a test can look at them."""

    def _claim(self, sectors: range) -> None:
        new = [sector for sector in sectors if sector not in self._sectors]
        if self._capacity_sectors is not None and len(self._sectors) + len(new) > self._capacity_sectors:
            raise NoSpace(f"memory: more than the {self._capacity_sectors} sectors of this engine; remove something")
        self._sectors.update(dict.fromkeys(new, _ZEROS))


def split(data: bytes | bytearray | memoryview) -> list[bytes]:
    """The sectors of ``data``, the last one filled up with zeros."""
    whole = bytes(data)
    pieces = [whole[start : start + SECTOR_SIZE] for start in range(0, len(whole), SECTOR_SIZE)]
    if pieces:
        pieces[-1] = pieces[-1].ljust(SECTOR_SIZE, b"\0")
    return pieces
