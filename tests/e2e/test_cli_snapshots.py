"""The snapshot commands as processes: what they do, print and return."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import idemfs as library
from tests.e2e.program import done, idemfs, lines, on_terminal, refused, rows


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
    for options in (("me", "--seconds", "-1"), ("me", "--seconds", "nan"), ("",), ("standby:me",)):
        refused("snapshot", "hold", store, "two", *options, status=2)
    said = refused("snapshot", "hold", store, "two", "me", "--until", "2001-02-03", status=2)
    assert "2001-02-03T00:00:00+00:00 is past" in said


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
    found = sorted(lines("snapshot", "diff", store, "one"), key=lambda row: row["path"])
    assert [(row["kind"], row["path"], row["new_path"], row["what"]) for row in found] == [
        ("modified", "/", None, ["entries"]),
        ("renamed", "/d", "/e", ["entries"]),
        ("added", "/e/new", None, []),
        ("modified", "/f", None, ["content", "mode"]),
    ]
    size = found[3]["size"]
    assert (found[3]["ranges"], found[3]["type"]) == ([[0, size]], "file")
    glance = lines("snapshot", "diff", store, "one", "--glance", "2")
    counts = ("path", "added", "renamed", "modified", "changed_bytes", "removed_bytes")
    assert [tuple(row[name] for name in counts) for row in glance] == [
        ("/", 0, 1, 1, size, 0),
        ("/e", 1, 0, 0, 0, 0),
        ("", 1, 1, 1, size, 0),
    ]
    assert done("snapshot", "diff", store, "one", "--glance").splitlines()[-1].split()[:2] == ["total", "1"]
    shown = done("snapshot", "diff", store, "one", "two").splitlines()
    assert [line.split() for line in shown] == [
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


def test_find(store: Path) -> None:
    found = rows("snapshot", "find", store, "/f")
    assert [(row["path"], row["snapshots"], row["is_active"]) for row in found] == [
        ("/f", [["one", "one"]], False),
        ("/f", [["two", "two"]], False),
        ("/f", [["three", "three"]], True),
    ]
    assert done("snapshot", "find", store, "f").splitlines()[1].split()[-3:] == ["one", "-", "/f"]
    assert "neither the active state nor a snapshot" in refused("snapshot", "find", store, "/none")


def test_list_says_what_keeps_a_snapshot(store: Path) -> None:
    assert all((row["holds"], row["locked_until"]) == ([], None) for row in rows("snapshot", "list", store))
    assert "KEPT" not in done("snapshot", "list", store)
    done("snapshot", "hold", store, "one", "backup")
    done("snapshot", "hold", store, "one", "tape", "--until", "2098-01-01")
    done("snapshot", "lock", store, "two", "2099-01-01", "--yes")
    found = {row["name"]: (row["holds"], row["locked_until"]) for row in rows("snapshot", "list", store)}
    backup, tape = {"owner": "backup", "until": None}, {"owner": "tape", "until": "2098-01-01T00:00:00Z"}
    assert found == {"one": ([backup, tape], None), "two": ([], "2099-01-01T00:00:00Z"), "three": ([], None)}
    lines_shown = done("snapshot", "list", store).splitlines()
    assert [line.split("  ")[-1] for line in lines_shown] == [
        "KEPT",
        "held by backup, held by tape until 2098-01-01T00:00:00Z",
        "locked until 2099-01-01T00:00:00Z",
        "-",
    ]
    with library.open(store) as fs:
        infos = [(info.holds, info.locked_until_ns) for info in fs.snapshots]
        assert infos == [(fs.snapshots.info(name).holds, fs.snapshots.info(name).locked_until_ns) for name in found]
        assert [owner for owner, _ in infos[0][0]] == ["backup", "tape"] and infos[1][1] > 0


def test_space(store: Path) -> None:
    info = json.loads(done("info", store, "--json"))["space"]
    total, allocated = info.pop("total"), info.pop("allocated")
    files = [entry for entry in store.rglob("*") if entry.is_file()]
    assert total == sum(info.values()) == sum(entry.stat().st_size for entry in files)
    assert allocated == sum(entry.stat().st_blocks * 512 for entry in files)
    shown = dict(line.rsplit("  ", 1) for line in done("info", store).split("\nbytes\n")[1].splitlines())
    shown = {name.strip(): size.strip() for name, size in shown.items()}
    assert shown["total"] == f"{total:,}" and shown["active data"] == f"{info['active_data']:,}"
    found = rows("snapshot", "space", store, "one", "two")
    assert [row["name"] for row in found] == ["one", "two", None]
    assert found[2]["owned_bytes"] == found[0]["owned_bytes"] + found[1]["owned_bytes"]
    assert found[2]["freed_bytes"] >= found[0]["freed_bytes"] + found[1]["freed_bytes"] > 0
    assert [row["name"] for row in rows("snapshot", "space", store)] == ["one", "two", "three", None]
    assert done("snapshot", "space", store).splitlines()[-1].startswith("together")


def test_purge(store: Path) -> None:
    before = {row["name"]: row["guid"] for row in rows("snapshot", "list", store)}
    assert "Nobody is here to be asked" in refused("snapshot", "purge", store, "/f")
    would = done("snapshot", "purge", store, "/f", "--dry-run")
    assert would == "would remove /f from 3 snapshots: one, two, three\n"
    done("snapshot", "hold", store, "two", "backup")
    assert "is held by backup" in refused("snapshot", "purge", store, "/f", "--yes")
    done("snapshot", "release", store, "two", "backup")
    assert {row["name"]: row["guid"] for row in rows("snapshot", "list", store)} == before
    content = done("cat", store, "/f")
    said = done("snapshot", "purge", store, "/f", "--yes", "--reason", "a key was in it")
    assert said == "removed /f, 1 inodes, from 3 snapshots\n"
    assert done("cat", store, "/f") == content
    for name in before:
        assert "/f" in refused("cat", f"{store}@{name}", "/f")
    after = {row["name"]: row["guid"] for row in rows("snapshot", "list", store)}
    assert list(after) == list(before) and not set(after.values()) & set(before.values())
    assert done("check", store).startswith("clean")
    (record,) = rows("snapshot", "purge", store, "--list")
    assert (record["path"], record["reason"], record["snapshots"]) == ("/f", "a key was in it", list(before))
    assert "a key was in it" in done("snapshot", "purge", store, "--list")
    assert len(rows("snapshot", "purge", store, "--list", "--fileset", record["fileset"])) == 1
    done("fileset", "create", store, "/other")
    assert rows("snapshot", "purge", store, "--list", "--fileset", "other") == []
    assert "no fileset named 'none'" in refused("snapshot", "purge", store, "--list", "--fileset", "none")
    assert "no snapshot has it" in refused("snapshot", "purge", store, "/f", "--yes")
    assert "name either" in refused("snapshot", "purge", store, status=2)
    done("snapshot", "create", store, "four")
    done("snapshot", "purge", store, "/f", "--yes", "--active")
    assert "/f" in refused("cat", store, "/f") and done("check", store).startswith("clean")
