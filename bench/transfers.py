"""Figures of transfers to a second node, end to end: few changes among many files, one large one, many small ones."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from typing import BinaryIO

import idemfs
from bench import far, stores
from bench.measure import Figure, at_least, at_most, btrfs, command, need, paired, seconds
from idemfs.failover.standbys import LocalPlace, add_standby, invite
from idemfs.node.connecting import connect

_COUNT = 200_000
_CHANGED = 100
_BULK = 5 << 30
_SMALL_COUNT = 100_000
_SMALL = 4096


# -- a few changes among many files --------------------------------------------------------------------


def incremental(directory: str) -> Iterator[Figure]:
    """100 changed files of 200,000, durable on the other node: against rsync over ssh, and against btrfs."""
    need("rsync")
    primary, standby = stores.build(f"{directory}/primary", _COUNT), f"{directory}/standby"
    add_standby(primary, standby)
    marks = iter(range(1, 1 << 30))
    with far.sshd(directory) as ssh, idemfs.open(primary) as fs:
        fs.snapshots.create("base")
        channel = connect(f"ssh://127.0.0.1{standby}")
        with far.linked(fs, channel) as receiver:
            far.update(fs, receiver)

            def ours() -> float:
                mark = next(marks)
                stores.change(fs, _CHANGED, _COUNT, mark)

                def work() -> None:
                    fs.snapshots.create(f"s{mark}")
                    far.update(fs, receiver)

                took = seconds(work)
                fs.snapshots.delete("base" if mark == 1 else f"s{mark - 1}")
                return took

            ours()
            yield from _against_rsync(directory, ssh, ours)
            yield from _against_btrfs(directory, ours)


def _against_rsync(directory: str, ssh: list[str], ours: Callable[[], float]) -> Iterator[Figure]:
    source, target = stores.host_tree(f"{directory}/source", _COUNT), f"{directory}/target"
    words = ["rsync", "-a", "--delete", "-e", " ".join(ssh[:-1]), f"{source}/", f"{ssh[-1]}:{target}/"]
    command(*words)
    marks = iter(range(1, 1 << 30))

    def rsync() -> float:
        _change_host(source, next(marks))
        return seconds(lambda: command(*words))

    a, b, ratio = paired(rsync, ours, 5)
    details = (
        f"snapshot, change set, durable there: {b * 1e3:.0f} ms; rsync {a * 1e3:.0f} ms, both over ssh on loopback"
    )
    yield at_least("100 changed files of 200,000 to another node, against rsync -a --delete", ratio, 20, details)


def _change_host(tree: str, mark: int) -> None:
    for index in range(_CHANGED):
        with open(tree + stores.name(index * (_COUNT // _CHANGED)), "wb") as file:
            file.write(mark.to_bytes(8, "big") + stores.CONTENT[8:])


def _against_btrfs(directory: str, ours: Callable[[], float]) -> Iterator[Figure]:
    with btrfs(directory) as mount:
        tree = f"{mount}/tree"
        os.mkdir(f"{mount}/there")
        command("btrfs", "subvolume", "create", tree)
        stores.host_tree(tree, _COUNT)
        command("btrfs", "subvolume", "snapshot", "-r", tree, f"{mount}/s0")
        os.sync()
        _pipe(["btrfs", "send", "-q", f"{mount}/s0"], ["btrfs", "receive", f"{mount}/there"])
        marks = iter(range(1, 1 << 30))

        def theirs() -> float:
            mark = next(marks)
            _change_host(tree, mark)
            os.sync()

            def work() -> None:
                command("btrfs", "subvolume", "snapshot", "-r", tree, f"{mount}/s{mark}")
                command("btrfs", "filesystem", "sync", mount)
                _pipe(
                    ["btrfs", "send", "-q", "-p", f"{mount}/s{mark - 1}", f"{mount}/s{mark}"],
                    ["btrfs", "receive", f"{mount}/there"],
                )
                command("btrfs", "filesystem", "sync", mount)

            return seconds(work)

        theirs()
        a, b, ratio = paired(ours, theirs, 9)
    details = f"{a * 1e3:.0f} ms over ssh; {b * 1e3:.0f} ms through a pipe, snapshot and sync in both"
    yield at_most("the same against btrfs send -p | btrfs receive", ratio, 1.0, details)


def _pipe(sender: list[str], receiver: list[str]) -> None:
    with (
        subprocess.Popen(sender, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as first,
        subprocess.Popen(receiver, stdin=first.stdout, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as second,
    ):
        assert first.stdout is not None
        first.stdout.close()
    if first.returncode or second.returncode:
        raise RuntimeError(f"{sender[:2]} | {receiver[:2]} failed")


# -- one large transfer --------------------------------------------------------------------------------


def bulk(directory: str) -> Iterator[Figure]:
    """5 GiB for the first time, through pipes: against btrfs send | receive, and against nc between the same disks."""
    need("nc")
    primary = f"{directory}/primary"
    with idemfs.create(primary) as fs:
        _write_random(lambda name: fs.open(f"/{name}", "wb", buffering=0))
        fs.sync()
        fs.snapshots.create("all")
        size = _BULK / 1e6
        source = f"{directory}/plain"
        os.mkdir(source)
        _write_random(lambda name: _create(f"{source}/{name}"))
        nc, ours, ratio = paired(lambda: _nc(source, directory), lambda: _first_transfer(fs, directory), 3)
        details = f"{size / ours:.0f} MB/s; nc {size / nc:.0f} MB/s"
        yield at_least("5 GiB to another node, against nc of a file", ratio, 0.8, details)
        shutil.rmtree(source)
        with btrfs(directory, "14G") as mount:
            _fill_btrfs(mount)
            theirs, ours, ratio = paired(
                lambda: _btrfs_bulk(mount, directory), lambda: _first_transfer(fs, directory), 3
            )
    details = f"{size / ours:.0f} MB/s; btrfs {size / theirs:.0f} MB/s, through a pipe"
    yield at_least("5 GiB to another node, against btrfs send | btrfs receive", ratio, 0.8, details)


def _create(path: str) -> BinaryIO:
    return open(path, "wb", buffering=0)


def _write_random(create: Callable[[str], BinaryIO]) -> None:
    rng = random.Random(4)
    for number in range(5):
        with create(f"f{number}") as file:
            for _ in range(_BULK // 5 >> 20):
                file.write(rng.randbytes(1 << 20))


def _first_transfer(fs: idemfs.FileSystem, directory: str) -> float:
    standby = f"{directory}/standby"
    add_empty(fs, standby)
    forget(f"{directory}/primary")
    with far.piped(standby) as channel, far.linked(fs, channel) as receiver:
        took = seconds(lambda: far.update(fs, receiver))
    shutil.rmtree(standby)
    return took


def add_empty(fs: idemfs.FileSystem, standby: str) -> None:
    """A store that is ready to receive what ``fs`` holds."""
    place, invitation = LocalPlace(standby), invite(fs.tree, "primary")
    place.make(invitation)
    place.take_in(invitation, [])


def forget(*trees: str) -> None:
    """What is read next from files below these comes from the disk."""
    os.sync()
    for tree in trees:
        for folder, _, names in os.walk(tree):
            for name in names:
                fd = os.open(os.path.join(folder, name), os.O_RDONLY)
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
                os.close(fd)


def _nc(source: str, directory: str) -> float:
    """The same bytes from files to a file through nc on loopback, synced."""
    target = f"{directory}/copied"
    forget(source)
    port = far.free_port()
    words = f"nc -l 127.0.0.1 {port} > {target}; sync -d {target}"
    with subprocess.Popen(["sh", "-c", words]) as listener:
        far.wait_for_listener(port)
        took = seconds(lambda: (command("sh", "-c", f"cat {source}/* | nc -N 127.0.0.1 {port}"), listener.wait()))
    if os.path.getsize(target) != _BULK:
        raise RuntimeError("nc did not copy everything")
    os.unlink(target)
    return took


def _fill_btrfs(mount: str) -> None:
    command("btrfs", "subvolume", "create", f"{mount}/tree")
    os.mkdir(f"{mount}/there")
    _write_random(lambda name: _create(f"{mount}/tree/{name}"))
    command("btrfs", "subvolume", "snapshot", "-r", f"{mount}/tree", f"{mount}/all")


def _btrfs_bulk(mount: str, directory: str) -> float:
    # What is in the loop device's file is cached twice.
    forget(f"{mount}/all", directory)

    def send() -> None:
        _pipe(["btrfs", "send", "-q", f"{mount}/all"], ["btrfs", "receive", f"{mount}/there"])
        command("btrfs", "filesystem", "sync", mount)

    took = seconds(send)
    command("btrfs", "subvolume", "delete", "-C", f"{mount}/there/all")
    command("btrfs", "subvolume", "sync", mount)
    return took


# -- many small files ----------------------------------------------------------------------------------


def small(directory: str) -> Iterator[Figure]:
    """100,000 files of 4 KiB for the first time: against rsync over ssh, and against btrfs send | receive."""
    need("rsync")
    primary = f"{directory}/primary"
    rng = random.Random(5)
    with idemfs.create(primary) as fs, far.sshd(directory) as ssh:
        for index in range(_SMALL_COUNT):
            if index % stores.PER_DIRECTORY == 0:
                fs.makedirs(f"/d{index // stores.PER_DIRECTORY}")
            fs.write_bytes(stores.name(index), rng.randbytes(_SMALL))
        fs.sync()
        fs.snapshots.create("all")
        source = f"{directory}/source"
        _host_small(source)
        marks = iter(range(1 << 30))

        def ours() -> float:
            standby = f"{directory}/standby{next(marks)}"
            add_empty(fs, standby)
            with far.linked(fs, connect(f"ssh://127.0.0.1{standby}")) as receiver:
                took = seconds(lambda: far.update(fs, receiver))
            shutil.rmtree(standby)
            return took

        def rsync() -> float:
            target = f"{directory}/target{next(marks)}"
            words = ["rsync", "-a", "-e", " ".join(ssh[:-1]), f"{source}/", f"{ssh[-1]}:{target}/"]

            def work() -> None:
                command(*words)
                os.sync()

            took = seconds(work)
            shutil.rmtree(target)
            return took

        a, b, ratio = paired(ours, rsync, 3)
        details = f"{a:.1f} s; rsync {b:.1f} s, both over ssh on loopback and durable"
        yield at_most("100,000 files of 4 KiB to another node, against rsync", ratio, 1.0, details)
        with btrfs(directory) as mount:
            command("btrfs", "subvolume", "create", f"{mount}/tree")
            _host_small(f"{mount}/tree")
            command("btrfs", "subvolume", "snapshot", "-r", f"{mount}/tree", f"{mount}/all")
            os.sync()

            def theirs() -> float:
                there = f"{mount}/there{next(marks)}"
                os.mkdir(there)

                def work() -> None:
                    _pipe(["btrfs", "send", "-q", f"{mount}/all"], ["btrfs", "receive", there])
                    command("btrfs", "filesystem", "sync", mount)

                return seconds(work)

            a, b, ratio = paired(ours, theirs, 3)
    details = f"{a:.1f} s over ssh; btrfs {b:.1f} s through a pipe"
    yield at_most("the same against btrfs send | btrfs receive", ratio, 1.0, details)


def _host_small(tree: str) -> None:
    rng = random.Random(5)
    for index in range(_SMALL_COUNT):
        if index % stores.PER_DIRECTORY == 0:
            os.makedirs(f"{tree}/d{index // stores.PER_DIRECTORY}")
        with open(tree + stores.name(index), "wb") as file:
            file.write(rng.randbytes(_SMALL))
    os.sync()
