"""A standby of a standby, made by a link and kept through exchanges of roles; and filling a standby anew."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from idemfs.errors import PeerError, RoleError
from idemfs.failover import actions, records
from idemfs.format.role import Role
from idemfs.ids import ROOT_FILESET, Guid
from idemfs.node import link_round
from idemfs.node.beginning import begin_anew
from idemfs.node.link_decisions import Send
from idemfs.node.link_round import NotNow
from idemfs.replication import anew, applier, via
from idemfs.replication.apply import drop_partials
from idemfs.snapshots import delete, diverged, received
from idemfs.snapshots.policy import Policy
from idemfs.testing.builders import assert_clean
from idemfs.vfs.tree import Tree
from tests.unit.node.link_place import Place, transfers
from tests.unit.replication.pairs import listing

KEEP = Policy(keep_last=5)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with ExitStack() as stack:
        made = Place(tmp_path, stack)
        made.make("A")
        made.write("A")
        made.round("A", "B")
        made.open("B")
        yield made
        for tree in made.trees.values():
            assert_clean(tree)


def exchange(place: Place, old: str, new: str, epoch: int) -> None:
    """As a switchover does it."""
    gone, taking = place.trees[old], place.trees[new]
    actions.promote(taking, epoch, actions.next_numbers(gone))
    newest = gone.store.catalog.snapshots(gone.fileset)[-1]
    actions.tell(gone, epoch)
    actions.demote(gone, epoch, Guid(newest.guid))


def test_the_link_of_a_standby_makes_the_next_one_and_goes_on_in_any_role(place: Place) -> None:
    assert transfers(place.round("B", "C"))
    third = place.open("C")
    assert via.get(third.store) == place.trees["B"].store.superblock.guid
    assert {each.path for each in records.get_peers(third.store)} == {place.path("A"), place.path("B")}
    assert [each.path for each in records.get_peers(place.trees["A"].store)] == [place.path("B")]
    place.write("A")
    place.round("A", "B")
    place.round("B", "C")
    place.assert_equal("B", "C")
    exchange(place, "A", "B", 2)
    place.write("B")
    assert place.round("B", "C").decision == Send(is_sole=True)
    place.assert_equal("B", "C")
    place.round("B", "A")
    exchange(place, "B", "A", 3)
    place.write("A")
    place.round("A", "B")
    assert place.round("B", "C").decision == Send(is_sole=True)
    place.assert_equal("A", "C")
    assert third.role.seen_epoch == 3 and third.role.role is Role.STANDBY


def test_it_goes_back_with_the_one_that_it_follows(place: Place) -> None:
    """What a failback passes over in B is passed over in C, too."""
    place.round("B", "C", KEEP)
    third, second = place.open("C"), place.trees["B"]
    common = second.store.catalog.snapshots(ROOT_FILESET)[-1]
    actions.promote(second, 2, None)
    place.write("B")
    place.round("B", "C", KEEP)
    lost = third.store.catalog.snapshots(ROOT_FILESET)[-1]
    actions.demote(second, 3, Guid(second.store.catalog.snapshots(ROOT_FILESET)[-1].guid))
    actions.go_back(second, Guid(common.guid))
    actions.promote(place.trees["A"], 3, None)
    place.write("A")
    place.round("A", "B", KEEP)
    place.round("B", "C", KEEP)
    place.assert_equal("A", "C")
    assert lost in third.store.catalog.snapshots(ROOT_FILESET)


def test_a_primary_that_adds_it_makes_it_a_standby_like_any_other(place: Place) -> None:
    place.round("B", "C")
    third = place.open("C")
    place.round("A", "C")
    assert via.get(third.store) is None
    assert place.path("C") in {each.path for each in records.get_peers(place.trees["A"].store)}


def nothing_in_common(place: Place) -> None:
    tree = place.trees["A"]
    place.clock.advance(31 * 86_400)
    place.write("A")
    link_round.take(tree)
    delete.delete(tree.active, tree.store.catalog.snapshots(tree.fileset)[0])
    with pytest.raises(PeerError, match=r"standby add STORE PEER --anew"):
        place.round("A", "B")


def test_a_standby_with_nothing_in_common_begins_anew_and_loses_nothing(place: Place) -> None:
    standby = place.trees["B"]
    (old,) = standby.store.catalog.snapshots(standby.fileset)
    before = listing(standby.snapshot_reader(old))
    nothing_in_common(place)
    assert begin_anew(place.path("A"), place.path("B"), dry_run=True) == ["root"]
    assert received.base(standby.store, ROOT_FILESET) is old
    assert begin_anew(place.path("A"), place.path("B")) == ["root"]
    assert listing(standby.snapshot_reader(old)) == before
    with pytest.raises(RoleError, match="begun anew"):
        actions.promote(standby, 2, None)
    assert [base for base, _ in transfers(place.round("A", "B"))] == [None]
    place.assert_equal("A", "B")
    assert listing(standby.snapshot_reader(old)) == before
    assert [each for each, _ in diverged.unreleased(standby.store)] == [old]
    place.write("A")
    (step,) = transfers(place.round("A", "B"))
    assert step[0] is not None
    with pytest.raises(PeerError, match="nothing to begin anew"):
        begin_anew(place.path("A"), place.path("B"))
    actions.promote(standby, 2, None)


def test_what_came_of_a_full_stream_is_dropped_without_harm_to_what_was_put_aside(place: Place) -> None:
    standby = place.trees["B"]
    (old,) = standby.store.catalog.snapshots(standby.fileset)
    before = listing(standby.snapshot_reader(old))
    nothing_in_common(place)
    begin_anew(place.path("A"), place.path("B"))

    def stop(_: object, __: int) -> None:
        raise NotNow

    place.write("A")
    with pytest.raises(NotNow):
        place.target("A", "B").run(stop)
    drop_partials(standby)
    assert received.is_anew(standby.store, ROOT_FILESET)
    assert listing(standby.snapshot_reader(old)) == before
    place.round("A", "B")
    place.assert_equal("A", "B")


def test_emptying_that_is_interrupted_is_undone_and_can_be_repeated(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    standby = place.trees["B"]
    (old,) = standby.store.catalog.snapshots(standby.fileset)
    before = listing(standby.snapshot_reader(old))
    nothing_in_common(place)
    whole, count = applier.lose, iter(range(10))

    def lose(tree: Tree, losses: applier.Losses, check: Callable[[], None]) -> None:
        if next(count) == 1:
            raise NotNow
        whole(tree, losses, check)

    monkeypatch.setattr(applier, "lose", lose)
    with pytest.raises(NotNow):
        anew.begin(standby, ROOT_FILESET)
    assert standby.store.catalog.filesets[ROOT_FILESET].inode_count == 1
    # As the next update begins.
    assert drop_partials(standby)
    assert standby.store.catalog.filesets[ROOT_FILESET].digest == old.digest
    assert listing(standby.newest_reader()) == listing(standby.snapshot_reader(old)) == before
    anew.begin(standby, ROOT_FILESET)
    place.round("A", "B")
    place.assert_equal("A", "B")


def test_beginning_anew_twice_is_once_and_without_snapshots_nothing(place: Place) -> None:
    standby = place.trees["B"]
    nothing_in_common(place)
    for _ in range(2):
        anew.begin(standby, ROOT_FILESET)
    assert standby.store.catalog.filesets[ROOT_FILESET].inode_count == 0
    assert len(diverged.unreleased(standby.store)) == 1
    place.round("A", "B")


def test_a_store_that_is_no_standby_is_refused_with_what_to_do(place: Place) -> None:
    actions.promote(place.trees["B"], 2, None)
    with pytest.raises(PeerError, match=r"'mv .*B .*B\.old', and 'idemfs standby add .*A .*B' makes a new one"):
        begin_anew(place.path("A"), place.path("B"))
