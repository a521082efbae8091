"""Requests about open directories.

Entries come in order of names, so a listing goes on after the name that came last, whatever changes meanwhile.
The kernel names that place with a *cookie* of 63 bits: 15 bits of the name's checksum · the inode's number. It is
found again among the last ones of its handle, also when that name was removed meanwhile; or else among those that
the mount gave out lately, or by the inode's back-references: so it holds for another handle too, as an NFS server
needs, and after a remount.

Memory: ``_RECENT_COUNT_MAX`` names for the whole mount, and ``_LAST_COUNT`` names for each of ``_LISTING_COUNT_MAX``
listings that have not come to their end. Threads: any.
"""

from __future__ import annotations

import errno
import itertools
import zlib
from threading import Lock

from idemfs.ids import ROOT_NUMBER, Ino, fileset_of, make_ino, number_of
from idemfs.ids import Number as NumberType
from idemfs.mount import wire
from idemfs.mount.contents import OpenInodes
from idemfs.mount.nodes import FOLDER, FOLDER_NAME, ROOT, Nodes, kind_of
from idemfs.mount.server import Handler, Reply
from idemfs.mount.snapshot_folder import SnapshotFolder
from idemfs.mount.wire import Opcode, Request
from idemfs.vfs.reader import Reader, posix

_RECENT_COUNT_MAX = 1 << 16
_LAST_COUNT = 128
"""The kernel goes on after the last entry of a page, or within it if the caller's buffer is less than 4 KiB."""
_LISTING_COUNT_MAX = 1024
_NUMBER_BITS = 48
_HASH_MASK = 0x7FFF
_SELF, _PARENT = 1 << _NUMBER_BITS, 2 << _NUMBER_BITS
"""Cookies of ``.`` and ``..``: with number 0, which no inode has."""
_DIRECTORY = 4
_PAGE_COUNT_MIN, _PAGE_COUNT_MAX = 16, 1000
_ENTRY_SIZE_MIN = 32

_WITH_FOLDER = 1 << 62
"""Bit of a handle of the root with which ``.snapshots`` is listed: the kernel itself opens a directory so, without any
flag, when it has a file handle of a directory in a snapshot and looks for the names on the way there."""
_FIRST = (0, _SELF, _PARENT)
Names = list[tuple[int, bytes]]
"""Entries of one page: cookie and name."""


def cookie_of(name: bytes, number: int) -> int:
    return (zlib.crc32(name) & _HASH_MASK) << _NUMBER_BITS | number & (1 << _NUMBER_BITS) - 1


class DirectoryRequests:
    """Handlers by operation."""

    def __init__(self, nodes: Nodes, folder: SnapshotFolder, opened: OpenInodes) -> None:
        self._nodes = nodes
        self._folder = folder
        self._opened = opened
        self._recent: dict[tuple[int, int], bytes] = {}
        self._last: dict[int, dict[int, bytes]] = {}
        self._handles = itertools.count(1)
        self._lock = Lock()

    def handlers(self) -> dict[Opcode, Handler]:
        return {
            Opcode.OPENDIR: self.opendir,
            Opcode.READDIR: self.readdir,
            Opcode.READDIRPLUS: self.readdirplus,
            Opcode.RELEASEDIR: self.releasedir,
            Opcode.FSYNCDIR: self.fsyncdir,
        }

    def opendir(self, request: Request) -> Reply:
        if kind_of(request.node) != FOLDER:
            with self._nodes.tree.store.lock:
                reader, ino = self._nodes.place(request.node)
                if request.node != ROOT:
                    reader.directory(ino)
                self._opened.add(request.node, reader, ino)
        flags, _ = wire.OPEN_IN.unpack_from(request.body)
        kind = _WITH_FOLDER if self._nodes.folder_at(request.node) and not flags else 0
        return wire.OPEN_OUT.pack(next(self._handles) | kind, 0, 0)

    def releasedir(self, request: Request) -> Reply:
        (handle,) = wire.RELEASE_IN.unpack_from(request.body)
        with self._lock:
            self._last.pop(handle, None)
        if kind_of(request.node) != FOLDER:
            self._opened.discard(request.node)
        return b""

    def fsyncdir(self, request: Request) -> Reply:
        if self._nodes.shows_active:
            # crash: who asked is told that the names are durable, and the one open group holds them.
            self._nodes.tree.sync()
        return b""

    def readdir(self, request: Request) -> Reply:
        return self._list(request, plus=False)

    def readdirplus(self, request: Request) -> Reply:
        return self._list(request, plus=True)

    def _list(self, request: Request, *, plus: bool) -> Reply:
        handle, cookie, size, *_ = wire.READ_IN.unpack_from(request.body)
        parts: list[bytes] = []
        names: Names = []
        node = request.node
        if not cookie:
            parts.append(self._dirent(node, _SELF, _DIRECTORY, b".", plus))
        if cookie in (0, _SELF):
            parts.append(self._dirent(node, _PARENT, _DIRECTORY, b"..", plus))
            if handle & _WITH_FOLDER:
                parts.append(self._dirent(self._nodes.folder_at(node), _PARENT, _DIRECTORY, FOLDER_NAME, plus))
        left = size - sum(map(len, parts))
        if kind_of(node) == FOLDER:
            after = b"" if cookie in _FIRST else self._place_in_folder(node, handle, cookie)
            self._list_folder(node, after, left, parts, names, plus)
        else:
            with self._nodes.tree.store.lock:
                reader, ino = self._nodes.place(node)
                if node != ROOT or reader.view.inode(ino) is not None:
                    after = b"" if cookie in _FIRST else self._place_of(node, handle, reader, ino, cookie)
                    self._list_directory(reader, ino, after, left, parts, names, plus)
        self._remember(node, handle, names)
        return b"".join(parts)

    def _dirent(self, number: int, cookie: int, kind: int, name: bytes, plus: bool) -> bytes:
        entry = wire.dirent(number, cookie, kind, name)
        return wire.NO_ENTRY + entry if plus else entry

    def _list_folder(self, node: int, after: bytes, left: int, parts: list[bytes], names: Names, plus: bool) -> None:
        for name, number, kind in self._folder.entries(node):
            if name <= after:
                continue
            at = cookie_of(name, number)
            entry = self._dirent(number, at, kind, name, plus)
            left -= len(entry)
            if left < 0:
                return
            names.append((at, name))
            parts.append(entry)

    def _list_directory(
        self, reader: Reader, directory: Ino, after: bytes, left: int, parts: list[bytes], names: Names, plus: bool
    ) -> None:
        per_entry = _ENTRY_SIZE_MIN + (len(wire.NO_ENTRY) if plus else 0)
        while True:
            limit = max(_PAGE_COUNT_MIN, min(_PAGE_COUNT_MAX, left // per_entry + 1))
            page = reader.entries(directory, after, limit)
            for name, ino, kind in page:
                at = cookie_of(name, number_of(ino))
                node = self._nodes.number(reader, ino)
                entry = wire.dirent(node, at, kind, name)
                left -= len(entry) + (len(wire.NO_ENTRY) if plus else 0)
                if left < 0:
                    return
                if plus:
                    parts.append(self._nodes.entry(reader, ino))
                parts.append(entry)
                names.append((at, name))
            if not page or left < per_entry:
                return
            after = page[-1][0]

    # -- places in a listing -------------------------------------------------------------------------

    def _remember(self, node: int, handle: int, names: Names) -> None:
        """This page was given out; an empty one ends the listing."""
        with self._lock:
            self._last.pop(handle, None)
            if not names:
                return
            self._last[handle] = dict(names[-_LAST_COUNT:])
            if len(self._last) > _LISTING_COUNT_MAX:
                del self._last[next(iter(self._last))]
            self._recent.update(((node, cookie), name) for cookie, name in names)
            if len(self._recent) > _RECENT_COUNT_MAX:
                for key in list(self._recent)[: len(self._recent) - _RECENT_COUNT_MAX // 2]:
                    del self._recent[key]

    def _after(self, node: int, handle: int, cookie: int) -> bytes | None:
        with self._lock:
            last = self._last.get(handle)
            name = last.get(cookie) if last else None
            return self._recent.get((node, cookie)) if name is None else name

    def _place_of(self, node: int, handle: int, reader: Reader, directory: Ino, cookie: int) -> bytes:
        """The name that has this cookie. Raises ``OSError`` (ENOENT)."""
        name = self._after(node, handle, cookie)
        if name is not None:
            return name
        ino = make_ino(fileset_of(directory), NumberType(cookie & (1 << _NUMBER_BITS) - 1))
        if number_of(ino) == ROOT_NUMBER:
            # The root of another fileset, which has no name there.
            for name, root, _ in reader.all_entries(directory):
                if cookie_of(name, number_of(root)) == cookie:
                    return name
        for parent, name in reader.links(ino):
            if parent == number_of(directory) and cookie_of(name, number_of(ino)) == cookie:
                return name
        raise posix(errno.ENOENT, "the place in the listing is gone")

    def _place_in_folder(self, node: int, handle: int, cookie: int) -> bytes:
        name = self._after(node, handle, cookie)
        if name is not None:
            return name
        found = (name for name, number, _ in self._folder.entries(node) if cookie_of(name, number) == cookie)
        return next(found, b"\xff")
