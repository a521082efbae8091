"""The inode record.

Layout (little-endian), a local head of 40 bytes and a portable rest::

    birth(8) seen(8) atime(8) sectors(8) xxh3 of the rest(8)              local: never compared, never sent
    mode(4) uid(4) gid(4) nlink(4) rdev(8) size(8)
    mtime(8) ctime(8) btime(8) flags(1) parent(8) name size(1)
    name · data                                                           portable: the same on every standby

``parent`` and ``name`` are the first back-reference; further ones are link
records. ``data`` is the content of an inline file or the target of a symlink; of a dynamic link,
the number (8) of the inode that it names.
The size of a directory is the count of its entries. Times are ns since 1970.

``Inode`` is mutable and plain, since it is made for every file operation.
"""

from __future__ import annotations

import stat
from struct import Struct, error

from xxhash import xxh3_64_intdigest

from idemfs.errors import Damaged
from idemfs.ids import Number, SnapshotId

LAYOUT = Struct("<QQqQQIIIIQQqqqBQB")
LOCAL_SIZE = 40
_HEAD = Struct("<QQqQQ")
_REST = Struct("<IIIIQQqqqBQB")
INLINE = 1
"""Flag: content stands in ``data``, and the inode has no indirect blocks."""
DYNAMIC = 2
"""Flag: the symlink is a dynamic link, and ``data`` is the number of the inode that it names."""
ABSENT = b""
"""The shadow value that says: this record did not exist at that snapshot."""

_pack_head = _HEAD.pack
_pack_rest = _REST.pack
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
        rest = (
            _pack_rest(
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
        return _pack_head(self.birth, self.seen, self.atime, self.sectors, xxh3_64_intdigest(rest)) + rest

    @property
    def is_dir(self) -> bool:
        return self.mode & 0o170000 == stat.S_IFDIR

    @property
    def is_file(self) -> bool:
        return self.mode & 0o170000 == stat.S_IFREG

    @property
    def is_inline(self) -> bool:
        return bool(self.flags & INLINE)

    @property
    def is_dynamic(self) -> bool:
        return bool(self.flags & DYNAMIC)


def unpack(value: bytes) -> Inode:
    """The inode in ``value``; raises ``Damaged``."""
    try:
        fields = _unpack_from(value)
    except error as short:
        raise Damaged(f"an inode record of {len(value)} bytes is too short") from short
    if xxh3_64_intdigest(value[LOCAL_SIZE:]) != fields[4]:
        raise Damaged(
            "an inode record is damaged: its checksum is wrong; restore the file from a snapshot or a standby"
        )
    end = _size + fields[16]
    if len(value) < end:
        raise Damaged("an inode record ends inside its name")
    inode = Inode.__new__(Inode)
    (
        inode.birth,
        inode.seen,
        inode.atime,
        inode.sectors,
        _,
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


def pack_named(number: Number) -> bytes:
    """The ``data`` of a dynamic link that names this inode."""
    return number.to_bytes(8, "little")


def named_by(link: Inode, link_number: Number) -> Number:
    """The number of the inode that a dynamic link with this number names; raises ``Damaged``.

    It was there before the link, so its number is smaller.
    """
    number = int.from_bytes(link.data, "little")
    if len(link.data) != 8 or not 0 < number < link_number:
        raise Damaged(f"a dynamic link names inode {number}, which was not there when it was made")
    return Number(number)


PORTABLE_FIELDS = (
    "mode",
    "uid",
    "gid",
    "nlink",
    "rdev",
    "size",
    "mtime",
    "ctime",
    "btime",
    "flags",
    "parent",
    "name",
    "data",
)
"""Of an inode, those that its portable part says."""


def portable(value: bytes) -> bytes:
    """The part of a packed inode that is the same on every standby."""
    return value[LOCAL_SIZE:]


def with_local(portable_part: bytes, *, birth: SnapshotId, seen: SnapshotId, atime: int, sectors: int) -> Inode:
    """An inode from its portable part and this store's own head; raises ``Damaged``."""
    return unpack(_pack_head(birth, seen, atime, sectors, xxh3_64_intdigest(portable_part)) + portable_part)
