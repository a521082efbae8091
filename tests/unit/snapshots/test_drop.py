"""Deleting filesets: everything goes, nothing else does, and what is open there answers that it is gone."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from idemfs import FileSystem, Policy
from idemfs.engines.kv.api import Table
from idemfs.errors import FilesetError, FilesetInUse, FilesetMissing
from idemfs.format.tables import Fileset
from idemfs.ids import FilesetId
from idemfs.snapshots import automatic, delete, drop
from idemfs.testing.builders import assert_clean, memory_store, reopened
from idemfs.testing.clock import Simulated
from idemfs.versions.active import Active
from idemfs.vfs.tree import Tree


@pytest.fixture
def fs() -> Iterator[FileSystem]:
    """Fileset ``home`` at /srv/home with files of every kind and snapshots, ``other`` beside it."""
    with FileSystem(Tree(memory_store())) as fs:
        fs.mkdir("/srv")
        fs.filesets.create("/srv/home")
        fs.filesets.create("/srv/other")
        fill(fs, "/srv/other")
        fill(fs, "/srv/home")
        yield fs
        fs.sync()
        assert_clean(fs.tree)


def fill(fs: FileSystem, path: str) -> None:
    name = path.rpartition("/")[2]
    fs.makedirs(f"{path}/d/e")
    for number in range(30):
        fs.write_bytes(f"{path}/d/f{number}", os.urandom(number * 700))
    fs.link(f"{path}/d/f1", f"{path}/d/e/second")
    fs.setxattr(f"{path}/d/f2", "user.note", b"x" * 5000)
    fs.symlink("d", f"{path}/s")
    fs.snapshots.create(f"{name}@one")
    for number in range(0, 30, 3):
        fs.write_bytes(f"{path}/d/f{number}", os.urandom(9000))
    fs.snapshots.create(f"{name}@two")
    fs.rmtree(f"{path}/d/e")
    fs.truncate(f"{path}/d/f29", 100)


def records_of(fs: FileSystem, number: int) -> int:
    """How many records there are of a fileset, in all tables."""
    kv = fs.tree.store.kv
    prefix = number.to_bytes(2, "big")
    places = ((Table.ACTIVE, 0), (Table.SHADOW, 0), (Table.OWNED, 8))
    count = sum(
        key[at : at + 2] == prefix for table, at in places for key, _ in kv.scan(table, b"", b"\xff" * 300, 1 << 20)
    )
    return count + sum(
        key[1:3] == prefix and key[:1] in b"FUSOKD" for key, _ in kv.scan(Table.SMALL, b"", b"\xff" * 20, 1 << 20)
    )


def test_everything_of_it_goes_and_nothing_else(fs: FileSystem) -> None:
    fs.sync()
    used = fs.tree.store.space.sector_count - fs.tree.store.space.free_sectors()
    other = fs.filesets["other"].info()
    assert records_of(fs, 1) > 100
    sectors = (fs.filesets["home"].info().active_bytes + fs.filesets["home"].info().snapshot_bytes) // 4096
    fs.filesets["home"].delete()
    fs.sync()
    assert records_of(fs, 1) == 0 and "home" not in fs.filesets and fs.listdir("/srv") == ["other"]
    assert fs.tree.store.space.sector_count - fs.tree.store.space.free_sectors() < used - sectors * 9 // 10
    after = fs.filesets["other"].info()
    assert (after.active_bytes, after.snapshot_bytes) == (other.active_bytes, other.snapshot_bytes)
    assert fs.filesets.create("/srv/home").path == "/srv/home"
    # Numbers are never given again.
    assert fs.stat("/srv/home").st_ino >> 48 == 3


def test_in_small_steps(fs: FileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drop, "_STEP_RECORD_COUNT", 5)
    monkeypatch.setattr(drop, "_STEP_BLOCK_COUNT", 1)
    monkeypatch.setattr(delete, "_STEP_RECORD_COUNT", 3)
    fs.filesets["home"].delete()
    fs.sync()
    assert records_of(fs, 1) == 0


def test_what_keeps_it(fs: FileSystem) -> None:
    fs.filesets.create("/srv/home/inner")
    with pytest.raises(FilesetInUse, match="inner"):
        fs.filesets["home"].delete()
    fs.filesets["inner"].delete()
    fs.snapshots.hold("home@one", "backup")
    with pytest.raises(FilesetInUse, match="one"):
        fs.filesets["home"].check_deletable()
    with pytest.raises(FilesetError):
        fs.filesets["root"].delete()
    home = fs.filesets["home"]
    home.delete(held=True)
    with pytest.raises(FilesetMissing):
        home.delete()
    with pytest.raises(FilesetMissing):
        home.rename("x")
    with pytest.raises(FilesetMissing):
        home.attach("/srv/other/d")
    assert len(fs.filesets) == 2


def test_what_is_open_there_is_gone(fs: FileSystem) -> None:
    file = fs.open("/srv/home/d/f5", "r+b", buffering=0)
    orphan = fs.open("/srv/home/d/f6", "r+b", buffering=0)
    orphan.write(b"waits in memory")
    fs.unlink("/srv/home/d/f6")
    directory = fs.tree.reader.lookup(fs.tree.reader.root, b"srv")
    root = fs.tree.reader.lookup(directory, b"home")
    snapshot = fs.snapshots["home@one"]
    file.write(b"waits in memory too")
    fs.filesets["home"].delete()
    for call in (lambda: file.write(b"1"), lambda: orphan.read(1), lambda: fs.tree.create(root, b"x", 0o100644, 0, 0)):
        with pytest.raises(OSError) as caught:
            call()
        assert caught.value.errno == errno.ENOENT
    with pytest.raises(OSError) as caught:
        snapshot.read_bytes("/d/f5")
    assert caught.value.errno == errno.ESTALE
    file.close()
    orphan.close()
    fs.sync()
    assert records_of(fs, 1) == 0


def test_a_large_file(fs: FileSystem) -> None:
    with fs.open("/srv/home/large", "wb") as file:
        for _ in range(40):
            file.write(os.urandom(4096 * 100))
    fs.filesets["home"].delete()
    fs.sync()
    assert records_of(fs, 1) == 0


def test_it_goes_on_when_the_store_is_opened_again(fs: FileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drop, "finish", lambda active, fileset: None)
    fs.filesets["home"].delete()
    assert "home" not in fs.filesets and records_of(fs, 1) > 100
    assert_clean(fs.tree)
    monkeypatch.undo()
    again = FileSystem(reopened(fs.tree, committed=False))
    again.sync()
    assert records_of(again, 1) == 0 and FilesetId(1) not in again.tree.store.catalog.filesets
    assert_clean(again.tree)


def test_a_snapshot_that_is_taken_or_deleted_meanwhile(fs: FileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshots = fs.filesets["home"].snapshots
    gone = fs.tree.store.catalog.by_name(FilesetId(1), "one")
    finish = drop.finish

    def meanwhile(active: Active, fileset: Fileset) -> None:
        with pytest.raises(FilesetMissing):
            snapshots.create("late")
        finish(active, fileset)
        # Somebody had begun to delete it, and comes to the next step now.
        delete.finish(active, gone)

    monkeypatch.setattr(drop, "finish", meanwhile)
    fs.filesets["home"].delete()
    with pytest.raises(FilesetMissing):
        snapshots.create("late")
    assert snapshots.list() == [] and len(snapshots) == 0
    fs.sync()
    assert records_of(fs, 1) == 0


def test_its_schedule_goes_with_it(fs: FileSystem) -> None:
    schedule = fs.filesets["home"].snapshots.schedule
    schedule.set(Policy(every_seconds=3600, keep_last=2))
    fs.filesets["other"].snapshots.schedule.set(Policy(keep_daily=3))
    assert automatic.planned_filesets(fs.tree.store) == [1, 2]
    assert schedule.policy.keep_last == 2 and schedule.next_due() is not None
    assert fs.snapshots.schedule.policy == Policy()
    fs.filesets["home"].delete()
    fs.sync()
    assert records_of(fs, 1) == 0
    assert automatic.planned_filesets(fs.tree.store) == [2]


def test_the_schedule_of_a_fileset_is_about_its_own_snapshots(fs: FileSystem) -> None:
    home = fs.filesets["home"].snapshots
    home.schedule.set(Policy(every_seconds=1, keep_last=1, prune_matching="."))
    clock = fs.tree.store.clock
    assert isinstance(clock, Simulated)
    clock.advance(5)
    outcome = home.schedule.run_due()
    assert outcome.taken is not None and outcome.taken.fileset == "home"
    assert [each.name for each in home] == [outcome.taken.name]
    assert [each.name for each in fs.filesets["other"].snapshots] == ["one", "two"]
    assert list(fs.snapshots) == []


def test_nobody_deletes_a_fileset_with_a_locked_snapshot(fs: FileSystem) -> None:
    home = fs.filesets["home"]
    clock = fs.tree.store.clock
    assert isinstance(clock, Simulated)
    until = datetime.fromtimestamp(clock.now_ns() // 10**9 + 3600, UTC)
    home.snapshots.lock("one", until)
    for held in (False, True):
        with pytest.raises(FilesetInUse, match="locked: one"):
            home.delete(held=held)
    assert len(home.snapshots) == 2
    clock.advance(3601)
    home.delete()
    fs.sync()
    assert records_of(fs, 1) == 0 and not fs.tree.store.small.scan(b"L", b"M", 10)
