"""Links over simulated time: clocks that jump, peers that fail, windows, daylight saving.

``Linked`` has a true time, which only passes, and a clock, which is set to anything. It asks what to do and does it, as
the thread of a link does. A referee knows windows by the clock on the wall alone.
"""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo
from random import Random
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idemfs.node import link_schedule
from idemfs.node.link_schedule import (
    CHECK_SECONDS,
    RETRY_SECONDS_MAX,
    State,
    Times,
    Turn,
    Window,
    is_open,
    next_turn,
    opens_ns,
    retry_seconds,
)
from idemfs.snapshots.policy import zone_of
from idemfs.snapshots.schedule import SECOND_NS

START_NS = 1_700_000_000 * SECOND_NS
DAY_NS = 86_400 * SECOND_NS
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "Antarctica/Troll")


def parse_window(text: str) -> Window:
    """``22:00-06:00``."""
    begins, ends = (int(time[:2]) * 60 + int(time[3:]) for time in text.split("-"))
    return Window(begins, ends)


class Linked:
    """Runs one link; ``transfers`` has the true times at which one began."""

    def __init__(self, times: Times, zone: tzinfo = UTC, start_ns: int = START_NS) -> None:
        self.times, self.zone = times, zone
        self.true_ns, self.offset_ns = start_ns, 0
        self.state = State(start_ns)
        self.transfers: list[int] = []

    @property
    def now_ns(self) -> int:
        return self.true_ns + self.offset_ns

    def turn(self, *, works: bool = True, seconds: float = 0.0) -> Turn:
        """One look; a transfer takes so many seconds."""
        self.state = link_schedule.settled(self.state, self.now_ns)
        found = next_turn(self.times, self.state, self.now_ns, self.true_ns / 1e9, self.zone)
        if found.turn is Turn.RUN:
            self.state = link_schedule.begun(self.times, self.state, self.now_ns, self.zone)
            self.transfers.append(self.true_ns)
            self.true_ns += round(seconds * 1e9)
            if works:
                self.state = link_schedule.succeeded(self.state)
            else:
                self.state = link_schedule.failed(self.state, self.true_ns / 1e9, 0.5)
        else:
            assert found.seconds is not None and 0 < found.seconds <= CHECK_SECONDS
            self.true_ns += max(1, round(found.seconds * 1e9))
        return found.turn

    def run_until(self, true_ns: int, *, works: bool = True, seconds: float = 0.0) -> None:
        while self.true_ns < true_ns:
            self.turn(works=works, seconds=seconds)


def test_every_second_transfers_every_second_and_first_at_once() -> None:
    linked = Linked(Times(every_seconds=1))
    linked.run_until(START_NS + 60 * SECOND_NS)
    assert linked.transfers == [START_NS + n * SECOND_NS for n in range(60)]


def test_transfers_that_take_longer_than_their_interval_do_not_pile_up() -> None:
    linked = Linked(Times(every_seconds=1))
    linked.run_until(START_NS + 100 * SECOND_NS, seconds=3.7)
    gaps = [later - earlier for earlier, later in zip(linked.transfers, linked.transfers[1:], strict=False)]
    # The next one begins when the last has ended, since something has become due: once.
    assert set(gaps) == {round(3.7e9)}
    linked.run_until(linked.true_ns + 10 * SECOND_NS)
    assert linked.transfers[-1] - linked.transfers[-2] <= SECOND_NS


def test_a_link_without_times_transfers_when_it_is_asked_to() -> None:
    state = link_schedule.begun(Times(), State(START_NS), START_NS, UTC)
    assert next_turn(Times(), state, START_NS + DAY_NS, 0.0, UTC) == (Turn.WAIT_UNTIL_DUE, None)
    assert next_turn(Times(), state._replace(is_owed=True), START_NS + DAY_NS, 0.0, UTC).turn is Turn.RUN


def test_by_cron_in_a_time_zone() -> None:
    zone = zone_of("Europe/Berlin")
    start_ns = int(datetime(2026, 3, 27, 12, tzinfo=UTC).timestamp()) * SECOND_NS
    linked = Linked(Times(cron="30 3 * * *"), zone, start_ns)
    linked.run_until(start_ns + 4 * DAY_NS)
    local = [datetime.fromtimestamp(at // SECOND_NS, zone).strftime("%d %H:%M") for at in linked.transfers[1:]]
    assert local == ["28 03:30", "29 03:30", "30 03:30", "31 03:30"]


@pytest.mark.parametrize("seconds", [-86400 * 400, -3600, -500, -3, 3, 3600, 86400 * 400])
def test_a_clock_that_is_set_stops_no_link(seconds: int) -> None:
    linked = Linked(Times(every_seconds=10))
    linked.run_until(START_NS + 100 * SECOND_NS)
    linked.offset_ns = seconds * SECOND_NS
    count = len(linked.transfers)
    linked.run_until(START_NS + 300 * SECOND_NS)
    assert 19 <= len(linked.transfers) - count <= 22


def test_failures_are_tried_again_after_longer_and_longer_pauses_and_forgotten_after_a_success() -> None:
    linked = Linked(Times(every_seconds=3600))
    linked.run_until(START_NS + 7200 * SECOND_NS, works=False)
    gaps = [later - earlier for earlier, later in zip(linked.transfers, linked.transfers[1:], strict=False)]
    assert gaps == sorted(gaps) and gaps[0] < SECOND_NS and gaps[-1] <= RETRY_SECONDS_MAX * SECOND_NS
    linked.run_until(linked.true_ns + 400 * SECOND_NS)
    assert linked.state.failure_count == 0


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_a_pause_is_never_too_short_nor_too_long(count: int, chance: float) -> None:
    assert 0.5 <= retry_seconds(count, chance) <= RETRY_SECONDS_MAX
    assert retry_seconds(count, chance) <= retry_seconds(count, 0.0)


def test_what_had_to_pause_goes_on_when_the_window_opens_again() -> None:
    windows = (parse_window("22:00-23:00"),)
    start_ns = int(datetime(2026, 1, 1, 22, 59, tzinfo=UTC).timestamp()) * SECOND_NS
    linked = Linked(Times(every_seconds=86400 * 7, windows=windows), start_ns=start_ns)
    assert linked.turn(seconds=120) is Turn.RUN and not is_open(windows, linked.now_ns, UTC)
    linked.state = link_schedule.paused(linked.state)
    while linked.turn() is not Turn.RUN:
        assert next_turn(linked.times, linked.state, linked.now_ns, 0.0, UTC).turn in (Turn.WAIT_FOR_WINDOW, Turn.RUN)
    assert linked.transfers[-1] == start_ns + 23 * 3600 * SECOND_NS + 60 * SECOND_NS


def on_the_wall(windows: tuple[Window, ...], now_ns: int, zone: tzinfo) -> bool:
    """The referee: texts are compared."""
    text = datetime.fromtimestamp(now_ns // SECOND_NS, zone).strftime("%H:%M")
    for begins, ends in (tuple(f"{each // 60:02}:{each % 60:02}" for each in window) for window in windows):
        if begins <= text < ends or (ends <= begins and (text >= begins or text < ends)):
            return True
    return False


WINDOWS = st.lists(
    st.tuples(st.integers(0, 1439), st.integers(0, 1439)).filter(lambda pair: pair[0] != pair[1]),
    min_size=1,
    max_size=3,
).map(lambda pairs: tuple(Window(*pair) for pair in pairs))


@given(WINDOWS, st.sampled_from(ZONES), st.integers(0, 3 * 365 * 1440), st.integers(1, 3000))
def test_a_window_opens_when_the_wall_says_so_and_never_later(
    windows: tuple[Window, ...], name: str, minute: int, look_minutes: int
) -> None:
    zone = zone_of(name)
    now_ns = START_NS // (60 * SECOND_NS) * 60 * SECOND_NS + minute * 60 * SECOND_NS + 12_345_678
    at_ns = opens_ns(windows, now_ns, zone)
    assert on_the_wall(windows, at_ns, zone) and at_ns >= now_ns - now_ns % (60 * SECOND_NS)
    for earlier in range(look_minutes):
        early_ns = now_ns + earlier * 60 * SECOND_NS
        if early_ns >= at_ns:
            break
        assert not on_the_wall(windows, early_ns, zone)


@pytest.mark.parametrize("name", ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe"])
@pytest.mark.parametrize("text", ["22:00-06:00", "02:15-02:45", "01:00-03:30"])
def test_over_a_year_with_changes_of_the_clocks_transfers_begin_inside_their_windows(name: str, text: str) -> None:
    zone = ZoneInfo(name)
    windows = (parse_window(text),)
    linked = Linked(Times(every_seconds=1800, windows=windows), zone)
    while linked.true_ns < START_NS + 366 * DAY_NS:
        if linked.turn() is Turn.WAIT_FOR_WINDOW:
            # Asked minute by minute elsewhere; a year of minutes would be long.
            linked.true_ns = max(linked.true_ns, opens_ns(windows, linked.now_ns, zone))
    assert all(on_the_wall(windows, at_ns, zone) for at_ns in linked.transfers)
    days = {datetime.fromtimestamp(at_ns // SECOND_NS, zone).date() for at_ns in linked.transfers}
    assert len(days) >= 365


def test_any_life_of_a_link(seed: int) -> None:
    """Clocks jump, peers fail, transfers take time: a link that works is never later than what it is told to be."""
    random = Random(seed)
    for _ in range(200):
        every = random.choice([1, 7, 60, 3600])
        linked = Linked(Times(every_seconds=every))
        for _ in range(60):
            if random.random() < 0.1:
                linked.offset_ns += round(random.choice([-1, 1]) * 10 ** random.uniform(0, 8)) * SECOND_NS
            before_ns = linked.true_ns
            works = random.random() < 0.7
            turn = linked.turn(works=works, seconds=random.choice([0.0, 0.3, 5.0]))
            if turn is Turn.RUN and not works:
                assert linked.state.is_owed and linked.state.failure_count > 0
            assert turn is Turn.RUN or linked.true_ns > before_ns
        linked.offset_ns = 0
        end_ns = linked.true_ns + round((every + RETRY_SECONDS_MAX + CHECK_SECONDS) * 1e9)
        count = len(linked.transfers)
        linked.run_until(end_ns)
        assert len(linked.transfers) > count and linked.state.failure_count == 0
