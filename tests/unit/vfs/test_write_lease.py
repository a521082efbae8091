"""A store that requires a write lease takes changes while it has one, and is read all the time."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from idemfs.errors import Fenced, LeaseOver
from idemfs.format import lease
from idemfs.ids import Ino
from idemfs.snapshots import manage
from idemfs.store.files import open_files
from idemfs.testing.builders import assert_clean, file_store, make_file, memory_tree, reopened
from idemfs.testing.clock import Simulated
from idemfs.vfs.fileset_tree import FilesetTree
from idemfs.vfs.snapshot_tree import SnapshotTree
from idemfs.vfs.tree import AllocateFlag, Tree

SECOND = 1_000_000_000


def leased_tree(clock: Simulated, seconds: int = 10) -> Tree:
    """With one file, and a lease that is live for so many seconds."""
    tree = memory_tree(clock=clock)
    make_file(tree, tree.root, b"file", b"before")
    tree.store.admit(1, 100)
    tree.store.small.put(lease.REQUIRED, lease.pack_required(seconds * SECOND))
    tree = reopened(tree)
    assert tree.write_lease is not None
    tree.write_lease.extend(clock.since_boot_ns() + seconds * SECOND)
    return tree


def file_of(tree: Tree) -> Ino:
    return tree.reader.lookup(tree.root, b"file")


CHANGES: dict[str, Callable[[Tree, Ino], object]] = {
    "write": lambda tree, ino: tree.write(ino, 0, b"after"),
    "append": lambda tree, ino: tree.append(ino, b"after"),
    "truncate": lambda tree, ino: tree.truncate(ino, 1),
    "punch": lambda tree, ino: tree.punch(ino, 0, 1),
    "allocate": lambda tree, ino: tree.allocate(ino, 0, 1, AllocateFlag.KEEP_SIZE),
    "create": lambda tree, ino: tree.create(tree.root, b"new", 0o100644, 0, 0),
    "unlink": lambda tree, ino: tree.unlink(tree.root, b"file"),
    "rename": lambda tree, ino: tree.rename(tree.root, b"file", tree.root, b"other"),
    "link": lambda tree, ino: tree.link(ino, tree.root, b"other"),
    "set_attributes": lambda tree, ino: tree.set_attributes(ino, mode=0o600),
    "set_xattr": lambda tree, ino: tree.set_xattr(ino, b"user.a", b"1"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_no_change_is_accepted_once_the_lease_ran_out(name: str) -> None:
    clock = Simulated()
    tree = leased_tree(clock)
    ino = file_of(tree)
    tree.sync()
    clock.advance(10)
    digest = tree.active.fileset(tree.root).digest
    for _ in range(2):
        with pytest.raises(LeaseOver) as refused:
            CHANGES[name](tree, ino)
        assert refused.value.errno == errno.EROFS and "10 s" in str(refused.value)
    assert isinstance(refused.value, Fenced)
    assert tree.reader.read(ino, 0, 100) == b"before"
    tree.sync()
    assert tree.active.fileset(tree.root).digest == digest
    assert_clean(tree)


@pytest.mark.parametrize("name", CHANGES)
def test_changes_go_on_when_it_is_live_again(name: str) -> None:
    clock = Simulated()
    tree = leased_tree(clock)
    ino = file_of(tree)
    clock.advance(11)
    with pytest.raises(LeaseOver):
        CHANGES[name](tree, ino)
    assert tree.write_lease is not None
    tree.write_lease.extend(clock.since_boot_ns() + SECOND)
    CHANGES[name](tree, ino)
    assert_clean(tree)


def test_refused_changes_take_up_no_room_in_the_open_group() -> None:
    clock = Simulated()
    tree = leased_tree(clock)
    ino = file_of(tree)
    tree.sync()
    clock.advance(10)
    for _ in range(3):
        with pytest.raises(LeaseOver):
            tree.write(ino, 0, b"after")
    tree.sync()
    with pytest.raises(LeaseOver):
        tree.write(ino, 0, b"after")
    assert not tree.store.dirty


def test_what_was_accepted_in_time_becomes_durable_after_it() -> None:
    clock = Simulated()
    tree = leased_tree(clock)
    ino = file_of(tree)
    tree.write(ino, 0, b"in time")
    clock.advance(3600)
    tree.sync()
    tree.store.abandon()
    assert reopened(tree).reader.read(ino, 0, 100) == b"in time"


def test_what_was_synced_in_time_is_replayed_by_a_process_without_a_lease(tmp_path: Path) -> None:
    clock = Simulated()
    path = str(tmp_path / "store")
    tree = Tree(file_store(path, clock=clock))
    ino = make_file(tree, tree.root, b"file", b"before")
    tree.store.admit(1, 100)
    tree.store.small.put(lease.REQUIRED, lease.pack_required(SECOND))
    tree.store.close()
    tree = Tree(open_files(path, background=False, clock=clock))
    assert tree.write_lease is not None
    tree.write_lease.extend(SECOND)
    tree.write(ino, 0, b"synced")
    tree.sync_file(ino)
    assert tree.store.dirty, "it was not logged but committed, and nothing is left to replay"
    tree.store.abandon()
    clock.advance(10)
    tree = Tree(open_files(path, background=False, clock=clock))
    assert tree.reader.read(ino, 0, 100) == b"synced"
    with pytest.raises(LeaseOver):
        tree.write(ino, 0, b"after")
    tree.store.close()


def test_the_requirement_survives_a_crash_and_the_lease_does_not() -> None:
    clock = Simulated()
    tree = leased_tree(clock)
    tree = reopened(tree, committed=True)
    with pytest.raises(LeaseOver):
        tree.write(file_of(tree), 0, b"after")


def test_setting_the_time_of_day_changes_nothing() -> None:
    clock = Simulated()
    tree = leased_tree(clock)
    clock.jump(86_400)
    tree.write(file_of(tree), 0, b"after")
    clock.jump(-2 * 86_400)
    clock.advance(10)
    with pytest.raises(LeaseOver):
        tree.write(file_of(tree), 0, b"again")


def test_a_lease_never_becomes_shorter_by_a_late_reply_and_ends_at_once_when_it_is_ended() -> None:
    clock = Simulated()
    tree = leased_tree(clock)
    assert tree.write_lease is not None
    tree.write_lease.extend(clock.since_boot_ns() + SECOND)
    clock.advance(5)
    tree.write(file_of(tree), 0, b"after")
    tree.write_lease.end()
    with pytest.raises(LeaseOver):
        tree.write(file_of(tree), 0, b"again")


def test_a_snapshot_open_for_writing_takes_changes_by_the_same_lease() -> None:
    clock = Simulated()
    tree = leased_tree(clock)
    snapshot = manage.create(tree.store, tree.fileset, "one")
    written = SnapshotTree(tree, snapshot)
    ino = file_of(tree)
    written.write(ino, 0, b"in it")
    clock.advance(10)
    with pytest.raises(LeaseOver):
        written.write(ino, 0, b"after")
    assert written.reader.read(ino, 0, 100) == b"in ite"
    written.close()


def test_reading_after_it_ran_out_notes_no_access_time() -> None:
    clock = Simulated()
    tree = leased_tree(clock)
    clock.advance(200_000)
    tree.touch_atime(file_of(tree))
    assert not tree.store.dirty


def test_a_granted_lease_counts_in_full_from_the_opening() -> None:
    clock = Simulated()
    tree = memory_tree(clock=clock)
    assert tree.granted_until_ns == 0
    tree.store.admit(1, 100)
    granted = lease.Granted(tree.store.superblock.guid, 3, 10 * SECOND)
    tree.store.small.put(lease.GRANTED, lease.pack_granted(granted))
    clock.advance(100)
    tree = reopened(tree)
    assert tree.granted_until_ns == 110 * SECOND
    assert_clean(tree)


def test_a_fileset_that_is_seen_from_its_root_takes_changes_by_the_same_lease() -> None:
    clock = Simulated()
    tree = leased_tree(clock)
    seen = FilesetTree(tree, tree.fileset)
    make_file(seen, seen.root, b"one", b"1")
    clock.advance(11)
    with pytest.raises(LeaseOver):
        make_file(seen, seen.root, b"two", b"2")
