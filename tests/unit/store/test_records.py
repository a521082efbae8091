"""The three layers of a table read as one sorted dictionary, whatever the size of a page."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from idemfs.engines.kv.api import Table
from idemfs.engines.kv.memory import MemoryKV
from idemfs.store.records import Records

TABLE = Table.ACTIVE
KEYS = st.binary(min_size=1, max_size=2).map(lambda key: bytes(b"abcd"[byte % 4] for byte in key))
VALUES = st.binary(max_size=2)
CHANGES = st.dictionaries(KEYS, st.none() | VALUES, max_size=12)


def layered(
    engine: dict[bytes, bytes], sealed: dict[bytes, bytes | None], opened: dict[bytes, bytes | None]
) -> Records:
    kv = MemoryKV()
    kv.commit({TABLE: engine})
    records = Records(kv, TABLE)
    for key, value in sealed.items():
        records.put(key, value)
    records.seal()
    for key, value in opened.items():
        records.put(key, value)
    return records


def merged(*layers: dict[bytes, bytes] | dict[bytes, bytes | None]) -> dict[bytes, bytes]:
    values: dict[bytes, bytes | None] = {}
    for layer in layers:
        values.update(layer)
    return {key: value for key, value in sorted(values.items()) if value is not None}


@given(st.dictionaries(KEYS, VALUES, max_size=12), CHANGES, CHANGES, KEYS, KEYS, st.integers(1, 8), st.booleans())
def test_a_page_is_that_of_the_merged_layers(
    engine: dict[bytes, bytes],
    sealed: dict[bytes, bytes | None],
    opened: dict[bytes, bytes | None],
    start: bytes,
    end: bytes,
    limit: int,
    reverse: bool,
) -> None:
    expected = [pair for pair in merged(engine, sealed, opened).items() if start <= pair[0] < end]
    if reverse:
        expected.reverse()
    records = layered(engine, sealed, opened)
    assert records.scan(start, end, limit, reverse) == expected[:limit]
    if not reverse:
        assert records.first(start, end) == (expected[0] if expected else None)


@given(st.dictionaries(KEYS, VALUES, max_size=12), CHANGES, CHANGES, st.integers(1, 3))
def test_pages_put_end_to_end_are_the_whole(
    engine: dict[bytes, bytes], sealed: dict[bytes, bytes | None], opened: dict[bytes, bytes | None], limit: int
) -> None:
    records = layered(engine, sealed, opened)
    expected = list(merged(engine, sealed, opened).items())
    upward, start = [], b""
    while page := records.scan(start, b"z", limit):
        upward += page
        start = page[-1][0] + b"\0"
    assert upward == expected
    downward, end = [], b"z"
    while page := records.scan(b"", end, limit, reverse=True):
        downward += page
        end = page[-1][0]
    assert downward == expected[::-1]


@given(st.dictionaries(KEYS, VALUES, max_size=12), CHANGES, CHANGES, KEYS)
def test_a_group_changes_nothing_that_is_read_when_it_is_sealed_and_committed(
    engine: dict[bytes, bytes], first: dict[bytes, bytes | None], second: dict[bytes, bytes | None], key: bytes
) -> None:
    kv = MemoryKV()
    kv.commit({TABLE: engine})
    records = Records(kv, TABLE)
    before = merged(engine)
    for changes in (first, second):
        for changed, value in changes.items():
            records.put(changed, value)
        assert records.before_group(key) == before.get(key)
        after = merged(before, changes)
        batch = records.seal()
        assert_reads(records, key, after)
        kv.commit({TABLE: batch})
        assert_reads(records, key, after)
        records.drop_sealed()
        assert_reads(records, key, after)
        before = after


def assert_reads(records: Records, key: bytes, expected: dict[bytes, bytes]) -> None:
    assert records.get(key) == records.before_group(key) == expected.get(key)
    assert dict(records.scan(b"", b"z", 100)) == expected


def test_a_run_of_removed_records_longer_than_a_page_hides_nothing_behind_it() -> None:
    engine = {b"%04d" % number: b"v" for number in range(100)}
    removed: dict[bytes, bytes | None] = dict.fromkeys(list(engine)[5:95])
    for sealed, opened in ((removed, {}), ({}, removed)):
        records = layered(engine, sealed, opened)
        left = [key for key in engine if key not in removed]
        assert [key for key, _ in records.scan(b"", b"z", 7)] == left[:7]
        assert [key for key, _ in records.scan(b"", b"z", 7, reverse=True)] == left[::-1][:7]
