"""A subtree of a snapshot and the place where it is to come back: which inode gets which number.

Numbers are the old ones as far as nobody else has them. In place, an inode that is in the subtree still is the same
one; what stands elsewhere by now is a stranger, and stays as it is. In another fileset a number that was ever given
there is a stranger's. Nothing is changed here.

Threads: under the store's lock.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum

from idemfs.errors import Damaged
from idemfs.format import entry, keys
from idemfs.format.inode import Inode, named_by
from idemfs.ids import Ino, Number, fileset_of, make_ino, number_of
from idemfs.snapshots.ranges import End, changed_ranges
from idemfs.versions.active import Active
from idemfs.versions.resolve import View
from idemfs.versions.state import ActiveView, Records

DIRECTORY_KIND = 0o040000 >> 12
_TYPE = 0o170000

Name = tuple[Ino, bytes]
"""A directory, and the name that something has in it."""
Members = dict[Ino, list[Name]]
"""The inodes of a subtree, each directory before what is in it, with their names there."""


class Fate(Enum):
    """What becomes of an inode number of the snapshot."""

    SAME = 1
    """It is brought back: the number is free, or has this very inode, with no name outside."""
    LINKED = 2
    """It has not changed, and has a name outside that it had then: it gets its names inside back, and no more."""
    NEW = 3
    """Somebody else has the number: another one is taken."""


class Place:
    """Where the subtree comes to stand: a name in a directory, and what has that name now."""

    __slots__ = ("existing", "is_aside", "name", "parent")

    def __init__(self, parent: Ino, name: bytes, existing: Ino | None, *, is_aside: bool) -> None:
        self.parent = parent
        self.name = name
        self.existing = existing
        """In place, what goes or is brought back; else an empty directory that becomes the subtree's own."""
        self.is_aside = is_aside
        """Nothing that is there is brought back or goes."""


class Plan:
    """What a restore of a subtree is going to do."""

    def __init__(self, active: Active, view: View, root: Ino, name: Name, place: Place) -> None:
        """``name``: that by which the snapshot's ``root`` is meant, which may have others."""
        self.view = view
        self.root = root
        self.place = place
        self.fileset = fileset_of(place.parent)
        self.members = members(view, root, name)
        self.present: Members = {}
        """What is in the subtree now."""
        if place.existing is not None and not place.is_aside:
            self.present = members(ActiveView(active), place.existing, (place.parent, place.name))
        self.fates = {ino: self._fate(active, ino) for ino in self.members}
        self.first_number = active.store.catalog.filesets[self.fileset].next_number

    def _fate(self, active: Active, ino: Ino) -> Fate:
        if self.place.is_aside:
            return self._fate_aside(active, ino)
        node = active.inode(ino)
        if node is None or not node.nlink:
            return Fate.SAME
        target = self.target(ino)
        if (node.mode ^ target.mode) & _TYPE:
            return Fate.NEW
        if ino in self.present and (node.is_dir or len(self.present[ino]) == node.nlink):
            return Fate.SAME
        if not node.is_dir and self._is_linked(active, ino, node, target):
            return Fate.LINKED
        return Fate.NEW

    def _fate_aside(self, active: Active, ino: Ino) -> Fate:
        if ino == self.root and self.place.existing is not None:
            return Fate.SAME
        if fileset_of(ino) == self.fileset:
            return Fate.SAME if active.inode(ino) is None else Fate.NEW
        is_unused = number_of(ino) >= active.store.catalog.filesets[self.fileset].next_number
        return Fate.SAME if is_unused and not self._names_later(ino) else Fate.NEW

    def _names_later(self, ino: Ino) -> bool:
        """Whether it is a dynamic link. It has a greater number than what it names, which may get a new one."""
        return self.target(ino).is_dynamic

    def _is_linked(self, active: Active, ino: Ino, node: Inode, target: Inode) -> bool:
        outside = set(links(ActiveView(active), ino, node)).difference(self.present.get(ino, []))
        outside_then = set(links(self.view, ino, target)).difference(self.members[ino])
        return not outside.isdisjoint(outside_then) and is_unchanged(active, self.view, ino, node, target)

    def target(self, ino: Ino) -> Inode:
        """The inode as the snapshot has it. Raises ``Damaged``."""
        node = self.view.inode(ino)
        if node is None:
            raise Damaged(f"inode {number_of(ino)} is missing in the snapshot; run 'idemfs check'")
        return node

    def going(self) -> list[Ino]:
        """What is in the subtree now and not in the snapshot's; or it has names outside, which stay."""
        kept = {ino for ino, fate in self.fates.items() if fate is not Fate.NEW}
        return [ino for ino in self.present if ino not in kept]

    def lost_junctions(self, active: Active) -> Iterator[Ino]:
        """Directories where filesets appear that would go, or be filled."""
        junctions = active.store.catalog.junctions
        for ino in self.present:
            if ino in junctions and (self.fates.get(ino) is not Fate.SAME or self.target(ino).size):
                yield ino

    def numbers(self, active: Active) -> dict[Ino, Ino]:
        """The inode number that each gets. Those that are new are taken now: this changes the fileset's record."""
        fileset = active.store.catalog.filesets[self.fileset]
        greatest = max(number_of(ino) for ino, fate in self.fates.items()) if self.place.is_aside else Number(0)
        fileset.next_number = max(fileset.next_number, greatest + 1)
        found: dict[Ino, Ino] = {}
        for ino, fate in self.fates.items():
            if fate is not Fate.NEW:
                found[ino] = make_ino(self.fileset, number_of(ino))
        # In their order: what a dynamic link names has a smaller number than the link.
        for ino in sorted(ino for ino, fate in self.fates.items() if fate is Fate.NEW):
            found[ino] = active.store.catalog.new_ino(fileset)
        if self.place.is_aside and self.place.existing is not None:
            found[self.root] = self.place.existing
        active.store.catalog.changed_fileset(self.fileset)
        return found


def members(view: Records, root: Ino, name: Name) -> Members:
    """All inodes below ``root``, and itself, which has ``name``."""
    found: Members = {root: [name]}
    node = view.inode(root)
    waiting = [root] if node is not None and node.is_dir else []
    while waiting:
        directory = waiting.pop()
        fileset = fileset_of(directory)
        for key, value in view.records(*keys.kind_range(directory, keys.ENTRY)):
            number, kind = entry.unpack(value)
            ino = make_ino(fileset, number)
            if kind == DIRECTORY_KIND:
                if ino in found:
                    raise Damaged(f"directory {number} has two names; run 'idemfs check'")
                waiting.append(ino)
            found.setdefault(ino, []).append((directory, key[keys.NAME_AT :]))
    return found


def links(view: Records, ino: Ino, node: Inode) -> list[Name]:
    """Every name of an inode, the first one first."""
    fileset = fileset_of(ino)
    found = [(make_ino(fileset, node.parent), node.name)] if node.name else []
    for key, _ in view.records(*keys.kind_range(ino, keys.LINK)):
        found.append((make_ino(fileset, Number(int.from_bytes(key[9:17], "big"))), key[17:]))
    return found


def is_unchanged(active: Active, view: View, ino: Ino, node: Inode, target: Inode) -> bool:
    """Whether an inode has the attributes and the content that it has in a snapshot, whatever its names are, and
    wherever the content is stored."""
    fields = ("mode", "uid", "gid", "rdev", "size", "mtime", "is_dynamic")
    if any(getattr(node, field) != getattr(target, field) for field in fields):
        return False
    attributes = keys.kind_range(ino, keys.XATTR)
    now = ActiveView(active)
    if list(view.records(*attributes)) != list(now.records(*attributes)):
        return False
    if not target.is_file:
        return node.data == target.data
    indexes = set(view.map_indexes(ino, target.size)).union(now.map_indexes(ino, node.size))
    return not changed_ranges(active.store, ino, End(view, target), End(now, node), sorted(indexes))


def is_named_inside(plan: Plan, ino: Ino, link: Inode) -> Ino | None:
    """The inode that a dynamic link names, if it is restored together with the link."""
    named = make_ino(fileset_of(ino), named_by(link, number_of(ino)))
    return named if named in plan.members else None
