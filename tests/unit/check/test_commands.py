"""``idemfs check`` and ``idemfs digest``: what they print, their exit status, and that they change nothing."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import pytest

from idemfs.cli.main import main
from idemfs.engines.lock import StoreLock
from idemfs.format import address as addresses
from idemfs.format.digest import to_text
from idemfs.ids import ROOT_FILESET
from idemfs.limits import SECTOR_SIZE
from idemfs.snapshots import manage
from idemfs.store.files import open_files
from idemfs.testing.builders import file_tree, make_file, random_changes
from idemfs.vfs.tree import Tree

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def store(tmp_path: Path) -> str:
    path = str(tmp_path / "store")
    tree = file_tree(path)
    random_changes(tree, Random(3), 200)
    make_file(tree, tree.root, b"big", Random(1).randbytes(3 * SECTOR_SIZE))
    manage.create(tree.store, ROOT_FILESET, "monday")
    random_changes(tree, Random(4), 100)
    tree.store.close()
    return path


def content(path: str) -> dict[str, bytes]:
    """Every file but those that LMDB and the lock write when a store is only read."""
    files = [file for file in Path(path).rglob("*") if file.is_file() and file.name not in ("lock", "lock.mdb")]
    return {str(file): file.read_bytes() for file in files}


def change_digest(path: str) -> None:
    opened = open_files(path, background=False)
    with opened.lock:
        opened.admit(2, 1000)
        opened.catalog.filesets[ROOT_FILESET].digest ^= 1
        opened.catalog.changed_fileset(ROOT_FILESET)
        snapshot = opened.catalog.by_name(ROOT_FILESET, "monday")
        snapshot.digest ^= 1
        opened.catalog.changed(snapshot)
    opened.close()


def test_a_clean_store(store: str, capsys: Capture) -> None:
    before = content(store)
    assert main(["check", store]) == 0
    line = capsys.readouterr().out
    assert line.startswith("clean: ") and " files, 1 snapshots, " in line and line.endswith(" of data\n")
    assert main(["check", store, "--data", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert content(store) == before


def test_findings_are_listed_and_the_status_is_1(store: str, capsys: Capture) -> None:
    change_digest(store)
    before = content(store)
    assert main(["check", store]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["KIND", "WHERE", "WHAT"] and lines[-1] == "2 findings"
    assert lines[1].startswith("digest") and "fileset root" in lines[1] and "snapshot monday" in lines[2]
    assert main(["check", store, "--json"]) == 1
    rows = json.loads(capsys.readouterr().out)
    assert [(row["kind"], row["where"]) for row in rows] == [("digest", "fileset root"), ("digest", "snapshot monday")]
    assert content(store) == before


def test_damaged_data_is_found_with_data(store: str, capsys: Capture) -> None:
    tree = Tree(open_files(store, background=False))
    address, _ = tree.active.block(tree.reader.lookup(tree.root, b"big"), 1)
    tree.store.close()
    with open(Path(store) / "blocks" / "00000000.seg", "r+b") as file:
        file.seek(addresses.sector_of(address) * SECTOR_SIZE + 7)
        file.write(b"damaged")
    assert main(["check", store]) == 0
    assert capsys.readouterr().out.startswith("clean: ")
    assert main(["check", store, "--data"]) == 1
    out = capsys.readouterr().out
    assert "/big, block 1" in out and "seen by " in out and out.endswith("1 finding\n")


def test_a_store_in_use_is_not_checked(store: str, capsys: Capture) -> None:
    with StoreLock(store):
        assert main(["check", store]) == 1
    assert "in use by process" in capsys.readouterr().err


def test_a_store_that_is_missing_or_damaged(tmp_path: Path, store: str, capsys: Capture) -> None:
    assert main(["check", str(tmp_path)]) == 1
    assert "no store here" in capsys.readouterr().err
    assert not (tmp_path / "lock").exists()
    (Path(store) / "meta" / "data.mdb").write_bytes(bytes(8192))
    assert main(["check", store]) == 1
    assert "metadata file is damaged" in capsys.readouterr().err


def test_an_interrupted_deletion_is_no_finding_and_is_not_gone_on_with(store: str, capsys: Capture) -> None:
    opened = open_files(store, background=False)
    with opened.lock:
        opened.admit(1, 1000)
        snapshot = opened.catalog.by_name(ROOT_FILESET, "monday")
        snapshot.state = 1
        opened.catalog.changed(snapshot)
    opened.close()
    before = content(store)
    assert main(["check", store]) == 0
    assert " 0 snapshots, " in capsys.readouterr().out
    assert content(store) == before


def digests(store: str) -> tuple[str, str]:
    opened = open_files(store, readonly=True)
    active = to_text(opened.catalog.filesets[ROOT_FILESET].digest)
    monday = to_text(opened.catalog.by_name(ROOT_FILESET, "monday").digest)
    opened.close()
    return active, monday


@pytest.mark.parametrize("more", [[], ["--recompute"]])
def test_digests(store: str, more: list[str], capsys: Capture) -> None:
    active, monday = digests(store)
    for arguments, expected in (([store], active), ([store, "monday"], monday), ([store + "@monday"], monday)):
        assert main(["digest", *arguments, *more]) == 0
        assert capsys.readouterr().out == expected + "\n"
    assert main(["digest", store, "monday", "--json", *more]) == 0
    row = json.loads(capsys.readouterr().out)[0]
    assert row == {"store": store, "snapshot": "monday", "digest": monday} | ({"recomputed": monday} if more else {})


def test_a_digest_that_is_wrong_is_found_when_it_is_worked_out(store: str, capsys: Capture) -> None:
    right = digests(store)
    change_digest(store)
    for arguments, digest in (([store], right[0]), ([store, "monday"], right[1])):
        assert main(["digest", *arguments]) == 0
        said = capsys.readouterr().out
        assert main(["digest", *arguments, "--recompute"]) == 1
        captured = capsys.readouterr()
        assert captured.out == said != digest + "\n" and digest in captured.err


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [(["@monday", "monday"], 2, "named twice"), (["@tuesday"], 1, "no snapshot named 'tuesday'")],
)
@pytest.mark.parametrize("more", [[], ["--recompute"]])
def test_a_digest_of_nothing(
    store: str, arguments: list[str], status: int, words: str, more: list[str], capsys: Capture
) -> None:
    assert main(["digest", store + arguments[0], *arguments[1:], *more]) == status
    assert words in capsys.readouterr().err
