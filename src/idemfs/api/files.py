"""Files that are open, as ``io`` objects: a raw file on one inode, and what ``open`` wraps around it.

Threads: one thread at a time for one file object.
"""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from idemfs.errors import NoSpace
from idemfs.ids import Ino
from idemfs.limits import CALL_BYTES_MAX
from idemfs.vfs.reader import Reader, posix
from idemfs.vfs.tree import Tree

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

BUFFER_SIZE = 128 << 10


class Mode(NamedTuple):
    """What the mode of ``open`` asks for."""

    reading: bool
    writing: bool
    appending: bool
    creating: bool
    exclusive: bool
    truncating: bool
    binary: bool
    text: str

    @property
    def raw(self) -> str:
        """The mode that the raw file shows, as ``io.FileIO`` does."""
        if self.exclusive:
            return "xb+" if self.reading else "xb"
        if self.appending:
            return "ab+" if self.reading else "ab"
        return "rb+" if self.reading and self.writing else "rb" if self.reading else "wb"


def parse_mode(mode: str) -> Mode:
    """Raises ``ValueError`` for what builtin ``open`` refuses too."""
    letters = set(mode)
    if letters - set("rwaxbt+") or len(mode) != len(letters):
        raise ValueError(f"invalid mode: {mode!r}")
    if "t" in letters and "b" in letters:
        raise ValueError("can't have text and binary mode at once")
    if len(letters & set("rwax")) != 1:
        raise ValueError("must have exactly one of create/read/write/append mode")
    plus = "+" in letters
    return Mode(
        reading=plus or "r" in letters,
        writing=plus or "r" not in letters,
        appending="a" in letters,
        creating="r" not in letters,
        exclusive="x" in letters,
        truncating="w" in letters,
        binary="b" in letters,
        text=mode,
    )


class RawFile(io.RawIOBase):
    """A file without buffer. With ``appending`` every write goes to the end of the file, wherever that is then.

    ``tree`` is None in a snapshot. Otherwise ``close`` gives up the inode, which was opened for this.
    """

    def __init__(self, reader: Reader, tree: Tree | None, ino: Ino, name: str | bytes, mode: Mode) -> None:
        super().__init__()
        self.name = name
        self.mode = mode.raw
        self._reader = reader
        self._tree = tree
        self._ino = ino
        self._mode = mode
        self._position = reader.inode(ino).size if mode.appending else 0
        self._is_touched = not mode.reading

    def inode(self) -> int:
        """The inode number; the file has no descriptor."""
        return self._ino

    def readable(self) -> bool:
        self._refuse_if_closed()
        return self._mode.reading

    def writable(self) -> bool:
        self._refuse_if_closed()
        return self._mode.writing

    def seekable(self) -> bool:
        self._refuse_if_closed()
        return True

    def _refuse_if_closed(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")

    def _reading(self) -> None:
        self._refuse_if_closed()
        if not self._mode.reading:
            raise io.UnsupportedOperation("not readable")
        if not self._is_touched and self._tree is not None:
            touch(self._tree, self._ino)
        self._is_touched = True

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            return self.readall()
        self._reading()
        data = self._reader.read(self._ino, self._position, min(size, CALL_BYTES_MAX))
        self._position += len(data)
        return data

    def readall(self) -> bytes:
        self._reading()
        data = read_all(self._reader, self._ino, self._position)
        self._position += len(data)
        return data

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def write(self, data: ReadableBuffer, /) -> int:
        """How many bytes were written: fewer than given when space ran out after some."""
        self._refuse_if_closed()
        if not self._mode.writing or self._tree is None:
            raise io.UnsupportedOperation("not writable")
        content = data if isinstance(data, bytes) else memoryview(data).cast("B")
        if len(content) > CALL_BYTES_MAX:
            content = memoryview(content)[:CALL_BYTES_MAX]
        if self._mode.appending:
            self._position, count = self._tree.append(self._ino, content)
            return count
        count = self._tree.write(self._ino, self._position, content)
        self._position += count
        return count

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        self._refuse_if_closed()
        match whence:
            case os.SEEK_SET:
                position = offset
            case os.SEEK_CUR:
                position = self._position + offset
            case os.SEEK_END:
                position = self._reader.inode(self._ino).size + offset
            case os.SEEK_DATA | os.SEEK_HOLE:
                position = self._seek_edge(offset, whence)
            case _:
                raise ValueError(f"invalid whence ({whence})")
        if position < 0:
            raise posix(errno.EINVAL)
        self._position = position
        return position

    def _seek_edge(self, offset: int, whence: int) -> int:
        """The start of the data, or of the hole, at ``offset`` or next after it; the end of the file is a hole."""
        size = self._reader.inode(self._ino).size
        if not 0 <= offset < size:
            raise posix(errno.ENXIO)
        start, end = next(self._reader.data_ranges(self._ino, offset), (size, size))
        if whence == os.SEEK_DATA:
            if start >= size:
                raise posix(errno.ENXIO)
            return start
        return offset if start > offset else end

    def tell(self) -> int:
        self._refuse_if_closed()
        return self._position

    def truncate(self, size: int | None = None, /) -> int:
        self._refuse_if_closed()
        if not self._mode.writing or self._tree is None:
            raise io.UnsupportedOperation("not writable")
        size = self._position if size is None else size
        self._tree.truncate(self._ino, size)
        return size

    def close(self) -> None:
        if self.closed:
            return
        try:
            super().close()
        finally:
            if self._tree is not None:
                self._tree.release(self._ino)

    def __repr__(self) -> str:
        return f"<RawFile name={self.name!r} mode={self.mode!r}{' closed' if self.closed else ''}>"


def touch(tree: Tree, ino: Ino) -> None:
    """A file is read. A store without room cannot note it, and is read all the same."""
    with suppress(NoSpace):
        tree.touch_atime(ino)


def read_all(reader: Reader, ino: Ino, offset: int = 0) -> bytes:
    """The file from ``offset`` to its end."""
    data = reader.read(ino, offset, CALL_BYTES_MAX)
    if len(data) < CALL_BYTES_MAX:
        return data
    pieces = [data]
    while data:
        offset += len(data)
        data = reader.read(ino, offset, CALL_BYTES_MAX)
        pieces.append(data)
    return b"".join(pieces)


def write_all(tree: Tree, ino: Ino, data: bytes | bytearray | memoryview) -> int:
    """Write from the start of the file; how many bytes. Raises ``NoSpace`` after what there was room for."""
    view = memoryview(data).cast("B")
    done = 0
    while done < len(view):
        done += tree.write(ino, done, view[done : done + CALL_BYTES_MAX])
    return done


def wrapped(
    open_raw: Callable[[], RawFile],
    mode: Mode,
    buffering: int,
    encoding: str | None,
    errors: str | None,
    newline: str | None,
) -> IO[Any]:
    """What builtin ``open`` makes around a raw file. Text is UTF-8 unless ``encoding`` says otherwise."""
    if mode.binary:
        for option, value in (("encoding", encoding), ("errors", errors), ("newline", newline)):
            if value is not None:
                raise ValueError(f"binary mode doesn't take {'an' if option[0] == 'e' else 'a'} {option} argument")
    elif buffering == 0:
        raise ValueError("can't have unbuffered text I/O")
    raw = open_raw()
    try:
        if buffering == 0:
            return raw  # type: ignore[return-value]
        size = buffering if buffering > 1 else BUFFER_SIZE
        buffer: io.BufferedRandom | io.BufferedWriter | io.BufferedReader
        if mode.reading and mode.writing:
            buffer = io.BufferedRandom(raw, size)
        elif mode.writing:
            buffer = io.BufferedWriter(raw, size)
        else:
            buffer = io.BufferedReader(raw, size)
        if mode.binary:
            return buffer
        text = io.TextIOWrapper(buffer, encoding or "utf-8", errors, newline, line_buffering=buffering == 1)
        text.mode = mode.text  # type: ignore[misc]
        return text
    except BaseException:
        raw.close()
        raise
