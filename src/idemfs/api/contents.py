"""Content of files, changed by path or through a file object.

Threads: as in ``editing``.
"""

from __future__ import annotations

import errno
import os
import stat
from os import getegid, geteuid

from idemfs.api.editing import Editable
from idemfs.api.files import Mode, RawFile, parse_mode, write_all
from idemfs.api.names import AnyPath, encode, named, naming
from idemfs.api.view import check_regular
from idemfs.format.role import Role
from idemfs.ids import Ino
from idemfs.vfs.paths import Paths
from idemfs.vfs.reader import posix
from idemfs.vfs.tree import Tree

_PRIMARY = Role.PRIMARY
_REGULAR = stat.S_IFREG
_FILE_MODE = 0o666
_REPLACE = parse_mode("wb")


class Writable(Editable):
    """All that changes a tree: the active file system, or a snapshot that is open for writing."""

    def __init__(self, tree: Tree) -> None:
        super().__init__(tree)
        self._inline_size = tree.store.superblock.inline_size

    def write_bytes(self, path: AnyPath, data: bytes | bytearray | memoryview) -> int:
        """Make a file with this content, or give a file that is there this content; how many bytes it has."""
        raw = encode(path)
        try:
            size = len(data)
            head, slash, name = raw.rpartition(b"/")
            tree = self.tree
            if size <= self._inline_size and slash and name and tree.role.role is _PRIMARY:
                # Most files that are written at once are small and new: one operation, without looking first.
                parent = self._paths.directory(head)
                mode = _REGULAR | _FILE_MODE & ~self.umask
                try:
                    content = data if isinstance(data, bytes) else bytes(data)
                    tree.create(parent, name, mode, geteuid(), getegid(), data=content)
                    return size
                except FileExistsError:
                    return self._replace(raw, data)
            return self._replace(raw, data)
        except OSError as error:
            named(error, path)
            raise

    def _replace(self, path: bytes, data: bytes | bytearray | memoryview) -> int:
        ino = self._opened(path, _REPLACE)
        try:
            return write_all(self.tree, ino, data)
        finally:
            self.tree.release(ino)

    def write_text(
        self, path: AnyPath, text: str, encoding: str = "utf-8", errors: str = "strict", newline: str | None = None
    ) -> int:
        """As ``write_bytes``; how many characters were written. ``newline``: as for ``open``."""
        if newline not in (None, "", "\n"):
            text = text.replace("\n", newline)
        self.write_bytes(path, text.encode(encoding, errors))
        return len(text)

    @naming
    def _open_raw(self, path: AnyPath, mode: Mode) -> RawFile:
        if not mode.writing:
            return super()._open_raw(path, mode)
        with self.tree.store.lock:
            ino = self._opened(encode(path), mode)
            return RawFile(self.tree.reader, self.tree, ino, os.fspath(path), mode)

    def _opened(self, path: bytes, mode: Mode) -> Ino:
        """The file to be written, made or emptied as the mode says, and opened: the caller releases it."""
        paths = self._writing()
        with self.tree.store.lock:
            ino, is_new = self._made(paths, path, mode) if mode.creating else (paths.find(path), False)
            check_regular(self.tree.reader.inode(ino))
            self.tree.open(ino)
            try:
                if mode.truncating and not is_new:
                    self.tree.truncate(ino, 0)
            except BaseException:
                self.tree.release(ino)
                raise
            return ino

    def _made(self, paths: Paths, path: bytes, mode: Mode) -> tuple[Ino, bool]:
        """The file at this path, made if nothing has it; whether it was made."""
        if path[-1:] == b"/":
            raise posix(errno.EISDIR)
        permissions = _REGULAR | _FILE_MODE & ~self.umask
        while True:
            place = paths.locate(path, not mode.exclusive)
            if place.ino is not None and not mode.exclusive:
                return place.ino, False
            try:
                return self.tree.create(place.parent, place.name, permissions, geteuid(), getegid()), True
            except FileExistsError:
                # Somebody else was let in while this waited for room, and made it.
                if mode.exclusive:
                    raise
