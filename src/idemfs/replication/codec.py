"""Change sets as bytes: a header, batches of change records, an end. Pure.

Layout (little-endian), in full in ``docs/PROTOCOL.md``::

    stream    magic(8) · header frame · batch frames · end frame
    frame     size of body(4) type(1) flags(1) xxh3(8) · body
    record    kind(1) number(8) size of rest(4) · rest

A frame's checksum is over the rest of its head and its body, with the frame's number as
seed, so that a frame that is missing, repeated or out of place is noticed, too. The end
frame has counts, and the checksum of every byte before it.

Invariants: whatever the bytes, a reader gets records or a ``StreamError``; what it keeps is
bounded by one frame. The outer layout of header frames never changes, so that any version can name its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from struct import Struct
from typing import NamedTuple, TypeAlias

from xxhash import xxh3_64, xxh3_64_intdigest

from idemfs.errors import Damaged, StreamDamaged, StreamInterrupted, StreamTooNew
from idemfs.format import entry
from idemfs.format.inode import LAYOUT, LOCAL_SIZE
from idemfs.ids import NUMBER_MASK, Guid, Number
from idemfs.limits import (
    BLOCK_SIZE_MAX,
    BLOCK_SIZE_MIN,
    FRAME_SIZE_MAX,
    INDIRECT_ENTRY_COUNT,
    NAME_SIZE_MAX,
    SNAPSHOT_NAME_SIZE_MAX,
    STREAM_BATCH_BYTES,
    XATTR_NAME_SIZE_MAX,
    XATTR_VALUE_SIZE_MAX,
)
from idemfs.replication.description import Description
from idemfs.replication.description import pack as pack_description
from idemfs.replication.description import unpack as unpack_description
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
)

MAGIC = b"idemfs\x1a\n"
VERSION = 1
_LONG = 1 << 15
"""Bytes from which on it costs more to copy content than to keep what came with it."""
DESCRIBED = 1
"""Feature: what the fileset is stands behind the name. Without it, it is a root fileset with nothing to tell."""
FEATURES_KNOWN = DESCRIBED

HEADER, BATCH, END = 1, 2, 3
ZSTD = 1
"""Frame flag: the body is compressed."""

_FRAME = Struct("<IBB")
_FRAME_SIZE = _FRAME.size + 8
_HEADER = Struct("<IQ16s16sIIIQQ16s16sQqB16s16sQqH")
_END = Struct("<QQQQ")
_RECORD = Struct("<BQI")
_BLOCK = Struct("<QQ")
_PORTABLE_SIZE_MIN = LAYOUT.size - LOCAL_SIZE
_PORTABLE_SIZE_MAX = 0xFFFF
_COMPRESSION_LEVEL = 3

_INODE, _REMOVED, _DATA, _ENTRY, _LINK, _XATTR = b"IRBDLX"


class Point(NamedTuple):
    """A snapshot by what is the same everywhere: its guid and its digest."""

    guid: Guid
    digest: int


class Header(NamedTuple):
    """What a receiver decides by. ``base`` None: a full stream; ``after``: where the stream begins."""

    fileset: Guid
    source: Guid
    block_size: int
    inline_size: int
    entry_count: int
    epoch: int
    next_number: int
    """Greater than every inode number of the stream."""
    target: Point
    inode_count: int
    created_ns: int
    name: str
    base: Point | None
    after: Cursor = START
    version: int = VERSION
    features: int = 0
    """Beside ``DESCRIBED``, which says that there is a description."""
    description: Description | None = None


class Batch(NamedTuple):
    """The records of one frame; ``size`` is that of the frame on the wire."""

    changes: list[Change]
    size: int


class End(NamedTuple):
    """Totals: records, their bytes before compression, bytes of block content."""

    records: int
    record_bytes: int
    block_bytes: int


Event: TypeAlias = Header | Batch | End

# -- records -------------------------------------------------------------------------------------------


def pack_change(change: Change) -> list[bytes | memoryview]:
    """The record in pieces, so that block content is not copied."""
    match change:
        case BlockChange(number=number, block=block, payload=payload, checksum=checksum):
            head = _RECORD.pack(_DATA, number, _BLOCK.size + len(payload)) + _BLOCK.pack(block, checksum)
            return [head, payload] if payload else [head]
        case InodeChange(number=number, portable=portable):
            return [_RECORD.pack(_INODE, number, len(portable)) + portable]
        case InodeRemoved(number=number):
            return [_RECORD.pack(_REMOVED, number, 0)]
        case EntryChange(number=number, name=name, value=value):
            return [_named(_ENTRY, number, name, value)]
        case XattrChange(number=number, name=name, value=value):
            return [_named(_XATTR, number, name, value)]
        case LinkChange(number=number, parent=parent, name=name, is_present=is_present):
            rest = bytes((is_present,)) + parent.to_bytes(8, "little") + name
            return [_RECORD.pack(_LINK, number, len(rest)) + rest]


def _named(kind: int, number: Number, name: bytes, value: bytes | None) -> bytes:
    rest = bytes((value is not None, len(name))) + name + (value or b"")
    return _RECORD.pack(kind, number, len(rest)) + rest


def unpack_changes(body: bytes | memoryview) -> list[Change]:
    """All records of a batch. Raises ``StreamDamaged``."""
    changes: list[Change] = []
    at = 0
    while at < len(body):
        if at + _RECORD.size > len(body):
            raise StreamDamaged("the stream is damaged: a record ends inside its head")
        kind, number, size = _RECORD.unpack_from(body, at)
        at += _RECORD.size
        if at + size > len(body):
            raise StreamDamaged("the stream is damaged: a record is longer than its frame")
        if not 0 < number <= NUMBER_MASK:
            raise StreamDamaged(f"the stream is damaged: a record names inode number {number}")
        if kind == _DATA:
            changes.append(_unpack_block(number, body, at, at + size))
        else:
            changes.append(_unpack_change(kind, number, bytes(body[at : at + size])))
        at += size
    return changes


def _unpack_block(number: Number, body: bytes | memoryview, start: int, end: int) -> BlockChange:
    """What is long of it stays where it came."""
    if end - start < _BLOCK.size:
        raise _bad("block", number)
    block, checksum = _BLOCK.unpack_from(body, start)
    content = memoryview(body)[start + _BLOCK.size : end]
    payload = content if len(content) >= _LONG else bytes(content)
    if block >> 48 or len(payload) > BLOCK_SIZE_MAX or payload[-1:] == b"\0" or (checksum and not payload):
        raise _bad("block", number)
    return BlockChange(number, block, payload, checksum)


def _unpack_change(kind: int, number: Number, rest: bytes) -> Change:
    if kind == _INODE:
        if not _PORTABLE_SIZE_MIN <= len(rest) <= _PORTABLE_SIZE_MAX:
            raise _bad("inode", number)
        return InodeChange(number, rest)
    if kind == _REMOVED:
        if rest:
            raise _bad("removal", number)
        return InodeRemoved(number)
    if kind == _LINK:
        parent, name = int.from_bytes(rest[1:9], "little"), rest[9:]
        if rest[:1] not in (b"\0", b"\1") or not _is_name(name) or not 0 < parent <= NUMBER_MASK:
            raise _bad("link", number)
        return LinkChange(number, Number(parent), name, rest[0] == 1)
    if kind in (_ENTRY, _XATTR):
        return _unpack_named(kind, number, rest)
    raise StreamDamaged(f"the stream is damaged: it has a record of kind {kind}")


def _unpack_named(kind: int, number: Number, rest: bytes) -> Change:
    what = "entry" if kind == _ENTRY else "extended attribute"
    if len(rest) < 2 or rest[0] > 1:
        raise _bad(what, number)
    name = rest[2 : 2 + rest[1]]
    value = rest[2 + rest[1] :] if rest[0] else None
    if len(rest) < 2 + rest[1] or (value is None and len(rest) > 2 + rest[1]):
        raise _bad(what, number)
    if kind == _ENTRY:
        if not _is_name(name) or name in (b".", b".."):
            raise _bad(what, number)
        if value is not None:
            _check_entry(number, value)
        return EntryChange(number, name, value)
    if not name or b"\0" in name or len(name) > XATTR_NAME_SIZE_MAX or len(value or b"") > XATTR_VALUE_SIZE_MAX:
        raise _bad(what, number)
    return XattrChange(number, name, value)


def _check_entry(number: Number, value: bytes) -> None:
    try:
        entry.unpack(value)
    except Damaged as bad:
        raise _bad("entry", number) from bad


def _is_name(name: bytes) -> bool:
    return 0 < len(name) <= NAME_SIZE_MAX and b"/" not in name and b"\0" not in name


def _bad(what: str, number: int) -> StreamDamaged:
    return StreamDamaged(f"the stream is damaged: it has a {what} record of inode {number} that cannot be")


# -- header and end ------------------------------------------------------------------------------------


def pack_header(header: Header) -> bytes:
    name = header.name.encode()
    base = header.base or Point(Guid(bytes(16)), 0)
    return (
        _HEADER.pack(
            header.version,
            header.features | (DESCRIBED if header.description else 0),
            header.fileset,
            header.source,
            header.block_size,
            header.inline_size,
            header.entry_count,
            header.epoch,
            header.next_number,
            header.target.guid,
            header.target.digest.to_bytes(16, "little"),
            header.inode_count,
            header.created_ns,
            header.base is not None,
            base.guid,
            base.digest.to_bytes(16, "little"),
            header.after.number,
            header.after.block,
            len(name),
        )
        + name
        + (pack_description(header.description) if header.description else b"")
    )


def unpack_header(body: bytes) -> Header:
    """Raises ``StreamTooNew``, ``StreamDamaged``."""
    version = int.from_bytes(body[:4], "little")
    if version > VERSION:
        raise StreamTooNew(f"the stream has format {version}; this idemfs reads up to {VERSION}: install a newer one")
    if len(body) < _HEADER.size:
        raise StreamDamaged("the stream is damaged: its header is too short")
    fields = _HEADER.unpack_from(body)
    features = fields[1]
    if features & ~FEATURES_KNOWN:
        raise StreamTooNew(
            f"the stream uses features {features:#x} that this idemfs does not know: install a newer one"
        )
    block_size, has_base, number, block = fields[4], fields[13], fields[16], fields[17]
    end = _HEADER.size + fields[18]
    try:
        name = body[_HEADER.size : end].decode()
    except UnicodeDecodeError as bad:
        raise StreamDamaged("the stream is damaged: its snapshot's name is no text") from bad
    if (
        (len(body) <= end if features & DESCRIBED else len(body) != end)
        or not 0 < fields[18] <= SNAPSHOT_NAME_SIZE_MAX
        or not BLOCK_SIZE_MIN <= block_size <= BLOCK_SIZE_MAX
        or block_size & (block_size - 1)
        or fields[6] != INDIRECT_ENTRY_COUNT
        or has_base > 1
        or not 0 < fields[8] <= NUMBER_MASK + 1
        or number > NUMBER_MASK
        or block < -1
        or version < 1
    ):
        raise StreamDamaged("the stream is damaged: its header makes no sense")
    return Header(
        fileset=Guid(fields[2]),
        source=Guid(fields[3]),
        block_size=block_size,
        inline_size=fields[5],
        entry_count=fields[6],
        epoch=fields[7],
        next_number=fields[8],
        target=Point(Guid(fields[9]), int.from_bytes(fields[10], "little")),
        inode_count=fields[11],
        created_ns=fields[12],
        name=name,
        base=Point(Guid(fields[14]), int.from_bytes(fields[15], "little")) if has_base else None,
        after=Cursor(Number(number), block),
        version=version,
        features=features & ~DESCRIBED,
        description=unpack_description(body[end:]) if features & DESCRIBED else None,
    )


# -- writing -------------------------------------------------------------------------------------------


class Encoder:
    """Frames of one stream: ``start``, ``add`` for each record, ``finish``. What they return goes on the wire."""

    def __init__(self, header: Header, compress: bool = False) -> None:
        self._header = header
        self._compress = compress
        self._frame_count = 0
        self._sum = xxh3_64()
        self._pieces: list[bytes | memoryview] = []
        self._pending = 0
        self.records = self.record_bytes = self.block_bytes = 0

    def start(self) -> bytes:
        self._sum.update(MAGIC)
        return MAGIC + self._frame(HEADER, pack_header(self._header))

    def add(self, change: Change) -> bytes:
        """A frame, when enough records came together for one, else nothing."""
        pieces = pack_change(change)
        self._pieces += pieces
        self._pending += sum(map(len, pieces))
        self.records += 1
        if isinstance(change, BlockChange):
            self.block_bytes += len(change.payload)
        return self.flush() if self._pending >= STREAM_BATCH_BYTES else b""

    def flush(self) -> bytes:
        """A frame of the records that wait for one."""
        if not self._pieces:
            return b""
        body = b"".join(self._pieces)
        self._pieces.clear()
        self._pending = 0
        self.record_bytes += len(body)
        return self._frame(BATCH, body)

    def finish(self) -> bytes:
        """The last records, and the end."""
        last = self.flush()
        totals = _END.pack(self.records, self.record_bytes, self.block_bytes, self._sum.intdigest())
        return last + self._frame(END, totals)

    def _frame(self, kind: int, body: bytes) -> bytes:
        flags = 0
        if self._compress and kind == BATCH:
            packed = _compressed(body)
            if len(packed) < len(body):
                flags, body = ZSTD, packed
        assert len(body) <= FRAME_SIZE_MAX
        frame = pack_frame(self._frame_count, kind, flags, body)
        self._frame_count += 1
        self._sum.update(frame)
        return frame


def pack_frame(number: int, kind: int, flags: int, body: bytes) -> bytes:
    """Frame ``number`` (from 0) of a stream."""
    head = _FRAME.pack(len(body), kind, flags)
    return b"".join((head, _frame_sum(number, head, body).to_bytes(8, "little"), body))


def _frame_sum(number: int, head: bytes | memoryview, body: bytes | memoryview) -> int:
    checksum = xxh3_64(head, seed=number)
    checksum.update(body)
    return checksum.intdigest()


def _compressed(body: bytes) -> bytes:
    import zstandard

    return zstandard.ZstdCompressor(level=_COMPRESSION_LEVEL).compress(body)


def _decompressed(body: bytes | memoryview) -> bytes:
    import zstandard

    try:
        # What the frame says of its size is not believed until it is known to be small.
        if not 0 < zstandard.frame_content_size(body) <= FRAME_SIZE_MAX:
            raise StreamDamaged("the stream is damaged: a compressed frame does not say that it is small enough")
        return zstandard.ZstdDecompressor(max_window_size=FRAME_SIZE_MAX).decompress(body, allow_extra_data=False)
    except zstandard.ZstdError as bad:
        raise StreamDamaged("the stream is damaged: a frame cannot be decompressed") from bad


# -- reading -------------------------------------------------------------------------------------------


class Decoder:
    """Takes bytes as they come, and gives what whole frames say."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._sum = xxh3_64()
        self._has_magic = False
        self._frame_count = 0
        self._records = self._record_bytes = self._block_bytes = 0
        self.is_finished = False

    @property
    def wanted(self) -> int:
        """How many more bytes complete what is being read; 0 after the end."""
        if self.is_finished:
            return 0
        if not self._has_magic:
            return len(MAGIC) + _FRAME_SIZE - len(self._buffer)
        if len(self._buffer) < _FRAME_SIZE:
            return _FRAME_SIZE - len(self._buffer)
        return _FRAME_SIZE + int.from_bytes(self._buffer[:4], "little") - len(self._buffer)

    def feed(self, data: bytes | memoryview) -> Iterator[Event]:
        """What ``data`` completes. Raises ``StreamDamaged``, ``StreamTooNew``."""
        self._buffer += data
        if not self._has_magic:
            if self._buffer[: len(MAGIC)] != MAGIC[: len(self._buffer)]:
                raise StreamDamaged("this is no change set of idemfs; make one with 'idemfs send'")
            if len(self._buffer) < len(MAGIC):
                return
            self._has_magic = True
            self._sum.update(MAGIC)
            del self._buffer[: len(MAGIC)]
        while len(self._buffer) >= _FRAME_SIZE and not self.is_finished:
            size, kind, flags = _FRAME.unpack_from(self._buffer)
            if size > FRAME_SIZE_MAX:
                raise StreamDamaged(f"the stream is damaged: a frame of {size} bytes; {FRAME_SIZE_MAX} is the most")
            end = _FRAME_SIZE + size
            if len(self._buffer) < end:
                return
            if len(self._buffer) == end:
                frame, self._buffer = self._buffer, bytearray()
            else:
                frame = self._buffer[:end]
                del self._buffer[:end]
            yield self._event(kind, flags, memoryview(frame).toreadonly())
        if self.is_finished and self._buffer:
            raise StreamDamaged("the stream is damaged: something follows its end")

    def _event(self, kind: int, flags: int, frame: memoryview) -> Event:
        body: bytes | memoryview = frame[_FRAME_SIZE:]
        expected = int.from_bytes(frame[_FRAME.size : _FRAME_SIZE], "little")
        if _frame_sum(self._frame_count, frame[: _FRAME.size], body) != expected:
            raise StreamDamaged(f"the stream is damaged in its frame number {self._frame_count}: send it again")
        if (kind == HEADER) != (self._frame_count == 0):
            raise StreamDamaged("the stream is damaged: its header is not where it must be")
        if flags & ~ZSTD or kind not in (HEADER, BATCH, END):
            raise StreamTooNew("the stream has frames that this idemfs does not know: install a newer one")
        if flags & ZSTD:
            body = _decompressed(body)
        before = self._sum.intdigest() if kind == END else 0
        self._frame_count += 1
        self._sum.update(frame)
        if kind == HEADER:
            return unpack_header(bytes(body))
        if kind == BATCH:
            changes = unpack_changes(body)
            self._records += len(changes)
            self._record_bytes += len(body)
            self._block_bytes += sum(len(c.payload) for c in changes if isinstance(c, BlockChange))
            return Batch(changes, len(frame))
        totals = (self._records, self._record_bytes, self._block_bytes)
        if len(body) != _END.size or _END.unpack(body) != (*totals, before):
            raise StreamDamaged("the stream is damaged: its end does not fit what came before: send it again")
        self.is_finished = True
        return End(*totals)

    def finish(self) -> None:
        """No more bytes will come. Raises ``StreamInterrupted`` when the end did not."""
        if not self.is_finished:
            if not (self._has_magic or self._buffer):
                raise StreamInterrupted("the stream is empty: look why 'idemfs send' wrote nothing, and send it again")
            raise StreamInterrupted(
                "the stream ended early; what came is kept: send it again, and it goes on from there"
            )


class StreamReader:
    """A stream from ``read(size)``, which returns up to ``size`` bytes, and none at the end; or more, where nothing but
    the stream can be read."""

    def __init__(self, read: Callable[[int], bytes | memoryview]) -> None:
        """Reads the header. Raises ``StreamError``."""
        self._read = read
        self._decoder = Decoder()
        self._events = self._all()
        self.size = 0
        """Bytes read so far."""
        header = next(self._events)
        assert isinstance(header, Header)
        self.header = header
        self.end: End | None = None
        """Known when ``batches`` is through."""

    def _all(self) -> Iterator[Event]:
        while wanted := self._decoder.wanted:
            data = self._read(wanted)
            if not data:
                self._decoder.finish()
            self.size += len(data)
            yield from self._decoder.feed(data)

    def batches(self) -> Iterator[Batch]:
        """Every batch. Raises ``StreamError``: only when none is raised, the stream is whole."""
        for event in self._events:
            if isinstance(event, End):
                self.end = event
            else:
                assert isinstance(event, Batch)
                yield event


def block_checksum(payload: bytes) -> int:
    """As stores keep it; 0 for a hole."""
    return xxh3_64_intdigest(payload) if payload else 0
