"""What the commands share that move data or roles: show the plan, ask, carry it out, say what was done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from idemfs.cli.failures import Refused
from idemfs.cli.names import show_name
from idemfs.cli.render import confirm, format_size, format_time_ns

if TYPE_CHECKING:
    from argparse import Namespace

    from idemfs.failover.driver import Done
    from idemfs.failover.facts import Decision, Held, Plan, Risk, Step
    from idemfs.failover.stage import Stage
    from idemfs.ids import Guid

_NAMES_SHOWN_MAX = 5


def perform(
    options: Namespace,
    decide: Callable[[Stage], Decision],
    question: Callable[[Plan], str] | None = None,
    end_others: Callable[[], None] | None = None,
) -> None:
    """Plan, and with ``--dry-run`` print the plan; otherwise ask ``question``, if there is one, and do it.

    ``options``: ``store``, ``dry_run``, and ``yes`` where a question is asked. ``end_others``: see ``open_stage``. A
    refusal is raised.
    """
    from idemfs.cli.recording import recorded
    from idemfs.failover.driver import carry_out
    from idemfs.failover.facts import Refusal
    from idemfs.failover.places import open_stage
    from idemfs.node.connecting import connecting_for

    connect = connecting_for(options.store)
    with open_stage(options.store, readonly=options.dry_run, connect=connect, end_others=end_others) as stage:
        decision = decide(stage)
        if isinstance(decision, Refusal):
            raise decision.error
        if options.dry_run:
            _show(decision, stage)
            return
        # A plan that is going to fail does nothing that needs consent: it only remembers that a right has ended.
        if question is not None and decision.then is None:
            _ask(decision, stage, question(decision), yes=options.yes)
        with recorded(decision, stage) as recording:
            for done in carry_out(decision, stage):
                recording.note(done)
                line = _told(done, stage, decision.command)
                if line:
                    print(show_name(line), flush=True)


def _ask(plan: Plan, stage: Stage, question: str, *, yes: bool) -> None:
    if yes:
        return
    if plan.warning:
        raise Refused(f"{plan.warning}; repeat with --yes to do it all the same")
    risks = "".join(f"At risk: {_risk(risk, stage)}. " for risk in plan.risks)
    confirm(f"{risks}{question}", yes=False)


# -- plans ---------------------------------------------------------------------------------------------


def _show(plan: Plan, stage: Stage) -> None:
    rows = [("would", plan.command), ("from", plan.source), ("to", plan.target or "-")]
    rows.append(("common", show_held(plan.common) if plan.common else "none"))
    rows += [("at risk", _risk(risk, stage)) for risk in plan.risks] or [("at risk", "nothing")]
    if plan.warning:
        rows.append(("warning", plan.warning))
    rows += [("note", note) for note in plan.notes]
    rows += [(f"step {count}", describe(step, stage)) for count, step in enumerate(plan.steps, 1)]
    if plan.then is not None:
        rows.append(("then fails", str(plan.then.strerror if isinstance(plan.then, OSError) else plan.then)))
    show_rows(rows)


def show_rows(rows: Sequence[tuple[str, str]]) -> None:
    """A plan, one line each."""
    width = max(len(name) for name, _ in rows)
    for name, text in rows:
        print(f"{name.ljust(width)}  {show_name(text)}")


def show_held(held: Held) -> str:
    return f"{held.name} ({format_time_ns(held.created_ns)})"


def risk_bytes(risk: Risk, stage: Stage) -> int:
    """Of a risk that is known."""
    return stage.party(risk.store).bytes_since(risk.since.guid if risk.since else None, risk.fileset)


def _risk(risk: Risk, stage: Stage) -> str:
    if not risk.is_known:
        return f"{risk.path} {risk.why}"
    size = risk_bytes(risk, stage)
    parts = []
    if risk.snapshots:
        names = ", ".join(held.name for held in risk.snapshots[:_NAMES_SHOWN_MAX])
        more = len(risk.snapshots) - _NAMES_SHOWN_MAX
        parts.append(f"{counted(len(risk.snapshots), 'snapshot')} ({names}{f' and {more} more' if more > 0 else ''})")
    if risk.unsaved_changes:
        parts.append("changes that are in no snapshot")
    of = f" of fileset {risk.fileset_name}" if risk.fileset_name else ""
    return f"{risk.path} has {' and '.join(parts)}{of}, {format_size(size)}: {risk.why}"


def counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


# -- steps ---------------------------------------------------------------------------------------------


def describe(step: Step, stage: Stage) -> str:
    """One step of a plan in words."""
    from idemfs.failover import facts

    path = _paths(stage)
    match step:
        case facts.Tell(store=store, epoch=epoch):
            return f"tell {path(store)} of epoch {epoch}, which ends an older right to write"
        case facts.Introduce(store=store):
            return f"tell {path(store)} where the other stores are"
        case facts.TakeSnapshot(store=store, name=name):
            return f"take snapshot {name or 'auto-TIME'} of {path(store)}, if no snapshot has its present state"
        case facts.Send(source=source, target=target):
            return f"send to {path(target)} every snapshot of {path(source)} that it lacks"
        case facts.TellPurges(source=source, target=target):
            return f"purge from snapshots of {path(target)} what was purged from those of {path(source)}"
        case facts.DropPartial(store=store):
            return f"drop what {path(store)} has half received"
        case facts.GoBack(store=store, snapshot=snapshot):
            return f"bring {path(store)} back to snapshot {stage.snapshot_name(store, snapshot)}; newer ones stay"
        case facts.Freeze(store=store):
            return f"stop writes to {path(store)}"
        case facts.AwaitLease(store=store, left_ns=left_ns):
            return f"grant no write lease any more, and wait until the last one has run out ({left_ns / 1e9:.1f} s)"
        case facts.Promote(store=store, epoch=epoch):
            return f"make {path(store)} primary of epoch {epoch}"
        case facts.Demote(store=store, epoch=epoch):
            return f"make {path(store)} a standby in epoch {epoch}"


def _paths(stage: Stage) -> Callable[[Guid], str]:
    return lambda guid: stage.paths.get(guid, guid.hex())


def _told(done: Done, stage: Stage, command: str) -> str | None:
    """One line on a step that was carried out; None when there is nothing to tell."""
    from idemfs.failover import facts

    path = _paths(stage)
    match done.step:
        case facts.TakeSnapshot(store=store):
            return f"{path(store)}: took snapshot {done.snapshot}" if done.snapshot else None
        case facts.Send(source=source, target=target) if done.report is not None:
            if not done.report.transfers:
                return f"{path(target)}: has every snapshot of {path(source)}" if command == "replicate" else None
            what = counted(len(done.report.transfers), "snapshot")
            size = format_size(done.report.bytes)
            return f"{path(source)} -> {path(target)}: {what}, {size} sent in {done.seconds:.1f} s"
        case facts.TellPurges(source=source, target=target):
            return f"{path(target)}: purged what {path(source)} had purged, in {done.seconds:.1f} s"
        case facts.DropPartial(store=store):
            return f"{path(store)}: dropped what was half received, in {done.seconds:.1f} s"
        case facts.GoBack(store=store, snapshot=snapshot):
            return f"{path(store)}: back at snapshot {stage.snapshot_name(store, snapshot)}"
        case facts.Promote(store=store, epoch=epoch):
            return f"{path(store)}: primary of epoch {epoch}"
        case facts.Demote(store=store, epoch=epoch):
            return f"{path(store)}: standby in epoch {epoch}"
    return None
