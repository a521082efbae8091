"""A process that writes to a store is killed with SIGKILL, again and again, and another one takes over each time.

Every state that is found is one that the process went through, not older than what it had acknowledged.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from idemfs.snapshots import delete
from idemfs.store.files import create_files, open_files
from idemfs.testing.builders import assert_clean, memory_tree
from idemfs.testing.clock import Simulated
from idemfs.vfs.tree import Tree
from tests.crash.audit import assert_finished, audit
from tests.crash.disk import BLOCK_SIZE
from tests.crash.dump import State, difference, state_of
from tests.crash.killed import clock_at, operate

ROOT = Path(__file__).parents[2]


class Reference:
    """The same operations on a store in memory, which nobody kills; the state after each."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._clock = Simulated()
        self._tree = memory_tree(block_size=BLOCK_SIZE, clock=self._clock)
        self._states = [state_of(self._tree)]
        self._clock.advance(1)

    def state(self, number: int) -> State:
        """After operation ``number``; 0: before the first one."""
        while len(self._states) <= number:
            operate(self._tree, self._seed, len(self._states))
            self._states.append(state_of(self._tree))
            self._clock.advance(1)
        return self._states[number]


def run_and_kill(path: str, seed: int, first: int, line_count: int) -> tuple[int, int]:
    """The last operation that was done, and the last durable one, when a process is killed after so many lines."""
    command = [sys.executable, "-m", "tests.crash.killed", path, str(seed), str(first)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(line_count)]
    process.kill()
    # What it did until then is still in the pipe; a line that is not whole was not said.
    lines += process.stdout.readlines()
    process.stdout.close()
    assert process.wait() == -signal.SIGKILL
    whole = [line.rstrip() for line in lines if line.endswith("\n")]
    done = [int(line.rstrip("!")) for line in whole]
    assert done == list(range(first, first + len(done)))
    assert len(done) >= line_count
    return done[-1], max((int(line[:-1]) for line in whole if line.endswith("!")), default=first - 1)


def found_number(reference: Reference, tree: Tree, first: int, last: int) -> int:
    """Which operation the state found is that after; a restore that had only taken its snapshot is undone."""
    found = state_of(tree)
    for number in range(last, first - 1, -1):
        if found == reference.state(number):
            return number
    undo = f"undo {last}"
    if undo in found.snapshots and found.active == reference.state(last - 1).active:
        delete.delete(tree.active, tree.store.catalog.by_name(tree.fileset, undo))
        assert state_of(tree) == reference.state(last - 1)
        return last - 1
    pytest.fail(f"operations {first} to {last}: no such state\n{difference(reference.state(last), found)}")


def kill_again_and_again(path: str, seed: int, rounds: int, compression: str) -> None:
    create_files(path, block_size=BLOCK_SIZE, compression=compression, clock=Simulated())
    Tree(open_files(path, background=False, clock=Simulated())).store.close()
    rng, reference, number = Random(seed), Reference(seed), 0
    for _ in range(rounds):
        done, durable = run_and_kill(path, seed, number + 1, rng.randint(1, 60))
        tree = Tree(open_files(path, background=False, clock=clock_at(done)))
        number = found_number(reference, tree, durable, done + 1)
        tree.sync()
        assert_finished(tree)
        audit(tree)
        assert_clean(tree)
        tree.store.close()


def test_a_store_survives_kills(tmp_path: Path, seed: int) -> None:
    kill_again_and_again(str(tmp_path / "store"), seed, 10, "none")


@pytest.mark.long
@pytest.mark.parametrize("offset", range(6))
def test_a_store_survives_many_kills(tmp_path: Path, offset: int, seed: int) -> None:
    kill_again_and_again(str(tmp_path / "store"), 100 * seed + offset, 40, ["none", "zstd"][offset % 2])
