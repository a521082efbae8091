"""A store on engines that lose their power, and images of them at every write point.

One run of a workload gives every cut: before each write point the engines are asked for what
the host may have kept by then. That is the cut before this write point and also the one after
the write point before, which nothing durable follows.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

from idemfs.engines.kv.memory import MemoryKV
from idemfs.format.superblock import Superblock
from idemfs.ids import Guid
from idemfs.snapshots import delete
from idemfs.store import intents, space, store
from idemfs.store.files import first_records, new_superblock
from idemfs.store.store import Store
from idemfs.testing.blocks import CrashingBlocks
from idemfs.testing.clock import Simulated
from idemfs.testing.faults import Cut
from idemfs.testing.kv import CrashingKV
from idemfs.vfs import fileset_state
from idemfs.vfs.tree import Tree

BLOCK_SIZE = 16384
"""Four sectors, so that a write can be torn between them."""


def tighten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds so low that a small workload meets them: groups are sealed in the middle of what
    takes several, and sectors that were freed are used again as soon as they may be."""
    monkeypatch.setattr(store, "GROUP_RECORD_COUNT_MAX", 60)
    monkeypatch.setattr(delete, "_STEP_RECORD_COUNT", 4)
    monkeypatch.setattr(fileset_state, "RECLAIM_BLOCK_COUNT", 3)
    monkeypatch.setattr(space, "RESERVE_SECTOR_COUNT", 8)
    monkeypatch.setattr(space, "_DISCARD_SECTOR_COUNT_MIN", 1)
    monkeypatch.setattr(intents, "LOG_HALF_SECTOR_COUNT", 10)
    monkeypatch.setattr(intents, "LOG_FILE_BYTES_MAX", 12_000)
    monkeypatch.setattr(intents, "LOG_BYTES_MAX", 30_000)


class Witness(Cut):
    """Never cuts; ``seen`` is called before every write point."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Callable[[], None] | None = None

    def begin(self) -> bool:
        super().begin()
        if self.seen is not None:
            self.seen()
        return False


class Disk:
    """The engines of one store, and its superblock."""

    def __init__(
        self, superblock: Superblock, kv: CrashingKV, blocks: CrashingBlocks, log: CrashingBlocks, clock: Simulated
    ) -> None:
        self.superblock = superblock
        self.kv = kv
        self.blocks = blocks
        self.log = log
        self.clock = clock

    def open(self) -> Tree:
        """The store as the next process finds it; recovery happens here."""
        return Tree(Store(self.superblock, self.kv, self.blocks, self.clock, log=self.log))

    def crash(self, rng: Random, cut: Cut | None = None) -> Disk:
        """What the host may have kept. Time has passed when the power comes back."""
        clock = Simulated(rng.randrange(1 << 30), self.clock.now_ns() + 60_000_000_000)
        kv, blocks, log = self.kv.crash(rng, cut), self.blocks.crash(rng, cut), self.log.crash(rng, cut)
        return Disk(self.superblock, kv, blocks, log, clock)


def new_disk(cut: Cut, *, compression: str = "none", seed: int = 0, fileset_guid: Guid | None = None) -> Disk:
    """A store without anything in it, on engines that ``cut`` ends."""
    clock = Simulated(seed)
    superblock = new_superblock(clock, BLOCK_SIZE, compression)
    records = MemoryKV()
    first_records(records, fileset_guid or Guid(clock.random_bytes(16)))
    return Disk(superblock, CrashingKV(cut, records=records), CrashingBlocks(cut), CrashingBlocks(cut), clock)
