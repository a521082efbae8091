"""The indirect block record: disk addresses and checksums of up to 512 consecutive blocks of a file.

Layouts (little-endian)::

    active   count(2) · address(8) × count · checksum(8) × count             entries past count: HOLE
    clone    as shadow, with bit 15 of the count set                        others: as the origin has them
    shadow   count(2) · entry(2) × count · address(8) × count · checksum(8) × count    others: DITTO

A shadow keeps few of the 512 entries, so it names those it has; so does the active record of a clone that has not
changed them all. The checksum is
the xxh3 of the block's content, uncompressed, without trailing zeros; 0 beside ``HOLE``.

``array`` and not numpy holds the entries, since most reads are of one entry and
importing numpy takes longer than listing snapshots; both share the bytes.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable

from idemfs.errors import Damaged
from idemfs.format.address import DITTO, HOLE
from idemfs.ids import Address
from idemfs.limits import INDIRECT_ENTRY_COUNT

PARTIAL = 1 << 15
"""Bit of the count: the record is of a clone, and does not say what its origin says."""
NO_BLOCKS = b"\0\0"
"""The active record of a clone that has nothing where its origin has blocks."""
_SWAP = sys.byteorder == "big"


class IndirectBlock:
    """Entries of an active file, mutable; what lies past the stored ones is ``HOLE``."""

    __slots__ = ("addresses", "checksums")

    def __init__(self) -> None:
        self.addresses = array("Q")
        self.checksums = array("Q")

    def get(self, entry: int) -> tuple[Address, int]:
        if entry < len(self.addresses):
            return Address(self.addresses[entry]), self.checksums[entry]
        return HOLE, 0

    def set(self, entry: int, address: Address, checksum: int) -> None:
        assert entry < INDIRECT_ENTRY_COUNT and address != DITTO
        missing = entry + 1 - len(self.addresses)
        if missing > 0:
            if address == HOLE:
                return
            self.addresses.extend((HOLE,) * missing)
            self.checksums.extend((0,) * missing)
        self.addresses[entry] = address
        self.checksums[entry] = checksum

    def trim(self) -> None:
        """Drop trailing holes."""
        count = len(self.addresses)
        while count and self.addresses[count - 1] == HOLE:
            count -= 1
        del self.addresses[count:], self.checksums[count:]

    def copy(self) -> IndirectBlock:
        other = IndirectBlock()
        other.addresses = self.addresses[:]
        other.checksums = self.checksums[:]
        return other

    def real_entries(self) -> list[tuple[int, Address, int]]:
        """(entry, address, checksum) of those that name a place on disk."""
        return [
            (entry, Address(address), self.checksums[entry])
            for entry, address in enumerate(self.addresses)
            if address != HOLE
        ]

    def pack(self) -> bytes:
        """The record, or ``b""`` when every entry is a hole: then it need not exist."""
        self.trim()
        if not self.addresses:
            return b""
        return len(self.addresses).to_bytes(2, "little") + _to_bytes(self.addresses) + _to_bytes(self.checksums)


class ShadowBlock:
    """What one snapshot owns of an indirect block: entry → (address, checksum); a missing entry is ``DITTO``."""

    __slots__ = ("entries",)

    def __init__(self, entries: dict[int, tuple[Address, int]] | None = None) -> None:
        self.entries = {} if entries is None else entries

    def real_entries(self) -> list[tuple[int, Address, int]]:
        return [(entry, address, check) for entry, (address, check) in self.entries.items() if address != HOLE]

    def pack(self) -> bytes:
        order = sorted(self.entries)
        return (
            len(order).to_bytes(2, "little")
            + _to_bytes(array("H", order))
            + _to_bytes(array("Q", [self.entries[entry][0] for entry in order]))
            + _to_bytes(array("Q", [self.entries[entry][1] for entry in order]))
        )


class PartialBlock(ShadowBlock):
    """What a clone owns of an indirect block; a missing entry is as the origin has it."""

    __slots__ = ()

    def over(self, origin: IndirectBlock | None) -> IndirectBlock:
        """What the clone sees."""
        return fold([self], IndirectBlock() if origin is None else origin)

    def covers(self, origin: IndirectBlock | None) -> bool:
        """Whether nothing of the origin is seen through it."""
        if origin is None:
            return True
        real_count = len(origin.addresses) - origin.addresses.count(HOLE)
        return len(self.entries) >= real_count and all(entry in self.entries for entry, _, _ in origin.real_entries())

    def pack(self) -> bytes:
        value = super().pack()
        return (int.from_bytes(value[:2], "little") | PARTIAL).to_bytes(2, "little") + value[2:]


def unpack_own(value: bytes) -> IndirectBlock | PartialBlock:
    """As ``unpack``, for the active record of a fileset that may be a clone."""
    count = int.from_bytes(value[:2], "little")
    if not count & PARTIAL:
        return unpack(value)
    return PartialBlock(unpack_shadow((count & ~PARTIAL).to_bytes(2, "little") + value[2:]).entries)


def unpack(value: bytes) -> IndirectBlock:
    """The entries of an active record; raises ``Damaged``."""
    count = int.from_bytes(value[:2], "little")
    if count > INDIRECT_ENTRY_COUNT or len(value) != 2 + 16 * count:
        raise Damaged(f"an indirect block of {len(value)} bytes does not hold {count} entries")
    block = IndirectBlock()
    block.addresses = _from_bytes("Q", value[2 : 2 + 8 * count])
    block.checksums = _from_bytes("Q", value[2 + 8 * count :])
    if DITTO in block.addresses:
        raise Damaged("an active indirect block holds a ditto")
    return block


def unpack_shadow(value: bytes) -> ShadowBlock:
    """The entries of a shadow record; raises ``Damaged``."""
    count = int.from_bytes(value[:2], "little")
    if count > INDIRECT_ENTRY_COUNT or len(value) != 2 + 18 * count:
        raise Damaged(f"a shadow of an indirect block of {len(value)} bytes does not hold {count} entries")
    order = _from_bytes("H", value[2 : 2 + 2 * count])
    addresses = _from_bytes("Q", value[2 + 2 * count : 2 + 10 * count])
    checksums = _from_bytes("Q", value[2 + 10 * count :])
    if count and (max(order) >= INDIRECT_ENTRY_COUNT or DITTO in addresses):
        raise Damaged("a shadow of an indirect block names an entry that cannot exist")
    return ShadowBlock(dict(zip(order, zip(map(Address, addresses), checksums, strict=True), strict=True)))


def fold(versions: Iterable[ShadowBlock], last: IndirectBlock) -> IndirectBlock:
    """Resolve every entry: the first version that has it, oldest first, else ``last``."""
    resolved = last.copy()
    found: dict[int, tuple[Address, int]] = {}
    for version in versions:
        for entry, pair in version.entries.items():
            found.setdefault(entry, pair)
    for entry, (address, checksum) in found.items():
        resolved.set(entry, address, checksum)
    return resolved


def _to_bytes(numbers: array[int]) -> bytes:
    if _SWAP:
        numbers = numbers[:]
        numbers.byteswap()
    return numbers.tobytes()


def _from_bytes(kind: str, value: bytes) -> array[int]:
    numbers: array[int] = array(kind)
    numbers.frombytes(value)
    if _SWAP:
        numbers.byteswap()
    return numbers
