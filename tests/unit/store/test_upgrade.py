"""Stores that were written before idemfs 0.1.0, with snapshots in the order of their filesets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import idemfs
from idemfs.check import find
from idemfs.engines.kv.api import Table
from idemfs.engines.kv.lmdb_engine import LmdbKV
from idemfs.errors import FormatError
from idemfs.format import keys
from idemfs.store.files import open_files
from idemfs.store.peek import read_snapshots

Seen = dict[str, tuple[int, int, str, bytes]]


def make(path: str) -> Seen:
    """Two filesets whose snapshots were taken in turn, one of them gone from the middle; what they all see."""
    with idemfs.create(path) as fs:
        fs.mkdir("/home")
        fs.filesets.create("/home", name="home")
        for number in range(4):
            for file in ("/file", "/home/file"):
                fs.write_bytes(file, bytes([number]) * 50_000)
            fs.snapshots.create(f"s{number}")
            fs.snapshots.create(f"home@s{number}")
        fs.snapshots.delete("home@s2")
    return seen(path)


def seen(path: str) -> Seen:
    found = {}
    with idemfs.open(path) as fs:
        for fileset in ("", "home"):
            for snapshot in fs.filesets[fileset].snapshots if fileset else fs.snapshots:
                content = fs.snapshots[snapshot.operand].read_bytes("/file")
                found[snapshot.operand] = snapshot.id, snapshot.owned_bytes, snapshot.digest, content
        assert list(find(fs.tree.store, read_data=True)) == []
    return found


def change_small(path: str, change: Callable[[dict[bytes, bytes]], dict[bytes, bytes | None]]) -> None:
    kv = LmdbKV(f"{path}/meta", must_exist=True)
    kv.commit({Table.SMALL: change(dict(kv.scan(Table.SMALL, b"", keys.END, 1000)))})
    kv.close()


def as_before(records: dict[bytes, bytes]) -> dict[bytes, bytes | None]:
    """The records of snapshots as they were."""
    changes: dict[bytes, bytes | None] = {}
    for key, value in records.items():
        if key[:1] == b"s":
            changes |= {key: None, b"S" + key[9:] + key[1:9]: value[:65] + value[73:]}
    return changes


def test_all_snapshots_are_there_and_see_what_they_saw(tmp_path: Path) -> None:
    path = str(tmp_path / "store")
    expected = make(path)
    assert len(expected) == 7
    change_small(path, as_before)
    assert seen(path) == expected
    with idemfs.open(path) as fs:
        fs.snapshots.create("another")
        fs.snapshots.delete("s0", "home@s3")
    assert set(seen(path)) == expected.keys() - {"s0", "home@s3"} | {"another"}


def test_who_only_reads_is_told_what_to_do(tmp_path: Path) -> None:
    path = str(tmp_path / "store")
    make(path)
    change_small(path, as_before)
    for read in (read_snapshots, lambda path: open_files(path, readonly=True)):
        with pytest.raises(FormatError, match="as 'idemfs snapshot create', brings it forward"):
            read(path)
    idemfs.open(path).close()
    assert len(read_snapshots(path)[0][1]) == 4
