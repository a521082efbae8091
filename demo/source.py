"""The real input: the running Python's standard library, and the environment that this demo runs in.

Folders of compiled files are left out: Python writes them while it runs.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from typing import NamedTuple

from demo.manifest import Host

Key = tuple[int, int]
_PACKAGES = ("site-packages", "dist-packages")
_COMPILED = "__pycache__"


class Source(NamedTuple):
    """A directory of this machine, and the name that it gets in the store."""

    path: str
    name: str
    leave_out: frozenset[Key]
    """Device and inode number of the folders in it that are not copied."""

    def host(self) -> Host:
        return Host(self.path, self.leave_out)


def sources(directory: str | None = None) -> list[Source]:
    """What is imported: ``directory``, or what this Python consists of."""
    if directory is not None:
        return [Source(os.path.abspath(directory), "tree", _left_out(directory, ()))]
    library = sysconfig.get_path("stdlib")
    # Outside a virtual environment its packages stand for it.
    environment = sys.prefix if sys.prefix != sys.base_prefix else sysconfig.get_path("purelib")
    return [
        Source(library, "library", _left_out(library, _PACKAGES)),
        Source(environment, "environment", _left_out(environment, ())),
    ]


def _left_out(directory: str, names: tuple[str, ...]) -> frozenset[Key]:
    """Folders named ``names`` right below, and of compiled files anywhere."""
    found: set[Key] = set()
    for at, directories, _ in os.walk(directory):
        for name in list(directories):
            if name == _COMPILED or (at == directory and name in names):
                status = os.stat(os.path.join(at, name))
                found.add((status.st_dev, status.st_ino))
                directories.remove(name)
    return frozenset(found)


def measure(source: Source) -> tuple[int, int]:
    """Names and bytes of content."""
    count = size = 0
    host = source.host()
    for at, directories, others in host.walk("/"):
        count += len(directories) + len(others)
        size += sum(host.lstat(f"{at.rstrip('/')}/{name}").st_size for name in others)
    return count, size
