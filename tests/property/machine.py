"""One store on engines whose power can go at any write, and lose then what was not synced.

Threads: one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random

from idemfs.clock import Clock
from idemfs.engines.kv.api import Batch, Precondition, Table
from idemfs.engines.kv.memory import MemoryKV
from idemfs.format import keys, role
from idemfs.format.role import Role, RoleRecord
from idemfs.format.tables import COMPLETE, Snapshot, unpack_snapshot
from idemfs.ids import ROOT_FILESET, Guid, Ino, SnapshotId
from idemfs.store.files import first_records, new_superblock
from idemfs.store.store import Store
from idemfs.testing.blocks import CrashingBlocks
from idemfs.testing.faults import Cut, PowerCut
from idemfs.testing.kv import CrashingKV
from idemfs.vfs.tree import Tree

BLOCK = 4096


class Fuse(Cut):
    """A power cut that can be ordered at any time."""

    def arm(self, after: int | None) -> None:
        self._after = None if after is None else self.count + after


class CountingKV(CrashingKV):
    """Counts commits that happened, and notes the orphans that they made."""

    def __init__(self, cut: Cut, records: MemoryKV | None = None) -> None:
        super().__init__(cut, records=records)
        self.commit_count = 0
        self.orphans: set[Ino] = set()

    def commit(
        self, batch: Batch, precondition: Precondition | None = None, on_written: Callable[[], None] | None = None
    ) -> None:
        super().commit(batch, precondition, on_written)
        self.commit_count += 1
        start, end = keys.prefix_range(b"O")
        for key, value in batch.get(Table.SMALL, {}).items():
            if start <= key < end and value is not None:
                self.orphans.add(Ino(int.from_bytes(key[1:], "big")))

    def copied(self, cut: Cut) -> CountingKV:
        twin = CountingKV(cut, self._records.copy())
        twin.commit_count = self.commit_count
        return twin


class Machine:
    """A machine with a store, which is open."""

    def __init__(self, clock: Clock, compression: str, fileset: Guid, role_of_store: Role = Role.PRIMARY) -> None:
        self.rng = Random(1)
        self._clock = clock
        self._superblock = new_superblock(clock, BLOCK, compression)
        self._fuse = Fuse()
        self.kv = CountingKV(self._fuse)
        self._blocks = CrashingBlocks(self._fuse)
        first_records(self.kv, fileset)
        self.kv.commit({Table.SMALL: {role.KEY: role.pack(RoleRecord(role_of_store))}})
        self.tree = self._opened()

    def _opened(self) -> Tree:
        return Tree(Store(self._superblock, self.kv, self._blocks, self._clock), ROOT_FILESET)

    @property
    def store(self) -> Store:
        return self.tree.store

    def snapshots(self) -> list[Snapshot]:
        """The complete ones, oldest first."""
        return self.store.catalog.snapshots(ROOT_FILESET)

    def snapshot(self, name: str) -> Snapshot:
        return self.store.catalog.by_name(ROOT_FILESET, name)

    def reopen(self) -> None:
        """The process ends as it should, and another one opens the store."""
        self.store.close()
        self.tree = self._opened()

    def crash(self) -> None:
        """The machine goes down, if it is not down already; then it is up again, with what its engines have kept."""
        self.store.abandon()
        self._fuse = Fuse()
        self.kv = self.kv.copied(self._fuse)
        self._blocks = self._blocks.crash(self.rng, self._fuse)
        self.tree = self._opened()

    @property
    def is_down(self) -> bool:
        return self._fuse.happened

    @contextmanager
    def cut(self, after: int) -> Iterator[None]:
        """The power goes at write point ``after`` of what is done inside, unless that has fewer."""
        self._fuse.arm(after)
        try:
            yield
        except PowerCut:
            assert self.is_down
        finally:
            self._fuse.arm(None)

    # -- what is durable -------------------------------------------------------------------------------

    def has_durable(self, name: str) -> bool:
        """Whether the metadata engine has the snapshot, and it is not being deleted."""
        return self._durable(name) is not None

    def durable_id(self, name: str) -> SnapshotId | None:
        """Of the snapshot that the metadata engine has under this name."""
        found = self._durable(name)
        return None if found is None else found.id

    def is_refreshed(self, name: str, digest: int) -> bool:
        """Whether the engine says that a refresh goes on, or has the snapshot as it becomes by that."""
        found = self._durable(name)
        is_under_way = self.kv.copied(Fuse()).get(Table.SMALL, keys.replication("refresh")) is not None
        return is_under_way or (found is not None and found.digest == digest)

    def _durable(self, name: str) -> Snapshot | None:
        found = self.kv.copied(Fuse()).scan(Table.SMALL, *keys.prefix_range(b"s"), 1000)
        kept = [unpack_snapshot(*keys.snapshot_parts(key), value) for key, value in found]
        return next((each for each in kept if each.name == name and each.state == COMPLETE), None)

    def has_durable_record(self, key: bytes) -> bool:
        """Whether the engine has this record in its small table."""
        return self.kv.copied(Fuse()).get(Table.SMALL, key) is not None

    def has_begun(self, what: str, digest: int) -> bool:
        """Whether the engine says that a restore or rollback goes on, or has the state that it leads to."""
        engine = self.kv.copied(Fuse())
        if engine.get(Table.SMALL, keys.replication(what)) is not None:
            return True
        durable = Store(self._superblock, engine, CrashingBlocks(), self._clock)
        return durable.catalog.filesets[ROOT_FILESET].digest == digest
