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
from idemfs.format.indirect import IndirectBlock, PartialBlock
from idemfs.format.inode import Inode
from idemfs.format.tables import Fileset
from idemfs.ids import Address, Ino, SnapshotId, fileset_of, number_of
from idemfs.limits import INDIRECT_ENTRY_COUNT, RECORD_CACHE_COUNT_MAX, SCAN_COUNT
from idemfs.store.store import Store
from idemfs.versions import through
from idemfs.versions.shadows import MapKey, Shadows

_NO_BLOCK = 1 << 62
"""Greater than every block number."""


class Active:
    """The active records of every fileset of one store."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.records = store.active
        self.shadows = Shadows(store)
        self._filesets = store.catalog.filesets
        self._inodes: dict[Ino, Inode] = {}
        self._changed_inodes: set[Ino] = set()
        self._maps: dict[MapKey, IndirectBlock | PartialBlock] = {}
        self._changed_maps: dict[Ino, set[int]] = {}
        self._new_keys: set[bytes] = set()
        self._intents = store.intents
        self.resolved: dict[Ino, dict[tuple[SnapshotId, int], IndirectBlock]] = {}
        """Indirect blocks as snapshots see them; those of a file are dropped when an extent that they name goes."""
        self.written: set[SnapshotId] = set()
        """Snapshots that are open for writing."""
        self.rewritten_count = 0
        """Grows when a snapshot comes to see something else: what is kept elsewhere of any of them may be old."""
        store.before_seal.append(self.flush)

    # -- reading -----------------------------------------------------------------------------------

    def inode(self, ino: Ino) -> Inode | None:
        node = self._inodes.get(ino)
        if node is None:
            value = self.records.get(ino.to_bytes(8, "big") + b"i")
            if value is None:
                return None
            try:
                node = inodes.unpack(value)
            except Damaged as bad:
                raise Damaged(f"inode {number_of(ino)}: {bad}") from bad
            if len(self._inodes) >= RECORD_CACHE_COUNT_MAX:
                self._inodes = {i: self._inodes[i] for i in self._changed_inodes if i in self._inodes}
            self._inodes[ino] = node
        return node

    def map(self, ino: Ino, index: int) -> IndirectBlock:
        """The ``index``-th indirect block; all holes if there is no record. Of a clone, with what its origin has."""
        block = self.own_map(ino, index)
        if block.__class__ is IndirectBlock:
            return block
        assert isinstance(block, PartialBlock)
        return block.over(through.origin_map(self, ino, index))

    def own_map(self, ino: Ino, index: int) -> IndirectBlock | PartialBlock:
        """As ``map``, of a clone what it has itself."""
        block = self._maps.get((ino, index))
        if block is None:
            value = self.records.get_own(keys.block(ino, index))
            if value is not None:
                block = indirect.unpack_own(value)
            elif self.records.beneath and through.rests(self, ino):
                block = PartialBlock()
            else:
                block = IndirectBlock()
            if len(self._maps) >= RECORD_CACHE_COUNT_MAX:
                self._maps = {(i, n): self._maps[i, n] for i, numbers in self._changed_maps.items() for n in numbers}
            self._maps[ino, index] = block
        return block

    def map_indexes(self, ino: Ino, first: int, limit: int) -> list[int]:
        """Indexes, from ``first`` on, of indirect blocks that exist; ascending, up to ``limit`` of them."""
        start, end = keys.block(ino, first), keys.kind_range(ino, keys.BLOCK)[1]
        found = {keys.index_of(key) for key, _ in self.records.scan(start, end, limit)}
        found.update(index for index in self._changed_maps.get(ino, ()) if index >= first)
        if self.records.beneath:
            found.update(through.origin_map_indexes(self, ino, first, limit))
        return sorted(found)[:limit]

    def fileset(self, ino: Ino) -> Fileset:
        return self._filesets[fileset_of(ino)]

    # -- inodes ------------------------------------------------------------------------------------

    def change_inode(self, ino: Ino, *, is_logged: bool = False) -> Inode:
        """The inode, to be changed now; what it was is preserved first.

        ``is_logged``: only content is written, and times are set, of which the caller tells the log.
        """
        if not is_logged:
            self._intents.otherwise.add(ino)
        node = self.inode(ino)
        if node is None:
            raise Damaged(f"inode {ino} is missing; run 'idemfs check'")
        if node.seen < self._filesets[fileset_of(ino)].newest:
            self.shadows.preserve_inode(ino, node)
        self._changed_inodes.add(ino)
        return node

    def change_inode_kept(self, ino: Ino) -> Inode:
        """As ``change_inode``, for a rollback: the newest snapshot needs no version of its own any more."""
        node = self.inode(ino)
        assert node is not None
        self._intents.otherwise.add(ino)
        self._changed_inodes.add(ino)
        self.shadows.forget(ino)
        return node

    def touch_atime(self, ino: Ino, atime: int) -> None:
        """Reading changes the access time alone, and preserves nothing."""
        node = self.inode(ino)
        if node is not None:
            node.atime = atime
            self._changed_inodes.add(ino)

    def insert_inode(self, ino: Ino, node: Inode, *, is_new: bool = False) -> None:
        """An inode that is not there; the newest snapshot remembers that it was absent. Sets birth and seen.

        ``is_new``: its number was never used before, so nothing need be looked up. One that comes back, as in a
        restore, has the birth that snapshots know.
        """
        fileset = self._filesets[fileset_of(ino)]
        newest = fileset.newest
        self._intents.otherwise.add(ino)
        node.seen = newest
        node.birth = newest if is_new else self.shadows.birth(ino)
        key = ino.to_bytes(8, "big") + b"i"
        records = self.records
        values = records.values
        if is_new:
            self._new_keys.add(key)
            records.pending.append(key)
        else:
            self._inodes.pop(ino, None)
            if key not in values:
                if records.before_group(key) is None:
                    self._new_keys.add(key)
                records.pending.append(key)
        values[key] = node.pack()
        fileset.inode_count += 1
        if newest:
            self.shadows.mark_absent(ino)

    def remove_inode(self, ino: Ino, block_count: int = _NO_BLOCK) -> None:
        """The inode and every record of it go; what the newest snapshot sees is preserved.

        ``block_count``: it has no block from this number on, for who knows.
        """
        node = self.change_inode(ino)
        self.drop_blocks(ino, node, 0, block_count)
        if self.records.beneath and through.rests(self, ino):
            self._drop_own_maps(ino)
        if node.is_dir:
            self._delete_records(node, *keys.kind_range(ino, keys.ENTRY))
        # Between the two kinds there is no other.
        self._delete_records(node, keys.kind_range(ino, keys.LINK)[0], keys.kind_range(ino, keys.XATTR)[1])
        self._inodes.pop(ino, None)
        self._changed_inodes.discard(ino)
        key = keys.inode(ino)
        self.records.put(key, None)
        self.fileset(ino).inode_count -= 1
        self.shadows.drop_absent(key)

    def _drop_own_maps(self, ino: Ino) -> None:
        """Of a clone's file that is gone nothing is seen, nor what its origin comes to hold past the file's end."""
        indexes = set(self._changed_maps.get(ino, ()))
        start, end = keys.kind_range(ino, keys.BLOCK)
        while pairs := self.records.scan_own(start, end, SCAN_COUNT):
            indexes.update(keys.index_of(key) for key, value in pairs if value != indirect.NO_BLOCKS)
            start = pairs[-1][0] + b"\0"
        for index in indexes:
            self._maps[ino, index] = IndirectBlock()
            self.change_map(ino, index)

    def _delete_records(self, node: Inode, start: bytes, end: bytes) -> None:
        while pairs := self.records.scan(start, end, SCAN_COUNT):
            for key, _ in pairs:
                self.delete_record(key, node)
            start = pairs[-1][0]

    def drop_record(self, key: bytes) -> None:
        """A record of a fileset goes that goes whole, and has no snapshots any more. ``settle`` came before."""
        ino = keys.ino_of(key)
        self._intents.otherwise.add(ino)
        if keys.kind_of(key) == keys.BLOCK:
            fileset = self.fileset(ino)
            for _, address, _ in self.map(ino, keys.index_of(key)).real_entries():
                fileset.sectors -= sector_count_of(address)
                self.store.free(address)
            self._maps.pop((ino, keys.index_of(key)), None)
        elif keys.kind_of(key) == keys.INODE:
            self._inodes.pop(ino, None)
            # Not for the mark of a clone that it had not this one of its origin.
            self.fileset(ino).inode_count -= bool(self.records.get_own(key))
        self.records.put(key, None)

    # -- entries, links, extended attributes ---------------------------------------------------------

    def add_record(self, key: bytes, value: bytes, node: Inode) -> None:
        """As ``put_record``, for a record that the caller has just seen to be missing."""
        if key not in self.records.values and key[:2] not in self.records.beneath:
            self._new_keys.add(key)
        self.shadows.preserve(key, node.birth, None)
        self.records.put(key, value)

    def put_record(self, key: bytes, value: bytes, node: Inode) -> None:
        """Set a record of ``ino`` that is no inode and no indirect block."""
        old = self.records.get(key)
        if old == value:
            return
        if old is None:
            self.add_record(key, value, node)
            return
        self.shadows.preserve(key, node.birth, old)
        self.records.put(key, value)

    def delete_record(self, key: bytes, node: Inode) -> None:
        """Remove such a record, if it is there."""
        old = self.records.get(key)
        if old is None:
            return
        self.shadows.preserve(key, node.birth, old)
        self.records.put(key, None)
        self.shadows.drop_absent(key)

    # -- blocks ------------------------------------------------------------------------------------

    def block(self, ino: Ino, number: int) -> tuple[Address, int]:
        """Address and checksum of one block of the active file."""
        return self.map(ino, number // INDIRECT_ENTRY_COUNT).get(number % INDIRECT_ENTRY_COUNT)

    def set_block(self, ino: Ino, node: Inode, number: int, address: Address, checksum: int, change_start: int) -> None:
        """Give block ``number`` a new address; ``change_start``: the first byte of the file that this changes.

        ``change_inode`` came before, since every change of content changes times.
        """
        index, entry = divmod(number, INDIRECT_ENTRY_COUNT)
        block = self.own_map(ino, index)
        if block.__class__ is not IndirectBlock:
            assert isinstance(block, PartialBlock)
            through.set_block(self, block, ino, node, (index, entry), (address, checksum), change_start)
            return
        old, old_checksum = block.get(entry)
        if old == HOLE == address:
            return
        if not self.shadows.take_block(ino, node, index, entry, (old, old_checksum), change_start):
            if old != HOLE:
                self.store.free(old)
                self.resolved.pop(ino, None)
        block.set(entry, address, checksum)
        self._changed_maps.setdefault(ino, set()).add(index)
        growth = sector_count_of(address) - sector_count_of(old)
        node.sectors += growth
        if node.sectors < 0:
            # Of a clone's file, where not all that it saw through its origin was as the origin's inode says.
            node.sectors = 0
        self._filesets[fileset_of(ino)].sectors += growth

    def change_map(self, ino: Ino, index: int) -> None:
        """What ``own_map`` gave was changed."""
        self._changed_maps.setdefault(ino, set()).add(index)

    def real_blocks(self, ino: Ino, first: int, last: int) -> Iterator[int]:
        """Numbers, from ``first`` up to but not ``last``, of blocks that are no holes; they may go meanwhile."""
        index = first // INDIRECT_ENTRY_COUNT
        if last <= INDIRECT_ENTRY_COUNT:
            # Most files are small: there is nothing to look for.
            entries = self.map(ino, 0).real_entries() if last else []
            yield from (entry for entry, _, _ in entries if first <= entry < last)
            return
        while indexes := self.map_indexes(ino, index, SCAN_COUNT):
            for index in indexes:
                for entry, _, _ in self.map(ino, index).real_entries():
                    number = index * INDIRECT_ENTRY_COUNT + entry
                    if number >= last:
                        return
                    if number >= first:
                        yield number
            index += 1

    def drop_blocks(self, ino: Ino, node: Inode, first: int, last: int = _NO_BLOCK) -> None:
        """Blocks from number ``first`` on become holes, preserved or freed. ``change_inode`` came before."""
        for number in self.real_blocks(ino, first, last):
            self.set_block(ino, node, number, HOLE, 0, number * self.store.block_size)

    # -- groups ------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Write changed objects into the open group, and bring the digests up to date."""
        for ino in self._changed_inodes:
            self.records.put(keys.inode(ino), self._inodes[ino].pack())
        for ino, indexes in self._changed_maps.items():
            for index in indexes:
                block = self._maps[ino, index]
                if block.__class__ is not IndirectBlock:
                    assert isinstance(block, PartialBlock)
                    block = self._maps[ino, index] = through.completed(self, block, ino, index)
                self.records.put(keys.block(ino, index), block.pack() or None)
        self.shadows.flush()
        self._changed_inodes.clear()
        self._changed_maps.clear()
        self._update_digests(self.records.values.items())
        self._new_keys.clear()

    def _update_digests(self, changes: Iterable[tuple[bytes, bytes | None]]) -> None:
        new_keys = self._new_keys
        contribution = digest.contribution
        before_group = self.records.before_group
        add_to_sums = self.store.catalog.add_to_sums
        # Most changes in a row are of one fileset, so its sums are kept here until another one comes.
        fileset = b""
        delta = size = 0
        beneath = None
        for key, value in changes:
            if key[:2] != fileset:
                add_to_sums(fileset, delta, size)
                fileset = key[:2]
                delta = size = 0
                beneath = self.records.beneath.get(fileset)
            if beneath is not None:
                old = before_group(key)
                delta += beneath.contribution(key, value) - beneath.contribution(key, old)
                size += through.record_size(key, value) - through.record_size(key, old)
                continue
            if value is not None:
                delta += contribution(key, value)
                size += len(key) + len(value)
            if key not in new_keys:
                old = before_group(key)
                if old is not None:
                    delta -= contribution(key, old)
                    size -= len(key) + len(old)
        add_to_sums(fileset, delta, size)

    def settle(self, *, forgets: bool = False) -> bool:
        """Seal the open group if objects are changed, so that the tables alone tell the state; whether it did.

        What was admitted before belongs to the sealed group: who goes on to change something admits it again.
        ``forgets``: what is kept in memory of records is read anew, since some fileset becomes another one.
        """
        is_changed = bool(self._changed_inodes or self._changed_maps or self.shadows.is_changed)
        if is_changed:
            self.store.commit(wait=False)
        self.shadows.forget()
        if forgets:
            self._inodes.clear()
            self._maps.clear()
            self.resolved.clear()
        return is_changed
