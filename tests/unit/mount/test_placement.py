"""Where requests are served: the thread that serves follows the one program that asks."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from idemfs.mount.placement import PERIOD, Placement, is_one_program

_WAITING = "import os, sys; os.sched_setaffinity(0, {int(sys.argv[1])}); print(flush=True); sys.stdin.read()"


@contextmanager
def program_on(cpu: int) -> Iterator[int]:
    """A program that waits on this CPU; its number."""
    words = [sys.executable, "-c", _WAITING, str(cpu)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid


def in_a_thread(work: Callable[[], None]) -> None:
    """A thread of its own is bound, and not the one that runs the tests."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as failure:
            failures.append(failure)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


@pytest.mark.parametrize("cpu", sorted(os.sched_getaffinity(0)))
def test_one_program_is_followed_to_its_cpu(cpu: int) -> None:
    def work() -> None:
        placement = Placement()
        with program_on(cpu) as pid:
            # Requests that the kernel makes for nobody do not count.
            changes = [placement.saw(pid if number % 2 else 0) for number in range(3 * PERIOD)]
            assert changes.index(True) == PERIOD - 1 and sum(changes) == 1
            assert placement.follows
            assert os.sched_getaffinity(0) == {cpu}

    in_a_thread(work)


def test_several_programs_are_served_from_anywhere() -> None:
    def work() -> None:
        allowed = os.sched_getaffinity(0)
        placement = Placement()
        with program_on(min(allowed)) as one, program_on(max(allowed)) as other:
            for _ in range(PERIOD):
                placement.saw(one)
            assert os.sched_getaffinity(0) == {min(allowed)}
            for number in range(PERIOD):
                placement.saw(one if number % 2 else other)
            assert not placement.follows
            assert os.sched_getaffinity(0) == allowed

    in_a_thread(work)


def test_a_program_that_is_gone_is_not_followed() -> None:
    def work() -> None:
        allowed = os.sched_getaffinity(0)
        with program_on(min(allowed)) as pid:
            pass
        placement = Placement()
        assert not any(placement.saw(pid) for _ in range(2 * PERIOD))
        assert os.sched_getaffinity(0) == allowed

    in_a_thread(work)


def test_programs_that_ask_in_turn_are_not_one() -> None:
    assert is_one_program(1)
    assert not is_one_program(PERIOD)
