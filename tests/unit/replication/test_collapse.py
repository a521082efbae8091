"""Which snapshots a link that has fallen behind still sends."""

from __future__ import annotations

from datetime import UTC

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idemfs.ids import Guid
from idemfs.replication import collapse
from idemfs.replication.collapse import Lane, is_own, name_of, rules_of
from idemfs.replication.plan import Held, Plan, Step
from idemfs.snapshots import retention
from idemfs.snapshots.policy import Policy
from idemfs.snapshots.retention import Candidate
from idemfs.snapshots.schedule import SECOND_NS

START_NS = 1_700_000_000 * SECOND_NS
NOW_NS = START_NS + 10**9 * SECOND_NS
COMMON = Held(Guid(b"common".ljust(16)), "common")


def guid_of(lane: str, name: str) -> Guid:
    return Guid(f"{lane}{name}".encode()[-16:].ljust(16))


def lane_of(
    names: list[str], seconds: list[int], lane: str = "r", begun: str | None = None, held: str = "", base: Held = COMMON
) -> Lane:
    """Snapshots of one fileset that are to be sent from ``base``; the one named ``held`` is held by a user."""
    targets = [Held(guid_of(lane, name), name) for name in names]
    steps = tuple(Step(*pair) for pair in zip([base, *targets], targets, strict=False))
    candidates = [
        Candidate(at, name, START_NS + second * SECOND_NS, holders=("me",) if name == held else ())
        for at, (name, second) in enumerate(zip(names, seconds, strict=True), 1)
    ]
    return Lane(
        Plan(COMMON if base is COMMON else None, steps), candidates, guid_of(lane, begun) if begun is not None else None
    )


def own(second: int) -> str:
    return name_of(START_NS + second * SECOND_NS)


def names(plan: Plan) -> list[str]:
    return [step.target.name for step in plan.steps]


def collapsed(*lanes: Lane, keep: Policy | None = None) -> list[list[str]]:
    plans = collapse.collapse(lanes, keep or Policy(), NOW_NS, UTC)
    for plan in plans:
        bases = [step.base for step in plan.steps]
        assert bases[1:] == [step.target for step in plan.steps[:-1]]
    return [names(plan) for plan in plans]


def test_a_backlog_becomes_one_change_set_to_the_newest() -> None:
    seconds = list(range(50))
    assert collapsed(lane_of([own(each) for each in seconds], seconds)) == [[own(49)]]


def test_what_users_named_or_hold_and_what_a_schedule_took_is_sent_on_the_way() -> None:
    backlog = [own(1), "monday", own(3), "auto-2026-01-01T00-00-00Z", own(5), own(6)]
    lane = lane_of(backlog, [1, 2, 3, 4, 5, 6], held=own(3))
    assert collapsed(lane) == [["monday", own(3), "auto-2026-01-01T00-00-00Z", own(6)]]


def test_the_retention_of_the_other_side_says_which_automatic_ones_are_sent() -> None:
    seconds = [0, 1, 3600, 3601, 7200, 7201]
    lane = lane_of([own(each) for each in seconds], seconds)
    assert collapsed(lane, keep=Policy(keep_last=2)) == [[own(7200), own(7201)]]
    assert collapsed(lane, keep=Policy(keep_hourly=24)) == [[own(1), own(3601), own(7201)]]
    scheduled = lane_of(["auto-2023-11-14T22-13-20Z", own(5)], [0, 5])
    assert collapsed(scheduled, keep=Policy(keep_last=1)) == [[own(5)]]


def test_snapshots_of_one_instant_go_together() -> None:
    root = lane_of([own(1), own(2), own(3)], [1, 2, 3], "r")
    home = lane_of([own(1), own(2), own(3)], [1, 2, 3], "h", held=own(2))
    assert collapsed(root, home) == [[own(2), own(3)]] * 2
    # The newest of a fileset that did not change since is of an instant of the others, too.
    still = lane_of([own(1), own(2)], [1, 2], "s")
    assert collapsed(root, still) == [[own(2), own(3)], [own(2)]]


def test_what_is_half_received_is_finished_first() -> None:
    seconds = [1, 2, 3, 4]
    backlog = [own(each) for each in seconds]
    assert collapsed(lane_of(backlog, seconds, begun=own(2))) == [[own(2), own(4)]]
    # Whatever is held since then: the part that is there begins at the common snapshot.
    assert collapsed(lane_of(backlog, seconds, begun=own(2), held=own(1))) == [[own(2), own(4)]]
    assert collapsed(lane_of(backlog, seconds, begun=own(2), held=own(3))) == [[own(2), own(3), own(4)]]


def test_the_origin_of_a_clone_is_there_before_the_clone() -> None:
    root = lane_of([own(1), own(2), own(3)], [1, 2, 3], "r")
    clone = lane_of([own(3)], [3], "c", base=root.plan.steps[1].target)
    assert collapsed(root, clone) == [[own(2), own(3)], [own(3)]]
    assert collapse.collapse([root, clone], Policy(), NOW_NS, UTC)[1].steps[0].base == root.plan.steps[1].target


def test_nothing_to_send_stays_nothing() -> None:
    assert collapsed(lane_of([], [])) == [[]]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (own(0), True),
        (own(0) + "-2", True),
        ("link-", False),
        ("link-2026", False),
        ("my-" + own(0), False),
        (own(0) + "x", False),
        ("auto-2026-01-01T00-00-00Z", False),
    ],
)
def test_only_what_links_took_bears_their_names(name: str, expected: bool) -> None:
    assert is_own(name) is expected


def test_the_other_side_keeps_none_of_its_own_without_rules_but_what_is_needed() -> None:
    there = [
        Candidate(1, own(1), START_NS),
        Candidate(2, own(2), START_NS, holders=("me",)),
        Candidate(3, own(3), START_NS, locked_until_ns=NOW_NS + 1),
        Candidate(4, own(4), START_NS, is_base=True),
        Candidate(5, "auto-2026-01-01T00-00-00Z", START_NS),
        Candidate(6, own(6), START_NS),
    ]
    assert [each.id for each in collapse.goes(Policy(), there, NOW_NS, UTC, 0)] == [1]
    assert [each.id for each in collapse.goes(Policy(keep_last=1), there, NOW_NS, UTC, 0)] == [1, 5]


def test_for_want_of_space_the_oldest_go_and_links_own_anyway() -> None:
    names = ("auto-2026-01-01T00-00-00Z", own(1), "auto-2026-01-02T00-00-00Z", "mine", own(2))
    there = [Candidate(at, name, START_NS, 10, 10) for at, name in enumerate(names)]
    for free_bytes, expected in ((100, [1]), (0, [1, 0, 2])):
        found = collapse.goes(Policy(keep_free_bytes=15), there, NOW_NS, UTC, free_bytes)
        assert [each.id for each in found] == expected


def test_rules_of_a_link_are_about_other_names_too_where_it_says_so() -> None:
    rules = rules_of(Policy(keep_last=1, prune_matching="^nightly"))
    assert retention.is_subject(rules, "nightly-7") and retention.is_subject(rules, own(1))
    assert not retention.is_subject(rules, "monday") and not retention.is_subject(rules, "my-" + own(1))


NAMES = st.sampled_from(["own", "auto", "mine"])
POLICIES = st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 2), st.sampled_from(["", "7"])).map(
    lambda drawn: Policy(keep_last=drawn[0], keep_hourly=drawn[1], keep_daily=drawn[2], keep_matching=drawn[3])
)


def _named(kind: str, second: int) -> str:
    return {"own": own(second), "auto": own(second).replace("link-", "auto-"), "mine": f"mine-{second}"}[kind]


@given(
    st.lists(st.tuples(NAMES, st.integers(1, 4000), st.sets(st.integers(0, 2))), min_size=1, max_size=25),
    st.integers(0, 24),
    POLICIES,
)
def test_any_backlog_is_whole_ends_at_the_newest_and_has_what_would_be_kept(
    drawn: list[tuple[str, int, set[int]]], there_count: int, keep: Policy
) -> None:
    second, instants = 0, []
    for kind, gap, filesets in drawn:
        second += gap
        instants.append((_named(kind, second), second, {0} | filesets))
    lanes = []
    for number in range(3):
        mine = [(name, at) for name, at, filesets in instants if number in filesets]
        lanes.append(lane_of([name for name, _ in mine], [at for _, at in mine], f"{number}"))
    plans = collapse.collapse(lanes, keep, NOW_NS, UTC)
    chosen = [set(names(plan)) for plan in plans]
    for lane, plan in zip(lanes, plans, strict=True):
        assert names(plan)[-1:] == [step.target.name for step in lane.plan.steps[-1:]]
    for name, _, filesets in instants:
        assert len({name in chosen[number] for number in filesets}) == 1, name
        if name.startswith("mine"):
            assert name in chosen[0]
    # What was there before changes nothing: after sending everything, retention would keep no others.
    all_there = [Candidate(-each, own(-10_000 - each), START_NS - 10**14) for each in range(there_count, 0, -1)]
    gone = {each.name for each in collapse.goes(keep, all_there + list(lanes[0].targets), NOW_NS, UTC, 0)}
    assert {each.name for each in lanes[0].targets} - gone <= chosen[0]
