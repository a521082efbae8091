"""What every metadata engine promises (``engines.kv.api``), asked of each of them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest

from idemfs.engines.kv.api import KV, Precondition, Table
from idemfs.engines.kv.lmdb_engine import LmdbKV
from idemfs.engines.kv.memory import MemoryKV
from idemfs.errors import Fenced, NoSpace
from idemfs.limits import KEY_SIZE_MAX, RECORD_SIZE_MAX
from idemfs.testing.kv import CrashingKV
from tests.conformance.disks import small_disk

A = Table.ACTIVE
END = b"\xff" * (KEY_SIZE_MAX + 1)


@pytest.fixture(params=["lmdb", "memory", "crashing"])
def kv(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[KV]:
    engines: dict[str, Callable[[], KV]] = {
        "lmdb": lambda: LmdbKV(str(tmp_path / "kv")),
        "memory": MemoryKV,
        "crashing": CrashingKV,
    }
    engine = engines[request.param]()
    yield engine
    engine.close()


@pytest.fixture(params=["lmdb", "memory"])
def small_kv(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[KV]:
    """An engine with room for about 12 MB."""
    if request.param == "memory":
        yield MemoryKV(capacity_bytes=12 << 20)
        return
    with small_disk(tmp_path / "disk", 12 << 20) as disk:
        engine = LmdbKV(str(disk / "kv"))
        yield engine
        engine.close()


def test_a_record_is_put_replaced_and_removed(kv: KV) -> None:
    assert kv.get(A, b"k") is None
    kv.commit({A: {b"k": b"1", b"empty": b""}})
    assert kv.get(A, b"k") == b"1"
    assert kv.get(A, b"empty") == b""
    kv.commit({A: {b"k": b"22"}})
    assert kv.get(A, b"k") == b"22"
    kv.commit({A: {b"k": None, b"never there": None}})
    assert kv.get(A, b"k") is None
    assert kv.scan(A, b"", END, 9) == [(b"empty", b"")]


def test_tables_are_apart_and_change_together(kv: KV) -> None:
    kv.commit({table: {b"k": table.value.encode()} for table in Table})
    assert [kv.get(table, b"k") for table in Table] == [table.value.encode() for table in Table]
    kv.commit({A: {b"k": None}, Table.SMALL: {b"k": b"new"}})
    assert [kv.get(table, b"k") for table in Table] == [None, b"shadow", b"owned", b"new"]


def test_get_many_answers_in_the_order_asked(kv: KV) -> None:
    kv.commit({A: {b"a": b"1", b"c": b"3"}})
    assert kv.get_many(A, [b"c", b"b", b"a", b"c"]) == [b"3", None, b"1", b"3"]
    assert kv.get_many(A, []) == []


def test_an_empty_batch_is_fine(kv: KV) -> None:
    kv.commit({})
    kv.commit({A: {}})
    assert kv.scan(A, b"", END, 1) == []
    assert kv.scan(A, b"", END, 1, reverse=True) == []


def test_the_largest_key_and_value(kv: KV) -> None:
    key, value = b"\xff" * KEY_SIZE_MAX, random.Random(1).randbytes(RECORD_SIZE_MAX)
    kv.commit({A: {key: value, b"\0": value[1:]}})
    assert kv.get(A, key) == value
    assert kv.scan(A, b"", END, 5) == [(b"\0", value[1:]), (key, value)]


def test_scan_equals_a_sorted_list(kv: KV) -> None:
    rng = random.Random(2)
    records = {rng.randbytes(rng.randint(1, 3)): rng.randbytes(4) for _ in range(300)}
    kv.commit({A: records})
    ordered = sorted(records.items())
    bounds = [b"", b"\0", b"\x7f", b"\xff", END, *rng.sample(sorted(records), 8), *(rng.randbytes(2) for _ in range(8))]
    for start in bounds:
        for end in bounds:
            expected = [item for item in ordered if start <= item[0] < end]
            for limit in (1, 2, 50, 1000):
                assert kv.scan(A, start, end, limit) == expected[:limit]
                assert kv.scan(A, start, end, limit, reverse=True) == expected[::-1][:limit]
    assert kv.scan(A, b"", END, 0) == []


def test_random_batches_equal_a_dictionary(kv: KV) -> None:
    rng = random.Random(3)
    model: dict[bytes, bytes] = {}
    for step in range(40):
        batch: dict[bytes, bytes | None] = {}
        for _ in range(rng.choice((1, 30, 200))):
            # Half of the keys lie behind all that are there, as those of new inodes do.
            number = rng.randrange(2000) if rng.random() < 0.5 else 10_000 + step * 300 + rng.randrange(300)
            size = rng.choice((0, 20, 900, 1500, 3000))
            batch[number.to_bytes(4, "big")] = None if rng.random() < 0.3 else rng.randbytes(size)
        if step % 10 == 9:
            batch.update(dict.fromkeys(sorted(model)[-40:], None))
        kv.commit({A: batch})
        for key, value in batch.items():
            if value is None:
                model.pop(key, None)
            else:
                model[key] = value
        assert kv.get_many(A, list(batch)) == [model.get(key) for key in batch]
    assert kv.scan(A, b"", END, 100_000) == sorted(model.items())
    assert kv.scan(A, b"", END, 100_000, reverse=True) == sorted(model.items(), reverse=True)


def test_a_precondition_that_holds_lets_the_batch_through(kv: KV) -> None:
    kv.commit({Table.SMALL: {b"epoch": b"1"}}, Precondition(b"epoch", None))
    kv.commit({A: {b"k": b"v"}}, Precondition(b"epoch", b"1"))
    assert kv.get(A, b"k") == b"v"


@pytest.mark.parametrize("expected", [None, b"2"])
def test_a_precondition_that_fails_changes_nothing(kv: KV, expected: bytes | None) -> None:
    kv.commit({Table.SMALL: {b"epoch": b"1"}})
    with pytest.raises(Fenced):
        kv.commit({A: {b"k": b"v"}, Table.SMALL: {b"epoch": b"9"}}, Precondition(b"epoch", expected))
    assert kv.get(A, b"k") is None
    assert kv.get(Table.SMALL, b"epoch") == b"1"
    kv.commit({A: {b"k": b"later"}}, Precondition(b"epoch", b"1"))
    assert kv.get(A, b"k") == b"later"


def test_whoever_waits_for_the_records_is_told_once_and_only_if_they_are_written(kv: KV) -> None:
    told: list[str] = []
    kv.commit({Table.SMALL: {b"epoch": b"1"}}, None, lambda: told.append("written"))
    assert len(told) <= 1
    with pytest.raises(Fenced):
        kv.commit({A: {b"k": b"v"}}, Precondition(b"epoch", b"2"), lambda: told.append("refused"))
    assert "refused" not in told


def test_readers_do_not_keep_a_commit_from_being_refused(kv: KV) -> None:
    kv.commit({Table.SMALL: {b"epoch": b"1"}})
    done = Event()

    def read() -> None:
        while not done.is_set():
            kv.get(Table.SMALL, b"epoch")

    with ThreadPoolExecutor(3) as pool:
        readers = [pool.submit(read) for _ in range(3)]
        try:
            for _ in range(5):
                with pytest.raises(Fenced):
                    kv.commit({A: {b"k": b"v"}}, Precondition(b"epoch", b"2"))
        finally:
            done.set()
        assert [reader.result() for reader in readers] == [None] * 3


def test_readers_see_whole_commits_while_others_are_made(kv: KV) -> None:
    keys = [number.to_bytes(2, "big") for number in range(0, 4000, 40)]
    done = Event()

    def state(number: int) -> dict[bytes, bytes]:
        return dict.fromkeys(keys, b"%08d" % number * 40)

    def read_many() -> int:
        last, count = 0, 0
        while not done.is_set() or count == 0:
            values = kv.get_many(A, keys)
            assert len(set(values)) == 1
            assert len({value for _, value in kv.scan(A, b"", END, 1000, reverse=bool(count % 2))}) == 1
            now = int((kv.get(A, keys[0]) or b"")[:8])
            assert now >= last
            last, count = now, count + 1
        return last

    kv.commit({A: state(0)})
    with ThreadPoolExecutor(3) as pool:
        readers = [pool.submit(read_many) for _ in range(3)]
        try:
            for number in range(1, 40):
                kv.commit({A: state(number)})
                assert kv.get(A, keys[-1]) == state(number)[keys[-1]]
        finally:
            done.set()
        assert all(reader.result() <= 39 for reader in readers)


def test_used_bytes_follow_the_records(kv: KV) -> None:
    empty = kv.used_bytes()
    records = {number.to_bytes(2, "big"): bytes(1000) for number in range(500)}
    kv.commit({A: records})
    full = kv.used_bytes()
    assert 500_000 <= full - empty <= 1_000_000
    kv.commit({A: dict.fromkeys(records)})
    assert kv.used_bytes() - empty <= 8192


def test_reserve_then_commit(kv: KV) -> None:
    kv.reserve(100, 100_000)
    kv.reserve(10, 1000)
    kv.commit({A: {number.to_bytes(2, "big"): bytes(100) for number in range(10)}})
    assert len(kv.scan(A, b"", END, 1000)) == 10


def test_what_cannot_be_reserved_is_refused_and_nothing_changes(small_kv: KV) -> None:
    small_kv.commit({A: {b"k": b"v"}})
    with pytest.raises(NoSpace):
        small_kv.reserve(10_000, 100 << 20)
    assert small_kv.get(A, b"k") == b"v"
    small_kv.reserve(10, 1000)
    small_kv.commit({A: {b"k": b"w"}})
    assert small_kv.get(A, b"k") == b"w"


def test_what_was_reserved_can_be_committed_up_to_the_last_byte(small_kv: KV) -> None:
    rng = random.Random(4)
    model: dict[bytes, bytes] = {}
    with pytest.raises(NoSpace):
        while True:
            keys = {rng.randbytes(3) for _ in range(rng.choice((1, 10, 100)))}
            batch = {key: rng.randbytes(rng.choice((10, 500, 2500))) for key in keys}
            small_kv.reserve(len(batch), sum(map(len, batch.values())))
            small_kv.commit({A: batch})
            model.update(batch)
    assert len(model) > 1000
    assert small_kv.scan(A, b"", END, 1_000_000) == sorted(model.items())


def test_a_commit_that_finds_no_room_changes_nothing_and_a_smaller_one_goes_through(small_kv: KV) -> None:
    small_kv.commit({A: {b"k": b"v"}})
    before = small_kv.used_bytes()
    with pytest.raises(NoSpace):
        small_kv.commit({A: {b"k": b"w", **{number.to_bytes(2, "big"): bytes(90_000) for number in range(300)}}})
    assert small_kv.scan(A, b"", END, 10) == [(b"k", b"v")]
    assert small_kv.used_bytes() == before
    small_kv.commit({A: {b"k": b"w"}})
    assert small_kv.scan(A, b"", END, 10) == [(b"k", b"w")]


@pytest.mark.parametrize("engine", ["lmdb", "crashing"])
def test_a_commit_is_there_after_opening_again(engine: str, tmp_path: Path) -> None:
    kv: KV = LmdbKV(str(tmp_path / "kv")) if engine == "lmdb" else CrashingKV()
    kv.commit({A: {b"a": b"1"}, Table.SHADOW: {b"s": b"2"}})
    kv.commit({A: {b"b": b"3"}})
    kv.close()
    kv = kv.crash(random.Random(5)) if isinstance(kv, CrashingKV) else LmdbKV(str(tmp_path / "kv"))
    assert kv.scan(A, b"", END, 10) == [(b"a", b"1"), (b"b", b"3")]
    assert kv.get(Table.SHADOW, b"s") == b"2"
    kv.commit({A: {b"a": None}})
    assert kv.get(A, b"a") is None
    kv.close()
