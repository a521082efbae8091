"""The fileset commands as processes, and snapshots named with their filesets."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import idemfs as library
from tests.e2e.program import done, refused, rows

IDEMFS = [sys.executable, "-m", "idemfs"]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Filesets ``home`` at /home and ``tmp`` at /home/tmp, with a file in each."""
    path = tmp_path / "store"
    library.create(path, block_size=4096).close()
    assert done("fileset", "create", path, "/home").split() == ["home", "/home"]
    done("fileset", "create", path, "/home/scratch", "--name", "tmp", "--compression", "none")
    with library.open(path) as fs:
        for where in ("", "/home", "/home/scratch"):
            fs.write_bytes(f"{where}/f", (where or "root").encode() * 2000)
    return path


def test_list(store: Path) -> None:
    found = rows("fileset", "list", store)
    assert [(row["name"], row["path"], row["inodes"]) for row in found] == [
        ("root", "/", 3),
        ("home", "/home", 3),
        ("tmp", "/home/scratch", 2),
    ]
    assert [row["compression"] for row in found] == ["store", "store", "none"]
    assert all(row["active_bytes"] > 8000 and not row["snapshots"] for row in found)
    lines = done("fileset", "list", store).splitlines()
    assert lines[0].split()[:3] == ["NAME", "PATH", "INODES"] and len(lines) == 4


def test_rename_and_attach(store: Path) -> None:
    done("fileset", "rename", store, "tmp", "scratch")
    assert "a fileset named 'home' exists" in refused("fileset", "rename", store, "scratch", "home")
    assert "no fileset named 'tmp'" in refused("fileset", "attach", store, "tmp", "/x")
    with library.open(store) as fs:
        fs.mkdir("/x")
    done("fileset", "attach", store, "scratch", "/x")
    assert [row["path"] for row in rows("fileset", "list", store)] == ["/", "/home", "/x"]


def test_snapshots_of_several_filesets(store: Path) -> None:
    out = done("snapshot", "create", store, "home@x", "y").splitlines()
    assert [line.split()[0] for line in out] == ["home@x", "y"]
    done("snapshot", "create", store, "*@all", "--exclude", "t*")
    assert [row["name"] for row in rows("snapshot", "list", store)] == ["y", "all"]
    assert [row["name"] for row in rows("snapshot", "list", store, "home")] == ["x", "all"]
    every = [(row["fileset"], row["name"]) for row in rows("snapshot", "list", store, "*")]
    assert every == [("home", "x"), ("root", "y"), ("root", "all"), ("home", "all")]
    assert done("snapshot", "list", store, "*").splitlines()[0].split()[:2] == ["FILESET", "NAME"]
    assert done("cat", f"{store}@home@x", "/f") == "/home" * 2000
    assert done("ls", f"{store}@home@x", "/").split() == ["f", "scratch"]
    digest = rows("snapshot", "list", store, "home")[0]["digest"]
    assert done("digest", f"{store}@home@x").strip() == digest
    assert done("digest", store, "home@x", "--recompute").strip() == digest
    assert done("digest", store, "home@", "--recompute").strip() == digest
    done("snapshot", "hold", store, "home@x", "me")
    assert "held by me" in refused("snapshot", "delete", store, "home@x", "y")
    done("snapshot", "release", store, "home@x", "me")
    done("snapshot", "rename", store, "home@x", "z")
    assert "restored; 'home@before-restore-z'" in done("snapshot", "restore", store, "home@z", "--yes")
    done("snapshot", "delete", store, "home@z", "y")
    assert [row["name"] for row in rows("snapshot", "list", store, "home")] == ["all", "before-restore-z"]
    assert done("check", store, "--data").startswith("clean")


def sent(store: Path, *words: str) -> bytes:
    return subprocess.run([*IDEMFS, "send", store, *words], check=True, stdout=subprocess.PIPE).stdout


def test_filesets_are_sent_and_received_beside_others(store: Path, tmp_path: Path) -> None:
    done("snapshot", "create", store, "*@x")
    full = sent(store, "home@x")
    with library.open(store) as fs:
        fs.write_text("/home/f", "2")
    done("snapshot", "create", store, "home@y")
    more = sent(store, "home@y", "--base", "x")
    for peer, words in ((tmp_path / "one", ()), (tmp_path / "two", ("--fileset", "copy"))):
        for stream in (full, more):
            subprocess.run([*IDEMFS, "receive", peer, *words], input=stream, check=True, stdout=subprocess.PIPE)
        name = words[-1] if words else "home"
        assert [row["name"] for row in rows("fileset", "list", peer)] == ["root", name]
        assert (
            rows("snapshot", "list", peer, name)[-1]["digest"] == rows("snapshot", "list", store, "home")[-1]["digest"]
        )
        assert done("cat", f"{peer}@{name}@y", "/f") == "2"
        assert done("check", peer).startswith("clean")
    again = subprocess.run([*IDEMFS, "receive", tmp_path / "two"], input=full, capture_output=True, check=False)
    assert again.returncode == 0 and b"copy@x is here already" in again.stdout
    other = tmp_path / "other"
    done("init", other)
    done("standby", "add", other, tmp_path / "three")
    stranger = subprocess.run([*IDEMFS, "receive", tmp_path / "three"], input=full, capture_output=True, check=False)
    assert stranger.returncode == 1 and b"--fileset NAME" in stranger.stderr


def test_all_filesets_are_replicated_and_roles_move_with_all(store: Path, tmp_path: Path) -> None:
    peer = tmp_path / "peer"
    done("snapshot", "create", store, "*@x")
    done("standby", "add", store, peer)
    done("replicate", store)
    assert [row["fileset_count"] for row in rows("status", store)] == [3, 3]
    assert_equal(store, peer)
    assert done("ls", peer, "/home").split() == ["f", "scratch"]
    assert "standby" in refused("fileset", "create", peer, "/more")
    with library.open(store) as fs:
        fs.write_text("/home/unsent", "only here")
    done("failover", peer, "--yes")
    with library.open(peer) as fs:
        fs.write_text("/home/scratch/late", "2")
        fs.filesets.create("/home/more")
        fs.filesets["home"].set_quota(1 << 30)
    would = done("failback", store, "--dry-run")
    assert "changes that are in no snapshot of fileset home" in would
    done("failback", store, "--yes")
    assert [row["name"] for row in rows("snapshot", "list", store, "home")][1] == "diverged-1"
    assert done("cat", f"{store}@home@diverged-1", "/unsent") == "only here"
    assert done("cat", store, "/home/scratch/late") == "2"
    assert rows("fileset", "list", store)[1]["quota_bytes"] == 1 << 30
    done("fileset", "delete", peer, "more", "--yes", "--held")
    done("replicate", peer)
    assert [row["name"] for row in rows("fileset", "list", store)] == ["root", "home", "tmp"]
    done("switchover", peer, "--yes")
    with library.open(store) as fs:
        fs.write_text("/home/again", "3")
    done("replicate", store)
    assert_equal(store, peer, without="diverged-1")


def assert_equal(one: Path, other: Path, without: str = "") -> None:
    """Every fileset has the same snapshots, and both stores are sound."""
    found = [
        [(row["fileset"], row["name"], row["digest"]) for row in rows("snapshot", "list", each, "*")]
        for each in (one, other)
    ]
    wanted = [sorted(row for row in each if row[1] != without) for each in found]
    assert wanted[0] == wanted[1]
    for each in (one, other):
        assert done("check", each, "--data").startswith("clean")


def test_delete(store: Path) -> None:
    assert "appear others, tmp" in refused("fileset", "delete", store, "home", "--yes")
    would = done("fileset", "delete", store, "tmp", "--dry-run")
    assert would.startswith("would delete fileset tmp at /home/scratch: 2 inodes, 0 snapshots, ")
    assert "repeat with --yes" in refused("fileset", "delete", store, "tmp")
    done("fileset", "delete", store, "tmp", "--yes")
    done("snapshot", "create", store, "home@x")
    done("snapshot", "hold", store, "home@x", "me")
    assert "are held: x" in refused("fileset", "delete", store, "home", "--yes")
    done("fileset", "delete", store, "home", "--yes", "--held")
    assert [row["name"] for row in rows("fileset", "list", store)] == ["root"]
    assert done("ls", store, "/").split() == ["f"] and done("check", store).startswith("clean")


def test_quota(store: Path) -> None:
    assert "no limit" in done("fileset", "quota", store, "home")
    assert "home: " in done("fileset", "quota", store, "home", "--bytes", "100KiB", "--inodes", "10")
    assert "of 100 KiB" in done("fileset", "quota", store, "home", "--snapshots", "count")
    row = rows("fileset", "list", store)[1]
    assert (row["quota_bytes"], row["quota_inodes"], row["quota_counts_snapshots"]) == (102400, 10, True)
    large = store.parent / "large"
    large.mkdir()
    (large / "file").write_bytes(os.urandom(200_000))
    assert "bytes left of its quota" in refused("put", store, large, "/home/large")
    assert "a quota is a number" in refused("fileset", "quota", store, "home", "--inodes", "-1", status=2)
    done("fileset", "quota", store, "home", "--bytes", "0", "--inodes", "0")
    done("put", store, large, "/home/large")
    assert done("check", store).startswith("clean")
