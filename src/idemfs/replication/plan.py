"""Which change sets bring a standby to the newest snapshot of its primary: a pure decision.

Snapshots are known by guid. The newest one that both sides have is where change sets can begin; from there
every snapshot that the standby lacks is sent, in order, so that it ends up with the same ones. What forbids that is
a conflict, and each kind has a way out of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from idemfs.ids import Guid


class Held(NamedTuple):
    """One complete snapshot of a side."""

    guid: Guid
    name: str


class Side(NamedTuple):
    """A store: its fileset's guid, its snapshots, oldest first, and on a standby the one that it received last.

    ``origin``, on a primary: the snapshot that the fileset is a clone of, if the standby has it, or will have it then.
    """

    fileset: Guid
    snapshots: Sequence[Held]
    base: Guid | None = None
    origin: Held | None = None


class Step(NamedTuple):
    """One change set; a base of None is a full one. The base of a clone's first one may be its origin."""

    base: Held | None
    target: Held


class Plan(NamedTuple):
    """``common``: the newest snapshot of both. No steps: the standby has all."""

    common: Held | None
    steps: tuple[Step, ...]


class Unrelated(NamedTuple):
    """The stores hold different filesets."""


class NoCommon(NamedTuple):
    """Both have snapshots, and none in common: what could be compared is gone."""

    standby: tuple[Held, ...]


class Ahead(NamedTuple):
    """The standby stands at a snapshot that its primary does not have; ``newer`` are all such since ``common``."""

    common: Held
    newer: tuple[Held, ...]


class Apart(NamedTuple):
    """The standby stands at a snapshot of both, but not at the newest one: it has to go back, or forward, to it."""

    common: Held
    base: Held


Conflict: TypeAlias = Unrelated | NoCommon | Ahead | Apart


def make_plan(primary: Side, standby: Side) -> Plan | Conflict:
    """How to bring ``standby`` up to date. ``standby.base`` None: it received nothing."""
    if primary.fileset != standby.fileset:
        return Unrelated()
    if not standby.snapshots:
        return Plan(None, _steps(primary.origin, primary.snapshots))
    there = {held.guid for held in standby.snapshots}
    ours = {held.guid for held in primary.snapshots}
    at = next((at for at in reversed(range(len(primary.snapshots))) if primary.snapshots[at].guid in there), None)
    if at is None:
        return NoCommon(tuple(standby.snapshots))
    common = primary.snapshots[at]
    if standby.base != common.guid:
        base = next((held for held in standby.snapshots if held.guid == standby.base), standby.snapshots[-1])
        if base.guid in ours:
            return Apart(common, base)
        return Ahead(common, tuple(held for held in _newer(standby.snapshots, common) if held.guid not in ours))
    return Plan(common, _steps(common, primary.snapshots[at + 1 :]))


def _steps(base: Held | None, targets: Sequence[Held]) -> tuple[Step, ...]:
    bases = [base, *targets]
    return tuple(Step(base, target) for base, target in zip(bases, targets, strict=False))


def _newer(snapshots: Sequence[Held], than: Held) -> Sequence[Held]:
    at = next(at for at, held in enumerate(snapshots) if held.guid == than.guid)
    return snapshots[at + 1 :]


def explain(conflict: Conflict) -> str:
    """What is in the way, and what to do, in one line."""
    match conflict:
        case Unrelated():
            return "the stores are not related: they hold different filesets"
        case NoCommon():
            return (
                "the standby has snapshots, but none that its primary has, so there is nothing to compare with; "
                "'idemfs standby add STORE PEER --anew' puts them aside and fills it again, or make a new standby"
            )
        case Ahead(common=common, newer=newer):
            names = ", ".join(held.name for held in newer) or "changes"
            return (
                f"the standby has what its primary lacks since snapshot {common.name}: {names}; 'idemfs failback' "
                "keeps that in snapshots and makes it follow again"
            )
        case Apart(common=common, base=base):
            return (
                f"the standby is at snapshot {base.name}, and the newest one of both is {common.name}; "
                "'idemfs failback' makes it follow from there"
            )
