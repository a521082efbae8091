"""Rounds of a link between stores in files, one after the other in one thread."""

from __future__ import annotations

import shutil

import pytest

from idemfs.errors import PeerError
from idemfs.failover import actions
from idemfs.failover.standbys import LocalPlace, add_standby
from idemfs.format.role import Role, RoleRecord
from idemfs.ids import Guid
from idemfs.node import link_round
from idemfs.node.link_decisions import Rest, Send
from idemfs.node.link_round import ArchiveTarget, NotNow
from idemfs.node.link_status import held_for, lag, lag_bytes
from idemfs.replication import collapse, link
from idemfs.snapshots import delete, diverged, manage
from idemfs.snapshots.policy import Policy
from idemfs.store.files import create_files, open_files
from idemfs.vfs.tree import Tree
from tests.unit.node.link_place import Place, transfers
from tests.unit.replication.pairs import set_role


def test_a_free_place_becomes_a_standby_and_follows(place: Place) -> None:
    first = place.round("A", "B")
    assert [base for base, _ in transfers(first)] == [None]
    place.write("A")
    (step,) = transfers(place.round("A", "B"))
    assert step[0] is not None
    assert transfers(place.round("A", "B")) == []
    place.assert_equal("A", "B")
    # What links took goes when a newer one is common: on both sides one is left.
    assert len(place.names("A")) == len(place.names("B")) == 1
    assert collapse.is_own(place.names("A")[0])


def test_a_backlog_is_one_change_set_and_what_users_named_goes_along(place: Place) -> None:
    place.round("A", "B")
    for count in range(10):
        place.write("A")
        link_round.take(place.trees["A"])
        if count == 4:
            place.write("A")
            manage.create(place.trees["A"].store, place.trees["A"].fileset, "monday")
    assert [target for _, target in transfers(place.round("A", "B"))] == ["monday", place.names("A")[-1]]
    assert place.names("A") == ["monday", place.names("A")[-1]] == place.names("B")
    place.assert_equal("A", "B")


def test_the_other_side_keeps_what_its_rules_say_and_this_side_what_is_needed(place: Place) -> None:
    for _ in range(8):
        place.write("A")
        place.round("A", "B", Policy(keep_last=3))
    assert len(place.names("B")) == 3 and len(place.names("A")) == 1
    place.assert_equal("A", "B")


def test_what_diverged_under_the_name_of_a_link_stays_when_its_store_is_primary_again(place: Place) -> None:
    """Rounds of the old primary took it, none brought it over, and nobody has released it."""
    tree = place.trees["A"]
    place.round("A", "B")
    since = tree.store.catalog.newest(tree.fileset)
    place.write("A")
    link_round.take(tree)
    lost = place.names("A")[-1]
    assert collapse.is_own(lost)
    diverged.put_newer(tree.store, tree.fileset, since, 1)
    tree.store.commit()
    for _ in range(3):
        place.write("A")
        place.round("A", "B")
    assert since is not None and {since.name, lost} <= set(place.names("A"))
    (snapshot,) = [each for each, _ in diverged.unreleased(tree.store)]
    diverged.release(tree.store, snapshot)
    place.write("A")
    place.round("A", "B")
    assert lost not in place.names("A")


def test_holds_end_by_themselves_and_are_renewed(place: Place) -> None:
    place.round("A", "B")
    tree = place.trees["A"]
    known = link_round.filled(tree, place.path("B"))
    assert known is not None
    (snapshot,) = held_for(tree, known.store).values()
    until_ns = dict(manage.keep_of(tree.store, snapshot).holds)[link.hold_owner(known.store)]
    assert until_ns == place.clock.now_ns() + link_round.HOLD_NS
    place.clock.advance(20 * 86_400)
    place.round("A", "B")
    place.clock.advance(20 * 86_400)
    assert held_for(tree, known.store) != {}
    link_round.renew(tree, place.path("B"))
    place.clock.advance(20 * 86_400)
    assert held_for(tree, known.store) != {}
    place.clock.advance(11 * 86_400)
    assert held_for(tree, known.store) == {}


def let_the_hold_lapse(place: Place) -> None:
    """Of both, ``monday`` is left; what was common after it is gone on the source."""
    tree = place.trees["A"]
    manage.create(tree.store, tree.fileset, "monday")
    place.round("A", "B")
    place.write("A")
    place.round("A", "B")
    (gone,) = [each for each in tree.store.catalog.snapshots(tree.fileset) if each.name != "monday"]
    place.clock.advance(31 * 86_400)
    delete.delete(tree.active, gone)


def test_after_a_hold_lapsed_and_the_snapshot_went_the_other_store_goes_back_to_an_older_common_one(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    let_the_hold_lapse(place)
    place.write("A")
    outcome = place.round("A", "B")
    assert [base for base, _ in transfers(outcome)] == ["monday"]
    assert "the hold on it has lapsed" in caplog.text
    place.assert_equal("A", "B")
    assert "monday" in place.names("B")


def test_what_another_primary_sent_is_not_passed_over(place: Place) -> None:
    """A standby that is ahead in what a lost primary had sent it is left to ``failback``."""
    tree = place.trees["A"]
    let_the_hold_lapse(place)
    set_role(tree.store, RoleRecord(Role.PRIMARY, 2, 2))
    tree.reload_role()
    place.write("A")
    before = place.names("B")
    with pytest.raises(PeerError, match="'idemfs failback'"):
        place.round("A", "B")
    assert place.names("B") == before


def test_without_any_common_snapshot_one_line_says_so_each_time(place: Place) -> None:
    tree = place.trees["A"]
    place.round("A", "B")
    place.clock.advance(31 * 86_400)
    place.write("A")
    link_round.take(tree)
    delete.delete(tree.active, tree.store.catalog.snapshots(tree.fileset)[0])
    for _ in range(2):
        with pytest.raises(PeerError, match=r"none that its primary has.*make a new standby"):
            place.round("A", "B")


def test_a_snapshot_that_is_pruned_in_flight_wedges_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.round("A", "B")
    tree = place.trees["A"]
    place.write("A")
    manage.create(tree.store, tree.fileset, "monday")
    place.write("A")
    link_round.take(tree)
    whole = link.units

    def pruning(*given: object) -> object:
        monkeypatch.setattr(link, "units", whole)
        delete.delete(tree.active, tree.store.catalog.by_name(tree.fileset, "monday"))
        return whole(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(link, "units", pruning)
    place.round("A", "B")
    place.assert_equal("A", "B")


def test_a_store_that_was_replaced_by_an_empty_one_is_not_filled_by_itself(place: Place) -> None:
    place.round("A", "B")
    shutil.rmtree(place.path("B"))
    with pytest.raises(PeerError, match="is not there any more: 'idemfs standby add"):
        place.round("A", "B")
    create_files(place.path("B"), block_size=4096, clock=place.clock)
    with pytest.raises(PeerError, match=r"another store is there.*'idemfs standby add"):
        place.round("A", "B")
    add_standby(place.path("A"), LocalPlace(place.path("B"), place.clock))
    assert [base for base, _ in transfers(place.round("A", "B"))] == [None]
    place.assert_equal("A", "B")


def test_foreign_files_are_refused(place: Place) -> None:
    place.make("C")
    place.write("C")
    with pytest.raises(PeerError, match="in use for something else"):
        place.round("A", "C")
    place.round("C", "D")
    with pytest.raises(PeerError, match="holds other files"):
        place.round("A", "D")
    with pytest.raises(PeerError, match="is the store itself"):
        place.round("A", "A")


def test_a_later_epoch_ends_the_right_to_write_at_once(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    place.round("A", "B")
    peer = place.open("B")
    set_role(peer.store, RoleRecord(Role.PRIMARY, 2, 2))
    peer.reload_role()
    outcome = place.round("A", "B")
    assert isinstance(outcome.decision, Rest) and "failback" in outcome.decision.reason
    assert place.trees["A"].role == RoleRecord(Role.FENCED, 1, 2)
    assert "epoch 2 has begun elsewhere" in caplog.text


def test_an_old_primary_is_told(place: Place) -> None:
    place.round("A", "B")
    peer = place.open("B")
    set_role(peer.store, RoleRecord(Role.PRIMARY, 1, 1))
    peer.reload_role()
    set_role(place.trees["A"].store, RoleRecord(Role.PRIMARY, 2, 2))
    place.trees["A"].reload_role()
    with pytest.raises(PeerError, match="was primary until now"):
        place.round("A", "B")
    assert peer.role == RoleRecord(Role.FENCED, 1, 2)


def test_two_nodes_with_a_link_to_each_other(place: Place) -> None:
    place.round("A", "B")
    place.open("B")
    outcome = place.round("B", "A")
    assert outcome.decision == Rest("is the primary")


def test_a_standby_sends_on_what_it_received(place: Place) -> None:
    tree = place.trees["A"]
    manage.create(tree.store, tree.fileset, "monday")
    place.round("A", "B")
    place.open("B")
    guid = Guid(tree.store.catalog.filesets[tree.fileset].guid)
    create_files(place.path("C"), block_size=4096, fileset_guid=guid, clock=place.clock)
    store = open_files(place.path("C"), background=False, clock=place.clock)
    set_role(store, RoleRecord(Role.STANDBY, 1, 1))
    store.close()
    place.open("C")
    for _ in range(3):
        assert isinstance(place.round("B", "C").decision, Send)
        place.assert_equal("B", "C")
        place.write("A")
        place.round("A", "B", Policy(keep_last=2))
    assert "monday" in place.names("C")
    # What B holds for C stays on B, whatever the link from A prunes there.
    place.round("B", "C")
    place.assert_equal("A", "C")


def test_several_primaries_fill_one_standby_store(place: Place) -> None:
    """The first stream of another line says into which fileset it goes; then a link goes on with it."""
    from idemfs.replication.codec import StreamReader
    from idemfs.replication.send import Frames
    from idemfs.replication.standby import receive_into

    place.round("A", "B")
    other = place.make("X")
    place.write("X")
    monday = manage.create(other.store, other.fileset, "monday")
    store = open_files(place.path("B"), background=False, clock=place.clock)
    stream = b"".join(Frames(other, None, monday))
    view, at = memoryview(stream), [0]

    def read(size: int) -> bytes:
        data = bytes(view[at[0] : at[0] + size])
        at[0] += len(data)
        return data

    receive_into(Tree(store), StreamReader(read), "guest")
    store.close()
    for _ in range(2):
        place.write("X")
        outcome = place.round("X", "B")
        assert outcome.decision == Send(is_guest=True)
        place.write("A")
        place.round("A", "B")
    both = place.open("B")
    guest = both.store.catalog.fileset_named("guest")
    newest = other.store.catalog.snapshots(other.fileset)[-1]
    assert both.store.catalog.snapshots(guest.number)[-1].digest == newest.digest
    place.assert_equal("A", "B")


def test_a_command_that_has_the_other_store_goes_first(place: Place) -> None:
    place.round("A", "B")
    place.write("A")
    link_round.take(place.trees["A"])

    def stop(_: Guid, __: int) -> None:
        raise NotNow("a command wants the store for itself")

    with pytest.raises(NotNow):
        place.target("A", "B").run(stop)
    assert len(transfers(place.round("A", "B"))) == 1
    place.assert_equal("A", "B")


def test_the_lag_says_how_old_the_other_store_is(place: Place) -> None:
    tree = place.trees["A"]
    assert lag(tree, {}, place.clock.now_ns()) is None
    place.round("A", "B")
    known = link_round.filled(tree, place.path("B"))
    assert known is not None
    common = held_for(tree, known.store)
    found = lag(tree, common, place.clock.now_ns())
    assert found is not None and found.seconds == 0.0
    place.write("A", b"x" * 50_000)
    tree.store.commit()
    place.clock.advance(7)
    found = lag(tree, common, place.clock.now_ns())
    assert found is not None and found.seconds == 8.0
    assert 50_000 <= lag_bytes(tree, common) < 60_000


def test_an_archive_is_a_target_too(place: Place) -> None:
    tree = place.trees["A"]
    target = ArchiveTarget(tree, f"archive:{place.path('streams')}", Policy(keep_last=2))
    for _ in range(5):
        place.write("A")
        link_round.take(tree)
        assert isinstance(target.run().decision, Send)
        link_round.let_go(tree)
    from idemfs.replication.archive import open_archive

    archive = open_archive(place.path("streams"))
    assert sum(each.is_kept for each in archive.manifest.points) == 2
    assert len(place.names("A")) == 1
    actions.tell(tree, 9)
    assert isinstance(target.run().decision, Rest)
