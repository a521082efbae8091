"""Figures of many filesets and snapshots: one instant over 100 filesets, 10,000 snapshots of one, against btrfs."""

from __future__ import annotations

import fcntl
import os
import random
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import idemfs
from bench.measure import Figure, at_least, at_most, btrfs, paired, seconds

_BLOCK = 128 << 10
_FILESET_COUNT = 100
_PIECES_A_SECOND = 200
"""Of one block each: 25 MB/s."""
_FILE_SIZE = 256 << 20
_CHANGED = 1 / 100


@contextmanager
def _writing(write: Callable[[int], object]) -> Iterator[None]:
    """Meanwhile ``write`` is called with 0, 1, 2 … at a steady pace, in a thread of its own."""
    done = threading.Event()
    failures: list[BaseException] = []

    def run() -> None:
        start = time.monotonic()
        number = 0
        try:
            while not done.wait(max(0.0, start + number / _PIECES_A_SECOND - time.monotonic())):
                write(number)
                number += 1
        except BaseException as failure:
            failures.append(failure)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
    if failures:
        raise failures[0]


def group(directory: str) -> Iterator[Figure]:
    """A snapshot of 100 filesets at one instant against one of one, while all of them are written to."""
    data = random.Random(1).randbytes(_BLOCK)
    with idemfs.create(f"{directory}/store") as fs:
        for number in range(_FILESET_COUNT):
            fs.makedirs(f"/f{number}")
            fs.filesets.create(f"/f{number}")
        files = [fs.open(f"/f{number}/file", "wb", buffering=0) for number in range(_FILESET_COUNT)]
        marks = iter(range(1 << 30))

        def write(number: int) -> None:
            file = files[number % _FILESET_COUNT]
            file.seek(number // _FILESET_COUNT % 8 * _BLOCK)
            file.write(data)

        def take(count: int) -> float:
            mark = next(marks)
            names = [f"f{number}@s{mark}" for number in range(count)]
            return seconds(lambda: fs.snapshots.create_all(*names))

        with _writing(write):
            take(_FILESET_COUNT), take(1)
            a, b, ratio = paired(lambda: take(_FILESET_COUNT), lambda: take(1), 41)
        for file in files:
            file.close()
    details = f"{a * 1e3:.2f} ms against {b * 1e3:.2f} ms, durable, 25 MB/s being written"
    yield at_most("snapshot of 100 filesets at one instant against one of one", ratio, 2, details)
    yield at_most("the same, in itself", a * 1e3, 10, details, " ms")


def many(directory: str) -> Iterator[Figure]:
    """10,000 snapshots of one fileset against 10: create, list, read the oldest, delete one in the middle."""
    counts = {"many": 10_000, "few": 10}
    opened = {key: idemfs.create(f"{directory}/{key}") for key in counts}
    rng = random.Random(2)
    marks = iter(range(1 << 30))

    def take(fs: idemfs.FileSystem) -> str:
        """A snapshot that will own one block."""
        name = fs.snapshots.create(f"s{next(marks)}").name
        with fs.open("/file", "r+b", buffering=0) as file:
            file.seek(rng.randrange(64) * _BLOCK)
            file.write(rng.randbytes(4096))
        return name

    names: dict[idemfs.FileSystem, list[str]] = {}
    for key, fs in opened.items():
        fs.write_bytes("/file", rng.randbytes(64 * _BLOCK))
        names[fs] = [take(fs) for _ in range(counts[key])]
    with opened["many"] as large, opened["few"] as small:

        def both(run: Callable[[idemfs.FileSystem], float], rounds: int) -> tuple[float, float, float]:
            run(large), run(small)
            return paired(lambda: run(large), lambda: run(small), rounds)

        a, b, ratio = both(lambda fs: seconds(lambda: fs.snapshots.create(f"n{next(marks)}")), 41)
        yield at_most("snapshot create, 10,000 snapshots against 10", ratio, 1.5, f"{a * 1e3:.2f} ms; {b * 1e3:.2f} ms")
        a = min(seconds(large.snapshots.list) for _ in range(5))
        yield at_least("listing them", len(large.snapshots) / a, 50_000, f"{a * 1e3:.0f} ms", " a second")

        def read_oldest(fs: idemfs.FileSystem) -> float:
            fs.tree.store.data.drop_cache()
            with fs.snapshots[names[fs][0]].open("/file", "rb", buffering=0) as file:
                return seconds(lambda: [(file.seek(number * _BLOCK), file.read(4096)) for number in range(64)])

        a, b, ratio = both(read_oldest, 21)
        yield at_most("reading 64 blocks of the oldest", ratio, 1.5, f"{a * 1e3:.2f} ms; {b * 1e3:.2f} ms")

        def delete_middle(fs: idemfs.FileSystem) -> float:
            middle = names[fs].pop(len(names[fs]) // 2)
            took = seconds(lambda: fs.snapshots.delete(middle))
            names[fs].append(take(fs))
            fs.sync()
            return took

        a, b, ratio = both(delete_middle, 21)
        yield at_most("deleting one in the middle", ratio, 1.5, f"{a * 1e3:.2f} ms; {b * 1e3:.2f} ms")


_SUBVOL_CREATE, _SNAP_CREATE, _SNAP_DESTROY, _SYNC = 0x5000940E, 0x50009417, 0x5000940F, 0x9408
_READONLY = 2


def _btrfs(directory: str, request: int, arguments: bytes) -> None:
    """What ``btrfs subvolume`` asks of the kernel, without the start of a process; durable on return."""
    fd = os.open(directory, os.O_RDONLY)
    try:
        # Longer ones than 1,024 bytes must be such that the kernel could change.
        fcntl.ioctl(fd, request, bytearray(arguments))
        fcntl.ioctl(fd, _SYNC)
    finally:
        os.close(fd)


def _btrfs_snapshot(source: str, mount: str, name: str, flags: int = _READONLY) -> None:
    subvolume = os.open(source, os.O_RDONLY)
    try:
        _btrfs(mount, _SNAP_CREATE, struct.pack("=qQQ32x4040s", subvolume, 0, flags, name.encode()))
    finally:
        os.close(subvolume)


def against_btrfs(directory: str) -> Iterator[Figure]:
    """Creating and deleting snapshots while a file is overwritten, and going back to one, against btrfs on a loop."""
    rng = random.Random(3)
    data = rng.randbytes(_BLOCK)
    blocks = _FILE_SIZE // _BLOCK
    with btrfs(directory) as mount, idemfs.create(f"{directory}/store") as fs:
        active = f"{mount}/active"
        _btrfs(mount, _SUBVOL_CREATE, struct.pack("=q4088s", 0, b"active"))
        with open(f"{active}/file", "wb", buffering=0) as host, fs.open("/file", "wb", buffering=0) as ours:
            for _ in range(blocks):
                host.write(data)
                ours.write(data)
        os.sync()
        fs.sync()
        marks = iter(range(1 << 30))

        def ours_once() -> tuple[float, float]:
            name = f"s{next(marks)}"
            made = seconds(lambda: fs.snapshots.create(name))
            time.sleep(0.05)
            return made, seconds(lambda: fs.snapshots.delete(name))

        def btrfs_once() -> tuple[float, float]:
            name = f"s{next(marks)}"
            made = seconds(lambda: _btrfs_snapshot(active, mount, name))
            time.sleep(0.05)
            return made, seconds(lambda: _btrfs(mount, _SNAP_DESTROY, struct.pack("=q4088s", 0, name.encode())))

        with open(f"{active}/file", "r+b", buffering=0) as host, fs.open("/file", "r+b", buffering=0) as ours:

            def write(number: int) -> None:
                at = rng.randrange(blocks) * _BLOCK
                for file in (host, ours):
                    file.seek(at)
                    file.write(data)

            with _writing(write):
                rounds = [(ours_once(), btrfs_once()) for _ in range(25)]
        for index, what in enumerate(("creating", "deleting")):
            a, b, ratio = _medians([(mine[index], theirs[index]) for mine, theirs in rounds])
            details = f"{a * 1e3:.1f} ms against {b * 1e3:.1f} ms, durable, 25 MB/s being written to each"
            yield at_most(f"{what} a snapshot under load, against btrfs", ratio, 1, details)
        yield from _restore_against_btrfs(fs, mount, rng)


def _restore_against_btrfs(fs: idemfs.FileSystem, mount: str, rng: random.Random) -> Iterator[Figure]:
    active, blocks = f"{mount}/active", _FILE_SIZE // _BLOCK
    fs.snapshots.create("base")
    _btrfs_snapshot(active, mount, "base")
    marks = iter(range(1 << 30))

    def change(file: object) -> None:
        for number in rng.sample(range(blocks), int(blocks * _CHANGED)):
            file.seek(number * _BLOCK)  # type: ignore[attr-defined]
            file.write(rng.randbytes(_BLOCK))  # type: ignore[attr-defined]

    def ours() -> float:
        with fs.open("/file", "r+b", buffering=0) as file:
            change(file)
        fs.sync()
        return seconds(lambda: fs.snapshots.restore("base", f"undo{next(marks)}"))

    def theirs() -> float:
        with open(f"{active}/file", "r+b", buffering=0) as file:
            change(file)
        os.sync()

        def back() -> None:
            # What there was stays as well, as with us.
            os.rename(active, f"{mount}/undo{next(marks)}")
            _btrfs_snapshot(f"{mount}/base", mount, "active", 0)

        return seconds(back)

    ours(), theirs()
    a, b, ratio = paired(ours, theirs, 9)
    details = f"{a * 1e3:.1f} ms against {b * 1e3:.1f} ms, 1 % of 256 MiB changed, both with what there was kept"
    yield at_most("going back to a snapshot, against btrfs", ratio, 1, details)


def _medians(pairs: list[tuple[float, float]]) -> tuple[float, float, float]:
    """Of the first ones, of the second ones, and of their ratios."""
    from statistics import median

    return median(a for a, _ in pairs), median(b for _, b in pairs), median(a / b for a, b in pairs)
