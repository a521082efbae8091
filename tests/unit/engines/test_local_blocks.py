"""What is special about local block files: segments, space, syncs, and what the host says when something fails."""

from __future__ import annotations

import errno
import os
import random
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from idemfs.engines import host
from idemfs.engines.blocks.local import LocalBlocks
from idemfs.errors import NoSpace, StoreMissing
from idemfs.limits import SECTOR_SIZE, SEGMENT_SIZE
from tests.conformance.disks import fds_of

SMALL = 64 * SECTOR_SIZE


def allocated(path: Path) -> int:
    return sum(file.stat().st_blocks * 512 for file in path.iterdir())


def test_an_extent_goes_on_in_the_next_segment(tmp_path: Path) -> None:
    blocks = LocalBlocks(str(tmp_path / "b"), segment_size=SMALL)
    data = random.Random(1).randbytes(3 * SMALL)
    blocks.write(32, data)
    names = [f"{number:08x}.seg" for number in range(4)]
    assert sorted(file.name for file in (tmp_path / "b").iterdir()) == names
    contents = b"".join((tmp_path / "b" / name).read_bytes() for name in names)
    assert contents == bytes(32 * SECTOR_SIZE) + data
    blocks.close()


def test_a_segment_is_as_large_as_the_limit_says_and_sparse(tmp_path: Path) -> None:
    blocks = LocalBlocks(str(tmp_path / "b"))
    blocks.write(SEGMENT_SIZE // SECTOR_SIZE - 1, b"last" * 1024 + b"next")
    assert (tmp_path / "b" / "00000000.seg").stat().st_size == SEGMENT_SIZE
    assert (tmp_path / "b" / "00000001.seg").stat().st_size == 4
    assert allocated(tmp_path / "b") <= 128 << 10
    blocks.close()


def test_reserved_space_is_taken_and_discarded_space_given_back(tmp_path: Path) -> None:
    blocks = LocalBlocks(str(tmp_path / "b"), segment_size=SMALL)
    blocks.reserve(1, 1000)
    assert blocks.used_bytes() == allocated(tmp_path / "b") >= 1000 * SECTOR_SIZE
    blocks.write(1, random.Random(2).randbytes(1000 * SECTOR_SIZE))
    blocks.sync()
    blocks.discard([(1, 400), (600, 401)])
    assert 199 * SECTOR_SIZE <= allocated(tmp_path / "b") <= 220 * SECTOR_SIZE
    assert blocks.used_bytes() == allocated(tmp_path / "b")
    blocks.close()


def test_reading_only(tmp_path: Path) -> None:
    with pytest.raises(StoreMissing):
        LocalBlocks(str(tmp_path / "b"), readonly=True)
    blocks = LocalBlocks(str(tmp_path / "b"))
    blocks.write(1, b"data")
    blocks.close()
    blocks = LocalBlocks(str(tmp_path / "b"), readonly=True)
    assert blocks.read(1, 4) == b"data"
    assert blocks.read(1 << 30, 4) == b""
    with pytest.raises(OSError) as refusal:
        blocks.write(1 << 30, b"data")
    assert refusal.value.errno == errno.EROFS
    with pytest.raises(OSError) as refusal:
        blocks.write(1, b"more")
    assert refusal.value.errno == errno.EBADF
    assert blocks.read(1, 4) == b"data"
    blocks.close()


def test_a_failed_sync_is_the_last_one(tmp_path: Path) -> None:
    """The host reports once what it could not write; a later sync that succeeds would be a lie."""
    blocks = LocalBlocks(str(tmp_path / "b"))
    blocks.write(1, b"data")
    (fd,) = fds_of(tmp_path / "b" / "00000000.seg")
    working = os.dup(fd)
    reading_end, writing_end = os.pipe()
    os.dup2(writing_end, fd)  # a pipe cannot be synced
    with pytest.raises(OSError, match="Invalid argument"):
        blocks.sync()
    os.dup2(working, fd)
    for descriptor in (working, reading_end, writing_end):
        os.close(descriptor)
    with pytest.raises(OSError, match="open the store again"):
        blocks.sync()
    with pytest.raises(OSError, match="open the store again"):
        blocks.write(2, b"more")
    with pytest.raises(OSError, match="open the store again"):
        blocks.reserve(2, 1)
    assert blocks.read(1, 4) == b"data"
    blocks.close()


def test_a_write_that_the_host_cuts_short_goes_on_and_ends_in_no_space(tmp_path: Path) -> None:
    blocks = LocalBlocks(str(tmp_path / "b"))
    data = random.Random(3).randbytes(8 * SECTOR_SIZE)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (6 * SECTOR_SIZE + 100, before[1]))
    try:
        with pytest.raises(NoSpace):
            blocks.write(1, data)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    # The part that fitted was written, so the first call was cut short.
    assert blocks.read(1, len(data)) == data[: 5 * SECTOR_SIZE + 100]
    blocks.write(1, data)
    assert blocks.read(1, len(data)) == data
    blocks.close()


def test_there_may_be_more_segments_than_open_files_at_first(tmp_path: Path) -> None:
    script = """
import resource, sys
from idemfs.engines import host
from idemfs.engines.blocks.local import LocalBlocks
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (40, hard))
blocks = LocalBlocks(sys.argv[1], segment_size=4096)
blocks.write(1, bytes(range(256)) * 16 * 60)
assert blocks.read(1, 4096 * 60) == bytes(range(256)) * 16 * 60
blocks.close()
"""
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "b")], check=True)
    assert len(list((tmp_path / "b").iterdir())) == 60


def test_closing_twice_is_closing_once(tmp_path: Path) -> None:
    blocks = LocalBlocks(str(tmp_path / "b"))
    blocks.write(1, b"data")
    blocks.close()
    blocks.close()
    assert fds_of(tmp_path / "b" / "00000000.seg") == []


def test_what_is_written_in_a_row_goes_to_the_disk_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[tuple[int, int]] = []
    start_writing = host.start_writing

    def noted(fd: int, offset: int, size: int) -> None:
        started.append((offset, size))
        start_writing(fd, offset, size)

    monkeypatch.setattr(host, "start_writing", noted)
    blocks = LocalBlocks(str(tmp_path / "b"))
    block, count = bytes(range(256)) * 512, 32
    for number in range(150):
        blocks.write(64 + number * count, block)
    # Two full rows of 8 MiB; the rest waits for the sync.
    assert started == [(64 * SECTOR_SIZE, 8 << 20), (64 * SECTOR_SIZE + (8 << 20), 8 << 20)]
    for number in range(150):
        blocks.write(100_000 - number * count, block)
    assert len(started) == 2
    assert all(blocks.read(64 + number * count, len(block)) == block for number in range(150))
    blocks.close()
