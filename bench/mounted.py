"""File systems to be compared through their mounts, each on the disk of one directory."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import idemfs
from bench.measure import Skipped, command, need
from idemfs.mount.awake import DEVICE

PROGRAM = os.path.join(os.path.dirname(sys.executable), "idemfs")
_SYSTEM_PYTHON = "/usr/bin/python3"
_PATIENCE_SECONDS = 20
_POOL = "idemfsbench"


@contextmanager
def store(directory: str, name: str = "idemfs") -> Iterator[str]:
    """A store, mounted; its mount point."""
    path, mount = f"{directory}/{name}.store", _mount_point(directory, name)
    if not os.path.exists(path):
        idemfs.create(path).close()
    command(PROGRAM, "mount", path, mount)
    try:
        yield mount
    finally:
        command(PROGRAM, "umount", mount)


@contextmanager
def bindfs(directory: str) -> Iterator[str]:
    """A directory of the host, seen through ``bindfs``, the plainest FUSE file system in C; its mount point."""
    need("bindfs", "fusermount3")
    mount = _mount_point(directory, "bindfs")
    below = f"{directory}/bindfs.below"
    os.makedirs(below, exist_ok=True)
    command("bindfs", below, mount)
    try:
        yield mount
    finally:
        command("umount", mount)


@contextmanager
def nothing(directory: str) -> Iterator[str]:
    """``bench/nothing.py``, mounted; its mount point."""
    if not _succeeds(_SYSTEM_PYTHON, "-c", "import pyfuse3"):
        raise Skipped("python3-pyfuse3 is not installed")
    mount = _mount_point(directory, "nothing")
    server = subprocess.Popen([_SYSTEM_PYTHON, os.path.join(os.path.dirname(__file__), "nothing.py"), mount])
    try:
        _wait_until(lambda: os.path.ismount(mount), "bench/nothing.py")
        yield mount
    finally:
        if os.path.ismount(mount):
            command("umount", mount)
        server.wait(_PATIENCE_SECONDS)


@contextmanager
def zfs_fuse(directory: str) -> Iterator[str]:
    """A pool of ``zfs-fuse`` on a file; its mount point."""
    need("zfs-fuse", "zpool")
    if os.geteuid():
        raise Skipped("zfs-fuse needs root")
    image, mount = f"{directory}/zfs.img", _mount_point(directory, "zfs")
    command("truncate", "-s", "16G", image)
    daemon = subprocess.Popen(["zfs-fuse", "--no-daemon"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_until(lambda: _succeeds("zpool", "list"), "zfs-fuse")
        command("zpool", "create", "-f", "-o", "cachefile=none", "-m", mount, _POOL, image)
        try:
            yield mount
        finally:
            command("umount", mount)
            _wait_until(lambda: _succeeds("zpool", "destroy", "-f", _POOL), "an end of zfs-fuse's pool")
    finally:
        daemon.terminate()
        daemon.wait(_PATIENCE_SECONDS)
        os.unlink(image)


@contextmanager
def awake() -> Iterator[None]:
    """Idle processors look for work, for whatever is measured."""
    with open(DEVICE, "wb", buffering=0) as device:
        device.write(bytes(4))
        yield


def empty(mount: str) -> None:
    """Remove all that a mounted file system holds."""
    for name in os.listdir(mount):
        shutil.rmtree(f"{mount}/{name}") if os.path.isdir(f"{mount}/{name}") else os.unlink(f"{mount}/{name}")


def _mount_point(directory: str, name: str) -> str:
    path = f"{directory}/{name}"
    os.makedirs(path, exist_ok=True)
    return path


def _succeeds(*words: str) -> bool:
    return subprocess.run(words, capture_output=True).returncode == 0


def _wait_until(condition: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + _PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > until:
            raise Skipped(f"{what} does not start here")
        time.sleep(0.05)
