"""``idemfs send``, ``receive`` and ``stream show``, on stores in files."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from idemfs.cli.main import main
from idemfs.store.files import open_files
from idemfs.testing.builders import assert_clean, file_tree, make_file
from idemfs.vfs.tree import Tree
from tests.unit.replication.pairs import assert_same, snapshots, take, visible


class Commands:
    """Runs command lines in this process."""

    def __init__(self, folder: Path, capture: pytest.CaptureFixture[bytes], patch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self._capture = capture
        self._patch = patch

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def run(self, *words: str, stdin: bytes = b"") -> tuple[int, bytes, str]:
        """Status, standard output, standard error. A word that starts with ``/`` is a path in the test's folder."""
        self._patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        self._capture.readouterr()
        status = main([self.path(word[1:]) if word.startswith("/") else word for word in words])
        out, err = self._capture.readouterr()
        return status, out, err.decode()

    def send(self, *words: str) -> bytes:
        status, out, err = self.run("send", *words)
        assert (status, err) == (0, "")
        return out

    def refused(self, *words: str, stdin: bytes = b"", status: int = 1) -> str:
        """The one line that says why."""
        got, _, err = self.run(*words, stdin=stdin)
        assert got == status
        assert err.count("\n") == 1 and err.startswith("idemfs: ")
        return err

    def look(self, name: str) -> list[tuple[str, bytes, str, int]]:
        store = open_files(self.path(name), background=False)
        try:
            return visible(Tree(store))
        finally:
            store.close()


@pytest.fixture
def commands(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> Commands:
    """With a store ``a`` that has snapshots ``one`` and ``two``."""
    tree = file_tree(str(tmp_path / "a"))
    ino = make_file(tree, tree.root, b"f", b"x" * 50_000)
    take(tree, "one")
    tree.append(ino, b"y" * 50_000)
    make_file(tree, tree.root, b"g\xff\n", b"small")
    tree.set_xattr(ino, b"user.a", b"1")
    tree.link(ino, tree.root, b"h")
    take(tree, "two")
    tree.store.close()
    return Commands(tmp_path, capfdbinary, monkeypatch)


def test_a_store_that_does_not_exist_becomes_a_standby(commands: Commands) -> None:
    status, out, err = commands.run("receive", "/b", stdin=commands.send("/a", "one"))
    assert (status, err) == (0, "")
    assert out.startswith(b"received snapshot one: ")
    status, _, _ = commands.run("receive", "/b", stdin=commands.send("/a", "--base", "one", "two"))
    assert status == 0
    assert commands.look("b") == commands.look("a")
    a, b = (Tree(open_files(commands.path(name), background=False)) for name in "ab")
    for name in ("one", "two"):
        assert_same(a, b, name)
    assert (b.role.role.name, a.role.role.name) == ("STANDBY", "PRIMARY")
    assert_clean(b)
    with pytest.raises(OSError, match="standby"):
        make_file(b, b.root, b"mine")
    a.store.close()
    b.store.close()


def test_an_empty_directory_will_do_and_a_file_will_not(commands: Commands) -> None:
    stream = commands.send("/a", "one")
    (commands.folder / "b").mkdir()
    assert commands.run("receive", "/b", stdin=stream)[0] == 0
    (commands.folder / "c").write_text("something")
    assert "c" in commands.refused("receive", "/c", stdin=stream)
    (commands.folder / "d").mkdir()
    (commands.folder / "d" / "x").write_text("something")
    assert "no store" in commands.refused("receive", "/d", stdin=stream)


def test_what_is_here_already_is_said_and_read_to_its_end(commands: Commands) -> None:
    stream = commands.send("/a", "--compress", "one")
    commands.run("receive", "/b", stdin=stream)
    status, out, err = commands.run("receive", "/b", stdin=stream)
    assert (status, out, err) == (0, b"snapshot one is here already\n", "")
    assert sys.stdin.buffer.read() == b""


def test_streams_that_are_refused_make_no_store(commands: Commands) -> None:
    full, changes = commands.send("/a", "one"), commands.send("/a", "--base", "one", "two")
    for stream, reason in (
        (changes, "starts from a snapshot"),
        (commands.send("/a", "--resume", "1:0", "one"), "starts from a snapshot"),
        (b"", "empty"),
        (b"something else", "no change set"),
        (full[:100], "ended early"),
        (full[:60] + b"?" + full[61:], "damaged"),
    ):
        assert reason in commands.refused("receive", "/b", stdin=stream)
        assert not os.path.exists(commands.path("b"))


def test_a_cut_stream_goes_on_from_its_cursor(commands: Commands) -> None:
    full, changes = commands.send("/a", "one"), commands.send("/a", "--base", "one", "two")
    commands.run("receive", "/b", stdin=full)
    assert commands.run("receive", "/b", "--cursor") == (0, b"", "")
    before = commands.look("b")
    assert "ended early" in commands.refused("receive", "/b", stdin=changes[:-10])
    status, cursor, _ = commands.run("receive", "/b", "--cursor")
    assert status == 0 and cursor
    assert commands.look("b") == before
    rest = commands.send("/a", "--base", "one", "--resume", cursor.decode().strip(), "two")
    assert len(rest) < len(changes)
    assert commands.run("receive", "/b", stdin=rest)[0] == 0
    assert commands.look("b") == commands.look("a")


def test_an_empty_cursor_is_the_start(commands: Commands) -> None:
    assert commands.send("/a", "--resume", "", "one") == commands.send("/a", "one")


def test_a_primary_receives_nothing(commands: Commands) -> None:
    before = commands.look("a")
    stream = commands.send("/a", "one")
    assert "no standby" in commands.refused("receive", "/a", stdin=stream)
    assert commands.look("a") == before


def test_a_standby_whose_making_was_interrupted_is_made_to_the_end(commands: Commands) -> None:
    """The store was there, and nothing had come into it."""
    from idemfs.format.role import Role, RoleRecord
    from idemfs.ids import ROOT_FILESET
    from idemfs.store.files import create_files

    store = open_files(commands.path("a"), background=False)
    guid = store.catalog.filesets[ROOT_FILESET].guid
    store.close()
    first = RoleRecord(Role.STANDBY, 1, 1)
    create_files(commands.path("b"), block_size=4096, fileset_guid=guid, first_role=first)
    assert commands.run("receive", "/b", stdin=commands.send("/a", "one"))[0] == 0
    assert commands.look("b") == commands.look("a")[:1]


def test_wrong_names_and_usage(commands: Commands) -> None:
    assert "'monday'" in commands.refused("send", "/a", "monday")
    assert "'monday'" in commands.refused("send", "/a", "--base", "monday", "two")
    assert "not older" in commands.refused("send", "/a", "--base", "two", "one")
    assert "not older" in commands.refused("send", "/a", "--base", "one", "one")
    assert "no store" in commands.refused("send", "/nowhere", "one")
    assert "no store" in commands.refused("receive", "/nowhere", "--cursor")
    assert "no cursor" in commands.refused("send", "/a", "--resume", "x", "one", status=2)


def test_nobody_reads_a_stream_on_a_terminal(commands: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    leader, follower = os.openpty()
    with open(leader, "rb", buffering=0), open(follower, "r+b", buffering=0) as terminal:
        text = io.TextIOWrapper(terminal, write_through=True)
        monkeypatch.setattr(sys, "stdout", text)
        assert main(["send", commands.path("a"), "one"]) == 2
        monkeypatch.setattr(sys, "stdin", text)
        assert main(["receive", commands.path("b")]) == 2
        assert main(["stream", "show"]) == 2
        monkeypatch.undo()
        text.detach()
    assert not os.path.exists(commands.path("b"))


# -- show --------------------------------------------------------------------------------------------------


def test_a_stream_is_described_and_checked(commands: Commands) -> None:
    stream = commands.send("/a", "--base", "one", "two")
    status, out, err = commands.run("stream", "show", stdin=stream)
    assert (status, err) == (0, "")
    lines = dict(line.split("  ", 1) for line in out.decode().splitlines() if not line.startswith(" "))
    facts = {key: value.strip() for key, value in lines.items()}
    assert facts["snapshot"] == "two"
    assert facts["digest"] == commands.look("a")[1][2]
    assert facts["base digest"] == commands.look("a")[0][2]
    for broken in (stream[:-3], stream[:-30] + b"?" + stream[-29:]):
        assert commands.run("stream", "show", stdin=broken)[0] == 1


def test_json_is_one_array(commands: Commands) -> None:
    stream = commands.send("/a", "--base", "one", "two")
    _, out, _ = commands.run("stream", "show", "--json", stdin=stream)
    header, end = json.loads(out)
    assert (header["frame"], header["snapshot"], header["block_size"]) == ("header", "two", 4096)
    assert end["frame"] == "end" and end["bytes"] == len(stream)
    assert sum(end["kinds"].values()) == end["records"]
    _, out, _ = commands.run("stream", "show", "--json", "--records", stdin=stream)
    rows = json.loads(out)
    assert len(rows) == end["records"] + 2
    entries = [row["name"] for row in rows if row.get("record") == "entry"]
    assert [os.fsencode(name) for name in entries] == [b"g\xff\n", b"h"]


def test_records_as_lines(commands: Commands) -> None:
    stream = commands.send("/a", "--base", "one", "two")
    _, out, _ = commands.run("stream", "show", "--records", stdin=stream)
    text = os.fsdecode(out)
    for kind in ("inode", "block", "entry", "link", "xattr"):
        assert f" {kind} " in text
    assert r"name=g\xff\x0a" in text


# -- pipes -------------------------------------------------------------------------------------------------


def test_through_a_pipe_between_two_processes(commands: Commands) -> None:
    program = [sys.executable, "-m", "idemfs.cli"]
    for _ in range(2):
        with (
            subprocess.Popen([*program, "send", commands.path("a"), "one"], stdout=subprocess.PIPE) as sender,
            subprocess.Popen([*program, "receive", commands.path("b")], stdin=sender.stdout) as receiver,
        ):
            assert sender.stdout is not None
            sender.stdout.close()
            assert (receiver.wait(), sender.wait()) == (0, 0)
    assert commands.look("b") == commands.look("a")[:1]
    assert [each[0] for each in commands.look("b")] == ["one"]
    store = open_files(commands.path("b"), background=False)
    assert len(snapshots(Tree(store))) == 1
    store.close()
