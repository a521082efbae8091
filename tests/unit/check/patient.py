"""A good store of which a test changes single records behind its back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import suppress

from idemfs.check import Finding, Kind, find
from idemfs.engines.blocks.memory import MemoryBlocks
from idemfs.engines.kv.api import Table
from idemfs.errors import Damaged
from idemfs.format import digest, entry, indirect, inode, keys, tables
from idemfs.format.address import sector_count_of
from idemfs.format.indirect import IndirectBlock, ShadowBlock
from idemfs.format.inode import Inode
from idemfs.format.tables import Fileset, Snapshot, StoreState
from idemfs.ids import ROOT_FILESET, ROOT_INO, Address, Ino, SnapshotId, make_ino
from idemfs.limits import BLOCK_SIZE_MIN, SECTOR_SIZE
from idemfs.store.store import Store
from idemfs.testing.builders import memory_tree
from idemfs.vfs.tree import Tree


class Patient:
    """Records as they lie in the engine. Changes of active records bring the digest along, unless told not to."""

    def __init__(
        self, build: Callable[[Tree], None], *, block_size: int = BLOCK_SIZE_MIN, compression: str = "none"
    ) -> None:
        tree = memory_tree(block_size=block_size, compression=compression)
        build(tree)
        tree.store.close()
        self._store = tree.store
        assert isinstance(tree.store.blocks, MemoryBlocks)
        self.blocks = tree.store.blocks

    def store(self) -> Store:
        store = self._store
        return Store(store.superblock, store.kv, store.blocks, store.clock)

    def find(self, *, read_data: bool = False) -> list[Finding]:
        return list(find(self.store(), read_data=read_data))

    def kinds(self, *, read_data: bool = False) -> Counter[Kind]:
        return Counter(finding.kind for finding in self.find(read_data=read_data))

    # -- records -------------------------------------------------------------------------------------

    def get(self, table: Table, key: bytes) -> bytes:
        value = self._store.kv.get(table, key)
        assert value is not None, key
        return value

    def put(self, table: Table, key: bytes, value: bytes | None) -> None:
        if table is Table.ACTIVE and key[:2] == bytes(2):
            self._bring_usage_along(key, self._store.kv.get(table, key), value)
        self._store.kv.commit({table: {key: value}})

    def _bring_usage_along(self, key: bytes, old: bytes | None, new: bytes | None) -> None:
        fileset = self.fileset()
        for value, sign in ((old, -1), (new, 1)):
            fileset.record_bytes += 0 if value is None else sign * (len(key) + len(value))
            if value and len(key) > keys.KIND_AT and keys.kind_of(key) == keys.BLOCK:
                with suppress(Damaged):
                    fileset.sectors += sign * sum(map(sector_count_of, map(Address, indirect.unpack(value).addresses)))
        self._store.kv.commit({Table.SMALL: {keys.usage(ROOT_FILESET): fileset.pack_usage()}})

    def put_active(self, key: bytes, value: bytes | None) -> None:
        """As ``put``, with the fileset's digest."""
        old = self._store.kv.get(Table.ACTIVE, key)
        fileset = self.fileset()
        fileset.digest -= 0 if old is None else digest.contribution(key, old)
        fileset.digest += 0 if value is None else digest.contribution(key, value)
        fileset.digest &= digest.MASK
        self.put(Table.ACTIVE, key, value)
        self.put_fileset(fileset)

    def fileset(self) -> Fileset:
        fileset = tables.unpack_fileset(ROOT_FILESET, self.get(Table.SMALL, keys.fileset(ROOT_FILESET)))
        tables.unpack_usage(fileset, self.get(Table.SMALL, keys.usage(ROOT_FILESET)))
        return fileset

    def put_fileset(self, fileset: Fileset) -> None:
        self.put(Table.SMALL, keys.fileset(fileset.number), fileset.pack())

    def state(self) -> StoreState:
        return tables.unpack_state(self.get(Table.SMALL, keys.STORE_STATE))

    def put_state(self, state: StoreState) -> None:
        self.put(Table.SMALL, keys.STORE_STATE, state.pack())

    def snapshot(self, snapshot_id: int) -> Snapshot:
        number = SnapshotId(snapshot_id)
        return tables.unpack_snapshot(ROOT_FILESET, number, self.get(Table.SMALL, keys.snapshot(ROOT_FILESET, number)))

    def put_snapshot(self, snapshot: Snapshot) -> None:
        self.put(Table.SMALL, keys.snapshot(snapshot.fileset, snapshot.id), snapshot.pack())

    def add_shadow(self, key: bytes, snapshot_id: int, value: bytes) -> None:
        """A version that a snapshot owns, with all that is kept of it elsewhere."""
        snapshot = self.snapshot(snapshot_id)
        snapshot.record_bytes += len(key) + 8 + len(value)
        if keys.kind_of(key) == keys.BLOCK:
            entries = indirect.unpack_shadow(value).entries.values()
            snapshot.data_bytes += sum(sector_count_of(address) for address, _ in entries) * SECTOR_SIZE
        self.put_snapshot(snapshot)
        self.put(Table.SHADOW, keys.shadow(key, snapshot.id), value)
        self.put(Table.OWNED, keys.owned(snapshot.id, key), b"")

    # -- files ---------------------------------------------------------------------------------------

    def ino(self, path: bytes) -> Ino:
        ino = ROOT_INO
        for name in path.split(b"/"):
            ino = make_ino(ROOT_FILESET, entry.unpack(self.get(Table.ACTIVE, keys.entry(ino, name)))[0])
        return ino

    def inode(self, path: bytes) -> Inode:
        return inode.unpack(self.get(Table.ACTIVE, keys.inode(self.ino(path) if path else ROOT_INO)))

    def put_inode(self, path: bytes, node: Inode) -> None:
        self.put_active(keys.inode(self.ino(path) if path else ROOT_INO), node.pack())

    def map(self, path: bytes) -> IndirectBlock:
        return indirect.unpack(self.get(Table.ACTIVE, keys.block(self.ino(path), 0)))

    def put_map(self, path: bytes, block: IndirectBlock) -> None:
        self.put_active(keys.block(self.ino(path), 0), block.pack())

    def shadow_map(self, path: bytes, snapshot_id: int) -> ShadowBlock:
        key = keys.shadow(keys.block(self.ino(path), 0), SnapshotId(snapshot_id))
        return indirect.unpack_shadow(self.get(Table.SHADOW, key))

    def free_runs(self) -> list[tuple[int, int]]:
        pairs = self._store.kv.scan(Table.SMALL, *keys.prefix_range(b"R"), 1000)
        return [(int.from_bytes(key[1:], "big"), int.from_bytes(value, "little")) for key, value in pairs]

    def put_free(self, sector: int, count: int | None) -> None:
        self.put(Table.SMALL, keys.free_extent(sector), None if count is None else count.to_bytes(8, "little"))
