"""Two open stores: plans carried out, holds that follow."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterable, Mapping, Sequence
from random import Random

import pytest

from idemfs.errors import CommitFailed, ConnectionLost, PeerError, SnapshotHeld, SnapshotMissing
from idemfs.ids import Guid
from idemfs.replication import codec, link
from idemfs.replication.apply import is_half_received
from idemfs.replication.description import Description
from idemfs.replication.link import hold_owner, replicate_into
from idemfs.replication.receiver import LocalReceiver
from idemfs.replication.send import Frames
from idemfs.snapshots import delete, manage
from idemfs.store.store import Store
from idemfs.testing.builders import assert_clean, make_file, memory_store, memory_tree, random_changes, reopened
from idemfs.testing.clock import Simulated
from idemfs.vfs.tree import Tree
from tests.unit.replication.pairs import assert_same, snapshots, standby_of, take, visible


@pytest.fixture
def primary() -> Tree:
    tree = memory_tree(clock=Simulated(2))
    rng = Random(2)
    for name in ("one", "two", "three"):
        random_changes(tree, rng, 150)
        take(tree, name)
    return tree


def held(primary: Tree, standby: Tree) -> list[str]:
    owner = hold_owner(standby.store.superblock.guid)
    return [each.name for each in snapshots(primary) if owner in manage.holders(primary.store, each)]


def test_all_snapshots_in_order_and_then_none(primary: Tree) -> None:
    standby = standby_of(primary)
    report = replicate_into(primary, standby)
    assert [(each.base, each.target) for each in report.transfers] == [(None, "one"), ("one", "two"), ("two", "three")]
    assert report.common is None
    assert report.bytes > report.block_bytes > 0 and report.records > 0
    assert visible(standby) == visible(primary)
    report = replicate_into(primary, standby)
    assert (report.transfers, report.bytes) == ((), 0)
    assert report.common is not None and report.common.name == "three"


def test_a_snapshot_that_is_deleted_before_it_is_sent_leaves_no_hold_behind(primary: Tree) -> None:
    """Nothing would ever end that hold, since its owner ends those of the snapshots that there are."""
    standby = standby_of(primary)
    one, two, three = snapshots(primary)

    def delete_the_next(guid: Guid, _: int) -> None:
        if guid == one.guid and two in snapshots(primary):
            delete.delete(primary.active, two)

    with pytest.raises(SnapshotMissing, match=r"two.*repeat"):
        replicate_into(primary, standby, delete_the_next)
    assert_clean(primary)
    assert held(primary, standby) == ["one"]
    replicate_into(primary, standby)
    assert [each.name for each in snapshots(standby)] == ["one", "three"]
    assert held(primary, standby) == ["three"] and three in snapshots(primary)
    assert visible(standby) == visible(primary)


def test_the_newest_common_snapshot_is_held_and_no_other(primary: Tree) -> None:
    one, two = standby_of(primary, seed=1), standby_of(primary, seed=2)
    replicate_into(primary, one)
    random_changes(primary, Random(3), 20)
    take(primary, "four")
    replicate_into(primary, two)
    assert (held(primary, one), held(primary, two)) == (["three"], ["four"])
    replicate_into(primary, one)
    assert (held(primary, one), held(primary, two)) == (["four"], ["four"])
    delete.delete(primary.active, snapshots(primary)[2])
    with pytest.raises(SnapshotHeld, match="standby:"):
        delete.delete(primary.active, snapshots(primary)[-1])
    assert held(reopened(primary, committed=False), one) == ["four"]


def test_what_the_standby_has_made_is_held_when_the_primary_fails_before_it_hears_of_it(primary: Tree) -> None:
    """Else it could be pruned then, and with it all that both have."""

    class Lost(LocalReceiver):
        def receive(
            self, streams: Sequence[tuple[Guid, Iterable[bytes | memoryview]]], wanted: Mapping[Guid, Description]
        ) -> list[bool]:
            super().receive(streams, wanted)
            raise ConnectionLost("the other store made it, and its answer was lost")

    standby = standby_of(primary)
    with pytest.raises(ConnectionLost):
        link.replicate_into(primary, Lost(standby))
    primary = reopened(primary, committed=False)
    assert [each.name for each in snapshots(standby)] == held(primary, standby) == ["one"]


def test_progress_is_told_by_snapshot(primary: Tree) -> None:
    told: list[tuple[Guid, int]] = []
    report = replicate_into(primary, standby_of(primary), lambda guid, size: told.append((guid, size)))
    assert {guid for guid, _ in told} == {each.guid for each in snapshots(primary)}
    sizes = [size for guid, size in told if guid == snapshots(primary)[0].guid]
    assert sizes == sorted(sizes) and 0 < sizes[-1] <= report.transfers[0].bytes


def test_an_interrupted_transfer_goes_on_and_keeps_its_base_held(
    primary: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codec, "STREAM_BATCH_BYTES", 3000)

    class Stop(Exception):
        pass

    def stop(guid: Guid, size: int) -> None:
        if guid == snapshots(primary)[1].guid and size > 20_000:
            raise Stop

    standby = standby_of(primary)
    with pytest.raises(Stop):
        replicate_into(primary, standby, stop)
    assert is_half_received(standby.store)
    assert held(primary, standby) == ["one", "two"]
    standby = reopened(standby)
    report = replicate_into(primary, standby)
    assert [(each.target, each.resumed) for each in report.transfers] == [("two", True), ("three", False)]
    assert held(primary, standby) == ["three"]
    for each in snapshots(primary):
        assert_same(primary, standby, each.name)
    assert_clean(standby)


def test_a_snapshot_that_was_pruned_while_it_was_half_sent_is_no_obstacle(
    primary: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codec, "STREAM_BATCH_BYTES", 3000)

    class Stop(Exception):
        pass

    def stop(guid: Guid, size: int) -> None:
        if guid == snapshots(primary)[1].guid and size > 20_000:
            raise Stop

    standby = standby_of(primary)
    with pytest.raises(Stop):
        replicate_into(primary, standby, stop)
    two = snapshots(primary)[1]
    manage.release(primary.store, two, hold_owner(standby.store.superblock.guid))
    delete.delete(primary.active, two)
    replicate_into(primary, standby)
    assert [each.name for each in snapshots(standby)] == ["one", "three"]
    assert_same(primary, standby, "three")
    assert_clean(standby)


def test_what_was_pruned_on_one_side_stays_on_the_other(primary: Tree) -> None:
    standby = standby_of(primary)
    replicate_into(primary, standby)
    delete.delete(primary.active, snapshots(primary)[0])
    delete.delete(standby.active, snapshots(standby)[1])
    random_changes(primary, Random(5), 40)
    take(primary, "four")
    replicate_into(primary, standby)
    assert [each.name for each in snapshots(standby)] == ["one", "three", "four"]
    for name in ("three", "four"):
        assert_same(primary, standby, name)
    assert_clean(standby)


def test_conflicts_are_errors_and_change_nothing(primary: Tree) -> None:
    stranger = standby_of(memory_tree(clock=Simulated(9)))
    with pytest.raises(PeerError, match="not related"):
        replicate_into(primary, stranger)
    standby = standby_of(primary)
    replicate_into(primary, standby)
    for each in snapshots(primary):
        manage.release(primary.store, each, hold_owner(standby.store.superblock.guid))
        delete.delete(primary.active, each)
    take(primary, "four")
    before = visible(standby)
    with pytest.raises(PeerError, match="none that its primary has"):
        replicate_into(primary, standby)
    assert (visible(standby), visible(stranger)) == (before, [])


def test_the_end_of_a_stream_is_not_made_before_its_snapshot_is_durable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the standby could have what its primary lost."""
    made = memory_store()
    store = Store(made.superblock, made.kv, made.blocks, made.clock, background=True)
    tree = Tree(store)
    make_file(tree, tree.root, b"f", b"content")
    store.commit()
    begun = threading.Event()

    def fail(*_: object) -> None:
        begun.wait()
        raise OSError(errno.EIO, "the disk is gone")

    monkeypatch.setattr(store.kv, "commit", fail)
    make_file(tree, tree.root, b"g", b"more")
    (target,) = manage.create_all(store, [(tree.fileset, "one")], wait=False)
    frames = iter(Frames(tree, None, target))
    next(frames)
    begun.set()
    with pytest.raises(CommitFailed):
        list(frames)
    store.abandon()
