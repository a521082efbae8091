"""What a store does next, by what it sees; and what it never does, whatever it sees."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idemfs.failover.automatic import (
    Acquire,
    Demote,
    Holder,
    Keep,
    Line,
    Overrule,
    Own,
    Release,
    Renew,
    Return,
    Rules,
    Seen,
    TakeOver,
    View,
    Wait,
    decide,
    highest_epoch,
    next_epoch,
)
from idemfs.failover.lease import Answer, Position
from idemfs.format.role import Role, RoleRecord
from idemfs.ids import Guid

SECOND = 1_000_000_000
A, B, C = (Guid(bytes([number]) * 16) for number in (1, 2, 3))
MEMBERS = (A, B, C)
RULES = Rules(duration_ns=10 * SECOND, is_automatic=True)


def position(*numbers: int, created: int = 0) -> Position:
    return Position(recent=tuple(Guid(bytes([number]) * 16) for number in numbers), created_ns=created)


def own(role: Role, epoch: int = 3, store: Guid = B, seen_epoch: int = 0) -> Own:
    record = RoleRecord(role, epoch, max(epoch, seen_epoch))
    return Own(store=store, role=record, now_ns=0, members=MEMBERS, position=position(1, 2))


def line(epoch: int = 3, store: Guid = A, asked: tuple[Guid, ...] = (B, C)) -> Line:
    return Line(epoch=epoch, store=store, asked=asked, position=position(1, 2))


def answer(store: Guid, role: Role, epoch: int = 3, place: Position | None = None) -> Answer:
    return Answer(store=store, role=RoleRecord(role, epoch, epoch), position=place)


FREE = Seen(line=line())
STANDBY = View(own=own(Role.STANDBY), rules=RULES, seen=FREE)
PRIMARY = View(own=own(Role.PRIMARY, store=A), rules=RULES)
MINE = Seen(holder=Holder(store=A, epoch=3), line=line(), is_kept=True)


# -- a standby -------------------------------------------------------------------------------------------


def test_a_standby_takes_over_when_nobody_holds_the_key() -> None:
    action = decide(STANDBY)
    assert isinstance(action, TakeOver) and action.epoch > 3


def test_the_epoch_is_above_all_that_is_known_and_dealt_out_to_the_store_alone() -> None:
    view = replace(STANDBY, answers=(answer(C, Role.STANDBY, 8),))
    found = {next_epoch(own(Role.STANDBY, store=store), highest_epoch(view)) for store in MEMBERS}
    assert found == {9, 10, 11}


@pytest.mark.parametrize(
    ("view", "why"),
    [
        (replace(STANDBY, seen=None), "etcd"),
        (replace(STANDBY, seen=replace(FREE, is_paused=True)), "paused"),
        (replace(STANDBY, seen=Seen()), "may take over"),
        (replace(STANDBY, seen=Seen(line=line(asked=(C,)))), "may take over"),
        (replace(STANDBY, own=replace(STANDBY.own, failure="the disk is full")), "the disk is full"),
        (replace(STANDBY, own=replace(STANDBY.own, position=None)), "never received"),
        (replace(STANDBY, own=replace(STANDBY.own, granted_until_ns=4 * SECOND)), "4.0 s"),
        (replace(STANDBY, answers=(answer(C, Role.STANDBY, place=position(1, 2, 3)),)), "newer snapshot"),
    ],
)
def test_it_waits_and_says_why(view: View, why: str) -> None:
    action = decide(view)
    assert isinstance(action, Wait) and why in action.reason


def test_it_leaves_a_holder_alone_and_commands_to_those_who_want_them() -> None:
    assert isinstance(decide(replace(STANDBY, seen=MINE)), Keep)
    assert isinstance(decide(replace(STANDBY, rules=replace(RULES, is_automatic=False))), Keep)


def test_one_that_is_ahead_counts_only_if_it_may_take_over() -> None:
    ahead = answer(C, Role.STANDBY, place=position(1, 2, 3))
    assert isinstance(decide(replace(STANDBY, seen=Seen(line=line(asked=(B,))), answers=(ahead,))), TakeOver)


def test_a_lag_above_the_maximum_keeps_it_from_taking_over() -> None:
    behind = replace(line(), position=position(1, 2, 3), time_ns=60 * SECOND, complete_ns=60 * SECOND)
    own_behind = replace(STANDBY.own, position=position(1, 2, created=30 * SECOND))
    view = replace(STANDBY, own=own_behind, seen=Seen(line=behind))
    assert isinstance(decide(replace(view, rules=replace(RULES, maximum_lag_ns=30 * SECOND))), TakeOver)
    action = decide(replace(view, rules=replace(RULES, maximum_lag_ns=29 * SECOND)))
    assert isinstance(action, Wait) and "lags 30.0 s" in action.reason


def test_an_old_newest_snapshot_is_no_lag_when_nothing_changed_since() -> None:
    idle = replace(line(), position=position(1, 2), time_ns=9000 * SECOND, complete_ns=9000 * SECOND)
    assert isinstance(decide(replace(STANDBY, seen=Seen(line=idle), rules=replace(RULES, maximum_lag_ns=0))), TakeOver)


def test_a_claim_that_came_to_nothing_is_given_back() -> None:
    left = Seen(holder=Holder(store=B, epoch=5), line=line(5, B))
    assert isinstance(decide(replace(STANDBY, seen=left)), Release)


# -- a primary -------------------------------------------------------------------------------------------


def test_a_primary_keeps_its_key_takes_it_when_it_is_free_and_goes_on_without_etcd() -> None:
    assert isinstance(decide(replace(PRIMARY, seen=MINE)), Renew)
    assert isinstance(decide(replace(PRIMARY, seen=replace(MINE, is_kept=False))), Acquire)
    assert isinstance(decide(replace(PRIMARY, seen=Seen())), Acquire)
    assert isinstance(decide(replace(PRIMARY, seen=replace(MINE, holder=Holder(store=A, epoch=2)))), Acquire)
    assert isinstance(decide(PRIMARY), Renew)


@pytest.mark.parametrize(
    "view",
    [
        replace(PRIMARY, seen=Seen(line=line(4, B))),
        replace(PRIMARY, seen=Seen(holder=Holder(store=B, epoch=4), line=line(4, B))),
        replace(PRIMARY, seen=MINE, answers=(answer(B, Role.STANDBY, 4),)),
        replace(PRIMARY, answers=(answer(B, Role.PRIMARY, 4),)),
        replace(PRIMARY, answers=(answer(B, Role.PRIMARY, 3),)),
        replace(PRIMARY, seen=Seen(holder=Holder(store=B, epoch=3), line=line(3, B))),
    ],
)
def test_a_primary_that_meets_a_better_right_stops_for_good(view: View) -> None:
    action = decide(view)
    assert isinstance(action, Demote) and action.epoch is not None and action.epoch >= view.own.role.epoch


def test_one_that_cannot_write_any_more_gives_its_key_up() -> None:
    action = decide(replace(PRIMARY, own=replace(PRIMARY.own, failure="the disk failed"), seen=MINE))
    assert action == Demote(reason="the disk failed")


def test_one_that_was_made_primary_by_command_tells_the_holder_of_a_lower_epoch() -> None:
    assert isinstance(decide(replace(PRIMARY, seen=Seen(holder=Holder(store=B, epoch=2), line=line(2, B)))), Overrule)


# -- an old primary --------------------------------------------------------------------------------------


def test_an_old_primary_comes_back_to_the_one_that_took_over() -> None:
    fenced = View(own=own(Role.FENCED, store=A, seen_epoch=5), rules=RULES)
    assert isinstance(decide(fenced), Wait)
    assert isinstance(decide(replace(fenced, answers=(answer(C, Role.PRIMARY, 4),))), Wait)
    assert decide(replace(fenced, answers=(answer(B, Role.PRIMARY, 5),))) == Return(primary=B)
    back = replace(fenced, answers=(answer(B, Role.PRIMARY, 5),))
    assert isinstance(decide(replace(back, rules=replace(RULES, is_automatic=False))), Wait)
    assert isinstance(decide(replace(back, own=replace(back.own, is_frozen=True))), Wait)
    assert isinstance(decide(replace(back, seen=Seen(is_paused=True))), Wait)


# -- whatever is seen ------------------------------------------------------------------------------------

EPOCHS = st.integers(1, 6)
STORES = st.sampled_from(MEMBERS)
ROLES = st.builds(
    lambda role, epoch, more: RoleRecord(role, epoch, epoch + more), st.sampled_from(Role), EPOCHS, EPOCHS
)
POSITIONS = st.none() | st.builds(
    lambda count, created: position(*range(1, count + 1), created=created), st.integers(1, 4), st.integers(0, 9)
)
ASKED = st.lists(STORES, unique=True).map(tuple)
LINES = st.none() | st.builds(
    lambda epoch, store, asked, place: Line(epoch=epoch, store=store, asked=asked, position=place),
    EPOCHS, STORES, ASKED, POSITIONS,
)  # fmt: skip
HOLDERS = st.none() | st.builds(lambda store, epoch: Holder(store=store, epoch=epoch), STORES, EPOCHS)
SEEN = st.none() | st.builds(
    lambda holder, line, paused, kept: Seen(holder=holder, line=line, is_paused=paused, is_kept=kept),
    HOLDERS, LINES, st.booleans(), st.booleans(),
)  # fmt: skip
ANSWERS = st.lists(
    st.builds(lambda store, role, place: Answer(store=store, role=role, position=place), STORES, ROLES, POSITIONS)
).map(tuple)
OWN = st.builds(
    lambda store, role, place, until: Own(
        store=store, role=role, now_ns=5, members=MEMBERS, position=place, granted_until_ns=until
    ),
    STORES, ROLES, POSITIONS, st.integers(0, 9),
)  # fmt: skip
VIEWS = st.builds(lambda own, seen, answers: View(own=own, rules=RULES, seen=seen, answers=answers), OWN, SEEN, ANSWERS)


@given(VIEWS)
def test_whoever_takes_over_may(view: View) -> None:
    action = decide(view)
    if not isinstance(action, TakeOver):
        return
    seen = view.seen
    assert view.own.role.role is Role.STANDBY and view.own.granted_until_ns <= view.own.now_ns
    assert seen is not None and seen.holder is None and seen.line is not None and not seen.is_paused
    assert view.own.store in seen.line.asked
    assert action.epoch > highest_epoch(view) and (action.epoch - 1) % 3 == MEMBERS.index(view.own.store)


@given(VIEWS)
def test_a_primary_goes_on_only_in_the_highest_epoch(view: View) -> None:
    if isinstance(decide(view), Renew | Acquire | Overrule):
        assert view.own.role.role is Role.PRIMARY and view.own.role.epoch >= highest_epoch(view)


@given(VIEWS)
def test_losing_etcd_demotes_nobody(view: View) -> None:
    if isinstance(decide(view), Renew | Acquire):
        assert isinstance(decide(replace(view, seen=None)), Renew)
