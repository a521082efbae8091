"""The log: what was written to files and synced is durable there until the group that holds it is.

Only plain writes of content are logged; of other changes, which are in ``otherwise``, a sync commits the group.
The log has two halves, for even and odd *generations*: a generation is a group that used the log, and while it is
being committed the next one logs. A group's batch names its generation in a record, the *mark*, so that being committed
and making its log records obsolete are one step. Records of the two generations behind the mark are what a crash left.

Invariants: a record is written only when all else that was changed of its inode before is durable or logged. Each
record names the one before it by its checksum; a half is written anew only when its last generation is durable.
After a failure the log is used no more until the store is opened again, and every sync commits.

Threads: under the store's lock, but ``sync``, for which one of those who wait syncs for all; ``_synced`` guards that,
and is taken last.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

from idemfs.clock import Clock
from idemfs.engines.blocks.api import Blocks
from idemfs.errors import Damaged
from idemfs.format import intent, keys
from idemfs.format.intent import Intent, Mark, Piece, Place
from idemfs.ids import Ino
from idemfs.limits import LOG_BYTES_MAX, LOG_FILE_BYTES_MAX, LOG_HALF_SECTOR_COUNT, LOG_HOST_FACTOR, SECTOR_SIZE
from idemfs.store.records import Records

_ZEROS_SECTOR_COUNT = 256


class _Written:
    """What a group wrote to one file: what is not logged yet, and the ticket of what was logged last."""

    __slots__ = ("pieces", "size", "ticket")

    def __init__(self) -> None:
        self.pieces: list[Piece] = []
        self.size = 0
        self.ticket = 0


class Intents:
    """The log of one store; without an engine for it, every sync is told to commit."""

    def __init__(self, log: Blocks | None, small: Records, clock: Clock) -> None:
        self._log = log
        self._small = small
        self._clock = clock
        self.otherwise: set[Ino] = set()
        """Inodes that the open group changes by more than what ``remember`` was told."""
        self._written: dict[Ino, _Written] = {}
        self._bytes = 0
        self._sealed_undurable: set[Ino] = set()
        self._sealed_written: dict[Ino, _Written] = {}
        self._last: Mark | None = None
        """The generation and the checksum of the newest record; None until the log is used in this opening."""
        self._is_used = False
        """Whether that is the generation of the open group."""
        self._opening = 0
        self._count = self._sector_count = 0
        self._is_usable = log is not None
        self._synced = threading.Condition()
        self._is_syncing = False
        self._appended_ticket = self._synced_ticket = 0

    # -- the open group ----------------------------------------------------------------------------

    def remember(self, ino: Ino, offset: int, data: bytes | bytearray | memoryview) -> None:
        """This was written, and the times of the file set, and nothing else changed."""
        if ino in self.otherwise:
            return
        size = intent.PIECE_SIZE + len(data)
        written = self._written.get(ino)
        before = 0 if written is None else written.size
        if not self._is_usable or before + size > LOG_FILE_BYTES_MAX or self._bytes + size > LOG_BYTES_MAX:
            self.otherwise.add(ino)
            self._written.pop(ino, None)
            self._bytes -= before
            return
        if written is None:
            written = self._written[ino] = _Written()
        written.pieces.append((offset, bytes(data)))
        written.size += size
        self._bytes += size

    def is_sealed(self, ino: Ino) -> bool:
        """Whether changes of the inode that are not logged wait for the commit of the sealed group."""
        return ino in self._sealed_undurable

    def append(self, ino: Ino, mtime: int, ctime: int) -> int | None:
        """Log what was written to the file and is not durable; a ticket for ``sync``. None: a commit is needed.

        Nothing of the inode waits for the commit of a sealed group.
        """
        assert ino not in self._sealed_undurable
        if ino in self.otherwise:
            return None
        written = self._written.get(ino)
        if written is None or not written.pieces:
            latest = written or self._sealed_written.get(ino)
            return 0 if latest is None else latest.ticket
        if not self._is_usable or not self._is_prepared() or not self._write(ino, mtime, ctime, written):
            return None
        self._bytes -= written.size
        written.pieces = []
        written.size = 0
        self._appended_ticket += 1
        written.ticket = self._appended_ticket
        return written.ticket

    def _write(self, ino: Ino, mtime: int, ctime: int, written: _Written) -> bool:
        assert self._log is not None and self._last is not None
        generation, previous = self._last
        position, start = (self._count, self._sector_count) if self._is_used else (0, 0)
        generation += not self._is_used
        place = Place(previous, self._opening, generation, position)
        record, checksum = intent.pack(place, ino, mtime, ctime, written.pieces)
        end = start - (-len(record) // SECTOR_SIZE)
        if end > LOG_HALF_SECTOR_COUNT:
            return False
        # Before it is written: should that fail, the record may be there all the same, and has to become obsolete.
        self._last, self._is_used = Mark(generation, previous), True
        try:
            self._log.write(_first_sector(generation) + start, record)
        except OSError:
            self._is_usable = False
            return False
        self._last = Mark(generation, checksum)
        self._count, self._sector_count = position + 1, end
        return True

    def _is_prepared(self) -> bool:
        """At the first record of this opening: the log is there, and overwriting it changes nothing else there."""
        if self._last is not None:
            return True
        assert self._log is not None
        count = 2 * LOG_HALF_SECTOR_COUNT
        try:
            if self._log.used_bytes() < count * SECTOR_SIZE:
                if self._log.free_bytes() < LOG_HOST_FACTOR * count * SECTOR_SIZE:
                    self._is_usable = False
                    return False
                zeros = bytes(_ZEROS_SECTOR_COUNT * SECTOR_SIZE)
                for start in range(0, count, _ZEROS_SECTOR_COUNT):
                    size = min(_ZEROS_SECTOR_COUNT, count - start) * SECTOR_SIZE
                    self._log.write(1 + start, zeros[:size])
                # crash: nothing relies on the zeros; once they are there, syncing what overwrites them is cheap.
                self._log.sync()
        except OSError:
            self._is_usable = False
            return False
        self._opening = int.from_bytes(self._clock.random_bytes(8), "little")
        self._last = self._mark()
        return True

    # -- syncing -------------------------------------------------------------------------------------

    def sync(self, ticket: int) -> bool:
        """Whether the record of this ticket is durable now; if not, a commit is needed. Called without the lock."""
        while True:
            with self._synced:
                while self._is_syncing and self._synced_ticket < ticket:
                    self._synced.wait()
                if self._synced_ticket >= ticket or not self._is_usable:
                    return self._synced_ticket >= ticket
                self._is_syncing = True
                # All these were written before the sync begins.
                reached = self._appended_ticket
            self._sync_for_all(reached)

    def _sync_for_all(self, reached: int) -> None:
        assert self._log is not None
        is_done = False
        try:
            # crash: whoever waits is told that it is durable.
            self._log.sync()
            is_done = True
        except OSError:
            # Nothing that was not synced before can be relied on; those who wait commit.
            is_done = False
        finally:
            with self._synced:
                self._is_syncing = False
                if is_done:
                    self._synced_ticket = max(self._synced_ticket, reached)
                else:
                    self._is_usable = False
                self._synced.notify_all()

    # -- groups --------------------------------------------------------------------------------------

    def seal(self) -> None:
        """The open group is being sealed: its batch makes its generation obsolete."""
        if self._is_used:
            assert self._last is not None
            self._small.put(keys.LOG_MARK, intent.pack_mark(self._last))
            self._is_used = False
        self._sealed_undurable, self.otherwise = self.otherwise, set()
        self._sealed_undurable.update(ino for ino, written in self._written.items() if written.pieces)
        self._sealed_written = self._written
        self._written = {}
        self._bytes = 0

    def release(self) -> None:
        """The sealed group is durable."""
        self._sealed_undurable = set()
        self._sealed_written = {}

    def close(self) -> None:
        if self._log is not None:
            self._log.close()

    # -- recovery ------------------------------------------------------------------------------------

    def pending(self) -> list[Intent]:
        """What was synced and is in no durable group, in order: what an opening before this one left."""
        return [] if self._log is None or self._last is not None else list(self._pending())

    def _pending(self) -> Iterator[Intent]:
        durable, checksum = self._mark()
        for generation in (durable + 1, durable + 2):
            count = at = 0
            while found := self._read(generation, at):
                record, size = found
                place = record.place
                if (place.previous, place.generation, place.position) != (checksum, generation, count):
                    break
                yield record
                checksum = record.checksum
                count, at = count + 1, at + size
            if not count:
                return

    def replayed(self, record: Intent) -> None:
        """All up to this one stands in the open group. Whoever calls this has admitted a record."""
        self._small.put(keys.LOG_MARK, intent.pack_mark(Mark(record.place.generation, record.checksum)))

    def _mark(self) -> Mark:
        return intent.unpack_mark(self._small.get(keys.LOG_MARK))

    def _read(self, generation: int, at: int) -> tuple[Intent, int] | None:
        """The record at sector ``at`` of a half, and how many sectors it takes."""
        assert self._log is not None
        room = LOG_HALF_SECTOR_COUNT - at
        if room <= 0:
            return None
        sector = _first_sector(generation) + at
        value = self._log.read(sector, SECTOR_SIZE)
        size = intent.size_of(value)
        if not size or size > room * SECTOR_SIZE:
            return None
        if size > SECTOR_SIZE:
            value = self._log.read(sector, size)
        try:
            return intent.unpack(value[:size]), -(-size // SECTOR_SIZE)
        except Damaged:
            return None


def _first_sector(generation: int) -> int:
    """Of the half of a generation; no engine has a sector 0."""
    return 1 + generation % 2 * LOG_HALF_SECTOR_COUNT
