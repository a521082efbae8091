"""How much space the next commit of an LMDB file can take, and keeping that much of the host for it.

LMDB never overwrites a page that a reader or the last commit may need: a commit copies
every page on the way to a change. It writes no page number at or above ``page_count``
plus the pages that it allocates, so it cannot fail for space once the host has backed
every byte of the file up to there. Pages that LMDB has free inside the file are not
counted on: which of them a commit may use depends on readers and on runs of pages.

On a host that itself never overwrites (ZFS; btrfs where ``host.overwrite_in_place`` failed), backed
bytes can need new space when they are written again; there this is a best effort.

Threads: ``Reservation`` may be used from any thread, also during a commit.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress

from idemfs.engines import host
from idemfs.errors import NoSpace
from idemfs.limits import KEY_SIZE_MAX

_STEP_BYTES = 1 << 20
"""The host is asked in multiples of this, so that it is asked seldom."""
_NODE_BYTES_MAX = KEY_SIZE_MAX + 10
"""A record's key with LMDB's header of 8 bytes and its place of 2 in the page."""


class Shape:
    """The pages of an LMDB file after a commit.

    ``page_count``: up to the end of what was ever used, free ones too. ``depth``: of the deepest table.
    """

    __slots__ = ("branch_count", "depth", "leaf_count", "overflow_count", "page_count", "page_size")

    def __init__(
        self, *, page_size: int, page_count: int, depth: int, branch_count: int, leaf_count: int, overflow_count: int
    ) -> None:
        self.page_size = page_size
        self.page_count = page_count
        self.depth = depth
        self.branch_count = branch_count
        self.leaf_count = leaf_count
        self.overflow_count = overflow_count

    @property
    def used_count(self) -> int:
        return self.branch_count + self.leaf_count + self.overflow_count


def page_count_max(shape: Shape, record_count: int, value_bytes: int) -> int:
    """An upper bound of the pages that LMDB allocates for this many changed records, in one commit or split over two.

    Pages that exist are copied when they change, at most once a commit, which is why the
    bounds that come from their number are doubled.
    """
    page_size = shape.page_size
    # A change copies its leaf. A removal that leaves a page nearly empty takes from the neighbour, and copies that too.
    leaf_copies = min(2 * record_count, 2 * shape.leaf_count)
    # A split leaves two pages that are three quarters full at most, so that the next split
    # of either needs a quarter of a page of new bytes; a page that is there may split at once.
    # A value of 2,000 bytes or more lives outside: its own pages, the last of them partly filled.
    bytes_new = value_bytes + record_count * _NODE_BYTES_MAX
    by_count = record_count + 3 * value_bytes // page_size
    by_bytes = leaf_copies + 4 * bytes_new // page_size + 1
    leaves_new = min(by_count, by_bytes)
    branch_copies = min(2 * record_count * max(shape.depth - 1, 0), 2 * shape.branch_count)
    # A branch page holds 13 entries or more, and splits in halves.
    branches_new = branch_copies + min(record_count, leaves_new) // 5 + 1
    pages = leaf_copies + leaves_new + branch_copies + branches_new
    # LMDB's list of free pages, 8 bytes each: what is free now, what the copies free, and what outside values free.
    free_count = max(shape.page_count - shape.used_count, 0)
    freed_count = leaf_copies + branch_copies + min(shape.overflow_count, 26 * record_count)
    lists = 2 * ((free_count + freed_count + pages) * 8 // page_size) + 32
    return pages + lists


class Reservation:
    """Space of the host behind the end of an LMDB data file.

    Invariants: every byte of the file below ``_end`` is backed by the host. The file is as long as the pages that LMDB
    counts, also where it wrote none: so one that is shorter was cut by somebody else, and reading it would be a SIGBUS.
    """

    def __init__(self, path: str, shape: Shape) -> None:
        self._path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._lock = threading.Lock()
        self._end = 0
        self._shape = shape
        self._in_flight_count = 0

    def ensure(self, record_count: int, value_bytes: int) -> None:
        """Have room for this many records, next to those whose commit has begun. Raises ``NoSpace``."""
        with self._lock:
            now, in_flight = self._shape, self._in_flight_count
            shape = Shape(
                page_size=now.page_size,
                page_count=now.page_count + in_flight,
                depth=now.depth,
                branch_count=now.branch_count + in_flight,
                leaf_count=now.leaf_count + in_flight,
                overflow_count=now.overflow_count,
            )
            needed = page_count_max(shape, record_count, value_bytes)
            end = (shape.page_count + needed) * shape.page_size
            if end > self._end:
                self._extend(end)

    def commit_begins(self, record_count: int, value_bytes: int) -> int:
        """From now on ``ensure`` speaks of the records after these. Returns where the file ends then, at most."""
        with self._lock:
            self._in_flight_count = page_count_max(self._shape, record_count, value_bytes)
            end = (self._shape.page_count + self._in_flight_count) * self._shape.page_size
            # A host that refuses this refuses the commit too, which says so.
            with suppress(OSError):
                if os.fstat(self._fd).st_size < end:
                    # crash: the commit syncs the new length with its pages, before the page that counts them.
                    os.ftruncate(self._fd, end)
            return end

    def commit_ended(self, shape: Shape) -> None:
        """``shape`` is how the commit left the file, whether or not it succeeded."""
        with self._lock:
            self._in_flight_count = 0
            self._shape = shape

    def release(self, record_count: int, value_bytes: int) -> None:
        """Give back what lies behind the last page, but for what a commit of this size needs, if that is there.

        So that whoever opens the store on a host that has become full meanwhile can free something.
        No commit may be under way, of any process.
        """
        with self._lock:
            os.ftruncate(self._fd, self._shape.page_count * self._shape.page_size)
            self._end = 0
            needed = page_count_max(self._shape, record_count, value_bytes)
            with suppress(OSError):
                self._extend((self._shape.page_count + needed) * self._shape.page_size)

    def close(self) -> None:
        os.close(self._fd)

    def _extend(self, end: int) -> None:
        # Asked first: a host that runs out half way keeps for us what it had found until then.
        missing = end - os.fstat(self._fd).st_blocks * 512
        free = os.fstatvfs(self._fd)
        if missing > free.f_bavail * free.f_frsize:
            raise host.no_space(self._path)
        # From the start of the file the first time: LMDB leaves pages unwritten that it allocated and freed
        # in one commit, so that there may be holes.
        rounded = -(-end // _STEP_BYTES) * _STEP_BYTES
        try:
            host.reserve(self._fd, self._path, self._end, rounded - self._end, keep_size=True)
        except NoSpace:
            host.reserve(self._fd, self._path, self._end, end - self._end, keep_size=True)
            rounded = end
        self._end = rounded
