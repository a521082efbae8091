"""Two machines over a cable that is cut, and processes that are killed: real idemfs, real ssh."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

import idemfs as package
from idemfs.format import role as roles
from idemfs.limits import SILENCE_SECONDS
from idemfs.store.files import open_files
from tests.conformance.disks import small_disk
from tests.e2e.netns import Machine, two_machines, wait_until
from tests.e2e.program import done, rows

BULK = 24 << 20
SLACK = 2 << 20
"""What ssh, the network and idemfs itself add to what is sent, and what was on its way when the cable was cut."""


@pytest.fixture
def a(pair: tuple[Machine, Machine]) -> Machine:
    return pair[0]


@pytest.fixture
def b(pair: tuple[Machine, Machine]) -> Machine:
    return pair[1]


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Machine, Machine]]:
    """A primary with a file on machine a, and its standby on b, which know each other by their addresses."""
    with two_machines(tmp_path) as (a, b):
        done("init", a.path())
        write(a, "/first", "1")
        a.done("standby", "add", a.path(), b.url(), "--own-address", a.url())
        a.done("replicate", a.path())
        yield a, b
        for machine in (a, b):
            wait_until(lambda machine=machine: not peers_of(machine), "the other end is told")  # type: ignore[misc]
            assert done("check", machine.path()).startswith("clean")


def write(machine: Machine, path: str, text: str) -> None:
    with package.open(machine.path()) as fs:
        fs.write_text(path, text)


def read(machine: Machine, path: str) -> str:
    with package.open(machine.path(), readonly=True) as fs:
        return fs.read_text(path)


def write_bulk(machine: Machine, path: str = "/bulk") -> bytes:
    data = Random(path).randbytes(BULK)
    with package.open(machine.path()) as fs:
        fs.write_bytes(path, data)
    return data


def digests(machine: Machine) -> dict[str, str]:
    return {row["guid"]: row["digest"] for row in rows("snapshot", "list", machine.path())}


def role(machine: Machine) -> str:
    """Looked at where it is: 'status' would ask the other machine, too."""
    store = open_files(os.fspath(machine.path()), readonly=True)
    try:
        return roles.unpack(store.small.get(roles.KEY)).role.name.lower()
    finally:
        store.close()


def peers_of(machine: Machine) -> list[int]:
    """What answers for stores of this machine."""
    return machine.process_ids("idemfs", "peer", os.fspath(machine.path()))


def cut_both(a: Machine, b: Machine) -> None:
    a.cut()
    b.cut()


def mend_both(a: Machine, b: Machine) -> None:
    a.mend()
    b.mend()


def assert_equal(a: Machine, b: Machine, *paths: str) -> None:
    """What both have under one guid is the same, and both show the same files."""
    one, other = digests(a), digests(b)
    common = one.keys() & other.keys()
    assert common and all(one[guid] == other[guid] for guid in common)
    assert [read(a, path) for path in paths] == [read(b, path) for path in paths]


# -- transfers -----------------------------------------------------------------------------------------


def test_a_change_set_travels_once(a: Machine, b: Machine) -> None:
    data = write_bulk(a)
    before = b.bytes_received()
    a.done("replicate", a.path())
    assert BULK < b.bytes_received() - before < BULK + SLACK
    before = b.bytes_received()
    a.done("replicate", a.path())
    assert b.bytes_received() - before < SLACK / 10
    with package.open(b.path(), readonly=True) as fs:
        assert fs.read_bytes("/bulk") == data
    assert_equal(a, b, "/first")


def test_after_the_cable_was_cut_only_the_rest_travels(a: Machine, b: Machine) -> None:
    write_bulk(a)
    a.limit(80)
    before = b.bytes_received()
    sending = a.start("replicate", a.path())
    wait_until(lambda: b.bytes_received() - before > BULK // 2, "half of it travels")
    cut_both(a, b)
    came = b.bytes_received() - before
    _, said = sending.communicate(timeout=60)
    assert sending.returncode == 1
    assert said.splitlines()[-1].startswith("idemfs: ") and b.url() in said.splitlines()[-1]
    wait_until(lambda: not peers_of(b), "b finds that a has gone")
    assert read(b, "/first") == "1"
    mend_both(a, b)
    a.limit(None)
    before = b.bytes_received()
    a.done("replicate", a.path())
    assert b.bytes_received() - before < BULK - came + SLACK
    assert_equal(a, b, "/first")


@pytest.mark.parametrize("killed", ["a", "b"])
def test_either_side_is_killed_in_the_midst_of_a_transfer(a: Machine, b: Machine, killed: str) -> None:
    write_bulk(a)
    a.limit(80)
    before = b.bytes_received()
    sending = a.start("replicate", a.path())
    wait_until(lambda: b.bytes_received() - before > BULK // 3, "a third of it travels")
    if killed == "a":
        (pid,) = a.process_ids("idemfs", "replicate")
        os.kill(pid, 9)
        assert sending.wait(60) == -9
        wait_until(lambda: not peers_of(b), "b finds that a has gone")
    else:
        b.power_off()
        _, said = sending.communicate(timeout=60)
        assert sending.returncode == 1 and b.url() in said
        b.restart_sshd()
    a.limit(None)
    a.done("replicate", a.path())
    assert_equal(a, b, "/first")
    with package.open(a.path(), readonly=True) as mine, package.open(b.path(), readonly=True) as there:
        assert mine.read_bytes("/bulk") == there.read_bytes("/bulk")


# -- roles ---------------------------------------------------------------------------------------------


def test_the_primary_is_gone_and_comes_back_with_one_command(a: Machine, b: Machine) -> None:
    write(a, "/unsent", "only on a")
    a.power_off()
    cut_both(a, b)
    b.done("failover", b.path(), "--yes")
    assert read(b, "/first") == "1"
    write(b, "/second", "by b")
    mend_both(a, b)
    a.restart_sshd()
    before = a.bytes_received()
    a.done("failback", a.path(), "--yes")
    assert a.bytes_received() - before < SLACK
    assert (role(a), role(b)) == ("standby", "primary")
    assert done("cat", f"{a.path()}@diverged-1", "/unsent") == "only on a"
    assert_equal(a, b, "/first", "/second")
    b.done("switchover", b.path(), "--yes")
    write(a, "/third", "by a again")
    a.done("replicate", a.path())
    assert_equal(a, b, "/first", "/second", "/third")


@pytest.mark.long
def test_the_primary_vanishes_in_the_midst_of_a_transfer_and_nobody_tells_the_standby(a: Machine, b: Machine) -> None:
    """As an ssh server is set up that does not ask whether its clients are alive: soon b finds out by itself."""
    b.power_off()
    b.restart_sshd(asks_clients=False)
    write_bulk(a)
    a.limit(80)
    before = b.bytes_received()
    a.start("replicate", a.path())
    wait_until(lambda: b.bytes_received() - before > BULK // 3, "a third of it travels")
    cut_both(a, b)
    said = b.refused("failover", b.path(), "--yes")
    assert "in use by process" in said
    seconds = SILENCE_SECONDS + 15
    wait_until(lambda: b.idemfs("failover", b.path(), "--yes").status == 0, "b takes over", seconds)
    assert role(b) == "primary" and read(b, "/first") == "1"
    mend_both(a, b)


@pytest.mark.parametrize("direction", ["both", "a to b", "b to a"])
def test_two_sides_are_promoted_while_they_do_not_hear_each_other(a: Machine, b: Machine, direction: str) -> None:
    """It is noticed when they meet; nothing is lost, and one command settles it."""
    if direction != "b to a":
        a.cut()
    if direction != "a to b":
        b.cut()
    b.done("failover", b.path(), "--yes")
    write(b, "/by-b", "b")
    write(a, "/by-a", "a")
    assert "is not reachable" in a.idemfs("replicate", a.path()).err
    assert (role(a), role(b)) == ("primary", "primary")
    if direction != "b to a":
        a.mend()
    if direction != "a to b":
        b.mend()
    assert "run 'idemfs failback" in a.refused("replicate", a.path())
    assert (role(a), role(b)) == ("fenced", "primary")
    a.done("failback", a.path(), "--yes")
    assert (role(a), role(b)) == ("standby", "primary")
    assert done("cat", f"{a.path()}@diverged-1", "/by-a") == "a"
    assert_equal(a, b, "/first", "/by-b")


def test_the_cable_is_cut_in_the_midst_of_a_switchover(a: Machine, b: Machine) -> None:
    """Nobody writes until the same command has finished it, and then one does."""
    write_bulk(a)
    a.limit(80)
    before = b.bytes_received()
    moving = a.start("switchover", a.path(), "--yes")
    wait_until(lambda: b.bytes_received() - before > BULK // 3, "a part of it travels")
    cut_both(a, b)
    moving.communicate(timeout=60)
    assert moving.returncode == 1
    wait_until(lambda: not peers_of(b), "b finds that a has gone")
    assert [role(a), role(b)].count("primary") <= 1
    mend_both(a, b)
    a.limit(None)
    a.done("switchover", a.path(), "--yes")
    assert (role(a), role(b)) == ("standby", "primary")
    write(b, "/by-b", "b")
    b.done("switchover", b.path(), "--yes")
    assert (role(a), role(b)) == ("primary", "standby")
    assert_equal(a, b, "/first", "/by-b")


WRITER = """\
import os, select, sys

folder, log, name = sys.argv[1:]
number = 0
while True:
    path = f"{folder}/{name}-{number}"
    try:
        fd = os.open(path, os.O_CREAT | os.O_WRONLY, 0o644)
        os.write(fd, path.rsplit("/", 1)[1].encode())
        os.fsync(fd)
        os.close(fd)
    except OSError:
        # Roles are exchanged: another machine writes just now.
        select.select([], [], [], 0.01)
        continue
    with open(log, "a") as lines:
        lines.write(f"{name}-{number}\\n")
    number += 1
"""


@pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="there is no /dev/fuse")
def test_roles_are_exchanged_while_users_write_on_both_machines(a: Machine, b: Machine, tmp_path: Path) -> None:
    """Both stores are mounted all the while. Everything that a user was told is durable is there in the end."""
    log = tmp_path / "acknowledged"
    log.touch()
    writers = []
    for machine in (a, b):
        place, pid = machine.mount()
        writers.append(machine.beside(pid, sys.executable, "-c", WRITER, str(place), str(log), machine.name))
    primary, other = a, b
    for _ in range(4):
        count = len(log.read_text().splitlines())
        wait_until(lambda count=count: len(log.read_text().splitlines()) > count + 10, "users write")  # type: ignore[misc]
        primary.done("switchover", primary.path(), "--yes")
        primary, other = other, primary
    for writer in writers:
        assert writer.poll() is None
        writer.kill()
        writer.wait()
    primary.done("replicate", primary.path())
    acknowledged = set(log.read_text().splitlines())
    assert {name[0] for name in acknowledged} == {"a", "b"}
    for machine in (a, b):
        machine.power_off()
        with package.open(machine.path(), readonly=True) as fs:
            there = {name for name in fs.listdir("/") if fs.is_file(f"/{name}")}
            assert acknowledged <= there, f"{machine.name} lost {acknowledged - there}"
            assert all(fs.read_text(f"/{name}") == name for name in acknowledged)
        machine.restart_sshd()


def test_the_disk_of_the_standby_is_full(tmp_path: Path) -> None:
    """It says so, its readers see what they saw, and it goes on when there is room."""
    # Mounted before the machines are there, which see what is mounted then.
    with small_disk(tmp_path / "disk", BULK * 2 // 3) as disk, two_machines(tmp_path) as (a, b):
        done("init", a.path())
        write(a, "/first", "1")
        standby = f"ssh://root@{b.address}{disk}/data"
        a.done("standby", "add", a.path(), standby, "--own-address", a.url())
        a.done("replicate", a.path())
        write_bulk(a)
        ended = a.idemfs("replicate", a.path())
        assert ended.status == 1 and "space" in ended.err.lower(), ended
        wait_until(lambda: not b.process_ids("idemfs", "peer"), "the other end is told")
        with package.open(disk / "data", readonly=True) as fs:
            assert fs.listdir("/") == ["first"] and fs.read_text("/first") == "1"
        subprocess.run(["mount", "-o", f"remount,size={BULK * 4}", str(disk)], check=True)
        a.done("replicate", a.path())
        wait_until(lambda: not b.process_ids("idemfs", "peer"), "the other end is told")
        with package.open(disk / "data", readonly=True) as fs:
            assert fs.stat("/bulk").st_size == BULK
        assert done("check", disk / "data").startswith("clean")


# -- what stands at the other end ----------------------------------------------------------------------


def test_the_standby_was_replaced_by_an_empty_store(a: Machine, b: Machine) -> None:
    b.path().rename(b.path("old"))
    done("init", b.path())
    empty = digests(b)
    ended = a.idemfs("replicate", a.path())
    assert ended.status == 1 and "another store stands there" in ended.err
    assert digests(b) == empty
    a.done("standby", "remove", a.path(), b.url())
    a.done("standby", "add", a.path(), b.url(), "--own-address", a.url())
    a.done("replicate", a.path())
    assert_equal(a, b, "/first")


def test_the_standby_was_replaced_by_a_store_of_something_else(a: Machine, b: Machine) -> None:
    b.path().rename(b.path("old"))
    done("init", b.path())
    write(b, "/foreign", "not yours")
    for words in (("replicate", a.path()), ("standby", "add", a.path(), b.url(), "--own-address", a.url())):
        ended = a.idemfs(*words)
        assert ended.status == 1, words
    assert read(b, "/foreign") == "not yours" and digests(b) == {}
    assert role(a) == "primary"
