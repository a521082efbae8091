"""Drills and mounts of one fileset: commands, real mounts, processes that are killed."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import idemfs as library
from idemfs.engines.lock import owner
from tests.conformance.mounted import idemfs, missing, mounted
from tests.e2e.ending import kill, wait_for_end
from tests.e2e.program import done, refused, rows
from tests.e2e.serving import is_mounted, served, table
from tests.e2e.test_handles import handle_of, opened

needs_mount = pytest.mark.skipif(missing() is not None, reason=missing() or "")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """``A`` with filesets ``home`` and in it ``deep``, and its standby ``B``, which has all of it."""
    before = os.getcwd()
    os.chdir(tmp_path)
    done("init", "A", "--block-size", "4KiB")
    done("fileset", "create", "A", "/home")
    done("fileset", "create", "A", "/home/deep")
    with library.open("A") as fs:
        for path in ("/f", "/home/f", "/home/deep/f"):
            fs.write_bytes(path, b"1" * 9000)
    done("standby", "add", "A", "B")
    done("replicate", "A")
    yield tmp_path
    for store in "AB":
        assert "clean" in done("check", store, "--data")
    os.chdir(before)


def denied(number: int, call: Callable[[], object]) -> None:
    with pytest.raises(OSError) as caught:
        call()
    assert caught.value.errno == number


def write(store: str, path: str, data: bytes) -> None:
    with library.open(store) as fs:
        fs.write_bytes(path, data)


def pass_on(name: str, base: str) -> None:
    """What the primary has by now goes to the standby, which a mount may own, as a stream of the root fileset."""
    done("snapshot", "create", "A", name)
    sending = subprocess.Popen(
        [sys.executable, "-m", "idemfs", "send", "A", "--base", base, name], stdout=subprocess.PIPE
    )
    receiving = [sys.executable, "-m", "idemfs", "receive", "B"]
    subprocess.run(receiving, stdin=sending.stdout, check=True, capture_output=True)
    assert sending.stdout is not None
    sending.stdout.close()
    assert sending.wait() == 0


# -- commands ------------------------------------------------------------------------------------------


def test_a_drill_from_the_command_line(place: Path) -> None:
    plan = done("drill", "start", "B", "--dry-run")
    assert "as fileset drill.deep" in plan and "a failover, failback or switchover neither ends it" in plan
    assert rows("drill", "list", "B") == []
    assert done("drill", "start", "B").startswith("drill  of auto-")
    first = rows("snapshot", "list", "B")[0]["name"]
    done("drill", "start", "B", "friday", "--snapshot", f"home@{first}")
    (drill, friday) = rows("drill", "list", "B")
    assert drill["filesets"] == ["drill", "drill.home", "drill.deep"] and drill["snapshot"] == first
    assert friday["filesets"] == ["friday", "friday.deep"] and friday["snapshot"] == f"home@{first}"
    assert drill["active_bytes"] == 0

    with library.open("B") as fs:
        files = fs.drills["drill"].files
        files.write_bytes("/home/deep/f", b"2" * 9000)
        assert files.read_bytes("/f") == fs.read_bytes("/f") == b"1" * 9000
        assert fs.read_bytes("/home/deep/f") == b"1" * 9000
    assert rows("drill", "list", "B")[0]["active_bytes"] > 8000
    write("A", "/f", b"3")
    done("replicate", "A")
    assert done("cat", "B", "/f") == "3"
    with library.open("B") as fs:
        assert fs.drills["drill"].files.read_bytes("/f") == b"1" * 9000

    assert "no drill named" in refused("drill", "end", "B", "home")
    assert "is no standby" in refused("drill", "start", "A")
    assert "exists; choose another name" in refused("drill", "start", "B", "friday")
    done("failover", "B", "--yes")
    assert len(rows("drill", "list", "B")) == 2
    assert "would end drill: drill, drill.home, drill.deep" in done("drill", "end", "B", "drill", "--dry-run")
    for name in ("drill", "friday"):
        done("drill", "end", "B", name)
    assert rows("drill", "list", "B") == []
    assert [row["name"] for row in rows("fileset", "list", "B")] == ["root", "home", "deep"]


def test_what_diverged_from_the_command_line(place: Path) -> None:
    write("A", "/unsent", b"4" * 5000)
    done("failover", "B", "--yes")
    done("failback", "A", "--yes")
    (row, _) = rows("status", "A")
    assert row["unreleased_snapshots"] == 1 and row["unreleased_bytes"] > 5000
    assert "1 snapshot diverged" in row["remarks"] and "idemfs diverged list A" in row["remarks"]
    (left,) = rows("diverged", "list", "A")
    assert (left["name"], left["epoch"], left["files"], left["changed_bytes"]) == ("diverged-1", 1, 1, 5000)
    assert "/unsent" in done("snapshot", "diff", "A", left["since"], "diverged-1")
    assert done("cat", "A@diverged-1", "/unsent") == "4" * 5000
    assert "would report no more" in done("diverged", "release", "A", "diverged-1", "--dry-run")
    assert "repeat with --yes" in refused("diverged", "release", "A", "diverged-1", "--delete")
    done("diverged", "release", "A", "diverged-1")
    assert rows("diverged", "list", "A") == [] and rows("status", "A")[0]["remarks"] == ""
    assert "diverged-1" in done("snapshot", "list", "A")
    assert "not reported as diverged" in refused("diverged", "release", "A", "diverged-1", "--delete", "--yes")


# -- mounts --------------------------------------------------------------------------------------------


@needs_mount
def test_a_mounted_drill_while_its_standby_receives_takes_over_and_is_killed(place: Path) -> None:
    at = place / "drill"
    at.mkdir()
    first = rows("snapshot", "list", "B")[0]["name"]
    done("drill", "start", "B", "test", "--mount", "drill")
    assert sorted(str(each.relative_to(at)) for each in at.rglob("f")) == ["f", "home/deep/f", "home/f"]
    (at / "home/deep/f").write_bytes(b"2" * 9000)
    (at / "new").mkdir()
    os.mkdir(at / ".snapshots/mine")
    with open(at / "log", "wb", buffering=0) as log:
        log.write(b"synced")
        os.fsync(log.fileno())

    # The standby goes on, through the process that shows the drill.
    write("A", "/f", b"3" * 100)
    pass_on("second", first)
    assert done("cat", "B", "/f") == "3" * 100 and (at / "f").read_bytes() == b"1" * 9000
    with open(at / "log", "ab", buffering=0) as log:
        log.write(b", and again")
        os.fsync(log.fileno())
        # Beside what is synced, something that is not.
        (at / "unsynced").write_text("1")
        kill(place / "B")
    assert "clean" in done("check", "B", "--data")

    idemfs("mount", "B", "drill", "--fileset", "test")
    assert (at / "log").read_bytes() == b"synced, and again"
    assert (at / "home/deep/f").read_bytes() == b"2" * 9000 and os.listdir(at / "new") == []
    assert "mounted there already" in refused("drill", "start", "B", "other", "--mount", "drill")
    assert [row["name"] for row in rows("drill", "list", "B")] == ["test"]
    beside = place / "beside"
    beside.mkdir()
    done("drill", "start", "B", "other", "--mount", "beside")
    assert (beside / "f").read_bytes() == b"3" * 100
    # The process goes on with the mount that is left.
    idemfs("umount", "beside")
    assert os.listdir(beside) == [] and len(rows("drill", "list", "B")) == 2
    done("drill", "mount", "B", "other", "beside")
    done("drill", "end", "B", "other")
    assert os.listdir(beside) == [] and (at / "new").is_dir()
    write("A", "/f", b"4" * 100)
    pass_on("third", "second")

    done("failover", "B", "--yes")
    (at / "after").write_text("a drill goes on")
    assert (at / "f").read_bytes() == b"1" * 9000
    pid = owner(str(place / "B"))
    assert pid
    done("drill", "end", "B", "test")
    # With the drill its mount goes, and the process.
    wait_for_end(pid)
    assert os.listdir(at) == []
    assert done("cat", "B", "/f") == "4" * 100


@needs_mount
def test_a_mount_of_one_fileset_shows_it_and_what_appears_in_it_alone(place: Path) -> None:
    (place / "mount").mkdir()
    with mounted(place / "A", place / "mount") as at:
        os.mkdir(at / ".snapshots/whole")
        outside = [handle_of(at / name) for name in ("f", ".snapshots/whole/f", ".snapshots")]
        inside = handle_of(at / "home/deep/f")
    with mounted(place / "A", place / "mount", "--fileset", "home") as at:
        assert sorted(os.listdir(at)) == ["deep", "f"] and os.stat(at).st_ino == 1
        assert os.path.samefile(at / "deep/..", at)
        (at / "f").write_text("changed")
        (at / "deep/g").write_text("new")
        os.mkdir(at / ".snapshots/mine")
        assert "mine" in os.listdir(at / ".snapshots")
        for handle in outside:
            denied(errno.ESTALE, lambda handle=handle: opened(at, handle).__enter__())  # type: ignore[misc]
        with opened(at, inside) as fd:
            assert os.read(fd, 1) == b"1"
        # Another one is mounted besides, until it appears in this mount.
        beside = place / "beside"
        beside.mkdir()
        done("snapshot", "clone", "A", "home@mine", "/side")
        idemfs("mount", "A", "beside", "--fileset", "side")
        (beside / "f").write_text("of the clone")
        (at / "there").mkdir()
        done("fileset", "attach", "A", "side", "/home/there")
        assert os.listdir(beside) == [] and (at / "there/f").read_text() == "of the clone"
        assert "mine" in done("snapshot", "list", "A", "home") and "mine" not in done("snapshot", "list", "A")
    assert done("cat", "A", "/home/f") == "changed" and done("cat", "A", "/home/deep/g") == "new"
    assert "no fileset named" in refused("mount", "A", "mount", "--fileset", "other")
    assert "--snapshot FILESET@NAME" in refused("mount", "A", "mount", "--fileset", "home", "--snapshot", "x", status=2)


@needs_mount
def test_a_mount_of_one_fileset_of_a_standby_moves_on(place: Path) -> None:
    (place / "mount").mkdir()
    first = rows("snapshot", "list", "B", "home")[0]["name"]
    with mounted(place / "B", place / "mount", "-o", "fileset=home") as at:
        assert (at / "f").read_bytes() == b"1" * 9000
        denied(errno.EROFS, lambda: (at / "f").write_text("x"))
        write("A", "/home/f", b"2")
        done("snapshot", "create", "A", "home@second")
        with open(place / "stream", "wb") as stream:
            command = [sys.executable, "-m", "idemfs", "send", "A", "--base", f"home@{first}", "home@second"]
            subprocess.run(command, stdout=stream, check=True)
        with open(place / "stream", "rb") as stream:
            subprocess.run([sys.executable, "-m", "idemfs", "receive", "B"], stdin=stream, check=True, text=True)
        assert (at / "f").read_bytes() == b"2" and os.listdir(at / "deep") == ["f"]
        assert os.readlink(at / ".snapshots/latest") == "second"


@needs_mount
def test_a_drill_that_cannot_be_mounted_is_not_there(place: Path) -> None:
    assert "Not a directory" in refused("drill", "start", "B", "test", "--mount", "nowhere")
    assert rows("drill", "list", "B") == []


@needs_mount
def test_the_process_of_a_drill_ends_with_it_also_when_files_are_open(place: Path) -> None:
    at = place / "drill"
    at.mkdir()
    done("drill", "start", "B", "test", "--mount", "drill")
    pid = owner(str(place / "B"))
    assert pid
    with open(at / "f", "rb", buffering=0) as file:
        assert file.read(1) == b"1"
        done("drill", "end", "B", "test")
        wait_for_end(pid)
        denied(errno.ENOTCONN, lambda: os.fstat(file.fileno()).st_size and file.read(1))
    assert os.listdir(at) == [] and rows("drill", "list", "B") == []


@needs_mount
def test_a_served_standby_shows_drills_and_snapshots_besides(place: Path) -> None:
    """Its own mount and its replication go on; a restart leaves the drill, and not its mount."""
    own, at, old = place / "own", place / "drill", place / "old"
    for directory in (own, at, old):
        directory.mkdir()
    config = place / "n.toml"
    config.write_text('[node]\nname = "n"\n' + table(place / "B", own))
    first = rows("snapshot", "list", "B")[0]["name"]
    with served(config):
        done("drill", "start", "B", "test", "--mount", "drill")
        idemfs("mount", "B", "old", "--snapshot", first)
        (at / "f").write_text("tried")
        pass_on("second", first)
        write("A", "/f", b"3" * 100)
        pass_on("third", "second")
        assert (own / "f").read_bytes() == b"3" * 100 and (old / "f").read_bytes() == b"1" * 9000
        assert (at / "f").read_text() == "tried"
        assert "mount --bind" in refused("mount", "B", str(place), "--fileset", "home")
        assert "in use by process" in refused("mount", "B", str(place))
        remarks = done("node", "status", "--config", str(config))
        assert f"fileset test on {at}" in remarks and f"snapshot {first} on {old}" in remarks
        idemfs("umount", "old")
        assert os.listdir(old) == [] and is_mounted(own) and is_mounted(at)
        done("drill", "start", "B", "other")
        done("drill", "mount", "B", "other", "old")
        with open(old / "f", "rb", buffering=0) as file:
            done("drill", "end", "B", "other")
            denied(errno.ENOTCONN, lambda: file.read(1))
        assert os.listdir(old) == [] and is_mounted(at)
    assert not is_mounted(at) and not is_mounted(own)
    with served(config):
        assert os.listdir(at) == [] and [row["name"] for row in rows("drill", "list", "B")] == ["test"]
        done("drill", "mount", "B", "test", "drill")
        assert (at / "f").read_text() == "tried"
        done("drill", "end", "B", "test")
        assert not is_mounted(at) and is_mounted(own)
    told = [row["what"] for row in rows("history", "B") if row["what"].startswith("drill")]
    assert told == ["drill start", "drill start", "drill end", "drill end"]
