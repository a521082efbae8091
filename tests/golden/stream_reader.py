"""A reader of streams of version 1, written from docs/PROTOCOL.md alone: it imports nothing of idemfs.

It checks every checksum and total on its way.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import xxhash
import zstandard

HEADER_FIELDS = (
    "version",
    "features",
    "fileset",
    "source",
    "block_size",
    "inline_size",
    "entry_count",
    "epoch",
    "next_number",
    "target",
    "target_digest",
    "inodes",
    "created_ns",
    "has_base",
    "base",
    "base_digest",
    "start_number",
    "start_block",
    "name_size",
)
PORTABLE = struct.Struct("<IIIIQQqqqBQB")
PORTABLE_FIELDS = (
    "mode",
    "uid",
    "gid",
    "nlink",
    "rdev",
    "size",
    "mtime",
    "ctime",
    "btime",
    "flags",
    "parent",
    "name_size",
)

Row = dict[str, Any]


def rows(stream: bytes) -> Iterator[Row]:
    """The header, every record, and the end, as plain values; bytes as hexadecimal digits."""
    assert stream[:8] == bytes.fromhex("69 64 65 6d 66 73 1a 0a")
    at, number = 8, 0
    totals = [0, 0, 0]
    while at < len(stream):
        size, kind, flags, checksum = struct.unpack_from("<IBBQ", stream, at)
        body = stream[at + 14 : at + 14 + size]
        assert size <= 8 << 20 and len(body) == size
        assert xxhash.xxh3_64_intdigest(stream[at : at + 6] + body, seed=number) == checksum
        if flags & 1:
            body = zstandard.decompress(body)
        if kind == 1:
            assert number == 0
            yield header(body)
        elif kind == 2:
            for row in records(body):
                totals[0] += 1
                totals[2] += row.get("bytes", 0)
                yield row
            totals[1] += len(body)
        else:
            assert kind == 3
            end = struct.unpack("<QQQQ", body)
            assert end == (*totals, xxhash.xxh3_64_intdigest(stream[:at]))
            assert at + 14 + size == len(stream)
            yield {"row": "end", "records": end[0], "record_bytes": end[1], "block_bytes": end[2]}
            return
        at += 14 + size
        number += 1
    raise AssertionError("the stream was interrupted")


def header(body: bytes) -> Row:
    values = struct.unpack_from("<IQ16s16sIIIQQ16s16sQqB16s16sQqH", body)
    row: Row = dict(zip(HEADER_FIELDS, values, strict=True))
    assert len(body) == 171 + row["name_size"]
    row["name"] = body[171:].decode()
    for field in ("target_digest", "base_digest"):
        row[field] = f"{int.from_bytes(row[field], 'little'):032x}"
    return {"row": "header"} | {key: value.hex() if isinstance(value, bytes) else value for key, value in row.items()}


def records(body: bytes) -> Iterator[Row]:
    at = 0
    while at < len(body):
        kind, inode, size = struct.unpack_from("<cQI", body, at)
        rest = body[at + 13 : at + 13 + size]
        assert len(rest) == size
        yield {"row": kind.decode(), "inode": inode} | RECORD[kind](rest)
        at += 13 + size


def removed(rest: bytes) -> Row:
    assert not rest
    return {}


def changed(rest: bytes) -> Row:
    row: Row = dict(zip(PORTABLE_FIELDS, PORTABLE.unpack_from(rest), strict=True))
    end = PORTABLE.size + row.pop("name_size")
    return row | {"name": rest[PORTABLE.size : end].hex(), "data": rest[end:].hex()}


def block(rest: bytes) -> Row:
    number, checksum = struct.unpack_from("<QQ", rest)
    payload = rest[16:]
    assert checksum == (xxhash.xxh3_64_intdigest(payload) if payload else 0)
    assert payload[-1:] != b"\0"
    return {"block": number, "bytes": len(payload), "checksum": f"{checksum:016x}"}


def named(rest: bytes) -> Row:
    name, value = rest[2 : 2 + rest[1]], rest[2 + rest[1] :]
    assert rest[0] in (0, 1) and (rest[0] or not value)
    return {"name": name.hex(), "value": value.hex() if rest[0] else None}


def link(rest: bytes) -> Row:
    return {"present": rest[0] == 1, "parent": int.from_bytes(rest[1:9], "little"), "name": rest[9:].hex()}


RECORD = {b"R": removed, b"I": changed, b"B": block, b"D": named, b"X": named, b"L": link}
