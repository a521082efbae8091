"""Snapshots that are taken and deleted by themselves, by a policy of their fileset.

Threads: any.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple

from idemfs.ids import FilesetId
from idemfs.node.quiesce import scheduled
from idemfs.snapshots import automatic, hooks, policy, schedule
from idemfs.snapshots.hooks import Hooks
from idemfs.snapshots.info import SnapshotInfo
from idemfs.snapshots.policy import Policy
from idemfs.snapshots.retention import Candidate, Verdict
from idemfs.snapshots.schedule import SECOND_NS
from idemfs.vfs.tree import Tree

__all__ = ["Candidate", "Hooks", "Outcome", "Policy", "Schedule", "Verdict"]


class Outcome(NamedTuple):
    """What one step of a schedule did."""

    taken: SnapshotInfo | None
    reason: str
    """Why it was taken, or the empty text."""
    deleted: list[Verdict]
    failure: str = ""
    """What hook failed: one before, and none was taken, or one after."""


class Schedule:
    """The schedule of one fileset, kept in its store; a mount of the store runs it."""

    def __init__(self, tree: Tree, fileset: FilesetId) -> None:
        self._tree = tree
        self._fileset = fileset
        self._store = tree.store

    @property
    def policy(self) -> Policy:
        """What is set, or a ``Policy()`` that does nothing."""
        with self._store.lock:
            return automatic.policy_of(self._store, self._fileset)

    def set(self, wanted: Policy) -> None:
        """Durable on return. Raises ``BadPolicy``, ``NoSpace``, ``CommitFailed``."""
        automatic.set_policy(self._store, self._fileset, wanted)

    @property
    def hooks(self) -> Hooks:
        """Commands around each snapshot that the schedule takes; they stay in this store, also when it replicates."""
        return hooks.hooks_of(self._store, self._fileset)

    def set_hooks(self, wanted: Hooks) -> None:
        """Durable on return. Raises ``BadPolicy``, ``NoSpace``, ``CommitFailed``."""
        hooks.set_hooks(self._store, self._fileset, wanted)

    def clear(self) -> None:
        """No snapshot is taken or deleted by itself any more, and no hook is run."""
        self.set(Policy())
        self.set_hooks(Hooks())

    def next_due(self) -> datetime | None:
        """When the clock makes the next snapshot due, in the zone of the policy; a time that is past: it is now."""
        at_ns = automatic.next_due_ns(self._store, self._fileset)
        if at_ns is None:
            return None
        return datetime.fromtimestamp(at_ns // SECOND_NS, UTC).astimezone(policy.zone_of(self.policy.zone))

    def plan(self, rules: Policy | None = None) -> list[Verdict]:
        """What ``prune`` would do with each snapshot, oldest first; or what it would do by other ``rules``."""
        if rules is not None:
            schedule.check_policy(rules)
        return automatic.plan_retention(self._tree.active, self._fileset, rules)

    def bytes_freed(self, verdicts: list[Verdict]) -> int:
        """What the host gets back when these verdicts are carried out: extents in whole sectors."""
        return automatic.bytes_freed(self._tree.active, self._fileset, verdicts)

    def prune(self, stops: Callable[[], bool] = lambda: False) -> list[Verdict]:
        """Delete what no rule keeps, oldest first; what was deleted. Raises ``NoSpace``, ``CommitFailed``."""
        return automatic.prune(self._tree.active, self._fileset, stops)

    def run_due(self) -> Outcome:
        """Take the snapshot that is due, if one is, with its hooks, and prune. Raises ``NoSpace``, ``CommitFailed``."""
        run = automatic.run_due_of(self._tree.active, self._fileset, quiesce=scheduled(self._store))
        info = SnapshotInfo(run.taken, self._store.catalog.filesets[run.fileset]) if run.taken else None
        return Outcome(info, run.reason, run.deleted, run.failure)
