"""Any bytes as a record give a value, or ``Damaged``."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from xxhash import xxh3_64_intdigest

from idemfs.errors import FormatError
from idemfs.format import address, entry, indirect, inode, intent, keys, role, superblock, tables
from idemfs.format.digest import contribution
from idemfs.ids import FilesetId, Guid, Ino, SnapshotId
from idemfs.replication import partial

UNPACK: dict[str, Callable[[bytes], object]] = {
    "inode": inode.unpack,
    "portable inode": lambda value: inode.with_local(
        value, birth=SnapshotId(0), seen=SnapshotId(0), atime=0, sectors=0
    ),
    "indirect block": indirect.unpack,
    "shadow of an indirect block": indirect.unpack_shadow,
    "entry": entry.unpack,
    "store state": tables.unpack_state,
    "fileset": lambda value: tables.unpack_fileset(FilesetId(0), value),
    "usage": lambda value: tables.unpack_usage(tables.Fileset(FilesetId(0), Guid(bytes(16)), ""), value),
    "snapshot": lambda value: tables.unpack_snapshot(FilesetId(0), SnapshotId(1), value),
    "role": role.unpack,
    "record of the log": intent.unpack,
    "mark of the log": intent.unpack_mark,
    "superblock": superblock.unpack,
    "address": lambda value: address.validate(int.from_bytes(value[:8], "little")),
    "half-received change set": partial.unpack,
}
SIZES = (0, 1, 7, 9, 17, 24, 48, 64, 85, 96, 117, 500)


@pytest.mark.parametrize("what", UNPACK)
@given(st.one_of(st.binary(max_size=300), st.sampled_from(SIZES).flatmap(lambda size: st.binary(min_size=size))))
@example(b"")
@example(b"\xff" * 300)
@example(bytes(300))
def test_any_bytes_as_a_record(what: str, value: bytes) -> None:
    try:
        UNPACK[what](value)
    except FormatError as error:
        assert str(error) and "\n" not in str(error)


@given(st.binary(max_size=117), st.integers(0, 600), st.binary(max_size=40))
def test_counts_that_do_not_fit(head: bytes, count: int, rest: bytes) -> None:
    for unpack in (indirect.unpack, indirect.unpack_shadow):
        try:
            unpack(count.to_bytes(2, "little") + head + rest)
        except FormatError:
            continue


@given(st.integers(0, 200), st.integers(0, (1 << 32) - 1), st.binary(max_size=40))
def test_pieces_that_do_not_fit(count: int, size: int, rest: bytes) -> None:
    """Also with a right checksum: the log of another version, or a forged one."""
    value = bytearray(intent.pack(intent.Place(0, 0, 1, 0), Ino(2), 3, 4, [(5, b"")])[0] + rest)
    value[4:8] = len(value).to_bytes(4, "little")
    value[44:48] = count.to_bytes(4, "little")
    value[intent.FIXED_SIZE + 8 : intent.FIXED_SIZE + 12] = size.to_bytes(4, "little")
    value[8:16] = xxh3_64_intdigest(bytes(value[intent.HEAD_SIZE :])).to_bytes(8, "little")
    try:
        record = intent.unpack(bytes(value))
    except FormatError:
        return
    assert count == len(record.pieces) and sum(len(data) for _, data in record.pieces) == len(rest) - 12 * (count - 1)


@given(st.binary(max_size=200))
def test_what_was_unpacked_packs_to_the_same(value: bytes) -> None:
    try:
        node = inode.unpack(value)
    except FormatError:
        return
    assert node.pack() == value


@given(st.integers(0, (1 << 64) - 1), st.sampled_from(b"bdilx"), st.binary(max_size=40), st.binary(max_size=200))
def test_any_record_has_a_digest_and_a_place(ino: int, kind: int, rest: bytes, value: bytes) -> None:
    key = ino.to_bytes(8, "big") + bytes((kind,)) + rest
    assert 0 <= contribution(key, value) < 1 << 128
    assert keys.ino_of(key) == Ino(ino)
    start, end = keys.kind_range(Ino(ino), bytes((kind,)))
    assert start <= key < end
