"""Walks through trees of directories, of any depth and of paths of any length, with one directory open at a time.

The way up is ``..``, which must be where the walk came from: who moves a directory meanwhile, or puts a symlink in
the place of one, ends the walk, and leads it nowhere else.

Threads: a walk is of one.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

_READING = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def naming(path: str) -> Iterator[None]:
    """An ``OSError`` in it names this path."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from error


class Descent:
    """A directory that is open, ``fd``, and the ``names`` that led there from the one where it began.

    ``start`` is somebody else's to close, ``fd`` this one's.
    """

    def __init__(self, start: int) -> None:
        self._start = start
        self._above: list[tuple[int, int]] = []
        self.names: list[str] = []
        self.fd = os.dup(start)

    def close(self) -> None:
        os.close(self.fd)

    def down(self, name: str) -> None:
        """Raises ``OSError``."""
        above = _identity(self.fd)
        self._enter(os.open(name, _READING, dir_fd=self.fd))
        self._above.append(above)
        self.names.append(name)

    def up(self) -> str:
        """The name of the directory that was left. Raises ``OSError``."""
        is_last = len(self._above) == 1
        fd = os.dup(self._start) if is_last else os.open("..", _READING, dir_fd=self.fd)
        if _identity(fd) != self._above[-1]:
            os.close(fd)
            raise OSError(errno.ESTALE, "this directory was moved meanwhile")
        self._enter(fd)
        self._above.pop()
        return self.names.pop()

    def _enter(self, fd: int) -> None:
        os.close(self.fd)
        self.fd = fd


def _identity(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


class Walk:
    """Visits a name and all below it. Who derives from it says what is done there, ``tree`` being where it is.

    An ``OSError`` on the way names the path; ``shown`` is that of the directory where it begins.
    """

    def __init__(self, start: int, shown: str) -> None:
        self.tree = Descent(start)
        self._shown = shown

    def entering(self, name: str) -> None:
        """Before a directory is opened."""

    def entered(self) -> None:
        """Before what is in the directory."""

    def other(self, name: str) -> None:
        """What is no directory."""

    def leaving(self) -> None:
        """After what is in the directory."""

    def left(self, name: str) -> None:
        """The same, in the directory above."""

    def shown(self, *name: str) -> str:
        return os.path.join(self._shown, *self.tree.names, *name)

    def run(self, name: str) -> None:
        """Raises ``OSError``. A walk is run once."""
        try:
            with naming(self.shown(name)):
                status = os.stat(name, dir_fd=self.tree.fd, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                self._descend(name)
            else:
                self.other(name)
        finally:
            self.close()

    def close(self) -> None:
        self.tree.close()

    def _descend(self, top: str) -> None:
        waiting = [[top]]
        while waiting:
            if waiting[-1]:
                name = waiting[-1].pop()
                self.entering(name)
                with naming(self.shown(name)):
                    self.tree.down(name)
                self.entered()
                waiting.append(self._listed())
                continue
            waiting.pop()
            if waiting:
                self.leaving()
                with naming(self.shown()):
                    name = self.tree.up()
                self.left(name)

    def _listed(self) -> list[str]:
        """The directories that are in the present one, once the others were visited."""
        found = []
        with naming(self.shown()):
            entries = os.scandir(self.tree.fd)
        with entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    found.append(entry.name)
                else:
                    self.other(entry.name)
        return found
