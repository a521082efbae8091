"""Streams as bytes: what goes in comes out, and what is broken says so."""

from __future__ import annotations

import pytest

from idemfs.errors import StreamDamaged, StreamInterrupted, StreamTooNew
from idemfs.format import entry
from idemfs.format.inode import LAYOUT, LOCAL_SIZE
from idemfs.ids import Guid, Number
from idemfs.limits import FRAME_SIZE_MAX, STREAM_BATCH_BYTES
from idemfs.replication import codec
from idemfs.replication.codec import Batch, Decoder, Encoder, End, Header, Point, StreamReader
from idemfs.replication.description import Description, pack, unpack
from idemfs.replication.records import (
    START,
    BlockChange,
    Change,
    Cursor,
    EntryChange,
    InodeChange,
    InodeRemoved,
    LinkChange,
    XattrChange,
    parse_cursor,
)
from tests.unit.replication.pairs import reading

HEADER = Header(
    fileset=Guid(b"f" * 16),
    source=Guid(b"s" * 16),
    block_size=4096,
    inline_size=1536,
    entry_count=512,
    epoch=3,
    next_number=1000,
    target=Point(Guid(b"t" * 16), 1 << 127),
    inode_count=12,
    created_ns=-5,
    name="größe",
    base=Point(Guid(b"b" * 16), 77),
    after=Cursor(Number(9), 4),
)
FILE = entry.pack(Number(5), 0o100644)
CHANGES: list[Change] = [
    InodeRemoved(Number(2)),
    InodeChange(Number(2), bytes(LAYOUT.size - LOCAL_SIZE)),
    BlockChange(Number(2), 0, b"abc", codec.block_checksum(b"abc")),
    BlockChange(Number(2), 1 << 40, b"", 0),
    EntryChange(Number(3), b"\xff" * 255, FILE),
    EntryChange(Number(3), b"x", None),
    LinkChange(Number(4), Number((1 << 48) - 1), b"name", True),
    LinkChange(Number(4), Number(1), b"n", False),
    XattrChange(Number((1 << 48) - 1), b"user.x", b"\0" * 65536),
    XattrChange(Number((1 << 48) - 1), b"user.y", b""),
    XattrChange(Number((1 << 48) - 1), b"user.z", None),
]


def frames(changes: list[Change] = CHANGES, *, compress: bool = False, header: Header = HEADER) -> list[bytes]:
    encoder = Encoder(header, compress)
    made = [encoder.start(), *[encoder.add(change) for change in changes], encoder.finish()]
    return [frame for frame in made if frame]


def read_all(stream: bytes) -> tuple[Header, list[Change], End]:
    reader = StreamReader(reading(stream))
    changes = [change for batch in reader.batches() for change in batch.changes]
    assert reader.end is not None and reader.size == len(stream)
    return reader.header, changes, reader.end


def reframed(*parts: tuple[int, bytes]) -> bytes:
    """A stream of frames (type, body), each with the checksum that fits."""
    return codec.MAGIC + b"".join(codec.pack_frame(at, kind, 0, body) for at, (kind, body) in enumerate(parts))


@pytest.mark.parametrize("compress", [False, True])
def test_what_goes_in_comes_out(compress: bool) -> None:
    stream = b"".join(frames(compress=compress))
    header, changes, end = read_all(stream)
    assert (header, changes) == (HEADER, CHANGES)
    assert (end.records, end.block_bytes) == (len(CHANGES), 3)


def test_compression_saves_bytes_and_counts_them_before_it() -> None:
    changes: list[Change] = [BlockChange(Number(1), at, b"a" * 4096, 1) for at in range(100)]
    small = b"".join(frames(changes, compress=True))
    assert len(small) < 409_600 // 10
    assert read_all(small)[2].block_bytes == 409_600


@pytest.mark.parametrize("size", [1, 3, 13, 14, 15, 1000, 1 << 20])
def test_bytes_may_come_in_any_pieces(size: int) -> None:
    stream = b"".join(frames())
    decoder = Decoder()
    events = [event for at in range(0, len(stream), size) for event in decoder.feed(stream[at : at + size])]
    decoder.finish()
    assert isinstance(events[0], Header) and isinstance(events[-1], End)
    assert [change for event in events if isinstance(event, Batch) for change in event.changes] == CHANGES


def test_reading_takes_no_byte_past_the_end() -> None:
    one, other = b"".join(frames()), b"".join(frames([]))
    read = reading(one + other)
    for expected in (CHANGES, []):
        reader = StreamReader(read)
        assert [change for batch in reader.batches() for change in batch.changes] == expected


def test_frames_are_about_a_batch_long() -> None:
    changes: list[Change] = [BlockChange(Number(1), at, b"a" * 100_000, 1) for at in range(50)]
    sizes = [len(frame) for frame in frames(changes)[1:-1]]
    assert len(sizes) == 4 and all(STREAM_BATCH_BYTES <= size < STREAM_BATCH_BYTES + 101_000 for size in sizes)


def test_a_block_of_the_largest_size_fits_a_frame() -> None:
    block = BlockChange(Number(1), 0, b"a" * (4 << 20), 1)
    almost: Change = BlockChange(Number(1), 0, b"a" * (STREAM_BATCH_BYTES - 100), 1)
    assert read_all(b"".join(frames([almost, block])))[1] == [almost, block]


def test_cut_anywhere_a_stream_is_interrupted() -> None:
    stream = b"".join(frames(CHANGES[:8]))
    for cut in range(len(stream)):
        with pytest.raises(StreamInterrupted):
            read_all(stream[:cut])


def test_any_changed_bit_is_noticed() -> None:
    stream = b"".join(frames(CHANGES[:8]))
    for at in range(len(stream)):
        damaged = bytearray(stream)
        damaged[at] ^= 1 << at % 8
        with pytest.raises((StreamDamaged, StreamInterrupted)):
            read_all(bytes(damaged))


def test_frames_that_are_missing_repeated_or_exchanged_are_noticed() -> None:
    changes: list[Change] = [BlockChange(Number(1), at, b"a" * 600_000, 1) for at in range(8)]
    parts = frames(changes)
    assert len(parts) == 6
    for at in range(1, 4):
        for broken in (
            parts[:at] + parts[at + 1 :],
            parts[: at + 1] + parts[at:],
            [*parts[:at], parts[at + 1], parts[at], *parts[at + 2 :]],
        ):
            with pytest.raises(StreamDamaged):
                read_all(b"".join(broken))


def test_totals_are_checked() -> None:
    body = codec.pack_header(HEADER)
    for totals in (bytes(32), b"\x01" + bytes(31), b"", bytes(33)):
        with pytest.raises(StreamDamaged, match="end"):
            read_all(reframed((codec.HEADER, body), (codec.END, totals)))


def test_something_after_the_end_is_noticed() -> None:
    decoder = Decoder()
    with pytest.raises(StreamDamaged, match="follows"):
        list(decoder.feed(b"".join(frames()) + b"x"))


@pytest.mark.parametrize("text", [b"", b"i", b"idemf"])
def test_too_little_for_a_stream_is_an_interrupted_one(text: bytes) -> None:
    with pytest.raises(StreamInterrupted):
        StreamReader(reading(text))


@pytest.mark.parametrize("text", [b"x", b"#!/bin/sh\nexit 0\n", bytes(100), b"idemfs\x1a\r" + bytes(100)])
def test_something_else_is_no_stream(text: bytes) -> None:
    with pytest.raises(StreamDamaged, match="no change set"):
        StreamReader(reading(text))


def test_a_newer_format_says_so() -> None:
    newer = HEADER._replace(version=codec.VERSION + 1)
    with pytest.raises(StreamTooNew, match="newer"):
        read_all(b"".join(frames(header=newer)))
    longer = (codec.VERSION + 1).to_bytes(4, "little") + b"whatever that version says"
    with pytest.raises(StreamTooNew):
        read_all(reframed((codec.HEADER, longer)))


def test_unknown_features_frames_and_flags_are_newer() -> None:
    with pytest.raises(StreamTooNew, match="features"):
        read_all(b"".join(frames(header=HEADER._replace(features=4))))
    header = (codec.HEADER, codec.pack_header(HEADER))
    with pytest.raises(StreamTooNew):
        read_all(reframed(header, (9, b"")))
    flagged = codec.MAGIC + codec.pack_frame(0, codec.HEADER, 0, header[1]) + codec.pack_frame(1, codec.BATCH, 2, b"")
    with pytest.raises(StreamTooNew):
        read_all(flagged)


@pytest.mark.parametrize(
    "fields",
    [
        {"block_size": 5000},
        {"block_size": 8 << 20},
        {"name": ""},
        {"name": "x" * 201},
        {"entry_count": 64},
        {"next_number": 0},
        {"after": Cursor(Number(1 << 50))},
        {"after": Cursor(Number(1), -2)},
        {"version": 0},
    ],
)
def test_headers_that_make_no_sense(fields: dict[str, object]) -> None:
    with pytest.raises(StreamDamaged):
        read_all(b"".join(frames(header=HEADER._replace(**fields))))  # type: ignore[arg-type]


def test_header_frames_stand_first_and_alone() -> None:
    header = (codec.HEADER, codec.pack_header(HEADER))
    for parts in ([(codec.BATCH, b"")], [header, header], [(codec.END, bytes(32))]):
        with pytest.raises(StreamDamaged, match="header"):
            read_all(reframed(*parts))


@pytest.mark.parametrize(
    "record",
    [
        b"I",
        b"Q" + bytes(12),
        b"R" + (5).to_bytes(8, "little") + bytes(3),
        b"R" + (0).to_bytes(8, "little") + bytes(4),
        b"R" + (1 << 48).to_bytes(8, "little") + bytes(4),
        b"R" + (5).to_bytes(8, "little") + (100).to_bytes(4, "little"),
    ],
)
def test_bytes_that_are_no_records(record: bytes) -> None:
    with pytest.raises(StreamDamaged):
        codec.unpack_changes(record)


@pytest.mark.parametrize(
    "change",
    [
        InodeChange(Number(1), b"short"),
        InodeChange(Number(1), bytes(70_000)),
        BlockChange(Number(1), 1 << 48, b"a", 1),
        BlockChange(Number(1), 0, b"a\0", 1),
        BlockChange(Number(1), 0, b"", 1),
        BlockChange(Number(1), 0, b"a" * ((4 << 20) + 1), 1),
        EntryChange(Number(1), b"", FILE),
        EntryChange(Number(1), b"a/b", FILE),
        EntryChange(Number(1), b"a\0b", FILE),
        EntryChange(Number(1), b"..", FILE),
        EntryChange(Number(1), b"a", b"short"),
        EntryChange(Number(1), b"a", bytes(9)),
        LinkChange(Number(1), Number(0), b"a", True),
        LinkChange(Number(1), Number(1), b"", True),
        LinkChange(Number(1), Number(1), b"a" * 256, True),
        XattrChange(Number(1), b"", b""),
        XattrChange(Number(1), b"a\0", b""),
        XattrChange(Number(1), b"a", bytes(65537)),
    ],
)
def test_records_that_no_store_can_have(change: Change) -> None:
    with pytest.raises(StreamDamaged):
        codec.unpack_changes(b"".join(codec.pack_change(change)))


def test_a_record_of_a_missing_value_has_none() -> None:
    packed = b"".join(codec.pack_change(EntryChange(Number(1), b"a", FILE)))
    at = packed.index(b"\x01\x01a")
    with pytest.raises(StreamDamaged):
        codec.unpack_changes(packed[:at] + b"\0" + packed[at + 1 :])


def test_a_frame_may_not_claim_to_be_huge() -> None:
    head = (FRAME_SIZE_MAX + 1).to_bytes(4, "little") + bytes((codec.BATCH, 0)) + bytes(8)
    with pytest.raises(StreamDamaged, match="frame of"):
        list(Decoder().feed(codec.MAGIC + head))


def test_compressed_bytes_may_not_grow_without_bound() -> None:
    import zstandard

    bomb = zstandard.ZstdCompressor(level=19).compress(bytes(FRAME_SIZE_MAX + 1))
    silent = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(1000))
    more = zstandard.compress(b"a" * 100) + b"more"
    for body in (bomb, silent, b"", b"no zstd", bomb[:-3], zstandard.compress(b""), more):
        start = codec.MAGIC + codec.pack_frame(0, codec.HEADER, 0, codec.pack_header(HEADER))
        with pytest.raises(StreamDamaged):
            list(Decoder().feed(start + codec.pack_frame(1, codec.BATCH, codec.ZSTD, body)))


# -- cursors -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cursor", [START, Cursor(Number(17)), Cursor(Number(17), 0), Cursor(Number(1 << 47), 1 << 40)])
def test_cursors_as_text(cursor: Cursor) -> None:
    assert parse_cursor(cursor.to_text()) == cursor


@pytest.mark.parametrize("text", ["", ":", "1:", ":1", "a", "1:-1", "-1", "1:2:3", "1 ", "٣", "1" * 41])
def test_what_is_no_cursor(text: str) -> None:
    with pytest.raises(ValueError, match="cursor"):
        parse_cursor(text)


def test_a_cursor_is_past_what_is_applied_and_nothing_else() -> None:
    cursor = START
    for at, change in enumerate(CHANGES):
        assert not cursor.is_past(change)
        after = cursor.after(change)
        assert after >= cursor
        cursor = after
        for earlier in CHANGES[:at]:
            if isinstance(earlier, BlockChange) or earlier.number < change.number:
                assert cursor.is_past(earlier)


@pytest.mark.parametrize("start", [START, Cursor(CHANGES[0].number)])
def test_after_many_changes_it_is_where_it_would_be_after_one_by_one(start: Cursor) -> None:
    one_by_one = start
    for count, change in enumerate(CHANGES, 1):
        one_by_one = one_by_one.after(change)
        assert start.after_all(CHANGES[:count]) == one_by_one
    assert start.after_all([]) == start


# -- descriptions --------------------------------------------------------------------------------------

DESCRIPTION = Description(
    line=Guid(b"l" * 16),
    name="home",
    parent=Guid(b"p" * 16),
    junction=17,
    compression=2,
    quota_bytes=1 << 40,
    quota_inodes=9,
    flags=1,
    policy='{"keep_last": 3}',
    holds=(("audit", 5), ("ü", (1 << 63) - 1)),
    locked_until_ns=77,
)


def test_a_description_comes_back_as_it_was_and_a_plain_header_has_none() -> None:
    for description in (DESCRIPTION, Description(Guid(b"l" * 16), "root")):
        header = HEADER._replace(description=description)
        assert codec.unpack_header(codec.pack_header(header)) == header
        assert unpack(pack(description)) == description
    assert codec.unpack_header(codec.pack_header(HEADER)).description is None
    assert codec.pack_header(HEADER)[4:12] == bytes(8)


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (b"", StreamDamaged),
        (b"[]", StreamDamaged),
        (b"[" * 100_000, StreamDamaged),
        (b"\xff", StreamDamaged),
        (b"{}", StreamDamaged),
        (b'{"line": "00", "name": "x"}', StreamDamaged),
        (b'{"line": "zz", "name": "x"}', StreamDamaged),
        (b'{"line": "%s", "name": 1}' % (b"00" * 16), StreamDamaged),
        (b'{"line": "%s", "name": "\\ud800"}' % (b"00" * 16), StreamDamaged),
        (b'{"line": "%s", "name": "%s"}' % (b"00" * 16, b"x" * 201), StreamDamaged),
        (b'{"line": "%s", "name": "x", "junction": 5}' % (b"00" * 16), StreamDamaged),
        (b'{"line": "%s", "name": "x", "quota_bytes": -1}' % (b"00" * 16), StreamDamaged),
        (b'{"line": "%s", "name": "x", "quota_bytes": true}' % (b"00" * 16), StreamDamaged),
        (b'{"line": "%s", "name": "x", "quota_bytes": 1e400}' % (b"00" * 16), StreamDamaged),
        (b'{"line": "%s", "name": "x", "holds": [["a"]]}' % (b"00" * 16), StreamDamaged),
        (b'{"line": "%s", "name": "x", "holds": [["a\\n", 1]]}' % (b"00" * 16), StreamDamaged),
        (b'{"line": "%s", "name": "x", "origin": []}' % (b"00" * 16), StreamDamaged),
        (b'{"line": "%s", "name": "x", "origin": {"next_number": 5}}' % (b"00" * 16), StreamDamaged),
        (b'{"line": "%s", "name": "x", "origin": {"since": 5}}' % (b"00" * 16), StreamTooNew),
        (b'{"line": "%s", "name": "x", "novel": []}' % (b"00" * 16), StreamTooNew),
        (b'{"line": "%s", "name": "x", "policy": "{"}' % (b"00" * 16), StreamDamaged),
        (b'{"line": "%s", "name": "x", "policy": "{\\"keep_best\\": 1}"}' % (b"00" * 16), StreamTooNew),
        (b" " * ((1 << 20) + 1), StreamDamaged),
    ],
)
def test_a_description_that_makes_no_sense_is_one_error(value: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        unpack(value)
