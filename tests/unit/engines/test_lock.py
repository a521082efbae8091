"""``StoreLock``, with real processes: one owner, and a name that is never that of somebody else."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from idemfs.engines.lock import LOCK_NAME, StoreLock, owner
from idemfs.errors import StoreInUse, StoreMissing

HOLD = """
import os, sys
from idemfs.engines.lock import StoreLock
lock = StoreLock(sys.argv[1])
{then}
print("held", flush=True)
sys.stdin.read()
"""
FORK = """
said, says = os.pipe()
if os.fork() == 0:
    os.write(says, b"here")
    sys.stdin.read()
    os._exit(0)
os.read(said, 4)
"""
EXEC = "import subprocess; subprocess.Popen(['cat'], close_fds=False)"


@contextmanager
def holder(store: Path, then: str = "") -> Iterator[subprocess.Popen[bytes]]:
    """A process that owns the store until its standard input ends. Its children live as long."""
    command = [sys.executable, "-c", HOLD.format(then=then), str(store)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield process
        assert process.stdin is not None
        process.stdin.close()


def test_one_owner_at_a_time(tmp_path: Path) -> None:
    store = str(tmp_path)
    assert owner(store) is None
    with StoreLock(store):
        assert owner(store) == os.getpid()
        with pytest.raises(StoreInUse, match=f"in use by process {os.getpid()};") as refusal:
            StoreLock(store)
        assert refusal.value.pid == os.getpid()
        assert owner(store) == os.getpid()
    assert owner(store) is None
    StoreLock(store).close()


def test_closing_twice_is_closing_once(tmp_path: Path) -> None:
    lock = StoreLock(str(tmp_path))
    lock.close()
    with StoreLock(str(tmp_path)):
        lock.close()
        assert owner(str(tmp_path)) == os.getpid()


def test_no_store_no_owner(tmp_path: Path) -> None:
    assert owner(str(tmp_path / "missing")) is None
    with pytest.raises(StoreMissing):
        StoreLock(str(tmp_path / "missing"))


def test_another_process_is_named_until_it_is_killed(tmp_path: Path) -> None:
    store = str(tmp_path)
    with holder(tmp_path) as process:
        assert owner(store) == process.pid
        with pytest.raises(StoreInUse) as refusal:
            StoreLock(store)
        assert refusal.value.pid == process.pid
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert owner(store) is None
        with StoreLock(store):
            assert owner(store) == os.getpid()


@pytest.mark.parametrize("then", [FORK, EXEC], ids=["fork", "exec"])
def test_a_child_does_not_keep_the_store(tmp_path: Path, then: str) -> None:
    with holder(tmp_path, then) as process:
        assert owner(str(tmp_path)) == process.pid
        process.send_signal(signal.SIGKILL)
        process.wait()
        # The child still has the other end of the pipe, so it lives.
        with StoreLock(str(tmp_path)):
            assert owner(str(tmp_path)) == os.getpid()


def test_a_child_that_closes_its_copy_leaves_the_store_to_its_parent(tmp_path: Path) -> None:
    then = "child = os.fork()\nif child == 0:\n    lock.close()\n    os._exit(0)\nos.waitpid(child, 0)"
    with holder(tmp_path, then) as process:
        assert owner(str(tmp_path)) == process.pid


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("{pid} {other}\n", id="a process id that somebody else has by now"),
        pytest.param("{pid} {started}\n", id="a living process that does not have the lock"),
        pytest.param("{dead} 1\n", id="a process that has ended"),
        pytest.param("", id="nothing"),
        pytest.param("not a number\n", id="junk"),
    ],
)
def test_a_stale_file_locks_nobody_out(tmp_path: Path, text: str) -> None:
    with subprocess.Popen(["true"]) as ended:
        ended.wait()
    started = start_time(os.getpid())
    forged = text.format(pid=os.getpid(), other=started - 1, started=started, dead=ended.pid)
    (tmp_path / LOCK_NAME).write_text(forged)
    assert owner(str(tmp_path)) is None
    with holder(tmp_path) as process:
        assert owner(str(tmp_path)) == process.pid


def test_a_locked_file_with_a_reused_process_id_names_nobody(tmp_path: Path) -> None:
    with holder(tmp_path):
        (tmp_path / LOCK_NAME).write_text(f"{os.getpid()} {start_time(os.getpid()) - 1}\n")
        assert owner(str(tmp_path)) == 0
        with pytest.raises(StoreInUse) as refusal:
            StoreLock(str(tmp_path))
        assert refusal.value.pid == 0


def test_asking_for_the_owner_does_not_stand_in_the_way(tmp_path: Path) -> None:
    """The answer takes no lock on the byte that means ownership, at no time."""
    StoreLock(str(tmp_path)).close()
    with open(tmp_path / LOCK_NAME, "rb+") as file:
        # As if an owner were between taking the store and writing its name: the question has to wait for that.
        fcntl.lockf(file, fcntl.LOCK_EX, 1, 1)
        command = [sys.executable, "-c", "import sys; from idemfs.engines.lock import owner; print(owner(sys.argv[1]))"]
        with subprocess.Popen([*command, str(tmp_path)], stdout=subprocess.PIPE) as asking:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 0)
            fcntl.lockf(file, fcntl.LOCK_UN, 1, 0)
            fcntl.lockf(file, fcntl.LOCK_UN, 1, 1)
            output, _ = asking.communicate()
    assert output == b"None\n"


def start_time(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
