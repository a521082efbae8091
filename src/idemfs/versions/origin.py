"""What a clone sees of its origin: the records of a snapshot of another fileset, under the clone's own numbers.

Values name inodes by their numbers in the fileset, and keys differ in the number of the fileset alone, so a clone is
one record. An inode that is seen through has been there for all of the clone's snapshots: birth and seen are 0.

What the origin sees does not change. Where it is stored may: a tail block that somebody appends to
in the origin's fileset is put elsewhere, with more in it. So nothing of it is kept here but the sizes of files, and
a clone takes over the tail block of a file before it changes the file (``own_tail``).

Threads: under the store's lock.
"""

from __future__ import annotations

from collections.abc import Iterator

from idemfs.format import digest, indirect, keys
from idemfs.format.address import HOLE, is_real
from idemfs.format.indirect import IndirectBlock, PartialBlock
from idemfs.format.inode import Inode
from idemfs.format.tables import COMPLETE, SWEEPING, Fileset
from idemfs.ids import Ino, make_ino, number_of
from idemfs.limits import INDIRECT_ENTRY_COUNT, RECORD_CACHE_COUNT_MAX, SCAN_COUNT
from idemfs.versions import rule, state, through
from idemfs.versions.active import Active
from idemfs.versions.resolve import Pair, View

_UNSEEN = bytes(16)
"""Birth and seen of an inode that was there from the start."""
_PAGE_COUNT_MIN = 16
_NO_MAP = IndirectBlock()


class Source:
    """The origin of one clone; ``Beneath`` of its records."""

    def __init__(self, active: Active, clone: Fileset) -> None:
        origin = clone.origin
        assert origin is not None
        self._records = active.store.active
        self._store = active.store
        self._clone = clone.number.to_bytes(2, "big")
        self._fileset = origin.fileset
        self._prefix = origin.fileset.to_bytes(2, "big")
        self._next_number = 0 if origin.state == SWEEPING else origin.next_number
        self._view = View(active, origin.snapshot)
        self._sizes: dict[int, int] = {}

    def has_inode_number(self, ino: Ino) -> bool:
        return number_of(ino) < self._next_number

    def _is_beneath(self, key: bytes) -> bool:
        return int.from_bytes(key[2:8], "big") < self._next_number

    def get(self, key: bytes) -> bytes | None:
        if key[8:9] == keys.BLOCK or not self._is_beneath(key):
            return None
        value = self._view.version(self._prefix + key[2:])
        if value is not None and key[8:9] == keys.INODE:
            return _UNSEEN + value[16:]
        return value

    def absence(self, key: bytes) -> bytes | None:
        """What the clone's record must say when it goes, so that the origin's is not seen."""
        if not self._is_beneath(key):
            return None
        if key[8:9] == keys.BLOCK:
            # Also where the origin has nothing but holes: the last one may come to hold something past the end.
            size = self.file_size(keys.ino_of(key))
            start = keys.index_of(key) * INDIRECT_ENTRY_COUNT * self._store.block_size
            return indirect.NO_BLOCKS if start < size else None
        return None if self.get(key) is None else b""

    def scan(self, start: bytes, end: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        """What the clone sees, ascending; of indirect blocks, what it has itself."""
        found: list[tuple[bytes, bytes]] = []
        page_limit = max(limit, _PAGE_COUNT_MIN)
        while True:
            own = self._records.scan_own(start, end, page_limit)
            seen, bound = self.page(start, end, page_limit)
            if len(own) == page_limit:
                own_bound = own[-1][0] + b"\0"
                bound = own_bound if bound is None else min(bound, own_bound)
            merged = dict(seen)
            merged.update(own)
            for key in sorted(merged):
                if merged[key] and (bound is None or key < bound):
                    found.append((key, merged[key]))
            if bound is None or len(found) >= limit:
                return found[:limit]
            start = bound

    def page(self, start: bytes, end: bytes, limit: int) -> tuple[list[tuple[bytes, bytes]], bytes | None]:
        """As ``View.page``, without records of inodes that the origin does not see."""
        if not self._is_beneath(start.ljust(9, b"\0")):
            return [], None
        pairs, bound = self._view.page(self._prefix + start[2:], self._prefix + end[2:], limit)
        found = []
        ino, is_seen = b"", False
        for key, value in pairs:
            if key[:8] != ino:
                ino = key[:8]
                is_seen = self._is_beneath(key) and self._view.version(ino + keys.INODE) is not None
            if is_seen:
                seen = _UNSEEN + value[16:] if key[8:9] == keys.INODE else value
                found.append((self._clone + key[2:], seen))
        return found, None if bound is None else self._clone + bound[2:]

    # -- indirect blocks -----------------------------------------------------------------------------

    def _theirs(self, ino: Ino) -> Ino:
        return make_ino(self._fileset, number_of(ino))

    def file_size(self, ino: Ino) -> int:
        """Bytes of block content that the origin has of a file."""
        number = number_of(ino)
        size = self._sizes.get(number)
        if size is None:
            node = self._view.inode(self._theirs(ino)) if self.has_inode_number(ino) else None
            size = node.size if node is not None and node.is_file and not node.is_inline else 0
            if len(self._sizes) >= RECORD_CACHE_COUNT_MAX:
                self._sizes.clear()
            self._sizes[number] = size
        return size

    def map(self, ino: Ino, index: int) -> IndirectBlock:
        """Without what lies past the end of the file as the origin has it. Not to be changed."""
        size = self.file_size(ino)
        count = rule.entry_count(size, self._store.block_size, index * INDIRECT_ENTRY_COUNT, INDIRECT_ENTRY_COUNT)
        if not count:
            return _NO_MAP
        block = self._view.map(self._theirs(ino), index)
        if len(block.addresses) <= count:
            return block
        block = block.copy()
        del block.addresses[count:], block.checksums[count:]
        return block

    def map_indexes(self, ino: Ino, first: int, limit: int) -> Iterator[int]:
        return self._view.map_indexes(self._theirs(ino), self.file_size(ino), first)

    def _map_value(self, ino: Ino, index: int) -> bytes:
        """As a digest counts it: its tail block cut where the file ends."""
        node = self._view.inode(self._theirs(ino)) if self.file_size(ino) else None
        if node is None:
            return b""
        try:
            return state.trimmed_map(self._store, self._view, self._theirs(ino), node, index).pack()
        except OSError:
            # It is reported by who reads it, and by check; a group must not fail for it.
            return self.map(ino, index).copy().pack()

    def contribution(self, key: bytes, own: bytes | None) -> int:
        """What a record adds to the digest of the clone; ``own``: what the clone itself has of it."""
        if key[8:9] == keys.BLOCK:
            ino, index = keys.ino_of(key), keys.index_of(key)
            if own is None:
                value = self._map_value(ino, index)
            else:
                block = indirect.unpack_own(own)
                value = (block.over(self.map(ino, index)) if isinstance(block, PartialBlock) else block).pack()
        else:
            value = (self.get(key) if own is None else own) or b""
        return digest.contribution(key, value) if value else 0


class OriginView(View):
    """What the origin of a clone sees, under the clone's numbers: the state that the clone began with."""

    def __init__(self, active: Active, clone: Fileset) -> None:
        assert clone.origin is not None
        super().__init__(active, clone.origin.snapshot)
        self._clone = clone.number.to_bytes(2, "big")
        self._fileset = clone.origin.fileset
        self._prefix = clone.origin.fileset.to_bytes(2, "big")

    def version(self, key: bytes) -> bytes | None:
        return super().version(self._prefix + key[2:])

    def map(self, ino: Ino, index: int) -> IndirectBlock:
        return super().map(make_ino(self._fileset, number_of(ino)), index)

    def map_indexes(self, ino: Ino, size: int, first: int = 0) -> Iterator[int]:
        return super().map_indexes(make_ino(self._fileset, number_of(ino)), size, first)

    def page(self, start: bytes, end: bytes, limit: int = SCAN_COUNT) -> tuple[list[Pair], bytes | None]:
        pairs, bound = super().page(self._prefix + start[2:], self._prefix + end[2:], limit)
        found = [(self._clone + key[2:], value) for key, value in pairs]
        return found, None if bound is None else self._clone + bound[2:]


def learn(active: Active) -> None:
    """Let the clones of a store that was opened see through to their origins."""
    for number in active.store.catalog.clones:
        begin(active, active.store.catalog.filesets[number])


def begin(active: Active, clone: Fileset) -> None:
    """The fileset sees through to its origin from now on, if it is a clone that is not being deleted."""
    if clone.origin is not None and clone.state == COMPLETE:
        active.store.active.beneath[clone.number.to_bytes(2, "big")] = Source(active, clone)


def end(active: Active, clone: Fileset) -> None:
    """The fileset is what it has itself."""
    active.store.active.beneath.pop(clone.number.to_bytes(2, "big"), None)


def source(active: Active, clone: Fileset) -> Source:
    found = active.store.active.beneath[clone.number.to_bytes(2, "big")]
    assert isinstance(found, Source)
    return found


def size_beneath(active: Active, ino: Ino) -> int:
    """Bytes of block content that the origin of a clone has of a file; 0 where nothing is seen through an origin."""
    if not through.rests(active, ino):
        return 0
    return source(active, active.fileset(ino)).file_size(ino)


def own_tail(active: Active, ino: Ino, node: Inode, *, frees: bool = False) -> None:
    """Before content or size of a file changes: a clone takes over the last block, cut where the file ends.

    Only the first change can find it untaken; so what brings a file back to a state that the clone was in need not ask.
    Else what is appended to the file in the origin's fileset would show when the clone's file grows. No snapshot of the
    clone need keep anything: inside the file nothing changes. Raises ``NoSpace``, ``DamagedBlock``.
    """
    if not active.records.beneath or not node.is_file or node.is_inline or not through.rests(active, ino):
        return
    number = node.size // active.store.block_size
    inside = state.tail_size(node.size, number, active.store.block_size)
    seen_through = active.records.beneath[keys.inode(ino)[:2]]
    assert isinstance(seen_through, Source)
    if not inside or node.size != seen_through.file_size(ino):
        # Of another size it was changed before, and its tail may wait to be written.
        return
    index, entry = divmod(number, INDIRECT_ENTRY_COUNT)
    block = active.own_map(ino, index)
    if not isinstance(block, PartialBlock) or entry in block.entries:
        return
    origin = through.origin_map(active, ino, index)
    address, checksum = (HOLE, 0) if origin is None else origin.get(entry)
    if state.holds_more(address, inside):
        content = active.store.data.read(address, checksum)
        if len(content) > inside:
            cut = content[:inside].rstrip(b"\0")
            pair = active.store.data.write(cut, frees=frees) if cut else (HOLE, 0)
            through.own_block(active, block, ino, (index, entry), pair)
            return
    if is_real(address):
        active.store.space.share(address)
    through.own_block(active, block, ino, (index, entry), (address, checksum))
