"""A directory of the host with the methods of ``FileSystem``, as a referee of the suites in ``conformance``.

Paths begin at the directory, and errors name them as they were given.
"""

from __future__ import annotations

import ctypes
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from idemfs.engines.host import fallocate

_LIBC = ctypes.CDLL(None, use_errno=True)
_AT_FDCWD = -100
_NOREPLACE, _EXCHANGE = 1, 2
_KEEP_SIZE, _PUNCH_HOLE = 1, 2


class HostTree:
    """Only what the suites use."""

    def __init__(self, root: Path) -> None:
        self._root = os.fsencode(root)

    def _at(self, path: Any) -> Any:
        raw = os.fsencode(path)
        assert raw.startswith(b"/") or b"\0" in raw
        whole = self._root + raw
        return whole if isinstance(path, bytes) else os.fsdecode(whole)

    @contextmanager
    def _named(self, *paths: Any) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            error.filename = paths[0]
            if len(paths) > 1:
                error.filename2 = paths[1]
            raise

    def _call(self, function: Callable[..., Any], path: Any, *rest: Any, **options: Any) -> Any:
        with self._named(path):
            return function(self._at(path), *rest, **options)

    # -- names ---------------------------------------------------------------------------------------

    def mkdir(self, path: Any) -> None:
        self._call(os.mkdir, path)

    def makedirs(self, path: Any, exist_ok: bool = False) -> None:
        self._call(os.makedirs, path, exist_ok=exist_ok)

    def rmdir(self, path: Any) -> None:
        self._call(os.rmdir, path)

    def rmtree(self, path: Any) -> None:
        self._call(shutil.rmtree, path)

    def unlink(self, path: Any) -> None:
        self._call(os.unlink, path)

    def rename(self, source: Any, target: Any, *, noreplace: bool = False, exchange: bool = False) -> None:
        flags = (_NOREPLACE if noreplace else 0) | (_EXCHANGE if exchange else 0)
        with self._named(source, target):
            if not flags:
                os.rename(self._at(source), self._at(target))
                return
            ends = os.fsencode(self._at(source)), os.fsencode(self._at(target))
            if _LIBC.renameat2(_AT_FDCWD, ends[0], _AT_FDCWD, ends[1], flags):
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number))

    def link(self, source: Any, target: Any) -> None:
        with self._named(source, target):
            os.link(self._at(source), self._at(target), follow_symlinks=False)

    def symlink(self, target: Any, path: Any) -> None:
        with self._named(target, path):
            os.symlink(target, self._at(path))

    def readlink(self, path: Any) -> Any:
        return self._call(os.readlink, path)

    def listdir(self, path: Any = "/") -> list[Any]:
        names: list[Any] = self._call(os.listdir, path)
        return sorted(names)

    def scandir(self, path: Any = "/") -> Any:
        return self._call(os.scandir, path)

    def walk(self, top: str, **options: Any) -> Iterator[tuple[str, list[str], list[str]]]:
        for at, directories, files in os.walk(self._at(top), **options):
            yield at[len(self._root) :] or "/", directories, files

    # -- attributes ----------------------------------------------------------------------------------

    def stat(self, path: Any) -> os.stat_result:
        status: os.stat_result = self._call(os.stat, path)
        return status

    def lstat(self, path: Any) -> os.stat_result:
        status: os.stat_result = self._call(os.lstat, path)
        return status

    def exists(self, path: Any, follow_symlinks: bool = True) -> bool:
        return os.path.exists(self._at(path)) if follow_symlinks else os.path.lexists(self._at(path))

    def is_dir(self, path: Any) -> bool:
        return os.path.isdir(self._at(path))

    def is_file(self, path: Any) -> bool:
        return os.path.isfile(self._at(path))

    def is_symlink(self, path: Any) -> bool:
        return os.path.islink(self._at(path))

    def chmod(self, path: Any, mode: int) -> None:
        self._call(os.chmod, path, mode)

    def chown(self, path: Any, uid: int, gid: int, follow_symlinks: bool = True) -> None:
        self._call(os.chown, path, uid, gid, follow_symlinks=follow_symlinks)

    def utime(self, path: Any, times: Any = None, **options: Any) -> None:
        self._call(os.utime, path, times, **options)

    def mknod(self, path: Any, mode: int, device: int = 0) -> None:
        self._call(os.mknod, path, mode, device)

    def mkfifo(self, path: Any, mode: int = 0o666) -> None:
        self._call(os.mkfifo, path, mode)

    def statvfs(self, path: Any) -> os.statvfs_result:
        room: os.statvfs_result = self._call(os.statvfs, path)
        return room

    def setxattr(self, path: Any, name: Any, value: bytes, flags: int = 0, follow_symlinks: bool = True) -> None:
        self._call(os.setxattr, path, name, value, flags, follow_symlinks=follow_symlinks)

    def getxattr(self, path: Any, name: Any, follow_symlinks: bool = True) -> bytes:
        value: bytes = self._call(os.getxattr, path, name, follow_symlinks=follow_symlinks)
        return value

    def removexattr(self, path: Any, name: Any, follow_symlinks: bool = True) -> None:
        self._call(os.removexattr, path, name, follow_symlinks=follow_symlinks)

    def listxattr(self, path: Any, follow_symlinks: bool = True) -> list[str]:
        return sorted(self._call(os.listxattr, path, follow_symlinks=follow_symlinks))

    # -- content -------------------------------------------------------------------------------------

    def open(self, path: Any, mode: str = "r", *arguments: Any, **options: Any) -> IO[Any]:
        if "b" not in mode and options.get("encoding") is None:
            options["encoding"] = "utf-8"
        file: IO[Any] = self._call(open, path, mode, *arguments, **options)
        return file

    def read_bytes(self, path: Any) -> bytes:
        with self.open(path, "rb") as file:
            content: bytes = file.read()
            return content

    def write_bytes(self, path: Any, data: Any) -> int:
        with self.open(path, "wb") as file:
            return file.write(data)

    def read_text(self, path: Any) -> str:
        with self.open(path) as file:
            text: str = file.read()
            return text

    def write_text(self, path: Any, text: str) -> int:
        with self.open(path, "w", newline="\n") as file:
            return file.write(text)

    def truncate(self, path: Any, length: int) -> None:
        self._call(os.truncate, path, length)

    def punch_hole(self, path: Any, offset: int, size: int) -> None:
        with self.open(path, "r+b") as file:
            fallocate(file.fileno(), _PUNCH_HOLE | _KEEP_SIZE, offset, size)
