"""A mounted store with the methods of ``FileSystem``, each of them a call of the kernel's.

Paths are those inside the store: the mount point goes before what is asked, and is taken off what is reported.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, ParamSpec, TypeVar

import pytest

P = ParamSpec("P")
T = TypeVar("T")
AnyPath = str | bytes | os.PathLike[str]

_NOREPLACE, _EXCHANGE = 1, 2
_PUNCH_AND_KEEP_SIZE = 3
_AT_FDCWD = -100
_LIBC = ctypes.CDLL(None, use_errno=True)


def missing() -> str | None:
    """Why nothing can be mounted here; None if it can."""
    if not os.path.exists("/dev/fuse"):
        return "there is no /dev/fuse"
    if os.geteuid():
        return "mounting for these tests needs root"
    return None


def idemfs(*arguments: str | Path, check: bool = True, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "idemfs", *map(str, arguments)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, stdin=subprocess.DEVNULL)
    assert not check or ended.returncode == 0, f"idemfs {' '.join(map(str, arguments))}: {ended.stderr}"
    return ended


@contextmanager
def mounted(store: Path, directory: Path, *options: str, logged: str = "") -> Iterator[Path]:
    """``store`` on ``directory``; afterwards it is unmounted and checked, and nothing was logged but, if there is one,
    a line with ``logged``."""
    if reason := missing():
        pytest.skip(reason)
    with suppress(FileExistsError):
        # Which cannot be asked for, when the mount before this one was killed.
        os.mkdir(directory)
    idemfs("mount", store, directory, *options)
    try:
        yield directory
    finally:
        # Files that a test left to the collector are in use until it comes.
        gc.collect()
        idemfs("umount", directory)
        log = store / "mount.log"
        text = log.read_text() if log.exists() else ""
        found = idemfs("check", store, "--data", check=False)
    assert text.count("\n") == bool(logged) and logged in text, text
    assert found.returncode == 0, found.stdout


def inside(method: Callable[P, T]) -> Callable[P, T]:
    """Errors of ``method`` name paths inside the store."""

    @functools.wraps(method)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return method(*args, **kwargs)
        except OSError as error:
            mount = args[0]
            assert isinstance(mount, MountedFileSystem)
            for name in ("filename", "filename2"):
                value = getattr(error, name)
                if isinstance(value, str | bytes):
                    setattr(error, name, mount.outside(value))
            raise

    return wrapped


class MountedFileSystem:
    """What the suites use of ``FileSystem``."""

    def __init__(self, root: Path) -> None:
        self.root = str(root)

    def at(self, path: AnyPath) -> str:
        # Above the root of a store is the root again.
        return self.root + re.sub(r"^(/\.\.)+(?=/|$)", "", os.fsdecode(path))

    def outside(self, path: str | bytes) -> str:
        return os.fsdecode(path).removeprefix(self.root) or "/"

    def __getattr__(self, name: str) -> Callable[..., object]:
        """Functions of ``os`` whose first argument is a path, and no other."""
        function: Callable[..., object] = getattr(os, name)

        def called(path: AnyPath = "/", *args: object, **kwargs: object) -> object:
            return inside(lambda mount, *rest, **more: function(mount.at(path), *rest, **more))(self, *args, **kwargs)

        return called

    @inside
    def open(
        self,
        path: AnyPath,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> IO[Any]:
        return open(self.at(path), mode, buffering, encoding, errors, newline)

    @inside
    def write_bytes(self, path: AnyPath, data: bytes | bytearray | memoryview) -> int:
        with open(self.at(path), "wb") as file:
            return file.write(data)

    @inside
    def read_bytes(self, path: AnyPath) -> bytes:
        with open(self.at(path), "rb") as file:
            return file.read()

    def write_text(self, path: AnyPath, text: str) -> int:
        return self.write_bytes(path, text.encode())

    def read_text(self, path: AnyPath) -> str:
        with open(self.at(path), encoding="utf-8") as file:
            return file.read()

    @inside
    def symlink(self, target: AnyPath, path: AnyPath) -> None:
        if isinstance(target, bytes):
            os.symlink(target, os.fsencode(self.at(path)))
        else:
            os.symlink(target, self.at(path))

    @inside
    def rename(self, source: AnyPath, target: AnyPath, *, noreplace: bool = False, exchange: bool = False) -> None:
        flags = (_NOREPLACE if noreplace else 0) | (_EXCHANGE if exchange else 0)
        old, new = os.fsencode(self.at(source)), os.fsencode(self.at(target))
        if _LIBC.renameat2(_AT_FDCWD, old, _AT_FDCWD, new, flags):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), self.at(source), None, self.at(target))

    @inside
    def link(self, source: AnyPath, target: AnyPath, *, follow_symlinks: bool = False) -> None:
        os.link(self.at(source), self.at(target), follow_symlinks=follow_symlinks)

    def rmtree(self, path: AnyPath) -> None:
        shutil.rmtree(self.at(path))

    def exists(self, path: AnyPath, *, follow_symlinks: bool = True) -> bool:
        return os.path.exists(self.at(path)) if follow_symlinks else os.path.lexists(self.at(path))

    def is_file(self, path: AnyPath) -> bool:
        return os.path.isfile(self.at(path))

    def is_dir(self, path: AnyPath) -> bool:
        return os.path.isdir(self.at(path))

    def is_symlink(self, path: AnyPath) -> bool:
        return os.path.islink(self.at(path))

    @inside
    def listdir(self, path: AnyPath = "/") -> list[str] | list[bytes]:
        if isinstance(path, bytes):
            return sorted(os.listdir(os.fsencode(self.at(path))))
        return sorted(os.listdir(self.at(path)))

    def walk(
        self,
        top: str,
        topdown: bool = True,
        onerror: Callable[[OSError], object] | None = None,
        followlinks: bool = False,
    ) -> Iterator[tuple[str, list[str], list[str]]]:
        def failed(error: OSError) -> None:
            if onerror is not None:
                error.filename = self.outside(error.filename)
                onerror(error)

        for directory, names, files in os.walk(self.at(top), topdown, failed, followlinks):
            names.sort()
            yield self.outside(directory), names, sorted(files)

    @inside
    def readlink(self, path: AnyPath) -> str | bytes:
        target = os.readlink(os.fsencode(self.at(path)))
        return target if isinstance(path, bytes) else os.fsdecode(target)

    @inside
    def mkfifo(self, path: AnyPath, mode: int = 0o666) -> None:
        try:
            os.mkfifo(self.at(path), mode)
        except OSError as error:
            # Python does not name the path of a fifo.
            raise OSError(error.errno, error.strerror, self.at(path)) from error

    @inside
    def punch_hole(self, path: AnyPath, offset: int, size: int) -> None:
        fd = os.open(self.at(path), os.O_WRONLY)
        try:
            if _LIBC.fallocate(fd, _PUNCH_AND_KEEP_SIZE, ctypes.c_long(offset), ctypes.c_long(size)):
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number), self.at(path))
        finally:
            os.close(fd)

    @inside
    def data_ranges(self, path: AnyPath) -> list[tuple[int, int]]:
        found = []
        with open(self.at(path), "rb") as file:
            size, end = os.fstat(file.fileno()).st_size, 0
            while end < size:
                try:
                    start = os.lseek(file.fileno(), end, os.SEEK_DATA)
                except OSError:
                    break
                end = os.lseek(file.fileno(), start, os.SEEK_HOLE)
                found.append((start, end))
        return found
