"""The two machines themselves: the cable, what goes through it, ssh, and that nothing of them is left."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.netns import PREFIX, Machine, two_machines


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[tuple[Machine, Machine]]:
    with two_machines(tmp_path) as pair:
        yield pair


def ssh(here: Machine, there: Machine, command: str) -> subprocess.CompletedProcess[str]:
    process = here.start_program(here.environment["IDEMFS_SSH"], f"root@{there.address}", command)
    out, err = process.communicate(timeout=60)
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def test_each_reaches_the_other_over_ssh_and_finds_idemfs_there(machines: tuple[Machine, Machine]) -> None:
    a, b = machines
    for here, there in ((a, b), (b, a)):
        found = ssh(here, there, "ip -brief addr show dev wire; idemfs --version")
        assert found.returncode == 0, found.stderr
        assert there.address in found.stdout and "idemfs" in found.stdout


def test_a_cut_cable_is_noticed_and_a_mended_one_works_again(machines: tuple[Machine, Machine]) -> None:
    a, b = machines
    before = b.bytes_received()
    assert ssh(a, b, "true").returncode == 0
    assert b.bytes_received() > before
    for end in (a, b):
        end.cut()
        assert ssh(a, b, "true").returncode == 255
        end.mend()
        assert ssh(a, b, "true").returncode == 0


def test_nothing_is_left_of_machines_that_are_over(tmp_path: Path) -> None:
    with two_machines(tmp_path) as (a, b):
        running = a.start_program("cat", "/proc/self/stat")
        assert ssh(a, b, "true").returncode == 0
    assert running.poll() is not None
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    assert f"{PREFIX}-{os.getpid()}-" not in listed
