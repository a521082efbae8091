"""Stores to measure on: so many files of 1 KiB, 1,000 a directory."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress

import idemfs

PER_DIRECTORY = 1000
CONTENT = bytes(range(256)) * 4


def fill(fs: idemfs.FileSystem, count: int) -> None:
    """``count`` files in ``/d0``, ``/d1`` …"""
    for first in range(0, count, PER_DIRECTORY):
        directory = f"/d{first // PER_DIRECTORY}"
        fs.makedirs(directory)
        for index in range(first, min(count, first + PER_DIRECTORY)):
            fs.write_bytes(f"{directory}/f{index}", CONTENT)
    fs.sync()


def build(path: str, count: int, **options: object) -> str:
    """A new store with ``count`` files."""
    with idemfs.create(path, **options) as fs:  # type: ignore[arg-type]
        fill(fs, count)
    return path


def copy(path: str, target: str) -> str:
    """The same store once more."""
    shutil.copytree(path, target)
    with suppress(FileNotFoundError):
        os.unlink(os.path.join(target, "lock"))
    return target


def name(index: int) -> str:
    return f"/d{index // PER_DIRECTORY}/f{index}"


def change(fs: idemfs.FileSystem, count: int, total: int, mark: int) -> None:
    """Rewrite ``count`` of ``total`` files, spread evenly, with content that ``mark`` makes new."""
    step = total // count
    for index in range(count):
        fs.write_bytes(name(index * step), mark.to_bytes(8, "big") + CONTENT[8:])
    fs.sync()


def host_tree(path: str, count: int) -> str:
    """An equal tree on a host file system."""
    for first in range(0, count, PER_DIRECTORY):
        directory = f"{path}/d{first // PER_DIRECTORY}"
        os.makedirs(directory)
        for index in range(first, min(count, first + PER_DIRECTORY)):
            with open(f"{directory}/f{index}", "wb") as file:
                file.write(CONTENT)
    os.sync()
    return path
