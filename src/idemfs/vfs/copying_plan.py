"""What ``copying_in.put`` would do, found out by looking alone: nothing is read but names and attributes.

Threads: one for one plan.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from enum import Enum

from idemfs.ids import Ino
from idemfs.vfs.copying import is_same
from idemfs.vfs.paths import Paths, check_absolute
from idemfs.vfs.reader import Reader


class Action(Enum):
    MAKE = "make"
    REPLACE = "replace"
    KEEP = "keep"
    REMOVE = "remove"
    """With everything below."""
    REFUSE = "refuse"
    """Something of another kind is there, and this is no mirror."""


def plan(reader: Reader, source: bytes, target: bytes, *, mirror: bool = False) -> Iterator[tuple[Action, bytes]]:
    """Each name that would be made, replaced, kept or removed, with its path in the store. Raises ``OSError``."""
    check_absolute(target)
    status = os.stat(source)
    at = _find(reader, target)
    if not stat.S_ISDIR(status.st_mode):
        if target.endswith(b"/") or (at is not None and reader.inode(at).is_dir):
            target = _join(target, os.path.basename(source))
            at = _find(reader, target)
        yield _one(reader, at, os.path.realpath(source), status, mirror), target
        return
    waiting: list[tuple[bytes, bytes, Ino | None]] = [(source, target, at)]
    while waiting:
        path, target, at = waiting.pop()
        present = {name: ino for name, ino, _ in reader.all_entries(at)} if at is not None else {}
        with os.scandir(path) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
        if mirror:
            for name in present.keys() - {entry.name for entry in found}:
                yield Action.REMOVE, _join(target, name)
        for entry in found:
            status = entry.stat(follow_symlinks=False)
            ino, where = present.get(entry.name), _join(target, entry.name)
            action = _one(reader, ino, entry.path, status, mirror)
            yield action, where
            if stat.S_ISDIR(status.st_mode) and action is not Action.REFUSE:
                waiting.append((entry.path, where, ino if action is Action.KEEP else None))


def _one(reader: Reader, ino: Ino | None, path: bytes, status: os.stat_result, mirror: bool) -> Action:
    if ino is None:
        return Action.MAKE
    is_directory = stat.S_ISDIR(status.st_mode)
    if reader.inode(ino).is_dir != is_directory:
        return Action.REPLACE if mirror else Action.REFUSE
    if is_directory or (mirror and is_same(reader, ino, path, status)):
        return Action.KEEP
    return Action.REPLACE


def _find(reader: Reader, path: bytes) -> Ino | None:
    try:
        return Paths(reader).find(path)
    except FileNotFoundError:
        return None


def _join(directory: bytes, name: bytes) -> bytes:
    return directory.rstrip(b"/") + b"/" + name
