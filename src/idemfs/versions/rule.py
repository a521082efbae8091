"""The decisions of the ditto rule, one function each. Pure; the rest of the package carries them out.

*Newest* is the newest snapshot of the fileset, 0 if there is none. *Birth* is the
newest snapshot when an inode was created: the inode is younger than that one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from idemfs.format.address import HOLE
from idemfs.ids import Address, SnapshotId

Pair = tuple[Address, int]
"""Address and checksum of one block."""


def is_born_after(birth: SnapshotId, snapshot: SnapshotId) -> bool:
    """Whether an inode with this birth did not exist yet at ``snapshot``."""
    return birth >= snapshot


def keeps_inode(birth: SnapshotId, seen: SnapshotId, newest: SnapshotId) -> bool:
    """Whether changing an inode must first leave its shadow in the newest snapshot."""
    return birth < newest and seen < newest


def keeps_record(birth: SnapshotId, newest: SnapshotId) -> bool:
    """Whether the newest snapshot may see records of an inode with this birth."""
    return birth < newest


def keeps_block(change_start: int, kept_size: int) -> bool:
    """Whether a change of file content from byte ``change_start`` on reaches what the newest snapshot sees.

    ``kept_size`` is the size of its shadow inode: it hides what is appended past it, also
    inside a partly filled last block. The content of inline files is in the inode: 0.
    """
    return change_start < kept_size


def keeps_block_for_older(
    address: Address, block_start: int, change_start: int, kept_size: int, longest_size: int
) -> bool:
    """Whether the newest snapshot must keep what a block has been, though it sees nothing of the change itself.

    ``longest_size``: the most bytes that any snapshot has of the file. An older one that has it longer sees through
    the newest one's ditto what is past that one's end: zeros in its tail block, and holes behind it, never an extent
    there, which was kept when the file became shorter. A hole is kept also when the change begins past the end of
    that older one, in the same block: what comes to stand there, past the newest one's end, is not handed down.
    So it is where the newest one has a part of the block itself: it may go, and leave one that has nothing of it.
    """
    if address == HOLE:
        return block_start < longest_size
    return block_start < kept_size <= change_start < longest_size


class HandDown(NamedTuple):
    """What becomes of the entries of a deleted snapshot's indirect block."""

    moved: dict[int, Pair]
    freed: list[Address]


def hand_down(
    entries: Mapping[int, Pair], older: Mapping[int, Pair], older_entry_count: int, hole_entry_count: int = 0
) -> HandDown:
    """Entries that the next older snapshot sees only as dittos go to it; the rest is freed.

    ``older_entry_count``: how many entries of this indirect block lie inside the file as the
    older snapshot has it; 0 when the file did not exist there, or was inline.
    ``hole_entry_count``: the same for the longest version of the file that still older ones have. A hole
    there is seen through all newer dittos; an extent is not, since it came after a hole that was kept.
    """
    moved: dict[int, Pair] = {}
    freed: list[Address] = []
    for entry, pair in entries.items():
        is_inside = entry < older_entry_count or (pair[0] == HOLE and entry < hole_entry_count)
        if is_inside and entry not in older:
            moved[entry] = pair
        else:
            freed.append(pair[0])
    return HandDown(moved, freed)


def entry_count(size: int, block_size: int, first_block: int, limit: int) -> int:
    """How many of ``limit`` consecutive blocks from ``first_block`` on lie, if only in part, inside ``size`` bytes."""
    return max(0, min(limit, -(-size // block_size) - first_block))
