"""``idemfs snapshot restore`` of a path: on a store, on one that is mounted, by an ordinary user through a mount."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import idemfs as library
from tests.conformance.mounted import idemfs, missing, mounted
from tests.e2e.program import done, refused, rows

NOBODY = 65534
_AS_NOBODY = """
import os, sys
import argparse, ctypes, json
from idemfs.cli import failures, main, parser, render, snapshot_restore
from idemfs.mount import restoring
from idemfs.store import peek
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
sys.exit(main.main(["snapshot", "restore", *sys.argv[1:]]))
"""
needs_mount = pytest.mark.skipif(missing() is not None, reason=missing() or "")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "store"
    with library.create(path, block_size=4096) as fs:
        fs.makedirs("/docs/deep")
        fs.write_bytes("/docs/a", b"old" * 5000)
        fs.write_bytes("/docs/deep/b", b"b")
        fs.link("/docs/a", "/docs/deep/a2")
        fs.snapshots.create("monday")
        fs.write_bytes("/docs/a", b"new")
        fs.write_bytes("/docs/more", b"m")
        fs.filesets.create("/home")
        fs.write_bytes("/home/mine", b"1")
    return path


def test_in_place_and_back(store: Path) -> None:
    would = done("snapshot", "restore", store, "monday", "/docs", "--dry-run")
    assert would == "would restore 4 inodes, remove 1 that the snapshot has not there\n"
    assert "repeat with --yes" in refused("snapshot", "restore", store, "monday", "/docs")
    said = done("snapshot", "restore", store, "monday", "/docs", "--yes").splitlines()
    assert said[-1] == "'before-restore-monday' is the state before"
    assert done("cat", store, "/docs/deep/a2") == "old" * 5000
    assert done("ls", store, "/docs").split() == ["a", "deep"]
    done("snapshot", "restore", store, "before-restore-monday", "/docs", "--yes")
    assert done("cat", store, "/docs/a") == "new"
    assert done("check", store, "--data").startswith("clean")


def test_elsewhere(store: Path) -> None:
    said = done("snapshot", "restore", store, "monday", "/docs/a", "--to", "/docs/a.monday")
    assert said == "restored 1 inode, gave 1 another inode number\n"
    assert done("cat", store, "/docs/a.monday") == "old" * 5000
    found = json.loads(done("snapshot", "restore", store, "monday", "/docs", "--to", "/home/docs", "--json"))
    assert found == {"inodes": 4, "renumbered": 1, "removed": 0, "undo": None}
    assert done("cat", store, "/home/docs/deep/a2") == "old" * 5000
    done("fileset", "create", store, "/empty")
    done("snapshot", "restore", store, "monday", "/", "--to-fileset", "empty")
    assert done("ls", store, "/empty/docs").split() == ["a", "deep"]
    assert [row["name"] for row in rows("snapshot", "list", store)] == ["monday"]
    assert done("check", store, "--data").startswith("clean")


def test_refusals(store: Path) -> None:
    assert "File exists" in refused("snapshot", "restore", store, "monday", "/docs", "--to", "/home/mine")
    assert "not empty" in refused("snapshot", "restore", store, "monday", "/", "--to-fileset", "home")
    assert "No such file" in refused("snapshot", "restore", store, "monday", "/none", "--yes")
    assert "name what is to be restored" in refused("snapshot", "restore", store, "monday", "--to", "/x", status=2)
    assert "no fileset named 'no'" in refused("snapshot", "restore", store, "monday", "/", "--to-fileset", "no")


@pytest.fixture
def at(store: Path, tmp_path: Path) -> Iterator[Path]:
    """The store, mounted, with a directory of an ordinary user's in it, and a snapshot of both."""
    with mounted(store, tmp_path / "mount") as at:
        os.chmod(at, 0o755)
        (at / "mine/in").mkdir(parents=True)
        (at / "mine/f").write_text("f" * 10_000)
        (at / "mine/in/g").write_text("g")
        os.link(at / "mine/f", at / "mine/in/f2")
        os.symlink("../f", at / "mine/in/s")
        with open(at / "mine/holes", "wb") as file:
            file.seek(1 << 20)
            file.write(b"end")
        for path in (at / "mine", *(at / "mine").rglob("*")):
            os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
        os.setxattr(at / "mine/f", "user.x", b"1")
        os.chmod(at / "mine/in", 0o2750)
        os.utime(at / "mine/f", ns=(5, 1_000_000_007))
        (at / "secret").write_text("s")
        os.chmod(at / "secret", 0o600)
        os.mkdir(at / ".snapshots/then")
        yield at


def as_nobody(at: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", _AS_NOBODY, *words]
    return subprocess.run(command, cwd=at, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)


@needs_mount
def test_a_mounted_store_shows_at_once_what_was_restored(at: Path, store: Path) -> None:
    assert (at / "docs/a").read_text() == "new" and os.listdir(at / "docs") != []
    idemfs("snapshot", "restore", store, "monday", "/docs", "--yes")
    assert (at / "docs/a").read_text() == "old" * 5000
    assert sorted(os.listdir(at / "docs")) == ["a", "deep"]
    assert os.stat(at / "docs/a").st_ino == os.stat(at / "docs/deep/a2").st_ino


@needs_mount
def test_an_ordinary_user_restores_what_is_its_own(at: Path) -> None:
    (at / "mine/f").write_text("changed")
    (at / "mine/in/more").write_text("m")
    (at / "mine/in/g").unlink()
    would = as_nobody(at, ".", "then", "mine", "--dry-run")
    assert (would.returncode, would.stdout, would.stderr) == (0, "would copy 7 names\n", "")
    # The root of the mount, where the name of the directory stands, is not this user's.
    refusal = as_nobody(at, ".", "then", "mine", "--yes")
    assert refusal.returncode == 1 and "Permission denied" in refusal.stderr
    for path in ("mine/in", "/mine/f"):
        ended = as_nobody(at, ".", "then", path, "--yes")
        assert (ended.returncode, ended.stderr) == (0, ""), ended.stderr
    assert (at / "mine/f").read_text() == "f" * 10_000
    assert sorted(os.listdir(at / "mine/in")) == ["f2", "g", "s"]
    assert os.readlink(at / "mine/in/s") == "../f"
    status = os.stat(at / "mine/f")
    assert (status.st_uid, status.st_mtime_ns) == (NOBODY, 1_000_000_007)
    assert os.getxattr(at / "mine/f", "user.x") == b"1"
    assert stat.S_IMODE(os.stat(at / "mine/in").st_mode) == 0o2750
    assert sorted(os.listdir(at / "mine")) == ["f", "holes", "in"]
    assert sorted(os.listdir(at / ".snapshots")) == ["latest", "monday", "then"]
    ended = as_nobody(at, ".", "then", "mine/holes", "--to", "mine/holes.then", "--json")
    assert ended.stdout == '{"names": 1, "undo": null, "left": null}\n'
    assert (at / "mine/holes.then").read_bytes() == bytes(1 << 20) + b"end"
    assert os.stat(at / "mine/holes.then").st_blocks * 512 < 1 << 20


@needs_mount
def test_what_the_user_may_not_read_or_write_is_refused_and_nothing_is_left(at: Path) -> None:
    for words in (("secret", "--to", "mine/s"), ("mine/f", "--to", "docs/f"), ("docs", "--yes")):
        ended = as_nobody(at, ".", "then", *words)
        assert ended.returncode == 1 and "Permission denied" in ended.stderr
    ended = as_nobody(at, ".", "then", "mine/f", "--to", "mine/in")
    assert ended.returncode == 1 and "File exists" in ended.stderr
    assert sorted(os.listdir(at / "mine")) == ["f", "holes", "in"]
    assert sorted(os.listdir(at / "docs")) == ["a", "deep", "more"]


@needs_mount
def test_the_owner_of_the_mount_can_undo_it(at: Path) -> None:
    os.chmod(at / "mine/in", 0o700)
    ended = idemfs("snapshot", "restore", at, "then", "mine", "--yes")
    assert ended.stdout == "restored 7 names\n'before-restore-then' is the state before\n"
    assert stat.S_IMODE(os.stat(at / "mine/in").st_mode) == 0o2750
    assert os.stat(at / "mine/in/g").st_uid == NOBODY
    assert os.stat(at / "mine/in/f2").st_nlink == 2
    ended = idemfs("snapshot", "restore", at, "before-restore-then", "mine", "--yes")
    assert stat.S_IMODE(os.stat(at / "mine/in").st_mode) == 0o700


@needs_mount
def test_latest_is_what_was_the_newest_before_one_was_taken(at: Path) -> None:
    (at / "mine/f").write_text("changed")
    idemfs("snapshot", "restore", at, "latest", "mine/f", "--yes")
    assert (at / "mine/f").read_text() == "f" * 10_000


@needs_mount
def test_what_names_no_snapshot_or_leads_out_of_it_is_refused(at: Path) -> None:
    before = sorted(os.listdir(at / ".snapshots"))
    for name, path in (("..", "mine/f"), (".", "then/mine/f"), ("", "then/mine/f"), ("then/mine", "f"), ("no", "mine")):
        ended = idemfs("snapshot", "restore", at, name, path, "--yes", check=False)
        assert ended.returncode == 1 and "no snapshot has this name" in ended.stderr and ended.stderr.count("\n") == 1
    ended = idemfs("snapshot", "restore", at, "then", "../../mine/f", "--yes", check=False)
    assert ended.returncode == 1 and "without '..'" in ended.stderr
    assert sorted(os.listdir(at / ".snapshots")) == before


@needs_mount
@pytest.mark.parametrize(
    "link", ["inside", "absolute", "above", "twice", "to_host", "to_mount", "round", "gone", "file"]
)
def test_symlinks_on_the_way_lead_where_the_store_has_them_lead(at: Path, store: Path, link: str) -> None:
    """Never out of the snapshot: neither to what the mount has there now, nor to files of the machine."""
    outside = at.parent / "outside"
    outside.mkdir()
    (outside / "hostname").write_text("of the machine")
    targets = {
        "inside": "real",
        "absolute": "/real",
        "above": "../../../real",
        "twice": "./inside/../absolute/",
        "to_host": str(outside),
        "to_mount": f"{at}/real",
        "round": "round",
        "gone": "none",
        "file": "real/hostname",
    }
    (at / "real").mkdir()
    (at / "real/hostname").write_text("old")
    for name, target in targets.items():
        os.symlink(target, at / name)
    os.mkdir(at / ".snapshots/links")
    found = []
    for given, path in ((at, link), (store, f"/{link}")):
        (at / "real/hostname").write_text("new")
        to = f"{path}/by-{given.name}"
        here = idemfs("snapshot", "restore", given, "links", f"{path}/hostname", "--yes", check=False)
        there = idemfs("snapshot", "restore", given, "links", f"{path}/hostname", "--to", to, check=False)
        text = here.stderr.rpartition(": ")[2], there.stderr.rpartition(": ")[2]
        found.append((here.returncode, there.returncode, text, (at / "real/hostname").read_text()))
        assert (at / f"real/by-{given.name}").exists() == (there.returncode == 0)
    assert found[0] == found[1]
    leads = link in ("inside", "absolute", "above", "twice")
    assert found[0][::3] == (0 if leads else 1, "old" if leads else "new")
    assert [path.name for path in outside.iterdir()] == ["hostname"]


@needs_mount
def test_in_place_is_where_the_snapshot_has_it_and_nowhere_else(at: Path, store: Path) -> None:
    """A directory that has become a symlink since is no longer there."""
    os.rename(at / "mine", at / "moved")
    os.symlink("moved", at / "mine")
    (at / "moved/f").write_text("changed")
    before = sorted(os.listdir(at / ".snapshots"))
    for given, path in ((at, "mine/f"), (store, "/mine/f")):
        ended = idemfs("snapshot", "restore", given, "then", path, "--yes", check=False)
        assert ended.returncode == 1 and "is there no more; restore that, or elsewhere" in ended.stderr
    assert (at / "moved/f").read_text() == "changed"
    assert sorted(os.listdir(at / ".snapshots")) == before
    idemfs("snapshot", "restore", at, "then", "mine/f", "--to", "mine/f.then")
    assert (at / "moved/f.then").read_text() == "f" * 10_000


@needs_mount
def test_where_it_goes_is_inside_and_can_be_written(at: Path) -> None:
    for to, said in (("../f", "without '..'"), ("mine/.", "not the root"), (".snapshots/f", "Read-only file system")):
        ended = idemfs("snapshot", "restore", at, "then", "mine/f", "--to", to, check=False)
        assert ended.returncode == 1 and said in ended.stderr
    assert sorted(os.listdir(at / ".snapshots")) == ["latest", "monday", "then"]


@needs_mount
def test_what_a_quota_ends_leaves_nothing_and_names_the_file(at: Path, store: Path) -> None:
    idemfs("fileset", "create", store, "/full")
    (at / "full/d").mkdir()
    for number in range(20):
        (at / f"full/d/{number}").write_bytes(os.urandom(20_000))
    os.mkdir(at / "full/.snapshots/two")
    shutil.rmtree(at / "full/d")
    idemfs("fileset", "quota", store, "full", "--bytes", "200KiB")
    ended = idemfs("snapshot", "restore", at / "full", "two", "d", "--yes", check=False)
    assert ended.returncode == 1
    assert re.fullmatch(rf"idemfs: {at}/full/d/\d+: Disk quota exceeded\n", ended.stderr)
    assert os.listdir(at / "full") == [] and sorted(os.listdir(at / "full/.snapshots")) == ["latest", "two"]


@needs_mount
def test_a_fileset_in_the_way_is_not_emptied(at: Path, store: Path) -> None:
    (at / "docs/home").mkdir()
    idemfs("fileset", "create", store, "/docs/home", "--name", "inner")
    (at / "docs/home/kept").write_text("1")
    ended = idemfs("snapshot", "restore", at, "monday", "docs", "--yes", check=False)
    assert ended.returncode == 1 and "a fileset appears here" in ended.stderr
    ended = idemfs("snapshot", "restore", store, "monday", "/docs", "--yes", check=False)
    assert ended.returncode == 1 and "'inner' appears in what would go" in ended.stderr
    assert (at / "docs/home/kept").read_text() == "1"
