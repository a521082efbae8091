"""Whole blocks in a row are read at once, and are what they would be one by one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import idemfs

BLOCK = 4096


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_a_large_read_across_all_kinds_of_blocks(tmp_path: Path, compression: str) -> None:
    content = bytearray(os.urandom(40 * BLOCK + 100))
    with idemfs.create(tmp_path / "store", block_size=BLOCK, compression=compression) as fs:
        fs.write_bytes("/file", content)
        fs.sync()
        fs.punch_hole("/file", 5 * BLOCK, BLOCK)
        content[5 * BLOCK : 6 * BLOCK] = bytes(BLOCK)
        with fs.open("/file", "r+b", buffering=0) as file:
            for offset, data in (
                (9 * BLOCK, b"x" * BLOCK),
                (20 * BLOCK + 7, b"y" * 10),
                (30 * BLOCK, b"z" * 3 * BLOCK),
            ):
                file.seek(offset)
                file.write(data)
                content[offset : offset + len(data)] = data
            # One block waits in memory, changed to nothing but zeros.
            fs.punch_hole("/file", 25 * BLOCK, BLOCK - 1)
            file.seek(26 * BLOCK - 1)
            file.write(b"\0")
            content[25 * BLOCK : 26 * BLOCK] = bytes(BLOCK)
            for start in (0, 1, BLOCK, 3 * BLOCK + 5):
                file.seek(start)
                assert file.read(len(content)) == content[start:]
        fs.sync()
        assert fs.read_bytes("/file") == content


@pytest.mark.parametrize("zeros", [1, 2, 1000])
def test_a_read_that_is_as_long_as_what_is_stored_of_a_block_begins_where_it_was_asked_to(
    tmp_path: Path, zeros: int
) -> None:
    """Zeros at a block's end are not stored."""
    content = b"ab" * (BLOCK // 2) + b"cd" * (BLOCK // 2)
    content = content[: BLOCK - zeros] + bytes(zeros) + content[BLOCK:]
    with idemfs.create(tmp_path / "store", block_size=BLOCK, compression="none") as fs:
        fs.write_bytes("/file", content)
        fs.sync()
        with fs.open("/file", "rb", buffering=0) as file:
            file.seek(zeros)
            assert file.read(BLOCK - zeros) == content[zeros:BLOCK]
            file.seek(zeros)
            assert file.read() == content[zeros:]


def test_a_damaged_block_in_a_row_is_named(tmp_path: Path) -> None:
    content = os.urandom(40 * BLOCK)
    with idemfs.create(tmp_path / "store", block_size=BLOCK) as fs:
        fs.write_bytes("/file", content)
    segment = tmp_path / "store" / "blocks" / "00000000.seg"
    stored = bytearray(segment.read_bytes())
    at = stored.index(content[7 * BLOCK : 7 * BLOCK + 64])
    stored[at] ^= 1
    segment.write_bytes(stored)
    with idemfs.open(tmp_path / "store") as fs, pytest.raises(idemfs.errors.DamagedBlock, match=r"/file: block 7 "):
        fs.read_bytes("/file")
