"""What the HTTPS API of ``serve`` has done: the same as commands do, on stores that the process owns.

Threads: any; each call is on its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from idemfs.api.diverged import DivergedInfo
from idemfs.api.drills import DrillInfo
from idemfs.api.filesystem import FileSystem
from idemfs.cli.plans import describe, risk_bytes, show_held
from idemfs.cli.recording import recorded
from idemfs.failover import decisions
from idemfs.failover.driver import carry_out
from idemfs.failover.facts import Decision, Plan, Refusal, Risk
from idemfs.failover.places import open_stage
from idemfs.failover.stage import Stage
from idemfs.node import connecting, history
from idemfs.node.history import Event
from idemfs.node.http.answers import DivergedAnswer, DrillAnswer, PlanAnswer, RiskAnswer, format_time
from idemfs.node.http.gate import Caller
from idemfs.node.owner import OwnedStore
from idemfs.node.peer import end_sessions, serve_peer
from idemfs.replication.channel import Channel
from idemfs.snapshots.info import SnapshotInfo
from idemfs.snapshots.usage import FilesetInfo

_DECIDE: dict[str, Callable[[Stage, str | None], Decision]] = {
    "switchover": lambda stage, to: decisions.switchover(*stage.facts(), to=stage.find(to) if to else None),
    "failover": lambda stage, _: decisions.failover(*stage.facts()),
    "failback": lambda stage, _: decisions.failback(*stage.facts()),
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

    def drills(self, store: OwnedStore) -> list[DrillAnswer]:
        return [_drill(info) for info in FileSystem(store.tree).drills]

    def start_drill(self, store: OwnedStore, name: str | None, snapshot: str | None, by: Caller) -> DrillAnswer:
        drills = FileSystem(store.tree).drills
        try:
            info = drills.start(name, snapshot=snapshot).info()
            self._record(store, Event(what="drill start", snapshot=info.snapshot, target=info.name), by)
            return _drill(info)
        finally:
            store.command_done(["drill", "start"])

    def end_drill(self, store: OwnedStore, name: str, by: Caller) -> None:
        drills = FileSystem(store.tree).drills
        try:
            info = drills[name].info()
            drills.end(name)
            self._record(store, Event(what="drill end", target=name, bytes=info.active_bytes), by)
        finally:
            store.command_done(["drill", "end"])

    def diverged(self, store: OwnedStore) -> list[DivergedAnswer]:
        return [_diverged(info) for info in FileSystem(store.tree).diverged]

    def release_diverged(self, store: OwnedStore, name: str, by: Caller, *, delete: bool) -> None:
        try:
            FileSystem(store.tree).diverged.release(name, delete=delete)
            what = f"diverged release{' --delete' if delete else ''}"
            self._record(store, Event(what=what, snapshot=name), by)
        finally:
            store.command_done(["diverged", "release"])

    def _record(self, store: OwnedStore, event: Event, by: Caller) -> None:
        with history.acting(_name(by)):
            history.record(store.path, event)

    def change_roles(
        self, store: OwnedStore, command: str, by: Caller, *, dry_run: bool, to: str | None = None
    ) -> PlanAnswer:
        end_others = partial(end_sessions, store.path) if command == "failover" else None
        with (
            history.acting(_name(by)),
            open_stage(store.path, readonly=dry_run, connect=connecting.connect, end_others=end_others) as stage,
        ):
            plan = _DECIDE[command](stage, to)
            if isinstance(plan, Refusal):
                raise plan.error
            shown = _shown(plan, stage, done=not dry_run)
            if dry_run:
                return shown
            try:
                with recorded(plan, stage) as recording:
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


def _drill(info: DrillInfo) -> DrillAnswer:
    return DrillAnswer(
        name=info.name,
        started=format_time(info.started_ns),
        snapshot=info.snapshot,
        snapshot_deleted=info.snapshot_deleted,
        filesets=list(info.filesets),
        active_bytes=info.active_bytes,
    )


def _diverged(info: DivergedInfo) -> DivergedAnswer:
    return DivergedAnswer(
        name=info.name,
        epoch=info.epoch,
        since=info.since,
        created=format_time(info.created_ns),
        files=info.files,
        changed_bytes=info.changed_bytes,
        owned_bytes=info.owned_bytes,
    )
