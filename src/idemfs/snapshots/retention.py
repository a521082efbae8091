"""Which snapshots are kept, and why. Pure: a policy and what is known of the snapshots in; a verdict for each out.

Whatever the rules say, these stay: the newest snapshot and the newest automatic one; those that are held or
locked; what a standby received last; what diverged and nobody has released; and those that are not subject to the
rules, because they were not taken automatically. Without a rule that keeps a number of them or those of a name, all
stay, but for want of space.

Rules go by the order in which snapshots were taken, and count hours, days … that have one, not those that have
passed: a clock that jumps deletes nothing.

Threads: any; everything here is values.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, tzinfo
from typing import NamedTuple

from idemfs.snapshots.policy import Policy
from idemfs.snapshots.schedule import NAME_PREFIX, SECOND_NS

AUTOMATIC = re.compile(re.escape(NAME_PREFIX) + r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\dZ(-\d+)?")
"""All of the name of a snapshot that the schedule took, or ``replicate``."""


class Candidate(NamedTuple):
    """What the rules look at."""

    id: int
    name: str
    created_ns: int
    owned_bytes: int = 0
    data_bytes: int = 0
    """Of what it owns, that which the host can get back."""
    holders: tuple[str, ...] = ()
    locked_until_ns: int = 0
    is_base: bool = False
    """A standby shows it, and cannot do without."""
    diverged: str = ""
    """Why it stays until a user releases what diverged; empty when it need not."""


class Verdict(NamedTuple):
    """What becomes of one snapshot."""

    snapshot: Candidate
    keeps: bool
    reason: str
    for_space: bool = False
    """It goes only because the host has too little free space."""


def plan(
    policy: Policy, snapshots: Sequence[Candidate], *, now_ns: int, zone: tzinfo, free_bytes: int
) -> list[Verdict]:
    """A verdict for each snapshot; ``snapshots`` and what is returned are in the order of ids, oldest first."""
    protected = _protected(policy, snapshots, now_ns)
    kept = _kept(policy, snapshots, zone)
    has_rules = limits_number(policy)
    verdicts = []
    for each in snapshots:
        reasons = protected.get(each.id, []) + kept.get(each.id, [])
        if reasons:
            verdicts.append(Verdict(each, True, ", ".join(reasons)))
        elif has_rules:
            verdicts.append(Verdict(each, False, "no rule keeps it"))
        else:
            verdicts.append(Verdict(each, True, "no rule limits their number"))
    return _for_space(policy, verdicts, protected, free_bytes)


def limits_number(policy: Policy) -> bool:
    """Whether there is a rule that, by keeping some, lets others go."""
    return bool(policy.keep_matching) or any(_counts(policy))


def deletes(policy: Policy) -> bool:
    """Whether anything can ever go."""
    return limits_number(policy) or policy.keep_free_bytes > 0


def is_subject(policy: Policy, name: str) -> bool:
    """Whether the rules are about a snapshot of this name."""
    return AUTOMATIC.fullmatch(name) is not None or (
        bool(policy.prune_matching) and re.search(policy.prune_matching, name) is not None
    )


def _counts(policy: Policy) -> tuple[int, ...]:
    return (
        policy.keep_last,
        policy.keep_hourly,
        policy.keep_daily,
        policy.keep_weekly,
        policy.keep_monthly,
        policy.keep_yearly,
    )


# -- what no rule may touch --------------------------------------------------------------------------


def _protected(policy: Policy, snapshots: Sequence[Candidate], now_ns: int) -> dict[int, list[str]]:
    """Ids of those that stay whatever the rules say, with the reason."""
    reasons = {each.id: [reason] for each in snapshots if (reason := _protection(policy, each, now_ns))}
    subject = [each.id for each in snapshots if is_subject(policy, each.name)]
    if subject:
        reasons.setdefault(subject[-1], ["the newest automatic one"])
    if snapshots:
        reasons.setdefault(snapshots[-1].id, ["the newest"])
    return reasons


def _protection(policy: Policy, each: Candidate, now_ns: int) -> str:
    if each.locked_until_ns > now_ns:
        return f"locked until {_show_time(each.locked_until_ns)}"
    if each.holders:
        return f"held by {', '.join(each.holders)}"
    if each.is_base:
        return "what this standby received last"
    if each.diverged:
        return each.diverged
    if not is_subject(policy, each.name):
        return "not taken automatically"
    if policy.keep_matching and re.search(policy.keep_matching, each.name):
        return f"its name matches {policy.keep_matching}"
    return ""


# -- what rules keep ---------------------------------------------------------------------------------


def _kept(policy: Policy, snapshots: Sequence[Candidate], zone: tzinfo) -> dict[int, list[str]]:
    """Ids of those that a count keeps, with the rules that do."""
    newest_first = [each for each in reversed(snapshots) if is_subject(policy, each.name)]
    reasons: dict[int, list[str]] = {}
    for number, each in enumerate(newest_first[: policy.keep_last], 1):
        reasons.setdefault(each.id, []).append(f"last {number} of {policy.keep_last}")
    for count, rule, bucket in zip(_counts(policy)[1:], _RULES, _BUCKETS, strict=True):
        for each, name in _newest_of_each(newest_first, count, bucket, zone):
            reasons.setdefault(each.id, []).append(f"{rule} {name}")
    return reasons


def _newest_of_each(
    newest_first: Iterable[Candidate], count: int, bucket: Callable[[datetime], str], zone: tzinfo
) -> list[tuple[Candidate, str]]:
    """The newest snapshot of each of the ``count`` newest buckets, with the name of its bucket."""
    found: dict[str, Candidate] = {}
    for each in newest_first:
        if len(found) >= count:
            break
        found.setdefault(bucket(datetime.fromtimestamp(each.created_ns // SECOND_NS, zone)), each)
    return [(each, name) for name, each in found.items()]


def _hour(time: datetime) -> str:
    # With the offset: an hour that a change of the clocks repeats is two.
    return time.strftime("%Y-%m-%dT%H%z")


def _day(time: datetime) -> str:
    return time.strftime("%Y-%m-%d")


def _week(time: datetime) -> str:
    year, week, _ = time.isocalendar()
    return f"{year}-W{week:02}"


def _month(time: datetime) -> str:
    return time.strftime("%Y-%m")


def _year(time: datetime) -> str:
    return time.strftime("%Y")


_RULES = ("hourly", "daily", "weekly", "monthly", "yearly")
_BUCKETS = (_hour, _day, _week, _month, _year)


# -- space -------------------------------------------------------------------------------------------


def _for_space(
    policy: Policy, verdicts: list[Verdict], protected: dict[int, list[str]], free_bytes: int
) -> list[Verdict]:
    """Let the oldest go too, while the host will have too little free space."""
    missing = policy.keep_free_bytes - free_bytes - sum(each.snapshot.data_bytes for each in verdicts if not each.keeps)
    changed = []
    for verdict in verdicts:
        if missing > 0 and verdict.keeps and verdict.snapshot.id not in protected:
            missing -= verdict.snapshot.data_bytes
            reason = f"the host has less than {policy.keep_free_bytes} bytes free"
            verdict = Verdict(verdict.snapshot, False, reason, for_space=True)
        changed.append(verdict)
    return changed


def _show_time(time_ns: int) -> str:
    return datetime.fromtimestamp(time_ns // SECOND_NS, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
