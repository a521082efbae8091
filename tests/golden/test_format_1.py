"""The golden store of format 1: read by this idemfs, and by a reader that knows the document alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import lmdb
import pytest
from xxhash import xxh3_64_intdigest

from idemfs.check import find
from idemfs.errors import Damaged, FormatTooNew, IdemfsError, StoreMissing
from idemfs.format.digest import to_text
from idemfs.ids import ROOT_FILESET
from idemfs.limits import SEGMENT_SIZE
from idemfs.snapshots import manage
from idemfs.store.files import open_files
from idemfs.testing.builders import assert_clean, random_changes
from idemfs.vfs.tree import Tree
from tests.golden.make_format_1 import LIST, STORE, build, listed, states
from tests.golden.reader import StoreReader

EXPECTED: dict[str, dict[str, Any]] = json.loads(LIST.read_text())


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A copy that may be changed."""
    return Path(shutil.copytree(STORE, tmp_path / "store"))


def content(path: Path) -> dict[str, bytes]:
    """Every file that is part of the format, and what it holds."""
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in sorted(path.rglob("*"))
        if file.is_file() and file.name not in ("lock", "lock.mdb")
    }


def test_it_is_small() -> None:
    assert sum(len(data) for data in content(STORE).values()) < 200_000


def test_every_state_reads_as_it_was_made(store: Path) -> None:
    tree = Tree(open_files(str(store), readonly=True))
    assert states(tree) == EXPECTED
    tree.store.close()
    assert content(store) == content(STORE)


def test_nothing_is_wrong_with_it(store: Path) -> None:
    opened = open_files(str(store), readonly=True)
    assert list(find(opened, read_data=True)) == []
    opened.close()
    assert content(store) == content(STORE)


def test_it_can_be_changed_and_is_clean_after_that(store: Path) -> None:
    tree = Tree(open_files(str(store), background=False))
    assert_clean(tree)
    random_changes(tree, Random(1), 300)
    manage.create(tree.store, ROOT_FILESET, "today")
    for name, state in EXPECTED.items():
        if name:
            snapshot = tree.store.catalog.by_name(ROOT_FILESET, name)
            assert listed(tree.snapshot_reader(snapshot)) == state["files"]
    assert_clean(tree)
    tree.store.close()


def test_what_is_made_the_same_way_today_has_the_same_digests(tmp_path: Path) -> None:
    tree = build(str(tmp_path / "store"))
    found = {name: (state["digest"], state["files"]) for name, state in states(tree).items()}
    tree.store.abandon()
    assert found == {name: (state["digest"], state["files"]) for name, state in EXPECTED.items()}


def test_a_reader_that_knows_the_document_alone_reads_the_same() -> None:
    reader = StoreReader(STORE)
    found = list(reader.states())
    assert {state.name for state in found} == EXPECTED.keys()
    for state in found:
        expected = EXPECTED[state.name]
        assert reader.files(state.id) == expected["files"]
        assert reader.digest(state.id) == state.digest == expected["digest"]
        if state.id is not None:
            assert (state.id, state.guid, state.created_ns) == (
                expected["id"],
                expected["guid"],
                expected["created_ns"],
            )
            assert (state.data_bytes, state.record_bytes) == (expected["data_bytes"], expected["record_bytes"])


def test_that_reader_imports_nothing_of_idemfs() -> None:
    assert "idemfs" not in [line.split()[1].partition(".")[0] for line in imports()]


def imports() -> list[str]:
    text = (Path(__file__).parent / "reader.py").read_text()
    return [line for line in text.splitlines() if line.startswith(("import ", "from "))]


def test_it_has_every_case_that_a_reader_has_to_know() -> None:
    reader = StoreReader(STORE)
    active, shadow, small = (reader.tables[name] for name in ("active", "shadow", "small"))
    assert {key[8:9] for key in active} == {b"i", b"b", b"d", b"l", b"x"}
    assert {key[:1] for key in small} == {b"T", b"F", b"s", b"E", b"R", b"O", b"H"}
    assert b"" in shadow.values()
    maps = [value for key, value in shadow.items() if key[8:9] == b"b"]
    entries = [
        int.from_bytes(value[start : start + 8], "little")
        for value in maps
        for count in [int.from_bytes(value[:2], "little")]
        for start in range(2 + 2 * count, 2 + 10 * count, 8)
    ]
    assert (
        0 in entries
        and any(entry >> 61 & 1 for entry in entries)
        and any(entry and not entry >> 61 for entry in entries)
    )
    assert any(key[9:] == (1).to_bytes(8, "big") for key in active if key[8:9] == b"b")


# -- what cannot be opened is said, and nothing is changed -------------------------------------------------


def change_superblock(store: Path, at: int, value: bytes) -> None:
    """With a checksum that is right."""
    body = bytearray((store / "superblock").read_bytes()[:88])
    body[at : at + len(value)] = value
    put(store / "superblock", bytes(body) + xxh3_64_intdigest(bytes(body)).to_bytes(8, "little"))


def put(file: Path, data: bytes) -> None:
    file.write_bytes(data)


def flip(file: Path, at: int, size: int = 1) -> None:
    data = bytearray(file.read_bytes())
    for index in range(at, min(at + size, len(data))):
        data[index] ^= 0x55
    file.write_bytes(data)


def cut(file: Path, size: int) -> None:
    file.write_bytes(file.read_bytes()[:size])


def drop_table(store: Path, name: bytes) -> None:
    with lmdb.open(str(store / "meta"), max_dbs=4) as env:
        database = env.open_db(name)
        with env.begin(write=True) as transaction:
            transaction.drop(database)


def drop_key(store: Path, key: bytes, value: bytes | None = None) -> None:
    with lmdb.open(str(store / "meta"), max_dbs=4) as env:
        database = env.open_db(b"small")
        with env.begin(database, write=True) as transaction:
            if value is None:
                transaction.delete(key)
            else:
                transaction.put(key, value)


UNREADABLE: dict[str, tuple[Callable[[Path], None], type[IdemfsError], str]] = {
    "newer version": (lambda s: change_superblock(s, 8, b"\2"), FormatTooNew, "format 2"),
    "newer and longer": (lambda s: put(s / "superblock", b"idemfs\r\n\7" + bytes(200)), FormatTooNew, "format 7"),
    "unknown feature": (lambda s: change_superblock(s, 20, b"\4"), FormatTooNew, "features 0x4"),
    "no superblock": (lambda s: (s / "superblock").unlink(), StoreMissing, "no store here"),
    "empty superblock": (lambda s: put(s / "superblock", b""), Damaged, "no idemfs superblock"),
    "other magic": (lambda s: flip(s / "superblock", 3), Damaged, "no idemfs superblock"),
    "superblock flipped": (lambda s: flip(s / "superblock", 60), Damaged, "checksum is wrong"),
    "superblock cut": (lambda s: cut(s / "superblock", 95), Damaged, "checksum is wrong"),
    "odd block size": (lambda s: change_superblock(s, 44, b"\1"), Damaged, "block size of 8193"),
    "other entry count": (lambda s: change_superblock(s, 52, b"\1"), FormatTooNew, "blocks of 513 entries"),
    "other compression": (lambda s: change_superblock(s, 56, b"\2"), FormatTooNew, "compression 2"),
    "no metadata": (lambda s: (s / "meta" / "data.mdb").unlink(), StoreMissing, "no metadata here"),
    "empty metadata": (lambda s: put(s / "meta" / "data.mdb", b""), Damaged, "metadata file is empty"),
    "metadata of zeros": (lambda s: put(s / "meta" / "data.mdb", bytes(40960)), Damaged, "metadata file is damaged"),
    "metadata cut": (lambda s: cut(s / "meta" / "data.mdb", 16384), Damaged, "metadata file lacks"),
    "no table": (lambda s: drop_table(s, b"owned"), Damaged, "'owned' is missing"),
    "no state": (lambda s: drop_key(s, b"T"), Damaged, "no state record"),
    "odd state": (lambda s: drop_key(s, b"T", b"1"), Damaged, "state record is damaged"),
    "odd fileset": (lambda s: drop_key(s, b"F\0\0", b"1"), Damaged, "fileset 0 is damaged"),
}


@pytest.mark.parametrize("case", sorted(UNREADABLE))
@pytest.mark.parametrize("readonly", [False, True])
def test_what_cannot_be_opened_is_said_and_left_as_it_is(store: Path, case: str, readonly: bool) -> None:
    damage, error, words = UNREADABLE[case]
    damage(store)
    before = content(store)
    with pytest.raises(error, match=words):
        open_files(str(store), readonly=readonly, background=False)
    assert content(store) == before


def test_a_compatible_feature_is_no_obstacle(store: Path) -> None:
    change_superblock(store, 12, (1 << 40).to_bytes(8, "little"))
    before = (store / "superblock").read_bytes()
    tree = Tree(open_files(str(store), background=False))
    assert to_text(tree.store.catalog.filesets[ROOT_FILESET].digest) == EXPECTED[""]["digest"]
    tree.store.close()
    assert (store / "superblock").read_bytes() == before


def test_the_segment_is_where_the_document_says() -> None:
    assert SEGMENT_SIZE == 1 << 30 and [file.name for file in (STORE / "blocks").iterdir()] == ["00000000.seg"]
