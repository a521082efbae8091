"""POSIX access control lists, in the form in which ``setxattr(2)`` takes them.

Layout (little-endian): version(4) = 2, then for each entry tag(2) permissions(2) id(4). The owner's, the owning
group's and the others' entries stand for mode bits; with a mask, the group bits of the mode are the mask. What
is said here in functions is in ``acl(5)``, "CORRESPONDENCE" and "OBJECT CREATION". Pure.
"""

from __future__ import annotations

import errno
from struct import Struct, error

from idemfs.vfs.reader import posix

ACCESS = b"system.posix_acl_access"
DEFAULT = b"system.posix_acl_default"

_VERSION = b"\x02\0\0\0"
_ENTRY = Struct("<HHI")
_OWNER, _USER, _OWNING_GROUP, _GROUP, _MASK, _OTHERS = 1, 2, 4, 8, 16, 32
_SHIFTS = {_OWNER: 6, _OWNING_GROUP: 3, _MASK: 3, _OTHERS: 0}

Entries = list[tuple[int, int, int]]
"""Tag, permissions, id."""


def unpack(value: bytes) -> Entries:
    """Raises ``OSError`` (EINVAL)."""
    if value[:4] != _VERSION:
        raise posix(errno.EINVAL, "no access control list of version 2")
    try:
        return [(tag, bits, number) for tag, bits, number in _ENTRY.iter_unpack(value[4:])]
    except error as wrong:
        raise posix(errno.EINVAL, "an access control list ends inside an entry") from wrong


def pack(entries: Entries) -> bytes:
    return _VERSION + b"".join(_ENTRY.pack(*each) for each in entries)


def is_extended(entries: Entries) -> bool:
    """Whether the list says more than a mode can."""
    return any(tag in (_USER, _GROUP, _MASK) for tag, _, _ in entries)


def _bits_of(entries: Entries) -> dict[int, int]:
    """The tag that each class of mode bits stands for: with a mask, the owning group's entry is no mode bits."""
    tags = {tag for tag, _, _ in entries}
    return {tag: shift for tag, shift in _SHIFTS.items() if tag != _OWNING_GROUP or _MASK not in tags}


def mode_of(entries: Entries, mode: int) -> int:
    """``mode`` with the permissions that the list gives."""
    shifts = _bits_of(entries)
    for tag, bits, _ in entries:
        if tag in shifts:
            mode = mode & ~(7 << shifts[tag]) | (bits & 7) << shifts[tag]
    return mode


def with_mode(entries: Entries, mode: int) -> Entries:
    """The list after ``chmod``."""
    shifts = _bits_of(entries)
    return [(tag, mode >> shifts[tag] & 7 if tag in shifts else bits, number) for tag, bits, number in entries]


def inherit(default: Entries, mode: int) -> tuple[int, Entries]:
    """The mode and the list of what is created with ``mode`` in a directory that has this default list."""
    wanted = with_mode(default, mode)
    shifts = _bits_of(default)
    merged = [
        (tag, bits & wish if tag in shifts else bits, number)
        for (tag, bits, number), (_, wish, _) in zip(default, wanted, strict=True)
    ]
    return mode_of(merged, mode), merged
