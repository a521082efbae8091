"""What a store holds, in full, as values to compare: every path with all that a user can see of it.

Times of access are left out: they are no part of a state.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from typing import NamedTuple

from idemfs.ids import Ino
from idemfs.vfs.reader import Reader
from idemfs.vfs.tree import Tree


class Thing(NamedTuple):
    """One path."""

    ino: Ino
    mode: int
    uid: int
    gid: int
    nlink: int
    rdev: int
    size: int
    mtime: int
    ctime: int
    btime: int
    content: str
    xattrs: tuple[tuple[bytes, bytes], ...]


Dump = dict[str, Thing]


class State(NamedTuple):
    """The active file system, and every snapshot by its name."""

    active: Dump
    snapshots: dict[str, Dump]


def state_of(tree: Tree) -> State:
    snapshots = tree.store.catalog.snapshots(tree.fileset)
    return State(
        dump_of(tree.reader),
        {snapshot.name: dump_of(tree.snapshot_reader(snapshot)) for snapshot in snapshots},
    )


def dump_of(reader: Reader) -> Dump:
    return dict(_walk(reader, "", reader.root))


def _walk(reader: Reader, path: str, ino: Ino) -> Iterator[tuple[str, Thing]]:
    node = reader.inode(ino)
    if node.is_dir:
        content = ""
    elif node.is_file:
        data = reader.read(ino, 0, node.size)
        assert len(data) == node.size
        content = hashlib.blake2b(data, digest_size=8).hexdigest()
    else:
        content = os.fsdecode(node.data)
    names = sorted(reader.xattr_names(ino))
    yield (
        path or "/",
        Thing(
            ino,
            node.mode,
            node.uid,
            node.gid,
            node.nlink,
            node.rdev,
            node.size,
            node.mtime,
            node.ctime,
            node.btime,
            content,
            tuple((name, reader.xattr(ino, name)) for name in names),
        ),
    )
    if node.is_dir:
        for name, child, _ in reader.all_entries(ino):
            yield from _walk(reader, f"{path}/{os.fsdecode(name)}", child)


def difference(wanted: State, found: State) -> str:
    """The first things in which two states differ, in words."""
    lines = list(_differing("active", wanted.active, found.active))
    for name in sorted(set(wanted.snapshots) | set(found.snapshots)):
        if name not in found.snapshots:
            lines.append(f"snapshot {name} is missing")
        elif name not in wanted.snapshots:
            lines.append(f"snapshot {name} should not be there")
        else:
            lines += _differing(f"snapshot {name}", wanted.snapshots[name], found.snapshots[name])
    return "\n".join(lines[:8]) or "they are equal"


def _differing(where: str, wanted: Dump, found: Dump) -> Iterator[str]:
    for path in sorted(set(wanted) | set(found)):
        if wanted.get(path) != found.get(path):
            yield f"{where}: {path}: wanted {wanted.get(path)}, found {found.get(path)}"
