"""What was purged on the primary is purged on the standby, from the same snapshots, which stay common."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

import pytest

from idemfs import FileSystem
from idemfs.errors import PeerError, RoleError, SnapshotHeld
from idemfs.ids import ROOT_FILESET, FilesetId, Guid
from idemfs.replication import partial, purges
from idemfs.replication.link import replicate_into
from idemfs.snapshots import audit, clones, delete, manage, received
from idemfs.snapshots.audit import Purge
from idemfs.testing.builders import assert_clean, make_directory, make_file, memory_tree, reopened
from idemfs.testing.clock import Simulated
from idemfs.vfs.tree import Tree
from tests.unit.failover.test_roles_filesets import Two
from tests.unit.replication.pairs import standby_of
from tests.unit.replication.test_link_clones import clone
from tests.unit.replication.test_link_filesets import Stopped, assert_equal, digests, named, nested, seen, take_all

SECRET = b"hunter2 " * 3000


def purge(tree: Tree, path: str = "/d/secret", *, active: bool = False) -> Purge:
    return FileSystem(tree).snapshots.purge(path, active=active, reason="a key was in it")


def guids(tree: Tree, fileset: str = "root") -> list[tuple[str, bytes]]:
    return [(each.name, each.guid) for each in tree.store.catalog.snapshots(named(tree, fileset).number)]


def furnish(tree: Tree) -> None:
    """``/d/secret`` in the root fileset and in ``home``, and two snapshots of all filesets."""
    for parent in (tree.root, tree.reader.lookup(tree.root, b"home")):
        directory = make_directory(tree, parent, b"d")
        make_file(tree, directory, b"secret", SECRET)
        make_file(tree, directory, b"other", b"o" * 5000)
    tree.link(tree.reader.lookup(tree.reader.lookup(tree.root, b"d"), b"secret"), tree.root, b"name")
    tree.store.commit()
    take_all(tree, "one")
    make_file(tree, tree.root, b"more", b"m" * 9000)
    tree.store.commit()
    take_all(tree, "two")


@pytest.fixture
def pair() -> Iterator[tuple[Tree, Tree]]:
    primary = nested()
    furnish(primary)
    standby = standby_of(primary)
    replicate_into(primary, standby)
    primary.store.clock.advance(5)  # type: ignore[attr-defined]
    yield primary, standby


def test_a_purge_is_carried_out_there_and_only_changes_travel_afterwards(pair: tuple[Tree, Tree]) -> None:
    primary, standby = pair
    before = guids(standby)
    record = purge(primary, active=True)
    assert replicate_into(primary, standby).transfers == ()
    assert guids(standby) == guids(primary) != before
    assert_equal_but_active(primary, standby)
    assert [each._replace(replaced=()) for each in audit.purges(standby.store)] == [record._replace(replaced=())]
    assert [each.new_guid for each in audit.purges(standby.store)[0].replaced] == [
        each.new_guid for each in record.replaced
    ]
    take_all(primary, "three")
    report = replicate_into(primary, standby)
    assert [(each.fileset, each.base) for each in report.transfers] == [
        ("root", "two"),
        ("home", "two"),
        ("deep", "two"),
    ]
    assert report.bytes < 5000
    assert_equal(primary, standby)
    assert b"/d/secret" not in seen(standby) and b"/name" in seen(standby) and b"/home/d/secret" in seen(standby)


def assert_equal_but_active(primary: Tree, standby: Tree) -> None:
    assert digests(primary) == digests(standby)
    for tree in (primary, standby):
        assert_clean(tree)
    for fileset in standby.store.catalog.listed_filesets():
        base = received.base(standby.store, fileset.number)
        assert base is not None and base.digest == fileset.digest and partial.get(standby.store, fileset.number) is None


def test_the_active_state_of_the_primary_comes_with_the_next_snapshot(pair: tuple[Tree, Tree]) -> None:
    primary, standby = pair
    purge(primary)
    replicate_into(primary, standby)
    assert b"/d/secret" not in seen(standby)
    take_all(primary, "three")
    replicate_into(primary, standby)
    assert b"/d/secret" in seen(standby)
    assert_equal(primary, standby)


def test_what_the_primary_keeps_comes_again_whole(pair: tuple[Tree, Tree]) -> None:
    """The inode goes there, with all that it has, and is made anew by the next change set."""
    primary, standby = pair
    FileSystem(primary).setxattr("/d/secret", "user.a", b"a")
    take_all(primary, "three")
    replicate_into(primary, standby)
    purge(primary, "/d")
    take_all(primary, "four")
    replicate_into(primary, standby)
    assert_equal(primary, standby)
    assert_clean(standby)


def test_two_purges_and_a_standby_that_was_away(pair: tuple[Tree, Tree]) -> None:
    primary, standby = pair
    purge(primary)
    take_all(primary, "three")
    primary.store.clock.advance(5)  # type: ignore[attr-defined]
    purge(primary, "/name")
    purge(primary, "/home/d", active=True)
    take_all(primary, "four")
    assert [each.base for each in replicate_into(primary, standby).transfers][:3] == ["two"] * 3
    assert_equal(primary, standby)
    assert len(audit.purges(standby.store)) == 3
    # One that has nothing of it hears nothing.
    fresh = standby_of(primary, 78)
    replicate_into(primary, fresh)
    assert_equal(primary, fresh)
    assert audit.purges(fresh.store) == []


def test_a_hold_of_a_user_refuses_and_that_of_a_standby_does_not(pair: tuple[Tree, Tree]) -> None:
    primary, standby = pair
    snapshot = primary.store.catalog.snapshots(ROOT_FILESET)[0]
    manage.hold(primary.store, snapshot, "user")
    replicate_into(primary, standby)
    with pytest.raises(SnapshotHeld, match="held by user"):
        purge(primary)
    manage.release(primary.store, snapshot, "user")
    # The standby holds it still, as it was told, and lets it go.
    purge(primary)
    replicate_into(primary, standby)
    assert guids(standby) == guids(primary)
    assert any(
        each.startswith("standby:")
        for each in manage.holders(primary.store, primary.store.catalog.snapshots(ROOT_FILESET)[1])
    )
    assert_equal_but_active(primary, standby)


def test_what_somebody_holds_on_the_standby_alone_is_told(pair: tuple[Tree, Tree]) -> None:
    primary, standby = pair
    held = standby.store.catalog.snapshots(ROOT_FILESET)[0]
    manage.hold(standby.store, held, "auditor")
    purge(primary)
    with pytest.raises(PeerError, match=r"cannot be purged from those of the other store.*held by auditor"):
        replicate_into(primary, standby)
    assert guids(standby) != guids(primary)
    manage.release(standby.store, held, "auditor")
    replicate_into(primary, standby)
    assert guids(standby) == guids(primary)
    assert_equal_but_active(primary, standby)


def test_older_snapshots_that_the_standby_alone_has_lose_the_path_too(pair: tuple[Tree, Tree]) -> None:
    primary, standby = pair
    delete.delete(primary.active, primary.store.catalog.snapshots(ROOT_FILESET)[0])
    purge(primary)
    before = dict(guids(standby))
    replicate_into(primary, standby)
    after = dict(guids(standby))
    assert after["two"] == dict(guids(primary))["two"] and after["one"] != before["one"]
    with pytest.raises(FileNotFoundError) as missing:
        FileSystem(standby).snapshots["one"].read_bytes("/d/secret")
    assert missing.value.errno == errno.ENOENT
    assert FileSystem(standby).snapshots["one"].read_bytes("/name") == SECRET
    assert_clean(standby)


def test_a_half_received_change_set_is_dropped_and_begins_anew(
    pair: tuple[Tree, Tree], monkeypatch: pytest.MonkeyPatch
) -> None:
    primary, standby = pair
    make_file(primary, primary.root, b"large", os.urandom(300_000))
    primary.store.commit()
    take_all(primary, "three")
    monkeypatch.setattr("idemfs.replication.codec.STREAM_BATCH_BYTES", 9000)

    def stop(_guid: Guid, _size: int) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        replicate_into(primary, standby, stop)
    assert partial.get(standby.store) is not None
    purge(primary, active=True)
    replicate_into(primary, standby)
    assert_equal(primary, standby)


def test_the_active_state_follows_when_the_power_went_after_the_purge(
    pair: tuple[Tree, Tree], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is sent afterwards: both have the newest snapshot already."""
    primary, standby = pair
    purge(primary)

    def power_goes(_tree: Tree, _fileset: FilesetId) -> None:
        raise RuntimeError("the power goes")

    with monkeypatch.context() as patch, pytest.raises(RuntimeError):
        patch.setattr(purges, "drop_partial", power_goes)
        replicate_into(primary, standby)
    standby = reopened(standby)
    replicate_into(primary, standby)
    assert guids(standby) == guids(primary)
    store = standby.store
    assert partial.get(store) is None
    assert store.catalog.filesets[ROOT_FILESET].digest == store.catalog.snapshots(ROOT_FILESET)[-1].digest
    assert_clean(standby)


def test_both_were_purged_by_hand(pair: tuple[Tree, Tree]) -> None:
    primary, standby = pair
    purge(primary)
    purge_here(standby, "/d/secret")
    assert guids(standby) != guids(primary)
    assert received.base(standby.store, ROOT_FILESET) is not None
    replicate_into(primary, standby)
    assert guids(standby) == guids(primary)
    assert len(audit.purges(standby.store)) == 1


def purge_here(tree: Tree, path: str) -> None:
    """As the command on a store that is primary; and the active state goes along."""
    from idemfs.snapshots import purge as purging

    wanted = Purge(1, 0, "root", path, 0, "", "", False, (), 0, (), 0)
    purging.purge(tree.active, wanted, path.encode())


def test_what_came_out_differently_is_not_common(pair: tuple[Tree, Tree]) -> None:
    primary, standby = pair
    purge(primary)
    # As if the standby's snapshot had had something else in it.
    purge_here(standby, "/d")
    for _ in range(2):
        with pytest.raises(PeerError, match="is not the same in both: run 'idemfs check'"):
            replicate_into(primary, standby)
    theirs = {guid for _, guid in guids(primary)}
    assert not [guid for _, guid in guids(standby) if guid in theirs]


def test_an_origin_is_purged_when_its_clone_was_promoted(pair: tuple[Tree, Tree]) -> None:
    primary, standby = pair
    clone(primary, primary.store.catalog.snapshots(ROOT_FILESET)[-1], "c")
    take_all(primary, "three")
    replicate_into(primary, standby)
    assert clones.origin_snapshot(standby.store, named(standby, "c").number) is not None
    with pytest.raises(SnapshotHeld, match="clones rest"):
        purge(primary)
    primary.promote_fileset(named(primary, "c"))
    purge(primary)
    purge(primary, "/c/d")
    replicate_into(primary, standby)
    assert guids(standby, "c") == guids(primary, "c")
    assert_equal_but_active(primary, standby)


# -- roles ---------------------------------------------------------------------------------------------


@pytest.fixture
def two() -> Two:
    found = Two()
    furnish(found.a)
    found.replicate(found.a)
    found.a.store.clock.advance(5)  # type: ignore[attr-defined]
    return found


def assert_agree(two: Two) -> None:
    for name in ("root", "home", "deep"):
        assert guids(two.a, name) == guids(two.b, name)
    assert digests(two.a) == digests(two.b)
    assert seen(two.a) == seen(two.b)
    assert_clean(two.a)
    assert_clean(two.b)


def test_told_before_a_failover_and_after_it(two: Two) -> None:
    purge(two.a, active=True)
    two.replicate(two.a)
    two.failover(two.b)
    two.b.store.clock.advance(9)  # type: ignore[attr-defined]
    purge(two.b, "/name", active=True)
    two.failback(two.a)
    assert_agree(two)
    two.switchover(two.b)
    assert_agree(two)
    assert not two.a.store.catalog.has_fileset("diverged")
    assert [name for name, _ in guids(two.a) if name.startswith("diverged")] == []


def test_a_purge_that_the_lost_primary_never_told_holds_when_it_comes_back(two: Two) -> None:
    purge(two.a, active=True)
    two.failover(two.b)
    make_file(two.b, two.b.root, b"late", b"l" * 5000)
    two.b.store.commit()
    manage.create(two.b.store, ROOT_FILESET, "late")
    two.failback(two.a)
    assert dict(guids(two.a)).items() >= dict(guids(two.b)).items()
    # The purged snapshots are, what the new primary has since is not: it has the file still.
    for tree in (two.a, two.b):
        assert not FileSystem(tree).snapshots["two"].exists("/d/secret")
        assert FileSystem(tree).snapshots["late"].exists("/d/secret")
        assert_clean(tree)
    assert seen(two.a) == seen(two.b)


def test_switchover_right_after_a_purge(two: Two) -> None:
    purge(two.a)
    two.switchover(two.a)
    two.switchover(two.b)
    assert_agree(two)


def test_purge_while_the_standby_was_primary_and_reopened_in_between(two: Two) -> None:
    two.failover(two.b)
    purge(two.b)
    two.b = reopened(two.b)
    two.a = reopened(two.a)
    two.failback(two.a)
    assert_agree(two)
    assert [name for name, _ in guids(two.a) if name.startswith("diverged")] == []


def test_nothing_is_told_to_a_store_of_something_else(pair: tuple[Tree, Tree]) -> None:
    primary, _ = pair
    purge(primary)
    stranger = standby_of(memory_tree(clock=Simulated(6)))
    with pytest.raises((PeerError, RoleError)):
        replicate_into(primary, stranger)
    purges.carry_out(stranger, purges.told_by(primary.store))
    assert audit.purges(stranger.store) == []
