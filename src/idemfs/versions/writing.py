"""The records of one snapshot that is written to: a second door, with the methods of ``Active``.

Before a record of the snapshot changes, the next older one is *insulated*: it gets what it saw through this one
as its own version, if it has none. Newer ones and the active state look for versions from themselves on, so they
see nothing of what happens here.

Invariants: what the snapshot owns names what it sees, and never a ditto in place of a hole that it made itself. Blocks
past its end mean nothing, and belong to whoever is newer; ``uncover`` hides them before the file grows over them.
Digest and counts of the snapshot are exact when ``flush`` returns, and each flush gives it a new guid: whoever holds
what it was holds another snapshot.

Threads: under the store's lock. An operation ends with ``flush``; a seal in the middle of one flushes, too.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import islice
from typing import NamedTuple

from idemfs.errors import Damaged
from idemfs.format import digest, indirect, keys
from idemfs.format import inode as inodes
from idemfs.format.address import HOLE, sector_count_of
from idemfs.format.indirect import IndirectBlock, ShadowBlock
from idemfs.format.inode import ABSENT, Inode
from idemfs.format.tables import Snapshot
from idemfs.ids import NO_SNAPSHOT, Address, Guid, Ino, SnapshotId
from idemfs.limits import INDIRECT_ENTRY_COUNT, SCAN_COUNT, SECTOR_SIZE
from idemfs.store.records import Records
from idemfs.versions import rule, state
from idemfs.versions.active import Active
from idemfs.versions.resolve import View
from idemfs.versions.shadows import MapKey, block_bytes

_NO_BLOCK = 1 << 62


class Writing(Active):
    """What ``snapshot`` sees, to be changed. ``close`` it; one at a time for a snapshot."""

    def __init__(self, active: Active, snapshot: Snapshot) -> None:
        # Not by Active's: of that, only what is shared is wanted here, and none of its caches.
        self.store = active.store
        self.shadows = active.shadows
        self.resolved = active.resolved
        self.snapshot = snapshot
        self.view = View(active, snapshot.id)
        self.newer = View(active, SnapshotId(snapshot.id + 1))
        """What the snapshot would see of a record if it owned no version of it."""
        self.records = _Seen(self)
        self._active = active
        self._filesets = active.store.catalog.filesets
        self._nodes: dict[Ino, Inode | None] = {}
        """Inodes that are being changed; None for one that was removed."""
        self._before: dict[Ino, bytes | None] = {}
        """What they were when that began."""
        self._parts: dict[MapKey, int] = {}
        """For each indirect block that changes, what it contributed to the digest."""
        self._sizes: dict[Ino, tuple[int, int]] = {}
        self._delta = 0
        self._is_changed = False
        self.may_ditto = False
        """Whether every snapshot that hands something down to this one sees the inode that is being changed."""
        self.store.before_seal.insert(0, self.flush)

    def close(self) -> None:
        self.flush()
        self.store.before_seal.remove(self.flush)

    # -- reading -----------------------------------------------------------------------------------

    def inode(self, ino: Ino) -> Inode | None:
        if ino in self._nodes:
            return self._nodes[ino]
        return self.view.inode(ino)

    def map(self, ino: Ino, index: int) -> IndirectBlock:
        return self.view.map(ino, index)

    def block(self, ino: Ino, number: int) -> tuple[Address, int]:
        return self.view.block(ino, number)

    def real_blocks(self, ino: Ino, first: int, last: int) -> Iterator[int]:
        """As ``Active``'s, inside the file."""
        end = -(-block_bytes(self.inode(ino)) // self.store.block_size)
        yield from self._real_numbers(ino, first, min(last, end))

    def _real_numbers(self, ino: Ino, first: int, last: int) -> Iterator[int]:
        if first >= last:
            return
        for index in self.view.map_indexes(ino, last * self.store.block_size, first // INDIRECT_ENTRY_COUNT):
            for entry, _, _ in self.view.map(ino, index).real_entries():
                number = index * INDIRECT_ENTRY_COUNT + entry
                if first <= number < last:
                    yield number

    # -- the next older snapshot ---------------------------------------------------------------------

    def _older(self) -> Snapshot | None:
        return self.store.catalog.next_older(self.snapshot.fileset, self.snapshot.id)

    def _insulate(self, key: bytes) -> None:
        """The next older snapshot gets what it sees of a record that is no indirect block, if it has no version."""
        older = self._older()
        if older is None or self.store.shadow.get(keys.shadow(key, older.id)) is not None:
            return
        if key[8:9] != keys.INODE and not self._is_known_to_older(keys.ino_of(key), older):
            return
        value = View(self._active, older.id).version(key)
        self.shadows.put(key, older, ABSENT if value is None else value)

    def _is_known_to_older(self, ino: Ino, older: Snapshot) -> bool:
        """Whether any older snapshot sees the inode; else it sees no record of it either."""
        is_there = View(self._active, older.id).inode(ino) is not None
        return is_there or self.shadows.is_seen(ino, older.id)

    def _pass_on(self, ino: Ino, index: int, entry: int, pair: rule.Pair, is_owned: bool, change_start: int) -> bool:
        """Whether the next older snapshot took ``pair``, what it saw of a block: moved, or shared with its owner."""
        older = self._older()
        if older is None:
            return False
        kept_size, longest_size = self._older_sizes(ino, older)
        if not rule.keeps_block(change_start, kept_size):
            block_start = (index * INDIRECT_ENTRY_COUNT + entry) * self.store.block_size
            if not rule.keeps_block_for_older(block_start, kept_size, longest_size):
                return False
        shadow = self._owned_map(ino, index, older)
        if entry in shadow.entries:
            return False
        if not is_owned:
            self.store.space.share(pair[0])
        shadow.entries[entry] = pair
        self._put_map(ino, index, older, shadow, sector_count_of(pair[0]))
        return True

    def _older_sizes(self, ino: Ino, older: Snapshot) -> tuple[int, int]:
        """Bytes of block content that the next older snapshot sees of a file, and the most that any older one does.

        The inode was insulated, so every older one sees a version that one of them owns.
        """
        sizes = self._sizes.get(ino)
        if sizes is None:
            node = View(self._active, older.id).inode(ino)
            sizes = self._sizes[ino] = block_bytes(node), self.shadows.largest_size(ino, self.snapshot.id)
        return sizes

    def _owned_map(self, ino: Ino, index: int, snapshot: Snapshot) -> ShadowBlock:
        value = self.store.shadow.get(keys.shadow(keys.block(ino, index), snapshot.id))
        return ShadowBlock() if value is None else indirect.unpack_shadow(value)

    def _put_map(self, ino: Ino, index: int, snapshot: Snapshot, block: ShadowBlock, growth: int) -> None:
        snapshot.data_bytes += growth * SECTOR_SIZE
        if block.entries:
            self.shadows.put(keys.block(ino, index), snapshot, block.pack())
        else:
            self.shadows.drop(keys.block(ino, index), snapshot)

    # -- inodes ------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Others may have been let in: nothing that was looked up of older snapshots holds any more."""
        self._sizes.clear()
        self.shadows.flush()

    def change_inode(self, ino: Ino, *, is_logged: bool = False) -> Inode:
        node = self._nodes.get(ino)
        if node is not None:
            return node
        self.begin()
        value = self.view.version(keys.inode(ino))
        if value is None or ino in self._nodes:
            raise Damaged(f"inode {ino} is missing in snapshot {self.snapshot.name}; run 'idemfs check'")
        node = inodes.unpack(value)
        self._insulate(keys.inode(ino))
        self._note_seen(ino)
        node.seen = self._seen(node.birth)
        self._before.setdefault(ino, value)
        self._nodes[ino] = node
        return node

    def _seen(self, birth: SnapshotId) -> SnapshotId:
        """The newest older snapshot that has a version of an inode that changes here."""
        older = self._older()
        return max(birth, older.id if older else NO_SNAPSHOT)

    def _note_seen(self, ino: Ino, birth: SnapshotId | None = None) -> None:
        """This snapshot is going to own a version of the inode: the next newer one knows the newest that does.

        When newer snapshots are gone it decides what is preserved here. ``birth``: of an inode that comes to be seen.
        """
        start, end = keys.shadow_range(keys.inode(ino), self.newer.snapshot)
        is_first = True
        while pairs := self.store.shadow.scan(start, end, 1 if birth is None else SCAN_COUNT):
            for key, value in pairs:
                if value != ABSENT:
                    self._note_version(key, inodes.unpack(value), is_first, birth)
                is_first = False
            if birth is None:
                break
            start = pairs[-1][0] + b"\0"
        self._active.note_seen(ino, self.snapshot.id if is_first else NO_SNAPSHOT, birth)

    def _note_version(self, shadow_key: bytes, node: Inode, is_first: bool, birth: SnapshotId | None) -> None:
        seen, born = node.seen, node.birth
        if is_first:
            node.seen = max(seen, self.snapshot.id)
        if birth is not None:
            node.birth = min(born, birth)
        if (node.seen, node.birth) != (seen, born):
            self.store.shadow.put(shadow_key, node.pack())

    def touch_atime(self, ino: Ino, atime: int) -> None:
        """Snapshots note no access times."""

    def insert_inode(self, ino: Ino, node: Inode, *, is_new: bool = False) -> None:
        """An inode that the snapshot does not see. Unless ``is_new``, newer ones may."""
        self.begin()
        self._insulate(keys.inode(ino))
        older = self._older()
        node.birth = older.id if older else NO_SNAPSHOT
        if not is_new:
            if older is not None and self.shadows.is_seen(ino, self.snapshot.id):
                node.birth = min(node.birth, self.shadows.birth(ino))
            self._note_seen(ino, node.birth)
            # Records of an inode that is not seen count for nothing; now they do.
            seen = self.view.records(*keys.ino_range(ino))
            self._delta += sum(digest.contribution(key, value) for key, value in seen)
        node.seen = self._seen(node.birth)
        self._before.setdefault(ino, None)
        self._nodes[ino] = node
        self.snapshot.inode_count += 1
        self.store.catalog.changed_fileset(self.snapshot.fileset)

    def remove_inode(self, ino: Ino, block_count: int = _NO_BLOCK) -> None:
        node = self.change_inode(ino)
        self.drop_blocks(ino, node, 0, block_count)
        self._delete_records(node, *keys.kind_range(ino, keys.ENTRY))
        self._delete_records(node, keys.kind_range(ino, keys.LINK)[0], keys.kind_range(ino, keys.XATTR)[1])
        self._nodes[ino] = None
        self._put_version(keys.inode(ino), None)
        self.snapshot.inode_count -= 1
        older = self._older()
        if older is None or not self._is_known_to_older(ino, older):
            self._drop_holes(ino)

    def _drop_holes(self, ino: Ino) -> None:
        """What the snapshot owns of the blocks of a file that neither it nor an older one sees: holes."""
        start, end = keys.kind_range(ino, keys.BLOCK)
        prefix = keys.owned(self.snapshot.id, b"")
        while pairs := self.store.owned.scan(prefix + start, prefix + end, SCAN_COUNT):
            for key, _ in pairs:
                self._release_map(key[8:])

    def _release_map(self, key: bytes) -> None:
        ino, index = keys.ino_of(key), keys.index_of(key)
        self._touch(ino, index)
        block = self._owned_map(ino, index, self.snapshot)
        for address, _ in block.entries.values():
            self.store.free(address)
            self.snapshot.data_bytes -= sector_count_of(address) * SECTOR_SIZE
        self.shadows.drop(key, self.snapshot)
        self.resolved.pop(ino, None)

    # -- entries, links, extended attributes ---------------------------------------------------------

    def add_record(self, key: bytes, value: bytes, node: Inode) -> None:
        self.put_record(key, value, node)

    def put_record(self, key: bytes, value: bytes, node: Inode) -> None:
        self._change_record(key, value)

    def delete_record(self, key: bytes, node: Inode) -> None:
        self._change_record(key, None)

    def _change_record(self, key: bytes, value: bytes | None) -> None:
        old = self.view.version(key)
        if old == value:
            return
        self._insulate(key)
        self._put_version(key, value)
        self._delta += digest.contribution(key, value) if value is not None else 0
        self._delta -= digest.contribution(key, old) if old is not None else 0
        self._is_changed = True

    def own_record(self, key: bytes) -> None:
        """Let the snapshot own a record that it sees through a ditto."""
        value = self.view.version(key)
        if value is not None and self.store.shadow.get(keys.shadow(key, self.snapshot.id)) is None:
            self._insulate(key)
            self.shadows.put(key, self.snapshot, value)
            self._is_changed = True

    def _put_version(self, key: bytes, value: bytes | None) -> None:
        """Let the snapshot see ``value``: through a ditto, if newer ones have that and would hand it down.

        That a record is absent, all hand down that are older than the one that says so.
        """
        if (value is None or self.may_ditto) and self.newer.version(key) == value:
            self.shadows.drop(key, self.snapshot)
        else:
            self.shadows.put(key, self.snapshot, ABSENT if value is None else value)

    # -- blocks ------------------------------------------------------------------------------------

    def set_block(self, ino: Ino, node: Inode, number: int, address: Address, checksum: int, change_start: int) -> None:
        node.sectors = max(0, node.sectors + self._replace(ino, number, (address, checksum), change_start))

    def drop_blocks(self, ino: Ino, node: Inode, first: int, last: int = _NO_BLOCK) -> None:
        """Blocks that the file has from number ``first`` on are not seen any more: the file ends before them."""
        for number in self.real_blocks(ino, first, last):
            node.sectors = max(0, node.sectors + self._replace(ino, number, None, number * self.store.block_size))

    def uncover(self, ino: Ino, node: Inode, end: int) -> None:
        """Before content of the file changes, and it grows up to ``end``: what newer ones have past its end is hidden.

        Bytes of its tail block past its end are zeroed, in a block of its own.
        """
        self.begin()
        # What is remembered of blocks past the end, and of holes in a tail, may be older than what is there.
        self.resolved.pop(ino, None)
        size, block_size = block_bytes(node), self.store.block_size
        self._trim_tail(ino, node, size)
        for number in self._real_numbers(ino, -(-size // block_size), -(-end // block_size)):
            self._replace(ino, number, (HOLE, 0), number * block_size)

    def covered_count(self, ino: Ino, node: Inode, end: int) -> int:
        """How many blocks ``uncover`` would hide: those past the end of the file that newer ones have."""
        start = -(-block_bytes(node) // self.store.block_size)
        self.resolved.pop(ino, None)
        return sum(1 for _ in self._real_numbers(ino, start, -(-end // self.store.block_size)))

    def hide(self, ino: Ino, end: int, count: int) -> None:
        """``uncover`` for the first ``count`` of these blocks. It shows nowhere, as long as the file does not grow."""
        node = self.change_inode(ino)
        self.resolved.pop(ino, None)
        block_size = self.store.block_size
        covered = self._real_numbers(ino, -(-block_bytes(node) // block_size), -(-end // block_size))
        for number in list(islice(covered, count)):
            self._replace(ino, number, (HOLE, 0), number * block_size)

    def _trim_tail(self, ino: Ino, node: Inode, size: int) -> None:
        number = size // self.store.block_size
        inside = state.tail_size(size, number, self.store.block_size)
        address, checksum = self.view.block(ino, number) if inside else (HOLE, 0)
        if not state.holds_more(address, inside):
            return
        content = self.store.data.read(address, checksum)
        if len(content) > inside:
            self.change_inode(ino)
            pair = self.store.data.write(content[:inside])
            self.set_block(ino, node, number, *pair, size)

    def follow(
        self, ino: Ino, node: Inode, target: Inode, target_view: View, indexes: Collection[int], ditto_size: int
    ) -> None:
        """Let the snapshot see the blocks of ``target``, as a newer one does; ``indexes``: where the two may differ.

        Their addresses are shared; where a ditto leads to them, that is enough inside of ``ditto_size``: what all
        between the two have of the file. What is past the end of one of them would not be handed down by it. Size and flags of
        ``node`` are the caller's to change, after this.
        """
        block_size = self.store.block_size
        size, target_size = block_bytes(node), block_bytes(target)
        self.resolved.pop(ino, None)
        span = INDIRECT_ENTRY_COUNT * block_size
        for index in self.view.map_indexes(ino, max(size, target_size), min(size, target_size) // span):
            self._touch(ino, index)
        bounds = _Bounds(-(-size // block_size), -(-target_size // block_size), -(-ditto_size // block_size))
        wanted_indexes = set(indexes)
        if bounds.first_unsafe < bounds.target:
            first = bounds.first_unsafe // INDIRECT_ENTRY_COUNT
            wanted_indexes.update(target_view.map_indexes(ino, target_size, first))
        for index in sorted(wanted_indexes):
            self._follow_map(ino, index, target_view.map(ino, index).copy(), bounds)
        if target_size < size:
            self.drop_blocks(ino, node, bounds.target)

    def _follow_map(self, ino: Ino, index: int, wanted: IndirectBlock, bounds: _Bounds) -> None:
        present, newer = self.view.map(ino, index).copy(), self.newer.map(ino, index).copy()
        for entry in range(max(len(wanted.addresses), len(present.addresses))):
            number = index * INDIRECT_ENTRY_COUNT + entry
            if number >= bounds.target:
                return
            pair = wanted.get(entry)
            if pair[0] != present.get(entry)[0]:
                is_ditto = number < bounds.ditto and newer.get(entry)[0] == pair[0]
            elif number >= bounds.first_unsafe and pair[0] != HOLE:
                if entry in self._owned_map(ino, index, self.snapshot).entries:
                    continue
                is_ditto = False
            else:
                continue
            if not is_ditto:
                self.store.space.share(pair[0])
            self._replace(ino, number, None if is_ditto else pair, number * self.store.block_size)

    def _replace(self, ino: Ino, number: int, new: rule.Pair | None, change_start: int) -> int:
        """Give the snapshot another block, or with None a ditto; by how many sectors that is more than before."""
        index, entry = divmod(number, INDIRECT_ENTRY_COUNT)
        self.begin_map(ino, index)
        own = self._owned_map(ino, index, self.snapshot)
        is_owned = entry in own.entries
        old = own.entries[entry] if is_owned else self.view.map(ino, index).get(entry)
        if new is not None and old[0] == HOLE == new[0]:
            return 0
        is_kept = self._pass_on(ino, index, entry, old, is_owned, change_start)
        growth = 0
        if is_owned:
            del own.entries[entry]
            growth -= sector_count_of(old[0])
            if not is_kept:
                self.store.free(old[0])
        if new is not None:
            own.entries[entry] = new
            growth += sector_count_of(new[0])
        if is_owned or new is not None:
            self._put_map(ino, index, self.snapshot, own, growth)
        self._forget_resolved(ino, index, entry, new, is_kept)
        return sector_count_of(new[0] if new else HOLE) - sector_count_of(old[0])

    def begin_map(self, ino: Ino, index: int) -> None:
        """An indirect block changes. The shadows that gather in memory are written, since some may be of this one."""
        self.shadows.flush()
        self._touch(ino, index)

    def _forget_resolved(self, ino: Ino, index: int, entry: int, new: rule.Pair | None, is_kept: bool) -> None:
        of_file = self.resolved.get(ino)
        if of_file is None:
            return
        found = of_file.get((self.snapshot.id, index))
        if new is None or found is None:
            of_file.pop((self.snapshot.id, index), None)
        else:
            found.set(entry, *new)
        if not is_kept:
            for key in [key for key in of_file if key[0] < self.snapshot.id and key[1] == index]:
                del of_file[key]

    # -- digest, and the end of an operation -----------------------------------------------------------

    def _touch(self, ino: Ino, index: int) -> None:
        if (ino, index) not in self._parts:
            value = self._before[ino]
            self._parts[ino, index] = 0 if value is None else self._part(ino, inodes.unpack(value), index)

    def _part(self, ino: Ino, node: Inode, index: int) -> int:
        """What an indirect block contributes to the digest."""
        if not block_bytes(node):
            return 0
        value = state.trimmed_map(self.store, self.view, ino, node, index).pack()
        return digest.contribution(keys.block(ino, index), value) if value else 0

    def flush(self) -> None:
        """Write what was changed into the open group."""
        if not self._nodes and not self._is_changed:
            return
        self.shadows.flush()
        delta = self._delta
        for (ino, index), before in self._parts.items():
            node = self._nodes.get(ino)
            delta += (0 if node is None else self._part(ino, node, index)) - before
        for ino, node in self._nodes.items():
            key, old = keys.inode(ino), self._before[ino]
            delta -= 0 if old is None else digest.contribution(key, old)
            if node is not None:
                value = node.pack()
                delta += digest.contribution(key, value)
                self.shadows.put(key, self.snapshot, value)
        self.snapshot.digest = (self.snapshot.digest + delta) & digest.MASK
        self.snapshot.guid = Guid(self.store.clock.random_bytes(16))
        self.store.catalog.changed(self.snapshot)
        self._forget()

    def _forget(self) -> None:
        self._nodes.clear()
        self._before.clear()
        self._parts.clear()
        self._sizes.clear()
        self._delta = 0
        self._is_changed = False


class _Bounds(NamedTuple):
    """Of the blocks of a file that follows another version: how many it has, will have, and may see through dittos."""

    present: int
    target: int
    ditto: int

    @property
    def first_unsafe(self) -> int:
        """From here on it comes to see blocks, and through no dittos."""
        return max(self.present, self.ditto)


class _Seen(Records):
    """The records that the snapshot sees, to be read; they are changed by ``Writing``."""

    __slots__ = ("_writing",)

    def __init__(self, writing: Writing) -> None:
        self._writing = writing

    def get(self, key: bytes) -> bytes | None:
        return self._writing.view.version(key)

    def scan(self, start: bytes, end: bytes, limit: int, reverse: bool = False) -> list[tuple[bytes, bytes]]:
        assert not reverse
        found: list[tuple[bytes, bytes]] = []
        at: bytes | None = start
        while at is not None and len(found) < limit:
            page, at = self._writing.view.page(at, end, limit)
            found += page
        return found[:limit]


class WritingView(View):
    """What the snapshot sees, also in the middle of an operation."""

    def __init__(self, writing: Writing) -> None:
        super().__init__(writing.view.active, writing.snapshot.id)
        self._writing = writing

    def inode(self, ino: Ino) -> Inode | None:
        return self._writing.inode(ino)
