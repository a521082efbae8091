"""Figures of snapshots: creating, reading the oldest, overwriting under many, deleting."""

from __future__ import annotations

import random
from collections.abc import Iterator

import idemfs
from bench import stores
from bench.measure import Figure, at_most, paired, seconds

_BLOCK = 128 << 10


def create(directory: str) -> Iterator[Figure]:
    """Snapshot create: a store of 200,000 files against one of 200, and the bytes that it adds."""
    large = idemfs.open(stores.build(f"{directory}/large", 200_000))
    small = idemfs.open(stores.build(f"{directory}/small", 200))
    with large, small:
        names = iter(range(1 << 30))

        def take(fs: idemfs.FileSystem) -> float:
            return seconds(lambda: fs.snapshots.create(f"s{next(names)}"))

        take(large), take(small)
        before, records_before = _host_bytes(large), _record_bytes(large)
        a, b, ratio = paired(lambda: take(large), lambda: take(small), 41)
        added = max(_host_bytes(large) - before, _record_bytes(large) - records_before) / 41
    details = f"{a * 1e3:.2f} ms against {b * 1e3:.2f} ms"
    yield at_most("snapshot create, store of 200,000 files against 200 files", ratio, 1.5, details)
    yield at_most("bytes that a snapshot adds", added / 1024, 4, f"mean of 41: {added:.0f} bytes of records", " KiB")


def _host_bytes(fs: idemfs.FileSystem) -> int:
    store = fs.tree.store
    return store.kv.used_bytes() + store.blocks.used_bytes()


def _record_bytes(fs: idemfs.FileSystem) -> int:
    """Keys and values of the small table, where snapshots stand; the host may not need a page more for them."""
    pairs = fs.tree.store.small.scan(b"", b"\xff", 1 << 20)
    return sum(len(key) + len(value) for key, value in pairs)


def oldest_of_many(directory: str) -> Iterator[Figure]:
    """Random 4 KiB reads in the oldest of 1,000 snapshots, each with changes of its own, against the active file."""
    size = 256 << 20
    rng = random.Random(1)
    with idemfs.create(f"{directory}/many") as fs:
        block = rng.randbytes(_BLOCK)
        with fs.open("/file", "wb") as file:
            for _ in range(size // _BLOCK):
                file.write(block)
        fs.sync()
        for index in range(1000):
            fs.snapshots.create(f"s{index}")
            with fs.open("/file", "r+b") as file:
                for _ in range(2):
                    file.seek(rng.randrange(size // _BLOCK) * _BLOCK)
                    file.write(rng.randbytes(_BLOCK))
        fs.sync()
    with idemfs.open(f"{directory}/many") as fs:
        oldest = fs.snapshots["s0"]
        offsets = [rng.randrange(size // 4096) * 4096 for _ in range(4000)]
        with fs.open("/file", "rb", buffering=0) as active, oldest.open("/file", "rb", buffering=0) as old:

            def read(file: object) -> float:
                def run() -> None:
                    for offset in offsets:
                        file.seek(offset)  # type: ignore[attr-defined]
                        file.read(4096)  # type: ignore[attr-defined]

                fs.tree.store.data.drop_cache()
                return seconds(run)

            first = seconds(lambda: (old.seek(0), old.read(4096)))
            a, b, ratio = paired(lambda: read(old), lambda: read(active), 5)
        details = f"{a / 4:.3f} ms against {b / 4:.3f} ms a read; the very first read {first * 1e3:.1f} ms"
        yield at_most("random 4 KiB reads, oldest of 1,000 snapshots against active", ratio, 1.5, details)


def overwriting(directory: str) -> Iterator[Figure]:
    """Overwriting blocks of a file with 1,000 snapshots present against none."""
    size = 128 << 20
    rng = random.Random(2)

    def build(path: str, snapshots: int) -> idemfs.FileSystem:
        fs = idemfs.create(path)
        with fs.open("/file", "wb") as file:
            for _ in range(size >> 20):
                file.write(rng.randbytes(1 << 20))
        fs.sync()
        for index in range(snapshots):
            fs.snapshots.create(f"s{index}")
            with fs.open("/file", "r+b") as file:
                file.seek(rng.randrange(size // _BLOCK) * _BLOCK)
                file.write(rng.randbytes(_BLOCK))
        fs.sync()
        return fs

    with build(f"{directory}/with", 1000) as many, build(f"{directory}/without", 0) as none:

        def overwrite(fs: idemfs.FileSystem) -> float:
            data = rng.randbytes(_BLOCK)

            def run() -> None:
                with fs.open("/file", "r+b", buffering=0) as file:
                    for number in range(size // _BLOCK):
                        file.seek(number * _BLOCK)
                        file.write(data)
                fs.sync()

            return seconds(run)

        counter = iter(range(100))

        def under_many() -> float:
            # A new newest snapshot each time, so that every block is preserved once.
            many.snapshots.create(f"n{next(counter)}")
            return overwrite(many)

        overwrite(none), under_many()
        a, b, ratio = paired(under_many, lambda: overwrite(none), 7)
    details = f"{size / a / 1e6:.0f} MB/s against {size / b / 1e6:.0f} MB/s, every block preserved once"
    yield at_most("overwriting with 1,000 snapshots present against none", ratio, 1.3, details)


def delete(directory: str) -> Iterator[Figure]:
    """Deleting a snapshot that owns 100 files: a store of 200,000 files against one of 2,000."""
    counts = {"large": 200_000, "small": 2_000}
    opened = {key: idemfs.open(stores.build(f"{directory}/{key}", count)) for key, count in counts.items()}
    marks = iter(range(1 << 30))
    with opened["large"], opened["small"]:

        def run(key: str) -> float:
            fs, mark = opened[key], next(marks)
            fs.snapshots.create(f"a{mark}")
            fs.snapshots.create(f"b{mark}")
            stores.change(fs, 100, counts[key], mark)
            return seconds(lambda: fs.snapshots.delete(f"b{mark}"))

        run("large"), run("small")
        a, b, ratio = paired(lambda: run("large"), lambda: run("small"), 15)
    details = f"{a * 1e3:.1f} ms against {b * 1e3:.1f} ms for a snapshot that owns 100 files"
    yield at_most("delete of a snapshot, 200,000 files against 2,000", ratio, 1.5, details)
