"""Figures of differences: by size of the store, against rsync, against btrfs send."""

from __future__ import annotations

import os
from collections.abc import Iterator

import idemfs
from bench import stores
from bench.measure import Figure, at_least, at_most, btrfs, command, need, paired, seconds
from idemfs.replication.difference import difference
from idemfs.replication.send import send

_CHANGED = 100


def _prepared(path: str, count: int) -> idemfs.FileSystem:
    stores.build(path, count)
    fs = idemfs.open(path)
    fs.snapshots.create("base")
    stores.change(fs, _CHANGED, count, 1)
    fs.snapshots.create("target")
    return fs


def _difference(fs: idemfs.FileSystem) -> float:
    catalog = fs.tree.store.catalog
    base, target = catalog.by_name(fs.tree.fileset, "base"), catalog.by_name(fs.tree.fileset, "target")

    def run() -> int:
        return sum(1 for _ in difference(fs.tree, base, target))

    return seconds(run)


def _send(fs: idemfs.FileSystem, path: str) -> float:
    catalog = fs.tree.store.catalog
    base, target = catalog.by_name(fs.tree.fileset, "base"), catalog.by_name(fs.tree.fileset, "target")

    def run() -> None:
        with open(path, "wb") as file:
            send(fs.tree, base, target, file.write)

    return seconds(run)


def of_100_files(directory: str) -> Iterator[Figure]:
    """The difference of 100 changed files, in stores of two sizes, against rsync and btrfs."""
    with _prepared(f"{directory}/large", 200_000) as large, _prepared(f"{directory}/small", 2_000) as small:
        _difference(large), _difference(small)
        a, b, ratio = paired(lambda: _difference(large), lambda: _difference(small), 21)
        details = f"{a * 1e3:.2f} ms against {b * 1e3:.2f} ms"
        yield at_most("difference of 100 changed files, store of 200,000 against 2,000", ratio, 1.5, details)
        yield from _against_rsync(directory, large)
        yield from _against_btrfs(directory, large)


def _against_rsync(directory: str, large: idemfs.FileSystem) -> Iterator[Figure]:
    need("rsync")
    old = stores.host_tree(f"{directory}/old", 200_000)
    command("cp", "-a", old, f"{directory}/new")
    for index in range(_CHANGED):
        with open(f"{directory}/new{stores.name(index * 2000)}", "r+b") as file:
            file.write(b"changed!")

    def rsync() -> float:
        return seconds(lambda: command("rsync", "-a", "--dry-run", f"{directory}/new/", f"{old}/"))

    rsync()
    a, b, ratio = paired(rsync, lambda: _difference(large), 5)
    yield at_least(
        "the same difference against rsync -a --dry-run", ratio, 50, f"{b * 1e3:.1f} ms; rsync {a * 1e3:.0f} ms"
    )


def _against_btrfs(directory: str, large: idemfs.FileSystem) -> Iterator[Figure]:
    with btrfs(directory) as mount:
        tree = f"{mount}/tree"
        command("btrfs", "subvolume", "create", tree)
        stores.host_tree(tree, 200_000)
        command("btrfs", "subvolume", "snapshot", "-r", tree, f"{mount}/base")
        for index in range(_CHANGED):
            with open(tree + stores.name(index * 2000), "wb") as file:
                file.write(b"changed!" + stores.CONTENT[8:])
        command("btrfs", "subvolume", "snapshot", "-r", tree, f"{mount}/target")
        os.sync()
        stream = f"{directory}/btrfs.stream"

        def btrfs_send() -> float:
            return seconds(
                lambda: command("btrfs", "send", "-q", "-p", f"{mount}/base", "-f", stream, f"{mount}/target")
            )

        btrfs_send(), _send(large, f"{directory}/stream")
        a, b, ratio = paired(lambda: _send(large, f"{directory}/stream"), btrfs_send, 9)
    yield at_most(
        "the change set of 100 files, written, against btrfs send -p", ratio, 1.0, f"{a * 1e3:.1f} ms; {b * 1e3:.1f} ms"
    )
