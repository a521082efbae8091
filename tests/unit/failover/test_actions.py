"""Single steps on stores in memory: each is one durable change, and none lets a role or a state slip through."""

from __future__ import annotations

import stat
import threading

import pytest

from idemfs.errors import Damaged, Fenced, NotPrimary, NotStandby, RoleError, StreamRefused
from idemfs.failover import actions, records
from idemfs.failover.facts import Frozen
from idemfs.failover.observe import guid_of
from idemfs.format import role
from idemfs.format.role import Role, RoleRecord
from idemfs.ids import ROOT_FILESET, Guid
from idemfs.replication import link, partial
from idemfs.replication.apply import Reception, drop_partials
from idemfs.replication.codec import StreamReader
from idemfs.replication.receiver import Following, Line, LocalReceiver, NewFileset
from idemfs.replication.records import START
from idemfs.snapshots import manage, received
from idemfs.store.store import Store
from idemfs.testing.builders import assert_clean, content_of, make_file, memory_store, memory_tree, reopened
from idemfs.testing.clock import Simulated
from idemfs.vfs.tree import Tree
from tests.unit.failover.sides import guid
from tests.unit.replication.pairs import reading, standby_of, stream_of

PEER = guid("P")


def primary() -> Tree:
    """With one file, one snapshot of it, and one peer."""
    tree = memory_tree()
    join(tree, [guid_of(tree), PEER])
    make_file(tree, tree.root, b"f", b"1" * 9000)
    manage.create(tree.store, ROOT_FILESET, "one")
    return tree


def join(tree: Tree, guids: list[Guid]) -> None:
    members = [records.PeerRecord(guid=each, path="/" + each.hex(), name=each.hex()) for each in guids]
    records.commit_members(tree.store, members)


def standby() -> Tree:
    """As ``primary``, after it became one."""
    tree = primary()
    actions.freeze(tree, Frozen(peer=PEER, epoch=2))
    actions.demote(tree, 2, None)
    return tree


def next_number(tree: Tree) -> int:
    return tree.store.catalog.filesets[ROOT_FILESET].next_number


def test_hearing_of_an_epoch_fences_a_primary_for_good_and_changes_no_other_role() -> None:
    tree = primary()
    actions.tell(tree, 5)
    assert reopened(tree, committed=False).role == RoleRecord(Role.FENCED, 1, 5)
    other = standby()
    actions.tell(other, 5)
    assert other.role == RoleRecord(Role.STANDBY, 2, 5)
    actions.tell(other, 3)
    assert other.role.seen_epoch == 5


def test_what_was_written_before_a_fence_is_kept_and_nothing_after_it_comes_in() -> None:
    tree = primary()
    ino = make_file(tree, tree.root, b"g", b"2")
    actions.tell(tree, 2)
    with pytest.raises(Fenced):
        tree.write(ino, 0, b"3")
    again = reopened(tree, committed=False)
    assert content_of(again.reader, ino) == b"2"


def test_a_writer_that_waits_for_room_while_the_store_is_fenced_is_refused() -> None:
    tree = primary()
    ino = tree.reader.lookup(tree.root, b"f")
    outcome: list[BaseException | int] = []

    def write() -> None:
        try:
            outcome.append(tree.write(ino, 0, b"late"))
        except Fenced as error:
            outcome.append(error)

    writer = threading.Thread(target=write)
    with tree.store.exclusive():
        writer.start()
        # Until the writer has passed its first look at the role and waits: it holds the lock while it looks.
        while not _waits(tree.store):
            tree.store._done.wait(0.01)
        actions.tell(tree, 2)
    writer.join()
    assert isinstance(outcome[0], Fenced)
    assert content_of(tree.reader, ino) == b"1" * 9000


def _waits(store: Store) -> bool:
    return len(store._done._waiters) > 0  # type: ignore[attr-defined]


def test_a_snapshot_is_taken_only_of_a_state_that_none_has() -> None:
    tree = primary()
    assert actions.take_snapshot(tree) is None
    make_file(tree, tree.root, b"g")
    taken = actions.take_snapshot(tree)
    assert (
        taken is not None and taken.name == actions.time_name(tree.store.clock.now_ns()) == "auto-2023-11-14T22-13-20Z"
    )
    make_file(tree, tree.root, b"h")
    again = actions.take_snapshot(tree)
    assert again is not None and again.name == "auto-2023-11-14T22-13-20Z-2"
    actions.go_back(tree, tree.store.catalog.by_name(ROOT_FILESET, "one").guid)
    # The state is no new one, but not that of the newest snapshot, which is what a standby gets.
    assert actions.take_snapshot(tree, "diverged-1") is None
    assert actions.take_snapshot(tree) is not None


def test_going_back_keeps_newer_snapshots_and_is_remembered_as_the_base() -> None:
    tree = primary()
    make_file(tree, tree.root, b"g", b"2" * 9000)
    manage.create(tree.store, ROOT_FILESET, "two")
    make_file(tree, tree.root, b"h", b"in no snapshot")
    one = tree.store.catalog.by_name(ROOT_FILESET, "one")
    actions.go_back(tree, one.guid)
    assert [name for name, _, _ in tree.reader.all_entries(tree.root)] == [b"f"]
    base = received.base(tree.store, ROOT_FILESET)
    assert base is not None and base.name == "one"
    two = tree.snapshot_reader(tree.store.catalog.by_name(ROOT_FILESET, "two"))
    assert content_of(two, two.lookup(tree.root, b"g")) == b"2" * 9000
    assert_clean(tree)


def test_a_standby_shows_its_base_although_other_snapshots_are_newer() -> None:
    tree = primary()
    make_file(tree, tree.root, b"g")
    manage.create(tree.store, ROOT_FILESET, "diverged-1")
    one = tree.store.catalog.by_name(ROOT_FILESET, "one")
    actions.tell(tree, 2)
    actions.go_back(tree, one.guid)
    actions.demote(tree, 2, one.guid)
    reader = reopened(tree).newest_reader()
    assert reader.snapshot is not None and reader.snapshot.name == "one"


def test_a_store_becomes_a_standby_only_in_a_state_that_its_base_has() -> None:
    tree = primary()
    make_file(tree, tree.root, b"g")
    actions.tell(tree, 2)
    with pytest.raises(Damaged, match="not that of snapshot one"):
        actions.demote(tree, 2, tree.store.catalog.by_name(ROOT_FILESET, "one").guid)
    assert tree.role.role is Role.FENCED


def test_a_standby_refuses_to_be_frozen_and_a_primary_to_take_an_old_epoch() -> None:
    with pytest.raises(RoleError):
        actions.freeze(standby(), Frozen(peer=PEER, epoch=9))
    tree = standby()
    with pytest.raises(RoleError, match="not above"):
        actions.promote(tree, 2, None)
    assert tree.role.role is Role.STANDBY


def test_taking_over_drops_what_is_half_received_even_if_no_plan_says_so() -> None:
    tree = standby()
    with tree.store.lock:
        ino = tree.reader.lookup(tree.root, b"f")
        tree.store.admit(10, 10_000)
        partial.put(tree.store, partial.Partial(guid("next"), guid("base"), START, "next"))
        tree.active.change_inode(ino).mode ^= 0o100
        tree.store.commit()
    actions.promote(tree, 3, None)
    assert tree.reader.inode(ino).mode & 0o777 == 0o644
    assert partial.get(tree.store) is None
    assert tree.role.role is Role.PRIMARY
    assert_clean(tree)


def test_what_begins_to_come_in_while_a_store_takes_over_is_not_what_its_users_see(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = primary()
    tree = standby_of(source)
    link.replicate_into(source, tree)
    make_file(source, source.root, b"g", b"2" * 9000)
    one, two = source.store.catalog.snapshots(ROOT_FILESET)[-1], manage.create(source.store, ROOT_FILESET, "two")

    def drop_and_begin(dropped: Tree) -> None:
        drop_partials(dropped)
        Reception(dropped, StreamReader(reading(stream_of(source, one, two)))).apply()

    monkeypatch.setattr(actions, "drop_partials", drop_and_begin)
    with pytest.raises(RoleError, match="has begun to send to this one just now"):
        actions.promote(tree, 2, None)
    monkeypatch.undo()
    assert tree.role.role is Role.STANDBY
    actions.promote(tree, 2, None)
    with pytest.raises(FileNotFoundError):
        tree.reader.lookup(tree.root, b"g")


@pytest.mark.parametrize("what", ["make", "follow"])
def test_a_primary_makes_and_deletes_no_fileset_that_another_store_tells_of(what: str) -> None:
    tree = primary()
    receiver, somebody = LocalReceiver(tree), guid("Q")
    with pytest.raises(NotStandby):
        if what == "make":
            receiver.make([NewFileset(somebody, "other", 0, Guid(tree.store.catalog.filesets[ROOT_FILESET].guid))])
        else:
            receiver.follow(Following(somebody, 1, (), (), (), (somebody,)))
    assert [each.name for each in tree.store.catalog.listed_filesets()] == ["root"]


@pytest.mark.parametrize("what", ["agree", "follow"])
def test_a_standby_hears_nothing_more_from_a_primary_whose_epoch_has_ended(what: str) -> None:
    tree = standby()
    actions.tell(tree, 3)
    receiver, root = LocalReceiver(tree), Guid(tree.store.catalog.filesets[ROOT_FILESET].guid)

    def told(epoch: int) -> None:
        if what == "agree":
            receiver.agree(Line(root, epoch, (), ()))
        else:
            receiver.follow(Following(root, epoch, (), (), (), ()))

    with pytest.raises(StreamRefused, match="epoch 3 has begun"):
        told(2)
    told(3)


def test_a_standby_whose_state_is_not_its_base_does_not_take_over() -> None:
    tree = standby()
    with tree.store.lock:
        ino = tree.reader.lookup(tree.root, b"f")
        tree.store.admit(10, 10_000)
        tree.active.change_inode(ino).mode ^= 0o100
        tree.store.commit()
    with pytest.raises(Damaged):
        actions.promote(tree, 3, None)
    with pytest.raises(NotPrimary):
        tree.write(ino, 0, b"x")


def test_an_empty_standby_does_not_take_over() -> None:
    store = memory_store()
    store.admit(1, 100)
    store.small.put(role.KEY, role.pack(RoleRecord(Role.STANDBY, 1, 1)))
    tree = Tree(store)
    with pytest.raises(RoleError, match="never received"):
        actions.promote(tree, 2, None)


def test_inode_numbers_after_a_takeover_begin_in_a_range_of_their_own() -> None:
    unseen, followed = standby(), standby()
    actions.promote(unseen, 3, None)
    assert next_number(unseen) % actions.NUMBER_RANGE == 0
    old = primary()
    make_file(old, old.root, b"g")
    actions.promote(followed, 3, actions.next_numbers(old))
    assert next_number(followed) == next_number(old)
    behind = standby()
    make_file(followed, followed.root, b"g")
    actions.promote(behind, 3, actions.next_numbers(followed))
    assert next_number(behind) == next_number(followed)


def test_numbers_of_stores_that_know_each_other_are_dealt_out() -> None:
    trees = [memory_tree(clock=Simulated(seed)) for seed in range(5)]
    for count in (2, 3, 5):
        group = trees[:count]
        for tree in group:
            join(tree, [guid_of(each) for each in group])
        for next_number in (1, 17, actions.NUMBER_RANGE, 7 * actions.NUMBER_RANGE + 5):
            firsts = [actions._own_numbers(tree, next_number) for tree in group]
            assert len(set(firsts)) == count
            assert all(next_number < first <= next_number + count * actions.NUMBER_RANGE for first in firsts)
        assert actions._own_numbers(group[1], 1) == actions.NUMBER_RANGE


def test_what_returning_stores_need_is_held_by_a_primary_and_let_go_by_a_standby() -> None:
    tree = standby()
    one = tree.store.catalog.by_name(ROOT_FILESET, "one")
    actions.promote(tree, 3, None)
    assert manage.holders(tree.store, one) == [link.hold_owner(PEER)]
    actions.freeze(tree, Frozen(peer=PEER, epoch=4))
    actions.demote(tree, 4, None)
    assert manage.holders(tree.store, one) == []


def test_files_that_were_open_and_unlinked_at_the_old_primary_are_gone_after_a_takeover() -> None:
    tree = primary()
    ino = tree.create(tree.root, b"open", stat.S_IFREG | 0o644, 0, 0)
    tree.open(ino)
    tree.unlink(tree.root, b"open")
    manage.create(tree.store, ROOT_FILESET, "two")
    actions.freeze(tree, Frozen(peer=PEER, epoch=2))
    actions.demote(tree, 2, None)
    again = reopened(tree)
    assert again.active.inode(ino) is not None
    actions.promote(again, 3, None)
    assert again.active.inode(ino) is None
    assert_clean(again)
