"""The blocks of the files of one snapshot that is written to; see ``writing``.

Invariant: what the snapshot owns names what it sees, and never a ditto in place of a hole that it made itself. Blocks
past the end of a file mean nothing, and belong to whoever is newer; ``uncover`` hides them before the file grows over
them.

Threads: under the store's lock.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import islice
from typing import NamedTuple

from idemfs.errors import Damaged
from idemfs.format import digest, keys
from idemfs.format import inode as inodes
from idemfs.format.address import HOLE, sector_count_of
from idemfs.format.indirect import IndirectBlock
from idemfs.format.inode import Inode
from idemfs.format.tables import Snapshot
from idemfs.ids import Address, Ino, SnapshotId
from idemfs.limits import INDIRECT_ENTRY_COUNT
from idemfs.versions import rule, state
from idemfs.versions.active import Active
from idemfs.versions.insulating import Insulating
from idemfs.versions.origin import size_beneath
from idemfs.versions.resolve import View
from idemfs.versions.shadows import MapKey, block_bytes

_NO_BLOCK = 1 << 62


class _Bounds(NamedTuple):
    """Of the blocks of a file that follows another version: how many it has whole, will have, may see by dittos."""

    present: int
    target: int
    ditto: int

    @property
    def first_unsafe(self) -> int:
        """From here on it comes to see blocks, and through no dittos."""
        return max(self.present, self.ditto)


class BlockWriting(Active):
    """Inodes that change, and their blocks."""

    def __init__(self, active: Active, snapshot: Snapshot) -> None:
        # Not by Active's: of that, only what is shared is wanted here, and none of its caches.
        self.store = active.store
        self.shadows = active.shadows
        self.resolved = active.resolved
        self.snapshot = snapshot
        self.view = View(active, snapshot.id)
        self.newer = View(active, SnapshotId(snapshot.id + 1))
        """What the snapshot would see of a record if it owned no version of it."""
        self._active = active
        self._filesets = active.store.catalog.filesets
        self._nodes: dict[Ino, Inode | None] = {}
        """Inodes that are being changed; None for one that was removed."""
        self._before: dict[Ino, bytes | None] = {}
        """What they were when that began."""
        self._parts: dict[MapKey, int] = {}
        """For each indirect block that changes, what it contributed to the digest."""
        self.insulating = Insulating(active, snapshot)

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

    def begin(self) -> None:
        """Others may have been let in: nothing that was looked up of older snapshots holds any more."""
        self.insulating.forget()
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
        self.insulating.record(keys.inode(ino))
        self.insulating.note_seen(ino)
        node.seen = self.insulating.seen(node.birth)
        self._before.setdefault(ino, value)
        self._nodes[ino] = node
        return node

    def set_block(self, ino: Ino, node: Inode, number: int, address: Address, checksum: int, change_start: int) -> None:
        node.sectors = max(0, node.sectors + self.replace(ino, number, (address, checksum), change_start))

    def drop_blocks(self, ino: Ino, node: Inode, first: int, last: int = _NO_BLOCK) -> None:
        """Blocks that the file has from number ``first`` on are not seen any more: the file ends before them."""
        for number in self.real_blocks(ino, first, last):
            node.sectors = max(0, node.sectors + self.replace(ino, number, None, number * self.store.block_size))

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
            self.replace(ino, number, (HOLE, 0), number * block_size)
        self._own_end_of_origin(ino, size, end)

    def _own_end_of_origin(self, ino: Ino, size: int, end: int) -> None:
        """A file of a clone grows past the end that its origin has: what is appended there later must not show here."""
        origin_size = size_beneath(self._active, ino)
        number, inside = divmod(origin_size, self.store.block_size)
        if not inside or not size <= origin_size < end:
            return
        index, entry = divmod(number, INDIRECT_ENTRY_COUNT)
        self.begin_map(ino, index)
        own = self.insulating.owned_map(ino, index, self.snapshot)
        if entry in own.entries:
            return
        pair = own.entries[entry] = self.view.block(ino, number)
        self.store.space.share(pair[0])
        self.insulating.put_map(ino, index, self.snapshot, own, sector_count_of(pair[0]))

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
            self.replace(ino, number, (HOLE, 0), number * block_size)

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
        between the two have of the file. What is past the end of one of them would not be handed down by it.
        Size and flags of ``node`` are the caller's to change, after this.
        """
        block_size = self.store.block_size
        size, target_size = block_bytes(node), block_bytes(target)
        self.resolved.pop(ino, None)
        span = INDIRECT_ENTRY_COUNT * block_size
        for index in self.view.map_indexes(ino, max(size, target_size), min(size, target_size) // span):
            self.touch(ino, index)
        count = -(-target_size // block_size)
        # Whole blocks: who has a part of one hands down, and lets others change, what is past that part.
        bounds = _Bounds(size // block_size, count, count if ditto_size >= target_size else ditto_size // block_size)
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
                if entry in self.insulating.owned_map(ino, index, self.snapshot).entries:
                    continue
                is_ditto = False
            else:
                continue
            if not is_ditto:
                self.store.space.share(pair[0])
            self.replace(ino, number, None if is_ditto else pair, number * self.store.block_size)

    def replace(self, ino: Ino, number: int, new: rule.Pair | None, change_start: int) -> int:
        """Give the snapshot another block, or with None a ditto; by how many sectors that is more than before."""
        index, entry = divmod(number, INDIRECT_ENTRY_COUNT)
        self.begin_map(ino, index)
        own = self.insulating.owned_map(ino, index, self.snapshot)
        is_owned = entry in own.entries
        old = own.entries[entry] if is_owned else self.view.map(ino, index).get(entry)
        if new is not None and old[0] == HOLE == new[0]:
            return 0
        is_kept = self.insulating.block(ino, index, entry, old, is_owned, change_start)
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
            self.insulating.put_map(ino, index, self.snapshot, own, growth)
        self._forget_resolved(ino, index, entry, new, is_kept)
        return sector_count_of(new[0] if new else HOLE) - sector_count_of(old[0])

    def begin_map(self, ino: Ino, index: int) -> None:
        """An indirect block changes. The shadows that gather in memory are written, since some may be of this one."""
        self.shadows.flush()
        self.touch(ino, index)

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

    def touch(self, ino: Ino, index: int) -> None:
        if (ino, index) not in self._parts:
            value = self._before[ino]
            self._parts[ino, index] = 0 if value is None else self.part(ino, inodes.unpack(value), index)

    def part(self, ino: Ino, node: Inode, index: int) -> int:
        """What an indirect block contributes to the digest."""
        if not block_bytes(node):
            return 0
        value = state.trimmed_map(self.store, self.view, ino, node, index).pack()
        return digest.contribution(keys.block(ino, index), value) if value else 0
