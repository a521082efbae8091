"""Content of blocks to extents and back: whole, checked, and in no more sectors than it needs."""

from __future__ import annotations

from random import Random

import pytest

from idemfs.engines.blocks.memory import MemoryBlocks
from idemfs.engines.kv.api import Table
from idemfs.engines.kv.memory import MemoryKV
from idemfs.errors import DamagedBlock, NoSpace
from idemfs.format import address as addresses
from idemfs.format.address import HOLE
from idemfs.limits import SECTOR_SIZE
from idemfs.store import data as data_module
from idemfs.store.data import Data
from idemfs.store.records import Records
from idemfs.store.space import Space
from idemfs.testing.blocks import FaultyBlocks
from idemfs.testing.faults import Faults, Kind

BLOCK_SIZE = 8 * SECTOR_SIZE


def new_data(compress: bool = False, blocks: MemoryBlocks | FaultyBlocks | None = None) -> tuple[Data, Space]:
    blocks = blocks or MemoryBlocks()
    space = Space(blocks, Records(MemoryKV(), Table.SMALL), 1)
    return Data(blocks, space, BLOCK_SIZE, compress), space


def contents() -> list[bytes]:
    rng = Random(4)
    sizes = [1, 511, SECTOR_SIZE, SECTOR_SIZE + 1, 3 * SECTOR_SIZE - 1, BLOCK_SIZE]
    noise = [rng.randbytes(size - 1) + b"\1" for size in sizes]
    text = [(b"the same line again and again\n" * BLOCK_SIZE)[:size] for size in sizes]
    return noise + text + [b"a" + bytes(BLOCK_SIZE - 2) + b"b"]


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("content", contents(), ids=len)
def test_what_was_written_is_read_without_its_trailing_zeros(content: bytes, compress: bool) -> None:
    data, _ = new_data(compress)
    address, checksum = data.write(content + bytes(BLOCK_SIZE - len(content)))
    assert data.read(address, checksum) == content
    data.drop_cache()
    assert data.read(address, checksum) == content
    assert data.read_uncached(address, checksum) == content


def test_a_block_of_zeros_is_a_hole_and_takes_nothing() -> None:
    data, space = new_data()
    assert data.write(bytes(BLOCK_SIZE)) == (HOLE, 0)
    assert data.read(HOLE, 0) == b""
    assert space.sector_count == 1
    assert data.written_bytes == 0


def test_compression_is_kept_only_when_it_saves_a_sector() -> None:
    data, _ = new_data(compress=True)
    for content in contents():
        address, _ = data.write(content)
        plain_count = -(-len(content) // SECTOR_SIZE)
        assert addresses.sector_count_of(address) <= plain_count
        assert addresses.is_compressed(address) == (addresses.sector_count_of(address) < plain_count)


def test_of_an_extent_that_was_allocated_before_only_what_is_needed_is_kept() -> None:
    data, space = new_data()
    for content, needed in ((b"x" * SECTOR_SIZE * 3, 3), (b"", 0), (b"x" * BLOCK_SIZE, 8)):
        free = space.free_sectors() + (0 if space.sector_count > 1 else 2048)
        extent = (space.allocate(8), 8)
        address, _ = data.write(content, extent)
        assert addresses.sector_count_of(address) == needed
        assert space.free_sectors() == free - needed


@pytest.mark.parametrize("compress", [False, True])
def test_a_flipped_bit_is_never_returned_as_data(compress: bool) -> None:
    blocks = MemoryBlocks()
    data, _ = new_data(compress, blocks)
    content = b"0123456789abcdef" * (BLOCK_SIZE // 16)
    address, checksum = data.write(content)
    sector, size = addresses.sector_of(address), addresses.stored_size_of(address)
    stored = blocks.read(sector, size)
    for place in sorted(Random(1).sample(range(size), min(size, 60))):
        for bit in (1, 128):
            changed = bytearray(stored)
            changed[place] ^= bit
            blocks.write(sector, changed)
            with pytest.raises(DamagedBlock):
                data.read_uncached(address, checksum)
    blocks.discard([(sector, 1)])
    with pytest.raises(DamagedBlock):
        data.read_uncached(address, checksum)


def test_what_decompresses_to_more_than_a_block_is_damaged() -> None:
    import zstandard

    blocks = MemoryBlocks()
    data, space = new_data(True, blocks)
    bomb = zstandard.ZstdCompressor().compress(bytes(100 * BLOCK_SIZE))
    sector = space.allocate(1)
    blocks.write(sector, bomb)
    with pytest.raises(DamagedBlock):
        data.read_uncached(addresses.make(sector, len(bomb), True), 1)


def test_a_freed_place_does_not_answer_with_what_was_there_before() -> None:
    data, space = new_data()
    address, _ = data.write(b"old")
    data.forget(address)
    space.free(address)
    again = address
    while (found := data.write(b"new"))[0] != address:
        again = found[0]
        assert addresses.sector_of(again) < 10_000
    assert data.read(*found) == b"new"


def test_the_cache_stays_within_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_module, "BLOCK_CACHE_BYTES_MAX", 3 * BLOCK_SIZE)
    data, space = new_data()
    written = [data.write(bytes([number]) * BLOCK_SIZE) for number in range(1, 9)]
    for number, (address, checksum) in enumerate(written, 1):
        assert data.read(address, checksum) == bytes([number]) * BLOCK_SIZE
    assert data._cache_bytes == sum(map(len, data._cache.values())) <= 3 * BLOCK_SIZE
    for address, _ in written:
        data.forget(address)
        space.free(address)
    assert data._cache_bytes == 0


def test_a_write_that_fails_takes_no_space() -> None:
    faults = Faults()
    data, space = new_data(blocks=FaultyBlocks(MemoryBlocks(), faults))
    data.write(b"first")
    free = space.free_sectors()
    faults.add(Kind.WRITE)
    with pytest.raises(OSError, match="fault on order"):
        data.write(b"second")
    assert space.free_sectors() == free
    extent = (space.allocate(8), 8)
    faults.add(Kind.WRITE)
    with pytest.raises(OSError, match="fault on order"):
        data.write(b"third", extent)
    address, checksum = data.write(b"third", extent)
    assert data.read_uncached(address, checksum) == b"third"
    assert space.free_sectors() == free - 1


def test_no_space_is_said_before_anything_is_written() -> None:
    data, space = new_data(blocks=MemoryBlocks(capacity_sectors=10))
    kept = data.write(b"x" * BLOCK_SIZE)
    with pytest.raises(NoSpace):
        data.write(b"y" * BLOCK_SIZE)
    assert data.read_uncached(*kept) == b"x" * BLOCK_SIZE
    assert data.read_uncached(*data.write(b"small")) == b"small"
    assert space.sector_count <= 11
