"""Drills: a standby's own writable copies, which replication, roles and the primary's deletions leave alone."""

from __future__ import annotations

import stat
from collections.abc import Callable

import pytest

from idemfs.check import find
from idemfs.errors import (
    BadFilesetName,
    DrillError,
    FilesetError,
    FilesetInUse,
    NotPrimary,
    NotStandby,
    QuotaExceeded,
    StreamRefused,
)
from idemfs.failover.observe import observe
from idemfs.format import keys
from idemfs.format.role import Role
from idemfs.format.tables import PINNED
from idemfs.ids import ROOT_FILESET, FilesetId, Ino
from idemfs.limits import SECTOR_SIZE
from idemfs.replication.apply import drop_partials, is_half_received
from idemfs.replication.link import replicate_into
from idemfs.replication.send import Frames
from idemfs.snapshots import delete, drills, lines, manage, purge
from idemfs.snapshots.audit import Purge
from idemfs.testing.builders import assert_clean, content_of, make_file, reopened
from idemfs.vfs import drilling
from idemfs.vfs.fileset_tree import FilesetTree
from idemfs.vfs.tree import Tree
from tests.unit.failover.test_roles_filesets import Two, names
from tests.unit.replication.test_link_filesets import Stopped, named, root_of, seen, take_all, write

STATE = {b"/f": b"1" * 9000, b"/home/f": b"1" * 9000, b"/home/deep/f": b"1" * 9000}


@pytest.fixture
def two() -> Two:
    """B has what A has."""
    found = Two()
    found.replicate(found.a)
    found.a.store.clock.advance(5)  # type: ignore[attr-defined]
    return found


def drill_of(tree: Tree, name: str = "test") -> FilesetTree:
    """The files of a drill."""
    return FilesetTree(tree, drilling.find(tree.store, name).filesets[0])


def change(drill: FilesetTree) -> dict[bytes, bytes]:
    """Something of every kind in each of its filesets; what it has then."""
    for path in (b"home", b"home/deep", b""):
        at = drill.root
        for name in path.split(b"/") if path else ():
            at = drill.reader.lookup(at, name)
        drill.write(drill.reader.lookup(at, b"f"), 5000, b"drill")
        make_file(drill, at, b"new", b"2" * 6000)
        drill.create(at, b"dir", stat.S_IFDIR | 0o755, 0, 0)
    drill.unlink(drill.root, b"f")
    drill.sync()
    return seen(drill)


# -- what it has ---------------------------------------------------------------------------------------


def test_a_drill_has_all_filesets_nested_and_costs_records_alone(two: Two) -> None:
    sectors = two.b.store.space.free_sectors(), two.b.store.space.sector_count
    drill = drilling.start(two.b, "test")
    assert [two.b.store.catalog.filesets[each].name for each in drill.filesets] == ["test", "test.home", "test.deep"]
    assert seen(drill_of(two.b)) == STATE
    two.b.sync()
    assert (two.b.store.space.free_sectors(), two.b.store.space.sector_count) == sectors
    assert_clean(two.b)


def test_what_is_changed_in_a_drill_is_seen_there_alone(two: Two) -> None:
    drilling.start(two.b, "test")
    drilling.start(two.b, "other")
    wanted = change(drill_of(two.b))
    assert wanted[b"/home/deep/f"][4998:5007] == b"11drill11" and b"/f" not in wanted
    assert seen(two.b) == seen(drill_of(two.b, "other")) == STATE
    with pytest.raises(NotPrimary):
        make_file(two.b, two.b.root, b"x")
    with pytest.raises(NotPrimary):
        two.b.write(two.b.reader.lookup(two.b.root, b"f"), 0, b"x")
    assert_clean(two.b)


def test_a_drill_of_an_older_snapshot_has_that_instant_in_each_fileset(two: Two) -> None:
    home = named(two.a, "home")
    make_file(two.a, root_of(home), b"late", b"l")
    take_all(two.a, "second")
    two.replicate(two.a)
    first, second = (two.b.store.catalog.snapshots(ROOT_FILESET)[at] for at in (0, 1))
    drilling.start(two.b, "older", first)
    drilling.start(two.b, "newer", second)
    assert seen(drill_of(two.b, "older")) == STATE
    assert seen(drill_of(two.b, "newer")) == STATE | {b"/home/late": b"l"}
    (part,) = [each for each in two.b.store.catalog.snapshots(home.number) if each.name == "second"]
    drilling.start(two.b, "part", part)
    assert seen(drill_of(two.b, "part")).keys() == {b"/f", b"/late", b"/deep/f"}


def test_what_was_not_there_at_that_instant_is_not_in_the_drill(two: Two) -> None:
    late = two.a.make_fileset(two.a.root, b"late", "late", 0, 0)
    make_file(two.a, root_of(late), b"f", b"1")
    two.replicate(two.a)
    drilling.start(two.b, "older", two.b.store.catalog.snapshots(ROOT_FILESET)[0])
    drilling.start(two.b, "newer")
    assert seen(drill_of(two.b, "older")) == STATE
    assert seen(drill_of(two.b, "newer")) == STATE | {b"/late/f": b"1"}


def test_what_diverged_belongs_to_no_drill_of_another_snapshot(two: Two) -> None:
    make_file(two.a, root_of(named(two.a, "home")), b"unsent", b"1")
    make_file(two.a, two.a.root, b"unsent", b"1")
    two.a.sync()
    two.failover(two.b)
    make_file(two.b, two.b.root, b"sent", b"2")
    two.failback(two.a)
    known = {each.name: each for each in two.a.store.catalog.snapshots(ROOT_FILESET)}
    drilling.start(two.a, "now", two.a.newest_snapshot())
    drilling.start(two.a, "lost", known["diverged-1"])
    assert seen(drill_of(two.a, "now")) == STATE | {b"/sent": b"2"}
    assert seen(drill_of(two.a, "lost")) == STATE | {b"/unsent": b"1", b"/home/unsent": b"1"}


# -- refusals ------------------------------------------------------------------------------------------


def test_what_is_refused(two: Two) -> None:
    with pytest.raises(NotStandby, match="snapshot clone"):
        drilling.start(two.a, "test")
    with pytest.raises(BadFilesetName):
        drilling.start(two.b, "a/b")
    drilling.start(two.b, "test")
    for taken in ("test", "home"):
        with pytest.raises(DrillError, match="exists"):
            drilling.start(two.b, taken)
    assert drilling.free_name(two.b.store) == "drill" and drilling.free_name(two.b.store, "test") == "test-2"
    with pytest.raises(DrillError, match="no drill named"):
        drilling.end(two.b, "home")
    root = root_of(named(two.b, "test"))
    attempts: list[Callable[[], object]] = [
        lambda: two.b.make_fileset(root, b"sub", "sub", 0, 0),
        lambda: two.b.clone_snapshot(two.b.store.catalog.snapshots(ROOT_FILESET)[0], root, b"sub", "sub", 0, 0),
        lambda: two.b.attach_fileset(named(two.b, "test.home"), root, b"new"),
    ]
    for attempt in attempts:
        with pytest.raises(FilesetError, match="a drill has the filesets"):
            attempt()


def test_a_standby_that_received_nothing_has_nothing_to_drill_with() -> None:
    with pytest.raises(DrillError, match="never received"):
        drilling.start(Two().b, "test")


def test_a_drill_is_not_sent_and_not_counted(two: Two) -> None:
    before = observe(two.b, "/B")
    drilling.start(two.b, "test")
    change(drill_of(two.b))
    taken = manage.create(two.b.store, named(two.b, "test").number, "mine")
    assert observe(two.b, "/B") == before
    with pytest.raises(StreamRefused, match="drill 'test'"):
        Frames(two.b, None, taken)
    two.failover(two.b)
    make_file(two.b, two.b.root, b"new", b"1")
    two.failback(two.a)
    assert {each.name for each in two.a.store.catalog.listed_filesets()} == {"root", "home", "deep"}
    assert seen(two.a) == seen(two.b) == STATE | {b"/new": b"1"}


# -- replication goes on -------------------------------------------------------------------------------


def test_replication_goes_on_and_a_drill_stays_what_it_is(two: Two) -> None:
    drilling.start(two.b, "test")
    wanted = change(drill_of(two.b))
    for turn in range(4):
        write(two.a, b"%d" % turn * 7000)
        make_file(two.a, two.a.root, b"more%d" % turn, b"m" * 5000)
        two.replicate(two.a)
        if turn == 1:
            # What the drill rests on is deleted on both sides.
            for tree in (two.a, two.b):
                for number in map(FilesetId, range(3)):
                    delete.delete(tree.active, tree.store.catalog.snapshots(number)[0])
        assert seen(drill_of(two.b)) == wanted
        assert seen(two.b) == seen(two.a)
        assert_clean(two.b)
    assert [each.state for each in two.b.store.catalog.all_snapshots(ROOT_FILESET)].count(PINNED) == 1
    drilling.end(two.b, "test")
    assert not [each for each in two.b.store.catalog.all_snapshots(ROOT_FILESET) if each.state == PINNED]
    assert_clean(two.b)


def test_a_transfer_that_is_stopped_and_dropped_does_not_touch_a_drill(two: Two) -> None:
    drilling.start(two.b, "test")
    wanted = change(drill_of(two.b))
    write(two.a, b"3" * 40_000)
    take_all(two.a, "second")

    def stop(_guid: object, _size: int) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        replicate_into(two.a, two.b, stop)
    assert is_half_received(two.b.store)
    # A drill of what was received is one of what is complete.
    drilling.start(two.b, "second")
    assert seen(drill_of(two.b, "second")) == STATE
    drop_partials(two.b)
    assert seen(drill_of(two.b)) == wanted and seen(drill_of(two.b, "second")) == STATE
    assert_clean(two.b)


def test_what_the_primary_purges_a_drill_keeps_as_its_own(two: Two) -> None:
    write(two.a, b"2" * 9000)
    two.replicate(two.a)
    drilling.start(two.b, "older", two.b.store.catalog.snapshots(ROOT_FILESET)[0])
    drilling.start(two.b, "test")
    wanted = change(drill_of(two.b))
    for number in map(FilesetId, range(3)):
        for tree in (two.a, two.b):
            delete.delete(tree.active, tree.store.catalog.snapshots(number)[0])
    two.a.unlink(two.a.root, b"f")
    purge.purge(two.a.active, Purge(5, 0, "root", "f", 0, "", "", False, (), 0, (), 0), b"f")
    two.a.moves += 1
    two.replicate(two.a)
    assert seen(two.a) == seen(two.b) and b"/f" not in seen(two.b)
    for snapshot in two.b.store.catalog.all_snapshots(ROOT_FILESET):
        with pytest.raises(FileNotFoundError):
            two.b.snapshot_reader(snapshot).lookup(two.b.root, b"f")
    assert seen(drill_of(two.b)) == wanted
    assert seen(drill_of(two.b, "older")) == STATE
    assert_clean(two.b)


def test_a_purge_by_the_old_primary_is_told_to_one_that_has_drills(two: Two) -> None:
    drilling.start(two.b, "test")
    wanted = change(drill_of(two.b))
    two.a.unlink(two.a.root, b"f")
    purge.purge(two.a.active, Purge(5, 0, "root", "f", 0, "", "", False, (), 0, (), 0), b"f")
    two.failover(two.b)
    two.failback(two.a)
    assert seen(two.a) == seen(two.b)
    with pytest.raises(FileNotFoundError):
        two.b.snapshot_reader(two.b.store.catalog.snapshots(ROOT_FILESET)[0]).lookup(two.b.root, b"f")
    assert seen(drill_of(two.b)) == wanted
    assert_clean(two.b)


def test_a_fileset_that_the_primary_deletes_goes_and_the_drill_has_it_still(two: Two) -> None:
    drilling.start(two.b, "test")
    wanted = change(drill_of(two.b))
    for name in ("deep", "home"):
        two.a.delete_fileset(named(two.a, name), held=True)
    two.replicate(two.a)
    assert seen(two.b) == {b"/f": STATE[b"/f"]}
    assert {each.name for each in lines.own_filesets(two.b.store)} == {"root"}
    assert seen(drill_of(two.b)) == wanted
    assert_clean(two.b)


def test_a_name_that_the_primary_needs_is_given_up_and_the_drill_is_found_by_its_own(two: Two) -> None:
    drilling.start(two.b, "home2")
    two.a.rename_fileset(named(two.a, "home"), "home2")
    two.replicate(two.a)
    assert named(two.b, "home2").guid == named(two.a, "home2").guid
    assert seen(drill_of(two.b, "home2")) == STATE
    drilling.end(two.b, "home2")
    assert seen(two.b) == STATE


# -- roles, and the life of the process ----------------------------------------------------------------


def test_a_drill_survives_all_changes_of_roles(two: Two) -> None:
    drilling.start(two.b, "test")
    drill = drill_of(two.b)
    wanted = change(drill)
    two.failover(two.b)
    assert_clean(two.b)
    make_file(drill, drill.root, b"on the primary", b"1")
    wanted[b"/on the primary"] = b"1"
    make_file(two.b, two.b.root, b"late", b"2")
    two.failback(two.a)
    two.switchover(two.b)
    make_file(drill, drill.root, b"on the standby again", b"1")
    wanted[b"/on the standby again"] = b"1"
    assert seen(drill) == wanted
    two.replicate(two.a)
    assert seen(two.a) == seen(two.b)
    # Fenced, it may be changed as well: no other store knows of it.
    two.switchover(two.a)
    two.failover(two.a)
    assert two.b.role.role is Role.FENCED
    make_file(drill, drill.root, b"last", b"1")
    drilling.end(two.b, "test")
    assert not drills.listed(two.b.store)
    assert_clean(two.b)


@pytest.mark.parametrize("committed", [True, False])
def test_a_drill_is_there_after_a_restart(two: Two, committed: bool) -> None:
    drilling.start(two.b, "test")
    drill = drill_of(two.b)
    wanted = change(drill)
    ino = drill.reader.lookup(drill.root, b"new")
    drill.open(ino)
    drill.unlink(drill.root, b"new")
    drill.sync()
    del wanted[b"/new"]
    two.b = reopened(two.b, committed=committed)
    assert seen(drill_of(two.b)) == wanted
    # What was open and unlinked is gone, though the store is no primary.
    assert not two.b.store.small.scan(*keys.prefix_range(b"O"), 10)
    assert two.b.active.inode(Ino(ino)) is None
    assert_clean(two.b)
    write(two.a, b"later")
    two.replicate(two.a)
    make_file(drill_of(two.b), drill_of(two.b).root, b"again", b"1")
    assert seen(drill_of(two.b)) == wanted | {b"/again": b"1"}


# -- the end -------------------------------------------------------------------------------------------


def used(tree: Tree) -> int:
    tree.sync()
    tree.sync()
    return (tree.store.space.sector_count - tree.store.space.free_sectors()) * SECTOR_SIZE


def test_the_end_gives_everything_back(two: Two) -> None:
    before = used(two.b), two.b.store.small.scan(b"", keys.END, 1000)
    drilling.start(two.b, "test")
    change(drill_of(two.b))
    manage.create(two.b.store, named(two.b, "test.home").number, "mine")
    assert used(two.b) > before[0]
    drilling.end(two.b, "test")
    assert used(two.b) == before[0]
    after = two.b.store.small.scan(b"", keys.END, 1000)
    # But for counters, free extents, and the mark of the log.
    changing = (b"T", b"R", b"I")
    assert [p for p in after if p[0][:1] not in changing] == [p for p in before[1] if p[0][:1] not in changing]
    with pytest.raises(DrillError):
        drill_of(two.b)
    assert_clean(two.b)


def test_whoever_still_has_a_file_of_a_drill_that_ended_can_neither_read_nor_write_it(two: Two) -> None:
    drilling.start(two.b, "test")
    drill = drill_of(two.b)
    ino = drill.reader.lookup(drill.root, b"f")
    drill.open(ino)
    drilling.end(two.b, "test")
    with pytest.raises(NotPrimary):
        drill.write(ino, 0, b"1")
    with pytest.raises(FileNotFoundError):
        content_of(drill.reader, ino)
    drill.release(ino)
    assert_clean(two.b)


def test_a_drill_with_a_snapshot_that_is_held_does_not_end(two: Two) -> None:
    drilling.start(two.b, "test")
    taken = manage.create(two.b.store, named(two.b, "test.deep").number, "mine")
    manage.hold(two.b.store, taken, "report")
    with pytest.raises(FilesetInUse, match="mine"):
        drilling.end(two.b, "test")
    assert seen(drill_of(two.b)) == STATE
    manage.release(two.b.store, taken, "report")
    drilling.end(two.b, "test")


def test_a_quota_limits_a_drill(two: Two) -> None:
    drilling.start(two.b, "test")
    drill = drill_of(two.b)
    two.b.set_quota(named(two.b, "test"), quota_bytes=40_000)
    with pytest.raises(NotPrimary):
        two.b.set_quota(named(two.b, "home"), quota_bytes=40_000)
    with pytest.raises(QuotaExceeded):
        make_file(drill, drill.root, b"large", b"1" * 100_000)


def test_damaged_records_of_drills_are_found(two: Two) -> None:
    store = two.b.store
    store.admit(3, 1000)
    drills.put(store, FilesetId(77), drills.Part("x", 1, is_root=True))
    store.small.put(b"Cx", b"")
    found = [str(each) for each in find(two.b)]
    assert len(found) == 2
    assert any("is of a drill and does not exist" in each for each in found)
    assert any("is in no table" in each for each in found)


def test_names_of_a_drill_are_those_of_its_store_alone(two: Two) -> None:
    drilling.start(two.b, "test")
    assert names(two.b, "test") == []
    assert [each.name for each in drills.listed(two.b.store)] == ["test"]
    assert not drills.listed(two.a.store)
