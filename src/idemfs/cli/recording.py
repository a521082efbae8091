"""What a command that moved data or roles leaves in the history of each store that it can reach as files."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from idemfs.cli.failures import message

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from idemfs.failover.driver import Done
    from idemfs.failover.facts import Plan
    from idemfs.ids import Guid

_REPLICATE = "replicate"


class Recording:
    """One command while it is carried out."""

    def __init__(self, plan: Plan, paths: Mapping[Guid, str]) -> None:
        """``paths``: of the stores that take part."""
        self._plan = plan
        self._paths = paths
        self._recorders = [
            path for path in dict.fromkeys(paths.values()) if os.path.exists(os.path.join(path, "superblock"))
        ]
        self._bytes = 0
        self._sent: str | None = None
        self._epoch: int | None = None
        self._seconds = 0.0

    def note(self, done: Done) -> None:
        """A step was carried out; if it sent something, that is an event."""
        from idemfs.failover.facts import Promote, Send

        self._seconds += done.seconds
        if isinstance(done.step, Promote):
            self._epoch = done.step.epoch
        if isinstance(done.step, Send) and done.report is not None and done.report.transfers:
            self._bytes += done.report.bytes
            source, target = (self._paths.get(guid, guid.hex()) for guid in (done.step.source, done.step.target))
            self._sent = done.report.transfers[-1].target
            self._record("transfer", source, target, self._sent, done.report.bytes, done.seconds)

    def end(self, outcome: str) -> None:
        if self._plan.command != _REPLICATE or outcome != "done":
            plan = self._plan
            snapshot = self._sent or (plan.common.name if plan.common else None)
            self._record(plan.command, plan.source, plan.target, snapshot, self._bytes, self._seconds, outcome)

    def _record(
        self,
        what: str,
        source: str,
        target: str,
        snapshot: str | None,
        size: int,
        seconds: float,
        outcome: str = "done",
    ) -> None:
        from idemfs.node.history import Event, record

        for path in self._recorders:
            record(
                path,
                Event(
                    what=what,
                    source=_absolute(source),
                    target=_absolute(target) if target else None,
                    snapshot=snapshot,
                    bytes=size,
                    seconds=round(seconds, 3),
                    epoch=self._epoch,
                    outcome=outcome,
                ),
            )


def _absolute(address: str) -> str:
    return address if "://" in address else os.path.abspath(address)


@contextmanager
def recorded(plan: Plan, paths: Mapping[Guid, str]) -> Iterator[Recording]:
    """Inside, ``plan`` is carried out, and each step noted, on stores at these paths. A failure is recorded too."""
    recording = Recording(plan, paths)
    try:
        yield recording
    except BaseException as error:
        recording.end((message(error) or type(error).__name__).removeprefix("idemfs: "))
        raise
    recording.end("done")
