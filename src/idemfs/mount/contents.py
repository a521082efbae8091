"""Requests about open files: open, create, read, write, seek, allocate, sync, close.

No descriptor of the host and no object is kept for an open file: the inode's number tells all, and the
tree counts who has it open. Threads: any.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import Counter
from collections.abc import Callable
from threading import Lock
from time import monotonic

from idemfs.ids import Ino
from idemfs.mount import wire
from idemfs.mount.nodes import FOLDER, FOLDER_NAME, Nodes, kind_of
from idemfs.mount.server import Handler, Reply
from idemfs.mount.wire import Opcode, Request
from idemfs.vfs.reader import Reader, posix
from idemfs.vfs.sharing import copy_range
from idemfs.vfs.tree import AllocateFlag

_OPEN_FLAGS = wire.OPEN_KEEP_CACHE | wire.OPEN_NOFLUSH
OPENED = wire.OPEN_OUT.pack(0, _OPEN_FLAGS, 0)
_OPENED_ANEW = wire.OPEN_OUT.pack(0, wire.OPEN_NOFLUSH, 0)
_DIRECT_HANDLE = 1
_OPENED_DIRECT = wire.OPEN_OUT.pack(_DIRECT_HANDLE, _OPEN_FLAGS | wire.OPEN_DIRECT_IO, 0)
_TRUSTED_COUNT_MAX = 1 << 16
_PAGE_MASK = 4095
_READ_SIZE = 1 << 17
"""What the kernel reads ahead at once."""
_PATCHY_COUNT_MAX = 1 << 16
_SYNC_SECONDS_SHORT = 0.001
_SEEK_HOLE, _SEEK_DATA = os.SEEK_HOLE, os.SEEK_DATA


class OpenInodes:
    """Who is open, for the tree, and in snapshots, so that the kernel can be told when one is deleted."""

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes
        self._tree = nodes.tree
        self._counts: Counter[int] = Counter()
        self._active_counts: Counter[int] = Counter()
        self._lock = Lock()
        self._trusted: set[int] | None = None

    def distrust(self) -> None:
        """What the kernel keeps of contents may be old; it is dropped when a file is opened next."""
        with self._lock:
            self._trusted = set()

    def trusts(self, node: int) -> bool:
        """Whether the kernel may keep what it has of this file, which is being opened."""
        with self._lock:
            if self._trusted is None or node in self._trusted:
                return True
            if len(self._trusted) >= _TRUSTED_COUNT_MAX:
                self._trusted.clear()
            self._trusted.add(node)
            return False

    def add(self, node: int, reader: Reader, ino: Ino) -> None:
        is_active = reader is self._nodes.active
        if is_active:
            self._tree.open(ino)
        with self._lock:
            (self._active_counts if is_active else self._counts)[node] += 1

    def discard(self, node: int) -> None:
        with self._lock:
            # What it was opened in: the root of a standby is another inode once the store is primary.
            is_active = node in self._active_counts
            counts = self._active_counts if is_active else self._counts
            counts[node] -= 1
            if counts[node] <= 0:
                del counts[node]
        if is_active:
            self._tree.release(self._nodes.ino(node))

    def numbers(self) -> list[int]:
        with self._lock:
            return [*self._active_counts, *self._counts]


class PatchyFiles:
    """Files of which the kernel keeps pages that it will read again, one by one: those that were written in part.

    When there are more of them than reading the whole file takes requests, it is better told to forget the file.
    Threads: any. Memory: ``_PATCHY_COUNT_MAX`` numbers; past that it starts anew, and some files are read page by page.
    """

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}

    def written(self, node: int, offset: int, size: int) -> None:
        if (offset | offset + size) & _PAGE_MASK:
            counts = self._counts
            if len(counts) >= _PATCHY_COUNT_MAX:
                counts.clear()
            counts[node] = counts.get(node, 0) + 1

    def pop(self, node: int, size: int) -> bool:
        """Whether the file, of this size, is patchy; it is opened to be read, and is not from then on."""
        return self._counts.pop(node, 0) > 1 + size // _READ_SIZE


class DirectFiles:
    """New files that were opened to be written only, and are still: what is written comes here as it is.

    Through the kernel's pages a piece that does not end with one comes in two, and is asked of once more, whether it
    has capabilities. While nobody else has such a file open, there are no pages that could be old. Threads: any.
    """

    def __init__(self) -> None:
        self._is_shared: dict[int, bool] = {}

    def add(self, node: int) -> None:
        self._is_shared[node] = False

    def discard(self, node: int) -> None:
        self._is_shared.pop(node, None)

    def opened(self, node: int) -> None:
        """By somebody else, for whom the kernel keeps pages."""
        if node in self._is_shared:
            self._is_shared[node] = True

    def is_shared(self, node: int) -> bool:
        return self._is_shared.get(node, True)


class ContentRequests:
    """Handlers by operation. ``forget``: tells the kernel that it has nothing of bytes from one on, and how many."""

    def __init__(self, nodes: Nodes, opened: OpenInodes, forget: Callable[[int, int, int], None]) -> None:
        self._nodes = nodes
        self._tree = nodes.tree
        self._store = nodes.tree.store
        self._opened = opened
        self._forget = forget
        self._direct = DirectFiles()
        self._patchy = PatchyFiles()
        self._sync_seconds = 0.0
        """What syncing a file takes, as a mean of the last ones."""

    def handlers(self) -> dict[Opcode, Handler]:
        return {
            Opcode.OPEN: self.open,
            Opcode.CREATE: self.create,
            Opcode.TMPFILE: self.tmpfile,
            Opcode.READ: self.read,
            Opcode.WRITE: self.write,
            Opcode.FLUSH: self.flush,
            Opcode.RELEASE: self.release,
            Opcode.FSYNC: self.fsync,
            Opcode.SYNCFS: self.syncfs,
            Opcode.FALLOCATE: self.fallocate,
            Opcode.LSEEK: self.lseek,
            Opcode.COPY_FILE_RANGE: self.copy_file_range,
        }

    def open(self, request: Request) -> Reply:
        flags, open_flags = wire.OPEN_IN.unpack_from(request.body)
        node = request.node
        with self._store.lock:
            if flags & os.O_ACCMODE != os.O_RDONLY or flags & os.O_TRUNC:
                self._nodes.changing(node)
            reader, ino = self._nodes.place(node)
            size = reader.inode(ino).size
            if flags & os.O_TRUNC:
                self._truncate(ino, kills=bool(open_flags & wire.OPEN_KILL_SUIDGID))
            self._opened.add(node, reader, ino)
            self._direct.opened(node)
        is_patchy = flags & os.O_ACCMODE != os.O_WRONLY and self._patchy.pop(node, size)
        is_steady = not is_patchy and not self._nodes.is_written_elsewhere(reader)
        return OPENED if self._opened.trusts(node) and is_steady else _OPENED_ANEW

    def _truncate(self, ino: Ino, *, kills: bool) -> None:
        self._tree.drop_capability(ino)
        if kills:
            self._tree.clear_set_id(ino)
        self._tree.truncate(ino, 0)

    def tmpfile(self, request: Request) -> Reply:
        flags, mode, umask, _ = wire.CREATE_IN.unpack_from(request.body)
        parent = self._nodes.changing(request.node)
        with self._store.lock:
            ino = self._tree.create(parent, None, stat.S_IFREG | mode & 0o7777, request.uid, request.gid, umask=umask)
            self._opened.add(int(ino), self._tree.reader, ino)
            # From here on it is open as any other file.
            self._tree.release(ino)
            return self._nodes.entry(self._tree.reader, ino) + self._opened_new(ino, flags)

    def _opened_new(self, ino: Ino, flags: int) -> bytes:
        if flags & os.O_ACCMODE != os.O_WRONLY:
            return OPENED
        self._direct.add(int(ino))
        return _OPENED_DIRECT

    def create(self, request: Request) -> Reply:
        flags, mode, umask, open_flags = wire.CREATE_IN.unpack_from(request.body)
        name = request.name(wire.CREATE_IN.size)
        if name == FOLDER_NAME and self._nodes.folder_at(request.node):
            raise posix(errno.EISDIR)
        if kind_of(request.node) == FOLDER:
            raise posix(errno.EPERM)
        parent = self._nodes.changing(request.node)
        opened = OPENED
        with self._store.lock:
            try:
                ino = self._tree.create(
                    parent, name, stat.S_IFREG | mode & 0o7777, request.uid, request.gid, umask=umask
                )
                opened = self._opened_new(ino, flags)
            except FileExistsError:
                if flags & os.O_EXCL:
                    raise
                # Somebody else made it after the kernel had looked.
                ino = self._tree.reader.lookup(parent, name)
                if not self._tree.reader.inode(ino).is_file:
                    raise
                if flags & os.O_TRUNC:
                    self._truncate(ino, kills=bool(open_flags & wire.OPEN_KILL_SUIDGID))
                self._direct.opened(int(ino))
            self._opened.add(int(ino), self._tree.reader, ino)
            return self._nodes.entry(self._tree.reader, ino) + opened

    def read(self, request: Request) -> Reply:
        _, offset, size, *_ = wire.READ_IN.unpack_from(request.body)
        reader, ino = self._nodes.place(request.node)
        content = reader.read(ino, offset, size)
        if reader is self._nodes.active:
            self._tree.touch_atime(ino)
        return content

    def write(self, request: Request) -> Reply:
        handle, offset, size, flags, _, open_flags, _ = wire.WRITE_IN.unpack_from(request.body)
        ino = self._nodes.changing(request.node)
        start = wire.WRITE_IN.size
        if handle != _DIRECT_HANDLE:
            self._patchy.written(request.node, offset, size)
        with self._store.lock:
            self._tree.drop_capability(ino)
            if flags & wire.WRITE_KILL_SUIDGID:
                self._tree.clear_set_id(ino)
            count = self._tree.write(ino, offset, request.body[start : start + size].toreadonly())
        if handle == _DIRECT_HANDLE:
            self._written_directly(request, ino, offset, count, open_flags)
        return wire.WRITE_OUT.pack(count)

    def _written_directly(self, request: Request, ino: Ino, offset: int, size: int, open_flags: int) -> None:
        """What the kernel does itself for what is written through its pages."""
        if open_flags & os.O_DSYNC:
            self._sync_file(request, ino)
        if self._direct.is_shared(request.node):
            # A page that is read now is locked until somebody has answered, and only then forgotten.
            request.hand_over()
            self._forget(request.node, offset, size)

    def flush(self, request: Request) -> Reply:
        return b""

    def release(self, request: Request) -> Reply:
        if wire.RELEASE_IN.unpack_from(request.body)[0] == _DIRECT_HANDLE:
            self._direct.discard(request.node)
        self._opened.discard(request.node)
        return b""

    def fsync(self, request: Request) -> Reply:
        if self._nodes.shows_active:
            reader, ino = self._nodes.place(request.node)
            if reader is self._nodes.active:
                self._sync_file(request, ino)
        return b""

    def _sync_file(self, request: Request, ino: Ino) -> None:
        """On a fast disk the log takes less time than another thread to wake up, so the lead is kept for that."""
        if self._sync_seconds > _SYNC_SECONDS_SHORT:
            request.hand_over()
        start = monotonic()
        # crash: who asked is told that it is durable.
        self._tree.sync_file(ino, before_commit=request.hand_over)
        self._sync_seconds += (monotonic() - start - self._sync_seconds) / 8

    def syncfs(self, request: Request) -> Reply:
        if self._nodes.shows_active:
            # crash: who asked is told that it is durable, and the one open group holds it.
            self._tree.sync()
        return b""

    def fallocate(self, request: Request) -> Reply:
        _, offset, size, mode = wire.FALLOCATE_IN.unpack_from(request.body)
        ino = self._nodes.changing(request.node)
        with self._store.lock:
            self._drop_rights(request, ino)
            self._tree.allocate(ino, offset, size, AllocateFlag(mode))
        return b""

    def _drop_rights(self, request: Request, ino: Ino) -> None:
        """Before a change of content of which the kernel does not say whether who asks may keep set-id bits."""
        self._tree.drop_capability(ino)
        if request.uid:
            self._tree.clear_set_id(ino)

    def lseek(self, request: Request) -> Reply:
        _, offset, whence = wire.LSEEK_IN.unpack_from(request.body)
        if whence not in (_SEEK_HOLE, _SEEK_DATA):
            raise posix(errno.EINVAL)
        reader, ino = self._nodes.place(request.node)
        return wire.LSEEK_OUT.pack(reader.seek(ino, offset, hole=whence == _SEEK_HOLE))

    def copy_file_range(self, request: Request) -> Reply:
        _, offset, node, _, target_offset, size, _ = wire.COPY_FILE_RANGE_IN.unpack_from(request.body)
        ino = self._nodes.changing(node)
        reader, source = self._nodes.place(request.node)
        with self._store.lock:
            self._drop_rights(request, ino)
            copied = copy_range(self._tree, reader, source, offset, ino, target_offset, size)
            if reader is self._nodes.active:
                self._tree.touch_atime(source)
        return wire.WRITE_OUT.pack(copied)
