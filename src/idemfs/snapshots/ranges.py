"""Which bytes of one file differ between two states: whole blocks, cut at its end, and the tail that it grew.

Blocks are compared by their checksums; content is read where a file ends inside a block alone. What lies past the
shorter of the two ends is told by the sizes if the file was cut, and is a range of its own if it grew.

Threads: under the store's lock.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from idemfs.format.inode import Inode
from idemfs.ids import Ino
from idemfs.limits import INDIRECT_ENTRY_COUNT
from idemfs.store.store import Store
from idemfs.versions import state
from idemfs.versions.state import Records

RANGE_COUNT_MAX = 65_536
"""Ranges that one file is told in. The last one then goes on to the last byte that differs."""

Range = tuple[int, int]
"""First byte, and the one after the last."""


class End(NamedTuple):
    """One of the two states of a file."""

    view: Records
    node: Inode


def changed_ranges(store: Store, ino: Ino, old: End, new: End, indexes: Iterable[int]) -> tuple[Range, ...]:
    """Ranges of the file as ``new`` has it whose bytes are not those of ``old``, ascending, with gaps between them.

    ``indexes``: of the indirect blocks that may differ, ascending. A file that was only cut has none.
    """
    found = _Found()
    common = min(old.node.size, new.node.size)
    if old.node.is_inline or new.node.is_inline:
        # Less than a block, so nothing but the first one can differ.
        if _start_of(store, ino, old)[:common].rstrip(b"\0") != _start_of(store, ino, new)[:common].rstrip(b"\0"):
            found.add(0, common)
    else:
        for index in indexes:
            _compare_map(store, ino, old, new, index, found)
    if new.node.size > common:
        found.add(common, new.node.size)
    return found.ranges()


def _start_of(store: Store, ino: Ino, end: End) -> bytes:
    if end.node.is_inline:
        return end.node.data
    return state.payload(store, end.node, 0, *end.view.block(ino, 0))


def _compare_map(store: Store, ino: Ino, old: End, new: End, index: int, found: _Found) -> None:
    """The blocks of one indirect block, as far as both states have them."""
    size = store.block_size
    common = min(old.node.size, new.node.size)
    first = index * INDIRECT_ENTRY_COUNT
    before, now = old.view.file_map(ino, old.node, index), new.view.file_map(ino, new.node, index)
    count = min(-(-common // size) - first, max(len(before.addresses), len(now.addresses)), INDIRECT_ENTRY_COUNT)
    if before.addresses[: max(count, 0)] == now.addresses[: max(count, 0)]:
        return
    for entry in range(count):
        one, other = before.get(entry), now.get(entry)
        if one == other or (one[1] == other[1] and common >= (first + entry + 1) * size):
            continue
        start = (first + entry) * size
        end = min(start + size, common)
        if end < start + size:
            # One of the files ends here, so neither checksum says what the bytes before that are.
            contents = [store.data.read(*pair)[: end - start].rstrip(b"\0") for pair in (one, other)]
            if contents[0] == contents[1]:
                continue
        found.add(start, end)


class _Found:
    """Ranges so far; neighbours are joined."""

    __slots__ = ("_ranges",)

    def __init__(self) -> None:
        self._ranges: list[Range] = []

    def add(self, start: int, end: int) -> None:
        if start == end:
            return
        ranges = self._ranges
        if ranges and (ranges[-1][1] == start or len(ranges) == RANGE_COUNT_MAX):
            ranges[-1] = (ranges[-1][0], end)
        else:
            ranges.append((start, end))

    def ranges(self) -> tuple[Range, ...]:
        return tuple(self._ranges)
