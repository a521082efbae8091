"""What a snapshot sees: for each record the first version that it or a newer snapshot owns, else the active one.

One seek a record, however many snapshots there are. For indirect blocks the seek goes
on while wanted entries are dittos; the outcome is kept, since what a snapshot sees does
not change (``Active.resolved`` says when it must be dropped all the same).

Threads: under the store's lock.
"""

from __future__ import annotations

from collections.abc import Iterator

from idemfs.format import indirect, keys
from idemfs.format import inode as inodes
from idemfs.format.indirect import IndirectBlock, ShadowBlock
from idemfs.format.inode import ABSENT, Inode
from idemfs.ids import Address, FilesetId, Ino, SnapshotId
from idemfs.limits import INDIRECT_ENTRY_COUNT, RECORD_CACHE_COUNT_MAX, SCAN_COUNT
from idemfs.store.store import Store
from idemfs.versions import rule
from idemfs.versions.active import Active

Pair = tuple[bytes, bytes]

AFTER = b"\x01"
"""Key + this is past every shadow key of that key, and not past any longer name: names hold no NUL byte."""


class View:
    """The records of one snapshot, read-only."""

    def __init__(self, active: Active, snapshot: SnapshotId) -> None:
        self.active = active
        self.store: Store = active.store
        self.snapshot = snapshot

    def version(self, key: bytes) -> bytes | None:
        """The value of a record that is no indirect block; None when it is absent."""
        found = self.store.shadow.first(*keys.shadow_range(key, self.snapshot))
        if found is not None:
            return found[1] or None
        value = self.store.active.get(key)
        if value is not None and key[8:9] == keys.INODE and self._is_younger(value):
            return None
        return value

    def _is_younger(self, inode_value: bytes) -> bool:
        return rule.is_born_after(SnapshotId(int.from_bytes(inode_value[:8], "little")), self.snapshot)

    def inode(self, ino: Ino) -> Inode | None:
        value = self.version(keys.inode(ino))
        return None if value is None else inodes.unpack(value)

    def versions_of_map(self, ino: Ino, index: int) -> Iterator[ShadowBlock]:
        """Its shadows from this snapshot on, oldest first."""
        start, end = keys.shadow_range(keys.block(ino, index), self.snapshot)
        while pairs := self.store.shadow.scan(start, end, SCAN_COUNT):
            for _, value in pairs:
                yield indirect.unpack_shadow(value)
            if len(pairs) < SCAN_COUNT:
                return
            start = pairs[-1][0] + b"\0"

    def map(self, ino: Ino, index: int) -> IndirectBlock:
        """The ``index``-th indirect block, without dittos. What lies past the size of the file means nothing."""
        if self.store.active.beneath and keys.inode(ino)[:2] in self.store.active.beneath:
            # What a clone sees through its origin may be put elsewhere there, so it is not kept.
            return indirect.fold(self._with_open_shadow(ino, index), self.active.map(ino, index))
        resolved = self.active.resolved
        of_file = resolved.get(ino)
        if of_file is None:
            if len(resolved) >= RECORD_CACHE_COUNT_MAX:
                resolved.clear()
            of_file = resolved[ino] = {}
        found = of_file.get((self.snapshot, index))
        if found is None:
            # Entries of the active map that change are moved to the newest snapshot, and stay where they are.
            last = self.active.map(ino, index)
            found = indirect.fold(self._with_open_shadow(ino, index), last)
            if len(of_file) >= RECORD_CACHE_COUNT_MAX:
                of_file.clear()
            of_file[self.snapshot, index] = found
        return found

    def _with_open_shadow(self, ino: Ino, index: int) -> Iterator[ShadowBlock]:
        yield from self.versions_of_map(ino, index)
        open_shadow = self.active.shadows.open_block(ino, index)
        if open_shadow is not None:
            yield open_shadow

    def block(self, ino: Ino, number: int) -> tuple[Address, int]:
        return self.map(ino, number // INDIRECT_ENTRY_COUNT).get(number % INDIRECT_ENTRY_COUNT)

    def page(self, start: bytes, end: bytes, limit: int = SCAN_COUNT) -> tuple[list[Pair], bytes | None]:
        """Records with ``start <= key < end`` that the snapshot sees, ascending, indirect blocks left out.

        Returns them with the key to go on from, or None at the end. Between two calls anything may change
        but what the snapshot sees. Inodes born later are left out; other records of theirs are not.
        """
        seen: dict[bytes, bytes | None] = {}
        bounds: list[bytes] = []
        actives = self.store.active.scan(start, end, limit)
        if len(actives) == limit:
            bounds.append(actives[-1][0] + AFTER)
        for key, value in actives:
            younger = key[8:9] == keys.INODE and self._is_younger(value)
            seen[key] = None if younger else value
        shadows, shadow_bound = self._shadow_page(start, end, limit)
        if shadow_bound is not None:
            bounds.append(shadow_bound)
        seen.update(shadows)
        bound = min(bounds, default=None)
        found: list[Pair] = []
        for key in sorted(seen):
            value_seen = seen[key]
            if value_seen is not None and key[8:9] != keys.BLOCK and (bound is None or key < bound):
                found.append((key, value_seen))
        return found, bound

    def _shadow_page(self, start: bytes, end: bytes, limit: int) -> tuple[dict[bytes, bytes | None], bytes | None]:
        """Versions decided by shadows, and the key up to which (exclusive) they are complete; None: to the end."""
        pairs = self.store.shadow.scan(start, end, limit)
        decided: dict[bytes, bytes | None] = {}
        bound: bytes | None = None
        if len(pairs) == limit:
            bound = last = keys.shadow_parts(pairs[-1][0])[0]
            if keys.shadow_parts(pairs[0][0])[0] == last:
                # One record with more versions than fit a page: seek its own.
                own = self.store.shadow.first(*keys.shadow_range(last, self.snapshot))
                pairs = [own] if own else []
                bound = last + AFTER
        for shadow_key, value in pairs:
            key, owner = keys.shadow_parts(shadow_key)
            if key < start:
                # Ids begin with NUL bytes: after a key and one NUL the shadows of that same key come once more.
                continue
            if owner >= self.snapshot and key not in decided and (bound is None or key < bound):
                decided[key] = None if value == ABSENT else value
        return decided, bound

    def records(self, start: bytes, end: bytes) -> Iterator[Pair]:
        """All of ``page``, page by page."""
        at: bytes | None = start
        while at is not None:
            found, at = self.page(at, end)
            yield from found

    def map_indexes(self, ino: Ino, size: int, first: int = 0) -> Iterator[int]:
        """Indexes, from ``first`` on, of indirect blocks that may hold something of a file of ``size`` bytes."""
        span = INDIRECT_ENTRY_COUNT * self.store.block_size
        last = -(-size // span)
        at = first
        while at < last:
            start, end = keys.block(ino, at), keys.block(ino, last)
            shadow = self.store.shadow.first(start, end)
            candidates = self.active.map_indexes(ino, at, 1)
            if shadow is not None:
                candidates.append(keys.index_of(keys.shadow_parts(shadow[0])[0]))
            if not candidates or min(candidates) >= last:
                return
            at = min(candidates)
            yield at
            at += 1

    def file_map(self, ino: Ino, node: Inode, index: int) -> IndirectBlock:
        """``map`` without what lies past the size of the file; its tail block may still hold more than the file."""
        block = self.map(ino, index).copy()
        count = rule.entry_count(node.size, self.store.block_size, index * INDIRECT_ENTRY_COUNT, INDIRECT_ENTRY_COUNT)
        del block.addresses[count:], block.checksums[count:]
        return block

    def inos(self, fileset: FilesetId) -> Iterator[Ino]:
        """Every inode that the snapshot sees, ascending."""
        start, end = keys.fileset_range(fileset)
        at: bytes | None = start
        while at is not None:
            found, at = self.page(at, end)
            for key, _ in found:
                if key[8:9] == keys.INODE:
                    yield keys.ino_of(key)
