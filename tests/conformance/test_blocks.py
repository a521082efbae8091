"""What every block engine promises (``engines.blocks.api``), asked of each of them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from idemfs.engines.blocks.api import Blocks
from idemfs.engines.blocks.local import LocalBlocks
from idemfs.engines.blocks.memory import MemoryBlocks
from idemfs.errors import NoSpace
from idemfs.limits import SECTOR_SIZE
from idemfs.testing.blocks import CrashingBlocks
from tests.conformance.disks import small_disk

SEGMENT_SECTORS = 16


def local(path: Path) -> LocalBlocks:
    return LocalBlocks(str(path), segment_size=SEGMENT_SECTORS * SECTOR_SIZE)


@pytest.fixture(params=["local", "memory", "crashing"])
def blocks(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Blocks]:
    engines: dict[str, Callable[[], Blocks]] = {
        "local": lambda: local(tmp_path / "blocks"),
        "memory": MemoryBlocks,
        "crashing": CrashingBlocks,
    }
    engine = engines[request.param]()
    yield engine
    engine.close()


@pytest.fixture(params=["local", "memory"])
def small_blocks(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Blocks]:
    """An engine with room for 256 sectors."""
    if request.param == "memory":
        yield MemoryBlocks(capacity_sectors=256)
        return
    with small_disk(tmp_path / "disk", 256 * SECTOR_SIZE) as disk:
        engine = local(disk / "blocks")
        yield engine
        engine.close()


@pytest.mark.parametrize(
    "size", [1, 511, SECTOR_SIZE, SECTOR_SIZE + 1, 128 << 10, 3 * SEGMENT_SECTORS * SECTOR_SIZE + 7]
)
@pytest.mark.parametrize("sector", [1, SEGMENT_SECTORS - 1, SEGMENT_SECTORS, 5 * SEGMENT_SECTORS + 3])
def test_what_was_written_is_read(blocks: Blocks, sector: int, size: int) -> None:
    data = random.Random(size).randbytes(size)
    blocks.reserve(sector, -(-size // SECTOR_SIZE))
    blocks.write(sector, data)
    assert blocks.read(sector, size) == data
    assert blocks.read(sector, size // 2) == data[: size // 2]
    blocks.sync()
    assert blocks.read(sector, size) == data


def test_any_kind_of_buffer_is_written(blocks: Blocks) -> None:
    data = random.Random(1).randbytes(3 * SECTOR_SIZE)
    view = memoryview(bytearray(b"front" + data))[5:]
    for sector, buffer in ((1, data), (11, bytearray(data)), (21, view)):
        blocks.write(sector, buffer)
        assert blocks.read(sector, len(data)) == data


def test_what_was_never_written_reads_as_zeros_or_as_less(blocks: Blocks) -> None:
    for sector, size in ((1, 10), (SEGMENT_SECTORS - 1, 9 * SECTOR_SIZE), (1000, SECTOR_SIZE)):
        assert bytes(size).startswith(blocks.read(sector, size))
    assert blocks.read(1, 0) == b""


def test_a_gap_before_the_next_segment_does_not_move_its_bytes(blocks: Blocks) -> None:
    blocks.write(SEGMENT_SECTORS, b"next")
    both = blocks.read(SEGMENT_SECTORS - 1, SECTOR_SIZE + 4)
    assert both == bytes(SECTOR_SIZE) + b"next"


def test_neighbours_are_left_alone(blocks: Blocks) -> None:
    rng = random.Random(2)
    model = {sector: rng.randbytes(SECTOR_SIZE) for sector in range(1, 3 * SEGMENT_SECTORS)}
    for sector, data in model.items():
        blocks.write(sector, data)
    for _ in range(100):
        sector, count = rng.randrange(1, 2 * SEGMENT_SECTORS), rng.randrange(1, SEGMENT_SECTORS)
        data = rng.randbytes(count * SECTOR_SIZE)
        blocks.write(sector, data)
        for index in range(count):
            model[sector + index] = data[index * SECTOR_SIZE : (index + 1) * SECTOR_SIZE]
    assert blocks.read(1, len(model) * SECTOR_SIZE) == b"".join(model[sector] for sector in sorted(model))


def test_reserving_again_changes_no_content(blocks: Blocks) -> None:
    blocks.reserve(1, 100)
    blocks.write(5, b"x" * SECTOR_SIZE)
    blocks.reserve(1, 200)
    assert blocks.read(5, SECTOR_SIZE) == b"x" * SECTOR_SIZE


def test_discarded_sectors_can_be_used_again_and_their_neighbours_stay(blocks: Blocks) -> None:
    size = 3 * SEGMENT_SECTORS * SECTOR_SIZE
    data = random.Random(3).randbytes(size)
    blocks.write(1, data)
    blocks.sync()
    used = blocks.used_bytes()
    assert used >= size
    # The second run crosses two segments, the last one was never there.
    blocks.discard([(3, 2), (SEGMENT_SECTORS - 1, SEGMENT_SECTORS + 4), (9 * SEGMENT_SECTORS, 5)])
    assert blocks.used_bytes() <= used - (2 + SEGMENT_SECTORS + 4) * SECTOR_SIZE
    for sector, count in ((1, 2), (5, SEGMENT_SECTORS - 6), (2 * SEGMENT_SECTORS + 3, SEGMENT_SECTORS - 2)):
        start = (sector - 1) * SECTOR_SIZE
        assert blocks.read(sector, count * SECTOR_SIZE) == data[start : start + count * SECTOR_SIZE]
    blocks.reserve(3, 2)
    blocks.write(3, data[: 2 * SECTOR_SIZE])
    assert blocks.read(3, 2 * SECTOR_SIZE) == data[: 2 * SECTOR_SIZE]


def test_the_host_says_what_it_has_left(blocks: Blocks) -> None:
    assert blocks.free_bytes() > SECTOR_SIZE


def test_what_is_reserved_is_free_no_longer(small_blocks: Blocks) -> None:
    before = small_blocks.free_bytes()
    small_blocks.reserve(1, 100)
    assert small_blocks.free_bytes() <= before - 100 * SECTOR_SIZE


def test_threads_write_read_discard_and_sync_at_once(blocks: Blocks) -> None:
    def work(worker: int) -> None:
        rng = random.Random(worker)
        first = 1 + worker * 50
        for _ in range(60):
            sector, count = first + rng.randrange(25), rng.randrange(1, 25)
            data = rng.randbytes(count * SECTOR_SIZE)
            blocks.reserve(sector, count)
            blocks.write(sector, data)
            if rng.random() < 0.1:
                blocks.sync()
            assert blocks.read(sector, len(data)) == data
            if rng.random() < 0.3:
                blocks.discard([(sector, count)])

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, range(4))) == [None] * 4


def test_a_full_host_is_said_so_and_has_room_again_after_a_discard(small_blocks: Blocks) -> None:
    small_blocks.reserve(1, 200)
    small_blocks.write(1, b"k" * SECTOR_SIZE)
    with pytest.raises(NoSpace):
        small_blocks.reserve(201, 100)
    assert small_blocks.read(1, SECTOR_SIZE) == b"k" * SECTOR_SIZE
    small_blocks.discard([(100, 101), (201, 100)])
    small_blocks.reserve(201, 100)
    data = random.Random(4).randbytes(100 * SECTOR_SIZE)
    small_blocks.write(201, data)
    small_blocks.sync()
    assert small_blocks.read(201, len(data)) == data


def test_writing_what_was_not_reserved_can_find_the_host_full(small_blocks: Blocks) -> None:
    small_blocks.reserve(1, 200)
    with pytest.raises(NoSpace):
        small_blocks.write(201, bytes(100 * SECTOR_SIZE))
    small_blocks.write(1, b"reserved" * 512)
    small_blocks.sync()
    assert small_blocks.read(1, 8) == b"reserved"


@pytest.mark.parametrize("engine", ["local", "crashing"])
def test_what_was_synced_is_there_after_opening_again(engine: str, tmp_path: Path) -> None:
    data = random.Random(5).randbytes(5 * SEGMENT_SECTORS * SECTOR_SIZE)
    blocks: Blocks = local(tmp_path / "blocks") if engine == "local" else CrashingBlocks()
    blocks.write(7, data)
    blocks.sync()
    blocks.close()
    blocks = blocks.crash(random.Random(6)) if isinstance(blocks, CrashingBlocks) else local(tmp_path / "blocks")
    assert blocks.read(7, len(data)) == data
    blocks.close()
