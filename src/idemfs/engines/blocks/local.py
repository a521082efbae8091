"""The local block engine: a directory of segment files, each ``limits.SEGMENT_SIZE`` long at most.

Invariants: sector ``n`` lies at byte ``n * SECTOR_SIZE`` of the segments put end to end; an extent
may cross from one to the next. A segment grows when it is reserved or written behind its end, and is
never made shorter: space goes back to the host as holes, so that no two calls can undo each other.
After a failed sync the engine takes no more writes and syncs: Linux reports lost writes once, and a
second sync that succeeds would mean nothing. Reading goes on.

Threads: any call from any thread. ``_open_lock`` is held to open a segment, ``_sync_lock`` during a
sync, so that a second one waits for what the first has taken on itself. Files stay open until ``close``.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator, Sequence

from idemfs.engines import host
from idemfs.errors import StoreMissing
from idemfs.limits import SECTOR_SIZE, SEGMENT_SIZE

_SUFFIX = ".seg"
_ROW_SECTOR_COUNT = (8 << 20) // SECTOR_SIZE


class LocalBlocks:
    """A block engine in the directory ``path``, which is made if it is missing (but not its parent)."""

    def __init__(self, path: str, readonly: bool = False, *, segment_size: int = SEGMENT_SIZE) -> None:
        assert segment_size % SECTOR_SIZE == 0
        self._path = path
        self._readonly = readonly
        self._segment_size = segment_size
        self._open_lock = threading.Lock()
        self._sync_lock = threading.Lock()
        self._fds: dict[int, int] = {}
        self._dirty: set[int] = set()
        # True at first: an earlier process may have been killed between making a segment and syncing its name.
        self._names_dirty = True
        self._failure: OSError | None = None
        self._row = (0, 0)
        if not os.path.isdir(path):
            if readonly:
                raise StoreMissing(f"{path}: no blocks here")
            os.mkdir(path, 0o700)
            host.overwrite_in_place(path)
            # crash: the directory's name must be durable before anything in it is said to be.
            host.sync_directory(os.path.dirname(os.path.abspath(path)))

    def reserve(self, sector: int, count: int) -> None:
        self._refuse_if_failed()
        for segment, offset, size in self._pieces(sector, count * SECTOR_SIZE):
            host.reserve(self._fd(segment), self._name(segment), offset, size, keep_size=False)

    def write(self, sector: int, data: bytes | bytearray | memoryview) -> None:
        self._refuse_if_failed()
        view = memoryview(data).cast("B")
        start = 0
        try:
            for segment, offset, size in self._pieces(sector, len(view)):
                fd = self._fd(segment)
                while size:
                    written = os.pwrite(fd, view[start : start + size], offset)
                    start, offset, size = start + written, offset + written, size - written
                # After the write: a sync under way may miss it, and must then not take the mark.
                self._dirty.add(segment)
            self._start_writing(sector, len(view))
        except OSError as error:
            if error.errno is not None and host.is_full(error.errno):
                raise host.no_space(self._path) from error
            raise

    def _start_writing(self, sector: int, size: int) -> None:
        """What was written in a row, and is a lot, goes to the disk while more comes, and not when all wait for it."""
        start, end = self._row
        if sector != end:
            start = sector
        end = sector + -(-size // SECTOR_SIZE)
        if end - start >= _ROW_SECTOR_COUNT:
            for segment, offset, part in self._pieces(start, (end - start) * SECTOR_SIZE):
                host.start_writing(self._fd(segment), offset, part)
            start = end
        self._row = start, end

    def read(self, sector: int, size: int) -> bytes:
        segment, offset = divmod(sector * SECTOR_SIZE, self._segment_size)
        if offset + size <= self._segment_size:
            return self._read(segment, offset, size)
        # Any segment may be shorter than what lies behind it in the next one asks for.
        pieces = self._pieces(sector, size)
        return b"".join([self._read(segment, offset, part).ljust(part, b"\0") for segment, offset, part in pieces])

    def sync(self) -> None:
        with self._sync_lock:
            self._refuse_if_failed()
            dirty = self._dirty.copy()
            self._dirty.difference_update(dirty)
            with self._open_lock:
                names_dirty, self._names_dirty = self._names_dirty, False
            try:
                for segment in sorted(dirty):
                    # crash: the caller commits the addresses of these sectors only after this.
                    os.fdatasync(self._fd(segment))
                if names_dirty:
                    # crash: a segment without a durable name is lost with all that was synced in it.
                    host.sync_directory(self._path)
            except OSError as error:
                self._failure = error
                raise

    def discard(self, runs: Sequence[tuple[int, int]]) -> None:
        self._refuse_if_failed()
        for sector, count in runs:
            for segment, offset, size in self._pieces(sector, count * SECTOR_SIZE):
                fd = self._fd_if_any(segment)
                if fd is not None and not host.give_back(fd, offset, size):
                    return

    def used_bytes(self) -> int:
        with os.scandir(self._path) as entries:
            return sum(entry.stat().st_blocks * 512 for entry in entries if entry.name.endswith(_SUFFIX))

    def free_bytes(self) -> int:
        host_state = os.statvfs(self._path)
        return host_state.f_bavail * host_state.f_frsize

    def close(self) -> None:
        with self._sync_lock, self._open_lock:
            while self._fds:
                os.close(self._fds.popitem()[1])

    def _pieces(self, sector: int, size: int) -> Iterator[tuple[int, int, int]]:
        """The (segment, offset, size) of each part of an extent that lies in one segment."""
        assert sector > 0
        position = sector * SECTOR_SIZE
        while size > 0:
            segment, offset = divmod(position, self._segment_size)
            part_size = min(size, self._segment_size - offset)
            yield segment, offset, part_size
            position += part_size
            size -= part_size

    def _read(self, segment: int, offset: int, size: int) -> bytes:
        fd = self._fd_if_any(segment)
        if fd is None:
            return b""
        data = os.pread(fd, size, offset)
        while len(data) < size and (more := os.pread(fd, size - len(data), offset + len(data))):
            data += more
        return data

    def _refuse_if_failed(self) -> None:
        if self._failure is not None:
            number = self._failure.errno or errno.EIO
            raise OSError(number, f"{self._path}: an earlier sync failed; open the store again") from self._failure

    def _name(self, segment: int) -> str:
        return os.path.join(self._path, f"{segment:08x}{_SUFFIX}")

    def _fd(self, segment: int) -> int:
        """The open file of a segment, which is made if it is missing."""
        fd = self._fds.get(segment)
        if fd is None:
            fd = self._open(segment, os.O_RDWR | os.O_CREAT)
        return fd

    def _fd_if_any(self, segment: int) -> int | None:
        fd = self._fds.get(segment)
        if fd is None:
            try:
                fd = self._open(segment, os.O_RDONLY if self._readonly else os.O_RDWR)
            except FileNotFoundError:
                return None
        return fd

    def _open(self, segment: int, flags: int) -> int:
        if self._readonly and flags & os.O_CREAT:
            raise OSError(errno.EROFS, f"{self._path}: not open for writing")
        with self._open_lock:
            fd = self._fds.get(segment)
            if fd is None:
                fd = _open_one_more(self._name(segment), flags | os.O_CLOEXEC)
                self._fds[segment] = fd
                if flags & os.O_CREAT:
                    self._names_dirty = True
            return fd


def _open_one_more(name: str, flags: int) -> int:
    """Open, also beyond the number of files that a process may have open at first."""
    try:
        return os.open(name, flags, 0o600)
    except OSError as error:
        if error.errno != errno.EMFILE:
            raise
    # A segment's file is never closed while another thread may be in it, so the bound has to go up.
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return os.open(name, flags, 0o600)
