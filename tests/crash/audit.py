"""Who owns each sector, counted from the tables alone: a referee beside ``check``, which shares none of its code."""

from __future__ import annotations

from collections import Counter

from idemfs.engines.kv.api import KV, Table
from idemfs.format import address as addresses
from idemfs.format import indirect, keys, tables
from idemfs.format import inode as inodes
from idemfs.format.inode import ABSENT
from idemfs.store.store import Store
from idemfs.versions.resolve import View
from idemfs.versions.state import ActiveView, digest_of
from idemfs.vfs.tree import Tree

RETURNING = (keys.replication("restore"), keys.replication("rollback"), keys.replication("refresh"))
"""Records that say: going back to a snapshot, or bringing one forward, has begun, and is to be finished."""
_ALL = 1 << 20
_END = b"\xff" * 300


def audit(tree: Tree) -> None:
    """The committed state is consistent: sectors, counts, digests, indexes. Nothing is changed since the commit."""
    store = tree.store
    assert not store.dirty
    _audit_sectors(store)
    _audit_owned(store.kv)
    fileset = store.catalog.filesets[tree.fileset]
    assert digest_of(ActiveView(tree.active), tree.fileset) == fileset.digest, "the active digest"
    assert sum(key[8:] == b"i" for key in _records(store.kv, Table.ACTIVE)) == fileset.inode_count
    for snapshot in store.catalog.all_snapshots(tree.fileset):
        assert digest_of(View(tree.active, snapshot.id), tree.fileset) == snapshot.digest, snapshot.name
        assert _owned_bytes(store.kv, snapshot) == (snapshot.data_bytes, snapshot.record_bytes), snapshot.name


def assert_finished(tree: Tree) -> None:
    """Recovery left nothing half done: no deletion, no restore or rollback, no orphan."""
    small = _records(tree.store.kv, Table.SMALL)
    assert not [key for key in small if key[:1] in (b"O", b"W") or key in RETURNING]
    nodes = [inodes.unpack(value) for key, value in _records(tree.store.kv, Table.ACTIVE).items() if key[8:] == b"i"]
    assert all(node.nlink for node in nodes), "an inode without a name, and not known as an orphan"
    assert all(snapshot.state == tables.COMPLETE for snapshot in tree.store.catalog.all_snapshots(tree.fileset))


def _records(kv: KV, table: Table) -> dict[bytes, bytes]:
    return dict(kv.scan(table, b"", _END, _ALL))


def _audit_sectors(store: Store) -> None:
    kv = store.kv
    references: Counter[int] = Counter()
    for key, value in _records(kv, Table.ACTIVE).items():
        if key[8:9] == keys.BLOCK:
            references.update(address for _, address, _ in indirect.unpack(value).real_entries())
            _assert_no_blocks_past_the_end(store, key, value)
    for key, value in _records(kv, Table.SHADOW).items():
        if key[8:9] == keys.BLOCK:
            references.update(address for _, address, _ in indirect.unpack_shadow(value).real_entries())
    small = _records(kv, Table.SMALL)
    shared = {int.from_bytes(k[1:], "big"): int.from_bytes(v, "little") for k, v in small.items() if k[:1] == b"E"}
    wanted = {addresses.sector_of(address): count for address, count in references.items() if count > 1}
    assert shared == wanted, "the counts of shared extents"
    owners: Counter[int] = Counter()
    for address in references:
        first = addresses.sector_of(address)
        owners.update(range(first, first + addresses.sector_count_of(address)))
    for key, value in small.items():
        if key[:1] == b"R":
            first = int.from_bytes(key[1:], "big")
            owners.update(range(first, first + int.from_bytes(value, "little")))
    sector_count = tables.unpack_state(small[keys.STORE_STATE]).sector_count
    twice = [sector for sector, count in owners.items() if count > 1]
    assert not twice, f"sectors with two owners: {twice[:5]}"
    lost = set(range(1, sector_count)) - set(owners)
    assert not lost, f"{len(lost)} sectors belong to nobody: {sorted(lost)[:5]}"
    assert len(owners) == sector_count - 1


def _assert_no_blocks_past_the_end(store: Store, key: bytes, value: bytes) -> None:
    node_value = store.kv.get(Table.ACTIVE, keys.inode(keys.ino_of(key)))
    assert node_value is not None, "blocks without an inode"
    node = inodes.unpack(node_value)
    assert not node.is_inline
    base = keys.index_of(key) * 512
    last = max(entry for entry, _, _ in indirect.unpack(value).real_entries())
    assert (base + last) * store.block_size < node.size, f"inode {keys.ino_of(key)} has blocks past its end"


def _audit_owned(kv: KV) -> None:
    wanted = set()
    for shadow_key in _records(kv, Table.SHADOW):
        key, snapshot = keys.shadow_parts(shadow_key)
        wanted.add(keys.owned(snapshot, key))
    assert set(_records(kv, Table.OWNED)) == wanted, "the index of what snapshots own"


def _owned_bytes(kv: KV, snapshot: tables.Snapshot) -> tuple[int, int]:
    data = records = 0
    for shadow_key, value in _records(kv, Table.SHADOW).items():
        key, owner = keys.shadow_parts(shadow_key)
        if owner == snapshot.id and keys.fileset_range(snapshot.fileset)[0] == key[:2]:
            records += len(shadow_key) + len(value)
            if key[8:9] == keys.BLOCK and value != ABSENT:
                real = indirect.unpack_shadow(value).real_entries()
                data += sum(addresses.sector_count_of(address) for _, address, _ in real) * 4096
    return data, records
