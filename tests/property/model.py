"""A file system with snapshots as plain dictionaries: what the real one is compared with.

A state maps inode numbers to nodes. Nodes never change, they are replaced; so a copy of
the dictionary is a snapshot, and taking one back is a copy the other way. Content is bytes, and a hole is
zeros. Nothing here knows of blocks, shadows or dittos, and nothing is imported from idemfs.

Each operation either does what POSIX says or raises ``OSError`` and changes nothing.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

ROOT = 1
NOREPLACE, EXCHANGE = 1, 2


def refuse(number: int) -> OSError:
    return OSError(number, os.strerror(number))


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One inode. ``content`` is that of a file, or the target of a symlink."""

    mode: int
    uid: int = 0
    gid: int = 0
    rdev: int = 0
    nlink: int
    mtime: int
    ctime: int
    btime: int
    content: bytes = b""
    parent: int = ROOT
    entries: Mapping[bytes, int] = field(default_factory=dict)
    xattrs: Mapping[bytes, bytes] = field(default_factory=dict)

    @property
    def is_dir(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.mode)

    @property
    def size(self) -> int:
        return len(self.entries) if self.is_dir else len(self.content)


State = dict[int, Node]


def back_references(state: State) -> dict[int, set[tuple[int, bytes]]]:
    """For each inode the (directory, name) pairs that name it."""
    found: dict[int, set[tuple[int, bytes]]] = {number: set() for number in state}
    for number, node in state.items():
        for name, child in node.entries.items():
            found[child].add((number, name))
    return found


class Model:
    """The active state and its snapshots, and what of both is durable."""

    def __init__(self, now: int, uid: int, gid: int) -> None:
        root = Node(mode=stat.S_IFDIR | 0o755, uid=uid, gid=gid, nlink=2, mtime=now, ctime=now, btime=now)
        self.active: State = {ROOT: root}
        self.snapshots: dict[str, State] = {}
        self.next_number = ROOT + 1
        self.handles: dict[int, int] = {}
        self.commit()

    # -- durability ----------------------------------------------------------------------------------

    def saved(self) -> tuple[State, dict[str, State], int]:
        return dict(self.active), dict(self.snapshots), self.next_number

    def commit(self, state: tuple[State, dict[str, State], int] | None = None) -> None:
        """What is durable now: the present, or what ``saved`` gave before."""
        self.committed = state or self.saved()

    def crash(self) -> None:
        """Back to what is durable; nobody has anything open, so what has no name goes."""
        active, snapshots, self.next_number = self.committed
        self.active, self.snapshots = dict(active), dict(snapshots)
        self.forget_handles()

    def forget_handles(self) -> None:
        self.handles = {}
        for number in [number for number, node in self.active.items() if not node.nlink]:
            del self.active[number]

    # -- helpers -------------------------------------------------------------------------------------

    def change(self, number: int, **fields: object) -> Node:
        node = self.active[number] = replace(self.active[number], **fields)  # type: ignore[arg-type]
        return node

    def node(self, number: int) -> Node:
        try:
            return self.active[number]
        except KeyError:
            raise refuse(errno.ENOENT) from None

    def directory(self, number: int) -> Node:
        node = self.node(number)
        if not node.is_dir:
            raise refuse(errno.ENOTDIR)
        return node

    def writable_directory(self, number: int) -> Node:
        node = self.directory(number)
        if not node.nlink:
            raise refuse(errno.ENOENT)
        return node

    def lookup(self, directory: int, name: bytes) -> int:
        try:
            return self.directory(directory).entries[name]
        except KeyError:
            raise refuse(errno.ENOENT) from None

    def file(self, number: int) -> Node:
        node = self.node(number)
        if not node.is_file:
            raise refuse(errno.EISDIR if node.is_dir else errno.EINVAL)
        return node

    def is_inside(self, directory: int, ancestor: int) -> bool:
        while directory != ancestor:
            if directory == ROOT:
                return False
            directory = self.active[directory].parent
        return True

    def _put_entry(self, directory: int, name: bytes, child: int, now: int) -> None:
        node = self.active[directory]
        nlink = node.nlink + self.active[child].is_dir
        self.change(directory, entries={**node.entries, name: child}, nlink=nlink, mtime=now, ctime=now)

    def _take_entry(self, directory: int, name: bytes, now: int) -> int:
        entries = dict(self.active[directory].entries)
        child = entries.pop(name)
        nlink = self.active[directory].nlink - self.active[child].is_dir
        self.change(directory, entries=entries, nlink=nlink, mtime=now, ctime=now)
        return child

    def _lose_link(self, number: int, now: int) -> None:
        node = self.active[number]
        node = self.change(number, nlink=0 if node.is_dir else node.nlink - 1, ctime=now)
        if not node.nlink and number not in self.handles:
            del self.active[number]

    # -- names ---------------------------------------------------------------------------------------

    def create(
        self, parent: int, name: bytes, mode: int, uid: int, gid: int, now: int, *, rdev: int = 0, data: bytes = b""
    ) -> int:
        directory = self.writable_directory(parent)
        if name in directory.entries:
            raise refuse(errno.EEXIST)
        if directory.mode & stat.S_ISGID:
            gid = directory.gid
            mode |= stat.S_ISGID if stat.S_ISDIR(mode) else 0
        number = self.next_number
        self.next_number += 1
        self.active[number] = Node(
            mode=mode,
            uid=uid,
            gid=gid,
            rdev=rdev,
            nlink=2 if stat.S_ISDIR(mode) else 1,
            mtime=now,
            ctime=now,
            btime=now,
            content=data,
            parent=parent,
        )
        self._put_entry(parent, name, number, now)
        return number

    def link(self, number: int, parent: int, name: bytes, now: int) -> None:
        node = self.node(number)
        directory = self.writable_directory(parent)
        if node.is_dir:
            raise refuse(errno.EPERM)
        if not node.nlink:
            raise refuse(errno.ENOENT)
        if name in directory.entries:
            raise refuse(errno.EEXIST)
        self.change(number, nlink=node.nlink + 1, ctime=now)
        self._put_entry(parent, name, number, now)

    def unlink(self, parent: int, name: bytes, now: int) -> None:
        number = self.lookup(parent, name)
        if self.active[number].is_dir:
            raise refuse(errno.EISDIR)
        self._take_entry(parent, name, now)
        self._lose_link(number, now)

    def rmdir(self, parent: int, name: bytes, now: int) -> None:
        number = self.lookup(parent, name)
        if self.directory(number).entries:
            raise refuse(errno.ENOTEMPTY)
        self._take_entry(parent, name, now)
        self._lose_link(number, now)

    def rename(self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int, now: int) -> None:
        if flags == NOREPLACE | EXCHANGE:
            raise refuse(errno.EINVAL)
        there = self.writable_directory(new_parent)
        number = self.lookup(parent, name)
        node = self.active[number]
        target = there.entries.get(new_name)
        if node.is_dir and self.is_inside(new_parent, number):
            raise refuse(errno.EINVAL)
        if flags & NOREPLACE and target is not None:
            raise refuse(errno.EEXIST)
        if flags & EXCHANGE and target is None:
            raise refuse(errno.ENOENT)
        if target == number:
            return
        if flags & EXCHANGE:
            assert target is not None
            self._exchange(parent, name, number, new_parent, new_name, target, now)
            return
        if target is not None:
            self._check_replaced(node, self.active[target])
            self._take_entry(new_parent, new_name, now)
        self._take_entry(parent, name, now)
        self._put_entry(new_parent, new_name, number, now)
        self.change(number, ctime=now, parent=new_parent if node.is_dir else node.parent)
        if target is not None:
            self._lose_link(target, now)

    def _check_replaced(self, node: Node, replaced: Node) -> None:
        if node.is_dir and not replaced.is_dir:
            raise refuse(errno.ENOTDIR)
        if replaced.is_dir and not node.is_dir:
            raise refuse(errno.EISDIR)
        if replaced.entries:
            raise refuse(errno.ENOTEMPTY)

    def _exchange(
        self, parent: int, name: bytes, number: int, new_parent: int, new_name: bytes, target: int, now: int
    ) -> None:
        if self.active[target].is_dir and self.is_inside(parent, target):
            raise refuse(errno.EINVAL)
        self._take_entry(parent, name, now)
        self._take_entry(new_parent, new_name, now)
        self._put_entry(parent, name, target, now)
        self._put_entry(new_parent, new_name, number, now)
        for moved, home in ((number, new_parent), (target, parent)):
            self.change(moved, ctime=now, parent=home if self.active[moved].is_dir else self.active[moved].parent)

    # -- attributes ----------------------------------------------------------------------------------

    def set_attributes(
        self, number: int, now: int, *, mode: int | None, uid: int | None, gid: int | None, mtime: int | None
    ) -> None:
        node = self.node(number)
        bits = node.mode
        if (uid is not None or gid is not None) and not node.is_dir:
            bits &= ~(stat.S_ISUID | (stat.S_ISGID if bits & stat.S_IXGRP else 0))
        if mode is not None:
            bits = stat.S_IFMT(bits) | mode
        self.change(
            number,
            mode=bits,
            uid=node.uid if uid is None else uid,
            gid=node.gid if gid is None else gid,
            mtime=node.mtime if mtime is None else mtime,
            ctime=now,
        )

    def set_xattr(self, number: int, name: bytes, value: bytes, now: int) -> None:
        self.change(number, xattrs={**self.node(number).xattrs, name: value}, ctime=now)

    def remove_xattr(self, number: int, name: bytes, now: int) -> None:
        xattrs = dict(self.node(number).xattrs)
        if xattrs.pop(name, None) is None:
            raise refuse(errno.ENODATA)
        self.change(number, xattrs=xattrs, ctime=now)

    # -- content -------------------------------------------------------------------------------------

    def write(self, number: int, offset: int, data: bytes, now: int) -> None:
        old = self.file(number).content
        if data:
            old += bytes(max(0, offset - len(old)))
            content = old[:offset] + data + old[offset + len(data) :]
            self.change(number, content=content, mtime=now, ctime=now)

    def truncate(self, number: int, size: int, now: int) -> None:
        content = self.file(number).content[:size]
        self.change(number, content=content + bytes(size - len(content)), mtime=now, ctime=now)

    def punch(self, number: int, offset: int, size: int, now: int) -> None:
        content = self.file(number).content
        end = min(offset + size, len(content))
        if offset < end:
            content = content[:offset] + bytes(end - offset) + content[end:]
        self.change(number, content=content, mtime=now, ctime=now)

    # -- handles -------------------------------------------------------------------------------------

    def open(self, number: int) -> None:
        self.node(number)
        self.handles[number] = self.handles.get(number, 0) + 1

    def release(self, number: int) -> None:
        self.handles[number] -= 1
        if not self.handles[number]:
            del self.handles[number]
            if number in self.active and not self.active[number].nlink:
                del self.active[number]

    # -- snapshots -----------------------------------------------------------------------------------

    def take(self, name: str) -> None:
        self.snapshots[name] = dict(self.active)

    def bring_back(self, name: str) -> None:
        self.active = dict(self.snapshots[name])

    @contextmanager
    def inside(self, name: str) -> Iterator[None]:
        """What is done to the active state is done to a snapshot meanwhile, and to nothing else."""
        outer, self.active, self.handles = (self.active, self.handles), dict(self.snapshots[name]), {}
        try:
            yield
        finally:
            self.snapshots[name] = self.active
            self.active, self.handles = outer

    def refresh(self, name: str, newer: str | None) -> None:
        """A snapshot becomes what a newer one is; one that becomes what the active state is, is the newest."""
        if newer is not None:
            self.snapshots[name] = dict(self.snapshots[newer])
        else:
            del self.snapshots[name]
            self.take(name)
