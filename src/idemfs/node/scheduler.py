"""The thread that takes snapshots when they are due, and prunes, in the process that owns a store.

It sleeps until the next due time, at most a minute (clocks are set, hosts are suspended), and without
any policy until it is woken. A failure is logged and tried again; it never ends the process.

Threads: ``close`` waits for a deletion under way, one snapshot at most, so that the store can be closed after it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from idemfs.errors import IdemfsError
from idemfs.ids import FilesetId
from idemfs.node.bell import Bell
from idemfs.node.log import about
from idemfs.node.quiesce import scheduled
from idemfs.snapshots import automatic, schedule
from idemfs.vfs.tree import Tree

CHECK_SECONDS = 60.0
"""Space is looked at, and a clock that was set is noticed, this often."""
MEASURE_SECONDS = 5.0
"""How often it is measured what has changed, for policies that ask for it."""
RETRY_SECONDS = 60.0
_PAUSE_SECONDS = 0.01
_MEASURE_SHARE = 20
"""Between two such measurements it rests this many times as long as one takes."""

log = logging.getLogger("idemfs.schedule")


class Scheduler:
    """Runs the policies of all filesets of a store from ``start`` to ``close``."""

    def __init__(self, tree: Tree, deleted: Callable[[], None], name: str | None = None) -> None:
        """``deleted`` is called after snapshots were. ``name``: of the store, in what is logged."""
        self._tree = tree
        self._store = tree.store
        self._deleted = deleted
        self._name = name
        self._quiesce = scheduled(tree.store)
        self._bell = Bell()
        self._thread = threading.Thread(target=self._run, name="idemfs-schedule", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """A policy, or the clock, may be another one."""
        self._bell.ring()

    def close(self) -> None:
        self._bell.end()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        with about(store=self._name):
            self._serve()

    def _serve(self) -> None:
        while not self._bell.is_over:
            self._bell.wait(self._turn())

    def _turn(self) -> float | None:
        """Do what is to be done now; after how many seconds there may be more, None: when woken."""
        try:
            waits = [self._turn_of(fileset) for fileset in automatic.planned_filesets(self._store)]
            return min(waits, default=None)
        except Exception:
            log.exception("the schedules cannot be read")
            return RETRY_SECONDS

    def _turn_of(self, fileset: FilesetId) -> float:
        begun = self._store.clock.monotonic_seconds()
        try:
            run = automatic.run_due_of(self._tree.active, fileset, lambda: self._bell.is_over, self._quiesce)
            if run.failure:
                log.error("a hook of the schedule of fileset %d failed: %s", fileset, run.failure)
            if run.taken is not None:
                log.info("took snapshot %s (%s)", run.taken.name, run.reason)
            for verdict in run.deleted:
                log.info("deleted snapshot %s: %s", verdict.snapshot.name, verdict.reason)
            if run.deleted:
                self._deleted()
            return self._rest(fileset, self._store.clock.monotonic_seconds() - begun)
        except (IdemfsError, OSError) as error:
            log.error("the schedule of fileset %d failed, and is tried again: %s", fileset, error)
        except Exception:
            log.exception("the schedule of fileset %d failed, and is tried again", fileset)
        return RETRY_SECONDS

    def _rest(self, fileset: FilesetId, worked: float) -> float:
        """Seconds until there may be something to do for a fileset, after so many seconds of work."""
        seconds = CHECK_SECONDS
        rules = automatic.policy_of(self._store, fileset)
        if rules.after_bytes and schedule.takes(rules):
            seconds = max(MEASURE_SECONDS, min(worked * _MEASURE_SHARE, CHECK_SECONDS))
        at_ns = automatic.next_due_ns(self._store, fileset)
        if at_ns is not None:
            seconds = min(seconds, max(_PAUSE_SECONDS, (at_ns - self._store.clock.now_ns()) / 1e9))
        return seconds
