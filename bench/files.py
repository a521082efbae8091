"""Figures of files: creating many small ones, writing and reading a large one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import idemfs
from bench import stores
from bench.measure import Figure, at_least, btrfs, command, need, paired, seconds

_COUNT = 200_000
_LARGE = 2 << 30
_CALL = 1 << 20


def create(directory: str) -> Iterator[Figure]:
    """200,000 files of 1 KiB through the Python API, durable at the end, against open/write/close on btrfs."""
    content = stores.CONTENT

    def ours() -> float:
        path = f"{directory}/store"
        shutil.rmtree(path, ignore_errors=True)
        with idemfs.create(path) as fs:
            for number in range(_COUNT // 1000):
                fs.mkdir(f"/d{number}")

            def run() -> None:
                for index in range(_COUNT):
                    fs.write_bytes(f"/d{index // 1000}/f{index}", content)
                fs.sync()

            return seconds(run)

    with btrfs(directory) as mount:

        def theirs() -> float:
            shutil.rmtree(f"{mount}/tree", ignore_errors=True)
            for number in range(_COUNT // 1000):
                os.makedirs(f"{mount}/tree/d{number}")

            def run() -> None:
                for index in range(_COUNT):
                    with open(f"{mount}/tree/d{index // 1000}/f{index}", "wb") as file:
                        file.write(content)
                command("sync", "-f", mount)

            return seconds(run)

        a, b, ratio = paired(theirs, ours, 3)
    rate = _COUNT / b
    yield at_least(
        "creating 200,000 files of 1 KiB, durable at the end", rate / 1000, 30, "one thread", " thousand a second"
    )
    yield at_least(
        "the same against open, write, close on btrfs", ratio, 2, f"{rate:.0f} against {_COUNT / a:.0f} a second"
    )


def large(directory: str) -> Iterator[Figure]:
    """Writing then reading 2 GiB through the Python API against cp on the same disk, both synced."""
    need("cp", "sync")
    source = f"{directory}/source"
    piece = os.urandom(64 << 20)
    with open(source, "wb") as file:
        for _ in range(_LARGE // len(piece)):
            file.write(piece)
    command("sync", source)

    def ours() -> float:
        path = f"{directory}/store"
        _remove(path)
        with idemfs.create(path) as fs:

            def run() -> None:
                with open(source, "rb", buffering=0) as file, fs.open("/large", "wb", buffering=0) as target:
                    while data := file.read(_CALL):
                        target.write(data)
                fs.sync()
                with fs.open("/large", "rb", buffering=0) as written:
                    while written.read(_CALL):
                        continue

            return seconds(run)

    def theirs() -> float:
        _remove(f"{directory}/copy")
        os.makedirs(f"{directory}/copy")

        def run() -> None:
            command("cp", "--reflink=never", source, f"{directory}/copy/large")
            command("sync", f"{directory}/copy/large")
            with open(f"{directory}/copy/large", "rb", buffering=0) as copied:
                while copied.read(_CALL):
                    continue

        return seconds(run)

    # The first run of each finds the host's memory cold.
    theirs(), ours()
    a, b, ratio = paired(theirs, ours, 5)
    details = f"{2 * _LARGE / b / 1e6:.0f} MB/s against {2 * _LARGE / a / 1e6:.0f} MB/s, written, synced and read"
    yield at_least("writing then reading 2 GiB against cp", ratio, 0.7, details, " of its rate")


def _remove(path: str) -> None:
    """Remove what the run before left, and have the host done with it: it may take its time, and somebody else's."""
    shutil.rmtree(path, ignore_errors=True)
    command("sync", "-f", os.path.dirname(path))
