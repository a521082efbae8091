"""The versions of one file over all snapshots and the active state, each once.

A file is whatever had the path at some time, and goes on under its other names, by its inode. No tree is walked: the
versions of the few records on the way to the file are fetched once, and each snapshot is then looked up in them.

Threads: under the store's lock; the caller has settled the open group.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from typing import NamedTuple

from idemfs.format import entry, keys
from idemfs.format import inode as inodes
from idemfs.format.inode import Inode
from idemfs.format.tables import Snapshot
from idemfs.ids import ROOT_NUMBER, FilesetId, Ino, Number, SnapshotId, make_ino, number_of
from idemfs.limits import SCAN_COUNT
from idemfs.snapshots.diff import TYPES, Paths
from idemfs.store.store import Store
from idemfs.versions import rule
from idemfs.versions.active import Active
from idemfs.versions.resolve import View
from idemfs.versions.state import ActiveView, Records

_ACTIVE = SnapshotId(1 << 60)
"""Newer than every snapshot."""


class Version(NamedTuple):
    """What some snapshots in a row, perhaps several times, and perhaps the active state have of a file."""

    path: str
    """Where the newest of them has it."""
    number: int
    """Of its inode."""
    type: str
    mode: int
    size: int
    mtime_ns: int
    seen_by: tuple[tuple[str, str], ...]
    """First and last snapshot of each row that has it, oldest first."""
    snapshot_count: int
    is_active: bool


class _Found:
    """A version while the states are gone through."""

    __slots__ = ("count", "last", "node", "rows", "state")

    def __init__(self, node: Inode) -> None:
        self.node = node
        self.rows: list[tuple[str, str]] = []
        self.count = 0
        self.last = -1
        """Index of the last state that has it."""
        self.state: Snapshot | None = None


def versions(active: Active, fileset: FilesetId, path: bytes, *, with_active: bool = True) -> list[Version]:
    """Versions of what ``path``, from the root of the fileset, leads or led to; oldest first. Links are not followed.

    ``with_active``: the active state counts too.
    """
    lookup = _Lookup(active)
    names = [name for name in path.split(b"/") if name not in (b"", b".")]
    snapshots = active.store.catalog.snapshots(fileset)
    states: list[Snapshot | None] = [*snapshots, *([None] if with_active else [])]
    numbers = dict.fromkeys(lookup.leads_to(fileset, names, state) for state in states)
    found: dict[tuple[Ino, bytes], _Found] = {}
    for index, state in enumerate(states):
        for ino in numbers:
            value = None if ino is None else lookup.at(keys.inode(ino), state)
            if ino is None or value is None or not (node := inodes.unpack(value)).nlink:
                continue
            version = found.setdefault((ino, inodes.portable(value)), _Found(node))
            _see(version, states, index)
    return [_version(active, fileset, ino, each) for (ino, _), each in found.items()]


def _see(version: _Found, states: list[Snapshot | None], index: int) -> None:
    state = states[index]
    if state is not None:
        version.count += 1
        goes_on = version.last == index - 1 and version.rows
        first = version.rows.pop()[0] if goes_on else state.name
        version.rows.append((first, state.name))
    version.last, version.state = index, state


def _version(active: Active, fileset: FilesetId, ino: Ino, found: _Found) -> Version:
    node, state = found.node, found.state
    view: Records = ActiveView(active) if state is None else View(active, state.id)
    is_root = number_of(ino) == ROOT_NUMBER
    return Version(
        "/" if is_root else Paths(view, fileset).of((node.parent, node.name)),
        number_of(ino),
        TYPES.get(node.mode & 0o170000, ""),
        node.mode,
        node.size,
        node.mtime,
        tuple(found.rows),
        found.count,
        state is None,
    )


class _Lookup:
    """Records with all their versions, each fetched once."""

    def __init__(self, active: Active) -> None:
        self._active = active
        self._known: dict[bytes, tuple[list[SnapshotId], list[bytes], bytes | None]] = {}

    def at(self, key: bytes, state: Snapshot | None) -> bytes | None:
        """As ``View.version``; the active one for None."""
        known = self._known.get(key)
        if known is None:
            pairs = list(_owned_versions(self._active.store, key))
            value = ActiveView(self._active).version(key)
            known = self._known[key] = [owner for owner, _ in pairs], [value for _, value in pairs], value
        owners, values, last = known
        snapshot = _ACTIVE if state is None else state.id
        index = bisect_left(owners, snapshot)
        if index < len(owners):
            return values[index] or None
        if last is not None and state is not None and key[8:9] == keys.INODE:
            birth = SnapshotId(int.from_bytes(last[:8], "little"))
            return None if rule.is_born_after(birth, snapshot) else last
        return last

    def leads_to(self, fileset: FilesetId, names: list[bytes], state: Snapshot | None) -> Ino | None:
        """The inode that a path names in one state."""
        ino = make_ino(fileset, Number(ROOT_NUMBER))
        for name in names:
            value = self.at(keys.entry(ino, name), state)
            if value is None:
                return None
            ino = make_ino(fileset, entry.unpack(value)[0])
        return ino


def _owned_versions(store: Store, key: bytes) -> Iterator[tuple[SnapshotId, bytes]]:
    """The versions that snapshots own, oldest first."""
    start, end = keys.shadow_range(key, SnapshotId(0))
    while pairs := store.shadow.scan(start, end, SCAN_COUNT):
        for shadow_key, value in pairs:
            yield keys.shadow_parts(shadow_key)[1], value
        start = pairs[-1][0] + b"\0"
