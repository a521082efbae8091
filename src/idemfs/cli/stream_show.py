"""``idemfs stream show``: what the change set on standard input says, checked to its end."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from idemfs.cli.names import printable, show_name
from idemfs.cli.parser import add_json
from idemfs.cli.render import format_size, format_time_ns

if TYPE_CHECKING:
    from idemfs.cli.render import Json
    from idemfs.replication.codec import Header, StreamReader
    from idemfs.replication.records import Change


def arguments(parser: ArgumentParser) -> None:
    add_json(parser)
    parser.add_argument("--records", action="store_true", help="list every change record, too")


def run(options: Namespace) -> None:
    from idemfs.cli.failures import UsageError
    from idemfs.replication.codec import StreamReader

    if sys.stdin.isatty():
        raise UsageError("there is no change set on a terminal: redirect one to standard input")
    stream = StreamReader(sys.stdin.buffer.read)
    rows = _rows(stream, options.records)
    if options.json:
        _print_json(rows)
        return
    for row in rows:
        for line in _lines(row):
            print(line)


def _rows(stream: StreamReader, with_records: bool) -> Iterator[dict[str, Json]]:
    """The header, with ``with_records`` each record as it is read, and the totals when the stream proved whole."""
    yield _header_row(stream.header)
    counts: Counter[str] = Counter()
    for batch in stream.batches():
        for change in batch.changes:
            row = _record_row(change)
            counts[str(row["record"])] += 1
            if with_records:
                yield row
    assert stream.end is not None
    end = stream.end
    yield {
        "frame": "end",
        "bytes": stream.size,
        "record_bytes": end.record_bytes,
        "block_bytes": end.block_bytes,
        "records": end.records,
        "kinds": dict(sorted(counts.items())),
    }


def _header_row(header: Header) -> dict[str, Json]:
    from idemfs.format.digest import to_text
    from idemfs.replication.records import START

    about = header.description
    return {
        "frame": "header",
        "fileset_name": about.name if about else "root",
        "appears_in": about.parent.hex() if about and about.parent else None,
        "directory": about.junction if about and about.junction else None,
        "snapshot": header.name,
        "guid": header.target.guid.hex(),
        "digest": to_text(header.target.digest),
        "created": format_time_ns(header.created_ns),
        "base_guid": header.base.guid.hex() if header.base else None,
        "base_digest": to_text(header.base.digest) if header.base else None,
        "starts_at": None if header.after == START else header.after.to_text(),
        "fileset": header.fileset.hex(),
        "source": header.source.hex(),
        "epoch": header.epoch,
        "inodes": header.inode_count,
        "block_size": header.block_size,
        "inline_size": header.inline_size,
        "format": header.version,
    }


def _record_row(change: Change) -> dict[str, Json]:
    import os

    from idemfs.replication import records

    row: dict[str, Json] = {"frame": "record", "record": "", "inode": change.number}
    match change:
        case records.InodeChange(portable=portable):
            row |= {"record": "inode", "bytes": len(portable)}
        case records.InodeRemoved():
            row |= {"record": "removed"}
        case records.BlockChange(block=block, payload=payload):
            row |= {"record": "block" if payload else "hole", "block": block, "bytes": len(payload)}
        case records.EntryChange(name=name, value=value):
            row |= {"record": "entry", "name": os.fsdecode(name), "target": _number(value)}
        case records.LinkChange(parent=parent, name=name, is_present=is_present):
            row |= {"record": "link", "parent": parent, "name": os.fsdecode(name), "present": is_present}
        case records.XattrChange(name=name, value=value):
            row |= {
                "record": "xattr",
                "name": os.fsdecode(name),
                "present": value is not None,
                "bytes": len(value or b""),
            }
    return row


def _number(value: bytes | None) -> int | None:
    from idemfs.format import entry

    return None if value is None else entry.unpack(value)[0]


def _print_json(rows: Iterator[dict[str, Json]]) -> None:
    """One array, an object a line, written as it is read: a stream may be larger than memory."""
    from json import dumps

    before = "["
    for row in rows:
        print(before + dumps(row), end="")
        before = ",\n"
    print("]")


def _lines(row: dict[str, Json]) -> Iterator[str]:
    if row["frame"] == "record":
        rest = (
            f"{key}={printable(str(value))}" for key, value in row.items() if key not in ("frame", "record", "inode")
        )
        yield " ".join([f"{row['inode']:>10}", f"{row['record']!s:8}", *rest]).rstrip()
        return
    for key, value in row.items():
        if key == "kinds" and isinstance(value, dict):
            for kind, count in value.items():
                yield f"  {kind:12}  {count:,}"
        elif key != "frame":
            text = format_size(value) if isinstance(value, int) and "bytes" in key else show_name(str(value))
            yield f"{key.replace('_', ' '):14}  {'-' if value is None else text}"
