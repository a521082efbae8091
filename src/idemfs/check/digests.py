"""The digest and the number of inodes of every state, worked out anew in one pass over all records.

A version of a record is seen by a run of positions of the timeline, from the owner of the version
before it to its own owner; its contribution is added where the run begins and subtracted where it
ends. So the cost follows the records, and not the records times the snapshots.

Threads: under the store's lock.
"""

from __future__ import annotations

from collections.abc import Iterator

from xxhash import xxh3_64_intdigest

from idemfs.check import clones
from idemfs.check.context import Context, Span
from idemfs.check.findings import Finding, Kind
from idemfs.check.scans import Version, merged
from idemfs.errors import Damaged
from idemfs.format import digest, indirect, keys
from idemfs.format.address import HOLE
from idemfs.format.indirect import IndirectBlock, ShadowBlock
from idemfs.format.inode import ABSENT, Inode
from idemfs.format.tables import DELETING
from idemfs.ids import FilesetId, Ino
from idemfs.limits import INDIRECT_ENTRY_COUNT
from idemfs.versions import state

Run = tuple[int, int]
"""Positions from the first up to but not the second."""


class Digests:
    """All states of one fileset: its snapshots by position, and the active one after them."""

    def __init__(self, context: Context, fileset: FilesetId) -> None:
        self._context = context
        self._store = context.store
        self._fileset = fileset
        self._timeline = context.timelines[fileset]
        self._last = len(self._timeline.ids)
        self._changes = [0] * (self._last + 1)
        self._count_changes = [0] * (self._last + 1)
        self._active = digest.EMPTY
        self._active_count = 0
        self._ino = Ino(-1)
        self._spans: list[Span] = []
        self._damage: list[Finding] = []
        self._unknown: set[int] = set()
        """Positions whose digest cannot be worked out, since a tail block cannot be read."""

    def check(self) -> Iterator[Finding]:
        is_clone = self._context.filesets[self._fileset].origin is not None
        actives = clones.seen(self._context, self._fileset) if is_clone else None
        if is_clone:
            self._active, self._active_count = clones.active_sums(self._context, self._fileset)
        for key, versions, value in merged(self._store, *keys.fileset_range(self._fileset), actives):
            if value is not None and not is_clone:
                self._active += digest.contribution(key, value)
                self._active_count += key[8:9] == keys.INODE
            self._record(key, versions, value)
        yield from self._damage
        yield from self._compare()

    def _compare(self) -> Iterator[Finding]:
        fileset = self._context.filesets[self._fileset]
        where = f"fileset {fileset.name}"
        if self._active & digest.MASK != fileset.digest:
            yield Finding(Kind.DIGEST, where, _differ(fileset.digest, self._active))
        if self._active_count != fileset.inode_count:
            yield Finding(Kind.INODE_COUNT, where, f"says {fileset.inode_count} inodes; there are {self._active_count}")
        total = count = 0
        for position, snapshot in enumerate(self._timeline.snapshots):
            total += self._changes[position]
            count += self._count_changes[position]
            if snapshot.state == DELETING:
                continue
            where = f"snapshot {snapshot.name}"
            if total & digest.MASK != snapshot.digest and position not in self._unknown:
                yield Finding(Kind.DIGEST, where, _differ(snapshot.digest, total))
            if count != snapshot.inode_count:
                yield Finding(Kind.INODE_COUNT, where, f"says {snapshot.inode_count} inodes; there are {count}")

    def _record(self, key: bytes, versions: list[Version], value: bytes | None) -> None:
        ino = keys.ino_of(key)
        if ino != self._ino:
            self._ino = ino
            self._spans = self._context.spans(ino) if self._last else []
        if not self._spans:
            return
        kind = key[8:9]
        if kind == keys.BLOCK:
            self._map(key, versions, value)
            return
        start = 0
        for owner, version in versions:
            position = self._timeline.position(owner)
            if position is not None:
                if version != ABSENT:
                    self._add(key, version, (start, position + 1))
                start = position + 1
        if value is not None:
            self._add(key, value, (start, self._last))

    def _add(self, key: bytes, value: bytes, run: Run) -> None:
        """A record that positions ``run`` see, as far as they see its inode."""
        contribution = digest.contribution(key, value)
        is_inode = key[8:9] == keys.INODE
        for start, end, _ in self._seen(run):
            self._changes[start] += contribution
            self._changes[end] -= contribution
            if is_inode:
                self._count_changes[start] += 1
                self._count_changes[end] -= 1

    def _seen(self, run: Run) -> Iterator[tuple[int, int, Inode]]:
        for span in self._spans:
            start, end = max(run[0], span.start), min(run[1], span.end, self._last)
            if start < end:
                yield start, end, span.node

    def _map(self, key: bytes, versions: list[Version], value: bytes | None) -> None:
        """An indirect block, from the newest position to the oldest, filled up from version to version."""
        block = _unpacked(value)
        end = self._last
        for owner, version in reversed(versions):
            position = self._timeline.position(owner)
            if position is None:
                continue
            self._add_map(key, block, (position + 1, end))
            block = indirect.fold([_unpacked_shadow(version)], block)
            end = position + 1
        self._add_map(key, block, (0, end))

    def _add_map(self, key: bytes, block: IndirectBlock, run: Run) -> None:
        known: dict[tuple[int, int], int] = {}
        for start, end, node in self._seen(run):
            shape = self._shape(node, keys.index_of(key))
            if shape not in known:
                try:
                    value = self._trimmed(block, *shape).pack()
                except OSError as damaged:
                    self._unknown.update(range(start, end))
                    where = f"{self._context.path(self._ino)}, the tail block at {node.size} bytes"
                    self._damage.append(Finding(Kind.DATA, where, str(damaged.strerror)))
                    continue
                known[shape] = digest.contribution(key, value) if value else 0
            self._changes[start] += known[shape]
            self._changes[end] -= known[shape]

    def _shape(self, node: Inode, index: int) -> tuple[int, int]:
        """How many entries of an indirect block lie inside the file, and how many bytes of the last of them."""
        count = state.entry_count(self._store, node, index)
        if not count:
            return 0, 0
        last = index * INDIRECT_ENTRY_COUNT + count - 1
        return count, state.tail_size(node.size, last, self._store.block_size)

    def _trimmed(self, block: IndirectBlock, count: int, inside: int) -> IndirectBlock:
        """The entries inside the file; a tail block that holds more than the file counts as if it were cut."""
        trimmed = block.copy()
        del trimmed.addresses[count:], trimmed.checksums[count:]
        if 0 < count == len(trimmed.addresses) and inside < self._store.block_size:
            address, checksum = trimmed.get(count - 1)
            if state.holds_more(address, inside):
                content = self._store.data.read_uncached(address, checksum)[:inside].rstrip(b"\0")
                trimmed.set(count - 1, address if content else HOLE, xxh3_64_intdigest(content) if content else 0)
        return trimmed


def _unpacked(value: bytes | None) -> IndirectBlock:
    try:
        return IndirectBlock() if value is None else indirect.unpack(value)
    except Damaged:
        return IndirectBlock()


def _unpacked_shadow(value: bytes) -> ShadowBlock:
    try:
        return indirect.unpack_shadow(value)
    except Damaged:
        return ShadowBlock()


def _differ(said: int, found: int) -> str:
    return f"says digest {digest.to_text(said)}; its records have {digest.to_text(found & digest.MASK)}"
