"""Preserve: what the newest snapshot is about to lose moves into its own version of the record, its shadow.

Shadows of indirect blocks gather in memory while the group is open, since a file that is
overwritten touches them block by block; all others are records at once.

Threads: under the store's lock.
"""

from __future__ import annotations

from collections.abc import Iterator

from idemfs.errors import Damaged
from idemfs.format import indirect, keys
from idemfs.format import inode as inodes
from idemfs.format.address import sector_count_of
from idemfs.format.indirect import ShadowBlock
from idemfs.format.inode import ABSENT, Inode
from idemfs.format.tables import DELETING, Snapshot
from idemfs.ids import NO_SNAPSHOT, Ino, SnapshotId, fileset_of
from idemfs.limits import INDIRECT_ENTRY_COUNT, SCAN_COUNT, SECTOR_SIZE
from idemfs.store.store import Store
from idemfs.versions import rule

MapKey = tuple[Ino, int]


class Shadows:
    """The versions that snapshots own."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._filesets = store.catalog.filesets
        self._blocks: dict[MapKey, ShadowBlock] = {}
        self._changed_blocks: dict[MapKey, SnapshotId] = {}
        self._kept_sizes: dict[Ino, int] = {}
        self._longest_sizes: dict[Ino, int] = {}
        self.is_rolling_back = False
        """What goes came after the newest snapshot, or was purged from it: nobody sees it, and nothing is kept."""

    def newest(self, ino: Ino) -> SnapshotId:
        return self._filesets[fileset_of(ino)].newest

    def _snapshot(self, ino: Ino, snapshot: SnapshotId) -> Snapshot:
        return self.store.catalog.snapshot(fileset_of(ino), snapshot)

    def put(self, key: bytes, snapshot: Snapshot, value: bytes) -> None:
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

    def drop(self, key: bytes, snapshot: Snapshot) -> None:
        """``snapshot`` owns no version of ``key`` any more; the extents that it named are the caller's care."""
        shadow_key = keys.shadow(key, snapshot.id)
        old = self.store.shadow.get(shadow_key)
        if old is not None:
            if key[8:9] == keys.BLOCK:
                self._blocks.pop((keys.ino_of(key), keys.index_of(key)), None)
            snapshot.record_bytes -= len(shadow_key) + len(old)
            self.store.shadow.put(shadow_key, None)
            self.store.owned.put(keys.owned(snapshot.id, key), None)
            self.store.catalog.changed(snapshot)

    def preserve(self, key: bytes, birth: SnapshotId, old: bytes | None) -> None:
        """Before an entry, link or extended attribute of an inode with this birth changes from ``old``."""
        newest = self._filesets[keys.fileset_of(key)].newest
        if self.is_rolling_back or not rule.keeps_record(birth, newest):
            return
        if self.store.shadow.get(keys.shadow(key, newest)) is None:
            self.put(key, self._snapshot(keys.ino_of(key), newest), ABSENT if old is None else old)

    def preserve_inode(self, ino: Ino, node: Inode) -> None:
        """Before ``node`` changes."""
        newest = self.newest(ino)
        if rule.keeps_inode(node.birth, node.seen, newest):
            self.put(keys.inode(ino), self._snapshot(ino, newest), node.pack())
            node.seen = newest

    def mark_absent(self, ino: Ino) -> None:
        """The newest snapshot, if any, remembers that the inode was not there."""
        newest = self.newest(ino)
        key = keys.inode(ino)
        if newest and self.store.shadow.get(keys.shadow(key, newest)) is None:
            self.put(key, self._snapshot(ino, newest), ABSENT)

    def drop_absent(self, key: bytes) -> None:
        """A record that came and went since the newest snapshot leaves no trace in it."""
        ino = keys.ino_of(key)
        newest = self.newest(ino)
        if newest and self.store.shadow.get(keys.shadow(key, newest)) == ABSENT:
            self.drop(key, self._snapshot(ino, newest))

    def birth(self, ino: Ino) -> SnapshotId:
        """The birth of an inode that comes back, or under whose number snapshots see another one: that one's birth.

        Its records stand where theirs have dittos, so they are preserved as if it had never gone. Else it is born now.
        """
        for _, version in self._versions(ino):
            if version is not None:
                return version.birth
        return self.newest(ino)

    def is_seen(self, ino: Ino, older_than: SnapshotId) -> bool:
        """Whether a snapshot older than this one has a version of the inode, other than that it was absent."""
        return any(version is not None and owner < older_than for owner, version in self._versions(ino))

    def largest_size(self, ino: Ino, older_than: SnapshotId) -> int:
        """The most bytes of block content that a version of the file has, of those that older snapshots own."""
        return max((block_bytes(version) for owner, version in self._versions(ino) if owner < older_than), default=0)

    def _versions(self, ino: Ino) -> Iterator[tuple[SnapshotId, Inode | None]]:
        """Owner and version, None for absent; oldest first."""
        start, end = keys.shadow_range(keys.inode(ino), NO_SNAPSHOT)
        while pairs := self.store.shadow.scan(start, end, SCAN_COUNT):
            for key, value in pairs:
                yield keys.shadow_parts(key)[1], None if value == ABSENT else inodes.unpack(value)
            start = pairs[-1][0] + b"\0"

    def take_block(self, ino: Ino, node: Inode, index: int, entry: int, pair: rule.Pair, change_start: int) -> bool:
        """Whether the newest snapshot took over ``pair``, what an entry has been, where it had a ditto."""
        newest = self.newest(ino)
        if self.is_rolling_back or not rule.keeps_record(node.birth, newest):
            return False
        kept_size = self._kept_size(ino, newest)
        if not rule.keeps_block(change_start, kept_size):
            block_start = (index * INDIRECT_ENTRY_COUNT + entry) * self.store.block_size
            longest_size = self._longest_size(ino, newest)
            if not rule.keeps_block_for_older(pair[0], block_start, change_start, kept_size, longest_size):
                return False
        shadow = self._block(ino, index, newest)
        if entry in shadow.entries:
            return False
        shadow.entries[entry] = pair
        self._changed_blocks[ino, index] = newest
        self._snapshot(ino, newest).data_bytes += sector_count_of(pair[0]) * SECTOR_SIZE
        return True

    def _kept_size(self, ino: Ino, newest: SnapshotId) -> int:
        """Bytes of block content that the newest snapshot sees of a file; its shadow inode exists."""
        size = self._kept_sizes.get(ino)
        if size is None:
            value = self.store.shadow.get(keys.shadow(keys.inode(ino), newest))
            if value is None:
                if self._snapshot(ino, newest).state != DELETING:
                    raise Damaged(f"inode {ino} changes without a shadow in snapshot {newest}; run 'idemfs check'")
                # It was handed down already: what older ones see is kept, and handed down in its turn.
                size = self._kept_sizes[ino] = self._longest_size(ino, newest)
                return size
            size = self._kept_sizes[ino] = block_bytes(None if value == ABSENT else inodes.unpack(value))
        return size

    def _longest_size(self, ino: Ino, newest: SnapshotId) -> int:
        """As ``_kept_size``, of all snapshots."""
        size = self._longest_sizes.get(ino)
        if size is None:
            size = self._longest_sizes[ino] = self.largest_size(ino, SnapshotId(newest + 1))
        return size

    def _block(self, ino: Ino, index: int, newest: SnapshotId) -> ShadowBlock:
        shadow = self._blocks.get((ino, index))
        if shadow is None:
            value = self.store.shadow.get(keys.shadow(keys.block(ino, index), newest))
            shadow = ShadowBlock() if value is None else indirect.unpack_shadow(value)
            self._blocks[ino, index] = shadow
        return shadow

    def open_block(self, ino: Ino, index: int) -> ShadowBlock | None:
        """What the open group has moved into the newest snapshot, if anything."""
        return self._blocks[ino, index] if (ino, index) in self._changed_blocks else None

    @property
    def is_changed(self) -> bool:
        return bool(self._changed_blocks)

    def flush(self) -> None:
        """Write the gathered shadows into the open group."""
        for (ino, index), newest in self._changed_blocks.items():
            self.put(keys.block(ino, index), self._snapshot(ino, newest), self._blocks[ino, index].pack())
        self._changed_blocks.clear()
        self.forget()

    def forget(self, ino: Ino | None = None) -> None:
        """Nothing that is kept of the newest snapshot's versions holds any more; of ``ino``, or of all."""
        assert not self._changed_blocks
        if ino is None:
            self._blocks.clear()
            self._kept_sizes.clear()
            self._longest_sizes.clear()
        else:
            self._kept_sizes.pop(ino, None)
            self._longest_sizes.pop(ino, None)


def block_bytes(node: Inode | None) -> int:
    """How much of a file's content stands in blocks. Directories have none, but count their entries as size."""
    return node.size if node is not None and node.is_file and not node.is_inline else 0
