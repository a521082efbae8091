"""Every sector has one owner, or is shared exactly as often as counted, or is free.

Addresses are gathered from all records, sorted, and walked once beside the free runs and the
shared counts. They are kept as arrays of 16 bytes each; more than ``RUN_COUNT`` of them go
to temporary files, one sorted run each, and are merged a window at a time.

Threads: under the store's lock.
"""

from __future__ import annotations

import tempfile
from array import array
from collections.abc import Iterator
from typing import TYPE_CHECKING

from idemfs.check.context import Context
from idemfs.check.findings import Finding, Kind
from idemfs.check.owners import Questions
from idemfs.check.scans import pairs
from idemfs.format import address as addresses
from idemfs.format import keys
from idemfs.format.address import HOLE, SECTOR_BITS, SECTOR_MASK
from idemfs.ids import Address
from idemfs.limits import SECTOR_SIZE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Numbers = NDArray[np.uint64]

RUN_COUNT = 1 << 22
FINDING_COUNT_MAX = 1000
"""Of each kind; damage seldom comes in greater numbers that differ."""
_HOW_BITS = 64 - 2 - SECTOR_BITS
"""Stored size and compression: what an address has above its sector."""
_HOW_MASK = (1 << _HOW_BITS) - 1
_SAMPLE_COUNT = 64
_SAMPLED = 1 << 8
"""Fewer addresses than this are counted faster without arrays of numpy."""


def sectors_of(found: array[int]) -> int:
    """Sectors of all extents that are named."""
    if len(found) < _SAMPLED:
        return sum(map(addresses.sector_count_of, found))
    import numpy as np

    sizes = np.frombuffer(found, np.uint64) >> np.uint64(SECTOR_BITS) & np.uint64(addresses.SIZE_MASK)
    return int(((sizes + np.uint64(SECTOR_SIZE - 1)) // np.uint64(SECTOR_SIZE)).sum())


class Extents:
    """Addresses with checksums, from every record that names one."""

    def __init__(self, context: Context, *, run_count: int = RUN_COUNT) -> None:
        self._context = context
        self._run_count = run_count
        self._addresses = array("Q")
        self._checksums = array("Q")
        self._runs: list[tuple[Numbers, Numbers]] = []
        self._questions = Questions(context)

    def add(self, found: array[int], checksums: array[int]) -> None:
        """Addresses of one record; holes among them are left out."""
        self._addresses.extend(found)
        self._checksums.extend(checksums)
        if len(self._addresses) >= self._run_count:
            self._end_run(keep=False)

    def check(self, read_data: bool) -> Iterator[Finding]:
        """Called when every record has been added; ``read_data`` reads every extent, in order of its place."""
        self._end_run(keep=True)
        walk = _Walk(self._context, self._questions)
        yield from walk.begin()
        for order, checks, last in self._windows():
            yield from walk.window(order, checks, last, read_data)
        yield from walk.end()
        yield from self._questions.answers()

    def _end_run(self, keep: bool) -> None:
        import numpy as np

        found = np.array(self._addresses, np.uint64)
        checks = np.array(self._checksums, np.uint64)
        self._addresses, self._checksums = array("Q"), array("Q")
        real = found != HOLE
        found, checks = found[real], checks[real]
        good = self._are_possible(found)
        for address in found[~good].tolist():
            self._questions.ask(Kind.ADDRESS, [address], "lies outside the store, or is no disk address")
        found, checks = found[good], checks[good]
        order = (found & np.uint64(SECTOR_MASK)) << np.uint64(_HOW_BITS) | found >> np.uint64(SECTOR_BITS)
        places = np.argsort(order, kind="stable")
        run = order[places], checks[places]
        self._runs.append(run if keep else (_on_disk(run[0]), _on_disk(run[1])))

    def _are_possible(self, found: Numbers) -> NDArray[np.bool_]:
        import numpy as np

        sectors = found & np.uint64(SECTOR_MASK)
        sizes = found >> np.uint64(SECTOR_BITS) & np.uint64(addresses.SIZE_MASK)
        ends = sectors + (sizes + np.uint64(SECTOR_SIZE - 1)) // np.uint64(SECTOR_SIZE)
        possible: NDArray[np.bool_] = (
            (found >> np.uint64(62) == 0)
            & (sectors > 0)
            & (sizes > 0)
            & (sizes <= self._context.store.block_size)
            & (ends <= self._context.state.sector_count)
        )
        return possible

    def _windows(self) -> Iterator[tuple[Numbers, Numbers, int | None]]:
        """All addresses in order, in parts of about ``run_count``; with each the end of its part, None for the last."""
        import numpy as np

        step = max(1, self._run_count // _SAMPLE_COUNT)
        samples = np.sort(np.concatenate([order[::step] for order, _ in self._runs]))
        ends: list[int | None] = samples[_SAMPLE_COUNT::_SAMPLE_COUNT].tolist()
        starts = [0] * len(self._runs)
        for end in [*ends, None]:
            stops = [
                len(order) if end is None else int(np.searchsorted(order, np.uint64(end))) for order, _ in self._runs
            ]
            parts = list(zip(self._runs, starts, stops, strict=True))
            order = np.concatenate([run[0][start:stop] for run, start, stop in parts])
            checks = np.concatenate([run[1][start:stop] for run, start, stop in parts])
            places = np.argsort(order, kind="stable")
            yield order[places], checks[places], None if end is None else end >> _HOW_BITS
            starts = stops


def _on_disk(numbers: Numbers) -> Numbers:
    import numpy as np

    with tempfile.TemporaryFile() as file:
        numbers.tofile(file)
        file.flush()
        # The map keeps the file, which has no name any more.
        return np.memmap(file, np.uint64, "r", shape=numbers.shape) if len(numbers) else numbers


class _Walk:
    """All sectors from the first to the last: who owns each?"""

    def __init__(self, context: Context, questions: Questions) -> None:
        self._context = context
        self._questions = questions
        self._end = 1
        """All sectors before this one are accounted for."""
        self._end_owner = 0
        """The address of the extent that ends there; 0 for a free run."""

    def begin(self) -> Iterator[Finding]:
        import numpy as np

        sector_count = self._context.state.sector_count
        starts, counts = array("Q"), array("Q")
        for key, value in pairs(self._context.store.small, *keys.prefix_range(b"R")):
            start, count = int.from_bytes(key[1:], "big"), int.from_bytes(value, "little")
            if start and count and start + count <= sector_count:
                starts.append(start)
                counts.append(count)
            else:
                yield Finding(
                    Kind.FREE, _sectors(start, start + count), "are said to be free and lie outside the store"
                )
        self._free_starts = np.array(starts, np.uint64)
        self._free_ends = self._free_starts + np.array(counts, np.uint64)
        self._free_at = 0
        sectors, references = array("Q"), array("Q")
        for key, value in pairs(self._context.store.small, *keys.prefix_range(b"E")):
            sectors.append(int.from_bytes(key[1:], "big"))
            references.append(int.from_bytes(value[:8], "little"))
        self._shared_sectors = np.array(sectors, np.uint64)
        self._shared_counts = np.array(references, np.uint64)
        self._shared_named = np.zeros(len(sectors), np.bool_)

    def window(self, order: Numbers, checks: Numbers, last: int | None, read_data: bool) -> Iterator[Finding]:
        """Go on up to sector ``last`` with these addresses, which are sorted and stand as often as they are named."""
        import numpy as np

        first = np.ones(len(order), np.bool_)
        first[1:] = order[1:] != order[:-1]
        places = np.flatnonzero(first)
        found = (order & np.uint64(_HOW_MASK)) << np.uint64(SECTOR_BITS) | order >> np.uint64(_HOW_BITS)
        differing = np.flatnonzero(~first[1:] & (checks[1:] != checks[:-1])) if len(order) else places
        for at in differing[:FINDING_COUNT_MAX].tolist():
            self._questions.ask(Kind.CHECKSUM, [int(found[at])], "is named with different checksums")
        references = np.diff(np.append(places, len(order)))
        distinct = found[places]
        self._compare_shared(distinct, references.astype(np.uint64))
        yield from self._tile(distinct, last)
        if read_data:
            self._read(distinct, checks[places])

    def _compare_shared(self, distinct: Numbers, references: Numbers) -> None:
        import numpy as np

        sectors = distinct & np.uint64(SECTOR_MASK)
        expected = np.ones(len(distinct), np.uint64)
        if len(self._shared_sectors):
            at = np.minimum(np.searchsorted(self._shared_sectors, sectors), len(self._shared_sectors) - 1)
            shared = self._shared_sectors[at] == sectors
            expected[shared] = self._shared_counts[at[shared]]
            self._shared_named[at[shared]] = True
        for index in np.flatnonzero(expected != references)[:FINDING_COUNT_MAX].tolist():
            what = f"is named by {references[index]} records, and counted as {expected[index]}"
            self._questions.ask(Kind.SHARED, [int(distinct[index])], what)

    def _tile(self, distinct: Numbers, last: int | None) -> Iterator[Finding]:
        import numpy as np

        stop = len(self._free_starts)
        if last is not None:
            stop = int(np.searchsorted(self._free_starts, np.uint64(last)))
        free = slice(self._free_at, stop)
        self._free_at = stop
        sectors = distinct & np.uint64(SECTOR_MASK)
        sizes = distinct >> np.uint64(SECTOR_BITS) & np.uint64(addresses.SIZE_MASK)
        ends = sectors + (sizes + np.uint64(SECTOR_SIZE - 1)) // np.uint64(SECTOR_SIZE)
        # What the walk has come to stands in front, so that every other one has somebody before it.
        starts = np.concatenate(([np.uint64(0)], sectors, self._free_starts[free]))
        ends = np.concatenate(([np.uint64(self._end)], ends, self._free_ends[free]))
        owners = np.zeros(len(starts), np.uint64)
        owners[0] = self._end_owner
        owners[1 : len(distinct) + 1] = distinct
        places = np.argsort(starts, kind="stable")
        starts, ends, owners = starts[places], ends[places], owners[places]
        reached = np.maximum.accumulate(ends)
        reacher = np.maximum.accumulate(np.where(ends == reached, np.arange(len(ends)), 0))
        for at in np.flatnonzero(starts[1:] > reached[:-1])[:FINDING_COUNT_MAX].tolist():
            yield _leak(int(reached[at]), int(starts[at + 1]))
        for at in np.flatnonzero(starts[1:] < reached[:-1])[:FINDING_COUNT_MAX].tolist():
            end = min(int(reached[at]), int(ends[at + 1]))
            yield from self._overlap(int(starts[at + 1]), end, int(owners[reacher[at]]), int(owners[at + 1]))
        self._end, self._end_owner = int(reached[-1]), int(owners[reacher[-1]])

    def _overlap(self, start: int, end: int, one: int, other: int) -> Iterator[Finding]:
        named = [address for address in (one, other) if address]
        if not named:
            yield Finding(Kind.FREE, _sectors(start, end), "are free twice")
        elif len(named) == 1:
            self._questions.ask(Kind.OVERLAP, named, f"{_sectors(start, end)} of it are free as well")
        else:
            self._questions.ask(Kind.OVERLAP, named, f"both have {_sectors(start, end)}")

    def end(self) -> Iterator[Finding]:
        import numpy as np

        if self._end < self._context.state.sector_count:
            yield _leak(self._end, self._context.state.sector_count)
        for at in np.flatnonzero(~self._shared_named)[:FINDING_COUNT_MAX].tolist():
            what = f"is counted as shared by {self._shared_counts[at]} records, and none names it"
            yield Finding(Kind.SHARED, f"sector {self._shared_sectors[at]}", what)

    def _read(self, distinct: Numbers, checks: Numbers) -> None:
        data = self._context.store.data
        for address, checksum in zip(distinct.tolist(), checks.tolist(), strict=True):
            try:
                payload = data.read_uncached(Address(address), checksum)
            except OSError as damaged:
                self._questions.ask(Kind.DATA, [address], str(damaged.strerror))
                continue
            if len(payload) > self._context.store.block_size or payload.endswith(b"\0"):
                self._questions.ask(Kind.DATA, [address], "is not stored as blocks are: without zeros at its end")


def _leak(start: int, end: int) -> Finding:
    return Finding(Kind.LEAK, _sectors(start, end), "belong to nobody and are not free")


def _sectors(start: int, end: int) -> str:
    """Those from ``start`` up to but not ``end``."""
    return f"sectors {start} to {max(end - 1, start)}"
