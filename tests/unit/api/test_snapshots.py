"""Snapshots by name: reading, deleting, restoring, holding."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from datetime import UTC

import pytest

from idemfs import FileSystem
from idemfs.errors import BadSnapshotName, FilesetMissing, SnapshotExists, SnapshotHeld, SnapshotMissing
from idemfs.ids import ROOT_FILESET
from idemfs.snapshots import manage
from idemfs.testing.builders import assert_clean, memory_store
from idemfs.testing.clock import Simulated
from idemfs.vfs.tree import Tree


@pytest.fixture
def clock() -> Simulated:
    return Simulated()


@pytest.fixture
def fs(clock: Simulated) -> Iterator[FileSystem]:
    with FileSystem(Tree(memory_store(clock=clock))) as fs:
        yield fs
        fs.sync()
        assert_clean(fs.tree)


def names(fs: FileSystem) -> list[str]:
    return [info.name for info in fs.snapshots]


def test_what_is_told_of_a_snapshot(fs: FileSystem, clock: Simulated) -> None:
    fs.write_bytes("/f", b"x" * 10_000)
    made = fs.snapshots.create("monday")
    assert (made.name, made.fileset, made.id, made.owned_bytes) == ("monday", "root", 1, 0)
    assert len(made.guid) == len(made.digest) == 32 and made.file_count == 2
    assert made.created_ns == clock.now_ns() and made.created.timestamp() == pytest.approx(clock.now_ns() / 1e9)
    assert made.created.tzinfo is UTC and "monday" in repr(made)
    fs.write_bytes("/f", b"y")
    now = fs.snapshots.info("monday")
    assert 3 * 4096 <= now.owned_bytes < 3 * 4096 + 2000 and now.digest == made.digest
    assert len(fs.snapshots) == 1 and "monday" in fs.snapshots and "tuesday" not in fs.snapshots


def test_a_snapshot_reads_like_the_active_file_system(fs: FileSystem) -> None:
    fs.makedirs("/d/e")
    fs.write_bytes("/d/f", b"old" * 5000)
    fs.symlink("d/f", "/s")
    fs.setxattr("/d/f", "user.a", b"1")
    with fs.open("/sparse", "wb") as file:
        file.seek(1_000_000)
        file.write(b"end")
    fs.snapshots.create("monday")
    status = fs.stat("/d/f")
    fs.rename("/d", "/moved")
    fs.write_bytes("/moved/f", b"new")
    fs.unlink("/s")
    fs.removexattr("/moved/f", "user.a")
    fs.truncate("/sparse", 0)
    view = fs.snapshots["monday"]
    assert view.info.name == "monday" and "monday" in repr(view)
    assert view.read_bytes("/d/f") == view.read_bytes("/s") == b"old" * 5000
    assert view.read_text("/d/f").startswith("oldold") and view.readlink("/s") == "d/f"
    assert view.listdir("/") == ["d", "s", "sparse"] and [entry.name for entry in view.scandir("/d")] == ["e", "f"]
    assert [at for at, _, _ in view.walk("/")] == ["/", "/d", "/d/e"]
    assert view.getxattr("/d/f", "user.a") == b"1" and view.listxattr("/d/f") == ["user.a"]
    seen = view.stat("/d/f")
    assert (seen.st_ino, seen.st_size, seen.st_mtime_ns) == (status.st_ino, status.st_size, status.st_mtime_ns)
    assert seen.st_dev != status.st_dev
    assert view.is_dir("/d/e") and view.is_symlink("/s") and not view.exists("/moved")
    start, end = view.data_ranges("/sparse")[0]
    assert start <= 1_000_000 and end == 1_000_003
    with view.open("/sparse", "rb", buffering=0) as raw:
        assert raw.seek(0, os.SEEK_DATA) == start and raw.read(3 + 1_000_000 - start).endswith(b"end")
    with view.open("/d/f") as text:
        assert text.read(3) == "old"
    assert view.statvfs().f_bfree > 0
    for mode in ("w", "a", "x", "r+"):
        with pytest.raises(OSError) as error:
            view.open("/d/f", mode)
        assert error.value.errno == errno.EROFS


def test_a_deleted_snapshot_is_stale(fs: FileSystem) -> None:
    fs.write_bytes("/f", b"1" * 5000)
    fs.snapshots.create("monday")
    view = fs.snapshots["monday"]
    file = view.open("/f", "rb", buffering=0)
    fs.snapshots.delete("monday")
    for call in (lambda: view.read_bytes("/f"), lambda: view.listdir("/"), file.read, lambda: view.exists("/f")):
        with pytest.raises(OSError) as error:
            call()
        assert error.value.errno == errno.ESTALE
    file.close()
    fs.snapshots.create("monday")
    assert fs.snapshots["monday"].read_bytes("/f") == b"1" * 5000


def test_names(fs: FileSystem) -> None:
    fs.snapshots.create("a")
    with pytest.raises(FilesetMissing):
        fs.snapshots.create("a@b")
    for name in ("", "a/b", "@", "latest", ".", "x" * 201, "a\n", "\udcff"):
        with pytest.raises(BadSnapshotName):
            fs.snapshots.create(name)
        with pytest.raises(BadSnapshotName):
            fs.snapshots.rename("a", name)
    with pytest.raises(SnapshotExists):
        fs.snapshots.create("a")
    fs.snapshots.create("b")
    with pytest.raises(SnapshotExists):
        fs.snapshots.rename("a", "b")
    guid = fs.snapshots.info("a").guid
    assert fs.snapshots.rename("a", "ä – 1").guid == guid and names(fs) == ["ä – 1", "b"]
    for call in (fs.snapshots.info, fs.snapshots.delete, fs.snapshots.restore, fs.snapshots.__getitem__):
        with pytest.raises(SnapshotMissing):
            call("a")


def test_deleting_several_is_all_or_none(fs: FileSystem) -> None:
    for name in "abcd":
        fs.write_bytes("/f", name.encode() * 9000)
        fs.snapshots.create(name)
    with pytest.raises(SnapshotMissing):
        fs.snapshots.delete("a", "no", "b")
    fs.snapshots.hold("c", "me")
    with pytest.raises(SnapshotHeld, match="by me"):
        fs.snapshots.delete("a", "c")
    with pytest.raises(SnapshotHeld):
        fs.snapshots.check_deletable("b", "c")
    assert names(fs) == ["a", "b", "c", "d"]
    fs.snapshots.release("c", "me")
    fs.snapshots.delete("c", "a", "c")
    assert names(fs) == ["b", "d"]
    assert fs.snapshots["b"].read_bytes("/f") == b"b" * 9000 and fs.snapshots["d"].read_bytes("/f") == b"d" * 9000


def test_holds_end(fs: FileSystem, clock: Simulated) -> None:
    fs.snapshots.create("a")
    fs.snapshots.hold("a", "short", seconds=10)
    fs.snapshots.hold("a", "long")
    assert fs.snapshots.holders("a") == ["long", "short"]
    clock.advance(11)
    assert fs.snapshots.holders("a") == ["long"]
    fs.snapshots.release("a", "long")
    fs.snapshots.release("a", "nobody")
    for owner, seconds in (
        ("", None),
        ("x" * 201, None),
        ("a\n", None),
        ("\udcff", None),
        ("a", 0),
        ("a", float("nan")),
    ):
        with pytest.raises(ValueError):
            fs.snapshots.hold("a", owner, seconds)
    fs.snapshots.delete("a")


def test_what_a_store_holds_for_a_standby_is_no_users_to_make(fs: FileSystem) -> None:
    snapshot = fs.snapshots.create("a")
    with pytest.raises(ValueError, match="choose another owner than 'standby:me'"):
        fs.snapshots.hold("a", "standby:me")
    assert fs.snapshots.holders("a") == []
    fs.snapshots.hold("a", "standby")
    store = fs.tree.store
    manage.hold(store, store.catalog.by_name(ROOT_FILESET, snapshot.name), "standby:ab")
    fs.snapshots.release("a", "standby:ab")
    assert fs.snapshots.holders("a") == ["standby"]


def test_restoring_and_undoing(fs: FileSystem) -> None:
    fs.makedirs("/d")
    fs.write_bytes("/d/f", b"first" * 2000)
    first = fs.snapshots.create("first")
    fs.rename("/d", "/e")
    fs.write_bytes("/e/f", b"second")
    fs.write_bytes("/e/g", b"2")
    fs.snapshots.create("second")
    fs.write_bytes("/e/g", b"third")
    undo = fs.snapshots.restore("first")
    assert undo.name == "before-restore-first" and names(fs) == ["first", "second", "before-restore-first"]
    assert fs.read_bytes("/d/f") == b"first" * 2000 and fs.listdir("/") == ["d"] and fs.listdir("/d") == ["f"]
    assert list(fs.snapshots.diff("first")) == []
    assert fs.snapshots.create("again").digest == first.digest
    fs.write_bytes("/d/f", b"after")
    assert fs.snapshots["second"].read_bytes("/e/g") == b"2"
    fs.snapshots.restore(undo.name, "named")
    assert fs.read_bytes("/e/g") == b"third" and fs.snapshots["named"].read_bytes("/d/f") == b"after"
    with pytest.raises(SnapshotExists):
        fs.snapshots.restore("first", "named")


def test_paths_lead_elsewhere_after_a_restore(fs: FileSystem) -> None:
    fs.makedirs("/a")
    fs.makedirs("/b")
    fs.write_bytes("/a/f", b"a")
    fs.write_bytes("/b/f", b"b")
    fs.snapshots.create("one")
    fs.rename("/a", "/b", exchange=True)
    assert fs.read_bytes("/a/f") == b"b"
    fs.snapshots.restore("one")
    assert fs.read_bytes("/a/f") == b"a"
    fs.write_bytes("/a/new", b"")
    assert fs.listdir("/a") == ["f", "new"] and fs.listdir("/b") == ["f"]


def test_files_that_are_open_while_a_restore_takes_them(fs: FileSystem) -> None:
    fs.write_bytes("/stays", b"old" * 3000)
    fs.snapshots.create("one")
    fs.write_bytes("/goes", b"x" * 9000)
    with fs.open("/stays", "r+b", buffering=0) as stays, fs.open("/goes", "r+b", buffering=0) as goes:
        stays.write(b"new")
        goes.write(b"y")
        fs.snapshots.restore("one")
        stays.seek(0)
        assert stays.read() == b"old" * 3000
        with pytest.raises(FileNotFoundError):
            goes.write(b"z")
        stays.seek(9000)
        stays.write(b"more")
    assert fs.read_bytes("/stays") == b"old" * 3000 + b"more" and fs.listdir("/") == ["stays"]
