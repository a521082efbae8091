"""One record at a time: does its key exist in the format, and does its value decode and make sense by itself?

Each function gives the decoded record, or raises ``Damaged`` with what is wrong.
"""

from __future__ import annotations

import stat

from idemfs.errors import Damaged
from idemfs.format import indirect, keys
from idemfs.format import inode as inodes
from idemfs.format.address import HOLE
from idemfs.format.indirect import IndirectBlock, PartialBlock, ShadowBlock
from idemfs.format.inode import DYNAMIC, INLINE, Inode
from idemfs.ids import NUMBER_MASK, Number, number_of
from idemfs.limits import (
    FILE_SIZE_MAX,
    INDIRECT_ENTRY_COUNT,
    NAME_SIZE_MAX,
    SYMLINK_SIZE_MAX,
    XATTR_NAME_SIZE_MAX,
    XATTR_VALUE_SIZE_MAX,
)

_TYPES = frozenset((stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK))
_LINK_NAME_AT = 17


def check_key(key: bytes, block_size: int) -> None:
    """Of an active record."""
    kind = keys.kind_of(key)
    name = b""
    match kind:
        case keys.INODE:
            if len(key) != keys.NAME_AT:
                raise Damaged("the key of an inode is too long")
        case keys.BLOCK:
            if len(key) != keys.NAME_AT + 8:
                raise Damaged("the key of an indirect block has the wrong size")
            if keys.index_of(key) * INDIRECT_ENTRY_COUNT * block_size >= FILE_SIZE_MAX:
                raise Damaged("an indirect block lies past the largest size of a file")
        case keys.ENTRY:
            name = key[keys.NAME_AT :]
        case keys.LINK:
            if not 0 < int.from_bytes(key[keys.NAME_AT : _LINK_NAME_AT], "big") <= NUMBER_MASK:
                raise Damaged("a link names a directory that cannot exist")
            name = key[_LINK_NAME_AT:]
        case keys.XATTR:
            name = key[keys.NAME_AT :]
            if not name or len(name) > XATTR_NAME_SIZE_MAX or b"\0" in name:
                raise Damaged("no attribute can have this name")
        case _:
            raise Damaged("the key is of no known kind")
    if kind in (keys.ENTRY, keys.LINK):
        _check_name(name)
    if not int.from_bytes(key[2:8], "big"):
        raise Damaged("no inode has number 0")


def _check_name(name: bytes) -> None:
    if not name or len(name) > NAME_SIZE_MAX or b"/" in name or b"\0" in name or name in (b".", b".."):
        raise Damaged(f"no entry can have the name {name!r}")


def decode_inode(key: bytes, value: bytes, inline_size: int) -> Inode:
    node = inodes.unpack(value)
    if node.mode & 0o170000 not in _TYPES or node.mode >> 16:
        raise Damaged(f"mode {node.mode:#o} is of no type")
    if node.flags & ~(INLINE | DYNAMIC):
        raise Damaged(f"flags {node.flags:#x} mean nothing")
    if node.is_inline and not node.is_file:
        raise Damaged("only regular files can be inline")
    if node.is_dynamic:
        _check_dynamic(node, number_of(keys.ino_of(key)))
    if node.size > FILE_SIZE_MAX:
        raise Damaged(f"a size of {node.size} bytes is too large")
    if node.name:
        _check_name(node.name)
    has_data = node.is_inline or not (node.is_file or node.is_dir)
    if len(node.data) != (node.size if has_data else 0):
        raise Damaged(f"it holds {len(node.data)} bytes, and its size is {node.size}")
    if len(node.data) > (SYMLINK_SIZE_MAX if stat.S_ISLNK(node.mode) else inline_size):
        raise Damaged(f"it holds {len(node.data)} bytes, which is too many")
    return node


def _check_dynamic(node: Inode, number: Number) -> None:
    if not stat.S_ISLNK(node.mode):
        raise Damaged("only symlinks can be dynamic links")
    if node.nlink > 1:
        raise Damaged(f"a dynamic link has one name, and this one has {node.nlink}")
    inodes.named_by(node, number)


def decode_map(value: bytes) -> IndirectBlock:
    block = indirect.unpack(value)
    if not block.addresses or block.addresses[-1] == HOLE:
        raise Damaged("an indirect block ends with a hole")
    if 0 in block.addresses and any(
        check for address, check in zip(block.addresses, block.checksums, strict=True) if address == HOLE
    ):
        raise Damaged("a hole has a checksum")
    return block


def decode_own_map(value: bytes) -> IndirectBlock | PartialBlock:
    """As ``decode_map``, of a fileset that may be a clone."""
    block = indirect.unpack_own(value)
    if not isinstance(block, PartialBlock):
        return decode_map(value)
    if block.pack() != value:
        raise Damaged("an indirect block of a clone has an entry twice, or not in order")
    if any(check for address, check in block.entries.values() if address == HOLE):
        raise Damaged("a hole has a checksum")
    return block


def decode_shadow_map(value: bytes) -> ShadowBlock:
    block = indirect.unpack_shadow(value)
    if not block.entries:
        raise Damaged("a shadow of an indirect block has no entries")
    if block.pack() != value:
        raise Damaged("a shadow of an indirect block has an entry twice, or not in order")
    if any(check for address, check in block.entries.values() if address == HOLE):
        raise Damaged("a hole has a checksum")
    return block


def check_present(key: bytes, value: bytes) -> None:
    """The value of a link or an extended attribute."""
    if value[:1] != keys.PRESENT:
        raise Damaged("its value does not begin with 1")
    limit = XATTR_VALUE_SIZE_MAX if keys.kind_of(key) == keys.XATTR else 0
    if len(value) - 1 > limit:
        raise Damaged(f"its value of {len(value) - 1} bytes is too long")
