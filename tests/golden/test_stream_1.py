"""The golden streams of version 1: read by this idemfs, and by a reader that knows the document alone."""

from __future__ import annotations

import json
from typing import Any

import pytest

from idemfs.errors import StreamDamaged, StreamTooNew
from idemfs.format.digest import to_text
from idemfs.ids import ROOT_FILESET
from idemfs.replication import codec
from idemfs.replication.apply import receive
from idemfs.replication.codec import StreamReader
from idemfs.testing.builders import assert_clean
from tests.golden.make_stream_1 import HERE, NAMES, build, listed, streams
from tests.unit.replication.pairs import assert_same, reading, snapshots, standby_of

EXPECTED: dict[str, list[dict[str, Any]]] = json.loads((HERE / "stream_1.json").read_text())
STORED = {name: (HERE / name).read_bytes() for name in NAMES}


def test_the_document_says_enough() -> None:
    for name, stream in STORED.items():
        assert listed(stream) == EXPECTED[name]


def test_streams_are_still_written_so() -> None:
    """Compressed ones may differ by the version of zstd; what is in them may not."""
    made = streams(build())
    assert {name: made[name] for name in NAMES[:2]} == {name: STORED[name] for name in NAMES[:2]}
    for name in NAMES:
        assert listed(made[name]) == EXPECTED[name]


@pytest.mark.parametrize("changes", NAMES[1:])
def test_a_standby_takes_them(changes: str) -> None:
    primary = build()
    standby = standby_of(primary, epoch=7)
    for name in (NAMES[0], changes):
        receive(standby, reading(STORED[name]))
        header = EXPECTED[name][0]
        newest = snapshots(standby)[-1]
        assert (newest.name, newest.guid.hex(), to_text(newest.digest), newest.inode_count, newest.created_ns) == (
            header["name"],
            header["target"],
            header["target_digest"],
            header["inodes"],
            header["created_ns"],
        )
    for each in snapshots(primary):
        assert_same(primary, standby, each.name)
    assert standby.store.catalog.filesets[ROOT_FILESET].next_number == EXPECTED[changes][0]["next_number"]
    assert_clean(standby)


def test_every_kind_of_record_is_in_them() -> None:
    kinds = {row["row"] for name in NAMES for row in EXPECTED[name]}
    assert kinds == {"header", "R", "I", "B", "D", "L", "X", "end"}
    rows = EXPECTED[NAMES[1]]
    assert any(row["row"] == "B" and not row["bytes"] for row in rows)
    for kind, field in (("D", "value"), ("X", "value"), ("L", "present")):
        values = {bool(row[field]) for row in rows if row["row"] == kind}
        assert values == {False, True}, kind


def test_a_newer_version_says_so_and_a_damaged_one_is_damaged() -> None:
    stream = STORED[NAMES[0]]
    size = int.from_bytes(stream[8:12], "little")
    body = bytearray(stream[22 : 22 + size])
    body[0] = 2
    newer = codec.MAGIC + codec.pack_frame(0, codec.HEADER, 0, bytes(body)) + stream[22 + size :]
    with pytest.raises(StreamTooNew, match="format 2"):
        StreamReader(reading(newer))
    with pytest.raises(StreamDamaged):
        StreamReader(reading(stream[:22] + bytes(body) + stream[22 + size :]))
