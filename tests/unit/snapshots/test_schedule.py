"""Due times: grids, cron in zones whose clocks change, what was missed, and clocks that jump."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from idemfs.errors import BadPolicy
from idemfs.snapshots import schedule
from idemfs.snapshots.policy import Policy, zone_of
from idemfs.snapshots.schedule import BACK_NS_MAX, SECOND_NS, Due

HOURLY = Policy(every_seconds=3600)


def ns(text: str) -> int:
    """UTC unless the text has an offset."""
    found = datetime.fromisoformat(text)
    return int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()) * SECOND_NS


def following(policy: Policy, start: str, count: int) -> list[str]:
    """The next due times, in the zone of the policy, without the year."""
    zone = zone_of(policy.zone)
    at_ns: int | None = ns(start)
    found = []
    for _ in range(count):
        assert at_ns is not None
        at_ns = schedule.next_due_ns(policy, at_ns, zone)
        if at_ns is None:
            break
        found.append(datetime.fromtimestamp(at_ns // SECOND_NS, zone).strftime("%m-%d %H:%M%z"))
    return found


def due(policy: Policy, done: str, now: str, *, is_full: bool = False) -> Due | None:
    return schedule.due(policy, ns(done), ns(now), zone_of(policy.zone), is_full=is_full)


def berlin(cron: str) -> Policy:
    return Policy(cron=cron, zone="Europe/Berlin")


def test_a_period_is_a_grid_and_not_a_distance() -> None:
    assert following(HOURLY, "2026-05-01T10:17:00", 2) == ["05-01 11:00+0000", "05-01 12:00+0000"]
    assert due(HOURLY, "2026-05-01T10:00:00", "2026-05-01T10:59:59") is None
    assert due(HOURLY, "2026-05-01T10:00:00", "2026-05-01T11:00:00") == Due(
        ns("2026-05-01T11:00"), "every 3600 seconds"
    )


def test_what_was_missed_is_caught_up_once() -> None:
    found = due(HOURLY, "2026-05-01T10:00:00", "2026-05-08T03:30:00")
    assert found is not None and found.at_ns == ns("2026-05-08T03:00")
    assert due(HOURLY, "2026-05-08T03:00:00", "2026-05-08T03:30:00") is None
    found = due(berlin("0 3 * * *"), "2026-01-05T02:00", "2026-03-10T12:00")
    assert found is not None and found.at_ns == ns("2026-03-10T03:00+01:00")
    assert due(berlin("0 3 * * *"), "2026-03-10T03:00+01:00", "2026-03-10T12:00") is None


def test_a_time_that_a_change_of_the_clocks_leaves_out_comes_right_after_the_gap() -> None:
    after_gap = "03-29 03:00+0200"
    for cron in ("30 2 * * *", "0 2 * * *", "15,45 2 * * *"):
        assert following(berlin(cron), "2026-03-29T00:00+01:00", 2)[0] == after_gap
        assert not following(berlin(cron), "2026-03-29T00:00+01:00", 2)[1].startswith("03-29")
    assert following(berlin("*/20 2 * * *"), "2026-03-29T00:00+01:00", 2) == [after_gap, "03-30 02:00+0200"]
    assert following(berlin("0 */2 * * *"), "2026-03-29T00:00+01:00", 2) == [after_gap, "03-29 04:00+0200"]


def test_a_time_that_a_change_of_the_clocks_repeats_comes_once() -> None:
    for cron in ("30 2 * * *", "30 2,4 * * SUN"):
        assert following(berlin(cron), "2026-10-25T00:00+02:00", 1) == ["10-25 02:30+0200"]
        assert following(berlin(cron), "2026-10-25T02:30+02:00", 1) != ["10-25 02:30+0100"]
        assert due(berlin(cron), "2026-10-25T02:30+02:00", "2026-10-25T03:30+01:00") is None
    assert following(berlin("30 2 * * *"), "2026-10-25T02:10+01:00", 1) == ["10-26 02:30+0100"]
    assert following(berlin("*/30 2 * * *"), "2026-10-25T02:29+02:00", 2) == ["10-25 02:30+0200", "10-26 02:00+0100"]


def test_every_hour_is_every_hour_that_passes() -> None:
    assert following(berlin("0 * * * *"), "2026-10-25T01:30+02:00", 3) == [
        "10-25 02:00+0200",
        "10-25 02:00+0100",
        "10-25 03:00+0100",
    ]
    assert following(berlin("0 * * * *"), "2026-03-29T01:30+01:00", 2) == ["03-29 03:00+0200", "03-29 04:00+0200"]


def test_midnight_that_does_not_exist() -> None:
    cairo = Policy(cron="0 0 * * *", zone="Africa/Cairo")
    assert following(cairo, "2024-04-25T12:00", 2) == ["04-26 01:00+0300", "04-27 00:00+0300"]


def test_rules_together_are_due_one_after_the_other() -> None:
    both = Policy(every_seconds=7200, cron="30 * * * *")
    assert following(both, "2026-05-01T10:00", 3) == ["05-01 10:30+0000", "05-01 11:30+0000", "05-01 12:00+0000"]
    found = due(both, "2026-05-01T10:00", "2026-05-01T12:10")
    assert found is not None and found.at_ns == ns("2026-05-01T12:00")


def test_bytes_make_a_snapshot_due_at_once_and_once_a_second_at_most() -> None:
    full = Policy(after_bytes=100)
    assert due(full, "2026-05-01T10:00:00", "2026-05-01T10:00:05") is None
    assert due(full, "2026-05-01T10:00:00", "2026-05-01T10:00:05", is_full=True) == Due(
        ns("2026-05-01T10:00:05"), "100 bytes changed"
    )
    assert due(full, "2026-05-01T10:00:05", "2026-05-01T10:00:05", is_full=True) is None
    assert following(full, "2026-05-01T10:00", 1) == []


def test_a_clock_set_back_a_little_is_waited_for_and_one_set_back_far_is_followed() -> None:
    done = ns("2026-05-01T10:00:00")
    assert schedule.settled(done, done - BACK_NS_MAX) == done
    assert schedule.settled(done, done - BACK_NS_MAX - SECOND_NS) == done - BACK_NS_MAX - SECOND_NS
    assert schedule.settled(done, done + 10**18) == done


def test_names_follow_from_due_times() -> None:
    assert schedule.name_of(ns("2026-05-01T10:00:00+02:00")) == "auto-2026-05-01T08-00-00Z"


@pytest.mark.parametrize(
    ("policy", "says"),
    [
        (Policy(cron="0 3 * *"), "five fields"),
        (Policy(cron="0 0 3 * * *"), "five fields"),
        (Policy(cron="61 * * * *"), "minute"),
        (Policy(cron="0 0 30 2 *"), "day-of-month"),
        (Policy(cron="0 0 1 1 MON#6"), "day-of-week"),
        (Policy(cron="0 0 31 4,6,9,11 *"), "cron"),
        (Policy(zone="Middle/Earth"), "time zone"),
        (Policy(zone="../../etc/passwd"), "time zone"),
        (Policy(zone="America"), "time zone"),
        (Policy(keep_matching="("), "regular expression"),
        (Policy(prune_matching="a" * 1001), "1000 bytes"),
        (Policy(every_seconds=-1), "every seconds"),
        (Policy(lock_seconds=10**12), "lock seconds"),
    ],
)
def test_rules_that_mean_nothing_are_refused(policy: Policy, says: str) -> None:
    with pytest.raises(BadPolicy, match=says):
        schedule.check_policy(policy)


def test_rules_that_mean_something_are_not() -> None:
    schedule.check_policy(Policy())
    schedule.check_policy(
        Policy(every_seconds=1, cron="0 0 29 2 *", zone="America/St_Johns", keep_matching="^m|-0[1-3]$")
    )
