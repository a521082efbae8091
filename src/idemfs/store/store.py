"""A store that is open: its tables, space, data and catalog, and the transaction groups that make changes durable.

Changes go to the open group in memory. A group is *sealed* (everything cached is
written into its records) and then *committed*: blocks are synced, then one atomic
metadata batch is written; meanwhile the next group takes changes. One group at a
time is being committed. Whatever happens, the store on disk is its last committed group.

Threads: ``lock`` guards everything; callers hold it for one operation. With
``background`` a thread commits, else the caller does, which makes a run repeatable.
A commit that fails closes the store for changes: memory and disk may differ, so
only opening it again tells what is there.
"""

from __future__ import annotations

import threading
from _thread import RLock as _RLock
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from idemfs.clock import Clock
from idemfs.engines.blocks.api import Blocks
from idemfs.engines.kv.api import KV, Precondition, Table
from idemfs.engines.kv.batch import measure
from idemfs.errors import CommitFailed, NoSpace
from idemfs.format import role
from idemfs.format.address import HOLE
from idemfs.format.superblock import COMPRESSION_ZSTD, Superblock
from idemfs.ids import Address
from idemfs.limits import (
    FREEING_BYTES,
    FREEING_RECORD_COUNT,
    GROUP_DATA_BYTES_MAX,
    GROUP_RECORD_BYTES_MAX,
    GROUP_RECORD_COUNT_MAX,
    GROUP_SECONDS,
    SECTOR_SIZE,
)
from idemfs.store import turns
from idemfs.store.active_records import ActiveRecords
from idemfs.store.catalog import Catalog
from idemfs.store.claim import Claim
from idemfs.store.data import Data
from idemfs.store.intents import Intents
from idemfs.store.records import Records
from idemfs.store.space import Space

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

_ASK = -1
"""No operation is admitted without being looked at."""
_RESERVE_RECORD_STEP = FREEING_RECORD_COUNT + 1024
_RESERVE_BYTES_STEP = FREEING_BYTES + (1 << 20)
"""The engine is asked for more than one operation needs, so that it is asked seldom; not for much more, since
data cannot have what it claims from the host."""


class _Lock(_RLock):  # type: ignore[misc]  # final in the type stubs alone
    """Tells when a block that it guards is ended by what is no error, as the user's interrupt."""

    on_interrupt: Callable[[BaseException], None]

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if value is not None and not isinstance(value, Exception):
            self.on_interrupt(value)
        self.release()


class Store:
    """One open store. ``open_store`` and ``create_store`` make it."""

    def __init__(
        self,
        superblock: Superblock,
        kv: KV,
        blocks: Blocks,
        clock: Clock,
        *,
        log: Blocks | None = None,
        background: bool = False,
        readonly: bool = False,
        on_close: Callable[[], None] | None = None,
    ) -> None:
        self.superblock = superblock
        self.block_size = superblock.block_size
        self.kv = kv
        self.blocks = blocks
        self.clock = clock
        self.readonly = readonly
        self.lock = _Lock()
        self.lock.on_interrupt = self._interrupted
        self.active = ActiveRecords(kv, Table.ACTIVE)
        self.shadow = Records(kv, Table.SHADOW)
        self.owned = Records(kv, Table.OWNED)
        self.small = Records(kv, Table.SMALL)
        self.catalog = Catalog(self.small)
        spare_count = self.block_size // SECTOR_SIZE
        self.space = Space(blocks, self.small, self.catalog.state.sector_count, spare_count)
        self.data = Data(blocks, self.space, self.block_size, superblock.compression == COMPRESSION_ZSTD)
        self.intents = Intents(log, self.small, clock)
        self.before_seal: list[Callable[[], None]] = []
        """Called in order, under the lock, to write what is cached into the open group."""
        self.after_commit: list[Callable[[float], None]] = []
        """Called with the seconds that a group took to become durable, without the lock, by whoever committed it."""
        self._owner_record = self.small.get(role.KEY)
        """The role record as committed: every batch states it, so that a node that lost its role commits nothing."""
        self._exclusive: int | None = None
        self.dirty = False
        """Whether anything changed since the last seal."""
        self._on_close = on_close
        self.path = ""
        """Of the directory of its files; empty for one that is in memory."""
        self.lent_by: object | None = None
        """The tree of the process's part that owns the store, while others in this process may use it too."""
        self.claim = Claim()
        self._background = background
        self._done = threading.Condition(self.lock)
        self._committing = False
        self._sealed_sequence = 0
        self._durable_sequence = 0
        self._freed_sequence = 0
        self._failure: BaseException | None = None
        self._thread: threading.Thread | None = None
        self._closing = False
        self._opened_at = clock.monotonic_seconds()
        self._admitted_records = self._admitted_bytes = 0
        self._limit_records = self._limit_bytes = _ASK
        """What the open group may admit in all before it has to be looked at again."""
        self._reserved_records = self._reserved_bytes = 0
        self._batch: dict[Table, dict[bytes, bytes | None]] = {}
        """What is sealed, until all of it can be used."""

    @property
    def failure(self) -> BaseException | None:
        """Why it takes no more changes until it is opened again; None: it takes them."""
        return self._failure

    # -- changes -----------------------------------------------------------------------------------

    def admit(self, records: int, size: int, *, frees: bool = False) -> None:
        """Make room for an operation that changes up to this many records of ``size`` bytes together.

        Called before the operation changes anything. Raises ``NoSpace``, ``CommitFailed``, or, for a
        store opened to read, ``OSError`` (EROFS). May commit the open group, and let others in meanwhile.
        ``frees``: the operation gives up space, so it may use the room that others leave for such.
        """
        all_records, all_bytes = self._admitted_records + records, self._admitted_bytes + size
        if (
            all_records <= self._limit_records
            and all_bytes <= self._limit_bytes
            and self.data.written_bytes <= GROUP_DATA_BYTES_MAX
        ):
            self._admitted_records = all_records
            self._admitted_bytes = all_bytes
            return
        self._may_change()
        while self.dirty and self._is_large():
            self.commit(wait=False)
            self._may_change()
        try:
            self._admit(records, size, frees)
        except NoSpace:
            if not self._admitted_records and not self._committing:
                raise
            # What the groups before have freed can be used when they are durable, and their own needs are over.
            self.commit()
            self._may_change()
            self._admit(records, size, frees)

    def _admit(self, records: int, size: int, frees: bool) -> None:
        records += self._admitted_records
        size += self._admitted_bytes
        kept, kept_bytes = (0, 0) if frees else (FREEING_RECORD_COUNT, FREEING_BYTES)
        if records + kept > self._reserved_records or size + kept_bytes > self._reserved_bytes:
            self._reserve(records, size, frees)
        if not self.dirty:
            self.dirty = True
            self._opened_at = self.clock.monotonic_seconds()
            self._wake()
        self._admitted_records = records
        self._admitted_bytes = size
        if self._exclusive is None:
            self._limit_records = min(self._reserved_records - FREEING_RECORD_COUNT, GROUP_RECORD_COUNT_MAX)
            self._limit_bytes = min(self._reserved_bytes - FREEING_BYTES, GROUP_RECORD_BYTES_MAX)

    def _may_change(self) -> None:
        while self._exclusive is not None and self._exclusive != threading.get_ident():
            self._done.wait()
        if self._failure is not None or self.readonly or self._closing:
            self._refuse()

    def _is_large(self) -> bool:
        return (
            self._admitted_records > GROUP_RECORD_COUNT_MAX
            or self._admitted_bytes > GROUP_RECORD_BYTES_MAX
            or self.data.written_bytes > GROUP_DATA_BYTES_MAX
        )

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """The lock, and nobody else changes anything, also while a step in between waits for a commit."""
        with self.lock:
            while self._exclusive is not None and self._exclusive != threading.get_ident():
                self._done.wait()
            outer, self._exclusive = self._exclusive, threading.get_ident()
            self._limit_records = _ASK
            try:
                yield
            finally:
                self._exclusive = outer
                self._done.notify_all()

    def _reserve(self, records: int, size: int, frees: bool) -> None:
        """Have the engine find room for a group of this size, and much more, a little more, or if it frees no more."""
        # The group being committed still needs what it holds, which is much less than what was admitted to it.
        sealed, sealed_bytes = measure(self._batch)
        extras = [(_RESERVE_RECORD_STEP, _RESERVE_BYTES_STEP), (FREEING_RECORD_COUNT, FREEING_BYTES)]
        if frees:
            extras.append((0, 0))
        for number, (extra, extra_bytes) in enumerate(extras, 1):
            try:
                self.kv.reserve(records + extra + sealed, size + extra_bytes + sealed_bytes)
            except NoSpace:
                if number == len(extras):
                    raise
                continue
            self._reserved_records, self._reserved_bytes = records + extra, size + extra_bytes
            return

    def _refuse(self) -> None:
        if self._failure is not None:
            raise CommitFailed(
                "the store stopped taking changes after a failure "
                f"({str(self._failure) or type(self._failure).__name__}); open it again"
            ) from self._failure
        if self.readonly:
            import errno

            raise OSError(errno.EROFS, "the store is open for reading only")
        raise CommitFailed("the store is closed")

    def free(self, address: Address) -> None:
        """One record gives up the extent at ``address``."""
        if address != HOLE:
            self.data.forget(address)
            self.space.free(address)

    # -- groups ------------------------------------------------------------------------------------

    def commit(self, wait: bool = True, last: Callable[[], None] | None = None, *, until_freed: bool = True) -> None:
        """Seal the open group and make it durable; with ``wait`` return when it is. Raises ``CommitFailed``.

        ``last`` is called when all that is cached stands in the group's records: what it adds to the
        catalog belongs to exactly this state. ``until_freed``: also wait until what the group gave up can be used
        again, and the host has it back.
        """
        with self.lock:
            if self._failure is not None or (self._closing and self.dirty):
                self._refuse()
            sequence = self._seal(last)
            if not self._background:
                if self._committing and self._freed_sequence < sequence:
                    self._run_commit()
                return
            self._wake()
            while wait and (self._freed_sequence if until_freed else self._durable_sequence) < sequence:
                if self._failure is not None:
                    self._refuse()
                self._done.wait()

    def wait_while(self, is_undurable: Callable[[], bool]) -> None:
        """Let others in until the group being committed is durable, which ends this. Raises ``CommitFailed``.

        Also when there is nothing to wait for, if the store has stopped.
        """
        while True:
            if self._failure is not None:
                self._refuse()
            if not is_undurable():
                return
            self._done.wait()

    def wait_durable(self) -> None:
        """Return when all that is sealed by now is durable. Raises ``CommitFailed``."""
        with self.lock:
            sequence = self._sealed_sequence
            self.wait_while(lambda: self._durable_sequence < sequence)

    def _seal(self, last: Callable[[], None] | None = None) -> int:
        """Close the open group if it holds anything; the sequence number of the last sealed group."""
        if not self.dirty:
            return self._sealed_sequence
        while self._committing:
            if self._failure is not None:
                self._refuse()
            self._done.wait()
        try:
            self._batch = self._write_out(last)
        except BaseException as failure:
            # Half of what was cached stands in the records: this group can be neither committed nor sealed again.
            self._fail(failure)
        self._precondition = Precondition(role.KEY, self._owner_record)
        self._owner_record = self._batch[Table.SMALL].get(role.KEY, self._owner_record)
        self._sync_blocks, self.data.written_bytes = self.data.written_bytes > 0, 0
        self.dirty = False
        self._admitted_records = self._admitted_bytes = 0
        self._limit_records = _ASK
        self._reserved_records = self._reserved_bytes = 0
        self._committing = True
        self._sealed_sequence += 1
        return self._sealed_sequence

    def _write_out(self, last: Callable[[], None] | None) -> dict[Table, dict[bytes, bytes | None]]:
        """Everything that is cached goes into the records; the changes of the group."""
        for hook in self.before_seal:
            hook()
        if last is not None:
            last()
        self.space.seal()
        self.intents.seal()
        self.catalog.state.sector_count = self.space.sector_count
        self.catalog.seal()
        return {
            Table.ACTIVE: self.active.seal(),
            Table.SHADOW: self.shadow.seal(),
            Table.OWNED: self.owned.seal(),
            Table.SMALL: self.small.seal(),
        }

    def stop(self, failure: BaseException) -> None:
        """No more changes: ``failure`` ended a commit, or an operation halfway. The next opening sets it right."""
        with self.lock:
            if self._failure is None:
                self._failure = failure
            self._limit_records = _ASK
            self._done.notify_all()

    def _interrupted(self, interrupt: BaseException) -> None:
        """Somebody holds the lock who will not finish: the open group may have half of an operation."""
        if self.dirty:
            self.stop(interrupt)

    def _fail(self, failure: BaseException) -> None:
        """As ``stop``. Raises ``CommitFailed``; what is no error but the end of the process goes on as it is."""
        self.stop(failure)
        if not isinstance(failure, Exception):
            raise failure
        self._refuse()

    def _run_commit(self) -> None:
        """Make the sealed group durable. Without the lock in the background, with it otherwise."""
        begun = self.clock.monotonic_seconds()
        try:
            if self._sync_blocks:
                # crash: the batch names these blocks, so they are on disk before it is.
                self.blocks.sync()
            # crash: the commit is the moment at which the group exists.
            with self._held_until() as release:
                self.kv.commit(self._batch, self._precondition, release)
            with self.lock:
                self._durable_sequence = self._sealed_sequence
                self._done.notify_all()
            for told in self.after_commit:
                told(self.clock.monotonic_seconds() - begun)
            with suppress(OSError):
                # What the host does not take back is free all the same.
                self.space.discard()
        except BaseException as failure:
            self._fail(failure)
        with self.lock:
            self._batch = {}
            for records in (self.active, self.shadow, self.owned, self.small):
                records.drop_sealed()
            self.space.release()
            self.intents.release()
            self._committing = False
            self._freed_sequence = self._sealed_sequence
            self._done.notify_all()

    @contextmanager
    def _held_until(self) -> Iterator[Callable[[], None]]:
        """The lock, held until what is yielded is called, or this is left.

        LMDB gives the interpreter lock up at every record that it writes. Another thread that computes
        meanwhile makes both slower than one after the other; so those who use the store wait.
        """
        held = self.lock.acquire()

        def release() -> None:
            nonlocal held
            if held:
                held = False
                self.lock.release()

        try:
            with turns.short():
                yield release
        finally:
            release()

    def _wake(self) -> None:
        if not self._background:
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._commit_loop, name="idemfs-commit", daemon=True)
            self._thread.start()
        self._done.notify_all()

    def _commit_loop(self) -> None:
        # A failure ends the loop; whoever waits, or comes later, is told of it.
        with suppress(CommitFailed):
            while True:
                with self.lock:
                    while not self._committing and not self._is_due():
                        if self._closing:
                            return
                        self._done.wait(GROUP_SECONDS / 2 if self.dirty else None)
                    if self._failure is not None:
                        return
                    if not self._committing:
                        self._seal()
                self._run_commit()

    def _is_due(self) -> bool:
        return self.dirty and self.clock.monotonic_seconds() - self._opened_at >= GROUP_SECONDS

    def close(self) -> None:
        """Commit what is open, then release the store. The store is released even when the commit fails.

        One that is lent stays open for its owner.
        """
        if self.lent_by is not None:
            if not self.readonly:
                self.commit()
            return
        try:
            if not self._closing and not self.readonly and self._failure is None:
                self.commit()
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Release the store without committing: what was not committed is gone, as after a crash."""
        if self.lent_by is not None:
            return
        with self.lock:
            if self._closing:
                return
            self._closing = True
            self._limit_records = _ASK
            self._done.notify_all()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        with suppress(OSError):
            self.blocks.close()
        with suppress(OSError):
            self.intents.close()
        self.kv.close()
        if self._on_close is not None:
            self._on_close()
