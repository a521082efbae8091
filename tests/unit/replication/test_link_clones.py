"""Clones go along as clones: only what they changed travels, and the standby rests them on the origin that it has."""

from __future__ import annotations

import pytest

from idemfs.errors import StreamRefused
from idemfs.format.tables import PINNED, RESTING, Fileset, Snapshot
from idemfs.ids import ROOT_FILESET, Guid
from idemfs.replication import apply, partial
from idemfs.replication.apply import drop_partials, receive
from idemfs.replication.codec import StreamReader
from idemfs.replication.link import Report, replicate_into
from idemfs.snapshots import clones, delete, lines, manage
from idemfs.testing.builders import assert_clean, make_file, memory_tree, reopened
from idemfs.testing.clock import Simulated
from idemfs.vfs.tree import Tree
from tests.unit.replication.pairs import frames_of, reading, standby_of
from tests.unit.replication.test_link_filesets import Stopped, assert_equal, digests, named, root_of, seen

BLOCK = 4096
LONG = b"".join(bytes([64 + each]) * BLOCK for each in range(60)) + b"tail"


def furnished() -> Tree:
    """Snapshot ``s`` of the root fileset, with files and a directory, and the clone ``c`` of it."""
    tree = memory_tree(clock=Simulated(5))
    for name, content in ((b"long", LONG), (b"small", b"small"), (b"lost", b"l" * 9000), (b"cut", b"c" * 9000)):
        make_file(tree, tree.root, name, content)
    tree.link(tree.reader.lookup(tree.root, b"small"), tree.root, b"again")
    tree.store.commit()
    clone(tree, manage.create(tree.store, ROOT_FILESET, "s"), "c")
    return tree


def clone(tree: Tree, snapshot: Snapshot, name: str) -> Fileset:
    made = tree.clone_snapshot(snapshot, tree.root, name.encode(), name, 0, 0)
    tree.store.commit()
    return made


def change(tree: Tree, fileset: Fileset) -> None:
    """A little of everything."""
    root = root_of(fileset)
    make_file(tree, root, b"new", b"n" * 5000)
    tree.unlink(root, b"lost")
    tree.unlink(root, b"again")
    tree.write(tree.reader.lookup(root, b"long"), 3 * BLOCK, b"changed")
    tree.write(tree.reader.lookup(root, b"long"), len(LONG), b"more" * 2000)
    tree.truncate(tree.reader.lookup(root, b"cut"), 100)
    tree.store.commit()


def take(tree: Tree, name: str, at: str) -> Snapshot:
    tree.store.clock.advance(1)  # type: ignore[attr-defined]
    return manage.create(tree.store, named(tree, at).number, name)


def take_all(tree: Tree, name: str) -> None:
    tree.store.clock.advance(1)  # type: ignore[attr-defined]
    manage.create_all(tree.store, [(each.number, name) for each in tree.store.catalog.listed_filesets()])


def bytes_of(report: Report, fileset: str) -> int:
    return sum(each.bytes for each in report.transfers if each.fileset == fileset)


def rests(tree: Tree, name: str = "c") -> str | None:
    origin = clones.origin_snapshot(tree.store, named(tree, name).number)
    return None if origin is None else origin.name


def test_a_clone_arrives_as_a_clone_and_only_what_it_changed_travels() -> None:
    primary = furnished()
    change(primary, named(primary, "c"))
    take_all(primary, "one")
    standby = standby_of(primary)
    report = replicate_into(primary, standby)
    assert bytes_of(report, "root") > len(LONG) and bytes_of(report, "c") < 30_000
    assert rests(standby) == "s"
    assert_equal(primary, standby)
    standby = reopened(standby)
    assert_equal(primary, standby)
    # And goes on as any other fileset.
    primary.write(primary.reader.lookup(root_of(named(primary, "c")), b"long"), 20 * BLOCK, b"again")
    primary.store.commit()
    take_all(primary, "two")
    assert bytes_of(replicate_into(primary, standby), "c") < 10_000
    assert_equal(primary, standby)


def test_a_clone_that_nobody_changed_costs_a_header() -> None:
    primary = furnished()
    standby = standby_of(primary)
    replicate_into(primary, standby)
    take(primary, "one", "c")
    report = replicate_into(primary, standby)
    assert [(each.base, each.target, each.records) for each in report.transfers] == [("s", "one", 0)]
    assert named(standby, "c").record_bytes == 0
    assert_clean(standby)


def test_a_clone_of_a_clone_and_several_of_one_instant() -> None:
    primary = furnished()
    change(primary, named(primary, "c"))
    first = manage.create(primary.store, named(primary, "c").number, "first")
    clone(primary, first, "d")
    make_file(primary, root_of(named(primary, "d")), b"deeper", b"d" * 5000)
    primary.store.commit()
    # Nothing lets time pass, so that all these are of one instant; an origin is complete before its clone begins.
    manage.create_all(primary.store, [(each.number, "x") for each in primary.store.catalog.listed_filesets()])
    standby = standby_of(primary)
    report = replicate_into(primary, standby)
    assert bytes_of(report, "d") < 8000
    assert (rests(standby), rests(standby, "d")) == ("s", "first")
    assert_equal(primary, standby)


def test_it_comes_in_full_where_the_origin_is_not() -> None:
    primary = furnished()
    standby = standby_of(primary)
    delete.delete(primary.active, primary.store.catalog.snapshots(ROOT_FILESET)[0])
    take_all(primary, "one")
    assert bytes_of(replicate_into(primary, standby), "c") > len(LONG)
    assert rests(primary) == "s" and rests(standby) is None
    assert_equal(primary, standby)


def test_the_origin_may_be_pinned_on_both_sides() -> None:
    primary = furnished()
    standby = standby_of(primary)
    take(primary, "more", "root")
    replicate_into(primary, standby)
    take(primary, "one", "c")
    replicate_into(primary, standby)
    for tree in (primary, standby):
        origin = tree.store.catalog.snapshots(ROOT_FILESET)[0]
        delete.delete(tree.active, origin)
        assert origin.state == PINNED
    change(primary, named(primary, "c"))
    take(primary, "two", "c")
    replicate_into(primary, standby)
    assert rests(standby) == "s"
    assert_equal(primary, standby)
    # It goes with the last clone.
    primary.delete_fileset(named(primary, "c"), held=True)
    lines.put_gone(primary.store, Guid(named(standby, "c").guid))
    primary.store.commit()
    take(primary, "last", "root")
    replicate_into(primary, standby)
    assert not standby.store.catalog.has_fileset("c")
    assert [each.name for each in standby.store.catalog.all_snapshots(ROOT_FILESET)] == ["more", "last"]
    assert_equal(primary, standby)


def test_a_pinned_origin_there_is_good_for_a_clone_that_comes_later() -> None:
    primary = furnished()
    clone(primary, primary.store.catalog.snapshots(ROOT_FILESET)[0], "d")
    standby = standby_of(primary)
    take(primary, "more", "root")
    take(primary, "one", "c")
    replicate_into(primary, standby)
    for tree in (primary, standby):
        delete.delete(tree.active, tree.store.catalog.snapshots(ROOT_FILESET)[0])
    change(primary, named(primary, "d"))
    take(primary, "one", "d")
    assert bytes_of(replicate_into(primary, standby), "d") < 30_000
    assert rests(standby, "d") == "s"
    assert_equal(primary, standby)


@pytest.mark.parametrize("is_reopened", [False, True])
def test_a_transfer_that_stops_anywhere_goes_on_or_is_dropped(
    is_reopened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    _small_frames(monkeypatch)
    for after in range(1, 40):
        primary = furnished()
        standby = standby_of(primary)
        replicate_into(primary, standby)
        change(primary, named(primary, "c"))
        take_all(primary, "one")
        left = after

        def stop(_guid: Guid, _size: int) -> None:
            nonlocal left
            left -= 1
            if not left:
                raise Stopped

        try:
            replicate_into(primary, standby, stop)
        except Stopped:
            assert_clean(standby)
            if is_reopened:
                standby = reopened(standby)
            if after % 2:
                drop_partials(standby)
                assert_clean(standby)
                there = named(standby, "c")
                assert partial.get(standby.store, there.number) is None
                if not standby.store.catalog.snapshots(there.number):
                    assert there.origin is None and there.digest == there.inode_count == there.record_bytes == 0
                    assert not standby.store.active.scan(
                        there.number.to_bytes(2, "big"), (there.number + 1).to_bytes(2, "big"), 9
                    )
            replicate_into(primary, standby)
            assert rests(standby) == "s"
            assert_equal(primary, standby)
        else:
            break
    assert after > 5


def _small_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("idemfs.replication.difference._GROUP_RECORD_COUNT_MAX", 2)
    monkeypatch.setattr("idemfs.replication.codec.STREAM_BATCH_BYTES", 300)
    monkeypatch.setattr("idemfs.replication.applier._STEP_RECORD_COUNT", 2)


def test_promoted_on_the_primary_it_is_promoted_on_the_standby_and_the_origin_can_go() -> None:
    primary = furnished()
    standby = standby_of(primary)
    change(primary, named(primary, "c"))
    take_all(primary, "one")
    replicate_into(primary, standby)
    delete.delete(standby.active, standby.store.catalog.snapshots(ROOT_FILESET)[0])
    primary.promote_fileset(named(primary, "c"))
    take(primary, "two", "c")
    report = replicate_into(primary, standby)
    assert bytes_of(report, "c") < 1000
    there = named(standby, "c")
    assert there.origin is None
    assert [each.name for each in standby.store.catalog.all_snapshots(ROOT_FILESET)] == ["one"]
    assert seen(primary) == seen(standby)
    assert_clean(standby)
    assert_clean(primary)


def test_promoted_while_it_is_half_sent_it_comes_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    _small_frames(monkeypatch)
    primary = furnished()
    standby = standby_of(primary)
    replicate_into(primary, standby)
    change(primary, named(primary, "c"))
    take_all(primary, "one")
    c = named(primary, "c").guid

    def stop(_guid: Guid, _size: int) -> None:
        there = [each for each in standby.store.catalog.listed_filesets() if each.guid == c]
        if there and there[0].origin is not None:
            raise Stopped

    with pytest.raises(Stopped):
        replicate_into(primary, standby, stop)
    assert named(standby, "c").origin is not None
    primary.promote_fileset(named(primary, "c"))
    replicate_into(primary, standby)
    assert rests(standby) is None
    assert_equal(primary, standby)


def test_a_stream_of_a_clone_is_refused_where_its_origin_is_not() -> None:
    primary = furnished()
    origin = primary.store.catalog.snapshots(ROOT_FILESET)[0]
    other = standby_of(primary)
    target = take(primary, "one", "c")
    frames = b"".join(frames_of(primary, origin, target))
    header = StreamReader(reading(frames)).header
    assert header.base is not None and header.base.guid == origin.guid
    assert header.description is not None and header.description.origin is not None
    assert header.description.origin.fileset == primary.store.catalog.filesets[ROOT_FILESET].guid
    made = other.store.catalog.add_fileset(named(primary, "c").guid, "c", primary.root.__class__(0), 0)
    other.store.commit()
    with pytest.raises(StreamRefused, match="was made from is not here"):
        apply.receive_stream(other, StreamReader(reading(frames)), fileset=made.number)
    receive(other, reading(b"".join(frames_of(primary, None, origin))))
    apply.receive_stream(other, StreamReader(reading(frames)), fileset=made.number)
    assert made.origin is not None and made.origin.state == RESTING
    assert digests(other) == digests(primary)
    assert_clean(other)


def test_a_base_of_another_fileset_is_refused_unless_it_is_the_origin() -> None:
    primary = furnished()
    take(primary, "late", "root")
    target = take(primary, "one", "c")
    late = primary.store.catalog.snapshots(ROOT_FILESET)[-1]
    with pytest.raises(StreamRefused):
        frames_of(primary, late, target)


def test_fileset_and_clone_deleted_on_the_primary_go_on_the_standby_whichever_is_told_first() -> None:
    primary = furnished()
    home = primary.make_fileset(primary.root, b"home", "home", 0, 0)
    make_file(primary, root_of(home), b"f", b"1" * 9000)
    primary.store.commit()
    clone(primary, take(primary, "h", "home"), "of-home")
    clone(primary, take(primary, "o", "of-home"), "of-that")
    take_all(primary, "one")
    standby = standby_of(primary)
    replicate_into(primary, standby)
    assert rests(standby, "of-that") == "o"
    for name in ("of-that", "of-home", "home"):
        fileset = named(primary, name)
        lines.put_gone(primary.store, Guid(fileset.guid))
        primary.delete_fileset(fileset, held=True)
    take(primary, "two", "root")
    replicate_into(primary, standby)
    assert [each.name for each in standby.store.catalog.filesets.values()] == ["root", "c"]
    assert_clean(standby)
