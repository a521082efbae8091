"""Records of the log, and the mark that says which of them are obsolete.

A record says what was written to one file. Layout (little-endian)::

    magic(4) size(4) xxh3 of the rest(8)
    previous(8) opening(8) generation(8) position(4) piece count(4) ino(8) mtime ns(8) ctime ns(8)
    offset(8) and size(4) of each piece · their bytes

    mark      generation(8) checksum(8)

``size`` is that of the whole record. ``previous`` is the checksum of the record that was logged before it, in this
or an older generation, and ``opening`` a random number of the opening that wrote it: so what an older one
left behind is never taken for the next record. The mark names the newest generation whose group is durable,
and the checksum of its last record.
"""

from __future__ import annotations

from struct import Struct, error
from typing import NamedTuple

from xxhash import xxh3_64_intdigest

from idemfs.errors import Damaged
from idemfs.ids import Ino

MAGIC = b"iLog"
_LAYOUT = Struct("<4sIQQQQIIQqq")
_PIECE = Struct("<QI")
_MARK = Struct("<QQ")
HEAD_SIZE = 16
"""Magic, size and checksum, which the checksum does not cover."""
FIXED_SIZE = _LAYOUT.size
PIECE_SIZE = _PIECE.size
"""What a piece takes besides its bytes."""

Piece = tuple[int, bytes]
"""Offset in the file, and what was written there."""


class Place(NamedTuple):
    """Where a record stands among all: see the module."""

    previous: int
    opening: int
    generation: int
    position: int


class Intent(NamedTuple):
    """What was written to one file. ``checksum``: of the record, which the next one names."""

    place: Place
    ino: Ino
    mtime: int
    ctime: int
    pieces: tuple[Piece, ...]
    checksum: int


class Mark(NamedTuple):
    """The newest durable generation, and the checksum of its last record; all zero while the log was never used."""

    generation: int = 0
    checksum: int = 0


def pack(place: Place, ino: Ino, mtime: int, ctime: int, pieces: list[Piece]) -> tuple[bytes, int]:
    """The record and its checksum."""
    size = FIXED_SIZE + sum(PIECE_SIZE + len(data) for _, data in pieces)
    fixed = _LAYOUT.pack(MAGIC, size, 0, *place, len(pieces), ino, mtime, ctime)
    rest = b"".join(
        [
            fixed[HEAD_SIZE:],
            *[_PIECE.pack(offset, len(data)) for offset, data in pieces],
            *[data for _, data in pieces],
        ]
    )
    checksum = xxh3_64_intdigest(rest)
    return b"".join((fixed[:8], checksum.to_bytes(8, "little"), rest)), checksum


def size_of(head: bytes) -> int:
    """How many bytes the record has that begins with this; 0 if none does."""
    if len(head) < FIXED_SIZE or head[:4] != MAGIC:
        return 0
    size = int.from_bytes(head[4:8], "little")
    return size if size >= FIXED_SIZE else 0


def unpack(value: bytes) -> Intent:
    """Raises ``Damaged``."""
    if not value or size_of(value) != len(value):
        raise Damaged("this is no whole record of the log")
    fields = _LAYOUT.unpack_from(value)
    checksum, previous, opening, generation, position, count, ino, mtime, ctime = fields[2:]
    if xxh3_64_intdigest(memoryview(value)[HEAD_SIZE:]) != checksum:
        raise Damaged("a record of the log is damaged: its checksum is wrong")
    at = FIXED_SIZE + count * PIECE_SIZE
    if at > len(value):
        raise Damaged("a record of the log ends inside its pieces")
    pieces: list[Piece] = []
    for offset, size in _PIECE.iter_unpack(value[FIXED_SIZE:at]):
        pieces.append((offset, value[at : at + size]))
        at += size
    if at != len(value):
        raise Damaged("a record of the log is longer or shorter than its pieces")
    return Intent(Place(previous, opening, generation, position), Ino(ino), mtime, ctime, tuple(pieces), checksum)


def pack_mark(mark: Mark) -> bytes:
    return _MARK.pack(*mark)


def unpack_mark(value: bytes | None) -> Mark:
    """Raises ``Damaged``."""
    if value is None:
        return Mark()
    try:
        return Mark(*_MARK.unpack(value))
    except error as bad:
        raise Damaged("the mark of the log is damaged") from bad
