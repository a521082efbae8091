"""Plans and refusals, from facts alone. That plans lead where they should is shown in ``tests/sim``."""

from __future__ import annotations

from dataclasses import replace

import pytest

from idemfs.errors import Fenced, NotPrimary, NotStandby, PeerError, RoleError
from idemfs.failover import decisions
from idemfs.failover.facts import (
    AwaitLease,
    Decision,
    Demote,
    DropPartial,
    Freeze,
    GoBack,
    Introduce,
    Plan,
    Promote,
    Refusal,
    Send,
    Side,
    TakeSnapshot,
    Tell,
)
from idemfs.ids import Guid
from tests.unit.failover.sides import FENCED, PRIMARY, STANDBY, guid, held, lost, side

A, B, C = guid("A"), guid("B"), guid("C")


def plan(decision: Decision) -> Plan:
    assert isinstance(decision, Plan), decision
    return decision


def refusal(decision: Decision, kind: type[RoleError], words: str) -> None:
    assert isinstance(decision, Refusal), decision
    assert type(decision.error) is kind
    assert words in str(decision.error)


# -- replicate -----------------------------------------------------------------------------------------


def test_replicate_takes_a_snapshot_and_sends_to_each_standby() -> None:
    made = plan(decisions.replicate(side("A"), [side("B", STANDBY), side("C", STANDBY, snapshots="")]))
    assert made.steps == (
        TakeSnapshot(store=A),
        Send(source=A, target=B),
        Introduce(store=B),
        Send(source=A, target=C),
        Introduce(store=C),
    )
    assert made.then is None


def test_replicate_brings_a_standby_that_followed_somebody_else_back_to_the_common_snapshot() -> None:
    follower = side("B", STANDBY, snapshots="1 2 9", base="9")
    made = plan(decisions.replicate(side("A", PRIMARY, 2, snapshots="1 2 3"), [follower]))
    assert made.common == held("2")
    assert made.steps[1:5] == (
        Tell(store=B, epoch=2),
        DropPartial(store=B),
        GoBack(store=B, snapshot=guid("2")),
        Send(source=A, target=B),
    )


def test_replicate_goes_on_from_the_base_although_newer_snapshots_of_the_standbys_own_exist() -> None:
    returned = side("B", STANDBY, 2, snapshots="1 2 diverged-1", base="2", active="2")
    made = plan(decisions.replicate(side("A", PRIMARY, 2, snapshots="1 2 3"), [returned]))
    assert made.steps == (TakeSnapshot(store=A), Send(source=A, target=B), Introduce(store=B))


def test_replicate_serves_who_is_there_and_then_fails_for_who_is_not() -> None:
    made = plan(decisions.replicate(side("A"), [lost("C"), side("B", STANDBY)]))
    assert Send(source=A, target=B) in made.steps
    assert isinstance(made.then, PeerError) and "/C is not reachable (no store there)" in str(made.then)


def test_replicate_to_a_standby_without_any_common_snapshot_fails() -> None:
    made = plan(decisions.replicate(side("A", snapshots="1 2"), [side("B", STANDBY, snapshots="8 9")]))
    assert made.steps == ()
    assert isinstance(made.then, PeerError) and "--anew" in str(made.then)


@pytest.mark.parametrize(
    "other",
    [
        side("B", PRIMARY, 2),
        side("B", STANDBY, 1, 2),
        side("B", FENCED, 2, 3),
        side("B", PRIMARY, 1),
    ],
)
def test_a_primary_that_sees_a_better_right_fences_itself_and_does_nothing_else(other: object) -> None:
    assert isinstance(other, Side)
    for command in (decisions.replicate, decisions.switchover):
        made = plan(command(side("A"), [other]))
        assert made.steps == (Tell(store=A, epoch=max(other.role.seen_epoch, 1)),)
        assert isinstance(made.then, Fenced) and "idemfs failback /A" in str(made.then)


def test_of_two_primaries_of_one_epoch_the_one_with_the_greater_guid_goes_on() -> None:
    made = plan(decisions.replicate(side("B"), [side("A")]))
    assert made.steps == (Tell(store=A, epoch=1),)
    assert isinstance(made.then, PeerError) and "idemfs failback /A" in str(made.then)


def test_replicate_is_for_primaries() -> None:
    refusal(decisions.replicate(side("A", STANDBY), [side("B")]), NotPrimary, "on its primary")
    refusal(decisions.replicate(side("A", FENCED, 1, 2), [side("B")]), Fenced, "failback")
    refusal(decisions.replicate(side("A", FENCED, 1, 2, frozen=("B", 2)), [side("B")]), Fenced, "switchover")
    refusal(decisions.replicate(side("A"), []), PeerError, "standby add")
    foreign = side("B", STANDBY, fileset=Guid(b"x" * 16))
    refusal(decisions.replicate(side("A"), [foreign]), PeerError, "something else")


# -- failover ------------------------------------------------------------------------------------------


def test_failover_drops_what_is_half_received_and_raises_the_epoch() -> None:
    made = plan(decisions.failover(side("B", STANDBY, half_received=True), [lost("A")]))
    assert made.steps == (Tell(store=B, epoch=2), DropPartial(store=B), Promote(store=B, epoch=2))
    assert made.common == held("1")
    assert [risk.is_known for risk in made.risks] == [False]
    assert made.warning is None


def test_failover_beside_a_reachable_primary_warns_states_what_is_left_behind_and_fences_first() -> None:
    primary = side("A", snapshots="1 2 3", active="3+")
    made = plan(decisions.failover(side("B", STANDBY), [primary]))
    assert made.steps == (Tell(store=B, epoch=2), Tell(store=A, epoch=2), Promote(store=B, epoch=2))
    assert made.warning and "idemfs switchover /A" in made.warning
    (risk,) = made.risks
    assert (risk.path, risk.since, risk.snapshots) == ("/A", held("1"), (held("2"), held("3")))
    assert risk.unsaved_changes and risk.is_known


def test_failover_continues_from_what_was_received_not_from_the_newest_number() -> None:
    returned = side("A", STANDBY, 2, snapshots="1 2 diverged-1", base="2", active="2")
    assert plan(decisions.failover(returned, [lost("B")])).common == held("2")


def test_failover_is_above_every_epoch_that_a_reachable_store_has_seen_and_tells_all_before_it_begins() -> None:
    me = side("B", STANDBY, members="ABC")
    made = plan(decisions.failover(me, [lost("A"), side("C", STANDBY, 1, 4, snapshots="1 2")]))
    assert made.steps == (Tell(store=B, epoch=5), Tell(store=C, epoch=5), Promote(store=B, epoch=5))
    assert ("/C", (held("2"),)) in [(risk.path, risk.snapshots) for risk in made.risks]


def test_stores_that_know_each_other_never_take_the_same_epoch_however_they_are_cut_off() -> None:
    names = "ABC"
    for seen in range(1, 10):
        taken = []
        for name in names:
            others = [lost(other) for other in names if other != name]
            made = plan(decisions.failover(side(name, STANDBY, 1, seen, members=names), others))
            taken += [step.epoch for step in made.steps if isinstance(step, Promote)]
        assert len(set(taken)) == 3 and min(taken) > seen and max(taken) <= seen + 3


def test_failover_waits_for_the_lease_that_the_store_granted_and_says_so() -> None:
    me = replace(side("B", STANDBY), granted_ns=4_200_000_000, granted_epoch=1, needs_lease=True)
    made = plan(decisions.failover(me, [lost("A")]))
    assert made.steps == (Tell(store=B, epoch=2), AwaitLease(store=B, left_ns=4_200_000_000), Promote(store=B, epoch=2))
    assert len(made.notes) == 1 and "runs out in 4.2 s" in made.notes[0]


def test_failover_says_where_no_lease_protects() -> None:
    never = replace(side("B", STANDBY), needs_lease=True)
    before = replace(side("B", STANDBY, 3), needs_lease=True, granted_ns=0, granted_epoch=2)
    for me in (never, before):
        made = plan(decisions.failover(me, [lost("A")]))
        assert len(made.notes) == 1 and "was not asked for a write lease" in made.notes[0]
    assert not plan(decisions.failover(side("B", STANDBY), [lost("A")])).notes
    assert not plan(decisions.failover(never, [side("A")])).notes


def test_failover_in_a_claimed_epoch_uses_it_or_is_refused() -> None:
    assert plan(decisions.failover(side("B", STANDBY), [lost("A")], 6)).steps[-1] == Promote(store=B, epoch=6)
    refusal(decisions.failover(side("B", STANDBY), [side("A", seen=6)], 6), RoleError, "have seen it since")


def test_failover_refusals() -> None:
    refusal(decisions.failover(side("A"), [lost("B")]), NotStandby, "is primary already")
    refusal(decisions.failover(side("B", STANDBY, snapshots=""), [lost("A")]), RoleError, "never received")
    behind = side("A", FENCED, 1, 2)
    refusal(decisions.failover(behind, [side("B", PRIMARY, 2)]), Fenced, "failback")
    frozen = side("A", FENCED, 1, 2, frozen=("B", 2))
    refusal(decisions.failover(frozen, [side("B", STANDBY)]), Fenced, "switchover")


def test_a_frozen_store_takes_its_right_back_when_the_other_one_is_gone() -> None:
    made = plan(decisions.failover(side("A", FENCED, 1, 2, frozen=("B", 2)), [lost("B")]))
    assert made.steps == (Tell(store=A, epoch=3), Promote(store=A, epoch=3))


# -- failback ------------------------------------------------------------------------------------------


def test_failback_keeps_what_only_the_old_primary_has_and_receives_the_rest() -> None:
    old = side("A", snapshots="1 2", active="2+")
    made = plan(decisions.failback(old, [side("B", PRIMARY, 2, snapshots="1 5")]))
    assert made.common == held("1")
    assert made.steps == (
        Tell(store=A, epoch=2),
        TakeSnapshot(store=A, name="diverged-1"),
        GoBack(store=A, snapshot=guid("1")),
        Demote(store=A, epoch=2, base=guid("1")),
        TakeSnapshot(store=B),
        Send(source=B, target=A),
    )
    (risk,) = made.risks
    assert risk.snapshots == (held("2"),) and risk.unsaved_changes and "diverged-1" in risk.why


@pytest.mark.parametrize(
    ("found", "left"),
    [
        (side("A", snapshots="1", active="1+"), ["Tell", "TakeSnapshot", "GoBack", "Demote"]),
        (side("A", FENCED, 1, 2, snapshots="1", active="1+"), ["TakeSnapshot", "GoBack", "Demote"]),
        (side("A", FENCED, 1, 2, snapshots="1 diverged-1"), ["GoBack", "Demote"]),
        (side("A", FENCED, 1, 2, snapshots="1 diverged-1", active="1"), ["Demote"]),
        (side("A", STANDBY, 2, 2, snapshots="1 diverged-1", active="1", base="1"), []),
        (side("A", FENCED, 1, 2, snapshots="1"), ["Demote"]),
    ],
)
def test_failback_goes_on_after_every_interrupted_step(found: object, left: list[str]) -> None:
    assert isinstance(found, Side)
    made = plan(decisions.failback(found, [side("B", PRIMARY, 2, snapshots="1 5")]))
    assert [type(step).__name__ for step in made.steps] == [*left, "TakeSnapshot", "Send"]


def test_failback_follows_the_highest_epoch() -> None:
    peers = [side("B", PRIMARY, 2), side("C", PRIMARY, 3)]
    assert plan(decisions.failback(side("A"), peers)).source == "/C"


def test_failback_refusals() -> None:
    refusal(decisions.failback(side("A"), [side("B", STANDBY)]), RoleError, "no other store has taken over")
    refusal(decisions.failback(side("A"), [lost("B")]), PeerError, "/B: no store there")
    refusal(decisions.failback(side("A", STANDBY), []), PeerError, "knows no other store")
    refusal(decisions.failback(side("A", FENCED, 1, 2), [side("B", STANDBY)]), PeerError, "failover")
    refusal(decisions.failback(side("A", FENCED, 1, 2, frozen=("B", 2)), [side("B", STANDBY)]), RoleError, "switchover")
    unrelated = side("B", PRIMARY, 2, snapshots="7 8")
    refusal(decisions.failback(side("A"), [unrelated]), PeerError, "no snapshot in common")


def test_a_store_does_not_follow_a_primary_older_than_one_it_has_heard_of() -> None:
    refusal(decisions.failback(side("A", FENCED, 1, 5), [side("B", PRIMARY, 2)]), PeerError, "none of its other stores")


# -- switchover ----------------------------------------------------------------------------------------


def test_switchover_sends_while_serving_then_freezes_sends_the_rest_and_exchanges() -> None:
    made = plan(decisions.switchover(side("A"), [side("B", STANDBY)]))
    assert made.steps == (
        TakeSnapshot(store=A),
        Send(source=A, target=B),
        Freeze(store=A, peer=B, epoch=2),
        TakeSnapshot(store=A),
        Send(source=A, target=B),
        Promote(store=B, epoch=2, after=A),
        Demote(store=A, epoch=2),
    )
    assert made.risks == ()


def test_an_interrupted_switchover_goes_on_with_the_store_it_was_begun_for() -> None:
    frozen = side("A", FENCED, 1, 2, active="1+", frozen=("B", 2))
    made = plan(decisions.switchover(frozen, [side("C", STANDBY), side("B", STANDBY)]))
    assert [type(step).__name__ for step in made.steps] == ["TakeSnapshot", "Send", "Promote", "Demote"]
    assert Promote(store=B, epoch=2, after=A) in made.steps


def test_a_switchover_whose_epoch_was_used_up_meanwhile_takes_the_next_one() -> None:
    frozen = side("A", FENCED, 1, 2, frozen=("B", 2))
    made = plan(decisions.switchover(frozen, [side("B", STANDBY, 1, 2)]))
    assert made.steps[0] == Freeze(store=A, peer=B, epoch=4)
    assert Promote(store=B, epoch=4, after=A) in made.steps


def test_after_the_other_one_is_primary_only_the_last_step_is_left() -> None:
    frozen = side("A", FENCED, 1, 2, snapshots="1 2", frozen=("B", 2))
    made = plan(decisions.switchover(frozen, [side("B", PRIMARY, 2, snapshots="1 2 3")]))
    assert made.steps == (Demote(store=A, epoch=2, base=guid("2")),)


@pytest.mark.parametrize("mine", ["1", "1 2"])
def test_a_switchover_never_passes_over_what_the_other_one_did_not_receive(mine: str) -> None:
    """The peer took over by itself while this store stood still, before it had the last change set."""
    frozen = side("A", FENCED, 1, 2, snapshots=mine, active="2" if mine == "1 2" else "1+", frozen=("B", 2))
    refusal(decisions.switchover(frozen, [side("B", PRIMARY, 2, snapshots="1")]), Fenced, "failback")


def test_switchover_refusals() -> None:
    refusal(decisions.switchover(side("B", STANDBY), [side("A")]), NotPrimary, "run switchover on /A")
    refusal(decisions.switchover(side("A"), []), PeerError, "has no standby")
    refusal(decisions.switchover(side("A"), [lost("B")]), PeerError, "no standby is reachable")
    two = [side("B", STANDBY), side("C", STANDBY)]
    refusal(decisions.switchover(side("A"), two), PeerError, "--to")
    assert plan(decisions.switchover(side("A", members="ABC"), two, C)).target == "/C"
    refusal(decisions.switchover(side("A", FENCED, 1, 2), [side("B", STANDBY)]), Fenced, "failback")
    frozen = side("A", FENCED, 1, 2, frozen=("B", 2))
    refusal(decisions.switchover(frozen, [lost("B")]), PeerError, "is frozen for /B")
    refusal(decisions.switchover(frozen, []), PeerError, "not known any more")
