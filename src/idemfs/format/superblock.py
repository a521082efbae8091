"""The first file of a store, written once by ``init``, last of all, so that it marks a complete store.

Layout (little-endian), 96 bytes::

    magic "idemfs\\r\\n"(8) version(4) compatible(8) incompatible(8) guid(16)
    block size(4) inline size(4) entry count(4) compression(1) created ns(8) zero(23) xxh3(8)

``compatible`` features may be ignored by a reader that does not know them;
an unknown ``incompatible`` one means: do not open.
"""

from __future__ import annotations

from struct import Struct

from idemfs.errors import Damaged, FormatTooNew
from idemfs.ids import Guid
from idemfs.limits import BLOCK_SIZE_MAX, BLOCK_SIZE_MIN, INDIRECT_ENTRY_COUNT

MAGIC = b"idemfs\r\n"
VERSION = 1
INCOMPATIBLE_KNOWN = 0
COMPRESSION_NONE, COMPRESSION_ZSTD = 0, 1
SIZE = 96

_LAYOUT = Struct("<8sIQQ16sIIIBq23s")


class Superblock:
    """Plain, since ``typing`` takes long to import, and listing snapshots reads this first."""

    __slots__ = (
        "block_size",
        "compatible",
        "compression",
        "created_ns",
        "entry_count",
        "guid",
        "incompatible",
        "inline_size",
        "version",
    )

    def __init__(
        self,
        guid: Guid,
        block_size: int,
        inline_size: int,
        entry_count: int,
        compression: int,
        created_ns: int,
        version: int = VERSION,
        compatible: int = 0,
        incompatible: int = 0,
    ) -> None:
        self.guid = guid
        self.block_size = block_size
        self.inline_size = inline_size
        self.entry_count = entry_count
        self.compression = compression
        self.created_ns = created_ns
        self.version = version
        self.compatible = compatible
        self.incompatible = incompatible


def pack(block: Superblock) -> bytes:
    from xxhash import xxh3_64_intdigest

    body = _LAYOUT.pack(
        MAGIC,
        block.version,
        block.compatible,
        block.incompatible,
        block.guid,
        block.block_size,
        block.inline_size,
        block.entry_count,
        block.compression,
        block.created_ns,
        bytes(23),
    )
    return body + xxh3_64_intdigest(body).to_bytes(8, "little")


def unpack(value: bytes) -> Superblock:
    """Raises ``FormatTooNew`` or ``Damaged``."""
    from xxhash import xxh3_64_intdigest

    if value[:8] != MAGIC:
        raise Damaged("this is no idemfs superblock")
    version = int.from_bytes(value[8:12], "little")
    if version > VERSION:
        raise FormatTooNew(f"the store has format {version}; this idemfs reads up to {VERSION}: install a newer one")
    if len(value) != SIZE or xxh3_64_intdigest(value[:-8]) != int.from_bytes(value[-8:], "little"):
        raise Damaged("the superblock is damaged: its checksum is wrong; copy it from a backup of the store")
    _, version, compatible, incompatible, guid, block_size, inline, entries, compression, created, _ = _LAYOUT.unpack(
        value[:-8]
    )
    if incompatible & ~INCOMPATIBLE_KNOWN:
        raise FormatTooNew(
            f"the store uses features {incompatible & ~INCOMPATIBLE_KNOWN:#x} that this idemfs does not know: "
            "install a newer one"
        )
    if not BLOCK_SIZE_MIN <= block_size <= BLOCK_SIZE_MAX or block_size & (block_size - 1):
        raise Damaged(f"the superblock names a block size of {block_size}")
    if entries != INDIRECT_ENTRY_COUNT or compression not in (COMPRESSION_NONE, COMPRESSION_ZSTD):
        raise FormatTooNew(
            f"the store has indirect blocks of {entries} entries and compression {compression}, "
            "which this idemfs does not know: install a newer one"
        )
    return Superblock(Guid(guid), block_size, inline, entries, compression, created, version, compatible, incompatible)
