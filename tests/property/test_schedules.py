"""Schedules and retention over simulated years: clocks that jump, machines that are off, daylight saving.

``Machine`` has a true time, which only passes, and a clock, which is set to anything. It runs the planning as its
owners do: it remembers ``done_ns`` alone. A referee says when cron is due by trying every minute.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from random import Random
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idemfs.errors import BadPolicy
from idemfs.snapshots import retention, schedule
from idemfs.snapshots.policy import Policy, zone_of
from idemfs.snapshots.retention import Candidate, Verdict
from idemfs.snapshots.schedule import BACK_NS_MAX, SECOND_NS

ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Africa/Cairo",
    "Antarctica/Troll",
    "Asia/Kathmandu",
    "America/Sao_Paulo",
)
DAY_NS = 86_400 * SECOND_NS
START_NS = 1_500_000_000 * SECOND_NS


class Machine:
    """Takes and prunes snapshots as its clock and the policy say."""

    def __init__(self, policy: Policy, start_ns: int = START_NS) -> None:
        self.policy = policy
        self.zone = zone_of(policy.zone)
        self.true_ns = start_ns
        self.offset_ns = 0
        self.done_ns = start_ns
        self.count = 0
        self.snapshots: list[Candidate] = []
        self.due_times: list[int] = []
        self.taken_true_ns: list[int] = []

    @property
    def now_ns(self) -> int:
        return self.true_ns + self.offset_ns

    def wake(self) -> bool:
        """One look at the schedule; whether a snapshot was taken."""
        self.done_ns = schedule.settled(self.done_ns, self.now_ns)
        due = schedule.due(self.policy, self.done_ns, self.now_ns, self.zone, is_full=False)
        if due is None:
            return False
        self.done_ns = due.at_ns
        self.due_times.append(due.at_ns)
        self.taken_true_ns.append(self.true_ns)
        self.count += 1
        self.snapshots.append(Candidate(self.count, schedule.name_of(due.at_ns), self.now_ns))
        return True

    def sleep_until_due(self) -> None:
        at_ns = schedule.next_due_ns(self.policy, self.done_ns, self.zone)
        assert at_ns is not None
        self.true_ns += max(SECOND_NS, at_ns - self.now_ns)

    def plan(self) -> list[Verdict]:
        return retention.plan(self.policy, self.snapshots, now_ns=self.now_ns, zone=self.zone, free_bytes=0)

    def prune(self) -> list[Verdict]:
        verdicts = self.plan()
        self.snapshots = [each.snapshot for each in verdicts if each.keeps]
        return verdicts


# -- cron, against a referee ---------------------------------------------------------------------------


def parsed(field: str, first: int, last: int) -> set[int]:
    """The numbers of a field, written as the strategies below write them."""
    found: set[int] = set()
    for term in field.split(","):
        span, _, step = term.partition("/")
        start, _, end = (f"{first}-{last}" if span == "*" else span).partition("-")
        found.update(range(int(start), int(end or start) + 1, int(step or 1)))
    return found


def referee(cron: str, start: datetime, end: datetime, zone: tzinfo) -> list[int]:
    """Every due time after ``start`` and up to ``end``, in seconds, found by trying all minutes."""
    minute, hour, day, month, weekday = cron.split()
    minutes, hours, days = parsed(minute, 0, 59), parsed(hour, 0, 23), parsed(day, 1, 31)
    months, weekdays = parsed(month, 1, 12), parsed(weekday, 0, 6)

    def matches(at: datetime) -> bool:
        return (
            at.minute in minutes
            and at.hour in hours
            and at.day in days
            and at.month in months
            and at.isoweekday() % 7 in weekdays
        )

    found = set()
    if hour == "*":
        at = int(start.timestamp()) // 60 * 60
        while (at := at + 60) <= end.timestamp():
            if matches(datetime.fromtimestamp(at, zone)):
                found.add(at)
    else:
        named = (start - timedelta(days=2)).replace(tzinfo=None, second=0)
        while (named := named + timedelta(minutes=1)) <= (end + timedelta(days=2)).replace(tzinfo=None):
            if matches(named):
                found.add(first_at_or_after(named, zone))
    return sorted(at for at in found if start.timestamp() < at <= end.timestamp())


def first_at_or_after(named: datetime, zone: tzinfo) -> int:
    """The first second of which a clock in the zone says this time; or in a gap, the first one after the gap."""
    at = named.replace(tzinfo=zone)
    while at.astimezone(UTC).astimezone(zone).replace(tzinfo=None) != at.replace(tzinfo=None):
        at += timedelta(minutes=1)
    return int(at.timestamp())


def transitions(zone: str, year: int) -> list[datetime]:
    """The days of a year on which the clocks of a zone change, or the first of May."""
    there = ZoneInfo(zone)
    days = [datetime(year, 1, 1, 12, tzinfo=there) + timedelta(days=n) for n in range(365)]
    changing = [day for day in days if day.utcoffset() != (day - timedelta(days=1)).utcoffset()]
    return changing or [datetime(year, 5, 1, 12, tzinfo=there)]


crons = st.builds(
    lambda *fields: " ".join(fields),
    st.sampled_from(["0", "30", "59", "*/15", "15,45", "*", "50-59", "0-30/10"]),
    st.sampled_from(["*", "0", "1", "2", "3", "1-3", "*/2", "*/6", "2,23", "0-23/5"]),
    st.just("*"),
    st.sampled_from(["*", "1-12/2", "3,4,10,11"]),
    st.sampled_from(["*", "0", "0,6", "1-5"]),
)


@settings(deadline=None, max_examples=150)
@given(
    cron=crons,
    zone=st.sampled_from(ZONES),
    year=st.integers(2015, 2030),
    which=st.integers(0, 9),
    second=st.integers(-86_400, 86_400) | st.integers(-43_200, -28_800),
)
def test_cron_is_due_when_trying_every_minute_says_so(cron: str, zone: str, year: int, which: int, second: int) -> None:
    days = transitions(zone, year)
    start = days[which % len(days)].astimezone(UTC) - timedelta(days=1, seconds=second)
    end = start + timedelta(days=3)
    policy, there = Policy(cron=cron, zone=zone), zone_of(zone)
    expected = referee(cron, start.astimezone(there), end.astimezone(there), there)
    found = []
    at_ns = schedule.next_due_ns(policy, int(start.timestamp()) * SECOND_NS, there)
    while at_ns is not None and at_ns <= end.timestamp() * SECOND_NS:
        found.append(at_ns // SECOND_NS)
        at_ns = schedule.next_due_ns(policy, at_ns, there)
    assert found == expected
    caught_up = schedule.due(
        policy, int(start.timestamp()) * SECOND_NS, int(end.timestamp()) * SECOND_NS, there, is_full=False
    )
    assert (caught_up.at_ns // SECOND_NS if caught_up else None) == (expected[-1] if expected else None)


@settings(deadline=None)
@given(st.text("0123456789*/,-#LW MONx", max_size=20))
def test_any_text_is_a_cron_expression_or_refused(text: str) -> None:
    try:
        schedule.check_cron(text, zone_of("Europe/Berlin"))
    except BadPolicy:
        return
    assert schedule.next_due_ns(Policy(cron=text), START_NS, UTC) is not None


# -- years -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "Australia/Lord_Howe"])
def test_three_years_of_nights_are_as_many_snapshots(zone: str) -> None:
    machine = Machine(Policy(cron="30 2 * * *", zone=zone))
    while machine.true_ns < START_NS + 3 * 365 * DAY_NS:
        machine.sleep_until_due()
        assert machine.wake() and not machine.wake()
    days = [datetime.fromtimestamp(at_ns // SECOND_NS, machine.zone).date() for at_ns in machine.due_times]
    assert days == [days[0] + timedelta(days=n) for n in range(len(days))] and 1095 <= len(days) <= 1097
    assert len({each.name for each in machine.snapshots}) == len(days)


def test_ten_years_of_every_rule_keep_a_few_from_each_age() -> None:
    rules = Policy(
        every_seconds=43_200, zone="Europe/Berlin", keep_last=4, keep_daily=7, keep_weekly=5, keep_monthly=12,
        keep_yearly=10,
    )  # fmt: skip
    machine = Machine(rules)
    for _ in range(2 * 365 * 10):
        machine.sleep_until_due()
        machine.wake()
        machine.prune()
        assert len(machine.snapshots) <= 38
    days = [(machine.now_ns - each.created_ns) // DAY_NS for each in machine.snapshots]
    assert sum(age <= 7 for age in days) >= 7 and sum(30 < age <= 365 for age in days) >= 10
    years = {datetime.fromtimestamp(each.created_ns // SECOND_NS, machine.zone).year for each in machine.snapshots}
    assert len(years) == 10


policies = st.sampled_from(
    [
        Policy(every_seconds=60),
        Policy(every_seconds=7),
        Policy(every_seconds=86_400),
        Policy(cron="*/10 * * * *", zone="America/New_York"),
        Policy(cron="30 2 * * *", zone="Europe/Berlin"),
        Policy(cron="0 0 1 * *", zone="Africa/Cairo", every_seconds=3600),
    ]
)
seconds = st.one_of(st.integers(1, 100), st.integers(1, 10**5), st.integers(1, 10**8))


@settings(deadline=None)
@given(policy=policies, sleeps=st.lists(seconds, max_size=40), steps=st.randoms(use_true_random=False))
def test_no_due_time_comes_twice_and_none_is_left(policy: Policy, sleeps: list[int], steps: Random) -> None:
    """The clock is set forward at will, and back by what is waited for."""
    machine = Machine(policy)
    for sleep in sleeps:
        machine.true_ns += sleep * SECOND_NS
        machine.offset_ns += steps.choice((0, 0, 0, steps.randrange(0, 10**4), -steps.randrange(0, 600))) * SECOND_NS
        before = machine.done_ns
        due_since = schedule.next_due_ns(policy, before, machine.zone)
        assert due_since is not None
        back_ns = before - machine.now_ns
        if back_ns > BACK_NS_MAX:
            # Several small steps without a snapshot between them: the clock is followed from here on.
            break
        assert machine.wake() == (due_since <= machine.now_ns)
        assert not machine.wake()
        left = schedule.next_due_ns(policy, machine.done_ns, machine.zone)
        assert left is not None and left > machine.now_ns
    assert machine.due_times == sorted(set(machine.due_times))


@settings(deadline=None)
@given(policy=policies, jumps=st.lists(st.integers(-(10**9), 10**9), max_size=8))
def test_wherever_the_clock_jumps_snapshots_go_on(policy: Policy, jumps: list[int]) -> None:
    machine = Machine(policy)
    step_ns = 30 * SECOND_NS
    for jump in jumps:
        machine.offset_ns = jump * SECOND_NS
        count = machine.count
        machine.wake()
        first = schedule.next_due_ns(policy, machine.done_ns, machine.zone)
        assert first is not None
        patience_ns = max(0, first - machine.now_ns)
        # No longer than what is waited for, and one period, which for one of these policies is a day.
        assert patience_ns <= BACK_NS_MAX + (25 * 3600 * SECOND_NS)
        machine.true_ns += patience_ns + step_ns
        machine.wake()
        assert machine.count > count


# -- retention -------------------------------------------------------------------------------------------


@st.composite
def fleets(draw: st.DrawFn) -> tuple[Policy, list[Candidate], int]:
    """A policy, snapshots whose times are in any order, and the present."""
    counts = st.integers(0, 4)
    policy = Policy(
        zone=draw(st.sampled_from(ZONES)),
        keep_last=draw(counts),
        keep_hourly=draw(counts),
        keep_daily=draw(counts),
        keep_weekly=draw(counts),
        keep_monthly=draw(counts),
        keep_yearly=draw(counts),
        keep_matching=draw(st.sampled_from(["", "0Z$", "^keep"])),
        keep_free_bytes=draw(st.sampled_from([0, 0, 50])),
        prune_matching=draw(st.sampled_from(["", "^hand"])),
    )
    now_s = START_NS // SECOND_NS
    times = draw(st.lists(st.integers(-(10**8), 10**6) | st.integers(-(10**5), 0), max_size=25))
    if draw(st.booleans()):
        times.sort()
    snapshots = []
    for number, time in enumerate(times, 1):
        at_ns = (now_s + time) * SECOND_NS
        name = draw(st.sampled_from([schedule.name_of(at_ns)] * 6 + [f"hand{number}", f"keep{number}"]))
        snapshots.append(
            Candidate(
                number,
                name,
                at_ns,
                data_bytes=draw(st.integers(0, 20)),
                holders=draw(st.sampled_from([()] * 8 + [("me",)])),
                locked_until_ns=draw(st.sampled_from([0] * 8 + [START_NS - 1, START_NS + 1])),
                is_base=draw(st.integers(0, 9)) == 0,
            )
        )
    return policy, snapshots, draw(st.integers(0, 100))


BUCKETS = {
    "keep_hourly": "%Y-%m-%dT%H%z",
    "keep_daily": "%Y-%m-%d",
    "keep_weekly": "%G-%V",
    "keep_monthly": "%Y-%m",
    "keep_yearly": "%Y",
}


@settings(deadline=None, max_examples=300)
@given(fleets())
def test_what_retention_never_does(fleet: tuple[Policy, list[Candidate], int]) -> None:
    policy, snapshots, free = fleet
    zone = zone_of(policy.zone)
    verdicts = retention.plan(policy, snapshots, now_ns=START_NS, zone=zone, free_bytes=free)
    assert [each.snapshot for each in verdicts] == snapshots
    assert all(each.reason for each in verdicts)
    gone = [each.snapshot for each in verdicts if not each.keeps]
    assert gone == sorted(gone, key=lambda each: each.id)
    for each in gone:
        assert not each.holders and each.locked_until_ns <= START_NS and not each.is_base
        assert each.id != snapshots[-1].id
        assert each.name.startswith("auto-") or (policy.prune_matching and each.name.startswith("hand"))
    if not retention.deletes(policy):
        assert gone == []
    subject = [each for each in snapshots if retention.is_subject(policy, each.name)]
    assert not subject or subject[-1] not in gone
    by_rule = {each.snapshot.id for each in verdicts if not each.keeps and not each.for_space}
    for rule, form in BUCKETS.items():
        names = [datetime.fromtimestamp(each.created_ns // SECOND_NS, zone).strftime(form) for each in subject]
        newest_first = list(dict.fromkeys(reversed(names)))
        for bucket in newest_first[: getattr(policy, rule)]:
            kept = [
                each for each, name in zip(subject, names, strict=True) if name == bucket and each.id not in by_rule
            ]
            assert kept, f"{rule} lost {bucket}"
    assert not by_rule & {each.id for each in subject[len(subject) - policy.keep_last :]}


@settings(deadline=None, max_examples=200)
@given(fleets())
def test_pruning_twice_is_pruning_once_but_for_space(fleet: tuple[Policy, list[Candidate], int]) -> None:
    policy, snapshots, _ = fleet
    policy = policy._replace(keep_free_bytes=0)
    zone = zone_of(policy.zone)
    verdicts = retention.plan(policy, snapshots, now_ns=START_NS, zone=zone, free_bytes=0)
    left = [each.snapshot for each in verdicts if each.keeps]
    again = retention.plan(policy, left, now_ns=START_NS, zone=zone, free_bytes=0)
    assert [each.snapshot for each in again if each.keeps] == left


@settings(deadline=None, max_examples=200)
@given(fleets())
def test_for_space_the_oldest_go_and_no_more_than_needed(fleet: tuple[Policy, list[Candidate], int]) -> None:
    policy, snapshots, free = fleet
    verdicts = retention.plan(policy, snapshots, now_ns=START_NS, zone=zone_of(policy.zone), free_bytes=free)
    gone = [each.snapshot.data_bytes for each in verdicts if not each.keeps and not each.for_space]
    extra = [each.snapshot for each in verdicts if each.for_space]
    if extra:
        assert free + sum(gone) + sum(each.data_bytes for each in extra[:-1]) < policy.keep_free_bytes
    plain = retention.plan(
        policy._replace(keep_free_bytes=0), snapshots, now_ns=START_NS, zone=zone_of(policy.zone), free_bytes=free
    )
    kept_by_count = [each.snapshot for each in plain if each.keeps]
    protected = {each.id for each in kept_by_count} - {
        each.snapshot.id
        for each in retention.plan(
            policy._replace(keep_free_bytes=10**12), snapshots, now_ns=START_NS, zone=zone_of(policy.zone), free_bytes=0
        )
        if each.for_space
    }
    could_go = [each for each in kept_by_count if each.id not in protected]
    assert extra == could_go[: len(extra)]


def test_a_clock_ten_years_ahead_for_a_day_deletes_nothing_of_the_years_before() -> None:
    machine = Machine(Policy(cron="0 12 * * *", keep_daily=5, keep_monthly=6, keep_yearly=3))
    for _ in range(800):
        machine.sleep_until_due()
        machine.wake()
        machine.prune()
    before = {each.name for each in machine.snapshots}
    machine.offset_ns = 3650 * DAY_NS
    machine.wake()
    machine.prune()
    # One from the wrong year takes one place in each rule, and no more.
    assert len(before - {each.name for each in machine.snapshots}) <= 3
    machine.offset_ns = 0
    for _ in range(3):
        machine.wake()
        machine.sleep_until_due()
        assert machine.wake()
        machine.prune()
    assert len(before - {each.name for each in machine.snapshots}) <= 6
