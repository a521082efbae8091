"""The active records: the one door through which they change, preserving first.

Inodes and indirect blocks that change are kept as objects and written into the open
group when it is sealed. For every change the newest snapshot is given its own version
first (``rule`` decides), at most once per record and snapshot.

Threads: under the store's lock. Objects that are returned are valid for one operation;
they are changed only after ``change_inode`` or by methods of this class.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from idemfs.errors import Damaged
from idemfs.format import digest, indirect, keys
from idemfs.format import inode as inodes
from idemfs.format.address import HOLE, sector_count_of
from idemfs.format.indirect import IndirectBlock, ShadowBlock
from idemfs.format.inode import ABSENT, Inode
from idemfs.format.tables import Fileset, Snapshot
from idemfs.ids import Address, Ino, SnapshotId, fileset_of
from idemfs.limits import INDIRECT_ENTRY_COUNT, RECORD_CACHE_COUNT_MAX, SCAN_COUNT, SECTOR_SIZE
from idemfs.store.store import Store
from idemfs.versions import rule

MapKey = tuple[Ino, int]
_NO_BLOCK = 1 << 62
"""Greater than every block number."""


class Active:
    """The active records of every fileset of one store."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.records = store.active
        self._filesets = store.catalog.filesets
        self._inodes: dict[Ino, Inode] = {}
        self._changed_inodes: set[Ino] = set()
        self._maps: dict[MapKey, IndirectBlock] = {}
        self._changed_maps: set[MapKey] = set()
        self._shadows: dict[MapKey, ShadowBlock] = {}
        self._changed_shadows: dict[MapKey, SnapshotId] = {}
        self._kept_sizes: dict[Ino, int] = {}
        self._new_keys: set[bytes] = set()
        self.resolved: dict[Ino, dict[tuple[SnapshotId, int], IndirectBlock]] = {}
        """Indirect blocks as snapshots see them; those of a file are dropped when an extent that they name goes."""
        store.before_seal.append(self.flush)

    # -- reading -----------------------------------------------------------------------------------

    def inode(self, ino: Ino) -> Inode | None:
        node = self._inodes.get(ino)
        if node is None:
            value = self.records.get(ino.to_bytes(8, "big") + b"i")
            if value is None:
                return None
            node = inodes.unpack(value)
            if len(self._inodes) >= RECORD_CACHE_COUNT_MAX:
                self._inodes = {i: self._inodes[i] for i in self._changed_inodes if i in self._inodes}
            self._inodes[ino] = node
        return node

    def map(self, ino: Ino, index: int) -> IndirectBlock:
        """The ``index``-th indirect block; all holes if there is no record."""
        block = self._maps.get((ino, index))
        if block is None:
            value = self.records.get(keys.block(ino, index))
            block = IndirectBlock() if value is None else indirect.unpack(value)
            if len(self._maps) >= RECORD_CACHE_COUNT_MAX:
                self._maps = {key: self._maps[key] for key in self._changed_maps}
            self._maps[ino, index] = block
        return block

    def map_indexes(self, ino: Ino, first: int, limit: int) -> list[int]:
        """Indexes, from ``first`` on, of indirect blocks that exist; ascending, up to ``limit`` of them."""
        start, end = keys.block(ino, first), keys.kind_range(ino, keys.BLOCK)[1]
        found = {keys.index_of(key) for key, _ in self.records.scan(start, end, limit)}
        found.update(index for owner, index in self._changed_maps if owner == ino and index >= first)
        return sorted(found)[:limit]

    def fileset(self, ino: Ino) -> Fileset:
        return self._filesets[fileset_of(ino)]

    # -- preserving --------------------------------------------------------------------------------

    def _newest(self, ino: Ino) -> SnapshotId:
        return self._filesets[fileset_of(ino)].newest

    def _snapshot(self, ino: Ino, snapshot: SnapshotId) -> Snapshot:
        return self.store.catalog.snapshot(fileset_of(ino), snapshot)

    def put_shadow(self, key: bytes, snapshot: Snapshot, value: bytes) -> None:
        """Make ``value`` the version of ``key`` that ``snapshot`` owns."""
        shadow_key = keys.shadow(key, snapshot.id)
        old = self.store.shadow.get(shadow_key)
        if old is None:
            snapshot.record_bytes += len(shadow_key)
            self.store.owned.put(keys.owned(snapshot.id, key), b"")
        else:
            snapshot.record_bytes -= len(old)
        snapshot.record_bytes += len(value)
        self.store.shadow.put(shadow_key, value)
        self.store.catalog.changed(snapshot)

    def drop_shadow(self, key: bytes, snapshot: Snapshot) -> None:
        """``snapshot`` owns no version of ``key`` any more; its extents are the caller's care."""
        shadow_key = keys.shadow(key, snapshot.id)
        old = self.store.shadow.get(shadow_key)
        if old is not None:
            if key[8:9] == keys.BLOCK:
                self._shadows.pop((keys.ino_of(key), keys.index_of(key)), None)
            snapshot.record_bytes -= len(shadow_key) + len(old)
            self.store.shadow.put(shadow_key, None)
            self.store.owned.put(keys.owned(snapshot.id, key), None)
            self.store.catalog.changed(snapshot)

    def _preserve_record(self, key: bytes, ino: Ino, birth: SnapshotId, old: bytes | None) -> None:
        newest = self._newest(ino)
        if rule.keeps_record(birth, newest) and self.store.shadow.get(keys.shadow(key, newest)) is None:
            self.put_shadow(key, self._snapshot(ino, newest), ABSENT if old is None else old)

    # -- inodes ------------------------------------------------------------------------------------

    def change_inode(self, ino: Ino) -> Inode:
        """The inode, to be changed now; what it was is preserved first."""
        node = self.inode(ino)
        if node is None:
            raise Damaged(f"inode {ino} is missing; run 'idemfs check'")
        newest = self._filesets[ino >> 48].newest  # type: ignore[index]
        if node.seen < newest and rule.keeps_inode(node.birth, node.seen, newest):
            self.put_shadow(keys.inode(ino), self._snapshot(ino, newest), node.pack())
            node.seen = newest
        self._changed_inodes.add(ino)
        return node

    def change_inode_kept(self, ino: Ino) -> Inode:
        """As ``change_inode``, for a rollback: the newest snapshot needs no version of its own any more."""
        node = self.inode(ino)
        assert node is not None
        self._changed_inodes.add(ino)
        self._kept_sizes.pop(ino, None)
        return node

    def touch_atime(self, ino: Ino, atime: int) -> None:
        """Reading changes the access time alone, and preserves nothing."""
        node = self.inode(ino)
        if node is not None:
            node.atime = atime
            self._changed_inodes.add(ino)

    def insert_inode(self, ino: Ino, node: Inode) -> None:
        """A new inode; the newest snapshot remembers that it was absent. Sets birth and seen."""
        fileset = self._filesets[ino >> 48]  # type: ignore[index]
        newest = fileset.newest
        node.birth = node.seen = newest
        key = ino.to_bytes(8, "big") + b"i"
        records = self.records
        if key not in records.values:
            if self._inodes.pop(ino, None) is None and records.before_group(key) is None:
                self._new_keys.add(key)
            records.pending.append(key)
        else:
            self._inodes.pop(ino, None)
        records.values[key] = node.pack()
        fileset.inode_count += 1
        if newest and self.store.shadow.get(keys.shadow(key, newest)) is None:
            self.put_shadow(key, self._snapshot(ino, newest), ABSENT)

    def remove_inode(self, ino: Ino) -> None:
        """The inode and every record of it go; what the newest snapshot sees is preserved."""
        node = self.change_inode(ino)
        self.drop_blocks(ino, node, 0)
        for kind in (keys.ENTRY, keys.LINK, keys.XATTR):
            start, end = keys.kind_range(ino, kind)
            while pairs := self.records.scan(start, end, SCAN_COUNT):
                for key, _ in pairs:
                    self.delete_record(key, ino, node)
                start = pairs[-1][0]
        self._inodes.pop(ino, None)
        self._changed_inodes.discard(ino)
        key = keys.inode(ino)
        self.records.put(key, None)
        self.fileset(ino).inode_count -= 1
        self._drop_absent(key, ino)

    def _drop_absent(self, key: bytes, ino: Ino) -> None:
        """A record that came and went since the newest snapshot leaves no trace in it."""
        newest = self._newest(ino)
        if newest and self.store.shadow.get(keys.shadow(key, newest)) == ABSENT:
            self.drop_shadow(key, self._snapshot(ino, newest))

    # -- entries, links, extended attributes ---------------------------------------------------------

    def put_record(self, key: bytes, value: bytes, ino: Ino, node: Inode) -> None:
        """Set a record of ``ino`` that is no inode and no indirect block."""
        old = self.records.get(key)
        if old == value:
            return
        if old is None and key not in self.records.values:
            self._new_keys.add(key)
        if node.birth < self._newest(ino):
            self._preserve_record(key, ino, node.birth, old)
        self.records.put(key, value)

    def delete_record(self, key: bytes, ino: Ino, node: Inode) -> None:
        """Remove such a record, if it is there."""
        old = self.records.get(key)
        if old is None:
            return
        self._preserve_record(key, ino, node.birth, old)
        self.records.put(key, None)
        self._drop_absent(key, ino)

    # -- blocks ------------------------------------------------------------------------------------

    def block(self, ino: Ino, number: int) -> tuple[Address, int]:
        """Address and checksum of one block of the active file."""
        return self.map(ino, number // INDIRECT_ENTRY_COUNT).get(number % INDIRECT_ENTRY_COUNT)

    def set_block(self, ino: Ino, node: Inode, number: int, address: Address, checksum: int, change_start: int) -> None:
        """Give block ``number`` a new address; ``change_start``: the first byte of the file that this changes.

        ``change_inode`` came before, since every change of content changes times.
        """
        index, entry = divmod(number, INDIRECT_ENTRY_COUNT)
        block = self.map(ino, index)
        old, old_checksum = block.get(entry)
        if old == HOLE == address:
            return
        if not self._move_to_shadow(ino, node, index, entry, (old, old_checksum), change_start):
            if old != HOLE:
                self.store.free(old)
                self.resolved.pop(ino, None)
        block.set(entry, address, checksum)
        self._changed_maps.add((ino, index))
        node.sectors += sector_count_of(address) - sector_count_of(old)

    def _move_to_shadow(
        self, ino: Ino, node: Inode, index: int, entry: int, pair: rule.Pair, change_start: int
    ) -> bool:
        """Whether the entry was moved into the newest snapshot, where a ditto stood."""
        newest = self._newest(ino)
        if not rule.keeps_record(node.birth, newest):
            return False
        if not rule.keeps_block(change_start, self._kept_size(ino, newest)):
            return False
        shadow = self._shadow(ino, index, newest)
        if entry in shadow.entries:
            return False
        shadow.entries[entry] = pair
        self._changed_shadows[ino, index] = newest
        self._snapshot(ino, newest).data_bytes += sector_count_of(pair[0]) * SECTOR_SIZE
        return True

    def _kept_size(self, ino: Ino, newest: SnapshotId) -> int:
        """Bytes of block content that the newest snapshot sees of a file; its shadow inode exists."""
        size = self._kept_sizes.get(ino)
        if size is None:
            value = self.store.shadow.get(keys.shadow(keys.inode(ino), newest))
            if value is None:
                raise Damaged(f"inode {ino} changes without a shadow in snapshot {newest}; run 'idemfs check'")
            shadow = inodes.unpack(value) if value != ABSENT else None
            size = 0 if shadow is None or shadow.is_inline else shadow.size
            self._kept_sizes[ino] = size
        return size

    def _shadow(self, ino: Ino, index: int, newest: SnapshotId) -> ShadowBlock:
        shadow = self._shadows.get((ino, index))
        if shadow is None:
            value = self.store.shadow.get(keys.shadow(keys.block(ino, index), newest))
            shadow = ShadowBlock() if value is None else indirect.unpack_shadow(value)
            self._shadows[ino, index] = shadow
        return shadow

    def open_shadow(self, ino: Ino, index: int) -> ShadowBlock | None:
        """What the open group has moved into the newest snapshot, if anything."""
        return self._shadows[ino, index] if (ino, index) in self._changed_shadows else None

    def real_blocks(self, ino: Ino, first: int, last: int) -> Iterator[int]:
        """Numbers, from ``first`` up to but not ``last``, of blocks that are no holes; they may go meanwhile."""
        index = first // INDIRECT_ENTRY_COUNT
        while indexes := self.map_indexes(ino, index, SCAN_COUNT):
            for index in indexes:
                for entry, _, _ in self.map(ino, index).real_entries():
                    number = index * INDIRECT_ENTRY_COUNT + entry
                    if number >= last:
                        return
                    if number >= first:
                        yield number
            index += 1

    def drop_blocks(self, ino: Ino, node: Inode, first: int) -> None:
        """Blocks from number ``first`` on become holes, preserved or freed. ``change_inode`` came before."""
        for number in self.real_blocks(ino, first, _NO_BLOCK):
            self.set_block(ino, node, number, HOLE, 0, number * self.store.block_size)

    # -- groups ------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Write changed objects into the open group, and bring the digests up to date."""
        for ino in self._changed_inodes:
            self.records.put(keys.inode(ino), self._inodes[ino].pack())
        for ino, index in self._changed_maps:
            self.records.put(keys.block(ino, index), self._maps[ino, index].pack() or None)
        self._flush_shadows()
        self._changed_inodes.clear()
        self._changed_maps.clear()
        self._update_digests(self.records.values.items())
        self._new_keys.clear()

    def _flush_shadows(self) -> None:
        for (ino, index), newest in self._changed_shadows.items():
            snapshot = self._snapshot(ino, newest)
            self.put_shadow(keys.block(ino, index), snapshot, self._shadows[ino, index].pack())
        self._changed_shadows.clear()
        self._shadows.clear()
        self._kept_sizes.clear()

    def _update_digests(self, changes: Iterable[tuple[bytes, bytes | None]]) -> None:
        deltas: dict[bytes, int] = {}
        new_keys = self._new_keys
        contribution = digest.contribution
        before_group = self.records.before_group
        for key, value in changes:
            delta = 0 if value is None else contribution(key, value)
            if key not in new_keys:
                old = before_group(key)
                if old is not None:
                    delta -= contribution(key, old)
            fileset = key[:2]
            deltas[fileset] = deltas.get(fileset, 0) + delta
        for number, delta in deltas.items():
            fileset_record = self._filesets[int.from_bytes(number, "big")]  # type: ignore[index]
            fileset_record.digest = (fileset_record.digest + delta) & digest.MASK

    def settle(self) -> None:
        """Seal the open group if objects are changed, so that the tables alone tell the state."""
        if self._changed_inodes or self._changed_maps or self._changed_shadows:
            self.store.commit(wait=False)
        self._shadows.clear()
        self._kept_sizes.clear()
