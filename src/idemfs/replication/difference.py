"""What changed between two snapshots, as change records, without walking the tree.

Candidates are the records that snapshots from the base up to the target own; what they are at both
ends is resolved and compared, so that only real differences go out. Appended blocks are owned by no
snapshot: those past the base's end of the file are compared, too. Without a base everything is a difference.
The base may be the origin of a clone: then the candidates are all records that the clone itself has.

Invariant: a difference can stop after any record and go on from its cursor, also while snapshots between
the two ends are deleted. If an end itself is deleted, ``SnapshotMissing`` is raised.

Threads: the store's lock is held for one group of records, up to a bounded number of bytes.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from idemfs.errors import DamagedBlock, SnapshotMissing
from idemfs.format import inode as inodes
from idemfs.format import keys
from idemfs.format.indirect import IndirectBlock
from idemfs.format.inode import Inode
from idemfs.format.tables import COMPLETE, Snapshot
from idemfs.ids import Ino, Number, SnapshotId, make_ino, number_of
from idemfs.limits import INDIRECT_ENTRY_COUNT, SCAN_COUNT, STREAM_BATCH_BYTES
from idemfs.replication.codec import block_checksum
from idemfs.replication.records import (
    START,
    BlockChange,
    Change,
    Cursor,
    EntryChange,
    InodeChange,
    InodeRemoved,
    LinkChange,
    XattrChange,
)
from idemfs.snapshots.clones import is_origin
from idemfs.store.ahead import Ahead
from idemfs.store.store import Store
from idemfs.versions import rule, state
from idemfs.versions.origin import OriginView
from idemfs.versions.resolve import AFTER, View
from idemfs.vfs.tree import Tree

_GROUP_RECORD_COUNT_MAX = 2000
_CACHED_MAP_COUNT_MAX = 64
_PAGE_KEY_COUNT_MIN = 32


class Group(NamedTuple):
    """Some change records, and where to go on after them."""

    changes: list[Change]
    cursor: Cursor


def difference(tree: Tree, base: Snapshot | None, target: Snapshot, after: Cursor | None = None) -> Iterator[Group]:
    """The change records that make a store with ``base`` one with ``target``, in order, from ``after`` on.

    Raises ``SnapshotMissing``, ``DamagedBlock``.
    """
    store = tree.store
    cursor = after or START
    origin = None if base is None or base.fileset == target.fileset else base
    changes = _Difference(tree, base, target).changes(cursor)
    with store.lock:
        tree.active.settle()
    while True:
        with store.lock:
            for snapshot in (base, target):
                if snapshot is not None and snapshot.state != COMPLETE and snapshot is not origin:
                    raise SnapshotMissing(f"snapshot {snapshot.name} was deleted while its changes were looked up")
            if origin is not None and not is_origin(store, origin, target.fileset):
                raise SnapshotMissing("the clone was promoted while its changes were looked up; repeat the command")
            group: list[Change] = []
            size = 0
            for change in changes:
                group.append(change)
                size += len(change.payload) if isinstance(change, BlockChange) else 0
                if size >= STREAM_BATCH_BYTES or len(group) >= _GROUP_RECORD_COUNT_MAX:
                    break
        if not group:
            return
        cursor = cursor.after_all(group)
        yield Group(group, cursor)


class _Difference:
    """Generators that are advanced under the lock. Between two records anything may change but what snapshots see,
    so addresses are never kept from one record to the next."""

    def __init__(self, tree: Tree, base: Snapshot | None, target: Snapshot) -> None:
        self._tree = tree
        self._store = tree.store
        self._snapshot = target
        self._fileset = target.fileset
        self._block_size = tree.store.block_size
        self._target = View(tree.active, target.id)
        # Past the cache, which would soon hold nothing else.
        self._ahead = Ahead(tree.store.data)
        self._base: View | None = None
        self._is_clone = base is not None and base.fileset != target.fileset
        if self._is_clone:
            self._base = OriginView(tree.active, tree.store.catalog.filesets[target.fileset])
        elif base is not None:
            self._base = View(tree.active, base.id)

    def changes(self, after: Cursor) -> Iterator[Change]:
        start, end = keys.fileset_range(self._fileset)
        start = max(start, keys.ino_range(make_ino(self._fileset, after.number))[0])
        if self._base is None:
            yield from self._everything(start, end, after)
        else:
            yield from self._changed(self._base, start, after)

    # -- what was not there before -------------------------------------------------------------------

    def _everything(self, start: bytes, end: bytes, after: Cursor) -> Iterator[Change]:
        """All records that the target has in a range of keys."""
        current, is_seen = Ino(-1), False
        at: bytes | None = start
        while at is not None:
            pairs, at = self._target.page(at, end)
            for key, value in pairs:
                ino = keys.ino_of(key)
                is_inode = key[8:9] == keys.INODE
                if ino != current:
                    # Entries come before their directory's inode; anything else without one is nobody's.
                    found = value if is_inode else self._target.version(keys.inode(ino))
                    current, is_seen = ino, found is not None
                    if found is not None:
                        yield from self._created(ino, found, after)
                if is_seen and not is_inode:
                    yield _record(key, value)

    def _created(self, ino: Ino, value: bytes, after: Cursor) -> Iterator[Change]:
        first = _first_block(ino, after)
        if first < 0:
            yield InodeChange(number_of(ino), inodes.portable(value))
        node = inodes.unpack(value)
        if not _has_blocks(node):
            return
        first = max(0, first)
        if node.size <= self._block_size * INDIRECT_ENTRY_COUNT:
            # To read the only one that there can be costs less than to look whether it is there.
            indexes: Iterable[int] = (0,)
        else:
            indexes = self._target.map_indexes(ino, node.size, first // INDIRECT_ENTRY_COUNT)
        for index in indexes:
            block = state.trimmed_map(self._store, self._target, ino, node, index)
            numbers = [index * INDIRECT_ENTRY_COUNT + entry for entry, _, _ in block.real_entries()]
            for number in numbers:
                if number >= first:
                    yield self._block(ino, node, number)
            if index >= _CACHED_MAP_COUNT_MAX:
                # A long file would fill the cache of maps with what is not needed again.
                self._tree.active.resolved.pop(ino, None)

    # -- what may have changed -----------------------------------------------------------------------

    def _changed(self, base: View, start: bytes, after: Cursor) -> Iterator[Change]:
        made = _CloneKeys if self._is_clone else _ChangedKeys
        changed = made(self._store, base.snapshot, self._snapshot, start)
        while (key := changed.first()) is not None:
            ino = keys.ino_of(key)
            yield from self._changed_inode(base, ino, changed, after)
            changed.skip_to(keys.ino_range(ino)[1])

    def _changed_inode(self, base: View, ino: Ino, changed: _ChangedKeys, after: Cursor) -> Iterator[Change]:
        before, value = base.inode(ino), self._target.version(keys.inode(ino))
        first = _first_block(ino, after)
        if value is None:
            if before is not None:
                yield InodeRemoved(number_of(ino))
            return
        node = inodes.unpack(value)
        if before is not None and rule.is_born_after(node.birth, base.snapshot):
            if first < 0:
                yield InodeRemoved(number_of(ino))
            before = None
        if before is None:
            yield from self._everything(*keys.ino_range(ino), after)
            return
        if first < 0 and inodes.portable(before.pack()) != inodes.portable(value):
            yield InodeChange(number_of(ino), inodes.portable(value))
        if _has_blocks(node):
            yield from self._changed_blocks(base, ino, (before, node), changed, max(0, first))
        for key in changed.of(ino, (keys.ENTRY, keys.LINK, keys.XATTR)):
            value = self._target.version(key)
            if value != base.version(key):
                yield _record(key, value)

    def _changed_blocks(
        self, base: View, ino: Ino, ends: tuple[Inode, Inode], changed: _ChangedKeys, first: int
    ) -> Iterator[Change]:
        before, node = ends
        indexes = (keys.index_of(key) for key in changed.of(ino, (keys.BLOCK,)))
        # What was changed below the size that the base has is owned by a snapshot, what lies past it need not be.
        low = before.size if _has_blocks(before) else 0
        if low < node.size:
            low_index = low // self._block_size // INDIRECT_ENTRY_COUNT
            indexes = heapq.merge(indexes, self._target.map_indexes(ino, node.size, low_index))
        done = first // INDIRECT_ENTRY_COUNT - 1
        for index in indexes:
            if index <= done:
                continue
            done = index
            for number in self._changed_numbers(base, ino, ends, index):
                if number >= first:
                    yield self._block(ino, node, number)

    def _changed_numbers(self, base: View, ino: Ino, ends: tuple[Inode, Inode], index: int) -> list[int]:
        """Blocks of one indirect block, inside the file as the target has it, that are not what the base has."""
        before, node = ends
        wanted = state.trimmed_map(self._store, self._target, ino, node, index)
        present = IndirectBlock()
        if _has_blocks(before):
            present = state.trimmed_map(self._store, base, ino, before, index)
        count = min(state.entry_count(self._store, node, index), max(len(wanted.addresses), len(present.addresses)))
        start = index * INDIRECT_ENTRY_COUNT
        return [start + entry for entry in range(count) if wanted.get(entry) != present.get(entry)]

    # -- blocks --------------------------------------------------------------------------------------

    def _block(self, ino: Ino, node: Inode, number: int) -> BlockChange:
        address, checksum = self._target.block(ino, number)
        try:
            payload = self._ahead.read(address, checksum) if address else b""
        except DamagedBlock as damaged:
            path = self._tree.snapshot_reader(self._snapshot).path(ino).decode(errors="backslashreplace")
            raise DamagedBlock(
                f"{path}: block {number} is damaged in snapshot {self._snapshot.name} ({damaged.strerror}); "
                "restore the file from another snapshot or store, or remove it"
            ) from damaged
        inside = state.tail_size(node.size, number, self._block_size)
        if len(payload) > inside:
            payload = payload[:inside].rstrip(b"\0")
            checksum = block_checksum(payload)
        return BlockChange(number_of(ino), number, payload, checksum)


class _ChangedKeys:
    """Keys that snapshots from the base up to the target own, ascending, without doubles.

    They are fetched a page at a time, complete up to its end, and owners are asked for anew for each page: a
    snapshot that is deleted meanwhile hands its keys down to another one, and none is missed.
    """

    def __init__(self, store: Store, base: SnapshotId, target: Snapshot, start: bytes) -> None:
        self._store = store
        self._base = base
        self._target = target
        self._at: bytes | None = start
        self._page: list[bytes] = []
        """Descending."""

    def first(self) -> bytes | None:
        """The next key; it stays."""
        while not self._page and self._at is not None:
            self._fetch(self._at)
        return self._page[-1] if self._page else None

    def of(self, ino: Ino, kinds: tuple[bytes, ...]) -> Iterator[bytes]:
        """The next keys that belong to ``ino``, those of other kinds left out, up to one past these kinds."""
        while (key := self.first()) is not None and keys.ino_of(key) == ino and key[8:9] <= kinds[-1]:
            self._page.pop()
            if key[8:9] in kinds:
                yield key

    def skip_to(self, start: bytes) -> None:
        """Leave out keys below ``start``."""
        while self._page and self._page[-1] < start:
            self._page.pop()
        if not self._page and self._at is not None:
            self._at = max(self._at, start)

    def _fetch(self, at: bytes) -> None:
        owners = [
            snapshot.id
            for snapshot in self._store.catalog.all_snapshots(self._target.fileset)
            if self._base <= snapshot.id < self._target.id
        ]
        limit = max(_PAGE_KEY_COUNT_MIN, SCAN_COUNT // max(1, len(owners)))
        found: set[bytes] = set()
        bounds: list[bytes] = []
        for owner in owners:
            pairs = self._store.owned.scan(keys.owned(owner, at), keys.owned_range(owner)[1], limit)
            found.update(key[8:] for key, _ in pairs)
            if len(pairs) == limit:
                bounds.append(pairs[-1][0][8:])
        bound = min(bounds, default=None)
        self._page = sorted((key for key in found if bound is None or key <= bound), reverse=True)
        self._at = None if bound is None else bound + b"\0"


class _CloneKeys(_ChangedKeys):
    """Keys of the records, marks of absence among them, that a clone has itself, active or in any snapshot."""

    def _fetch(self, at: bytes) -> None:
        end = keys.fileset_range(self._target.fileset)[1]
        own = [key for key, _ in self._store.active.scan_own(at, end, SCAN_COUNT)]
        shadowed = [keys.shadow_parts(key)[0] for key, _ in self._store.shadow.scan(at, end, SCAN_COUNT)]
        bound = min((found[-1] for found in (own, shadowed) if len(found) == SCAN_COUNT), default=None)
        self._page = sorted((key for key in {*own, *shadowed} if bound is None or key <= bound), reverse=True)
        # Past all versions of the last one.
        self._at = None if bound is None else bound + AFTER


def _first_block(ino: Ino, after: Cursor) -> int:
    """The first block that is still to come; -1: the inode, too."""
    return after.block if number_of(ino) == after.number else -1


def _has_blocks(node: Inode) -> bool:
    return node.is_file and not node.is_inline


def _record(key: bytes, value: bytes | None) -> Change:
    """The change record of an entry, a link or an extended attribute."""
    number, kind = number_of(keys.ino_of(key)), key[8:9]
    if kind == keys.ENTRY:
        return EntryChange(number, key[keys.NAME_AT :], value)
    if kind == keys.XATTR:
        return XattrChange(number, key[keys.NAME_AT :], None if value is None else value[len(keys.PRESENT) :])
    return LinkChange(number, Number(int.from_bytes(key[9:17], "big")), key[17:], value is not None)
