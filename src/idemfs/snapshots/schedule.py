"""When snapshots are due. Pure: a policy, what was done, and the time in; what is due, or when, out.

A *due time* is a whole second. ``done_ns`` is a time up to which everything has been dealt with: one snapshot does
for all due times up to it, so what was missed is caught up once. It moves forward only, but for a clock that was set
back by more than ``BACK_NS_MAX``: until then it was wrong, and the schedule goes on from what it says now.

Times of day follow cron: one that a change of the clocks leaves out comes right after the gap, and one that it
repeats comes the first time. An expression for every hour goes by hours that pass, whatever they are called.

Threads: any; everything here is values.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, tzinfo
from typing import NamedTuple

from cronsim import CronSim, CronSimError

from idemfs.errors import BadPolicy
from idemfs.limits import SCHEDULE_SECONDS_MAX, SCHEDULE_TEXT_SIZE_MAX, TIME_NS_MAX
from idemfs.snapshots.policy import Policy, zone_of

SECOND_NS = 1_000_000_000
BACK_NS_MAX = 600 * SECOND_NS
"""A clock that is set back by up to so much is waited for: no due time comes twice."""
NAME_PREFIX = "auto-"


class Due(NamedTuple):
    """One snapshot to be taken."""

    at_ns: int
    """The last of the due times that it stands for."""
    reason: str


def takes(policy: Policy) -> bool:
    """Whether anything is ever due."""
    return bool(policy.every_seconds or policy.cron or policy.after_bytes)


def when(policy: Policy) -> tuple[int, str, str, int]:
    """The part of a policy that says when a snapshot is taken."""
    return policy.every_seconds, policy.cron, policy.zone, policy.after_bytes


def name_of(at_ns: int) -> str:
    """The name of the snapshot of this due time; those that ``replicate`` takes have such names, too."""
    return NAME_PREFIX + datetime.fromtimestamp(at_ns // SECOND_NS, UTC).strftime("%Y-%m-%dT%H-%M-%SZ")


def settled(done_ns: int, now_ns: int) -> int:
    """``done_ns``, or the present time where the clock was set back so far that the old one must have been wrong."""
    return now_ns if done_ns - now_ns > BACK_NS_MAX else done_ns


def next_due_ns(policy: Policy, done_ns: int, zone: tzinfo) -> int | None:
    """The first due time after ``done_ns`` that follows from the clock; None: there is none."""
    times = []
    if policy.every_seconds:
        step = policy.every_seconds * SECOND_NS
        times.append((done_ns // step + 1) * step)
    if policy.cron:
        at_ns = _next_cron_ns(policy.cron, done_ns, zone)
        if at_ns is not None:
            times.append(at_ns)
    return min(times, default=None)


def due(policy: Policy, done_ns: int, now_ns: int, zone: tzinfo, *, is_full: bool) -> Due | None:
    """The snapshot to be taken now, if one is. ``is_full``: ``policy.after_bytes`` have changed."""
    found = []
    if policy.every_seconds:
        step = policy.every_seconds * SECOND_NS
        found.append(Due(now_ns // step * step, f"every {policy.every_seconds} seconds"))
    if policy.cron:
        at_ns = _last_cron_ns(policy.cron, done_ns, now_ns, zone)
        if at_ns is not None:
            found.append(Due(at_ns, f"cron {policy.cron} {policy.zone}"))
    if policy.after_bytes and is_full:
        found.append(Due(now_ns // SECOND_NS * SECOND_NS, f"{policy.after_bytes} bytes changed"))
    return max((each for each in found if each.at_ns > done_ns), default=None)


def check_policy(policy: Policy) -> None:
    """Raises ``BadPolicy`` with what is wrong, and what would be right."""
    for name, value in policy._asdict().items():
        if isinstance(value, str):
            if len(value.encode(errors="replace")) > SCHEDULE_TEXT_SIZE_MAX or not value.isprintable():
                raise BadPolicy(f"{_shown(name)} has up to {SCHEDULE_TEXT_SIZE_MAX} bytes, all printable")
        elif not 0 <= value <= (SCHEDULE_SECONDS_MAX if name.endswith("_seconds") else TIME_NS_MAX):
            raise BadPolicy(f"{_shown(name)} cannot be {value}")
    for name, expression in (("keep_matching", policy.keep_matching), ("prune_matching", policy.prune_matching)):
        try:
            re.compile(expression)
        except (re.error, RecursionError, OverflowError) as wrong:
            raise BadPolicy(f"{_shown(name)}: {expression!r} is no regular expression: {wrong}") from None
    zone = zone_of(policy.zone)
    if policy.cron:
        check_cron(policy.cron, zone)


def _shown(name: str) -> str:
    return name.replace("_", " ")


def check_cron(expression: str, zone: tzinfo) -> None:
    """Raises ``BadPolicy``."""
    example = "write for example '0 3 * * *' for each day at 3, or '*/15 8-18 * * MON-FRI'"
    if len(expression.split()) != 5:
        raise BadPolicy(f"cron {expression!r} has not five fields; {example}")
    if _next_cron_ns(expression, 0, zone) is None:
        raise BadPolicy(f"cron {expression!r} names no time that ever comes; {example}")


def _next_cron_ns(expression: str, after_ns: int, zone: tzinfo) -> int | None:
    start = datetime.fromtimestamp(after_ns // SECOND_NS, zone)
    try:
        times = CronSim(_by_the_clock(expression), start)
    except (CronSimError, ValueError, AssertionError) as wrong:
        raise BadPolicy(f"cron {expression!r}: {str(wrong) or 'not understood'}") from None
    for found in times:
        # In an hour that comes a second time, it names times of the first.
        at_ns = int(found.timestamp()) * SECOND_NS
        if at_ns > after_ns:
            return at_ns
    return None


def _last_cron_ns(expression: str, after_ns: int, now_ns: int, zone: tzinfo) -> int | None:
    """The last due time that is later than ``after_ns`` and not later than ``now_ns``, found by halving."""
    last = _next_cron_ns(expression, after_ns, zone)
    if last is None or last > now_ns:
        return None
    until_ns = now_ns
    while until_ns - last >= SECOND_NS:
        middle = (last + until_ns) // 2
        found = _next_cron_ns(expression, middle, zone)
        if found is not None and found <= now_ns:
            last = found
        else:
            until_ns = middle
    return last


def _by_the_clock(expression: str) -> str:
    """Only an expression for every hour goes by hours that pass; a library that follows Debian's cron also lets
    others do so which begin with a star, and then leaves out or repeats what a change of the clocks does."""
    minute, hour, *days = expression.split()
    if hour == "*":
        return expression
    return " ".join((_spelled(minute, "0-59"), _spelled(hour, "0-23"), *days))


def _spelled(field: str, everything: str) -> str:
    return everything + field[1:] if field.startswith("*") else field
