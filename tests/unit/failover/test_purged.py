"""What plans make of purges that one store knows of, and the other does not yet."""

from __future__ import annotations

from dataclasses import replace

from idemfs.failover import decisions
from idemfs.failover.facts import Demote, GoBack, Plan, Purged, Send, Side, TakeSnapshot, Tell, TellPurges
from idemfs.failover.purged import told
from tests.unit.failover.sides import FENCED, STANDBY, digest, guid, side

A, B = guid("A"), guid("B")


def purged(found: Side, *names: str) -> Side:
    """``1>x``: what was 1 is x since."""
    pairs = [name.split(">") for name in names]
    return replace(found, purged=tuple(Purged(old=guid(o), new=guid(n), digest=digest(n)) for o, n in pairs))


def names(found: Side) -> list[str]:
    return [held.guid.decode().rstrip(".") for held in found.snapshots]


def test_nothing_is_told_to_who_has_nothing_of_it() -> None:
    target = side("B", STANDBY, snapshots="1 2")
    assert told(purged(side("A"), "7>x"), target) == (target, [])
    assert told(side("A"), target) == (target, [])


def test_a_standby_follows_with_base_and_active_state() -> None:
    made, steps = told(purged(side("A", snapshots="x y 3"), "1>x", "2>y"), side("B", STANDBY, snapshots="1 2"))
    assert steps == [TellPurges(source=A, target=B)]
    assert (names(made), made.base, made.digest) == (["x", "y"], guid("y"), digest("y"))
    assert told(purged(side("A", snapshots="x y 3"), "1>x", "2>y"), made) == (made, [])


def test_purges_in_turn_and_who_writes_keeps_its_active_state() -> None:
    source = purged(side("A", snapshots="y"), "1>x", "x>y")
    made, _ = told(source, side("B", snapshots="1"), is_writing=True)
    assert (names(made), made.digest) == (["y"], digest("1"))
    made, _ = told(source, side("B", STANDBY, snapshots="1 2", active="2+"))
    assert (names(made), made.base, made.digest) == (["y", "2"], guid("2"), digest("2+"))


def test_two_that_were_purged_by_hand_agree_only_when_they_are_equal() -> None:
    source = purged(side("A", snapshots="x"), "1>x")
    mine = purged(side("B", STANDBY, snapshots="w"), "1>w")
    assert told(source, mine) == (mine, [])
    same = replace(mine, purged=(Purged(old=guid("1"), new=guid("w"), digest=digest("x")),))
    made, steps = told(source, same)
    assert names(made) == ["x"] and steps


def test_a_standby_is_told_before_it_goes_back_and_before_anything_is_sent() -> None:
    me = purged(side("A", snapshots="x 2 3"), "1>x")
    plan = decisions.replicate(me, [side("B", STANDBY, snapshots="1 9", base="9")])
    assert isinstance(plan, Plan) and plan.common is not None and plan.common.guid == guid("x")
    kinds = [type(step) for step in plan.steps]
    assert kinds.index(TellPurges) < kinds.index(GoBack) < kinds.index(Send)
    assert GoBack(store=B, snapshot=guid("x")) in plan.steps


def test_an_old_primary_is_told_when_it_writes_no_more_and_has_diverged_in_nothing() -> None:
    me = side("A", FENCED, 1, 1, snapshots="1 2")
    plan = decisions.failback(me, [purged(side("B", epoch=2, snapshots="1 y 3"), "2>y")])
    assert isinstance(plan, Plan) and not plan.risks
    assert plan.steps[:3] == (
        Tell(store=A, epoch=2),
        TellPurges(source=B, target=A),
        Demote(store=A, epoch=2, base=guid("y")),
    )
    assert [type(step) for step in plan.steps[3:]] == [TakeSnapshot, Send]


def test_what_an_old_primary_never_told_it_tells_the_new_one() -> None:
    me = purged(side("A", FENCED, 1, 2, snapshots="x"), "1>x")
    plan = decisions.failback(me, [side("B", epoch=2, snapshots="1 2")])
    assert isinstance(plan, Plan) and plan.common is not None and plan.common.guid == guid("x")
    assert plan.steps[0] == TellPurges(source=A, target=B)
