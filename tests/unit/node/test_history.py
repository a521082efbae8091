"""The history of a store: bounded, readable after a crash, and in nobody's way when it cannot be written."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import pytest

import idemfs
from idemfs.cli.main import main
from idemfs.limits import HISTORY_BYTES_MAX
from idemfs.node.history import Event, events, record
from idemfs.testing.clock import Simulated


def test_events_come_back_in_order(tmp_path: Path) -> None:
    store = str(tmp_path)
    clock = Simulated()
    assert events(store) == []
    record(store, Event(what="transfer", source="/a", target="/b", snapshot="s", bytes=3, seconds=0.5), clock)
    clock.advance(1)
    record(store, Event(what="failover", target="/b", outcome="no", by="automatic"), clock)
    first, second = events(store)
    assert (first.what, first.source, first.target, first.snapshot) == ("transfer", "/a", "/b", "s")
    assert (first.bytes, first.seconds, first.outcome) == (3, 0.5, "done")
    assert first.by.endswith(f"({os.getuid()})") and second.by == "automatic"
    assert first.time < second.time and second.outcome == "no"
    row = json.loads((tmp_path / "history").read_text().splitlines()[0])
    assert (row["from"], row["to"]) == ("/a", "/b")


def test_a_line_that_was_cut_short_is_passed_over(tmp_path: Path) -> None:
    record(str(tmp_path), Event(what="one"))
    with open(tmp_path / "history", "ab") as file:
        file.write(b'{"what": "tw')
    record(str(tmp_path), Event(what="three"))
    assert [each.what for each in events(str(tmp_path))] == ["one", "three"]


def test_it_is_bounded_and_keeps_one_older_file(tmp_path: Path) -> None:
    store = str(tmp_path)
    record(store, Event(what="lost"))
    for what in ("older", "newer"):
        with open(tmp_path / "history", "ab") as file:
            file.write(b"\n" * HISTORY_BYTES_MAX)
        record(store, Event(what=what))
    assert [each.what for each in events(store)] == ["older", "newer"]
    assert (tmp_path / "history").stat().st_size < 1000
    assert sorted(os.listdir(tmp_path)) == ["history", "history.old"]


def test_what_cannot_be_written_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "history").mkdir()
    with caplog.at_level(logging.ERROR, "idemfs.node"):
        record(str(tmp_path), Event(what="switchover", by="me"))
    assert "cannot be written" in caplog.text and '"switchover"' in caplog.text


def test_paths_that_are_not_utf8(tmp_path: Path) -> None:
    record(str(tmp_path), Event(what="transfer", source=os.fsdecode(b"/a\xff")))
    assert events(str(tmp_path))[0].source == "/a\\xff"


def test_what_commands_leave_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    a, b = str(tmp_path / "A"), str(tmp_path / "B")

    def run(*words: str) -> None:
        assert main(list(words)) == 0

    def new(store: str) -> list[Event]:
        """Since the last time, but transfers."""
        found = [each for each in events(store) if each.what != "transfer"]
        since[store] = len(found)
        return found[before.get(store, 0) :]

    before: dict[str, int] = {}
    since: dict[str, int] = {}
    run("init", a)
    run("standby", "add", "A", "B")
    run("replicate", a)
    run("drill", "start", b, "try", "--dry-run")
    run("drill", "start", b, "try")
    run("drill", "end", b, "try")
    assert [(each.what, each.source, each.target) for each in new(a)] == [("standby add", a, b)]
    started, ended = new(b)
    assert (started.what, started.target, ended.what, ended.target) == ("drill start", "try", "drill end", "try")
    assert (started.snapshot or "").startswith("auto-") and ended.bytes == 0
    assert started.by.endswith(f"({os.getuid()})")

    before |= since
    with idemfs.open(a) as fs:
        fs.write_bytes("/unsent", b"1")
    run("failover", b, "--yes")
    fenced, failover = new(a)
    assert (fenced.what, fenced.source, fenced.target) == ("fenced", b, a)
    assert fenced.outcome == "epoch 2 has ended epoch 1" and failover.what == "failover"
    assert [each.what for each in new(b)] == ["failover"]
    run("failback", a, "--yes")

    before |= since
    run("diverged", "release", a, "diverged-1", "--dry-run")
    run("diverged", "release", a, "diverged-1")
    run("standby", "remove", b, a)
    assert [(each.what, each.snapshot) for each in new(a)][-1] == ("diverged release", "diverged-1")
    assert [(each.what, each.target) for each in new(b)][-1] == ("standby remove", a)
