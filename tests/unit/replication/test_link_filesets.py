"""All filesets of a primary go along: what they hold, what they are called, where they appear; in memory."""

from __future__ import annotations

import stat

import pytest

from idemfs.errors import PeerError, StreamRefused
from idemfs.format import keys
from idemfs.format.tables import Fileset, Snapshot
from idemfs.ids import ROOT_FILESET, Guid, Ino
from idemfs.replication import apply, follow, link, partial
from idemfs.replication.apply import drop_partials, is_half_received
from idemfs.replication.link import replicate_into
from idemfs.snapshots import automatic, lines, manage, received
from idemfs.snapshots.policy import Policy
from idemfs.store.store import Store
from idemfs.testing.builders import assert_clean, content_of, make_file, memory_tree
from idemfs.testing.clock import Simulated
from idemfs.vfs.tree import Tree
from tests.unit.replication.pairs import listing, standby_of


class Stopped(Exception):
    """Somebody stopped a transfer."""


def nested() -> Tree:
    """Filesets ``home`` in the root, and ``deep`` in ``home``, each with a file."""
    tree = memory_tree(clock=Simulated(5))
    home = tree.make_fileset(tree.root, b"home", "home", 0, 0)
    deep = tree.make_fileset(root_of(home), b"deep", "deep", 0, 0)
    for parent in (tree.root, root_of(home), root_of(deep)):
        make_file(tree, parent, b"f", b"1" * 9000)
    tree.store.commit()
    return tree


def root_of(fileset: Fileset) -> Ino:
    return Ino(fileset.number << 48 | 1)


def named(tree: Tree, name: str) -> Fileset:
    return tree.store.catalog.fileset_named(name)


def take_all(tree: Tree, name: str) -> list[Snapshot]:
    tree.store.clock.advance(1)  # type: ignore[attr-defined]
    return manage.create_all(tree.store, [(each.number, name) for each in tree.store.catalog.listed_filesets()])


def write(tree: Tree, content: bytes) -> None:
    """Each fileset's file has this content."""
    for fileset in tree.store.catalog.listed_filesets():
        ino = tree.reader.lookup(root_of(fileset), b"f")
        tree.truncate(ino, 0)
        tree.write(ino, 0, content)
    tree.store.commit()


def seen(tree: Tree) -> dict[bytes, bytes]:
    """Paths of files that readers get to, and their contents."""
    reader = tree.newest_reader()
    found: dict[bytes, bytes] = {}
    waiting = [(b"/", reader.root)]
    while waiting:
        path, ino = waiting.pop()
        if reader.inode(ino).is_dir:
            waiting += [(path + name + b"/", child) for name, child, _ in reader.all_entries(ino)]
        else:
            found[path.rstrip(b"/")] = content_of(reader, ino)
    return found


def digests(tree: Tree) -> dict[tuple[str, str], int]:
    return {
        (fileset.name, each.name): each.digest
        for fileset in tree.store.catalog.listed_filesets()
        for each in tree.store.catalog.snapshots(fileset.number)
    }


def assert_equal(primary: Tree, standby: Tree) -> None:
    assert digests(primary) == digests(standby)
    assert seen(primary) == seen(standby)
    for tree in (primary, standby):
        assert_clean(tree)


def test_filesets_are_made_with_their_content_and_readers_walk_from_one_to_the_other() -> None:
    primary = nested()
    take_all(primary, "one")
    standby = standby_of(primary)
    report = replicate_into(primary, standby)
    assert [each.fileset for each in report.transfers] == ["root", "home", "deep"]
    assert_equal(primary, standby)
    assert set(seen(standby)) == {b"/f", b"/home/f", b"/home/deep/f"}
    reader = standby.newest_reader()
    deep = reader.lookup(reader.lookup(reader.root, b"home"), b"deep")
    assert reader.path(reader.lookup(deep, b"f")) == b"/home/deep/f"
    assert reader.lookup(reader.lookup(deep, b".."), b"..") == reader.root
    assert named(standby, "deep").guid == named(primary, "deep").guid
    assert not replicate_into(primary, standby).transfers


def test_a_junction_is_a_directory_until_something_came_of_its_fileset() -> None:
    primary, standby = nested(), None
    manage.create(primary.store, ROOT_FILESET, "one")
    standby = standby_of(primary)
    replicate_into(primary, standby)
    reader = standby.newest_reader()
    assert list(reader.all_entries(reader.lookup(reader.root, b"home"))) == []
    assert_clean(standby)
    take_all(primary, "two")
    replicate_into(primary, standby)
    assert set(seen(standby)) == {b"/f", b"/home/f", b"/home/deep/f"}


def test_changes_alone_travel_and_snapshots_of_one_instant_become_complete_together() -> None:
    primary = nested()
    take_all(primary, "one")
    standby = standby_of(primary)
    replicate_into(primary, standby)
    before = seen(standby)
    write(primary, b"2" * 5000)
    take_all(primary, "two")
    stops = 0
    for after in range(1, 20):
        left = after

        def stop(_guid: Guid, _size: int) -> None:
            nonlocal left
            left -= 1
            if not left:
                raise Stopped

        try:
            replicate_into(primary, standby, stop)
        except Stopped:
            stops += 1
            assert seen(standby) == before
            assert is_half_received(standby.store)
            assert_clean(standby)
        else:
            break
    assert stops
    assert_equal(primary, standby)


def test_a_group_that_is_half_received_is_dropped_as_a_whole() -> None:
    primary = nested()
    take_all(primary, "one")
    standby = standby_of(primary)
    replicate_into(primary, standby)
    before = seen(standby)
    write(primary, b"2")
    two = take_all(primary, "two")

    def stop(guid: Guid, _size: int) -> None:
        if guid == two[-1].guid:
            raise Stopped

    with pytest.raises(Stopped):
        replicate_into(primary, standby, stop)
    half = [each.number for each in lines.own_filesets(standby.store) if partial.get(standby.store, each.number)]
    assert len(half) == 3
    assert drop_partials(standby)
    assert seen(standby) == before
    for fileset in lines.own_filesets(standby.store):
        base = received.base(standby.store, fileset.number)
        assert base is not None and (base.name, base.digest) == ("one", fileset.digest)
    replicate_into(primary, standby)
    assert_equal(primary, standby)


def test_one_that_does_not_come_right_keeps_its_whole_group_back(monkeypatch: pytest.MonkeyPatch) -> None:
    primary = nested()
    take_all(primary, "one")
    standby = standby_of(primary)
    replicate_into(primary, standby)
    before = seen(standby)
    write(primary, b"2")
    two = take_all(primary, "two")
    two[-1].digest ^= 1
    with pytest.raises(StreamRefused, match="digests differ"):
        replicate_into(primary, standby)
    assert seen(standby) == before
    two[-1].digest ^= 1
    replicate_into(primary, standby)
    assert_equal(primary, standby)


def test_names_places_and_quotas_follow_also_when_two_exchange_them() -> None:
    primary = nested()
    other = primary.make_fileset(primary.root, b"other", "other", 0, 0)
    make_file(primary, root_of(other), b"f", b"other")
    take_all(primary, "one")
    standby = standby_of(primary)
    replicate_into(primary, standby)
    home = named(primary, "home")
    primary.rename_fileset(home, "x")
    primary.rename_fileset(other, "home")
    primary.rename_fileset(home, "other")
    primary.create(primary.root, b"spare", stat.S_IFDIR | 0o755, 0, 0)
    primary.attach_fileset(home, primary.root, b"spare")
    place = other.junction
    primary.attach_fileset(other, primary.root, b"home")
    assert other.junction != place
    primary.attach_fileset(home, primary.root, b"other")
    primary.set_quota(home, quota_bytes=1 << 20, quota_inodes=7, counts_snapshots=True)
    take_all(primary, "two")
    replicate_into(primary, standby)
    assert_equal(primary, standby)
    there = named(standby, "other")
    assert there.guid == home.guid
    assert (there.quota_bytes, there.quota_inodes, there.flags) == (1 << 20, 7, 1)
    primary.set_quota(home, quota_bytes=0, quota_inodes=0, counts_snapshots=False)
    replicate_into(primary, standby)
    assert (there.quota_bytes, there.quota_inodes, there.flags) == (0, 0, 0)


def with_peers(tree: Tree) -> None:
    tree.store.admit(1, 100)
    tree.store.small.put(keys.replication("peers"), b"[]")


def test_a_deleted_fileset_is_deleted_unless_somebody_holds_a_snapshot_of_it() -> None:
    primary = nested()
    with_peers(primary)
    take_all(primary, "one")
    standby = standby_of(primary)
    replicate_into(primary, standby)
    deep = named(standby, "deep")
    manage.hold(standby.store, standby.store.catalog.by_name(deep.number, "one"), "somebody")
    primary.delete_fileset(named(primary, "deep"), held=True)
    take_all(primary, "two")
    replicate_into(primary, standby)
    assert named(standby, "deep") is deep and not deep.junction
    assert set(seen(standby)) == {b"/f", b"/home/f"}
    assert_clean(standby)
    manage.release(standby.store, standby.store.catalog.by_name(deep.number, "one"), "somebody")
    replicate_into(primary, standby)
    assert not standby.store.catalog.has_fileset("deep")
    assert_equal(primary, standby)


def test_a_fileset_that_only_the_standby_has_gives_up_its_name() -> None:
    primary = nested()
    take_all(primary, "one")
    standby = standby_of(primary)
    with standby.store.lock:
        follow.make(standby.store, Guid(b"x" * 16), "home", 0, lines.Line(Guid(b"y" * 16), 1))
        standby.store.commit()
    replicate_into(primary, standby)
    assert named(standby, "home").guid == named(primary, "home").guid
    assert named(standby, "home-here").guid == b"x" * 16
    assert_clean(standby)


def test_what_users_hold_and_lock_is_kept_on_the_standby_and_let_go_there_too() -> None:
    primary = nested()
    take_all(primary, "one")
    home = named(primary, "home")
    one = primary.store.catalog.by_name(home.number, "one")
    manage.hold(primary.store, one, "audit")
    standby = standby_of(primary)
    replicate_into(primary, standby)
    there = standby.store.catalog.by_guid(named(standby, "home").number, one.guid)
    assert there is not None
    assert manage.holders(standby.store, there) == ["audit"]
    manage.hold(standby.store, there, "here")
    manage.release(primary.store, one, "audit")
    until_ns = primary.store.clock.now_ns() + 10**12
    manage.lock(primary.store, one, until_ns)
    replicate_into(primary, standby)
    assert manage.holders(standby.store, there) == ["here"]
    assert manage.locked_until(standby.store, there) == until_ns
    assert_clean(standby)


def test_a_snapshot_in_the_middle_of_nowhere_is_told_with_the_name_of_its_fileset() -> None:
    primary = nested()
    take_all(primary, "one")
    standby = standby_of(primary)
    replicate_into(primary, standby)
    home = named(standby, "home")
    stranger = manage.create(standby.store, home.number, "stranger")
    received.put_base(standby.store, stranger.guid, home.number)
    with pytest.raises(PeerError, match=r"fileset 'home': .*stranger"):
        replicate_into(primary, standby)


def test_a_policy_waits_on_the_standby() -> None:
    primary = nested()
    take_all(primary, "one")
    home = named(primary, "home")
    automatic.set_policy(primary.store, home.number, Policy(every_seconds=60, keep_last=3))
    standby = standby_of(primary)
    replicate_into(primary, standby)
    there = named(standby, "home").number
    assert automatic.policy_of(standby.store, there) == Policy()
    assert lines.policy_of(standby.store, there) == primary.store.small.get(keys.policy(home.number))
    automatic.set_policy(primary.store, home.number, Policy())
    replicate_into(primary, standby)
    assert lines.policy_of(standby.store, there) is None


def test_one_fileset_costs_no_more_commits_than_before(monkeypatch: pytest.MonkeyPatch) -> None:
    primary = memory_tree()
    make_file(primary, primary.root, b"f", b"1" * 9000)
    manage.create(primary.store, ROOT_FILESET, "one")
    standby = standby_of(primary)
    counts = {id(primary.store): 0, id(standby.store): 0}
    commit = Store.commit

    def counted(self: Store, *args: object, **options: object) -> None:
        counts[id(self)] += 1
        commit(self, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Store, "commit", counted)
    replicate_into(primary, standby)
    assert counts == {id(primary.store): 1, id(standby.store): 2}


def test_files_are_equal_one_by_one() -> None:
    primary = nested()
    take_all(primary, "one")
    standby = standby_of(primary)
    replicate_into(primary, standby)
    for name in ("root", "home", "deep"):
        trees = []
        for tree in (primary, standby):
            fileset = named(tree, name).number
            trees.append(listing(tree.snapshot_reader(tree.store.catalog.by_name(fileset, "one"))))
        plain = [{path: facts[1:5] for path, facts in each.items()} for each in trees]
        assert plain[0] == plain[1]
    assert link.hold_owner(standby.store.superblock.guid) in manage.holders(
        primary.store, primary.store.catalog.by_name(named(primary, "deep").number, "one")
    )
    assert apply.resume_cursor(standby, named(standby, "deep").number) is None
