"""Records of the log."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idemfs.errors import Damaged
from idemfs.format import intent
from idemfs.format.intent import Intent, Mark, Place
from idemfs.ids import Ino

NUMBERS = st.integers(0, (1 << 64) - 1)
TIMES = st.integers(-(1 << 63), (1 << 63) - 1)
PIECES = st.lists(st.tuples(NUMBERS, st.binary(max_size=50)), max_size=5)
PLACES = st.builds(Place, NUMBERS, NUMBERS, NUMBERS, st.integers(0, (1 << 32) - 1))


@given(PLACES, NUMBERS.map(Ino), TIMES, TIMES, PIECES)
def test_a_record_comes_back(place: Place, ino: Ino, mtime: int, ctime: int, pieces: list[intent.Piece]) -> None:
    value, checksum = intent.pack(place, ino, mtime, ctime, pieces)
    assert intent.unpack(value) == Intent(place, ino, mtime, ctime, tuple(pieces), checksum)
    assert intent.size_of(value + b"what lies behind") == len(value)
    assert len(value) == intent.FIXED_SIZE + sum(intent.PIECE_SIZE + len(data) for _, data in pieces)


@given(PIECES, st.data())
def test_any_changed_byte_is_noticed(pieces: list[intent.Piece], data: st.DataObject) -> None:
    value = bytearray(intent.pack(Place(1, 2, 3, 4), Ino(5), 6, 7, pieces)[0])
    at = data.draw(st.integers(0, len(value) - 1))
    value[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(Damaged):
        intent.unpack(bytes(value))


@pytest.mark.parametrize("value", [b"", b"iLog", bytes(100), b"iLog" + bytes(100), b"iLoh" + b"\xff" * 100])
def test_no_record_has_no_size(value: bytes) -> None:
    assert intent.size_of(value) == 0


def test_a_mark_comes_back_and_is_zero_when_there_is_none() -> None:
    assert intent.unpack_mark(intent.pack_mark(Mark(3, (1 << 64) - 1))) == Mark(3, (1 << 64) - 1)
    assert intent.unpack_mark(None) == Mark(0, 0)
    with pytest.raises(Damaged):
        intent.unpack_mark(b"short")
