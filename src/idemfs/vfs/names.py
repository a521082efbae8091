"""Names, back-references and link counts: the records that tie an inode to its directories.

Invariant: a file has as many back-references as links, the first in its inode and the
others as link records; a directory has one. Each change of a directory's entries changes
its size (their count) and its times.

Threads: under the store's lock. Callers have admitted the operation's records.
"""

from __future__ import annotations

import errno

from idemfs.format import entry, keys
from idemfs.format.inode import Inode
from idemfs.ids import Ino, Number, fileset_of, make_ino, number_of
from idemfs.limits import NAME_SIZE_MAX
from idemfs.versions.active import Active
from idemfs.vfs.reader import posix

SNAPSHOTS_NAME = b".snapshots"
"""By which a mount shows the snapshots of a fileset in its root, and nothing else that has this name there."""

_NO_NEW_NAMES = frozenset((b"", b".", b".."))
_NOWHERE = Number(0)


def check_name(name: bytes) -> None:
    """Raises ``OSError`` for a name that no entry can have (EINVAL, ENAMETOOLONG) or that always exists (EEXIST)."""
    if len(name) > NAME_SIZE_MAX:
        raise posix(errno.ENAMETOOLONG)
    if name in _NO_NEW_NAMES:
        raise posix(errno.EEXIST if name else errno.ENOENT)
    if b"/" in name or b"\0" in name:
        raise posix(errno.EINVAL)


class Names:
    """Entries of the active file system."""

    def __init__(self, active: Active) -> None:
        self.active = active
        self.records = active.records

    def find(self, directory: Ino, name: bytes) -> Ino | None:
        value = self.records.get(keys.entry(directory, name))
        return None if value is None else make_ino(fileset_of(directory), entry.unpack(value)[0])

    def add(self, directory: Ino, name: bytes, ino: Ino, mode: int, now: int) -> None:
        """An entry that was not there."""
        self.add_at(keys.entry(directory, name), directory, ino, mode, now)

    def add_at(self, key: bytes, directory: Ino, ino: Ino, mode: int, now: int) -> None:
        """As ``add``, for who knows the key of the entry."""
        node = self.active.change_inode(directory)
        self.active.add_record(key, entry.pack(number_of(ino), mode), node)
        node.size += 1
        node.mtime = node.ctime = now
        if mode & 0o170000 == 0o040000:
            node.nlink += 1

    def remove(self, directory: Ino, name: bytes, mode: int, now: int) -> None:
        """An entry that is there."""
        node = self.active.change_inode(directory)
        self.active.delete_record(keys.entry(directory, name), node)
        node.size -= 1
        node.mtime = node.ctime = now
        if mode & 0o170000 == 0o040000:
            node.nlink -= 1

    def point(self, directory: Ino, name: bytes, ino: Ino, mode: int, now: int) -> None:
        """Let an entry that is there name another inode; counts of the directory are the caller's."""
        node = self.active.change_inode(directory)
        self.active.put_record(keys.entry(directory, name), entry.pack(number_of(ino), mode), node)
        node.mtime = node.ctime = now

    def add_back_reference(self, ino: Ino, node: Inode, parent: Number, name: bytes) -> None:
        if node.name:
            self.active.put_record(keys.link(ino, parent, name), keys.PRESENT, node)
        else:
            node.parent, node.name = parent, name

    def remove_back_reference(self, ino: Ino, node: Inode, parent: Number, name: bytes) -> None:
        if (node.parent, node.name) != (parent, name):
            self.active.delete_record(keys.link(ino, parent, name), node)
            return
        other = self.records.first(*keys.kind_range(ino, keys.LINK)) if node.nlink > 1 and not node.is_dir else None
        if other is None:
            node.parent, node.name = _NOWHERE, b""
            return
        node.parent, node.name = Number(int.from_bytes(other[0][9:17], "big")), other[0][17:]
        self.active.delete_record(other[0], node)

    def move_back_reference(self, ino: Ino, node: Inode, old: tuple[Number, bytes], new: tuple[Number, bytes]) -> None:
        if (node.parent, node.name) == old:
            node.parent, node.name = new
        else:
            self.active.delete_record(keys.link(ino, *old), node)
            self.active.put_record(keys.link(ino, *new), keys.PRESENT, node)

    def is_inside(self, directory: Ino, ancestor: Ino) -> bool:
        """Whether ``directory`` is ``ancestor`` or lies below it."""
        root = number_of(directory)
        while directory != ancestor:
            node = self.active.inode(directory)
            if node is None or node.parent in (root, _NOWHERE, number_of(directory)):
                return node is not None and make_ino(fileset_of(directory), node.parent) == ancestor
            directory = make_ino(fileset_of(directory), node.parent)
        return True
