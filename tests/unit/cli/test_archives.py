"""The commands of archives, on stores and directories in files."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from idemfs.cli.main import main
from idemfs.store.files import open_files
from idemfs.testing.builders import file_tree, make_file
from idemfs.vfs.tree import Tree
from tests.unit.replication.pairs import assert_same, take


class Commands:
    """Runs command lines in this process; a word that begins with ``/`` is a path in the test's folder."""

    def __init__(self, folder: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._capture = capture

    def run(self, *words: str) -> tuple[int, str, str]:
        self._capture.readouterr()
        status = main([str(self.folder / word[1:]) if word.startswith("/") else word for word in words])
        return status, *self._capture.readouterr()

    def done(self, *words: str) -> str:
        status, out, err = self.run(*words)
        assert (status, err) == (0, "")
        return out

    def refused(self, *words: str, status: int = 1) -> str:
        got, _, err = self.run(*words)
        assert got == status and err.count("\n") == 1
        return err

    def listed(self) -> list[dict[str, object]]:
        rows: list[dict[str, object]] = json.loads(self.done("archive", "list", "/archive", "--json"))
        return rows


@pytest.fixture
def commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Commands:
    """A store with the snapshots ``one`` and ``two``, and an archive of it."""
    made = Commands(tmp_path, capsys)
    tree = file_tree(str(tmp_path / "store"))
    for name in ("one", "two"):
        make_file(tree, tree.root, name.encode(), os.urandom(9000))
        take(tree, name)
    tree.store.close()
    made.done("archive", "write", "/store", "/archive")
    return made


def test_written_listed_checked_and_restored(commands: Commands) -> None:
    assert commands.done("archive", "write", "/store", "/archive") == "the archive has all snapshots already\n"
    assert [(row["name"], row["kind"], row["restore_streams"]) for row in commands.listed()] == [
        ("one", "full", 1),
        ("two", "change", 2),
    ]
    assert len(commands.done("archive", "list", "/archive").splitlines()) == 3
    assert "all whole" in commands.done("archive", "check", "/archive")
    out = commands.done("archive", "restore", "/archive", "/one", "--to", "one")
    assert "is as one of " in out and "idemfs failover" in out
    commands.done("archive", "restore", "/archive", "/two")
    trees = [Tree(open_files(str(commands.folder / name), background=False)) for name in ("store", "one", "two")]
    try:
        assert_same(trees[0], trees[1], "one")
        assert_same(trees[0], trees[2], "two")
    finally:
        for tree in trees:
            tree.store.close()


def test_what_is_damaged_is_named_and_what_is_lost_is_made_again(commands: Commands) -> None:
    file = commands.folder / "archive" / "streams" / str(commands.listed()[1]["file"])
    content = file.read_bytes()
    file.write_bytes(content[:-40] + b"x" + content[-39:])
    status, out, _ = commands.run("archive", "check", "/archive")
    assert status == 1
    assert f"{file}: is damaged" in out and "1 of 2 snapshots can be restored, up to '--to one'" in out
    status, out, _ = commands.run("archive", "check", "/archive", "--json")
    answer = json.loads(out)
    assert status == 1 and answer["newest"] == "one" and answer["findings"][0]["file"] == str(file)
    assert f"{file}: is damaged" in commands.refused("archive", "restore", "/archive", "/two")
    file.write_bytes(content)
    (commands.folder / "archive" / "archive.json").write_bytes(b"")
    for words in (("list", "/archive"), ("check", "/archive"), ("restore", "/archive", "/x")):
        assert "archive.json: is damaged" in commands.refused("archive", *words)
    out = commands.done("archive", "check", "/archive", "--repair")
    assert "made again" in out and "all whole" in out
    assert [row["name"] for row in commands.listed()] == ["one", "two"]


def test_pruned_by_the_words_of_a_link(commands: Commands) -> None:
    assert "would keep 2 snapshots" in commands.done("archive", "prune", "/archive", "--keep", "last=1", "--dry-run")
    assert "keeps 2 snapshots" in commands.done("archive", "prune", "/archive", "--keep", "last=1", "--yes")
    for wrong in ("lots", "last=", "last=x", "", "free=1GB"):
        assert "--keep: " in commands.refused("archive", "prune", "/archive", "--keep", wrong, status=2)
    assert "--keep" in commands.refused("archive", "prune", "/archive", status=2)


def test_what_is_no_archive_is_refused(commands: Commands, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat").write_bytes(b"meow")
    assert "has files, and is no archive" in commands.refused("archive", "write", "/store", "/photos")
    for words in (("list", "/photos"), ("check", "/nothing"), ("restore", "/store", "/x")):
        assert "no archive here" in commands.refused("archive", *words)
    assert "lies in the store" in commands.refused("archive", "write", "/store", "/store/archive")
