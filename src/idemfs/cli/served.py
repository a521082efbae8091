"""What the HTTPS API of ``serve`` has done: the same as commands do, on stores that the process owns.

Threads: any; each call is on its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from idemfs.api.filesystem import FileSystem
from idemfs.cli.plans import describe, risk_bytes, show_held
from idemfs.cli.recording import recorded
from idemfs.failover import decisions
from idemfs.failover.driver import carry_out
from idemfs.failover.facts import Decision, Plan, Refusal, Risk
from idemfs.failover.places import open_stage
from idemfs.failover.stage import Stage
from idemfs.node import connecting, history
from idemfs.node.http.answers import PlanAnswer, RiskAnswer
from idemfs.node.http.gate import Caller
from idemfs.node.owner import OwnedStore
from idemfs.node.peer import end_sessions, serve_peer
from idemfs.replication.channel import Channel
from idemfs.snapshots.info import SnapshotInfo
from idemfs.snapshots.usage import FilesetInfo

_DECIDE: dict[str, Callable[[Stage], Decision]] = {
    "switchover": lambda stage: decisions.switchover(*stage.facts()),
    "failover": lambda stage: decisions.failover(*stage.facts()),
    "failback": lambda stage: decisions.failback(*stage.facts()),
}


class ServedActions:
    """What callers order."""

    def snapshots(self, store: OwnedStore) -> list[SnapshotInfo]:
        files = FileSystem(store.tree)
        found = [info for fileset in files.filesets for info in files.filesets[fileset.name].snapshots]
        return sorted(found, key=lambda info: info.id)

    def filesets(self, store: OwnedStore) -> list[FilesetInfo]:
        return list(FileSystem(store.tree).filesets)

    def create_snapshots(self, store: OwnedStore, names: Sequence[str], by: Caller) -> list[SnapshotInfo]:
        try:
            return FileSystem(store.tree).snapshots.create_all(*names)
        finally:
            store.command_done(["snapshot", "create"])

    def delete_snapshot(self, store: OwnedStore, name: str, by: Caller) -> None:
        try:
            FileSystem(store.tree).snapshots.delete(name)
        finally:
            store.command_done(["snapshot", "delete"])

    def change_roles(self, store: OwnedStore, command: str, by: Caller, *, dry_run: bool) -> PlanAnswer:
        if command == "failover" and not dry_run:
            end_sessions(store.path)
        with (
            history.acting(_name(by)),
            open_stage(store.path, readonly=dry_run, connect=connecting.connect) as stage,
        ):
            plan = _DECIDE[command](stage)
            if isinstance(plan, Refusal):
                raise plan.error
            shown = _shown(plan, stage, done=not dry_run)
            if dry_run:
                return shown
            try:
                with recorded(plan, stage.paths) as recording:
                    for done in carry_out(plan, stage):
                        recording.note(done)
            finally:
                store.command_done([command])
            return shown

    def serve_peer(self, path: str, channel: Channel, by: Caller) -> None:
        with history.acting(_name(by)):
            serve_peer(channel, path)


def _name(caller: Caller) -> str:
    return f"{'certificate' if caller.is_node else 'token'} {caller.name}"


def _shown(plan: Plan, stage: Stage, *, done: bool) -> PlanAnswer:
    return PlanAnswer(
        command=plan.command,
        done=done,
        source=plan.source,
        target=plan.target,
        common=show_held(plan.common) if plan.common else None,
        risks=[_risk(risk, stage) for risk in plan.risks],
        warning=plan.warning,
        notes=list(plan.notes),
        steps=[describe(step, stage) for step in plan.steps],
    )


def _risk(risk: Risk, stage: Stage) -> RiskAnswer:
    return RiskAnswer(
        path=risk.path,
        why=risk.why,
        fileset=risk.fileset_name or None,
        snapshots=[held.name for held in risk.snapshots],
        unsaved_changes=risk.unsaved_changes,
        bytes=risk_bytes(risk, stage) if risk.is_known else None,
    )
