"""Schedules as their users have them: by command, from cron, and run by a mount."""

from __future__ import annotations

import errno
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import idemfs as library
from idemfs.api.schedule import Policy
from idemfs.testing.clock import Simulated
from tests.conformance.mounted import missing, mounted
from tests.e2e.ending import kill
from tests.e2e.program import done, idemfs, on_terminal, refused, rows

WAIT_SECONDS = 60
DOCUMENT = Path(__file__).parents[2] / "docs/SCHEDULES.md"
needs_mount = pytest.mark.skipif(missing() is not None, reason=missing() or "")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "store"
    library.create(path, block_size=4096).close()
    return path


def names(store: Path) -> list[str]:
    return [row["name"] for row in rows("snapshot", "list", store)]


def wait_until(holds: Callable[[], bool]) -> None:
    """Asks again and again; what is asked starts a process or the disk, and takes its time."""
    until = time.monotonic() + WAIT_SECONDS
    while not holds():
        assert time.monotonic() < until, "it did not happen"


def test_a_schedule_is_set_shown_changed_and_cleared(store: Path) -> None:
    assert done("fileset", "schedule", store) == "no schedule\n"
    out = done(
        "fileset", "schedule", store, "--every", "6h", "--keep-last", "24", "--lock", "2w", "--keep-free", "1GiB"
    )
    lines = dict(line.split("  ", 1) for line in out.splitlines())
    assert {name: value.strip() for name, value in lines.items()} == {
        "every": "6h",
        "keep last": "24",
        "keep free": "1 GiB",
        "lock": "2w",
        "next due": lines["next due"].strip(),
    }
    done("fileset", "schedule", store, "root", "--every", "none", "--cron", "0 3 * * *", "--zone", "Europe/Berlin")
    facts = json.loads(done("fileset", "schedule", store, "--json"))
    assert (facts["every_seconds"], facts["cron"], facts["keep_last"], facts["lock_seconds"]) == (
        0,
        "0 3 * * *",
        24,
        14 * 86_400,
    )
    assert "T03:00:00+0" in facts["next_due"]
    assert done("fileset", "schedule", store, "--clear") == "no schedule\n"
    assert json.loads(done("fileset", "schedule", store, "--json"))["next_due"] is None


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--every", "soon"], "no length of time"),
        (["--cron", "0 25 * * *"], "Bad hour"),
        (["--zone", "Mars"], "no time zone"),
        (["--keep-matching", "["], "regular expression"),
        (["--keep-last", "-1"], "no number"),
        (["--keep-daily", "x"], "no number"),
        (["--clear", "--every", "1h"], "alone"),
    ],
)
def test_what_has_no_meaning_is_wrong_usage(store: Path, options: list[str], says: str) -> None:
    assert says in refused("fileset", "schedule", store, *options, status=2)
    assert done("fileset", "schedule", store) == "no schedule\n"


def test_another_fileset_is_none(store: Path) -> None:
    assert "no fileset named 'home'" in refused("fileset", "schedule", store, "home")


@pytest.fixture
def aged(tmp_path: Path) -> Path:
    """Twelve snapshots, one a month, of a file of 40 KB that was rewritten in between."""
    from idemfs.store import files
    from idemfs.vfs.tree import Tree

    path = str(tmp_path / "aged")
    clock = Simulated(start_ns=int(datetime(2025, 1, 1, tzinfo=UTC).timestamp()) * 10**9)
    files.create_files(path, block_size=4096)
    with library.FileSystem(Tree(files.open_files(path, clock=clock))) as fs:
        fs.snapshots.schedule.set(Policy(cron="0 0 1 * *"))
        for month in range(12):
            fs.write_bytes("/f", bytes([month + 1]) * 40_960)
            clock.advance(31 * 86_400)
            assert fs.snapshots.schedule.run_due().taken is not None
        fs.write_bytes("/f", b"now" * 10)
    return Path(path)


def test_prune_says_what_would_go_and_why_and_how_much_comes_back(aged: Path) -> None:
    before = names(aged)
    assert before[0] == "auto-2025-02-01T00-00-00Z"
    done("snapshot", "hold", aged, before[2], "me")
    out = done("fileset", "schedule", aged, "--dry-run", "--keep-last", "2", "--keep-yearly", "2")
    assert out.endswith("these rules would keep 3 of 12 snapshots; 360 KiB come back\n")
    assert names(aged) == before and "keep" not in done("fileset", "schedule", aged)
    done("fileset", "schedule", aged, "--keep-last", "2", "--keep-yearly", "2", "--cron", "none")
    found = rows("snapshot", "prune", aged, "--dry-run")
    assert [row["name"] for row in found] == before
    assert [row["action"] for row in found] == [*["delete"] * 2, "keep", *["delete"] * 7, "keep", "keep"]
    assert found[2]["reason"] == "held by me" and found[0]["reason"] == "no rule keeps it"
    assert "the newest automatic one, last 1 of 2, yearly 2026" in found[-1]["reason"]
    lines = done("snapshot", "prune", aged, "--dry-run").splitlines()
    assert lines[-1] == "would delete 9 of 12 snapshots; 360 KiB come back"
    status, seen = on_terminal("snapshot", "prune", aged, answer="n\n")
    assert status == 1 and "nothing was done" in seen and names(aged) == before
    deleted = rows("snapshot", "prune", aged)
    assert [row["name"] for row in deleted] == [row["name"] for row in found if row["action"] == "delete"]
    assert names(aged) == [row["name"] for row in found if row["action"] == "keep"]
    assert done("snapshot", "prune", aged) == "" and rows("snapshot", "prune", aged) == []
    done("check", aged)


def test_what_is_due_is_taken_once_by_a_timer(aged: Path) -> None:
    count = len(names(aged))
    took = rows("snapshot", "run-due", aged)
    assert [(row["fileset"], row["action"]) for row in took] == [("root", "take")]
    assert took[0]["name"] == names(aged)[-1] and took[0]["reason"] == "cron 0 0 1 * * UTC"
    assert rows("snapshot", "run-due", aged) == [] and done("snapshot", "run-due", aged) == ""
    assert len(names(aged)) == count + 1


def test_a_lock_cannot_be_taken_back(store: Path) -> None:
    done("snapshot", "create", store, "one")
    day = f"{datetime.now(UTC) + timedelta(days=40):%Y-%m-%d}"
    assert "--yes" in refused("snapshot", "lock", store, "one", day)
    done("snapshot", "lock", store, "one", day, "--yes")
    said = f"snapshot 'one' is locked: nobody can delete it before {day}T00:00:00Z"
    assert refused("snapshot", "delete", store, "one", "--yes") == said
    assert refused("snapshot", "delete", store, "one", "--dry-run") == said
    earlier = f"{datetime.now(UTC) + timedelta(days=20):%Y-%m-%d}"
    assert "never shorter" in refused("snapshot", "lock", store, "one", earlier, "--yes")
    assert "in the future" in refused("snapshot", "lock", store, "one", "2020-01-01", "--yes", status=2)
    assert "no date" in refused("snapshot", "lock", store, "one", "tomorrow", "--yes", status=2)
    done("snapshot", "create", store, "two")
    done("snapshot", "hold", store, "two", "me", "--until", day)
    assert "held by me" in refused("snapshot", "delete", store, "two")
    assert "say the same" in refused("snapshot", "hold", store, "two", "x", "--until", day, "--seconds", "3", status=2)
    done("check", store)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="not installed here: systemd")
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    text = re.search(r"^# /etc/systemd/system.*?(?=^```)", DOCUMENT.read_text(), re.M | re.S)
    assert text is not None
    paths = []
    for part in re.split(r"^# /etc/systemd/system/", text[0], flags=re.M)[1:]:
        name, _, unit = part.partition("\n")
        paths.append(tmp_path / name)
        paths[-1].write_text(unit.replace("/usr/local/bin/idemfs", str(Path(sys.executable).with_name("idemfs"))))
    assert [path.suffix for path in paths] == [".service", ".timer"]
    ended = subprocess.run(["systemd-analyze", "verify", *map(str, paths)], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


@needs_mount
def test_a_mount_takes_a_snapshot_every_second_and_keeps_some(store: Path, tmp_path: Path) -> None:
    with mounted(store, tmp_path / "m") as at:
        folder = at / ".snapshots"
        (at / "f").write_text("before")
        # The mount's own process is told, and begins at once.
        done("fileset", "schedule", store, "--every", "1s", "--keep-last", "3")
        wait_until(lambda: len(names(store)) >= 1)
        first = names(store)[0]
        assert (folder / first / "f").read_text() == "before"
        (at / "f").write_text("after")
        wait_until(lambda: (folder / "latest/f").read_text() == "after")
        wait_until(lambda: first not in names(store))
        assert first not in {each.name for each in folder.iterdir()} and not (folder / first).exists()
        seen = names(store)
        assert 3 <= len(seen) <= 4 and seen == sorted(seen) and all(each.startswith("auto-") for each in seen)
        assert (at / "f").read_text() == "after"
        done("fileset", "schedule", store, "--clear")
        left = names(store)
        (at / "g").write_text("x")
        assert names(store) == left


@needs_mount
def test_a_mount_deletes_nothing_that_is_locked(store: Path, tmp_path: Path) -> None:
    with mounted(store, tmp_path / "m") as at:
        (at / ".snapshots/one").mkdir()
        done("snapshot", "lock", store, "one", f"{datetime.now(UTC) + timedelta(days=2):%Y-%m-%d}", "--yes")
        with pytest.raises(OSError) as refusal:
            (at / ".snapshots/one").rmdir()
        assert refusal.value.errno == errno.EBUSY
        assert "is locked" in refused("snapshot", "delete", store, "one")
    assert names(store) == ["one"]


@needs_mount
def test_a_mount_takes_a_snapshot_when_enough_has_changed(store: Path, tmp_path: Path) -> None:
    with mounted(store, tmp_path / "m") as at:
        done("fileset", "schedule", store, "--after-bytes", "100KiB")
        (at / "small").write_bytes(b"1" * 50_000)
        done("snapshot", "run-due", store)
        assert names(store) == []
        (at / "large").write_bytes(b"2" * 60_000)
        wait_until(lambda: len(names(store)) == 1)
        assert (at / ".snapshots/latest/large").read_bytes() == b"2" * 60_000


@needs_mount
def test_after_a_kill_the_schedule_goes_on(store: Path, tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    done("fileset", "schedule", store, "--every", "1s", "--keep-last", "2")
    assert idemfs("mount", store, tmp_path / "m").status == 0
    wait_until(lambda: len(names(store)) >= 2)
    kill(store)
    before = names(store)
    with mounted(store, tmp_path / "m"):
        wait_until(lambda: not set(before) & set(names(store)))
    found = names(store)
    assert len(found) == len(set(found)) and len(found) <= 3
