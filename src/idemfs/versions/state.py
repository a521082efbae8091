"""A fileset's content as one snapshot, or the active file system, has it: tails trimmed, digests worked out anew.

The active file system never holds bytes past the size of a file; a snapshot may see
a tail block into which somebody newer has appended, so what it reads is cut at its size.

Threads: under the store's lock.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from idemfs.format import address as addresses
from idemfs.format import digest, keys
from idemfs.format import inode as inodes
from idemfs.format.address import HOLE
from idemfs.format.indirect import IndirectBlock
from idemfs.format.inode import Inode
from idemfs.ids import Address, FilesetId, Ino
from idemfs.limits import INDIRECT_ENTRY_COUNT, SCAN_COUNT
from idemfs.store.store import Store
from idemfs.versions import rule
from idemfs.versions.active import Active


class Records(Protocol):
    """What ``View`` and ``ActiveView`` have in common."""

    store: Store

    def inode(self, ino: Ino) -> Inode | None: ...
    def version(self, key: bytes) -> bytes | None: ...
    def records(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]: ...
    def page(self, start: bytes, end: bytes, limit: int = ...) -> tuple[list[tuple[bytes, bytes]], bytes | None]: ...
    def map_indexes(self, ino: Ino, size: int, first: int = 0) -> Iterator[int]: ...
    def file_map(self, ino: Ino, node: Inode, index: int) -> IndirectBlock: ...
    def block(self, ino: Ino, number: int) -> tuple[Address, int]: ...


class ActiveView:
    """The active file system with the methods of ``resolve.View``."""

    def __init__(self, active: Active) -> None:
        self.active = active
        self.store = active.store

    def inode(self, ino: Ino) -> Inode | None:
        return self.active.inode(ino)

    def version(self, key: bytes) -> bytes | None:
        if key[8:9] == keys.INODE:
            node = self.active.inode(keys.ino_of(key))
            return None if node is None else node.pack()
        return self.store.active.get(key)

    def page(self, start: bytes, end: bytes, limit: int = SCAN_COUNT) -> tuple[list[tuple[bytes, bytes]], bytes | None]:
        pairs = self.store.active.scan(start, end, limit)
        after = pairs[-1][0] + b"\0" if len(pairs) == limit else None
        return [pair for pair in pairs if pair[0][8:9] != keys.BLOCK], after

    def records(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        at: bytes | None = start
        while at is not None:
            found, at = self.page(at, end)
            yield from found

    def map_indexes(self, ino: Ino, size: int, first: int = 0) -> Iterator[int]:
        last = -(-size // (INDIRECT_ENTRY_COUNT * self.store.block_size))
        while indexes := self.active.map_indexes(ino, first, SCAN_COUNT):
            for index in indexes:
                if index >= last:
                    return
                yield index
            first = indexes[-1] + 1

    def file_map(self, ino: Ino, node: Inode, index: int) -> IndirectBlock:
        return self.active.map(ino, index).copy()

    def block(self, ino: Ino, number: int) -> tuple[Address, int]:
        return self.active.block(ino, number)


def tail_size(size: int, number: int, block_size: int) -> int:
    """How many bytes of block ``number`` lie inside a file of ``size`` bytes."""
    return max(0, min(block_size, size - number * block_size))


def holds_more(address: Address, inside: int) -> bool:
    """Whether the extent may hold more than its first ``inside`` bytes; a compressed one may always."""
    return addresses.is_real(address) and (
        addresses.is_compressed(address) or addresses.stored_size_of(address) > inside
    )


def payload(store: Store, node: Inode, number: int, address: Address, checksum: int) -> bytes:
    """The content of block ``number`` inside the file, without trailing zeros. Raises ``DamagedBlock``."""
    content = store.data.read(address, checksum)
    inside = tail_size(node.size, number, store.block_size)
    return content if len(content) <= inside else content[:inside].rstrip(b"\0")


def trimmed_map(store: Store, view: Records, ino: Ino, node: Inode, index: int) -> IndirectBlock:
    """``file_map`` with the checksum of the tail block as the file has it; reads the tail when it may be longer."""
    from xxhash import xxh3_64_intdigest

    block = view.file_map(ino, node, index)
    number = node.size // store.block_size
    if node.size % store.block_size and number // INDIRECT_ENTRY_COUNT == index:
        entry = number % INDIRECT_ENTRY_COUNT
        address, checksum = block.get(entry)
        if holds_more(address, tail_size(node.size, number, store.block_size)):
            content = payload(store, node, number, address, checksum)
            block.set(entry, address if content else HOLE, xxh3_64_intdigest(content) if content else 0)
    return block


def digest_of(view: Records, fileset: FilesetId) -> int:
    """The digest of all that ``view`` sees of a fileset, from its records; reads tail blocks, no other data."""
    total = digest.EMPTY
    current = Ino(-1)
    node: Inode | None = None
    for key, value in view.records(*keys.fileset_range(fileset)):
        ino = keys.ino_of(key)
        if ino != current:
            current, node = ino, view.inode(ino)
        if node is None:
            continue
        total += digest.contribution(key, value)
        if key[8:9] == keys.INODE:
            total += sum(_map_contributions(view, ino, inodes.unpack(value)))
    return total & digest.MASK


def _map_contributions(view: Records, ino: Ino, node: Inode) -> Iterable[int]:
    if not node.is_file or node.is_inline:
        return
    for index in view.map_indexes(ino, node.size):
        value = trimmed_map(view.store, view, ino, node, index).pack()
        if value:
            yield digest.contribution(keys.block(ino, index), value)


def entry_count(store: Store, node: Inode, index: int) -> int:
    """How many entries of the ``index``-th indirect block lie inside the file; 0 for what has no blocks."""
    if not node.is_file or node.is_inline:
        return 0
    return rule.entry_count(node.size, store.block_size, index * INDIRECT_ENTRY_COUNT, INDIRECT_ENTRY_COUNT)
