"""What changed between two snapshots, or a snapshot and the active state, with paths. For people: nothing is sent.

No tree is walked: inodes that may differ are those that the snapshots in between own records of, and
their paths come from back-references. A record that was changed and changed back is not reported, nor are access and
change times. Cost and order follow the changed inodes, not the tree.

Threads: the store's lock is held for one page of inodes at a time. Towards the active state, changes made between two
pages may or may not be seen.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from enum import Enum
from typing import NamedTuple

from idemfs.errors import Damaged, SnapshotMissing
from idemfs.format import entry, keys
from idemfs.format.indirect import IndirectBlock
from idemfs.format.inode import Inode
from idemfs.format.tables import COMPLETE, Snapshot
from idemfs.ids import ROOT_NUMBER, FilesetId, Ino, Number, make_ino, number_of
from idemfs.snapshots.changes import changed_inodes
from idemfs.versions import rule, state
from idemfs.versions.active import Active
from idemfs.versions.resolve import View
from idemfs.versions.state import ActiveView, Records

_PAGE_INODE_COUNT = 5000
_DEPTH_MAX = 1 << 20
_LINK, _DIRECTORY = 0o120000, 0o040000

Name = tuple[Number, bytes]
"""A directory's number and a name in it."""


class ChangeKind(Enum):
    ADDED = "added"
    REMOVED = "removed"
    MODIFIED = "modified"
    RENAMED = "renamed"


class Change(NamedTuple):
    """One change of one name. Each name of a hard-linked file is added, removed or renamed by itself."""

    kind: ChangeKind
    path: str
    """Where it is in the target; of what was removed or renamed, where it was in the base; by ``os.fsdecode``."""
    new_path: str | None = None
    """Of what was renamed: where it is in the target."""
    what: tuple[str, ...] = ()
    """Of what was there before: which of ``content``, ``attributes`` (mode, owner, or the modification time alone),
    ``entries`` (of a directory) and ``xattrs`` differ; or ``replaced``: the path names a new
    inode, and the old one is gone."""


def diff(active: Active, base: Snapshot, target: Snapshot | None) -> Iterator[Change]:
    """Changes from ``base`` to ``target`` (None: the active state), by inode number.

    ``base`` is the older one. Raises ``SnapshotMissing`` when either is deleted meanwhile, and ``Damaged``.
    """
    after: Ino | None = Ino(-1)
    while after is not None:
        with active.store.lock:
            # First, since it may let others in, who may delete one of the two.
            active.settle()
            for snapshot in (base, target):
                if snapshot is not None and snapshot.state != COMPLETE:
                    raise SnapshotMissing(f"snapshot {snapshot.name!r} was deleted")
            page, after = _page(active, base, target, after)
        yield from page


def _page(active: Active, base: Snapshot, target: Snapshot | None, after: Ino) -> tuple[list[Change], Ino | None]:
    """The changes of some inodes, and the last of those; None at the end."""
    comparison = _Comparison(active, base, target)
    found: list[Change] = []
    end = target.id if target else None
    for count, (ino, changed) in enumerate(changed_inodes(active.store, base.fileset, base.id, end, after), 1):
        found += comparison.changes(ino, changed)
        if count == _PAGE_INODE_COUNT:
            return found, ino
    return found, None


class _Comparison:
    """Two states, inode by inode."""

    def __init__(self, active: Active, base: Snapshot, target: Snapshot | None) -> None:
        self._store = active.store
        self._base_id = base.id
        self._fileset = base.fileset
        self._base: Records = View(active, base.id)
        self._target: Records = ActiveView(active) if target is None else View(active, target.id)
        self._old_paths = _Paths(self._base, base.fileset)
        self._new_paths = _Paths(self._target, base.fileset)

    def changes(self, ino: Ino, changed: list[bytes]) -> list[Change]:
        old, new = self._base.inode(ino), self._target.inode(ino)
        old_names, new_names = _names(self._base, ino, old), _names(self._target, ino, new)
        if old and new and rule.is_born_after(new.birth, self._base_id):
            # Another inode that was given the same number, on another primary.
            return self._removed(old_names) + self._added(new_names)
        gone, come = old_names - new_names, new_names - old_names
        what = self._what(ino, old, new, changed) if old and new else ()
        renamed = list(zip(sorted(gone), sorted(come), strict=False))
        found = [
            Change(ChangeKind.RENAMED, self._old_paths.of(before), self._new_paths.of(now), () if index else what)
            for index, (before, now) in enumerate(renamed)
        ]
        if what and not renamed and (stayed := old_names & new_names):
            found.append(Change(ChangeKind.MODIFIED, self._new_paths.of(min(stayed)), None, what))
        found += self._removed(gone - {before for before, _ in renamed})
        return found + self._added(come - {now for _, now in renamed})

    def _removed(self, names: set[Name]) -> list[Change]:
        gone = [name for name in sorted(names) if not self._is_replaced(name)]
        return [Change(ChangeKind.REMOVED, self._old_paths.of(name)) for name in gone]

    def _added(self, names: set[Name]) -> list[Change]:
        return [
            Change(ChangeKind.MODIFIED, self._new_paths.of(name), None, ("replaced",))
            if self._is_replaced(name)
            else Change(ChangeKind.ADDED, self._new_paths.of(name))
            for name in sorted(names)
        ]

    def _is_replaced(self, name: Name) -> bool:
        """Whether a name went from an inode that is gone to one that is new, as when a program saves a file anew."""
        old, new = self._entry(self._base, name), self._entry(self._target, name)
        if old is None or new is None or old == new:
            return False
        return self._target.inode(old) is None and self._base.inode(new) is None

    def _entry(self, view: Records, name: Name) -> Ino | None:
        value = view.version(keys.entry(make_ino(self._fileset, name[0]), name[1]))
        return None if value is None else make_ino(self._fileset, entry.unpack(value)[0])

    def _what(self, ino: Ino, old: Inode, new: Inode, changed: list[bytes]) -> tuple[str, ...]:
        found = []
        if self._content_differs(ino, old, new, changed):
            found.append("content")
        if self._records_differ(changed, keys.ENTRY):
            found.append("entries")
        # New content and entries bring a new time, which says no more than they do.
        if _attributes(old) != _attributes(new) or (old.mtime != new.mtime and not found):
            found.append("attributes")
        if self._records_differ(changed, keys.XATTR):
            found.append("xattrs")
        return tuple(found)

    def _records_differ(self, changed: list[bytes], kind: bytes) -> bool:
        return any(self._base.version(key) != self._target.version(key) for key in changed if key[8:9] == kind)

    def _content_differs(self, ino: Ino, old: Inode, new: Inode, changed: list[bytes]) -> bool:
        if not old.is_file:
            return old.data != new.data
        if old.size != new.size:
            return True
        if old.is_inline or new.is_inline:
            return self._small_content(self._base, ino, old) != self._small_content(self._target, ino, new)
        return any(self._map_differs(ino, old, new, keys.index_of(key)) for key in changed if key[8:9] == keys.BLOCK)

    def _map_differs(self, ino: Ino, old: Inode, new: Inode, index: int) -> bool:
        before, now = self._base.file_map(ino, old, index), self._target.file_map(ino, new, index)
        if before.addresses == now.addresses:
            return False
        return self._checksums(self._base, ino, old, index) != self._checksums(self._target, ino, new, index)

    def _checksums(self, view: Records, ino: Ino, node: Inode, index: int) -> bytes:
        block: IndirectBlock = state.trimmed_map(self._store, view, ino, node, index)
        block.trim()
        return block.checksums.tobytes()

    def _small_content(self, view: Records, ino: Ino, node: Inode) -> bytes:
        """The content of a file that is inline in one of the states, without trailing zeros."""
        if node.is_inline:
            return node.data.rstrip(b"\0")
        return state.payload(self._store, node, 0, *view.block(ino, 0))


def _attributes(node: Inode) -> tuple[int, int, int, int]:
    return node.mode, node.uid, node.gid, node.rdev


def _names(view: Records, ino: Ino, node: Inode | None) -> set[Name]:
    """Every name of an inode; none if it does not exist, or was unlinked while it was open. The root's is empty."""
    if node is not None and number_of(ino) == ROOT_NUMBER:
        return {(ROOT_NUMBER, b"")}
    if node is None or not node.name:
        return set()
    names = {(node.parent, node.name)}
    if node.nlink > 1 and not node.is_dir:
        for key, _ in view.records(*keys.kind_range(ino, keys.LINK)):
            names.add((Number(int.from_bytes(key[9:17], "big")), key[17:]))
    return names


class _Paths:
    """Paths in one state, from back-references; those of directories are remembered."""

    def __init__(self, view: Records, fileset: FilesetId) -> None:
        self._view = view
        self._fileset = fileset
        self._known: dict[Number, bytes] = {ROOT_NUMBER: b""}

    def of(self, name: Name) -> str:
        return os.fsdecode(self._directory(name[0]) + b"/" + name[1])

    def _directory(self, number: Number) -> bytes:
        chain: list[Name] = []
        at = number
        while at not in self._known:
            node = self._view.inode(make_ino(self._fileset, at))
            if node is None or not node.name or len(chain) > _DEPTH_MAX:
                raise Damaged(f"inode {at} is no directory that a path goes through; run 'idemfs check'")
            chain.append((at, node.name))
            at = node.parent
        path = self._known[at]
        for below, name in reversed(chain):
            path += b"/" + name
            self._known[below] = path
        return path
