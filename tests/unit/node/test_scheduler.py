"""The thread that runs schedules: it works when it is woken, and a failure neither ends it nor is lost."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator

import pytest

from idemfs import FileSystem
from idemfs.api.schedule import Policy
from idemfs.format import keys
from idemfs.ids import ROOT_FILESET
from idemfs.node.scheduler import Scheduler
from idemfs.testing.builders import memory_store
from idemfs.testing.clock import Simulated
from idemfs.vfs.tree import Tree

WAIT_SECONDS = 30


class Heard(logging.Handler):
    """Tells of a failure that was logged."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.happened = threading.Event()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())
        self.happened.set()


@pytest.fixture
def heard() -> Iterator[Heard]:
    handler = Heard()
    log = logging.getLogger("idemfs.schedule")
    log.addHandler(handler)
    yield handler
    log.removeHandler(handler)


def test_it_takes_and_prunes_when_woken_and_goes_on_after_a_failure(heard: Heard) -> None:
    clock = Simulated()
    store = memory_store(clock=clock)
    fs = FileSystem(Tree(store))
    fs.snapshots.schedule.set(Policy(every_seconds=3600, keep_last=1))
    deleted = threading.Event()
    scheduler = Scheduler(fs.tree, deleted.set)
    scheduler.start()
    try:
        for turn in range(3):
            count = 1 if turn else 0
            assert len(fs.snapshots) == count
            deleted.clear()
            clock.advance(3600)
            fs.write_bytes("/f", b"%d" % turn)
            if not turn:
                fs.snapshots.schedule.run_due()
                continue
            scheduler.wake()
            assert deleted.wait(WAIT_SECONDS)
        _put_policy(fs, b"no JSON")
        scheduler.wake()
        assert heard.happened.wait(WAIT_SECONDS) and "damaged" in heard.texts[0]
        deleted.clear()
        _put_policy(fs, b'{"every_seconds": 60, "keep_last": 1}')
        clock.advance(3600)
        scheduler.wake()
        assert deleted.wait(WAIT_SECONDS)
    finally:
        scheduler.close()
    count = len(fs.snapshots)
    clock.advance(3600)
    scheduler.wake()
    assert len(fs.snapshots) == count
    fs.close()


def _put_policy(fs: FileSystem, value: bytes) -> None:
    store = fs.tree.store
    with store.lock:
        store.admit(1, 1000)
        store.small.put(keys.policy(ROOT_FILESET), value)
        store.commit()


def test_one_that_was_never_started_can_be_closed() -> None:
    Scheduler(Tree(memory_store()), lambda: None).close()
