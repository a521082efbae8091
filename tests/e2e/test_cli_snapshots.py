"""The snapshot commands as processes: what they do, print and return."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import idemfs as library
from tests.e2e.program import done, idemfs, on_terminal, refused, rows


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Three snapshots, one, two, three, of a file that says so."""
    path = tmp_path / "store"
    with library.create(path, block_size=4096) as fs:
        fs.makedirs("/d")
        for name in ("one", "two", "three"):
            fs.write_bytes("/f", name.encode() * 3000)
            fs.snapshots.create(name)
    return path


def names(store: Path) -> list[str]:
    return [row["name"] for row in rows("snapshot", "list", store)]


def test_create(store: Path) -> None:
    out = done("snapshot", "create", store, "four")
    row = rows("snapshot", "list", store)[-1]
    assert out.split() == ["four", row["guid"], row["digest"]]
    assert "exists; choose another name" in refused("snapshot", "create", store, "four")
    assert "no fileset named 'a'" in refused("snapshot", "create", store, "a@b")
    assert "'/', '@'" in refused("snapshot", "create", store, "a/b")


def test_list(store: Path) -> None:
    found = rows("snapshot", "list", store)
    assert [row["name"] for row in found] == ["one", "two", "three"] and [row["id"] for row in found] == [1, 2, 3]
    for row in found:
        assert row["fileset"] == "root" and len(row["guid"]) == len(row["digest"]) == 32
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", row["created"])
    assert [row["owned_bytes"] >= 3 * 4096 for row in found] == [True, True, False]
    lines = done("snapshot", "list", store).splitlines()
    assert lines[0].split() == ["NAME", "CREATED", "OWNED", "ID", "DIGEST"]
    assert [line.split()[0] for line in lines[1:]] == ["one", "two", "three"]


def test_delete_all_or_none(store: Path) -> None:
    assert "no snapshot named 'no'" in refused("snapshot", "delete", store, "one", "no", "two")
    done("snapshot", "hold", store, "two", "backup of monday")
    assert "held by backup of monday" in refused("snapshot", "delete", store, "one", "two")
    assert names(store) == ["one", "two", "three"]
    assert "is not held by 'me', but by: backup of monday" in refused("snapshot", "release", store, "two", "me")
    done("snapshot", "release", store, "two", "backup of monday")
    would = done("snapshot", "delete", store, "one", "two", "--dry-run")
    assert would.startswith("would delete one, which owns 1") and len(would.splitlines()) == 2
    assert names(store) == ["one", "two", "three"]
    assert done("snapshot", "delete", store, "two", "one") == ""
    assert names(store) == ["three"] and done("check", store).startswith("clean")


def test_delete_asks_whoever_is_there(store: Path) -> None:
    status, seen = on_terminal("snapshot", "delete", store, "one", answer="n\n")
    assert status == 1 and "Delete one?" in seen and "nothing was done" in seen
    assert names(store) == ["one", "two", "three"]
    assert on_terminal("snapshot", "delete", store, "one", answer="y\n")[0] == 0
    assert on_terminal("snapshot", "delete", store, "two", "--yes")[0] == 0
    assert names(store) == ["three"]


def test_holds_that_end_and_that_cannot_be(store: Path) -> None:
    done("snapshot", "hold", store, "one", "me", "--seconds", "0.001")
    done("snapshot", "delete", store, "one")
    for options in (("me", "--seconds", "-1"), ("me", "--seconds", "nan"), ("",)):
        refused("snapshot", "hold", store, "two", *options, status=2)


def test_rename(store: Path) -> None:
    guid = rows("snapshot", "list", store)[0]["guid"]
    assert done("snapshot", "rename", store, "one", "eins") == ""
    assert rows("snapshot", "list", store)[0]["guid"] == guid and names(store) == ["eins", "two", "three"]
    assert "exists" in refused("snapshot", "rename", store, "eins", "two")
    assert "no snapshot named 'one'" in refused("snapshot", "rename", store, "one", "uno")


def test_restore(store: Path) -> None:
    assert "repeat with --yes" in refused("snapshot", "restore", store, "one")
    would = done("snapshot", "restore", store, "one", "--dry-run")
    assert would == "would take a snapshot of the active state, and undo 1 modified\n"
    assert names(store) == ["one", "two", "three"] and done("cat", store, "/f").startswith("three")
    assert "'before-restore-one'" in done("snapshot", "restore", store, "one", "--yes")
    assert done("cat", store, "/f") == "one" * 3000
    assert names(store) == ["one", "two", "three", "before-restore-one"]
    done("snapshot", "restore", store, "before-restore-one", "--yes", "--undo-name", "undo")
    assert done("cat", store, "/f") == "three" * 3000 and names(store)[-1] == "undo"
    status, seen = on_terminal("snapshot", "restore", store, "two", answer="yes\n")
    assert status == 0 and "back to two?" in seen and done("cat", store, "/f") == "two" * 3000
    assert "no snapshot named 'no'" in refused("snapshot", "restore", store, "no", "--yes")
    assert done("check", store).startswith("clean")


def test_diff(store: Path) -> None:
    with library.open(store) as fs:
        fs.write_bytes("/d/new", b"")
        fs.rename("/d", "/e")
        fs.chmod("/f", 0o600)
    found = rows("snapshot", "diff", store, "one")
    assert [(row["kind"], row["path"], row["new_path"], row["what"]) for row in found] == [
        ("modified", "/", None, ["entries"]),
        ("renamed", "/d", "/e", ["entries"]),
        ("added", "/e/new", None, []),
        ("modified", "/f", None, ["content", "attributes"]),
    ]
    lines = done("snapshot", "diff", store, "one", "two").splitlines()
    assert [line.split() for line in lines] == [
        ["KIND", "PATH", "NEW", "PATH", "WHAT"],
        ["modified", "/f", "-", "content"],
    ]
    assert "older one first" in refused("snapshot", "diff", store, "two", "one")


def test_a_snapshot_reads_as_it_was(store: Path) -> None:
    for name in ("one", "two", "three"):
        assert done("cat", f"{store}@{name}", "/f") == name * 3000
        assert done("ls", f"{store}@{name}", "/") == "d\nf\n"


def test_help_of_each_command() -> None:
    for word in ("create", "list", "delete", "rename", "restore", "diff", "hold", "release"):
        text = done("snapshot", word, "--help")
        assert text.startswith(f"usage: idemfs snapshot {word}") and "exit status: 0 done" in text
        ended = idemfs("snapshot", word)
        assert ended.status == 2 and ended.err.count("\n") == 1


def test_write_changes_one_snapshot(store: Path, tmp_path: Path) -> None:
    (tmp_path / "new").write_bytes(b"n" * 9000)
    before = {row["name"]: row["digest"] for row in rows("snapshot", "list", store)}
    guid = rows("snapshot", "list", store)[1]["guid"]
    changes = ("--mkdir", "/a/b", "--put", tmp_path / "new", "/a/b/", "--rename", "/a/b/new", "/g", "--remove", "/f")
    assert done("snapshot", "write", store, "two", *changes).startswith("1 copied")
    after = {row["name"]: row["digest"] for row in rows("snapshot", "list", store)}
    assert [name for name in before if before[name] != after[name]] == ["two"]
    assert rows("snapshot", "list", store)[1]["guid"] != guid
    assert done("cat", f"{store}@two", "/g") == "n" * 9000
    assert done("cat", f"{store}@one", "/f") == "one" * 3000
    done("snapshot", "write", store, "two", "--remove", "/a")
    assert done("ls", f"{store}@two", "/").split() == ["d", "g"]
    assert done("check", store, "--data").startswith("clean")


def test_write_refuses(store: Path, tmp_path: Path) -> None:
    assert "say what to change: --put" in refused("snapshot", "write", store, "two", status=2)
    assert "no snapshot named 'no'" in refused("snapshot", "write", store, "no", "--mkdir", "/x")
    assert "No such file" in refused("snapshot", "write", store, "two", "--mkdir", "/x", "--put", tmp_path / "no", "/")
    assert "/nothing: No such file" in refused("snapshot", "write", store, "two", "--remove", "/nothing")
    done("snapshot", "hold", store, "two", "backup")
    assert "is held by backup as it is" in refused("snapshot", "write", store, "two", "--mkdir", "/x")
    assert "is held by backup as it is" in refused("snapshot", "refresh", store, "two", "--yes")
    done("snapshot", "release", store, "two", "backup")
    assert done("ls", f"{store}@two", "/").split() == ["d", "f"]


def test_the_base_of_a_standby_is_not_written_to(store: Path, tmp_path: Path) -> None:
    done("standby", "add", store, tmp_path / "standby")
    done("replicate", store)
    newest = names(store)[-1]
    assert "bring the standby to a newer one first" in refused("snapshot", "write", store, newest, "--mkdir", "/x")
    assert "write to its primary" in refused("snapshot", "write", tmp_path / "standby", "one", "--mkdir", "/x")
    done("snapshot", "write", store, "one", "--mkdir", "/x")
    assert done("ls", f"{tmp_path / 'standby'}@one", "/").split() == ["d", "f"]


def test_refresh(store: Path) -> None:
    digests = {row["name"]: row["digest"] for row in rows("snapshot", "list", store)}
    assert "is not newer than" in refused("snapshot", "refresh", store, "two", "--to", "one", "--yes")
    assert "repeat with --yes" in refused("snapshot", "refresh", store, "one")
    out = done("snapshot", "refresh", store, "one", "--to", "two", "--yes")
    assert out.split()[0] == "one" and out.split()[2] == digests["two"]
    assert done("cat", f"{store}@one", "/f") == "two" * 3000
    out = done("snapshot", "refresh", store, "two", "--yes")
    assert names(store) == ["one", "three", "two"]
    assert done("cat", f"{store}@two", "/f") == "three" * 3000
    assert done("check", store).startswith("clean")
