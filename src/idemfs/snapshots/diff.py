"""What changed between two snapshots, or a snapshot and the active state, with paths. For people: nothing is sent.

No tree is walked: inodes that may differ are those that the snapshots in between own records of, and
their paths come from back-references. A record that was changed and changed back is not reported, nor are access and
change times. Cost and order follow the changed inodes, not the tree, and what is kept in memory is one page of them.

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
from idemfs.format.inode import Inode
from idemfs.format.tables import COMPLETE, Snapshot
from idemfs.ids import ROOT_NUMBER, FilesetId, Ino, Number, make_ino, number_of
from idemfs.snapshots.changes import changed_groups
from idemfs.snapshots.ranges import End, Range, changed_ranges
from idemfs.versions import rule
from idemfs.versions.active import Active
from idemfs.versions.resolve import View
from idemfs.versions.state import ActiveView, Records

_PAGE_INODE_COUNT = 5000
_DEPTH_MAX = 1 << 20
_CONTENT = frozenset(("content", "entries"))

Name = tuple[Number, bytes]
"""A directory's number and a name in it."""


class ChangeKind(Enum):
    ADDED = "added"
    REMOVED = "removed"
    MODIFIED = "modified"
    """Its content, the entries of a directory, or all of it (``replaced``)."""
    METADATA = "metadata"
    """What is said about it alone: mode, owner, device, times, extended attributes."""
    RENAMED = "renamed"
    """And perhaps modified as well: see ``what``."""


TYPES = {0o100000: "file", 0o040000: "directory", 0o120000: "symlink", 0o020000: "character device"}
TYPES |= {0o060000: "block device", 0o010000: "pipe", 0o140000: "socket"}


class Change(NamedTuple):
    """One change of one name. Each name of a hard-linked file is added, removed or renamed by itself."""

    kind: ChangeKind
    path: str
    """Where it is in the target; of what was removed or renamed, where it was in the base; by ``os.fsdecode``."""
    new_path: str | None = None
    """Of what was renamed: where it is in the target."""
    what: tuple[str, ...] = ()
    """Of what was there before: which of ``content``, ``entries`` (of a directory), ``mode``, ``owner``, ``device``,
    ``times`` (when neither content nor entries say why) and ``xattrs`` differ; or ``replaced``: the path names a new
    inode, and the old one is gone. Of a name that comes to or goes from a file which has others: ``link``."""
    ranges: tuple[Range, ...] = ()
    """Of a file whose content differs: first byte, and the one after the last, of what the target has there. Whole
    blocks, but for the end of the file; a file that was only cut has none, since its sizes say it."""
    type: str = ""
    """``file``, ``directory``, ``symlink``, ``character device``, ``block device``, ``pipe`` or ``socket``."""
    old_size: int | None = None
    """In the base; None of what was not there. The size of a directory is the number of its entries."""
    size: int | None = None
    """In the target; None of what is not there any more."""

    @property
    def changed_bytes(self) -> int:
        """Bytes of content that the target has and the base has not."""
        if self.kind in (ChangeKind.MODIFIED, ChangeKind.RENAMED) and self.what != ("replaced",):
            return sum(end - start for start, end in self.ranges)
        is_content = self.type in ("file", "symlink") and self.what != ("link",)
        return (self.size or 0) if is_content and self.kind is not ChangeKind.METADATA else 0

    @property
    def removed_bytes(self) -> int:
        """Bytes by which files became shorter, or that went with them."""
        if self.type not in ("file", "symlink") or self.what == ("link",) or self.old_size is None:
            return 0
        if self.what == ("replaced",):
            return self.old_size
        return max(0, self.old_size - (self.size or 0))


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
    for count, (ino, changed) in enumerate(changed_groups(active.store, base.fileset, base.id, end, after), 1):
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
        self._old_paths = Paths(self._base, base.fileset)
        self._new_paths = Paths(self._target, base.fileset)

    def changes(self, ino: Ino, changed: Iterator[bytes]) -> list[Change]:
        old, new = self._base.inode(ino), self._target.inode(ino)
        old_names, new_names = names_of(self._base, ino, old), names_of(self._target, ino, new)
        if old and new and rule.is_born_after(new.birth, self._base_id):
            # Another inode that was given the same number, on another primary.
            return self._removed(old, old_names, stays=False) + self._added(new, new_names, is_new=True)
        gone, come = old_names - new_names, new_names - old_names
        what, ranges = self._what(ino, old, new, changed) if old and new else ((), ())
        type_, old_size, size = _facts(old, new)
        renamed = list(zip(sorted(gone), sorted(come), strict=False))
        found = []
        for index, (before, now) in enumerate(renamed):
            if index:
                what, ranges = (), ()
            paths = self._old_paths.of(before), self._new_paths.of(now)
            found.append(Change(ChangeKind.RENAMED, *paths, what, ranges, type_, old_size, size))
        if what and not renamed and (stayed := old_names & new_names):
            is_content = not _CONTENT.isdisjoint(what)
            kind = ChangeKind.MODIFIED if is_content else ChangeKind.METADATA
            found.append(Change(kind, self._new_paths.of(min(stayed)), None, what, ranges, type_, old_size, size))
        if old:
            found += self._removed(old, gone - {before for before, _ in renamed}, stays=bool(new_names))
        if new:
            found += self._added(new, come - {now for _, now in renamed}, is_new=not old_names)
        return found

    def _removed(self, node: Inode, names: set[Name], *, stays: bool) -> list[Change]:
        """``stays``: the file has another name in the target."""
        found: list[Change] = []
        for name in sorted(names):
            if not self._is_replaced(name):
                what = ("link",) if stays or found else ()
                found.append(Change(ChangeKind.REMOVED, self._old_paths.of(name), None, what, (), *_facts(node, None)))
        return found

    def _added(self, node: Inode, names: set[Name], *, is_new: bool) -> list[Change]:
        """``is_new``: the file has no name in the base."""
        found: list[Change] = []
        for name in sorted(names):
            path = self._new_paths.of(name)
            if (replaced := self._replaced(name)) is not None:
                found.append(Change(ChangeKind.MODIFIED, path, None, ("replaced",), (), *_facts(replaced, node)))
            else:
                what = () if is_new and not found else ("link",)
                found.append(Change(ChangeKind.ADDED, path, None, what, (), *_facts(None, node)))
        return found

    def _is_replaced(self, name: Name) -> bool:
        return self._replaced(name) is not None

    def _replaced(self, name: Name) -> Inode | None:
        """The inode that is gone, if a name went from it to one that is new, as when a program saves a file anew."""
        old, new = self._entry(self._base, name), self._entry(self._target, name)
        if old is None or new is None or old == new:
            return None
        if self._target.inode(old) is not None or self._base.inode(new) is not None:
            return None
        return self._base.inode(old)

    def _entry(self, view: Records, name: Name) -> Ino | None:
        value = view.version(keys.entry(make_ino(self._fileset, name[0]), name[1]))
        return None if value is None else make_ino(self._fileset, entry.unpack(value)[0])

    def _what(
        self, ino: Ino, old: Inode, new: Inode, changed: Iterator[bytes]
    ) -> tuple[tuple[str, ...], tuple[Range, ...]]:
        """What differs, and where in the content. The keys are looked at once, as they come."""
        at = _Peeked(changed)
        ranges: tuple[Range, ...] = ()
        found = []
        if new.is_file:
            ends = End(self._base, old), End(self._target, new)
            indexes = (keys.index_of(key) for key in at.of(keys.BLOCK))
            ranges = changed_ranges(self._store, ino, *ends, indexes)
        if ranges or (new.is_file and old.size != new.size) or (not new.is_file and old.data != new.data):
            found.append("content")
        if self._records_differ(at, keys.ENTRY):
            found.append("entries")
        is_told = bool(found)
        found += [name for name, one, other in _attributes(old, new) if one != other]
        # New content and entries bring a new time, which says no more than they do.
        if not is_told and old.mtime != new.mtime:
            found.append("times")
        if self._records_differ(at, keys.XATTR):
            found.append("xattrs")
        return tuple(found), ranges

    def _records_differ(self, changed: _Peeked, kind: bytes) -> bool:
        return any(self._base.version(key) != self._target.version(key) for key in changed.of(kind))


class _Peeked:
    """Keys of one inode, ascending, taken kind by kind in their order."""

    def __init__(self, changed: Iterator[bytes]) -> None:
        self._changed = changed
        self._next = next(changed, None)

    def of(self, kind: bytes) -> Iterator[bytes]:
        """The keys of this kind; those of kinds before it are left out."""
        while self._next is not None and self._next[8:9] <= kind:
            key, self._next = self._next, next(self._changed, None)
            if key[8:9] == kind:
                yield key


def _attributes(old: Inode, new: Inode) -> list[tuple[str, object, object]]:
    return [
        ("mode", old.mode, new.mode),
        ("owner", (old.uid, old.gid), (new.uid, new.gid)),
        ("device", old.rdev, new.rdev),
    ]


def _facts(old: Inode | None, new: Inode | None) -> tuple[str, int | None, int | None]:
    """Type, size in the base, size in the target."""
    node = new or old
    kind = TYPES.get(node.mode & 0o170000, "") if node else ""
    return kind, None if old is None else old.size, None if new is None else new.size


def names_of(view: Records, ino: Ino, node: Inode | None) -> set[Name]:
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


class Paths:
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
