"""The inode record.

Layout (little-endian), a local head of 32 bytes and a portable rest::

    birth(8) seen(8) atime(8) sectors(8)                                  local: never compared, never sent
    mode(4) uid(4) gid(4) nlink(4) rdev(8) size(8)
    mtime(8) ctime(8) btime(8) flags(1) parent(8) name size(1)
    name · data                                                           portable: the same on every standby

``parent`` and ``name`` are the first back-reference; further ones are link
records. ``data`` is the content of an inline file or the target of a symlink.
The size of a directory is the count of its entries. Times are ns since 1970.

``Inode`` is mutable and plain, since it is made for every file operation.
"""

from __future__ import annotations

import stat
from struct import Struct, error

from idemfs.errors import Damaged
from idemfs.ids import Number, SnapshotId

LAYOUT = Struct("<QQqQIIIIQQqqqBQB")
LOCAL_SIZE = 32
INLINE = 1
"""Flag: content stands in ``data``, and the inode has no indirect blocks."""
ABSENT = b""
"""The shadow value that says: this record did not exist at that snapshot."""

_pack = LAYOUT.pack
_unpack_from = LAYOUT.unpack_from
_size = LAYOUT.size


class Inode:
    """One inode. ``birth``: newest snapshot when it was created; ``seen``: newest one that has its shadow."""

    __slots__ = (
        "atime",
        "birth",
        "btime",
        "ctime",
        "data",
        "flags",
        "gid",
        "mode",
        "mtime",
        "name",
        "nlink",
        "parent",
        "rdev",
        "sectors",
        "seen",
        "size",
        "uid",
    )

    def __init__(
        self,
        *,
        birth: SnapshotId,
        seen: SnapshotId,
        atime: int,
        mode: int,
        uid: int,
        gid: int,
        nlink: int,
        rdev: int,
        size: int,
        mtime: int,
        ctime: int,
        btime: int,
        flags: int,
        parent: Number,
        name: bytes,
        data: bytes,
        sectors: int = 0,
    ) -> None:
        self.birth = birth
        self.seen = seen
        self.atime = atime
        self.sectors = sectors
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.nlink = nlink
        self.rdev = rdev
        self.size = size
        self.mtime = mtime
        self.ctime = ctime
        self.btime = btime
        self.flags = flags
        self.parent = parent
        self.name = name
        self.data = data

    def pack(self) -> bytes:
        return (
            _pack(
                self.birth,
                self.seen,
                self.atime,
                self.sectors,
                self.mode,
                self.uid,
                self.gid,
                self.nlink,
                self.rdev,
                self.size,
                self.mtime,
                self.ctime,
                self.btime,
                self.flags,
                self.parent,
                len(self.name),
            )
            + self.name
            + self.data
        )

    @property
    def is_dir(self) -> bool:
        return self.mode & 0o170000 == stat.S_IFDIR

    @property
    def is_file(self) -> bool:
        return self.mode & 0o170000 == stat.S_IFREG

    @property
    def is_inline(self) -> bool:
        return bool(self.flags & INLINE)


def unpack(value: bytes) -> Inode:
    """The inode in ``value``; raises ``Damaged``."""
    try:
        fields = _unpack_from(value)
    except error as short:
        raise Damaged(f"an inode record of {len(value)} bytes is too short") from short
    end = _size + fields[15]
    if len(value) < end:
        raise Damaged("an inode record ends inside its name")
    inode = Inode.__new__(Inode)
    (
        inode.birth,
        inode.seen,
        inode.atime,
        inode.sectors,
        inode.mode,
        inode.uid,
        inode.gid,
        inode.nlink,
        inode.rdev,
        inode.size,
        inode.mtime,
        inode.ctime,
        inode.btime,
        inode.flags,
        inode.parent,
        _,
    ) = fields
    inode.name = value[_size:end]
    inode.data = value[end:]
    return inode


def portable(value: bytes) -> bytes:
    """The part of a packed inode that is the same on every standby."""
    return value[LOCAL_SIZE:]


def with_local(portable_part: bytes, *, birth: SnapshotId, seen: SnapshotId, atime: int, sectors: int) -> Inode:
    """An inode from its portable part and this store's own head; raises ``Damaged``."""
    return unpack(Struct("<QQqQ").pack(birth, seen, atime, sectors) + portable_part)
