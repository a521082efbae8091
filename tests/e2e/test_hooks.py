"""Commands before and after a snapshot: those after it run whatever happened."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import idemfs as library
from idemfs.api.schedule import Policy
from idemfs.errors import HookFailed, SnapshotExists
from idemfs.node.quiesce import ENDING, quiesced
from idemfs.store import files
from idemfs.testing.clock import Simulated
from idemfs.vfs.tree import Tree
from tests.e2e.program import done, idemfs, rows

LAST_YEAR_NS = int(datetime(2025, 1, 1, tzinfo=UTC).timestamp()) * 10**9


@pytest.fixture(autouse=True)
def none_is_ignored() -> Iterator[None]:
    """Whoever runs the tests may ignore signals, as ``nohup`` and shells do; what they start would ignore them too."""
    ignored = [number for number in ENDING if signal.getsignal(number) == signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    done("init", tmp_path / "store")
    return tmp_path / "store"


def log(store: Path, word: str) -> str:
    return f"echo {word} $IDEMFS_HOOK $IDEMFS_RESULT $IDEMFS_SNAPSHOTS >> {store.parent}/log"


def logged(store: Path) -> list[str]:
    return (store.parent / "log").read_text().splitlines()


def names(store: Path) -> list[str]:
    return [row["name"] for row in rows("snapshot", "list", store)]


def create(store: Path, *words: str) -> tuple[int, str]:
    hooks = ["--before", log(store, "a"), "--after", log(store, "A"), "--after", log(store, "B")]
    ended = idemfs("snapshot", "create", store, "one", *hooks, *words)
    return ended.status, ended.err


def started(*words: str | Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "idemfs", *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def test_in_order_and_back(store: Path) -> None:
    status, err = create(store, "--before", log(store, "b"))
    assert (status, err, names(store)) == (0, "", ["one"])
    assert logged(store) == ["a before one", "b before one", "B after taken one", "A after taken one"]


def test_a_hook_that_fails_or_takes_too_long(store: Path) -> None:
    status, err = create(store, "--before", "exit 3", "--before", log(store, "never"))
    assert status == 1 and "hook before (exit 3) failed with status 3" in err and err.count("\n") == 1
    status, err = create(store, "--before", "sleep 1000 & sleep 1000", "--hook-timeout", "0.3")
    assert status == 1 and "was killed after 0.3 seconds" in err
    assert names(store) == [] and logged(store) == ["a before one", "B after failed one", "A after failed one"] * 2


def test_a_snapshot_that_fails(store: Path) -> None:
    done("snapshot", "create", store, "one")
    status, err = create(store)
    assert status == 1 and "exists" in err and err.count("\n") == 1
    assert logged(store) == ["a before one", "B after failed one", "A after failed one"]


def test_a_hook_after_it_that_fails(store: Path) -> None:
    status, err = create(store, "--after", "false")
    assert status == 1 and "taken all the same" in err and names(store) == ["one"]
    assert logged(store) == ["a before one", "B after taken one", "A after taken one"]


@pytest.mark.parametrize("number", ENDING)
def test_a_signal(store: Path, number: signal.Signals) -> None:
    ready = store.parent / "ready"
    os.mkfifo(ready)
    hooks = ["--before", f"echo > {ready}; exec sleep 1000", "--after", log(store, "A")]
    process = started("snapshot", "create", store, "one", *hooks)
    ready.read_text()
    process.send_signal(number)
    said = process.communicate(timeout=60)[1]
    interrupted = number == signal.SIGINT
    assert process.returncode == (130 if interrupted else -number)
    assert said == ("idemfs: interrupted\n" if interrupted else f"idemfs: ended by {number.name}\n")
    assert logged(store) == ["A after failed one"] and names(store) == []


def test_a_terminal_that_goes_while_the_hooks_of_a_schedule_run(store: Path) -> None:
    ready = store.parent / "ready"
    os.mkfifo(ready)
    hooks = ["--before", f"echo > {ready}; exec sleep 1000", "--after", log(store, "A")]
    with library.FileSystem(Tree(files.open_files(str(store), clock=Simulated(start_ns=LAST_YEAR_NS)))) as fs:
        fs.snapshots.schedule.set(Policy(cron="0 0 1 * *"))
    done("fileset", "schedule", store, *hooks)
    process = started("snapshot", "run-due", store)
    ready.read_text()
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGHUP and names(store) == []
    assert [line.split()[:3] for line in logged(store)] == [["A", "after", "failed"]]


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_a_signal_that_is_ignored_stays_so(store: Path, number: signal.Signals) -> None:
    ready, go = store.parent / "ready", store.parent / "go"
    os.mkfifo(ready)
    os.mkfifo(go)
    kept = signal.signal(number, signal.SIG_IGN)
    try:
        process = started("snapshot", "create", store, "one", "--before", f"echo > {ready}; read word < {go}")
    finally:
        signal.signal(number, kept)
    ready.read_text()
    process.send_signal(number)
    go.write_text("on\n")
    assert process.communicate(timeout=60)[1] == "" and process.returncode == 0 and names(store) == ["one"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_moment_a_hook_is_started_ends_it_too(
    store: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    started: list[subprocess.Popen[bytes]] = []

    class Struck(subprocess.Popen[bytes]):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            started.append(self)
            if len(started) == 1:
                os.kill(os.getpid(), number)

    monkeypatch.setattr(subprocess, "Popen", Struck)
    kept = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            try:
                with quiesced(["exec sleep 1000"], [log(store, "A")]):
                    raise AssertionError("the hook had not ended")
            except KeyboardInterrupt:
                raise SystemExit from None
    finally:
        signal.signal(signal.SIGTERM, kept)
    assert started[0].returncode == -signal.SIGKILL and logged(store) == ["A after failed"]


def test_in_python(store: Path) -> None:
    with library.open(store) as fs:
        steps: list[str] = []

        @contextmanager
        def quiesce() -> Iterator[None]:
            steps.append("before")
            try:
                yield
            finally:
                steps.append(f"after {len(fs.snapshots)}")

        fs.snapshots.create_all("one", quiesce=quiesce())
        with pytest.raises(SnapshotExists):
            fs.snapshots.create_all("one", quiesce=quiesce())
        assert steps == ["before", "after 1", "before", "after 1"]
        with quiesced([log(store, "a")], [log(store, "A")], {"IDEMFS_SNAPSHOTS": "two"}):
            fs.snapshots.create("two")
        assert logged(store) == ["a before two", "A after taken two"]
        with pytest.raises(HookFailed), quiesced(["false"], []):
            steps.append("never")
        assert "never" not in steps
