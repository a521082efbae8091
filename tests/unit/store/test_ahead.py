"""Rows of small blocks are fetched at once, and nobody gets what another one put there."""

from __future__ import annotations

import pytest

from idemfs.engines.blocks.memory import MemoryBlocks
from idemfs.errors import DamagedBlock
from idemfs.format import address as addresses
from idemfs.ids import Address
from idemfs.limits import SECTOR_SIZE
from idemfs.store.ahead import Ahead
from idemfs.store.data import Data
from tests.unit.store.test_data import new_data


class Counted(MemoryBlocks):
    """Blocks that count what is read of them. ``bad``: a sector that cannot be read."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[tuple[int, int]] = []
        self.bad: int | None = None

    def read(self, sector: int, size: int) -> bytes:
        self.reads.append((sector, size))
        if self.bad is not None and sector <= self.bad < sector - (-size // SECTOR_SIZE):
            raise OSError(5, "a bad sector")
        return super().read(sector, size)


COUNT = 20
CONTENTS = [bytes([1 + index]) * (SECTOR_SIZE - index) for index in range(COUNT)]


def filled() -> tuple[Data, Counted, list[tuple[Address, int]]]:
    """Blocks in a row, none of which is in the cache."""
    blocks = Counted()
    data, _ = new_data(blocks=blocks)
    places = [data.write(content) for content in CONTENTS]
    sectors = [addresses.sector_of(address) for address, _ in places]
    assert sectors == list(range(sectors[0], sectors[0] + COUNT))
    data.drop_cache()
    return data, blocks, places


def test_a_row_is_read_at_once() -> None:
    data, blocks, places = filled()
    ahead = Ahead(data)
    assert [ahead.read(*place) for place in places] == CONTENTS
    # The first, and with the second what lies behind it.
    assert len(blocks.reads) == 2


def test_those_that_lie_elsewhere_are_read_one_by_one() -> None:
    data, blocks, places = filled()
    ahead = Ahead(data)
    assert [ahead.read(*place) for place in reversed(places)] == CONTENTS[::-1]
    assert [size for _, size in blocks.reads] == [len(content) for content in reversed(CONTENTS)]


def test_what_has_come_to_a_place_since_it_was_fetched_is_read_anew() -> None:
    data, blocks, places = filled()
    ahead = Ahead(data)
    assert [ahead.read(*place) for place in places[:3]] == CONTENTS[:3]
    sector = addresses.sector_of(places[5][0])
    blocks.write(sector, CONTENTS[9])
    address = addresses.make(sector, len(CONTENTS[9]), False)
    assert ahead.read(address, places[9][1]) == CONTENTS[9]
    with pytest.raises(DamagedBlock):
        ahead.read(*places[5])


def test_a_neighbour_that_cannot_be_read_hinders_nobody() -> None:
    data, blocks, places = filled()
    blocks.bad = addresses.sector_of(places[7][0])
    ahead = Ahead(data)
    good = [place for index, place in enumerate(places) if index != 7]
    assert [ahead.read(*place) for place in good] == [each for each in CONTENTS if each is not CONTENTS[7]]
    with pytest.raises(OSError, match="a bad sector"):
        ahead.read(*places[7])


def test_what_is_in_the_cache_is_not_read() -> None:
    data, blocks, places = filled()
    data.read(*places[4])
    blocks.reads.clear()
    assert Ahead(data).read(*places[4]) == CONTENTS[4] and blocks.reads == []


def test_long_and_compressed_blocks() -> None:
    blocks = Counted()
    data, _ = new_data(compress=True, blocks=blocks)
    contents = [bytes([65 + index]) * (7 * SECTOR_SIZE) for index in range(3)]
    contents += [bytes(range(1, 256)) * 3 * index for index in range(1, 20)]
    places = [data.write(content) for content in contents]
    data.drop_cache()
    ahead = Ahead(data)
    assert [ahead.read(*place) for place in places] == contents
