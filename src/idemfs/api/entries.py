"""Directory entries as ``os.scandir`` gives them.

Threads: one thread at a time for one listing.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator
from typing import TYPE_CHECKING, AnyStr, Generic, Protocol

from idemfs.api.names import AnyPath
from idemfs.ids import Ino

if TYPE_CHECKING:
    from types import TracebackType

_DIRECTORY, _FILE, _LINK = 4, 8, 10
"""Types of ``readdir(3)``."""


class Asked(Protocol):
    """Whom an entry asks for what it does not know itself."""

    def is_dir(self, path: AnyPath) -> bool: ...
    def is_file(self, path: AnyPath) -> bool: ...
    def stat(self, path: AnyPath, *, follow_symlinks: bool = ...) -> os.stat_result: ...


class DirEntry(Generic[AnyStr]):
    """One name in a directory. What it says without following a symlink costs no further look-up, ``stat`` apart."""

    __slots__ = ("_ino", "_kind", "_view", "name", "path")

    name: AnyStr
    path: AnyStr

    def __init__(self, view: Asked, directory: AnyStr, name: AnyStr, ino: Ino, kind: int) -> None:
        self._view = view
        self._ino = ino
        self._kind = kind
        self.name = name
        self.path = posixpath.join(directory, name)

    def inode(self) -> int:
        return self._ino

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        return self._view.is_dir(self.path) if self._is_followed(follow_symlinks) else self._kind == _DIRECTORY

    def is_file(self, *, follow_symlinks: bool = True) -> bool:
        return self._view.is_file(self.path) if self._is_followed(follow_symlinks) else self._kind == _FILE

    def is_symlink(self) -> bool:
        return self._kind == _LINK

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        return self._view.stat(self.path, follow_symlinks=follow_symlinks)

    def _is_followed(self, follow_symlinks: bool) -> bool:
        return follow_symlinks and self._kind == _LINK

    def __fspath__(self) -> AnyStr:
        return self.path

    def __repr__(self) -> str:
        return f"<DirEntry {self.name!r}>"


class Listing(Generic[AnyStr]):
    """An iterator of entries in order of names; a context manager too, as the one of ``os.scandir``."""

    _directory: AnyStr

    def __init__(self, view: Asked, directory: AnyStr, entries: Iterator[tuple[bytes, Ino, int]]) -> None:
        self._view = view
        self._directory = directory
        self._entries = entries

    def __iter__(self) -> Listing[AnyStr]:
        return self

    def __next__(self) -> DirEntry[AnyStr]:
        name, ino, kind = next(self._entries)
        shown = os.fsdecode(name) if isinstance(self._directory, str) else name  # type: ignore[redundant-expr]
        return DirEntry(self._view, self._directory, shown, ino, kind)

    def close(self) -> None:
        self._entries = iter(())

    def __enter__(self) -> Listing[AnyStr]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
