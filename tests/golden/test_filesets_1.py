"""The golden store with filesets: read by this idemfs, and what it tells of them by a reader of the document alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from random import Random
from typing import Any

import pytest

from idemfs import FileSystem
from idemfs.check import find
from idemfs.format.tables import DELETING
from idemfs.store.files import open_files
from idemfs.testing.builders import assert_clean, random_changes
from idemfs.vfs.tree import Tree
from tests.golden.make_filesets_1 import LIST, STORE, build, states
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
    assert [fileset.state for fileset in opened.catalog.filesets.values()].count(DELETING) == 1
    opened.close()


def test_it_can_be_changed_and_its_deletion_goes_on(store: str) -> None:
    fs = FileSystem(Tree(open_files(store, background=False)))
    assert len(fs.tree.store.catalog.filesets) == 3 and fs.listdir("/srv") == ["home"]
    random_changes(fs.tree, Random(1), 200)
    fs.snapshots.create_all("*@today")
    assert fs.snapshots["deep@monday"].read_bytes("/text") == b"a line that compresses well\n" * 500
    fs.filesets["deep"].delete()
    fs.sync()
    assert_clean(fs.tree)
    fs.close()


def test_what_is_made_the_same_way_today_is_the_same(tmp_path: Path) -> None:
    tree = build(str(tmp_path / "store"))
    found = states(tree)
    tree.store.abandon()
    assert found == EXPECTED


def test_a_reader_that_knows_the_document_alone_reads_the_same() -> None:
    told = StoreReader(STORE).filesets()
    assert told == {name: state for name, state in EXPECTED.items() if "number" in state}
