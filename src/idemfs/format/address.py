"""Disk addresses: where and how the extent of one block is stored, in 64 bits.

::

    63  62 | 61         | 60 ........... 38 | 37 ........ 0
    0   0  | compressed | stored size, bytes | first sector

Two values are no places: ``HOLE`` (reads as zeros, owns nothing) and ``DITTO``
("look in the next newer snapshot"; never in an active record). They are never
used for each other.
"""

from __future__ import annotations

from idemfs.errors import Damaged
from idemfs.ids import Address
from idemfs.limits import BLOCK_SIZE_MAX, SECTOR_SIZE

HOLE = Address(0)
DITTO = Address((1 << 64) - 1)

SECTOR_BITS = 38
SIZE_BITS = 23
SECTOR_MASK = (1 << SECTOR_BITS) - 1
SIZE_MASK = (1 << SIZE_BITS) - 1
COMPRESSED = 1 << (SECTOR_BITS + SIZE_BITS)


def make(sector: int, stored_size: int, compressed: bool) -> Address:
    """The address of ``stored_size`` (1 to 4 MiB) bytes from the start of ``sector`` (1 to 2**38 - 1)."""
    assert 0 < sector <= SECTOR_MASK and 0 < stored_size <= BLOCK_SIZE_MAX
    return Address(sector | stored_size << SECTOR_BITS | (COMPRESSED if compressed else 0))


def is_real(address: int) -> bool:
    return address != HOLE and address != DITTO


def sector_of(address: int) -> int:
    return address & SECTOR_MASK


def stored_size_of(address: int) -> int:
    return address >> SECTOR_BITS & SIZE_MASK


def next_whole(address: int) -> Address:
    """The address that an equal extent right behind this one has; ``HOLE`` for what is no whole uncompressed one."""
    size = stored_size_of(address)
    if not is_real(address) or is_compressed(address) or size % SECTOR_SIZE:
        return HOLE
    return Address(address + size // SECTOR_SIZE)


def is_compressed(address: int) -> bool:
    return bool(address & COMPRESSED)


def sector_count_of(address: int) -> int:
    """How many whole sectors the extent takes; 0 for ``HOLE`` and ``DITTO``."""
    if address in (HOLE, DITTO):
        return 0
    return ((address >> SECTOR_BITS & SIZE_MASK) + SECTOR_SIZE - 1) // SECTOR_SIZE


def validate(address: int) -> Address:
    """``address`` itself; raises ``Damaged`` when no store can have written it."""
    if address in (HOLE, DITTO):
        return Address(address)
    if address >> (SECTOR_BITS + SIZE_BITS + 1) or not sector_of(address):
        raise Damaged(f"{address:#x} is no disk address")
    if not 0 < stored_size_of(address) <= BLOCK_SIZE_MAX:
        raise Damaged(f"disk address {address:#x} has a size outside 1 byte to 4 MiB")
    return Address(address)
