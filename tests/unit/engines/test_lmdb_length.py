"""The metadata file is as long as the pages that it counts: a shorter one was cut, and is refused instead of read."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random

import pytest

from idemfs.engines.kv.api import Table
from idemfs.engines.kv.lmdb_engine import LmdbKV
from idemfs.errors import Damaged, StoreMissing


def change(kv: LmdbKV, rng: Random) -> None:
    """Values that live in pages of their own come and go, so that pages are allocated and freed in one commit."""
    keys = [b"%d" % rng.randrange(300) for _ in range(rng.randint(1, 60))]
    kv.commit({Table.ACTIVE: {key: rng.choice((None, bytes(rng.choice((1, 500, 9000, 60_000))))) for key in keys}})


def test_the_file_is_never_shorter_than_its_pages(tmp_path: Path, seed: int) -> None:
    rng = Random(seed)
    data = tmp_path / "kv" / "data.mdb"
    kv = LmdbKV(str(tmp_path / "kv"))
    for count in range(200):
        change(kv, rng)
        shape = kv._shape()
        assert os.path.getsize(data) >= shape.page_count * shape.page_size
        if count % 20 == 19:
            kv.close()
            assert os.path.getsize(data) == shape.page_count * shape.page_size
            kv = LmdbKV(str(tmp_path / "kv"), must_exist=True)
    kv.close()


@pytest.mark.parametrize("readonly", [False, True])
def test_a_file_that_was_cut_is_refused_and_left_as_it_is(tmp_path: Path, seed: int, readonly: bool) -> None:
    rng = Random(seed)
    kv = LmdbKV(str(tmp_path / "kv"))
    for _ in range(20):
        change(kv, rng)
    kv.close()
    data = tmp_path / "kv" / "data.mdb"
    whole = data.read_bytes()
    for size in (len(whole) - 1, len(whole) // 2, 8192, 5000, 0):
        data.write_bytes(whole[:size])
        with pytest.raises(Damaged):
            LmdbKV(str(tmp_path / "kv"), readonly, must_exist=True)
        assert data.read_bytes() == whole[:size]


def test_what_must_exist_is_not_made(tmp_path: Path) -> None:
    os.mkdir(tmp_path / "kv")
    with pytest.raises(StoreMissing):
        LmdbKV(str(tmp_path / "kv"), must_exist=True)
    assert os.listdir(tmp_path / "kv") == []
