"""Insulate: before a snapshot changes, the next older one gets what it saw through it, if it has no version of its own.

Threads: under the store's lock.
"""

from __future__ import annotations

from idemfs.format import indirect, keys
from idemfs.format import inode as inodes
from idemfs.format.address import sector_count_of
from idemfs.format.indirect import ShadowBlock
from idemfs.format.inode import ABSENT, Inode
from idemfs.format.tables import Snapshot
from idemfs.ids import NO_SNAPSHOT, Ino, SnapshotId
from idemfs.limits import INDIRECT_ENTRY_COUNT, SCAN_COUNT, SECTOR_SIZE
from idemfs.versions import rule
from idemfs.versions.active import Active
from idemfs.versions.resolve import View
from idemfs.versions.shadows import block_bytes


class Insulating:
    """The neighbours of ``snapshot``, which is going to change. Newer ones are told only which versions it has."""

    def __init__(self, active: Active, snapshot: Snapshot) -> None:
        self.store = active.store
        self.shadows = active.shadows
        self.snapshot = snapshot
        self._active = active
        self._sizes: dict[Ino, tuple[int, int]] = {}

    def forget(self) -> None:
        """Others may have been let in: nothing that was looked up of older snapshots holds any more."""
        self._sizes.clear()

    def older(self) -> Snapshot | None:
        return self.store.catalog.next_older(self.snapshot.fileset, self.snapshot.id)

    def record(self, key: bytes) -> None:
        """The next older snapshot gets what it sees of a record that is no indirect block, if it has no version."""
        older = self.older()
        if older is None or self.store.shadow.get(keys.shadow(key, older.id)) is not None:
            return
        if key[8:9] != keys.INODE and not self.is_known(keys.ino_of(key), older):
            return
        value = View(self._active, older.id).version(key)
        self.shadows.put(key, older, ABSENT if value is None else value)

    def is_known(self, ino: Ino, older: Snapshot) -> bool:
        """Whether any older snapshot sees the inode; else it sees no record of it either."""
        is_there = View(self._active, older.id).inode(ino) is not None
        return is_there or self.shadows.is_seen(ino, older.id)

    def block(self, ino: Ino, index: int, entry: int, pair: rule.Pair, is_owned: bool, change_start: int) -> bool:
        """Whether the next older snapshot took ``pair``, what it saw of a block: moved, or shared with its owner."""
        older = self.older()
        if older is None:
            return False
        kept_size, longest_size = self._older_sizes(ino, older)
        if not rule.keeps_block(change_start, kept_size):
            block_start = (index * INDIRECT_ENTRY_COUNT + entry) * self.store.block_size
            if not rule.keeps_block_for_older(pair[0], block_start, change_start, kept_size, longest_size):
                return False
        shadow = self.owned_map(ino, index, older)
        if entry in shadow.entries:
            return False
        if not is_owned:
            self.store.space.share(pair[0])
        shadow.entries[entry] = pair
        self.put_map(ino, index, older, shadow, sector_count_of(pair[0]))
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

    def owned_map(self, ino: Ino, index: int, snapshot: Snapshot) -> ShadowBlock:
        value = self.store.shadow.get(keys.shadow(keys.block(ino, index), snapshot.id))
        return ShadowBlock() if value is None else indirect.unpack_shadow(value)

    def put_map(self, ino: Ino, index: int, snapshot: Snapshot, block: ShadowBlock, growth: int) -> None:
        snapshot.data_bytes += growth * SECTOR_SIZE
        if block.entries:
            self.shadows.put(keys.block(ino, index), snapshot, block.pack())
        else:
            self.shadows.drop(keys.block(ino, index), snapshot)

    def seen(self, birth: SnapshotId) -> SnapshotId:
        """The newest older snapshot that has a version of an inode that changes here."""
        older = self.older()
        return max(birth, older.id if older else NO_SNAPSHOT)

    def note_seen(self, ino: Ino, birth: SnapshotId | None = None) -> None:
        """This snapshot is going to own a version of the inode: the next newer one knows the newest that does.

        When newer snapshots are gone it decides what is preserved here. ``birth``: of an inode that comes to be seen.
        """
        start, end = keys.shadow_range(keys.inode(ino), SnapshotId(self.snapshot.id + 1))
        is_first = True
        while pairs := self.store.shadow.scan(start, end, 1 if birth is None else SCAN_COUNT):
            for key, value in pairs:
                if value != ABSENT:
                    self._note_version(key, inodes.unpack(value), is_first, birth)
                is_first = False
            if birth is None:
                break
            start = pairs[-1][0] + b"\0"
        self._note_active(ino, self.snapshot.id if is_first else NO_SNAPSHOT, birth)

    def _note_active(self, ino: Ino, snapshot: SnapshotId, birth: SnapshotId | None) -> None:
        node = self._active.inode(ino)
        if node is None:
            return
        known = node.seen, node.birth
        node.seen = max(node.seen, snapshot)
        if birth is not None:
            node.birth = min(node.birth, birth)
        if (node.seen, node.birth) != known:
            # They are this store's own, as the time of access is: for that nothing is preserved.
            self._active.touch_atime(ino, node.atime)

    def _note_version(self, shadow_key: bytes, node: Inode, is_first: bool, birth: SnapshotId | None) -> None:
        seen, born = node.seen, node.birth
        if is_first:
            node.seen = max(seen, self.snapshot.id)
        if birth is not None:
            node.birth = min(born, birth)
        if (node.seen, node.birth) != (seen, born):
            self.store.shadow.put(shadow_key, node.pack())
