"""The decisions of the ditto rule, each at its edges."""

from __future__ import annotations

import pytest

from idemfs.format import address
from idemfs.format.address import HOLE
from idemfs.ids import Address, SnapshotId
from idemfs.versions import rule

NONE, FIRST, SECOND, THIRD = map(SnapshotId, range(4))
A, B, C = (address.make(sector, 4096, False) for sector in (1, 2, 3))


def test_an_inode_exists_for_snapshots_taken_after_its_birth() -> None:
    assert not rule.is_born_after(NONE, FIRST)
    assert rule.is_born_after(FIRST, FIRST)
    assert not rule.is_born_after(FIRST, SECOND)


@pytest.mark.parametrize(
    ("birth", "seen", "newest", "keeps"),
    [
        (NONE, NONE, NONE, False),
        (NONE, NONE, FIRST, True),
        (NONE, FIRST, FIRST, False),
        (NONE, FIRST, SECOND, True),
        (FIRST, FIRST, FIRST, False),
        (FIRST, FIRST, SECOND, True),
        # The newest snapshot was deleted: what it had was handed down.
        (NONE, SECOND, FIRST, False),
    ],
)
def test_an_inode_is_kept_once_for_each_snapshot_that_has_it(
    birth: SnapshotId, seen: SnapshotId, newest: SnapshotId, keeps: bool
) -> None:
    assert rule.keeps_inode(birth, seen, newest) == keeps


def test_records_are_kept_for_a_snapshot_that_has_their_inode() -> None:
    assert not rule.keeps_record(NONE, NONE)
    assert rule.keeps_record(NONE, FIRST)
    assert not rule.keeps_record(FIRST, FIRST)


def test_what_is_appended_changes_nothing_that_a_snapshot_sees() -> None:
    assert rule.keeps_block(4095, 4096)
    assert not rule.keeps_block(4096, 4096)
    assert not rule.keeps_block(0, 0)


@pytest.mark.parametrize(
    ("address", "block_start", "change_start", "kept_size", "longest_size", "keeps"),
    [
        (A, 4096, 5000, 5000, 5000, False),
        (A, 4096, 5000, 5000, 9000, True),
        (A, 4096, 5000, 5000, 5001, True),
        (A, 4096, 5001, 5000, 5001, False),
        (HOLE, 4096, 5001, 5000, 5001, True),
        (HOLE, 4096, 5000, 5000, 5000, True),
        (HOLE, 8192, 8192, 5000, 9000, True),
        (HOLE, 8192, 9500, 5000, 9000, True),
        (HOLE, 8192, 8192, 5000, 8192, False),
        (HOLE, 0, 0, 0, 1, True),
        (A, 8192, 8192, 5000, 9000, False),
        (A, 0, 0, 0, 1, False),
    ],
)
def test_a_block_that_the_newest_snapshot_does_not_see_is_kept_for_a_longer_one(
    address: Address, block_start: int, change_start: int, kept_size: int, longest_size: int, keeps: bool
) -> None:
    assert rule.keeps_block_for_older(address, block_start, change_start, kept_size, longest_size) == keeps


def pairs(**entries: Address) -> dict[int, rule.Pair]:
    return {int(name[1:]): (place, 0) for name, place in entries.items()}


def test_the_older_snapshot_takes_what_it_lacks() -> None:
    outcome = rule.hand_down(pairs(e0=A, e1=B, e2=C), pairs(e1=HOLE), 3)
    assert outcome.moved == pairs(e0=A, e2=C)
    assert outcome.freed == [B]


def test_what_lies_past_its_end_is_freed() -> None:
    outcome = rule.hand_down(pairs(e0=A, e1=B), {}, 1)
    assert outcome.moved == pairs(e0=A)
    assert outcome.freed == [B]


def test_a_hole_is_handed_down_like_an_extent_and_past_the_end_for_who_is_older_still() -> None:
    outcome = rule.hand_down(pairs(e0=HOLE, e1=HOLE, e2=HOLE, e3=B), {}, 1, 2)
    assert outcome.moved == pairs(e0=HOLE, e1=HOLE)
    assert outcome.freed == [HOLE, B]


@pytest.mark.parametrize(
    ("size", "first", "count"), [(0, 0, 0), (1, 0, 1), (4096, 0, 1), (4097, 0, 2), (4097, 2, 0), (1 << 30, 5, 10)]
)
def test_blocks_that_lie_inside_a_file_if_only_in_part(size: int, first: int, count: int) -> None:
    assert rule.entry_count(size, 4096, first, 10) == count
