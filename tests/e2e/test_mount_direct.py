"""Files that are made and written by one program, past the kernel's pages, while others read, map and write them."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conformance.mounted import idemfs, missing, mounted
from tests.e2e.ending import kill

pytestmark = pytest.mark.skipif(missing() is not None, reason=missing() or "")

PIECE = bytes(range(256)) * 40
"""10,240 bytes, as tar writes: no piece but the first begins and ends with a page."""


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Path]:
    idemfs("init", tmp_path / "store")
    with mounted(tmp_path / "store", tmp_path / "mount") as directory:
        yield directory


@contextmanager
def made(path: Path, flags: int = 0) -> Iterator[int]:
    """A new file, open to be written only."""
    fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | flags, 0o644)
    try:
        yield fd
    finally:
        os.close(fd)


def test_a_reader_sees_at_once_what_is_written(at: Path) -> None:
    with made(at / "f") as fd:
        os.write(fd, b"a" * 9_000)
        with open(at / "f", "rb", buffering=0) as file:
            assert file.read() == b"a" * 9_000
            with mmap.mmap(file.fileno(), 9_000, prot=mmap.PROT_READ) as mapped:
                for number in range(50):
                    value = bytes([number]) * 10
                    os.pwrite(fd, value, 4_090)
                    assert os.pread(file.fileno(), 12, 4_089) == b"a" + value + b"a"
                    assert mapped[4_089:4_101] == b"a" + value + b"a"
            os.lseek(fd, 0, os.SEEK_END)
            os.write(fd, b"z" * 9_000)
            assert os.fstat(file.fileno()).st_size == 18_000
            assert os.pread(file.fileno(), 20_000, 8_999) == b"a" + b"z" * 9_000


def test_a_reader_that_has_gone_left_nothing_old(at: Path) -> None:
    with made(at / "f") as fd:
        os.write(fd, b"old" * 1_000)
        assert (at / "f").read_bytes() == b"old" * 1_000
        os.pwrite(fd, b"new", 300)
        assert (at / "f").read_bytes()[297:306] == b"oldnewold"
        os.truncate(at / "f", 301)
        assert (at / "f").read_bytes()[297:] == b"oldn"
        os.pwrite(fd, b"end", 310)
        assert (at / "f").read_bytes()[297:] == b"oldn" + bytes(9) + b"end"


def test_two_writers(at: Path) -> None:
    """The second one, which did not make the file, writes through the kernel's pages."""
    with made(at / "f") as fd, open(at / "f", "r+b", buffering=0) as other:
        for number in range(0, 100, 2):
            assert os.pwrite(fd, b"%04d" % number, number * 3_000) == 4
            assert os.pread(other.fileno(), 4, number * 3_000) == b"%04d" % number
            assert os.pwrite(other.fileno(), b"%04d" % (number + 1), (number + 1) * 3_000) == 4
        found = (at / "f").read_bytes()
    assert [found[at : at + 4] for at in range(0, 300_000, 3_000)] == [b"%04d" % number for number in range(100)]


def test_two_that_append(at: Path) -> None:
    with made(at / "f", os.O_APPEND) as fd:
        other = os.open(at / "f", os.O_WRONLY | os.O_APPEND)
        for number in range(100):
            os.write(fd if number % 3 else other, b"%04d\n" % number * 900)
        os.close(other)
    assert (at / "f").read_bytes() == b"".join(b"%04d\n" % number * 900 for number in range(100))


def test_what_the_kernel_copies_for_programs(at: Path) -> None:
    """sendfile, splice from a pipe, and buffers in several pieces that begin anywhere."""
    (at / "from").write_bytes(PIECE * 30)
    with made(at / "sent") as fd, open(at / "from", "rb") as source:
        while os.sendfile(fd, source.fileno(), None, 70_000):
            pass
    assert (at / "sent").read_bytes() == PIECE * 30
    read_end, write_end = os.pipe()
    with made(at / "spliced") as fd:
        for _ in range(5):
            os.write(write_end, PIECE)
            left = len(PIECE)
            while left:
                left -= os.splice(read_end, fd, left)
    os.close(read_end)
    os.close(write_end)
    assert (at / "spliced").read_bytes() == PIECE * 5
    whole = bytearray(PIECE * 400)
    with made(at / "pieces") as fd:
        view = memoryview(whole)
        assert os.writev(fd, [view[:1], view[1:5_000], view[5_000:3_000_001], view[3_000_001:]]) == len(whole)
    assert (at / "pieces").read_bytes() == whole


@pytest.mark.parametrize("how", ["O_SYNC", "O_DSYNC", "RWF_DSYNC", "fdatasync"])
def test_what_was_synced_outlives_the_server(tmp_path: Path, how: str) -> None:
    store, directory = tmp_path / "store", tmp_path / "mount"
    idemfs("init", store)
    directory.mkdir()
    idemfs("mount", store, directory)
    with made(directory / "f", {"O_SYNC": os.O_SYNC, "O_DSYNC": os.O_DSYNC}.get(how, 0)) as fd:
        for number in range(20):
            os.pwritev(fd, [PIECE], number * len(PIECE), os.RWF_DSYNC if how == "RWF_DSYNC" else 0)
            if how == "fdatasync":
                os.fdatasync(fd)
        kill(store)
    with mounted(store, directory):
        assert (directory / "f").read_bytes() == PIECE * 20


def test_a_piece_that_does_not_fit(at: Path, tmp_path: Path) -> None:
    """As through pages: what fitted is there, and the next piece is refused."""
    (at / "small").mkdir()
    idemfs("fileset", "create", tmp_path / "store", "/small")
    idemfs("fileset", "quota", tmp_path / "store", "small", "--bytes", "1MiB")
    with made(at / "small/f") as fd:
        written = 0
        with pytest.raises(OSError, match=r"quota|space"):
            while True:
                written += os.write(fd, PIECE)
        assert 500_000 < written < 1 << 20
        assert os.fstat(fd).st_size == written
    assert (at / "small/f").read_bytes() == (PIECE * 103)[:written]
