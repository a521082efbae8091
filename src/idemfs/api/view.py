"""What can be read of one state of the tree: the active file system, or a snapshot.

Threads: any; each call sees one state of what it looks at, several calls may not.
"""

from __future__ import annotations

import errno
import os
import posixpath
from collections.abc import Callable, Iterator
from typing import IO, Any, AnyStr, BinaryIO, Literal, TypeAlias, overload

from idemfs.api.entries import Listing
from idemfs.api.files import Mode, RawFile, parse_mode, read_all, touch, wrapped
from idemfs.api.names import AnyPath, StrPath, attribute_name, encode, named, naming
from idemfs.api.status import status
from idemfs.format.inode import Inode
from idemfs.ids import ROOT_NUMBER, Ino, fileset_of, make_ino
from idemfs.limits import CALL_BYTES_MAX
from idemfs.vfs.paths import Paths
from idemfs.vfs.reader import Reader, posix
from idemfs.vfs.tree import Tree

TextMode: TypeAlias = Literal["r", "w", "a", "x", "rt", "wt", "at", "xt", "r+", "w+", "a+", "x+"]
BinaryMode: TypeAlias = Literal[
    "rb", "wb", "ab", "xb", "r+b", "rb+", "w+b", "wb+", "a+b", "ab+", "x+b", "xb+", "br", "bw", "ba", "bx"
]
_NOT_THERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG})
_READ = parse_mode("rb")
_DIRECTORY, _FILE, _LINK = 0o040000, 0o100000, 0o120000


class TreeView:
    """The reading methods, named as in ``os``, ``os.path`` and ``pathlib``; links are followed as those do."""

    def __init__(self, tree: Tree, paths: Paths) -> None:
        self.tree = tree
        """The layers below."""
        self._paths = paths
        self._block_size = tree.store.block_size
        self._device = int.from_bytes(tree.store.superblock.guid[:4], "big")

    def _reading(self) -> Paths:
        """Paths through the state that readers see now."""
        return self._paths

    @property
    def reader(self) -> Reader:
        """The same state by inode number."""
        return self._reading().reader

    # -- attributes ----------------------------------------------------------------------------------

    @naming
    def stat(self, path: AnyPath, *, follow_symlinks: bool = True) -> os.stat_result:
        paths = self._reading()
        with self.tree.store.lock:
            reader, ino = paths.look(encode(path), follow_symlinks)
            snapshot = reader.snapshot
            # As in a mount, the same inode in another snapshot is another file.
            device = self._device if snapshot is None else self._device ^ snapshot.id & 0xFFFFFFFF
            node = reader.inode(ino)
            return status(ino, node, reader.shown_size(ino, node), device, self._block_size)

    def lstat(self, path: AnyPath) -> os.stat_result:
        return self.stat(path, follow_symlinks=False)

    def _node(self, path: AnyPath, follow: bool) -> Inode | None:
        """The inode, or None when nothing has this path."""
        paths = self._reading()
        try:
            reader, ino = paths.look(encode(path), follow)
            return reader.inode(ino)
        except OSError as error:
            if error.errno in _NOT_THERE:
                return None
            named(error, path)
            raise

    def exists(self, path: AnyPath, *, follow_symlinks: bool = True) -> bool:
        return self._node(path, follow_symlinks) is not None

    def is_dir(self, path: AnyPath) -> bool:
        return self._is_kind(path, _DIRECTORY, True)

    def is_file(self, path: AnyPath) -> bool:
        return self._is_kind(path, _FILE, True)

    def is_symlink(self, path: AnyPath) -> bool:
        return self._is_kind(path, _LINK, False)

    def _is_kind(self, path: AnyPath, kind: int, follow: bool) -> bool:
        node = self._node(path, follow)
        return node is not None and node.mode & 0o170000 == kind

    @overload
    def readlink(self, path: StrPath) -> str: ...
    @overload
    def readlink(self, path: bytes) -> bytes: ...
    def readlink(self, path: StrPath | bytes) -> str | bytes:
        """The target of a symlink, as str or bytes as ``path`` is; of a dynamic link, where in a mount it leads now."""
        try:
            reader, ino = self._reading().look(encode(path), False)
            target = reader.readlink(ino)
        except OSError as error:
            named(error, path)
            raise
        return target if isinstance(path, bytes) else os.fsdecode(target)

    def is_dynamic_link(self, path: AnyPath) -> bool:
        """Whether it is a link that leads to a file in the newest snapshot. Such a link is a symlink too."""
        node = self._node(path, False)
        return node is not None and node.is_dynamic

    @naming
    def getxattr(self, path: AnyPath, attribute: str | bytes, *, follow_symlinks: bool = True) -> bytes:
        reader, ino = self._reading().look(encode(path), follow_symlinks)
        return reader.xattr(ino, attribute_name(attribute))

    @naming
    def listxattr(self, path: AnyPath = "/", *, follow_symlinks: bool = True) -> list[str]:
        reader, ino = self._reading().look(encode(path), follow_symlinks)
        return [os.fsdecode(name) for name in reader.xattr_names(ino)]

    # -- directories ---------------------------------------------------------------------------------

    @overload
    def listdir(self, path: StrPath = "/") -> list[str]: ...
    @overload
    def listdir(self, path: bytes) -> list[bytes]: ...
    def listdir(self, path: StrPath | bytes = "/") -> list[str] | list[bytes]:
        """The names in a directory, in their order as bytes; without ``.`` and ``..``."""
        if isinstance(path, bytes):
            return [entry.name for entry in self._listing(path, path)]
        return [entry.name for entry in self._listing(path, os.fspath(path))]

    @overload
    def scandir(self, path: StrPath = "/") -> Listing[str]: ...
    @overload
    def scandir(self, path: bytes) -> Listing[bytes]: ...
    def scandir(self, path: StrPath | bytes = "/") -> Listing[str] | Listing[bytes]:
        """The entries of a directory in order of names; those that stay meanwhile come exactly once."""
        return self._listing(path, path) if isinstance(path, bytes) else self._listing(path, os.fspath(path))

    @naming
    def _listing(self, path: AnyPath, name: AnyStr) -> Listing[AnyStr]:
        reader, ino = self._reading().look(encode(path))
        reader.directory(ino)
        return Listing(self, name, reader.all_entries(ino))

    def walk(
        self,
        top: AnyStr,
        topdown: bool = True,
        onerror: Callable[[OSError], object] | None = None,
        followlinks: bool = False,
    ) -> Iterator[tuple[AnyStr, list[AnyStr], list[AnyStr]]]:
        """As ``os.walk``: directory, names of directories in it, other names; ``topdown`` lets the caller prune."""
        waiting: list[AnyStr | tuple[AnyStr, list[AnyStr], list[AnyStr]]] = [top]
        while waiting:
            at = waiting.pop()
            if isinstance(at, tuple):
                yield at
                continue
            directories: list[AnyStr] = []
            others: list[AnyStr] = []
            try:
                for entry in self._listing(at, at):
                    (directories if entry.is_dir() else others).append(entry.name)
            except OSError as error:
                if onerror is not None:
                    onerror(error)
                continue
            if topdown:
                yield at, directories, others
            else:
                waiting.append((at, directories, others))
            for name in reversed(directories):
                path = posixpath.join(at, name)
                if followlinks or not self.is_symlink(path):
                    waiting.append(path)

    # -- content -------------------------------------------------------------------------------------

    @overload
    def open(
        self,
        path: AnyPath,
        mode: TextMode = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> IO[str]: ...
    @overload
    def open(self, path: AnyPath, mode: BinaryMode, buffering: int = -1) -> BinaryIO: ...
    @overload
    def open(
        self,
        path: AnyPath,
        mode: str,
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> IO[Any]: ...
    def open(
        self,
        path: AnyPath,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> IO[Any]:
        """As builtin ``open``; without buffer (0) a ``RawFile``. Text is UTF-8 unless ``encoding`` says otherwise."""
        parsed = parse_mode(mode)
        return wrapped(lambda: self._open_raw(path, parsed), parsed, buffering, encoding, errors, newline)

    @naming
    def _open_raw(self, path: AnyPath, mode: Mode) -> RawFile:
        if mode.writing:
            raise posix(errno.EROFS)
        paths = self._reading()
        with self.tree.store.lock:
            reader, ino = paths.look(encode(path))
            check_regular(reader.inode(ino))
            tree = self.tree if reader is self.tree.reader else None
            if tree is not None:
                tree.open(ino)
            return RawFile(reader, tree, ino, os.fspath(path), mode)

    @naming
    def read_bytes(self, path: AnyPath) -> bytes:
        paths = self._reading()
        with self.tree.store.lock:
            reader, ino = paths.look(encode(path))
            if reader.inode(ino).size <= CALL_BYTES_MAX:
                if reader is self.tree.reader:
                    touch(self.tree, ino)
                return read_all(reader, ino)
        # A large one is read in pieces, and others get in between.
        with self._open_raw(path, _READ) as file:
            return file.readall()

    def read_text(self, path: AnyPath, encoding: str = "utf-8", errors: str = "strict") -> str:
        """The content as text, with universal newlines."""
        with self.open(path, "r", encoding=encoding, errors=errors) as file:
            return file.read()

    @naming
    def data_ranges(self, path: AnyPath) -> list[tuple[int, int]]:
        """(start, end) of the parts of a file that are no holes, ascending."""
        paths = self._reading()
        with self.tree.store.lock:
            reader, ino = paths.look(encode(path))
            check_regular(reader.inode(ino))
            return list(reader.data_ranges(ino))

    def statvfs(self, path: AnyPath = "/") -> os.statvfs_result:
        """The host's free space, seen through the store, and through the quota of the fileset that holds ``path``."""
        ino = Ino(self.stat(path).st_ino)
        return self.tree.statfs(make_ino(fileset_of(ino), ROOT_NUMBER))


def check_regular(node: Inode) -> None:
    """Raises ``OSError`` for what has no content: EISDIR, and ENXIO for fifos, devices and sockets."""
    if not node.is_file:
        raise posix(errno.EISDIR if node.is_dir else errno.ENXIO)
