"""Figures of restore: a fileset and a directory that are 1 % away from a snapshot."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import idemfs
from bench.measure import Figure, at_most, seconds

_BLOCK = 128 << 10
_FILE_SIZE = 64 << 20
_GIB = int(os.environ.get("IDEMFS_BENCH_GIB", "10"))
"""How much the fileset holds."""
_ROUNDS = 3


def restore(directory: str) -> Iterator[Figure]:
    """Going back to a snapshot over one block in a hundred, of all files: all of it, and by the path of a directory."""
    rng = random.Random(1)
    with idemfs.create(f"{directory}/store") as fs:
        fs.mkdir("/d")
        paths = [f"/d/{number}" for number in range((_GIB << 30) // _FILE_SIZE)]
        data = rng.randbytes(1 << 20)
        for number, path in enumerate(paths):
            with fs.open(path, "wb", buffering=0) as file:
                for piece in range(_FILE_SIZE >> 20):
                    file.write(number.to_bytes(4, "big") + piece.to_bytes(4, "big") + data[8:])
        fs.snapshots.create("s")
        whole = [_round(fs, paths, rng, None) for _ in range(_ROUNDS)]
        one = [_round(fs, paths, rng, "/d") for _ in range(_ROUNDS)]
    for what, rounds in (("fileset", whole), ("directory by its path", one)):
        times = sorted(time for time, _ in rounds)
        written = max(count for _, count in rounds)
        details = f"{_GIB} GiB, {written} data blocks written; {times[0]:.2f} to {times[-1]:.2f} s"
        figure = at_most(f"restore of a {what} to a snapshot 1 % away", times[_ROUNDS // 2], 1, details, " s")
        yield figure._replace(reached=figure.reached and not written)


def _round(fs: idemfs.FileSystem, paths: list[str], rng: random.Random, path: str | None) -> tuple[float, int]:
    """Seconds of a restore, and the blocks that it wrote."""
    block = rng.randbytes(_BLOCK)
    for each in paths:
        with fs.open(each, "r+b", buffering=0) as file:
            for number in rng.sample(range(_FILE_SIZE // _BLOCK), _FILE_SIZE // _BLOCK // 100):
                file.seek(number * _BLOCK)
                file.write(block)
    fs.sync()
    before = _taken(fs)
    if path is None:
        time = seconds(lambda: fs.snapshots.restore("s"))
    else:
        time = seconds(lambda: fs.snapshots.restore("s", path=path))
    return time, (_taken(fs) - before) * 4096 // _BLOCK


def _taken(fs: idemfs.FileSystem) -> int:
    """Sectors that hold something."""
    space = fs.tree.store.space
    return space.sector_count - space.free_sectors()
