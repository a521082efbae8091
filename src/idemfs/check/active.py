"""The active records: each decodes, belongs to an inode, and the blocks of a file agree with its inode.

Threads: under the store's lock.
"""

from __future__ import annotations

from collections.abc import Iterator

from idemfs.check import clones, records
from idemfs.check.context import Context
from idemfs.check.extents import Extents, sectors_of
from idemfs.check.filesets import check_usage
from idemfs.check.findings import Finding, Kind
from idemfs.check.scans import pairs
from idemfs.errors import Damaged
from idemfs.format import address as addresses
from idemfs.format import entry, keys
from idemfs.format.address import HOLE
from idemfs.format.indirect import IndirectBlock, PartialBlock
from idemfs.format.inode import Inode
from idemfs.ids import Address, Ino, fileset_of, number_of
from idemfs.limits import INDIRECT_ENTRY_COUNT
from idemfs.versions.state import tail_size


class ActiveRecords:
    """One pass over the active table.

    ``extents`` is given what files own; ``partial`` are filesets that are between two states, whose files may be
    half received. Compressed tail blocks are read only with ``read_data``.
    """

    def __init__(self, context: Context, extents: Extents, partial: frozenset[int], read_data: bool) -> None:
        self._context = context
        self._extents = extents
        self._partial = partial
        self._read_data = read_data
        self._block_size = context.store.block_size
        self._inline_size = context.store.superblock.inline_size
        self._ino = Ino(-1)
        self._node: Inode | None = None
        self._sectors = 0
        self._last_block = -1
        self._tail = (HOLE, 0)
        self._used: dict[int, list[int]] = {}
        """Of each fileset, sectors of extents and bytes of records."""

    def check(self) -> Iterator[Finding]:
        unknown: set[int] = set()
        for key, value in pairs(self._context.store.active):
            fileset = int.from_bytes(key[:2], "big")
            if fileset not in self._context.filesets:
                if fileset not in unknown:
                    unknown.add(fileset)
                    yield Finding(Kind.FILESET, f"fileset {fileset}", "has records and does not exist")
                continue
            used = self._used.setdefault(fileset, [0, 0])
            used[1] += len(key) + len(value)
            if clones.is_mark(self._context, key, value):
                continue
            if keys.ino_of(key) != self._ino:
                yield from self._end()
                yield from self._begin(key)
            try:
                records.check_key(key, self._block_size)
                self._record(key, value)
            except Damaged as damaged:
                yield Finding(Kind.RECORD, self._context.record(key), str(damaged))
        yield from self._end()
        for number, fileset_record in self._context.filesets.items():
            yield from check_usage(fileset_record, *self._used.get(number, (0, 0)))

    def _record(self, key: bytes, value: bytes) -> None:
        match keys.kind_of(key):
            case keys.INODE:
                records.decode_inode(key, value, self._inline_size)
            case keys.BLOCK:
                self._block(keys.index_of(key), records.decode_own_map(value))
            case keys.ENTRY:
                entry.unpack(value)
            case _:
                records.check_present(key, value)

    def _block(self, index: int, block: IndirectBlock | PartialBlock) -> None:
        if isinstance(block, PartialBlock):
            if not clones.rests(self._context, self._ino):
                raise Damaged("says that it is as in an origin, and there is none")
            block = block.over(None)
            block.trim()
        self._extents.add(block.addresses, block.checksums)
        sectors = sectors_of(block.addresses)
        self._sectors += sectors
        self._used[fileset_of(self._ino)][0] += sectors
        if block.addresses:
            self._last_block = index * INDIRECT_ENTRY_COUNT + len(block.addresses) - 1
            self._tail = (Address(block.addresses[-1]), block.checksums[-1])

    def _begin(self, key: bytes) -> Iterator[Finding]:
        self._ino = keys.ino_of(key)
        self._sectors, self._last_block = 0, -1
        self._node = self._context.inode(self._ino)
        if self._node is None:
            if self._context.is_going(fileset_of(self._ino)):
                return
            if self._context.store.active.get(keys.inode(self._ino)) is None:
                what = "is missing, and other records of it exist"
                yield Finding(Kind.INODE, self._context.number(self._ino), what)
            return
        fileset = fileset_of(self._ino)
        next_number = self._context.filesets[fileset].next_number
        if number_of(self._ino) >= next_number and fileset not in self._partial:
            what = f"has number {number_of(self._ino)}, and the next one to be given is {next_number}"
            yield Finding(Kind.FILESET, self._context.path(self._ino), what)
        yield from self._seen(self._node)

    def _seen(self, node: Inode) -> Iterator[Finding]:
        """``birth`` and ``seen`` decide what is preserved, so that a wrong one loses data later."""
        timeline = self._context.timelines[fileset_of(self._ino)]
        where = self._context.path
        if max(node.birth, node.seen) >= self._context.state.next_snapshot or node.seen < node.birth:
            what = f"its birth is {node.birth} and it was seen by {node.seen}: no such snapshots can have been"
            yield Finding(Kind.SEEN, where(self._ino), what)
            return
        newest = timeline.newest
        if not newest or timeline.is_going(len(timeline.ids) - 1):
            return
        has_shadow = self._context.store.shadow.get(keys.shadow(keys.inode(self._ino), newest)) is not None
        if has_shadow != (node.seen >= newest):
            name = self._context.snapshot(fileset_of(self._ino), newest)
            what = (
                f"says that it was seen by snapshot number {node.seen}; {name} has {'a' if has_shadow else 'no'} shadow"
            )
            yield Finding(Kind.SEEN, where(self._ino), what)

    def _end(self) -> Iterator[Finding]:
        node = self._node
        if node is None:
            return
        self._node = None
        if self._context.is_going(fileset_of(self._ino)):
            return
        if clones.sectors_differ(self._context, self._ino, node, self._sectors):
            what = f"says that it has {node.sectors} sectors of data; it has {self._sectors}"
            yield Finding(Kind.SECTORS, self._context.path(self._ino), what)
        if self._last_block < 0 or fileset_of(self._ino) in self._partial:
            return
        what = past_end(node, self._last_block, self._block_size) or self._tail_past_end(node)
        if what:
            yield Finding(Kind.PAST_END, self._context.path(self._ino), what)

    def _tail_past_end(self, node: Inode) -> str:
        """What is wrong when the last block holds more than its file."""
        inside = tail_size(node.size, self._last_block, self._block_size)
        address, checksum = self._tail
        held = addresses.stored_size_of(address)
        if addresses.is_compressed(address):
            if not self._read_data or inside == self._block_size:
                return ""
            try:
                held = len(self._context.store.data.read_uncached(address, checksum))
            except OSError:
                # Damaged: reported with all others that are.
                return ""
        return f"its last block holds {held} bytes, of which {inside} are inside the file" if held > inside else ""


def past_end(node: Inode, last_block: int, block_size: int) -> str:
    """What is wrong with an inode that has block ``last_block``; empty when nothing is."""
    if not node.is_file:
        return "has blocks and is no regular file"
    if node.is_inline:
        return "has blocks and is inline"
    if last_block * block_size >= node.size:
        return f"has block {last_block}, which lies past its end at byte {node.size}"
    return ""
