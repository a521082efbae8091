"""The directory entry record: ``number(8, little-endian) · type(1)``.

The type is the one of ``readdir(3)`` (``mode >> 12``). The fileset is that of the
directory, so that the record is the same on every standby.
"""

from __future__ import annotations

from struct import Struct, error

from idemfs.errors import Damaged
from idemfs.ids import NUMBER_MASK, Number

_LAYOUT = Struct("<QB")


def pack(number: Number, mode: int) -> bytes:
    return _LAYOUT.pack(number, mode >> 12 & 15)


def unpack(value: bytes) -> tuple[Number, int]:
    """Number and type; raises ``Damaged``."""
    try:
        number, kind = _LAYOUT.unpack(value)
    except error as bad:
        raise Damaged(f"a directory entry of {len(value)} bytes") from bad
    if not 0 < number <= NUMBER_MASK:
        raise Damaged(f"a directory entry names inode number {number}")
    return Number(number), kind
