"""Carries plans out, one step after the other.

Each step is durable when it is done. When a step fails, those before it stay done; the command is repeated and plans
from what it finds.

Threads: one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from idemfs.failover import addresses, grants, records
from idemfs.failover.facts import (
    AwaitLease,
    Demote,
    DropPartial,
    Freeze,
    Frozen,
    GoBack,
    Introduce,
    Plan,
    Promote,
    Send,
    Step,
    TakeSnapshot,
    Tell,
    TellPurges,
)
from idemfs.failover.observe import guid_of
from idemfs.failover.stage import Stage
from idemfs.ids import Guid
from idemfs.replication import link


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """One step that was carried out: how long it took; the name of the snapshot that it took, or what was sent."""

    step: Step
    seconds: float
    snapshot: str | None = None
    report: link.Report | None = None


def carry_out(plan: Plan, stage: Stage, progress: link.Progress | None = None) -> Iterator[Done]:
    """Do the steps of ``plan``, each when its result is asked for. At the end raises ``plan.then``, if there is one."""
    clock = stage.me.store.clock
    was_taking_over = stage.me.is_taking_over
    try:
        for step in plan.steps:
            start = clock.monotonic_seconds()
            snapshot, report = _do(step, stage, progress)
            yield Done(step=step, seconds=clock.monotonic_seconds() - start, snapshot=snapshot, report=report)
    finally:
        stage.me.is_taking_over = was_taking_over
    if plan.then is not None:
        raise plan.then


def _do(step: Step, stage: Stage, progress: link.Progress | None) -> tuple[str | None, link.Report | None]:
    match step:
        case Tell(store=guid, epoch=epoch):
            stage.party(guid).tell(epoch)
        case Introduce(store=guid):
            introduce(stage, guid)
        case TakeSnapshot(store=guid, name=name):
            return stage.party(guid).take_snapshot(name), None
        case Send(source=source, target=target):
            return None, stage.party(source).send_to(stage.party(target), progress)
        case TellPurges(source=source, target=target):
            stage.party(target).purge(stage.party(source).purges())
        case DropPartial(store=guid):
            stage.party(guid).drop_partials()
        case GoBack(store=guid, snapshot=snapshot):
            stage.party(guid).go_back(snapshot)
        case Freeze(store=guid, peer=peer, epoch=epoch):
            stage.party(peer).refuse_without_room()
            stage.party(guid).freeze(Frozen(peer=peer, epoch=epoch))
        case AwaitLease(store=guid):
            assert guid == guid_of(stage.me), "who takes over is the store of the command"
            grants.await_grants(stage.me)
        case Promote(store=guid, epoch=epoch, after=after):
            stage.party(guid).promote(epoch, stage.party(after).next_numbers() if after else None)
        case Demote(store=guid, epoch=epoch, base=base, others=others):
            stage.party(guid).demote(epoch, base, others)
    return None, None


def introduce(stage: Stage, guid: Guid) -> None:
    """A peer that knows all others can see who took over, and ask them before it takes over itself."""
    me = guid_of(stage.me)
    members = records.get_members(stage.me.store)
    own = next((member.path for member in members if member.guid == me), stage.paths[me])
    if not addresses.is_remote(own):
        own = addresses.absolute(stage.paths[me])
    stage.party(guid).commit_members(records.with_member(members, me, own))
