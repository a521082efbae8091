"""What copying into a store (``copying_in``) and out of it (``copying_out``) share: who is told, and what ends it.

A file that cannot be copied is reported, and the rest is copied all the same. Errors after which
nothing more could be copied end the whole.

Threads: one for one copy.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection
from typing import Protocol

from idemfs.errors import Fenced, NoSpace, NotPrimary, QuotaExceeded
from idemfs.ids import Ino
from idemfs.vfs.paths import Paths
from idemfs.vfs.reader import Reader

_COUNTED = (0o040000 >> 12, 0o100000 >> 12)
"""Types of entries that have entries or content: directories and files."""
STEP_BYTES = 1 << 20
"""Content is copied in pieces of this size, or of one block where those are larger."""


class Watcher(Protocol):
    """Who is told how a copy goes on. Called without any lock."""

    def advanced(self, files: int, size: int) -> None:
        """So many more names and bytes of content are done."""
        ...

    def failed(self, path: bytes, error: OSError) -> None:
        """This one could not be copied; its error may name no path."""
        ...

    def warned(self, text: str) -> None:
        """Something was left out, of one file or more; said once for each kind."""
        ...


class Outcome:
    """What a copy did."""

    __slots__ = ("byte_count", "failed_count", "file_count", "kept_count", "removed_count")

    def __init__(self) -> None:
        self.file_count = 0
        """Names that were copied, directories included."""
        self.byte_count = 0
        self.kept_count = 0
        """Files that were there already, with the same size and time."""
        self.removed_count = 0
        self.failed_count = 0


class Copy:
    """Counts, and keeps warnings to one of each kind."""

    def __init__(self, watcher: Watcher | None, ends: Collection[int] = ()) -> None:
        """``ends``: the errnos after which nothing more can be copied."""
        self.outcome = Outcome()
        self._ends = ends
        self._watcher = watcher
        self._warned: set[tuple[str, int | None]] = set()
        self.is_root = os.geteuid() == 0

    def done(self, size: int = 0) -> None:
        """One more name; the bytes of large files were told before."""
        self.outcome.file_count += 1
        self.outcome.byte_count += size
        if self._watcher:
            self._watcher.advanced(1, size)

    def moved(self, size: int) -> None:
        """A part of a large file."""
        self.outcome.byte_count += size
        if self._watcher:
            self._watcher.advanced(0, size)

    def kept(self, size: int) -> None:
        self.outcome.kept_count += 1
        if self._watcher:
            self._watcher.advanced(1, size)

    def failed(self, path: bytes, error: OSError) -> None:
        """Report ``error``, or raise it when it ends the copy."""
        if error.errno in self._ends or isinstance(error, NoSpace | QuotaExceeded | NotPrimary | Fenced):
            if error.filename is None:
                error.filename = path
            raise error
        self.outcome.failed_count += 1
        if self._watcher:
            self._watcher.failed(path, error)

    def warn(self, kind: str, path: bytes, error: OSError) -> None:
        """``kind`` says what is left out."""
        if (kind, error.errno) not in self._warned:
            self._warned.add((kind, error.errno))
            if self._watcher:
                self._watcher.warned(f"{os.fsdecode(path)}: {kind} left out, here and elsewhere: {error.strerror}")


def is_same(reader: Reader, ino: Ino, path: bytes, status: os.stat_result) -> bool:
    """Whether a mirror can leave what is no directory as it is, but for attributes and ties to other names."""
    node = reader.inode(ino)
    if stat.S_IFMT(node.mode) != stat.S_IFMT(status.st_mode) or node.mtime != status.st_mtime_ns:
        return False
    if (status.st_nlink == 1) != (node.nlink == 1):
        return False
    if node.is_file:
        return node.size == status.st_size
    if stat.S_ISLNK(node.mode):
        return reader.readlink(ino) == os.readlink(path)
    return node.rdev == status.st_rdev


def size_on_host(path: bytes) -> tuple[int, int]:
    """How many names, and how many bytes of content, are at and below a path of the host; about, for a progress bar."""
    count, size = 1, 0
    waiting = [path]
    while waiting:
        at = waiting.pop()
        try:
            with os.scandir(at) as entries:
                for entry in entries:
                    count += 1
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    elif entry.is_file(follow_symlinks=False):
                        size += entry.stat(follow_symlinks=False).st_size
        except NotADirectoryError:
            size += os.stat(at).st_size
        except OSError:
            # The copy itself will tell.
            continue
    return count, size


def size_in_store(reader: Reader, path: bytes) -> tuple[int, int]:
    """As ``size_on_host``, of what ``reader`` shows."""
    reader, top = Paths(reader).look(path)
    count, size = 1, 0
    waiting = [top]
    while waiting:
        ino = waiting.pop()
        node = reader.inode(ino)
        if node.is_dir:
            for _, below, kind in reader.all_entries(ino):
                count += 1
                if kind in _COUNTED:
                    waiting.append(below)
        elif node.is_file:
            size += node.size
    return count, size
