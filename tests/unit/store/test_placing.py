"""Where blocks go that were allocated whole and are written in part."""

from __future__ import annotations

import pytest

from idemfs.engines.blocks.memory import MemoryBlocks
from idemfs.errors import NoSpace
from idemfs.format.address import sector_count_of, sector_of
from idemfs.limits import DIRTY_DATA_BYTES_MAX, RESERVE_SECTOR_COUNT, SECTOR_SIZE
from idemfs.testing.builders import assert_clean, make_file, memory_store, memory_tree

BLOCK = 128 << 10


def test_files_smaller_than_a_block_leave_no_gaps_that_nothing_fits_in() -> None:
    tree = memory_tree(block_size=BLOCK)
    size = 6000
    for index in range(3000):
        make_file(tree, tree.root, b"%d" % index, b"x" * size)
    tree.sync()
    used = 3000 * -(-size // SECTOR_SIZE) * SECTOR_SIZE
    slack = DIRTY_DATA_BYTES_MAX + 2 * BLOCK + 2 * RESERVE_SECTOR_COUNT * SECTOR_SIZE
    assert tree.store.space.sector_count * SECTOR_SIZE <= used + slack
    for index in range(3000, 6000):
        make_file(tree, tree.root, b"%d" % index, b"x" * size)
    tree.sync()
    assert tree.store.space.sector_count * SECTOR_SIZE <= 2 * used + slack
    assert_clean(tree)


def test_a_block_stays_where_it_was_allocated_when_there_is_no_other_room() -> None:
    store = memory_store(block_size=BLOCK, blocks=MemoryBlocks(capacity_sectors=100))
    with store.lock:
        store.admit(10, 10_000)
        extent = (store.space.allocate(BLOCK // SECTOR_SIZE), BLOCK // SECTOR_SIZE)
        with pytest.raises(NoSpace):
            while True:
                store.space.allocate(1)
        free_before = store.space.free_sectors()
        address, checksum = store.data.write(b"y" * 6000, extent)
        assert sector_of(address) == extent[0] and sector_count_of(address) == 2
        store.data.drop_cache()
        assert store.data.read(address, checksum) == b"y" * 6000
        assert store.space.free_sectors() == free_before + extent[1] - 2
