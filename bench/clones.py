"""Figures of clones: making one, and the first write to it."""

from __future__ import annotations

import random
from collections.abc import Iterator

import idemfs
from bench import stores
from bench.measure import Figure, at_most, paired, seconds

_ROUNDS = 31
_BLOCK = 128 << 10


def make(directory: str, count: int = 200_000) -> Iterator[Figure]:
    """A clone of a fileset of 200,000 files against one of an empty fileset."""
    large = idemfs.open(stores.build(f"{directory}/large", count))
    empty = idemfs.create(f"{directory}/empty")
    with large, empty:
        names = iter(range(1 << 30))
        for fs in (large, empty):
            fs.snapshots.create("origin")

        def clone(fs: idemfs.FileSystem) -> float:
            path = f"/clone{next(names)}"
            return seconds(lambda: fs.filesets.clone("origin", path))

        clone(large), clone(empty)
        a, b, ratio = paired(lambda: clone(large), lambda: clone(empty), _ROUNDS)
    details = f"{a * 1e3:.2f} ms against {b * 1e3:.2f} ms"
    yield at_most(f"clone, fileset of {count:,} files against an empty one", ratio, 1.5, details)


def first_write(directory: str, size: int = 10 << 30) -> Iterator[Figure]:
    """The first write to a large file of a clone, made durable, against a write to the original.

    The original has a snapshot newer than its last write in each round, so that both keep what they overwrite.
    """
    rng = random.Random(3)
    block = rng.randbytes(_BLOCK)
    with idemfs.create(f"{directory}/store") as fs:
        with fs.open("/file", "wb") as file:
            for _ in range(size // _BLOCK):
                file.write(block)
        fs.sync()
        fs.snapshots.create("origin")
        names = iter(range(1 << 30))

        def write(path: str, synced: bool) -> float:
            data, place = rng.randbytes(4096), rng.randrange(size // 4096) * 4096

            def run() -> None:
                with fs.open(path, "r+b", buffering=0) as file:
                    file.seek(place)
                    file.write(data)
                if synced:
                    fs.sync()

            return seconds(run)

        def to_clone(synced: bool) -> float:
            name = f"clone{next(names)}"
            fs.filesets.clone("origin", f"/{name}")
            return write(f"/{name}/file", synced)

        def to_original(synced: bool) -> float:
            fs.snapshots.create(f"s{next(names)}")
            return write("/file", synced)

        for synced, what in ((True, "first write to a clone"), (False, "the same, before it is durable")):
            to_clone(synced), to_original(synced)
            a, b, ratio = paired(lambda: to_clone(synced), lambda: to_original(synced), _ROUNDS)  # noqa: B023
            details = f"{a * 1e3:.2f} ms against {b * 1e3:.2f} ms, 4 KiB of a file of {size >> 20:,} MiB"
            yield at_most(f"{what} against a write to the original", ratio, 2, details)
