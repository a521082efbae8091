"""Which of the snapshots that the other side lacks a link sends: a pure decision.

A link that has fallen behind does not send each of them. It sends one change set to the newest, and on the way only
those that would be kept there: what users named, hold or have locked, and what the retention of the other side keeps.
Snapshots that were taken at one instant go together or not at all.

What is there already has no say: rules of retention go from the newest to the older ones, and all that is there is
older. What is half received is finished first, however far behind that is: thrown away each time, a large change
set would never arrive.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from typing import NamedTuple

from idemfs.ids import Guid
from idemfs.replication.plan import Plan, Step
from idemfs.snapshots import retention
from idemfs.snapshots.policy import Policy
from idemfs.snapshots.retention import Candidate

NAME_PREFIX = "link-"
AUTOMATIC = re.compile(re.escape(NAME_PREFIX) + r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\dZ(-\d+)?")
"""All of the name of a snapshot that a link took. Such a one is nobody's: it goes when a newer one is on both sides."""


def name_of(now_ns: int) -> str:
    """The name of a snapshot that a link takes now."""
    return NAME_PREFIX + datetime.fromtimestamp(now_ns // 1_000_000_000, UTC).strftime("%Y-%m-%dT%H-%M-%SZ")


def is_own(name: str) -> bool:
    """Whether a link took the snapshot of this name."""
    return AUTOMATIC.fullmatch(name) is not None


def rules_of(keep: Policy) -> Policy:
    """``keep`` as the rules of the other side: about what links took, too. Without a number, of that nothing stays."""
    pattern = f"^{AUTOMATIC.pattern}$"
    if keep.prune_matching:
        pattern = f"(?:{keep.prune_matching})|(?:{pattern})"
    return keep._replace(prune_matching=pattern)


def goes(keep: Policy, snapshots: Sequence[Candidate], now_ns: int, zone: tzinfo, free_bytes: int) -> list[Candidate]:
    """What need not stay on the other side; ``snapshots`` are all of one fileset there, oldest first."""
    going: list[Candidate] = []
    if not retention.limits_number(keep):
        own = [each for each in snapshots[:-1] if is_own(each.name)]
        going = [each for each in own if not _is_needed(each, now_ns)]
    left = [each for each in snapshots if each not in going]
    verdicts = retention.plan(rules_of(keep), left, now_ns=now_ns, zone=zone, free_bytes=free_bytes)
    return going + [each.snapshot for each in verdicts if not each.keeps]


def _is_needed(each: Candidate, now_ns: int) -> bool:
    return bool(each.holders or each.is_base or each.diverged or each.locked_until_ns > now_ns)


class Lane(NamedTuple):
    """One fileset: how to bring the other side up to date, and what is known of each target, in order.

    ``begun``: the target of which the other side has a part, from the base that both have.
    """

    plan: Plan
    targets: Sequence[Candidate]
    begun: Guid | None = None


def collapse(lanes: Sequence[Lane], keep: Policy, now_ns: int, zone: tzinfo) -> list[Plan]:
    """The plans of ``lanes`` with the steps that are left. Holders that are stores are not to be among the holders."""
    # Before this, all that is to be sent on the way has been: what was begun comes next.
    floor_ns = max((_begun_ns(lane) for lane in lanes), default=0)
    instants = {
        each.created_ns
        for lane in lanes
        for each in _wanted(lane.targets, keep, now_ns, zone)
        if each.created_ns >= floor_ns
    }
    needed = _newest(lanes) | _origins(lanes)
    instants |= {each.created_ns for guid, each in _by_guid(lanes).items() if guid in needed}
    return [_through(lane, instants) for lane in lanes]


def _wanted(targets: Sequence[Candidate], keep: Policy, now_ns: int, zone: tzinfo) -> Sequence[Candidate]:
    going = {each.id for each in goes(keep._replace(keep_free_bytes=0), targets, now_ns, zone, 0)}
    return [each for each in targets if each.id not in going]


def _by_guid(lanes: Sequence[Lane]) -> Mapping[Guid, Candidate]:
    return {step.target.guid: each for lane in lanes for step, each in zip(lane.plan.steps, lane.targets, strict=True)}


def _begun_ns(lane: Lane) -> int:
    return next(
        (
            each.created_ns
            for step, each in zip(lane.plan.steps, lane.targets, strict=True)
            if step.target.guid == lane.begun
        ),
        0,
    )


def _newest(lanes: Sequence[Lane]) -> set[Guid]:
    begun = {lane.begun for lane in lanes if lane.begun is not None}
    return {lane.plan.steps[-1].target.guid for lane in lanes if lane.plan.steps} | begun


def _origins(lanes: Sequence[Lane]) -> set[Guid]:
    """Snapshots of other filesets from which clones begin: these are to be there before."""
    return {
        lane.plan.steps[0].base.guid
        for lane in lanes
        if lane.plan.common is None and lane.plan.steps and lane.plan.steps[0].base is not None
    }


def _through(lane: Lane, instants: Collection[int]) -> Plan:
    """The plan of a lane that stops only at these instants."""
    targets = [
        step.target for step, each in zip(lane.plan.steps, lane.targets, strict=True) if each.created_ns in instants
    ]
    bases = [step.base for step in lane.plan.steps[:1]] + targets
    return Plan(lane.plan.common, tuple(Step(base, target) for base, target in zip(bases, targets, strict=False)))
