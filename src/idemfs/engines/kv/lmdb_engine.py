"""The embedded metadata engine: one LMDB file, one named database per table.

Invariants: a batch is one LMDB transaction, durable (data, then the page that points to it)
when ``commit`` returns. A read opens its own transaction and ends it at once, so that it sees
the newest commit and keeps no old page from being used again. After a commit failed for
another reason than space, no more are taken: what the disk holds is known only at the next opening.

``writemap`` stays off: LMDB would then extend the file with holes and write through the map,
where a full host is a SIGBUS and a stray pointer is damage.

Threads: as the interface says. ``_commit_lock`` is held by a commit, and by whatever changes the
map's size, during which LMDB fails reads; those wait for the lock and are done again. The engine
must not be used by a child of ``fork``.
"""

from __future__ import annotations

import errno
import os
import threading
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from operator import itemgetter

import lmdb

from idemfs.engines import host
from idemfs.engines.kv.api import Batch, Precondition, Table
from idemfs.engines.kv.batch import fenced, measure
from idemfs.engines.kv.lmdb_space import Reservation, Shape
from idemfs.errors import Damaged, FormatTooNew, StoreError, StoreMissing
from idemfs.limits import FREEING_BYTES, FREEING_RECORD_COUNT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeVar

    from lmdb import _Database

    _T = TypeVar("_T")

_MAP_BYTES = 64 << 30
"""Address space, not memory or disk. It grows by doubling, so seldom that every read in flight may fail once."""
_READER_COUNT_MAX = 1022
"""Read transactions at one time, of all threads and processes."""
_LOCK_FILE_BYTES_MAX = (_READER_COUNT_MAX + 64) * 64

_Item = tuple[bytes, bytes]
_key_of = itemgetter(0)


class LmdbKV:
    """A metadata engine in the directory ``path``, which is made if it is missing (but not its parent).

    With ``must_exist``, as with ``readonly``, nothing is made: what is missing is an error.
    """

    def __init__(
        self, path: str, readonly: bool = False, *, must_exist: bool = False, map_bytes: int = _MAP_BYTES
    ) -> None:
        must_exist = must_exist or readonly
        self._path = path
        self._commit_lock = threading.Lock()
        self._failure: lmdb.Error | None = None
        data_path = os.path.join(path, "data.mdb")
        if not os.path.exists(data_path):
            if must_exist:
                raise StoreMissing(f"{path}: no metadata here")
            _prepare(path)
        elif must_exist and not os.path.getsize(data_path):
            raise Damaged(f"{path}: the metadata file is empty; restore this store")
        try:
            self._env = lmdb.Environment(
                path,
                map_size=map_bytes,
                readonly=readonly,
                create=False,
                mode=0o600,
                max_readers=_READER_COUNT_MAX,
                max_dbs=len(Table),
                # LMDB keeps one ended read transaction to begin the next one with, which makes beginning cheap.
                max_spare_txns=1,
            )
        except lmdb.Error as error:
            raise _translate(error, path) from error
        self._map_bytes = self._env.info()["map_size"]
        self._databases: dict[Table, _Database] = {}
        self._reservation: Reservation | None = None
        try:
            self._refuse_if_cut(data_path)
            self._open_tables(must_exist)
            if not readonly:
                # Readers that died without a word would keep old pages in use for ever.
                self._env.reader_check()
                # crash: the file's name must be durable before any commit is; the caller sees to the name of ``path``.
                host.sync_directory(path)
                self._reservation = Reservation(data_path, self._shape())
        except BaseException as error:
            self._env.close()
            if isinstance(error, lmdb.Error):
                raise _translate(error, path) from error
            raise

    def get(self, table: Table, key: bytes) -> bytes | None:
        try:
            txn = self._env.begin(self._databases[table])
            value = txn.get(key)
            txn.abort()
            return value
        except lmdb.Error as error:
            return self._again(error, lambda: self._get_many(table, (key,)))[0]

    def get_many(self, table: Table, keys: Sequence[bytes]) -> list[bytes | None]:
        try:
            return self._get_many(table, keys)
        except lmdb.Error as error:
            return self._again(error, lambda: self._get_many(table, keys))

    def scan(self, table: Table, start: bytes, end: bytes, limit: int, reverse: bool = False) -> list[_Item]:
        read = self._descending if reverse else self._ascending
        try:
            return read(table, start, end, limit)
        except lmdb.Error as error:
            return self._again(error, lambda: read(table, start, end, limit))

    def commit(
        self, batch: Batch, precondition: Precondition | None = None, on_written: Callable[[], None] | None = None
    ) -> None:
        record_count, value_bytes = measure(batch)
        with self._commit_lock:
            reservation = self._writable()
            end = reservation.commit_begins(record_count, value_bytes)
            try:
                self._enlarge_map(end)
                self._commit(batch, precondition, on_written)
            except lmdb.Error as error:
                self._commit_failed(error, record_count, value_bytes)
            finally:
                if self._failure is None:
                    reservation.commit_ended(self._shape())

    def reserve(self, record_count: int, value_bytes: int) -> None:
        """As the interface says. During a commit, the next one is the one after it."""
        self._writable().ensure(record_count, value_bytes)

    def used_bytes(self) -> int:
        """Pages in use; those that LMDB keeps free in its file are not counted."""
        try:
            shape = self._shape()
        except lmdb.Error as error:
            shape = self._again(error, self._shape)
        return shape.used_count * shape.page_size

    def close(self) -> None:
        with self._commit_lock:
            if self._reservation is not None:
                if self._failure is None:
                    # The write transaction keeps any other process from writing behind the end meanwhile.
                    with self._env.begin(write=True):
                        self._reservation.release(FREEING_RECORD_COUNT, FREEING_BYTES)
                self._reservation.close()
                self._reservation = None
            self._env.close()

    def _refuse_if_cut(self, data_path: str) -> None:
        """Reading a page that the file does not have would end the process."""
        size = os.stat(data_path).st_size
        expected = (self._env.info()["last_pgno"] + 1) * self._env.stat()["psize"]
        if 0 < size < expected:
            raise Damaged(f"{self._path}: the metadata file lacks {expected - size} bytes; restore this store")

    def _open_tables(self, must_exist: bool) -> None:
        names = [(table, table.value.encode()) for table in Table]
        if must_exist:
            try:
                for table, name in names:
                    self._databases[table] = self._env.open_db(name, create=False)
            except lmdb.NotFoundError as error:
                raise Damaged(f"{self._path}: table {table.value!r} is missing; restore this store") from error
        else:
            with self._env.begin(write=True) as txn:
                for table, name in names:
                    self._databases[table] = self._env.open_db(name, txn=txn)

    # Reads. Each may fail with ``lmdb.Error`` when the map changes its size under it.

    def _again(self, error: lmdb.Error, read: Callable[[], _T]) -> _T:
        """Do a read again that failed, with the map's size held still."""
        with self._commit_lock:
            try:
                if isinstance(error, lmdb.MapResizedError):  # by another process
                    self._env.set_mapsize(0)
                return read()
            except lmdb.Error as again:
                raise _translate(again, self._path) from again

    def _get_many(self, table: Table, keys: Sequence[bytes]) -> list[bytes | None]:
        with self._env.begin(self._databases[table]) as txn:
            get = txn.get
            return [get(key) for key in keys]

    def _ascending(self, table: Table, start: bytes, end: bytes, limit: int) -> list[_Item]:
        with self._env.begin(self._databases[table]) as txn:
            cursor = txn.cursor()
            if not cursor.set_range(start) if start else not cursor.first():
                return []
            if limit == 1:
                # Resolving a shadow is this; it is worth not copying a value that nobody asked for.
                key = cursor.key()
                return [(key, cursor.value())] if key < end else []
            items = []
            for item in islice(cursor.iternext(), limit):
                if item[0] >= end:
                    break
                items.append(item)
            return items

    def _descending(self, table: Table, start: bytes, end: bytes, limit: int) -> list[_Item]:
        with self._env.begin(self._databases[table]) as txn:
            cursor = txn.cursor()
            if not end or not (cursor.prev() if cursor.set_range(end) else cursor.last()):
                return []
            items = []
            for item in islice(cursor.iterprev(), limit):
                if item[0] < start:
                    break
                items.append(item)
            return items

    def _shape(self) -> Shape:
        with self._env.begin() as txn:
            tables = [self._env.stat(), *map(txn.stat, self._databases.values())]
        return Shape(
            page_size=tables[0]["psize"],
            page_count=self._env.info()["last_pgno"] + 1,
            depth=max(table["depth"] for table in tables),
            branch_count=sum(table["branch_pages"] for table in tables),
            leaf_count=sum(table["leaf_pages"] for table in tables),
            overflow_count=sum(table["overflow_pages"] for table in tables),
        )

    # Changes. ``_commit_lock`` is held.

    def _writable(self) -> Reservation:
        if self._failure is not None:
            raise OSError(errno.EIO, f"{self._path}: an earlier commit failed ({self._failure}); open the store again")
        if self._reservation is None:
            raise OSError(errno.EROFS, f"{self._path}: not open for writing")
        return self._reservation

    def _commit(self, batch: Batch, precondition: Precondition | None, on_written: Callable[[], None] | None) -> None:
        txn = self._env.begin(write=True)
        try:
            if precondition is not None:
                value = txn.get(precondition.key, None, self._databases[Table.SMALL])
                if value != precondition.value:
                    # Ends it with no change made. Aborting waits until no thread reads, which may never come.
                    txn.commit()
                    raise fenced(self._path, precondition)
            for table, records in batch.items():
                _change(txn, self._databases[table], records)
            if on_written is not None:
                on_written()
            # crash: this syncs the new pages, and only then writes and syncs the page that points to them, so
            # that a cut leaves the old state or the new one.
            txn.commit()
        finally:
            txn.abort()

    def _enlarge_map(self, end: int) -> None:
        """Have a map that a commit cannot fill, since the only way out of that is to abort."""
        while self._map_bytes < end:
            self._map_bytes *= 2
            self._env.set_mapsize(self._map_bytes)

    def _commit_failed(self, error: lmdb.Error, record_count: int, value_bytes: int) -> None:
        """Raise what a failed commit means."""
        if host.is_full(error.code):
            raise host.no_space(self._path) from error
        if error.code == errno.EIO and self._reservation is not None:
            # LMDB says so too when the host ran full in the middle of a write.
            self._reservation.commit_ended(self._shape())
            self._reservation.ensure(record_count, value_bytes)
        self._failure = error
        raise OSError(errno.EIO, f"{self._path}: commit failed ({error}); open the store again") from error


def _prepare(path: str) -> None:
    """Make the directory, and back LMDB's lock file: to store through its map is a SIGBUS if the host is full."""
    if not os.path.isdir(path):
        os.mkdir(path, 0o700)
    host.overwrite_in_place(path)
    name = os.path.join(path, "lock.mdb")
    try:
        # Only a new one: to close a lock file that this process has open elsewhere would drop its locks.
        fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return
    try:
        host.reserve(fd, name, 0, _LOCK_FILE_BYTES_MAX, keep_size=True)
    except OSError:
        os.unlink(name)
        raise
    finally:
        os.close(fd)


def _change(txn: lmdb.Transaction[bytes], database: _Database, records: Mapping[bytes, bytes | None]) -> None:
    """Put and remove these records. Sorted, since LMDB then finds most pages in its cursor."""
    puts: list[_Item] = []
    for key, value in sorted(records.items(), key=_key_of):
        if value is None:
            txn.delete(key, b"", database)
        else:
            puts.append((key, value))
    cursor = txn.cursor(database)
    # Keys behind the last one are appended: pages are then filled to the end, not split in halves.
    count = bisect_right(puts, cursor.key(), key=_key_of) if cursor.last() else 0
    cursor.putmulti(puts[:count])
    cursor.putmulti(puts[count:], append=True)


def _translate(error: lmdb.Error, path: str) -> Exception:
    """What an LMDB error outside a commit means to the caller."""
    match error:
        case lmdb.VersionMismatchError():
            return FormatTooNew(f"{path}: metadata of an LMDB version that this one does not read; use a newer idemfs")
        case lmdb.InvalidError() | lmdb.CorruptedError() | lmdb.PageNotFoundError():
            return Damaged(f"{path}: the metadata file is damaged ({error}); restore this store")
    if error.code == errno.ENOENT:
        return StoreMissing(f"{path}: no metadata here")
    if error.code > 0:
        return OSError(error.code, os.strerror(error.code), path)
    return StoreError(f"{path}: {error}")
