"""Which sectors are free, and who gets them.

Invariants: a sector that a committed state names is never handed out; what a
group frees can be handed out when that group is durable, not before. The free
table that a group commits is exactly what its state does not name.
Sectors are claimed from the host when they are handed out, so that a full host
is noticed by the operation that asks, not by a commit.

Allocation is next-fit from a window of claimed sectors; the store grows before it
hunts through small runs, and hunts before it gives up.

Threads: under the store's lock, but ``discard``, which the committing thread calls.
"""

from __future__ import annotations

from itertools import chain, islice

from idemfs.engines.blocks.api import Blocks
from idemfs.errors import Damaged, NoSpace
from idemfs.format import address as addresses
from idemfs.format import keys
from idemfs.ids import Address
from idemfs.limits import RESERVE_SECTOR_COUNT, SCAN_COUNT, SECTOR_COUNT_MAX
from idemfs.store.records import Records

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sortedcontainers import SortedDict

_PROBE_COUNT = 32
_DISCARD_SECTOR_COUNT_MIN = 16

Run = tuple[int, int]
"""First sector and count."""


class Space:
    """The allocator of one store."""

    def __init__(self, blocks: Blocks, small: Records, sector_count: int, spare_count: int = 0) -> None:
        """``spare_count``: sectors in a row that are left for operations which free more than they take."""
        self._blocks = blocks
        self._spare_count = spare_count
        self._spare: Run | None = None
        self._small = small
        self.sector_count = sector_count
        self._free: SortedDict[int, int] | None = None
        self._changed: set[int] = set()
        self._window_start = 0
        self._window_count = 0
        self._cursor = 0
        self._fresh: dict[int, int] = {}
        self._freed: list[Run] = []
        self._releasing: list[Run] = []
        self.free_count = 0
        self._has_shared: bool | None = None
        self._refusal = "the store has as much data as one can have; delete snapshots"
        """Why there is no room; the host's last words, once it has refused any."""

    def _runs(self) -> SortedDict[int, int]:
        if self._free is None:
            # Late, since listing snapshots never comes here and this is slow to import.
            from sortedcontainers import SortedDict

            runs: SortedDict[int, int] = SortedDict()
            start, end = keys.prefix_range(b"R")
            while pairs := self._small.scan(start, end, SCAN_COUNT):
                for key, value in pairs:
                    runs[int.from_bytes(key[1:], "big")] = int.from_bytes(value, "little")
                start = pairs[-1][0] + b"\0"
            self._free = runs
            self.free_count = sum(runs.values())
        return self._free

    def free_sectors(self) -> int:
        """Sectors inside the present size of the store that could be handed out now."""
        self._runs()
        return self.free_count + self._window_count + (self._spare[1] if self._spare else 0)

    @property
    def is_freeing(self) -> bool:
        """Whether there is space that can be handed out only when the group that freed it is durable."""
        return bool(self._freed or self._releasing)

    def allocate(self, count: int, *, frees: bool = False) -> int:
        """The first of ``count`` sectors in a row, claimed from the host. Raises ``NoSpace``; then nothing changed.

        ``frees``: for an operation that gives up at least as much, and so may use the spare sectors.
        """
        if self._window_count < count:
            if not frees:
                self._hold_spare()
            self._open_window(count, frees)
        sector = self._window_start
        self._window_start += count
        self._window_count -= count
        self._fresh[sector] = count
        return sector

    def give_back(self, sector: int, count: int, used: int) -> None:
        """Of an extent handed out in this group keep the first ``used`` sectors only."""
        assert self._fresh[sector] == count and used <= count
        if used == count:
            return
        if used:
            self._fresh[sector] = used
        else:
            del self._fresh[sector]
        if sector + count == self._window_start:
            self._window_start -= count - used
            self._window_count += count - used
        else:
            self._insert(sector + used, count - used)

    def free(self, address: Address) -> None:
        """One reference to the extent at ``address`` ends; ``HOLE`` and ``DITTO`` own nothing."""
        count = addresses.sector_count_of(address)
        if not count:
            return
        sector = addresses.sector_of(address)
        if self._unshare(sector):
            return
        if self._fresh.get(sector) == count:
            # No committed state names it: it can be handed out again at once.
            del self._fresh[sector]
            self._insert(sector, count)
        else:
            self._freed.append((sector, count))

    def share(self, address: Address) -> None:
        """One more reference to the extent at ``address``."""
        if addresses.is_real(address):
            key = keys.shared_extent(addresses.sector_of(address))
            self._small.put(key, (self.reference_count(address) + 1).to_bytes(8, "little"))
            self._has_shared = True

    def reference_count(self, address: Address) -> int:
        """How many records name the extent."""
        value = self._small.get(keys.shared_extent(addresses.sector_of(address)))
        return 1 if value is None else int.from_bytes(value, "little")

    def _unshare(self, sector: int) -> bool:
        if self._has_shared is None:
            self._has_shared = self._small.first(*keys.prefix_range(b"E")) is not None
        if not self._has_shared:
            return False
        key = keys.shared_extent(sector)
        value = self._small.get(key)
        if value is None:
            return False
        count = int.from_bytes(value, "little")
        self._small.put(key, (count - 1).to_bytes(8, "little") if count > 2 else None)
        return True

    def _open_window(self, count: int, frees: bool) -> None:
        self._close_window()
        try:
            found = self._find(count)
            self._remove(*found)
        except NoSpace:
            if not frees or self._spare is None or count > self._spare[1]:
                raise
            found, self._spare = self._spare, None
        self._window_start, self._window_count = found

    def _find(self, count: int) -> Run:
        """A free run of at least ``count`` sectors, claimed. Raises ``NoSpace``."""
        found = self._probe(count) or self._grow(count) or self._hunt(count)
        if found is None:
            # That of the host names the store: in a command that has two, either may be full.
            raise NoSpace(self._refusal)
        return found

    def _hold_spare(self) -> None:
        """Take the spare sectors out of what others are given. Raises ``NoSpace``."""
        if self._spare is None and self._spare_count:
            self._close_window()
            start, _ = self._find(self._spare_count)
            self._spare = start, self._spare_count
            self._remove(*self._spare)

    def _close_window(self) -> None:
        if self._window_count:
            self._insert(self._window_start, self._window_count)
            self._window_count = 0

    def _probe(self, count: int) -> Run | None:
        runs = self._runs()
        at = runs.bisect_left(self._cursor)
        order = chain(range(at, len(runs)), range(at))
        for index in islice(order, _PROBE_COUNT):
            start, length = runs.peekitem(index)
            if length >= count and (claimed := self._claim(start, length, count)):
                self._cursor = start
                return claimed
        return None

    def _hunt(self, count: int) -> Run | None:
        for start, length in self._runs().items():
            if length >= count and (claimed := self._claim(start, length, count)):
                self._cursor = start
                return claimed
        return None

    def _grow(self, count: int) -> Run | None:
        start = self.sector_count
        room = SECTOR_COUNT_MAX - start
        if room < count:
            return None
        claimed = self._claim(start, min(room, max(count, RESERVE_SECTOR_COUNT)), count)
        if claimed:
            self._insert(*claimed)
            self.sector_count = start + claimed[1]
            self._cursor = start
        return claimed

    def _claim(self, start: int, length: int, count: int) -> Run | None:
        for size in sorted({min(length, max(count, RESERVE_SECTOR_COUNT)), count}, reverse=True):
            try:
                self._blocks.reserve(start, size)
            except NoSpace as refusal:
                self._refusal = f"{refusal.strerror}, or delete snapshots"
                continue
            return start, size
        return None

    def _insert(self, start: int, count: int) -> None:
        """Make a run free in memory, joined with its neighbours."""
        runs = self._runs()
        self.free_count += count
        at = runs.bisect_left(start)
        if at < len(runs):
            after, after_count = runs.peekitem(at)
            if start + count > after:
                raise Damaged(f"sectors {start} to {start + count} would be free twice")
            if after == start + count:
                count += after_count
                del runs[after]
                self._changed.add(after)
        if at:
            before, before_count = runs.peekitem(at - 1)
            if before + before_count > start:
                raise Damaged(f"sectors {start} to {start + count} would be free twice")
            if before + before_count == start:
                start, count = before, before_count + count
        runs[start] = count
        self._changed.add(start)

    def _remove(self, start: int, count: int) -> None:
        """Take the first ``count`` sectors out of the free run that begins at ``start``."""
        runs = self._runs()
        at = runs.bisect_right(start) - 1
        run_start, run_count = runs.peekitem(at)
        assert run_start <= start and start + count <= run_start + run_count
        del runs[run_start]
        self._changed.add(run_start)
        if start > run_start:
            runs[run_start] = start - run_start
        if rest := run_start + run_count - start - count:
            runs[start + count] = rest
            self._changed.add(start + count)
        self.free_count -= count

    def seal(self) -> None:
        """Write the group's changes of the free table into the group."""
        self._close_window()
        if self._spare is not None:
            self._insert(*self._spare)
            self._spare = None
        # Loaded before this group's frees are in the table: they are not to be handed out yet.
        runs = self._runs() if self._changed or self._freed else {}
        for start in self._changed:
            count = runs.get(start)
            self._small.put(keys.free_extent(start), None if count is None else count.to_bytes(8, "little"))
        self._changed.clear()
        self._fresh.clear()
        self._releasing = merged_runs(self._freed)
        self._freed = []
        for start, count in self._releasing:
            self._small.put(keys.free_extent(start), count.to_bytes(8, "little"))

    def discard(self) -> None:
        """Give what the sealed group freed back to the host. Called when that group is durable, before ``release``."""
        runs = [run for run in self._releasing if run[1] >= _DISCARD_SECTOR_COUNT_MIN]
        if runs:
            self._blocks.discard(runs)

    def release(self) -> None:
        """The sealed group is durable: what it freed can be handed out."""
        released, self._releasing = self._releasing, []
        for start, count in released:
            # It has a record of its own, which the next group removes when the run joins the one before it.
            self._changed.add(start)
            self._insert(start, count)


def merged_runs(runs: list[Run]) -> list[Run]:
    """Sorted, with neighbours joined. Raises ``Damaged`` when two overlap."""
    merged: list[Run] = []
    for start, count in sorted(runs):
        if merged and merged[-1][0] + merged[-1][1] >= start:
            if merged[-1][0] + merged[-1][1] > start:
                raise Damaged(f"sector {start} was freed twice")
            merged[-1] = (merged[-1][0], merged[-1][1] + count)
        else:
            merged.append((start, count))
    return merged
