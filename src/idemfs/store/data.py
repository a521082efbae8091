"""Content of blocks to extents and back.

The *payload* of a block is its content without trailing zeros; a block of zeros is a
hole. The checksum is over the payload, so it does not depend on compression, and is
equal on every standby. A payload that does not have its checksum is never returned.

Threads: under the store's lock. Compression and checksums release the interpreter lock.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from xxhash import xxh3_64_intdigest

from idemfs.engines.blocks.api import Blocks
from idemfs.errors import DamagedBlock, NoSpace
from idemfs.format import address as addresses
from idemfs.format.address import HOLE
from idemfs.ids import Address
from idemfs.limits import BLOCK_CACHE_BYTES_MAX, SECTOR_SIZE
from idemfs.store.space import Space

if TYPE_CHECKING:
    import zstandard

_COMPRESSION_LEVEL = 1


class Data:
    """Reads and writes the blocks of one store."""

    def __init__(self, blocks: Blocks, space: Space, block_size: int, compress: bool) -> None:
        self._blocks = blocks
        self._space = space
        self._block_size = block_size
        self._compress = compress
        self._compressor: zstandard.ZstdCompressor | None = None
        self._decompressor: zstandard.ZstdDecompressor | None = None
        self._cache: OrderedDict[Address, bytes] = OrderedDict()
        self._cache_bytes = 0
        self.written_bytes = 0
        """What the open group wrote; it must be synced before the group commits."""

    def write(
        self,
        content: bytes | memoryview,
        extent: tuple[int, int] | None = None,
        *,
        frees: bool = False,
        compress: bool | None = None,
    ) -> tuple[Address, int]:
        """Store the content of one block; its address and checksum. Trailing zeros are not stored.

        ``extent`` (sector, count) was allocated for it before, in this group; what is not needed of it
        is given back, unless this fails. Raises ``OSError``, and ``NoSpace`` only without one.
        ``frees``: as for ``Space.allocate``. ``compress``: None for what the store does. A ``memoryview``, of bytes
        that nobody can change, is written from where it lies, and not kept in the cache: so are whole blocks of files
        that are written in order.
        """
        payload = content if len(content) and content[-1] else bytes(content).rstrip(b"\0")
        if not payload:
            if extent:
                self._space.give_back(*extent, 0)
            return HOLE, 0
        checksum = xxh3_64_intdigest(payload)
        stored = self._compressed(payload) if (self._compress if compress is None else compress) else None
        data = payload if stored is None else stored
        count = (len(data) + SECTOR_SIZE - 1) // SECTOR_SIZE
        sector = self._place(extent, count, frees)
        in_extent = extent is not None and sector == extent[0]
        try:
            self._blocks.write(sector, data)
        except OSError:
            if not in_extent:
                self._space.give_back(sector, count, 0)
            raise
        if extent:
            self._space.give_back(*extent, count if in_extent else 0)
        self.written_bytes += len(data)
        address = addresses.make(sector, len(data), stored is not None)
        if isinstance(payload, bytes):
            self._remember(address, payload)
        return address, checksum

    def _place(self, extent: tuple[int, int] | None, count: int, frees: bool) -> int:
        """Where to write so many sectors. An extent of which a part would stay over is left whole where there is
        room elsewhere: the parts of many small files are too short for the next blocks, and would never be used."""
        if extent is not None and count == extent[1]:
            return extent[0]
        try:
            return self._space.allocate(count, frees=frees)
        except NoSpace:
            if extent is None:
                raise
            return extent[0]

    def read(self, address: Address, checksum: int, *, keep: bool = True) -> bytes:
        """The payload at a real address or ``HOLE``. Raises ``DamagedBlock``.

        ``keep``: whether it is worth a place in the cache; it is not for who reads whole blocks, one after another.
        """
        if address == HOLE:
            return b""
        payload = self._cache.get(address)
        if payload is not None:
            self._cache.move_to_end(address)
            return payload
        payload = self.read_uncached(address, checksum)
        if keep:
            self._remember(address, payload)
        return payload

    def cached(self, address: Address) -> bytes | None:
        """The payload, if it is at hand."""
        return self._cache.get(address)

    def read_uncached(self, address: Address, checksum: int) -> bytes:
        """The payload as the block store has it now; for scrubbing, and for large transfers."""
        stored = self._blocks.read(addresses.sector_of(address), addresses.stored_size_of(address))
        return self.unpacked(address, checksum, stored)

    def read_stored(self, sector: int, size: int) -> bytes:
        """What the block store has there, of whomever it is; less where it ends."""
        return self._blocks.read(sector, size)

    def unpacked(self, address: Address, checksum: int, stored: bytes) -> bytes:
        """The payload of what is stored at a real address. Raises ``DamagedBlock``."""
        sector, payload = addresses.sector_of(address), stored
        if addresses.is_compressed(address):
            payload = self._decompressed(payload, sector)
        if xxh3_64_intdigest(payload) != checksum:
            raise DamagedBlock(f"the block at sector {sector} is damaged: its checksum is wrong")
        return payload

    def read_row(self, row: Sequence[tuple[Address, int]]) -> bytes:
        """The payloads of whole, uncompressed extents of one size, each right behind the one before."""
        size = addresses.stored_size_of(row[0][0])
        content = self._blocks.read(addresses.sector_of(row[0][0]), size * len(row))
        view = memoryview(content)
        for index, (address, checksum) in enumerate(row):
            if xxh3_64_intdigest(view[index * size : (index + 1) * size]) != checksum:
                sector = addresses.sector_of(address)
                raise DamagedBlock(f"the block at sector {sector} is damaged: its checksum is wrong")
        return content

    def forget(self, address: Address) -> None:
        """The extent is freed: its place may soon hold something else."""
        payload = self._cache.pop(address, None)
        if payload is not None:
            self._cache_bytes -= len(payload)

    def drop_cache(self) -> None:
        self._cache.clear()
        self._cache_bytes = 0

    def _remember(self, address: Address, payload: bytes) -> None:
        self._cache[address] = payload
        self._cache_bytes += len(payload)
        while self._cache_bytes > BLOCK_CACHE_BYTES_MAX:
            self._cache_bytes -= len(self._cache.popitem(last=False)[1])

    def _compressed(self, payload: bytes | memoryview) -> bytes | None:
        """``payload`` compressed, or None when that saves no sector."""
        if len(payload) <= SECTOR_SIZE:
            return None
        if self._compressor is None:
            import zstandard

            self._compressor = zstandard.ZstdCompressor(level=_COMPRESSION_LEVEL)
        stored = self._compressor.compress(payload)
        return stored if -(-len(stored) // SECTOR_SIZE) < -(-len(payload) // SECTOR_SIZE) else None

    def _decompressed(self, stored: bytes, sector: int) -> bytes:
        import zstandard

        if self._decompressor is None:
            self._decompressor = zstandard.ZstdDecompressor()
        try:
            # A frame that names its size is given that much memory, whatever the most is said to be.
            size = zstandard.get_frame_parameters(stored).content_size
            if self._block_size < size != zstandard.CONTENTSIZE_UNKNOWN:
                raise DamagedBlock(f"the block at sector {sector} is damaged: it names a size that no block has")
            return self._decompressor.decompress(stored, max_output_size=self._block_size)
        except zstandard.ZstdError as bad:
            raise DamagedBlock(f"the block at sector {sector} is damaged: it cannot be decompressed") from bad
