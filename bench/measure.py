"""Timing in pairs: what is compared runs in turn, in one process, and the median of the pairs' ratios is quoted.

The machines that run this are noisy, so absolute times say little, and ratios of
distant runs say less.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple


class Figure(NamedTuple):
    """One line of the result."""

    what: str
    value: str
    goal: str
    reached: bool
    details: str


class Skipped(Exception):
    """The case needs something that this machine does not have; the text names it."""


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def paired(first: Callable[[], float], second: Callable[[], float], rounds: int = 5) -> tuple[float, float, float]:
    """Median seconds of both, and the median of first / second over the rounds; the order changes each round."""
    firsts, seconds_, ratios = [], [], []
    for index in range(rounds):
        if index % 2:
            b = second()
            a = first()
        else:
            a = first()
            b = second()
        firsts.append(a)
        seconds_.append(b)
        ratios.append(a / b)
    return statistics.median(firsts), statistics.median(seconds_), statistics.median(ratios)


def at_most(what: str, ratio: float, goal: float, details: str, unit: str = " times") -> Figure:
    return Figure(what, f"{ratio:.2f}{unit}", f"<= {goal:g}{unit}", ratio <= goal, details)


def at_least(what: str, ratio: float, goal: float, details: str, unit: str = " times") -> Figure:
    return Figure(what, f"{ratio:.2f}{unit}", f">= {goal:g}{unit}", ratio >= goal, details)


def command(*words: str, **options: object) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(words, check=True, capture_output=True, **options)  # type: ignore[call-overload,no-any-return]


def need(*programs: str) -> None:
    """Raises ``Skipped`` for a program that is not installed."""
    for program in programs:
        if shutil.which(program) is None:
            raise Skipped(f"{program} is not installed")


@contextmanager
def workspace(parent: str | None) -> Iterator[str]:
    """A directory on the disk to measure, gone afterwards."""
    path = tempfile.mkdtemp(prefix="idemfs-bench-", dir=parent)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def btrfs(directory: str, size: str = "8G") -> Iterator[str]:
    """A new btrfs on a loop device whose image lies in ``directory``; its mount point."""
    need("mkfs.btrfs", "mount", "losetup")
    if os.geteuid():
        raise Skipped("mounting btrfs needs root")
    image, mount = os.path.join(directory, "btrfs.img"), os.path.join(directory, "btrfs")
    os.makedirs(mount, exist_ok=True)
    command("truncate", "-s", size, image)
    command("mkfs.btrfs", "-q", "-f", image)
    command("mount", "-o", "loop", image, mount)
    try:
        yield mount
    finally:
        command("umount", mount)
        with suppress(FileNotFoundError):
            os.unlink(image)
