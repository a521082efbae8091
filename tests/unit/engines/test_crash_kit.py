"""The crash kit itself: what it may lose, what it must keep, and that it fails when it is told to."""

from __future__ import annotations

import errno
import random

import pytest

from idemfs.engines.blocks.memory import MemoryBlocks
from idemfs.engines.kv.api import Precondition, Table
from idemfs.engines.kv.memory import MemoryKV
from idemfs.errors import NoSpace
from idemfs.limits import SECTOR_SIZE
from idemfs.testing.blocks import TEAR_SIZE, CrashingBlocks, FaultyBlocks
from idemfs.testing.clock import Simulated
from idemfs.testing.faults import Cut, Faults, Kind, PowerCut
from idemfs.testing.kv import CrashingKV, FaultyKV

A = Table.ACTIVE
OLD, NEW = b"o" * SECTOR_SIZE, b"n" * SECTOR_SIZE


def workload(kv: CrashingKV, blocks: CrashingBlocks) -> None:
    blocks.write(1, OLD)
    blocks.sync()
    kv.commit({A: {b"k": b"1"}})
    blocks.write(2, NEW)
    blocks.discard([(1, 1)])
    blocks.sync()
    kv.commit({A: {b"k": b"2"}})


def test_write_points_of_both_engines_are_counted_together() -> None:
    cut = Cut()
    workload(CrashingKV(cut), CrashingBlocks(cut))
    assert cut.count == 7
    assert not cut.happened


@pytest.mark.parametrize("effective", [False, True])
@pytest.mark.parametrize("after", range(1, 8))
def test_a_cut_before_or_after_the_effect(after: int, effective: bool) -> None:
    cut = Cut(after, effective=effective)
    kv, blocks = CrashingKV(cut), CrashingBlocks(cut)
    with pytest.raises(PowerCut):
        workload(kv, blocks)
    assert cut.happened
    assert cut.count == after
    for call in (
        lambda: blocks.read(1, 1),
        lambda: blocks.write(9, b"x"),
        blocks.sync,
        lambda: blocks.reserve(9, 1),
        lambda: blocks.discard([(9, 1)]),
        blocks.used_bytes,
        lambda: kv.get(A, b"k"),
        lambda: kv.get_many(A, [b"k"]),
        lambda: kv.scan(A, b"", b"z", 1),
        lambda: kv.commit({A: {b"k": b"x"}}),
        lambda: kv.reserve(1, 1),
        kv.used_bytes,
    ):
        with pytest.raises(PowerCut):
            call()
    kv.close()
    blocks.close()
    done = after if effective else after - 1
    rng = random.Random(after)
    kv, blocks = kv.crash(rng), blocks.crash(rng)
    assert kv.get(A, b"k") == (None if done < 3 else b"1" if done < 7 else b"2")
    if 2 <= done < 5:
        assert blocks.read(1, SECTOR_SIZE) == OLD
    if done >= 6:
        assert blocks.read(2, SECTOR_SIZE) == NEW
        assert blocks.read(1, SECTOR_SIZE) not in (OLD, bytes(SECTOR_SIZE))


def test_a_refused_commit_does_not_put_off_the_cut() -> None:
    kv = CrashingKV(Cut(1, effective=True))
    with pytest.raises(PowerCut):
        kv.commit({A: {b"k": b"v"}}, Precondition(b"epoch", b"1"))
    assert kv.crash(random.Random(1)).get(A, b"k") is None


def test_an_unsynced_write_is_lost_torn_or_whole_and_nothing_else() -> None:
    blocks = CrashingBlocks()
    blocks.write(1, OLD * 2)
    blocks.sync()
    blocks.write(2, NEW)
    rng = random.Random(4)
    seen = set()
    for _ in range(200):
        after = blocks.crash(rng)
        assert after.read(1, SECTOR_SIZE) == OLD
        data = after.read(2, SECTOR_SIZE)
        units = [data[start : start + TEAR_SIZE] for start in range(0, SECTOR_SIZE, TEAR_SIZE)]
        assert set(units) <= {OLD[:TEAR_SIZE], NEW[:TEAR_SIZE]}
        seen.add("whole" if data == NEW else "lost" if data == OLD else "torn")
    assert seen == {"whole", "lost", "torn"}


def test_unsynced_writes_survive_in_any_combination_and_order() -> None:
    blocks = CrashingBlocks()
    for sector, data in ((1, b"a"), (2, b"b"), (1, b"c")):
        blocks.write(sector, data * SECTOR_SIZE)
    rng = random.Random(5)
    images = [blocks.crash(rng).read(1, 2 * SECTOR_SIZE) for _ in range(300)]
    whole = {(image[:1], image[SECTOR_SIZE : SECTOR_SIZE + 1]) for image in images}
    assert whole == {(first, second) for first in (b"\0", b"a", b"c") for second in (b"\0", b"b")}


def test_the_same_seed_crashes_the_same_way() -> None:
    blocks = CrashingBlocks()
    for sector in range(1, 40):
        blocks.write(sector, bytes([sector]) * SECTOR_SIZE)
    images = [blocks.crash(random.Random(6)).read(1, 40 * SECTOR_SIZE) for _ in range(2)]
    assert images[0] == images[1]
    assert images[0] != blocks.read(1, 40 * SECTOR_SIZE)


def test_what_was_synced_survives_a_second_crash() -> None:
    blocks = CrashingBlocks()
    blocks.write(1, OLD)
    blocks.sync()
    rng = random.Random(7)
    once = blocks.crash(rng)
    once.write(1, NEW)
    once.sync()
    assert once.crash(rng).crash(rng).read(1, SECTOR_SIZE) == NEW


def test_discarded_sectors_and_the_rest_of_the_last_one_are_not_zeros() -> None:
    blocks = CrashingBlocks()
    blocks.write(1, OLD)
    blocks.write(2, b"short")
    blocks.discard([(1, 1)])
    assert OLD not in blocks.read(1, SECTOR_SIZE)
    assert blocks.read(1, SECTOR_SIZE).strip(b"\0")
    assert blocks.read(2, 5) == b"short"
    assert blocks.read(2, SECTOR_SIZE)[5:].strip(b"\0")


def test_faults_come_at_the_call_that_was_named_and_change_nothing() -> None:
    faults = Faults()
    kv = FaultyKV(MemoryKV(), faults)
    faults.add(Kind.COMMIT, after=2)
    faults.add(Kind.RESERVE, errno.ENOSPC, times=None)
    faults.add(Kind.READ, after=3)
    kv.commit({A: {b"k": b"1"}})
    with pytest.raises(OSError) as failure:
        kv.commit({A: {b"k": b"2"}})
    assert failure.value.errno == errno.EIO
    assert kv.get(A, b"k") == b"1"
    assert kv.get_many(A, [b"k"]) == [b"1"]
    with pytest.raises(OSError, match="read number 3"):
        kv.scan(A, b"", b"z", 1)
    for _ in range(3):
        with pytest.raises(NoSpace):
            kv.reserve(1, 1)
    faults.clear()
    kv.reserve(1, 1)
    kv.commit({A: {b"k": b"3"}})
    assert kv.get(A, b"k") == b"3"
    assert faults.counts[Kind.COMMIT] == 3


@pytest.mark.parametrize("kind", [Kind.RESERVE, Kind.WRITE, Kind.READ, Kind.SYNC, Kind.DISCARD])
def test_every_kind_of_call_to_blocks_can_fail(kind: Kind) -> None:
    blocks = FaultyBlocks(MemoryBlocks(), Faults())

    def work() -> None:
        blocks.reserve(1, 1)
        blocks.write(1, OLD)
        assert blocks.read(1, SECTOR_SIZE) == OLD
        blocks.sync()
        blocks.discard([(1, 1)])

    work()
    blocks.faults.add(kind)
    with pytest.raises(OSError, match=f"{kind.value} number 2"):
        work()
    work()


def test_simulated_time_moves_only_when_told() -> None:
    clock = Simulated(seed=1)
    start = clock.now_ns()
    assert clock.now_ns() == start
    assert clock.monotonic_seconds() == 0
    clock.advance(1.5)
    assert clock.now_ns() == start + 1_500_000_000
    assert clock.monotonic_seconds() == 1.5
    assert Simulated(seed=1).random_bytes(16) == clock.random_bytes(16) != Simulated(seed=2).random_bytes(16)
