"""A file system that does nothing: names in one dictionary, what is written thrown away. ``nothing.py DIRECTORY``.

What the library and the kernel cost without a store behind them. Run by a Python that has pyfuse3, as Debian's
with ``python3-pyfuse3``.
"""

from __future__ import annotations

import errno
import sys
import time

import pyfuse3  # type: ignore[import-not-found]
import trio  # type: ignore[import-not-found]

_SIZE_MAX = 1 << 20
_DIRECTORY = 0o40777


class Nothing(pyfuse3.Operations):  # type: ignore[misc]
    """Sizes and names are remembered, so that programs find what they made; content is zeros."""

    enable_writeback_cache = False

    def __init__(self) -> None:
        super().__init__()
        self._names: dict[tuple[int, bytes], int] = {}
        self._modes = {int(pyfuse3.ROOT_INODE): _DIRECTORY}
        self._sizes: dict[int, int] = {}
        self._next = int(pyfuse3.ROOT_INODE) + 1
        self._zeros = bytes(_SIZE_MAX)
        self._time = time.time_ns()

    def _attributes(self, inode: int) -> object:
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = inode
        entry.st_mode = self._modes[inode]
        entry.st_nlink = 1
        entry.st_size = self._sizes.get(inode, 0)
        entry.st_atime_ns = entry.st_mtime_ns = entry.st_ctime_ns = self._time
        # As long as a store's mount lets the kernel believe them.
        entry.entry_timeout = entry.attr_timeout = 3600
        return entry

    def _made(self, parent: int, name: bytes, mode: int) -> int:
        inode = self._next
        self._next += 1
        self._names[parent, name] = inode
        self._modes[inode] = mode
        return inode

    async def lookup(self, parent: int, name: bytes, ctx: object = None) -> object:
        inode = self._names.get((parent, name))
        if inode is None:
            raise pyfuse3.FUSEError(errno.ENOENT)
        return self._attributes(inode)

    async def getattr(self, inode: int, ctx: object = None) -> object:
        return self._attributes(inode)

    async def mkdir(self, parent: int, name: bytes, mode: int, ctx: object) -> object:
        return self._attributes(self._made(parent, name, mode))

    async def create(self, parent: int, name: bytes, mode: int, flags: int, ctx: object) -> object:
        inode = self._made(parent, name, mode)
        return pyfuse3.FileInfo(fh=inode, keep_cache=True), self._attributes(inode)

    async def open(self, inode: int, flags: int, ctx: object) -> object:
        return pyfuse3.FileInfo(fh=inode, keep_cache=True)

    async def read(self, inode: int, offset: int, size: int) -> bytes:
        return self._zeros[: max(0, min(size, self._sizes.get(inode, 0) - offset))]

    async def write(self, inode: int, offset: int, data: bytes) -> int:
        self._sizes[inode] = max(self._sizes.get(inode, 0), offset + len(data))
        return len(data)

    async def unlink(self, parent: int, name: bytes, ctx: object) -> None:
        del self._names[parent, name]

    async def rmdir(self, parent: int, name: bytes, ctx: object) -> None:
        del self._names[parent, name]

    async def getxattr(self, inode: int, name: bytes, ctx: object) -> bytes:
        raise pyfuse3.FUSEError(errno.ENODATA)

    async def flush(self, inode: int) -> None:
        return None

    async def release(self, inode: int) -> None:
        return None

    async def fsync(self, inode: int, only_data: bool) -> None:
        return None


def main() -> None:
    pyfuse3.init(Nothing(), sys.argv[1], set(pyfuse3.default_options))
    try:
        trio.run(pyfuse3.main)
    finally:
        pyfuse3.close(unmount=True)


if __name__ == "__main__":
    main()
