"""What is special about LMDB: its file, its map, its readers, and the room that a commit takes."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import lmdb
import pytest

from idemfs.engines.kv.api import Table
from idemfs.engines.kv.lmdb_engine import LmdbKV
from idemfs.engines.kv.lmdb_space import Shape, page_count_max
from idemfs.errors import Damaged, NoSpace, StoreError, StoreMissing
from tests.conformance.disks import fds_of, small_disk

A = Table.ACTIVE
END = b"\xff" * 301


def data_file(tmp_path: Path) -> Path:
    return tmp_path / "kv" / "data.mdb"


def open_kv(tmp_path: Path, readonly: bool = False, map_bytes: int = 1 << 30) -> LmdbKV:
    return LmdbKV(str(tmp_path / "kv"), readonly, map_bytes=map_bytes)


def test_ascending_records_fill_their_pages(tmp_path: Path) -> None:
    kv = open_kv(tmp_path)
    for group in range(4):
        kv.commit({A: {b"%08d" % number: bytes(1100) for number in range(group * 1000, group * 1000 + 1000)}})
    kv.close()
    # Three to a page of 4 KiB.
    assert data_file(tmp_path).stat().st_size < 4000 * 1450


def test_a_reader_keeps_no_old_pages(tmp_path: Path) -> None:
    kv = open_kv(tmp_path)
    go, done = Event(), Event()

    def read_once_then_wait() -> None:
        kv.get(A, b"%08d" % 1)
        kv.scan(A, b"", END, 10)
        go.set()
        done.wait()

    records = {b"%08d" % number: bytes(1000) for number in range(300)}
    kv.commit({A: records})
    with ThreadPoolExecutor(1) as pool:
        pool.submit(read_once_then_wait)
        go.wait()
        sizes = []
        for _ in range(10):
            kv.commit({A: records})
            sizes.append(data_file(tmp_path).stat().st_size)
        done.set()
    assert sizes[-1] == sizes[3]
    kv.close()


def test_the_map_grows_under_readers(tmp_path: Path) -> None:
    kv = open_kv(tmp_path, map_bytes=1 << 20)
    kv.commit({A: {b"first": b"1"}})
    done = Event()

    def read() -> int:
        count = 0
        while not done.is_set():
            assert kv.get(A, b"first") == b"1"
            assert kv.get_many(A, [b"first"]) == [b"1"]
            assert kv.scan(A, b"first", END, 2)[0] == (b"first", b"1")
            assert kv.used_bytes() > 0
            count += 1
        return count

    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(read) for _ in range(2)]
        try:
            for number in range(5):
                kv.commit({A: {b"%d %d" % (number, index): bytes(90_000) for index in range(4 << number)}})
        finally:
            done.set()
        assert all(reader.result() > 0 for reader in readers)
    assert len(kv.scan(A, b"", END, 1000)) == 1 + sum(4 << number for number in range(5))
    kv.close()
    assert data_file(tmp_path).stat().st_size > 8 << 20


def test_reading_only(tmp_path: Path) -> None:
    with pytest.raises(StoreMissing):
        open_kv(tmp_path, readonly=True)
    assert not (tmp_path / "kv").exists()
    kv = open_kv(tmp_path)
    kv.commit({A: {b"k": b"v"}})
    kv.close()
    before = data_file(tmp_path).read_bytes()
    kv = open_kv(tmp_path, readonly=True)
    assert kv.get(A, b"k") == b"v"
    with pytest.raises(OSError) as refusal:
        kv.commit({A: {b"k": b"w"}})
    assert refusal.value.errno == errno.EROFS
    with pytest.raises(OSError, match="not open for writing"):
        kv.reserve(1, 1)
    kv.close()
    assert data_file(tmp_path).read_bytes() == before


def test_a_file_of_something_else_is_damage_and_stays_as_it_is(tmp_path: Path) -> None:
    data_file(tmp_path).parent.mkdir()
    data_file(tmp_path).write_bytes(b"something else" * 1000)
    for readonly in (False, True):
        with pytest.raises(Damaged):
            open_kv(tmp_path, readonly)
    assert data_file(tmp_path).read_bytes() == b"something else" * 1000


def test_a_missing_table_is_damage(tmp_path: Path) -> None:
    with lmdb.open(str(tmp_path / "kv"), max_dbs=1) as env:
        env.open_db(b"active")
    with pytest.raises(Damaged, match="shadow"):
        open_kv(tmp_path, readonly=True)


def test_a_closed_engine_says_so(tmp_path: Path) -> None:
    kv = open_kv(tmp_path)
    kv.close()
    kv.close()
    with pytest.raises(StoreError):
        kv.get(A, b"k")
    with pytest.raises(OSError, match="not open for writing"):
        kv.commit({A: {b"k": b"v"}})


def test_another_process_reads_what_is_committed(tmp_path: Path) -> None:
    script = """
import sys
from idemfs.engines.kv.api import Table
from idemfs.engines.kv.lmdb_engine import LmdbKV
kv = LmdbKV(sys.argv[1], readonly=True, map_bytes=1 << 20)
for line in sys.stdin.buffer:
    sys.stdout.buffer.write((kv.get(Table.ACTIVE, line.strip()) or b"none") + b"\\n")
    sys.stdout.flush()
"""
    kv = open_kv(tmp_path, map_bytes=1 << 20)
    command = [sys.executable, "-c", script, str(tmp_path / "kv")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as reader:
        assert reader.stdin is not None
        assert reader.stdout is not None
        # The last batch makes the map larger than the one that the reader has.
        for number, fill in enumerate((1, 1, 40)):
            kv.commit({A: {b"key": b"value %d" % number, **{b"%d" % index: bytes(90_000) for index in range(fill)}}})
            reader.stdin.write(b"key\n")
            reader.stdin.flush()
            assert reader.stdout.readline() == b"value %d\n" % number
        reader.stdin.close()
    kv.close()


def test_after_an_io_error_nothing_more_is_committed(tmp_path: Path) -> None:
    kv = open_kv(tmp_path)
    kv.commit({A: {b"k": b"v"}})
    fds = fds_of(data_file(tmp_path))
    with open(data_file(tmp_path), "rb") as unwritable:
        for fd in fds:
            os.dup2(unwritable.fileno(), fd, inheritable=False)
    for _ in range(2):
        with pytest.raises(OSError) as failure:
            kv.commit({A: {b"k": b"w"}})
        assert failure.value.errno == errno.EIO
    with pytest.raises(OSError, match="open the store again"):
        kv.reserve(1, 1)
    assert kv.get(A, b"k") == b"v"
    kv.close()
    kv = open_kv(tmp_path)
    assert kv.get(A, b"k") == b"v"
    kv.commit({A: {b"k": b"w"}})
    assert kv.get(A, b"k") == b"w"
    kv.close()


def test_what_was_reserved_and_not_used_is_given_back_at_the_end_but_for_room_to_free_something(tmp_path: Path) -> None:
    kv = open_kv(tmp_path)
    kv.commit({A: {b"k": b"v"}})
    kv.reserve(1000, 32 << 20)
    assert data_file(tmp_path).stat().st_blocks * 512 > 32 << 20
    kv.commit({A: {b"%d" % number: bytes(90_000) for number in range(20)}})
    kv.close()
    status = data_file(tmp_path).stat()
    assert 1 << 20 < status.st_blocks * 512 - status.st_size <= 8 << 20
    kv = open_kv(tmp_path)
    assert len(kv.scan(A, b"", END, 100)) == 21
    kv.close()


def test_a_full_host_is_noticed_at_commit_and_forgotten_when_there_is_room(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 4 << 20) as disk:
        kv = open_kv(disk)
        kv.commit({A: {b"k": b"v"}})
        filler = disk / "filler"
        with pytest.raises(OSError, match="No space left"), open(filler, "wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        big = {b"%d" % number: bytes(50_000) for number in range(20)}
        for _ in range(2):
            with pytest.raises(NoSpace):
                kv.commit({A: {b"k": b"w", **big}})
        with pytest.raises(NoSpace):
            kv.reserve(20, 1_000_000)
        assert kv.scan(A, b"", END, 10) == [(b"k", b"v")]
        filler.unlink()
        kv.commit({A: {b"k": b"w", **big}})
        assert kv.get(A, b"k") == b"w"
        assert len(kv.scan(A, b"", END, 100)) == 21
        kv.close()


@pytest.mark.parametrize("sizes", [(0, 10, 60), (100, 900, 1500), (1500, 2000, 2100), (10, 2000, 30_000)], ids=str)
@pytest.mark.parametrize("pinned", [False, True], ids=["reusing pages", "no page reused"])
def test_no_commit_takes_more_pages_than_the_bound_says(tmp_path: Path, sizes: tuple[int, ...], pinned: bool) -> None:
    rng = random.Random(1)
    kv = open_kv(tmp_path)
    keys: list[bytes] = []
    reader = kv._env.begin() if pinned else None
    for step in range(60):
        batch: dict[bytes, bytes | None] = {}
        for _ in range(rng.choice((1, 5, 50, 400))):
            new = not keys or rng.random() < (0.8 if step < 30 else 0.3)
            key = rng.randbytes(rng.choice((2, 20, 280))) if new else rng.choice(keys)
            removed = not new and rng.random() < 0.6
            batch[key] = None if removed else rng.randbytes(rng.choice(sizes))
        before = kv._shape()
        kv.commit({rng.choice((A, Table.SHADOW)): batch})
        keys += batch
        value_bytes = sum(len(value) for value in batch.values() if value is not None)
        assert kv._shape().page_count - before.page_count <= page_count_max(before, len(batch), value_bytes)
    if reader is not None:
        reader.abort()
    kv.close()


def test_the_bound_for_no_change_is_small() -> None:
    shape = Shape(page_size=4096, page_count=100_000, depth=4, branch_count=900, leaf_count=90_000, overflow_count=0)
    assert page_count_max(shape, 0, 0) < 100
    assert page_count_max(shape, 1, 100) < 120
