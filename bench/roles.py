"""Figures of roles that move between two nodes: both stores are mounted, and a program writes."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import idemfs
from bench import stores
from bench.far import PROGRAM
from bench.measure import Figure, at_most, command, seconds
from idemfs.node.history import events

_COUNT = 200_000


@contextmanager
def _pair(directory: str, count: int) -> Iterator[tuple[str, str, str, str]]:
    """Two stores, ``count`` files in each, mounted: primary, standby, and where they are mounted."""
    primary, standby = stores.build(f"{directory}/primary", count), f"{directory}/standby"
    mounts = f"{directory}/a", f"{directory}/b"
    command(PROGRAM, "standby", "add", primary, standby)
    command(PROGRAM, "replicate", primary)
    for store, mount in zip((primary, standby), mounts, strict=True):
        os.mkdir(mount)
        command(PROGRAM, "mount", store, mount)
    try:
        yield primary, standby, *mounts
    finally:
        for mount in mounts:
            with suppress(subprocess.CalledProcessError):
                command(PROGRAM, "umount", mount)


class _Writer:
    """Writes 4 KiB to a file of a mount, synced, over and over; and when that is refused, to the same of the other."""

    def __init__(self, mounts: tuple[str, str]) -> None:
        self._mounts = mounts
        self._is_ending = False
        self.accepted: list[float] = [time.monotonic()]
        self.count = 0
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> _Writer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_ending = True
        self._thread.join()

    def _run(self) -> None:
        at = 0
        while not self._is_ending:
            try:
                with open(f"{self._mounts[at]}/written", "ab", buffering=0) as file:
                    while not self._is_ending:
                        file.write(b"x" * 4096)
                        os.fdatasync(file)
                        self.accepted.append(time.monotonic())
                        self.count += 1
            except OSError:
                at = 1 - at

    def longest_gap(self) -> float:
        return max(after - before for before, after in itertools.pairwise(self.accepted))


def switchover(directory: str) -> Iterator[Figure]:
    """Planned, while a program writes: for how long nobody took its writes."""
    with _pair(directory, _COUNT) as (primary, standby, a, b):
        gaps = []
        for store in (primary, standby) * 2:
            with _Writer((a, b)) as writer:
                time.sleep(1)
                command(PROGRAM, "switchover", "--yes", store)
                time.sleep(0.5)
            gaps.append(writer.longest_gap())
    details = f"longest of {len(gaps)} under load, {_COUNT:,} files; median {sorted(gaps)[len(gaps) // 2]:.2f} s"
    yield at_most("planned switchover, writes refused for", max(gaps), 1.0, details, " s")


def takeover(directory: str) -> Iterator[Figure]:
    """The primary is killed: from the start of ``failover`` to the first write that the standby takes."""
    with _pair(directory, _COUNT) as (primary, standby, a, b):
        with open(f"{a}/written", "wb") as file:
            file.write(b"x" * 4096)
        os.kill(_owner(primary), signal.SIGKILL)
        command("umount", "-l", a)
        begun = time.monotonic()
        process = subprocess.Popen([PROGRAM, "failover", "--yes", standby], stdout=subprocess.DEVNULL)
        while True:
            try:
                with open(f"{b}/first", "wb", buffering=0) as file:
                    file.write(b"x" * 4096)
                    os.fsync(file)
                break
            except OSError:
                time.sleep(0.002)
        took = time.monotonic() - begun
        process.wait()
    details = f"{_COUNT:,} files, the standby mounted; program start included, the write synced"
    yield at_most("failover, from the command to the first write taken", took, 1.0, details, " s")


def _owner(store: str) -> int:
    """The process that has it open."""
    with open(f"{store}/lock") as file:
        return int(file.read().split()[0])


def failback(directory: str) -> Iterator[Figure]:
    """1 % of the blocks changed on the store that took over: bytes that travel back, and time against 2 %."""
    took = {}
    for percent in (1, 2):
        there = f"{directory}/{percent}"
        os.mkdir(there)
        bytes_sent, changed, took[percent] = _back(there, percent)
        if percent == 1:
            details = f"{bytes_sent:,} bytes sent for {changed:,} bytes of changed blocks"
            yield at_most(
                "failback after 1 % changed, bytes against changed blocks", bytes_sent / changed, 1.05, details
            )
    details = f"{took[2]:.2f} s against {took[1]:.2f} s, the whole command"
    yield at_most("failback after 2 % changed against 1 %, time", took[2] / took[1], 2.2, details)


def _back(directory: str, percent: int) -> tuple[int, int, float]:
    """Bytes sent, bytes of changed blocks, seconds of the command."""
    primary, standby = f"{directory}/primary", f"{directory}/standby"
    block, count = 128 << 10, 8000
    with idemfs.create(primary) as fs, fs.open("/f", "wb", buffering=0) as file:
        for _ in range(count):
            file.write(os.urandom(block))
    command(PROGRAM, "standby", "add", primary, standby)
    command(PROGRAM, "replicate", primary)
    command(PROGRAM, "failover", "--yes", standby)
    changed = count * percent // 100
    with idemfs.open(standby) as fs, fs.open("/f", "r+b", buffering=0) as file:
        for index in range(changed):
            file.seek(index * (count // changed) * block)
            file.write(os.urandom(block))
    took = seconds(lambda: command(PROGRAM, "failback", "--yes", primary))
    sent = next(each.bytes for each in reversed(events(primary)) if each.what == "failback")
    return sent or 0, changed * block, took
