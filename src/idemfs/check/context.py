"""What all checks share: the filesets and snapshots that could be read, and names for places.

Snapshots of a fileset have *positions*: 0 is the oldest, and the active state comes after the
newest. A version owned at one position is what every position from the owner before it on sees.

Threads: under the store's lock.
"""

from __future__ import annotations

import os
from bisect import bisect_left, bisect_right
from collections.abc import Iterable

from idemfs.check.scans import versions
from idemfs.errors import Damaged
from idemfs.format import inode as inodes
from idemfs.format import keys
from idemfs.format.inode import ABSENT, Inode
from idemfs.format.tables import DELETING, Fileset, Snapshot, StoreState
from idemfs.ids import NUMBER_MASK, ROOT_NUMBER, FilesetId, Ino, Number, SnapshotId, fileset_of, make_ino, number_of
from idemfs.store.store import Store
from idemfs.versions.active import Active

_DEPTH_MAX = 10_000


class Timeline:
    """The snapshots of one fileset, oldest first, those that are being deleted included."""

    def __init__(self, snapshots: Iterable[Snapshot]) -> None:
        self.snapshots = sorted(snapshots, key=lambda snapshot: snapshot.id)
        self.ids = [snapshot.id for snapshot in self.snapshots]
        self.newest = self.ids[-1] if self.ids else SnapshotId(0)

    def position(self, owner: SnapshotId) -> int | None:
        """Of a snapshot; None: it does not exist."""
        at = bisect_left(self.ids, owner)
        return at if at < len(self.ids) and self.ids[at] == owner else None

    def is_going(self, position: int) -> bool:
        """Whether the snapshot there is being deleted; of its records some have been handed down, and others not."""
        return 0 <= position < len(self.snapshots) and self.snapshots[position].state == DELETING

    def first_after(self, birth: SnapshotId) -> int:
        """The oldest position that sees an active inode with this birth, if no version says otherwise."""
        return bisect_right(self.ids, birth)


class Span:
    """An inode as the positions from ``start`` up to but not ``end`` see it."""

    __slots__ = ("end", "node", "start")

    def __init__(self, start: int, end: int, node: Inode) -> None:
        self.start = start
        self.end = end
        self.node = node


class Context:
    """One store under check."""

    def __init__(self, store: Store, state: StoreState, active: Active | None = None) -> None:
        """``active``: reads what clones see; a store without clones needs none."""
        self.store = store
        self._active = active
        self.state = state
        self.filesets: dict[FilesetId, Fileset] = {}
        self.timelines: dict[FilesetId, Timeline] = {}
        self.unreadable: set[FilesetId] = set()
        """Filesets with a snapshot whose record is damaged: what it owns cannot be judged."""
        self.drills: set[FilesetId] = set()
        """Those of drills, of which the root appears nowhere."""

    @property
    def active(self) -> Active:
        assert self._active is not None
        return self._active

    def is_going(self, fileset: FilesetId) -> bool:
        """Whether it is being deleted: some of its records have gone already."""
        return self.filesets[fileset].state == DELETING

    def inode(self, ino: Ino) -> Inode | None:
        """The active inode; None when it is missing, or damaged, which is reported elsewhere."""
        return decoded(self.store.active.get(keys.inode(ino)))

    def spans(self, ino: Ino) -> list[Span]:
        """Which positions see the inode, and how; the active state among them."""
        timeline = self.timelines[fileset_of(ino)]
        key = keys.inode(ino)
        start, found = 0, []
        for _, owned in versions(self.store.shadow, *keys.shadow_range(key, SnapshotId(0))):
            for owner, value in owned:
                position = timeline.position(owner)
                if position is None:
                    continue
                node = decoded(value)
                if node is not None:
                    found.append(Span(start, position + 1, node))
                start = position + 1
        node = self.inode(ino)
        if node is not None:
            start = max(start, timeline.first_after(node.birth))
            found.append(Span(min(start, len(timeline.ids)), len(timeline.ids) + 1, node))
        return found

    def path(self, ino: Ino) -> str:
        """The path of an inode by its first back-references, or its number when there is none."""
        parts: list[bytes] = []
        at = ino
        while number_of(at) != ROOT_NUMBER:
            node = self._any_version(at)
            if node is None or not node.name or len(parts) > _DEPTH_MAX:
                return self.number(ino)
            parts.append(node.name)
            at = make_ino(fileset_of(ino), Number(node.parent & NUMBER_MASK))
        path = "/" + os.fsdecode(b"/".join(reversed(parts)))
        return path if fileset_of(ino) == 0 else f"fileset {fileset_of(ino)}: {path}"

    def _any_version(self, ino: Ino) -> Inode | None:
        node = self.inode(ino)
        if node is None:
            key = keys.inode(ino)
            for _, owned in versions(self.store.shadow, *keys.shadow_range(key, SnapshotId(0))):
                found = [version for _, value in owned if (version := decoded(value)) is not None]
                node = found[-1] if found else None
        return node

    def number(self, ino: Ino) -> str:
        return f"inode {number_of(ino)}" + (f" of fileset {fileset_of(ino)}" if fileset_of(ino) else "")

    def record(self, key: bytes) -> str:
        """Where an active record belongs."""
        if len(key) < keys.NAME_AT:
            return f"key {key.hex()}"
        path = self.path(keys.ino_of(key))
        match keys.kind_of(key):
            case keys.INODE:
                return path
            case keys.BLOCK:
                return f"{path}, indirect block {keys.index_of(key)}"
            case keys.ENTRY:
                return f"{path}, entry {os.fsdecode(key[keys.NAME_AT :])!r}"
            case keys.LINK:
                return f"{path}, link {os.fsdecode(key[17:])!r}"
            case keys.XATTR:
                return f"{path}, attribute {os.fsdecode(key[keys.NAME_AT :])!r}"
        return f"key {key.hex()}"

    def version(self, key: bytes, owner: SnapshotId) -> str:
        """Where a version of an active record belongs."""
        return f"{self.record(key)} in {self.snapshot(FilesetId(int.from_bytes(key[:2], 'big')), owner)}"

    def snapshot(self, fileset: FilesetId, snapshot_id: SnapshotId) -> str:
        timeline = self.timelines.get(fileset)
        position = None if timeline is None else timeline.position(snapshot_id)
        if timeline is None or position is None:
            return f"snapshot number {snapshot_id}"
        return f"snapshot {timeline.snapshots[position].name}"


def decoded(value: bytes | None) -> Inode | None:
    """The inode in ``value``; None for nothing, ``ABSENT`` and what is damaged."""
    if value is None or value == ABSENT:
        return None
    try:
        return inodes.unpack(value)
    except Damaged:
        return None
