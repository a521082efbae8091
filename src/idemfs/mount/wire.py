"""The kernel's FUSE protocol as bytes: requests parsed, replies packed. Pure.

Source: ``include/uapi/linux/fuse.h``, version 7.45. Everything is in the machine's own byte order::

    request   length(4) opcode(4) unique(8) node(8) uid(4) gid(4) pid(4) extensions(2) padding(2) · body
    reply     length(4) -errno(4) unique(8) · body
    notice    length(4) code(4) 0(8) · body
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum, IntFlag
from struct import Struct

from idemfs.format.inode import Inode

REQUEST = Struct("=IIQQIIIHH")
REPLY = Struct("=IiQ")
HEADER_SIZE = REQUEST.size
REPLY_SIZE = REPLY.size

MAJOR, MINOR = 7, 45
WRITE_SIZE_MAX = 1 << 20
PAGE_COUNT_MAX = WRITE_SIZE_MAX // 4096
BUFFER_SIZE = WRITE_SIZE_MAX + 4096
NAME_SIZE_MAX = 1024
"""The protocol's bound; that of names is ``limits.NAME_SIZE_MAX``."""


class Opcode(IntEnum):
    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    READLINK = 5
    SYMLINK = 6
    MKNOD = 8
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    RENAME = 12
    LINK = 13
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    SETXATTR = 21
    GETXATTR = 22
    LISTXATTR = 23
    REMOVEXATTR = 24
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    FSYNCDIR = 30
    CREATE = 35
    INTERRUPT = 36
    DESTROY = 38
    BATCH_FORGET = 42
    FALLOCATE = 43
    READDIRPLUS = 44
    RENAME2 = 45
    LSEEK = 46
    COPY_FILE_RANGE = 47
    SYNCFS = 50
    TMPFILE = 51


class Feature(IntFlag):
    """Of INIT; from bit 32 on they stand in the second word of flags."""

    ASYNC_READ = 1 << 0
    ATOMIC_O_TRUNC = 1 << 3
    EXPORT_SUPPORT = 1 << 4
    BIG_WRITES = 1 << 5
    DONT_MASK = 1 << 6
    DO_READDIRPLUS = 1 << 13
    READDIRPLUS_AUTO = 1 << 14
    PARALLEL_DIROPS = 1 << 18
    POSIX_ACL = 1 << 20
    MAX_PAGES = 1 << 22
    EXPLICIT_INVAL_DATA = 1 << 25
    HANDLE_KILLPRIV_V2 = 1 << 28
    SETXATTR_EXT = 1 << 29
    INIT_EXT = 1 << 30


class Valid:
    """Which fields SETATTR sets. Plain numbers: an enumeration's take longer than the rest of the request."""

    MODE = 1 << 0
    UID = 1 << 1
    GID = 1 << 2
    SIZE = 1 << 3
    ATIME = 1 << 4
    MTIME = 1 << 5
    ATIME_NOW = 1 << 7
    MTIME_NOW = 1 << 8
    KILL_SUIDGID = 1 << 11


class Notice(IntEnum):
    INVAL_INODE = 2
    INVAL_ENTRY = 3
    INC_EPOCH = 8


INC_EPOCH_MINOR = 44
"""Kernels from this version on (Linux 6.16) forget all names at once when told so."""

OPEN_DIRECT_IO = 1 << 0
OPEN_KEEP_CACHE = 1 << 1
OPEN_NOFLUSH = 1 << 5
OPEN_KILL_SUIDGID = 1 << 0
WRITE_KILL_SUIDGID = 1 << 2

INIT_IN = Struct("=IIII")
INIT_IN_FLAGS2 = Struct("=16xI")
INIT_OUT = Struct("=IIIIHHIIHHI28x")
ATTRIBUTES = Struct("=QQQqqqIIIIIIIIII")
ENTRY_OUT = Struct("=QQQQII")
ATTR_OUT = Struct("=QII")
SETATTR_IN = Struct("=I4x8xQ8xqqqIIIIIII4x")
OPEN_IN = Struct("=II")
OPEN_OUT = Struct("=QII")
CREATE_IN = Struct("=IIII")
MKNOD_IN = Struct("=IIII")
MKDIR_IN = Struct("=II")
RENAME_IN = Struct("=Q")
RENAME2_IN = Struct("=QI4x")
LINK_IN = Struct("=Q")
READ_IN = Struct("=QQIIQII")
WRITE_IN = READ_IN
RELEASE_IN = Struct("=Q16x")
WRITE_OUT = Struct("=I4x")
SETXATTR_IN = Struct("=IIII")
SETXATTR_KILL_SETGID = 1
GETXATTR_IN = Struct("=I4x")
GETXATTR_OUT = GETXATTR_IN
FALLOCATE_IN = Struct("=QQQI4x")
LSEEK_IN = Struct("=QQI4x")
LSEEK_OUT = Struct("=Q")
COPY_FILE_RANGE_IN = Struct("=QQQQQQQ")
STATFS_OUT = Struct("=QQQQQIII28x")
DIRENT = Struct("=QQII")
INVAL_INODE = Struct("=Qqq")
INVAL_ENTRY = Struct("=QII")

_SECOND_NS = 1_000_000_000
_SECTOR_COUNT = 8
"""Sectors of 512 bytes, which ``st_blocks`` counts, in one of the store's."""


def _nobody_waits() -> None:
    """There is no other thread that could take the next request."""


class Request:
    """One request. ``body`` is valid until the handler returns; a handler that waits calls ``hand_over`` first."""

    __slots__ = ("body", "gid", "hand_over", "node", "opcode", "pid", "uid", "unique")

    def __init__(self) -> None:
        self.opcode = self.unique = self.node = self.uid = self.gid = self.pid = 0
        self.body = memoryview(b"")
        self.hand_over: Callable[[], None] = _nobody_waits

    def parse(self, buffer: memoryview, size: int) -> None:
        _, self.opcode, self.unique, self.node, self.uid, self.gid, self.pid, _, _ = REQUEST.unpack_from(buffer)
        self.body = buffer[HEADER_SIZE:size]

    def names(self, start: int = 0) -> list[bytes]:
        """The NUL-terminated strings from byte ``start`` of the body on."""
        return bytes(self.body[start:]).split(b"\0")

    def name(self, start: int = 0) -> bytes:
        return bytes(self.body[start:]).split(b"\0", 1)[0]


def attributes(node: Inode, number: int, size: int, sector_count: int, block_size: int) -> bytes:
    """``struct fuse_attr``."""
    atime, atime_ns = divmod(node.atime, _SECOND_NS)
    mtime, mtime_ns = divmod(node.mtime, _SECOND_NS)
    ctime, ctime_ns = divmod(node.ctime, _SECOND_NS)
    return ATTRIBUTES.pack(
        number,
        size,
        sector_count * _SECTOR_COUNT,
        atime,
        mtime,
        ctime,
        atime_ns,
        mtime_ns,
        ctime_ns,
        node.mode,
        node.nlink,
        node.uid,
        node.gid,
        node.rdev & 0xFFFFFFFF,
        block_size,
        0,
    )


def entry_out(number: int, entry_seconds: int, attr_seconds: int, attrs: bytes) -> bytes:
    return ENTRY_OUT.pack(number, 0, entry_seconds, attr_seconds, 0, 0) + attrs


def attr_out(attr_seconds: int, attrs: bytes) -> bytes:
    return ATTR_OUT.pack(attr_seconds, 0, 0) + attrs


def dirent(number: int, cookie: int, kind: int, name: bytes) -> bytes:
    size = len(name)
    return DIRENT.pack(number, cookie, size, kind) + name + bytes(-size % 8)


NO_ENTRY = bytes(ENTRY_OUT.size + ATTRIBUTES.size)
"""Goes before an entry of READDIRPLUS that tells a name only."""
