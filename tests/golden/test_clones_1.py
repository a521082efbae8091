"""The golden store with clones: read by this idemfs, and its clones by a reader of the document alone."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest

from idemfs import FileSystem
from idemfs.check import find
from idemfs.format.tables import PINNED
from idemfs.store.files import open_files
from idemfs.testing.builders import assert_clean
from idemfs.vfs.tree import Tree
from tests.golden.make_clones_1 import LIST, STORE, build, states
from tests.golden.reader import StoreReader
from tests.golden.test_format_1 import content

EXPECTED: dict[str, dict[str, Any]] = json.loads(LIST.read_text())


@pytest.fixture
def store(tmp_path: Path) -> str:
    """A copy, since LMDB writes beside what it only reads."""
    return str(shutil.copytree(STORE, tmp_path / "store"))


def test_it_is_small() -> None:
    assert sum(len(data) for data in content(STORE).values()) < 100_000


def test_every_state_reads_as_it_was_made_and_nothing_is_wrong(store: str) -> None:
    opened = open_files(store, readonly=True)
    assert states(Tree(opened)) == EXPECTED
    assert list(find(opened, read_data=True)) == []
    assert [each.state for each in opened.catalog.all_snapshots(opened.catalog.fileset_named("root").number)] == [
        PINNED
    ]
    opened.close()


def test_it_can_be_changed_and_its_promotion_goes_on(store: str) -> None:
    fs = FileSystem(Tree(open_files(store, background=False)))
    assert [info.origin for info in fs.filesets] == [None, "monday", None, "try@mine"]
    fs.write_bytes("/long", b"rewritten" * 5000)
    fs.unlink("/d/gone")
    long = fs.read_bytes("/half/long")
    assert fs.read_bytes("/try/again/long") == long[:4096] + b"changed" + long[4103:]
    for name in ("again", "try"):
        fs.filesets[name].promote()
    fs.sync()
    assert not fs.tree.store.catalog.all_snapshots(fs.tree.fileset)
    assert fs.read_bytes("/try/again/long") == long[:4096] + b"changed" + long[4103:]
    assert_clean(fs.tree)
    fs.close()


def test_what_is_made_the_same_way_today_is_the_same(tmp_path: Path) -> None:
    tree = build(str(tmp_path / "store"))
    found = states(tree)
    tree.store.abandon()
    assert found == EXPECTED


def test_what_the_document_says_of_clones_is_what_is_there() -> None:
    """By sections 4 and 5.1: where the clones rest, and for the names of one, what it has and what its origin has."""
    reader = StoreReader(STORE)
    origins = {
        key[2]: struct.unpack("<HQQB", value) for key, value in reader.tables["small"].items() if key[:1] == b"G"
    }
    assert {number: list(fields) for number, fields in origins.items()} == {
        state["number"]: state["origin"] for state in EXPECTED.values() if state.get("origin")
    }
    above, snapshot, next_number, state = origins[1]
    assert (above, state) == (0, 0)

    def seen(key: bytes) -> bytes | None:
        own = reader.tables["active"].get(b"\0\1" + key)
        if own is not None:
            return own or None
        if int.from_bytes(key[:6], "big") >= next_number:
            return None
        return reader.record(above.to_bytes(2, "big") + key, snapshot)

    known = reader.keys()
    keys = {key[2:] for key in known if key[:2] in (b"\0\0", b"\0\1") and key[8:9] == b"d"}
    names = {key[7:].decode(): int.from_bytes(value[:6], "little") for key in keys if (value := seen(key)) is not None}
    listed = {
        path.rpartition("/")[2] for path in EXPECTED[""]["files"] if path.startswith("/try/") and "/again/" not in path
    }
    assert set(names) == listed
    assert "gone" not in names and "long" in names
