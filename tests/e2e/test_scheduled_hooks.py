"""Hooks of schedules: run around each snapshot, by ``run-due`` and by a mount, with the rights of the store's owner."""

from __future__ import annotations

import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

import idemfs as library
from idemfs.api.schedule import Hooks, Policy
from idemfs.errors import BadPolicy, Damaged
from idemfs.format import keys
from idemfs.ids import ROOT_FILESET, FilesetId
from idemfs.node import quiesce
from idemfs.replication.describe import description_of
from idemfs.snapshots import automatic, hooks
from idemfs.testing.builders import assert_clean, memory_store
from idemfs.testing.clock import Simulated
from idemfs.vfs.tree import Tree
from tests.conformance.mounted import missing, mounted
from tests.e2e.program import done, idemfs, refused, rows


@pytest.fixture
def store(tmp_path: Path) -> Path:
    done("init", tmp_path / "store")
    return tmp_path / "store"


@pytest.fixture
def clock() -> Simulated:
    return Simulated()


@pytest.fixture
def fs(clock: Simulated, tmp_path: Path) -> library.FileSystem:
    fs = library.FileSystem(Tree(memory_store(clock=clock)))
    fs.snapshots.schedule.set(Policy(every_seconds=3600))
    return fs


def log(path: Path, word: str) -> str:
    return f"echo {word} $IDEMFS_HOOK $IDEMFS_RESULT >> {path}/log"


def logged(path: Path) -> list[str]:
    return (path / "log").read_text().splitlines() if (path / "log").exists() else []


def test_they_are_run_around_each_snapshot(fs: library.FileSystem, clock: Simulated, tmp_path: Path) -> None:
    schedule = fs.snapshots.schedule
    schedule.set_hooks(Hooks((log(tmp_path, "a"), log(tmp_path, "b")), (log(tmp_path, "A"), log(tmp_path, "B"))))
    assert schedule.run_due().taken is None and logged(tmp_path) == []
    clock.advance(3600)
    outcome = schedule.run_due()
    assert outcome.taken is not None and outcome.failure == ""
    assert logged(tmp_path) == ["a before", "b before", "B after taken", "A after taken"]
    assert schedule.run_due().taken is None and len(logged(tmp_path)) == 4


def test_one_that_fails_is_tried_at_the_next_due_time(fs: library.FileSystem, clock: Simulated, tmp_path: Path) -> None:
    schedule = fs.snapshots.schedule
    schedule.set_hooks(Hooks((log(tmp_path, "a"), f"test -e {tmp_path}/ready"), (log(tmp_path, "A"),)))
    clock.advance(3600)
    outcome = schedule.run_due()
    assert outcome.taken is None and "failed with status 1" in outcome.failure and len(fs.snapshots) == 0
    assert logged(tmp_path) == ["a before", "A after failed"]
    assert schedule.run_due().failure == "" and len(logged(tmp_path)) == 2
    (tmp_path / "ready").touch()
    clock.advance(1800)
    assert schedule.run_due().taken is None
    clock.advance(1800)
    assert schedule.run_due().taken is not None and logged(tmp_path)[2:] == ["a before", "A after taken"]


def test_one_after_that_fails_keeps_the_snapshot(fs: library.FileSystem, clock: Simulated) -> None:
    schedule = fs.snapshots.schedule
    schedule.set_hooks(Hooks((), ("exit 3", "sleep 1000"), 0.3))
    clock.advance(3600)
    outcome = schedule.run_due()
    assert outcome.taken is not None and len(fs.snapshots) == 1
    assert "was killed after 0.3 seconds" in outcome.failure and schedule.run_due().failure == ""


def test_what_cannot_run_them_takes_nothing(fs: library.FileSystem, clock: Simulated) -> None:
    fs.snapshots.schedule.set_hooks(Hooks(("true",)))
    clock.advance(3600)
    failures: list[str] = []
    assert automatic.take_due(fs.tree.active, ROOT_FILESET, failures=failures) == (None, "")
    assert len(failures) == 1 and "nobody runs" in failures[0]


def test_they_stay_in_their_store(fs: library.FileSystem, clock: Simulated) -> None:
    """A policy is told to a standby, and commands are not."""
    fs.snapshots.schedule.set_hooks(Hooks(("rm -rf /elsewhere",), ("true",)))
    store = fs.tree.store
    told = description_of(store, store.catalog.filesets[ROOT_FILESET])
    assert "every_seconds" in told.policy and "elsewhere" not in repr(told)
    other = library.FileSystem(Tree(memory_store(clock=clock)))
    own = Hooks(("own",))
    other.snapshots.schedule.set_hooks(own)
    with other.tree.store.lock:
        other.tree.store.admit(2, 2000)
        automatic.take_over_policy(other.tree.store, ROOT_FILESET, told.policy.encode())
    assert other.snapshots.schedule.policy == fs.snapshots.schedule.policy and other.snapshots.schedule.hooks == own


def test_they_go_with_their_fileset_and_are_checked(fs: library.FileSystem) -> None:
    home = fs.filesets.create("/home")
    home.snapshots.schedule.set_hooks(Hooks(("true",)))
    small = fs.tree.store.small
    assert small.get(keys.hooks(FilesetId(1))) is not None
    assert_clean(fs.tree)
    home.delete()
    assert small.get(keys.hooks(FilesetId(1))) is None
    for bad in (Hooks(("",)), Hooks(("x" * 5000,)), Hooks(("x",) * 17), Hooks(("x",), (), 0.0), Hooks((), ("a\0b",))):
        with pytest.raises(BadPolicy):
            fs.snapshots.schedule.set_hooks(bad)
    for record in (b"", b"[]", b'{"before": "rm"}x', b'{"before": [3]}', b'{"during": []}', b'{"timeout_seconds": -1}'):
        with pytest.raises(Damaged):
            hooks.unpack(record)
    assert hooks.unpack(hooks.pack(Hooks(("a", "ä"), (), 3.5))) == Hooks(("a", "ä"), (), 3.5)


def test_the_command_line(store: Path) -> None:
    path = store.parent
    done("fileset", "schedule", store, "--every", "1s", "--before", log(path, "a"), "--after", log(path, "A"))
    shown = done("fileset", "schedule", store)
    assert f"before          {log(path, 'a')}\n" in shown and "hook timeout    60 s\n" in shown
    done("fileset", "schedule", store, "--keep-last", "3", "--hook-timeout", "5")
    facts = json.loads(done("fileset", "schedule", store, "--json"))
    assert (facts["before"], facts["hook_timeout"], facts["keep_last"]) == ([log(path, "a")], 5.0, 3)
    while not rows("snapshot", "run-due", store):
        pass
    assert logged(path)[:2] == ["a before", "A after taken"]
    done("fileset", "schedule", store, "--before", "exit 3", "--before", log(path, "never"))
    while (ended := idemfs("snapshot", "run-due", store)).status == 0:
        pass
    assert ended.status == 1 and "schedule of fileset root: hook before (exit 3) failed with status 3" in ended.err
    assert "a hook has more than 0" in refused("fileset", "schedule", store, "--hook-timeout", "0", status=2)
    done("fileset", "schedule", store, "--before", "none", "--after", "none", "--hook-timeout", "none")
    facts = json.loads(done("fileset", "schedule", store, "--json"))
    assert (facts["before"], facts["after"], facts["hook_timeout"]) == ([], [], 60.0)
    done("fileset", "schedule", store, "--before", "true")
    assert done("fileset", "schedule", store, "--clear") == "no schedule\n"
    assert "before" not in done("fileset", "schedule", store, "--every", "1d")


def test_with_whose_rights(store: Path) -> None:
    if os.geteuid():
        pytest.skip("only root can give a store away")
    with TemporaryDirectory() as everybodys:
        os.chmod(everybodys, 0o777)
        _check_rights(store, Path(everybodys) / "log")


def _check_rights(store: Path, written: Path) -> None:
    written.touch()
    written.chmod(0o666)
    os.chown(store, 65534, 65534)
    say = Hooks((f'echo $(id -u) $(pwd) "$HOME" >> {written}',))
    with library.open(store) as fs, quiesce.scheduled(fs.tree.store)(say, "one"):
        pass
    home = os.path.expanduser("~nobody")
    assert written.read_text() == f"65534 / {home}\n"
    os.chmod(store, 0o775)
    with library.open(store) as fs, pytest.raises(library.errors.HookFailed, match="others than the owner may write"):
        quiesce.scheduled(fs.tree.store)(say, "one")
    os.chmod(store, 0o755)
    os.chown(store, 0, 0)
    with library.open(store) as fs, quiesce.scheduled(fs.tree.store)(say, "one"):
        pass
    assert written.read_text().splitlines()[1].startswith("0 / ")


@pytest.mark.skipif(missing() is not None, reason=missing() or "")
def test_a_mount_runs_them(store: Path, tmp_path: Path) -> None:
    """In the process of the mount, which meanwhile takes changes: the hook writes into it."""
    with mounted(store, tmp_path / "mount") as at:
        done("fileset", "schedule", store, "--before", f"echo rest >> {at}/state", "--after", f"rm {at}/state")
        done("fileset", "schedule", store, "--every", "1s")
        while not (found := [name for name in os.listdir(at / ".snapshots") if name != "latest"]):
            pass
        done("fileset", "schedule", store, "--clear")
        assert (at / ".snapshots" / found[0] / "state").read_text() == "rest\n"
        done("snapshot", "run-due", store)
        assert not (at / "state").exists()
