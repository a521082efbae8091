"""Any bytes as a stream give records, or one error of ``StreamError``; and a standby is as it was."""

from __future__ import annotations

import tracemalloc
from functools import cache
from json import dumps
from random import Random

from hypothesis import example, given, settings
from hypothesis import strategies as st

from idemfs.errors import StreamError, StreamRefused
from idemfs.limits import FRAME_SIZE_MAX
from idemfs.replication import codec, description
from idemfs.replication.apply import drop_partial, receive
from idemfs.replication.codec import Decoder, StreamReader
from idemfs.replication.description import Description
from idemfs.replication.records import parse_cursor
from idemfs.testing.builders import assert_clean, memory_tree, random_changes
from idemfs.testing.clock import Simulated
from idemfs.vfs.tree import Tree
from tests.unit.replication.pairs import assert_same, frames_of, reading, snapshots, standby_of, take, visible

MUTATIONS = st.lists(
    st.tuples(st.floats(0, 0.999), st.sampled_from(["flip", "set", "cut", "insert", "repeat"]), st.integers(0, 255)),
    min_size=1,
    max_size=6,
)


@cache
def primary() -> Tree:
    tree = memory_tree(clock=Simulated(21))
    rng = Random(21)
    for name in ("one", "two"):
        random_changes(tree, rng, 80)
        take(tree, name)
    return tree


@cache
def real_frames(compress: bool = False) -> tuple[bytes, ...]:
    """Of the change set from one to two; the first one has the stream's magic before it."""
    from idemfs.replication.send import Frames

    one, two = snapshots(primary())
    return tuple(Frames(primary(), one, two, compress=compress))


def mutated(data: bytes, mutations: list[tuple[float, str, int]]) -> bytes:
    changed = bytearray(data)
    for where, kind, value in mutations:
        at = int(where * len(changed))
        match kind:
            case "flip" if changed:
                changed[at] ^= 1 << value % 8
            case "set":
                changed[at : at + 4] = bytes((value,)) * 4
            case "cut":
                del changed[at : at + value]
            case "insert":
                changed[at:at] = bytes(range(value % 20))
            case "repeat":
                changed[at:at] = changed[at : at + value]
    return bytes(changed)


def decode(data: bytes) -> int:
    """How many records ``data`` has, if it is a stream."""
    reader = StreamReader(reading(data))
    return sum(len(batch.changes) for batch in reader.batches())


def bodies(frames: tuple[bytes, ...]) -> list[tuple[int, int, bytes]]:
    """Type, flags and body of each frame."""
    found = []
    for frame in (frames[0][len(codec.MAGIC) :], *frames[1:]):
        at = 0
        while at < len(frame):
            size = int.from_bytes(frame[at : at + 4], "little")
            found.append((frame[at + 4], frame[at + 5], frame[at + 14 : at + 14 + size]))
            at += 14 + size
    return found


def framed(parts: list[tuple[int, int, bytes]]) -> bytes:
    """A stream with checksums that fit, whatever it says."""
    return codec.MAGIC + b"".join(codec.pack_frame(at, *part) for at, part in enumerate(parts))


@given(st.binary(max_size=400), st.booleans())
@example(codec.MAGIC, False)
@example(codec.MAGIC + b"\xff" * 14, False)
def test_any_bytes_as_a_stream(data: bytes, with_magic: bool) -> None:
    try:
        decode(codec.MAGIC + data if with_magic else data)
    except StreamError as error:
        assert str(error) and "\n" not in str(error)
    else:
        raise AssertionError("this was no stream")


@given(MUTATIONS, st.booleans())
def test_a_stream_that_was_changed_on_its_way(mutations: list[tuple[float, str, int]], compress: bool) -> None:
    data = b"".join(real_frames(compress))
    changed = mutated(data, mutations)
    try:
        decode(changed)
    except StreamError:
        return
    # Reading ends with the end frame, so bytes after it may be anything.
    assert changed.startswith(data)


@given(st.integers(0, 50), MUTATIONS, st.booleans())
def test_frames_that_say_something_else_with_a_checksum_that_fits(
    which: int, mutations: list[tuple[float, str, int]], compress: bool
) -> None:
    parts = bodies(real_frames(compress))
    kind, flags, body = parts[which % len(parts)]
    parts[which % len(parts)] = kind, flags, mutated(body, mutations)[:FRAME_SIZE_MAX]
    try:
        decode(framed(parts))
    except StreamError:
        return


@given(st.binary(max_size=2000), st.integers(0, 255), st.integers(0, 255))
def test_any_frame_with_a_checksum_that_fits(body: bytes, kind: int, flags: int) -> None:
    parts = bodies(real_frames())
    try:
        decode(framed([parts[0], (kind, flags, body), parts[-1]]))
    except StreamError:
        return


@given(st.binary(max_size=300))
def test_any_bytes_as_records_or_header(body: bytes) -> None:
    for unpack in (codec.unpack_changes, codec.unpack_header):
        try:
            unpack(body)
        except StreamError:
            continue


@given(st.text(max_size=50))
def test_any_text_as_a_cursor(text: str) -> None:
    try:
        cursor = parse_cursor(text)
    except ValueError:
        return
    assert parse_cursor(cursor.to_text()) == cursor


@settings(max_examples=100)
@given(st.lists(st.tuples(st.integers(0, 50), MUTATIONS), min_size=1, max_size=3))
def test_a_standby_takes_no_harm(changes: list[tuple[int, list[tuple[float, str, int]]]]) -> None:
    """Every batch may lie, and its frame's checksum fits."""
    one, two = snapshots(primary())
    standby = standby_of(primary())
    receive(standby, reading(b"".join(frames_of(primary(), None, one))))
    before = visible(standby)
    parts = bodies(real_frames())
    for which, mutations in changes:
        at = 1 + which % (len(parts) - 2)
        parts[at] = parts[at][0], 0, mutated(parts[at][2], mutations)[:FRAME_SIZE_MAX]
    try:
        receive(standby, reading(sealed(parts)))
    except StreamRefused:
        assert not drop_partial(standby)
    except StreamError:
        assert_clean(standby, read_data=False)
        drop_partial(standby)
    else:
        # What was changed made no difference: a record twice, a hole where one was.
        assert_same(primary(), standby, two.name)
        return
    assert visible(standby) == before
    assert_clean(standby)
    receive(standby, reading(b"".join(real_frames())))
    assert_same(primary(), standby, two.name)


def sealed(parts: list[tuple[int, int, bytes]]) -> bytes:
    """A stream that is whole, if its batches can be read, else one whose first bad batch is reached."""
    try:
        changes = [change for kind, _, body in parts if kind == codec.BATCH for change in codec.unpack_changes(body)]
    except StreamError:
        return framed(parts)
    encoder = codec.Encoder(codec.unpack_header(parts[0][2]))
    return b"".join([encoder.start(), *[encoder.add(change) for change in changes], encoder.finish()])


def test_a_stream_that_claims_much_takes_little_memory() -> None:
    """Sizes are believed only as far as bytes have come, and never past what a frame may have."""
    import zstandard

    bomb = zstandard.ZstdCompressor(level=3).compress(bytes(512 << 20))
    parts = bodies(real_frames())
    hostile = [
        codec.MAGIC + b"\xff" * 14,
        codec.MAGIC + (FRAME_SIZE_MAX).to_bytes(4, "little") + bytes(10),
        framed([parts[0], (codec.BATCH, codec.ZSTD, bomb)]),
        framed([parts[0], (codec.BATCH, 0, b"B" + (1).to_bytes(8, "little") + b"\xff" * 4)]),
    ]
    tracemalloc.start()
    try:
        for data in hostile:
            tracemalloc.reset_peak()
            try:
                list(Decoder().feed(data))
                Decoder().finish()
            except StreamError:
                assert tracemalloc.get_traced_memory()[1] < 4 << 20
            else:
                raise AssertionError("this was no stream")
    finally:
        tracemalloc.stop()


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["00" * 16, "", "{}"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=300)
@given(
    st.binary()
    | st.fixed_dictionaries(
        {"line": st.just("00" * 16), "name": st.just("x")},
        optional=dict.fromkeys((*Description._fields[2:], "origin"), _VALUES),
    ).map(lambda fields: dumps(fields).encode())
)
def test_any_description_is_a_value_that_comes_back_or_an_error_of_streams(value: bytes) -> None:
    try:
        found = description.unpack(value)
    except StreamError:
        return
    assert description.unpack(description.pack(found)) == found
