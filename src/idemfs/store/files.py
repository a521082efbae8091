"""Stores on the local file system: what ``init`` makes, and how it is opened.

::

    STORE/superblock     written last by ``init``: a directory without it is no store
    STORE/meta/          the metadata engine
    STORE/blocks/        the block store
    STORE/log/           the log of synced writes; made by whoever first opens the store for writing
    STORE/lock           who owns the store
"""

from __future__ import annotations

import os
from contextlib import suppress

from idemfs.clock import Clock, System
from idemfs.engines.blocks.api import Blocks
from idemfs.engines.blocks.local import LocalBlocks
from idemfs.engines.kv.api import KV, Table
from idemfs.engines.kv.lmdb_engine import LmdbKV
from idemfs.engines.lock import StoreLock, owner
from idemfs.errors import StoreExists, StoreInUse
from idemfs.format import keys, role, superblock, tables
from idemfs.format.role import RoleRecord
from idemfs.format.superblock import COMPRESSION_NONE, COMPRESSION_ZSTD, Superblock
from idemfs.ids import ROOT_FILESET, Guid
from idemfs.limits import BLOCK_SIZE_DEFAULT, BLOCK_SIZE_MAX, BLOCK_SIZE_MIN, INDIRECT_ENTRY_COUNT, INLINE_SIZE_MAX
from idemfs.store.peek import lent, read_superblock, refuse_inside
from idemfs.store.store import Store
from idemfs.store.upgrade import upgrade

_PARTS = frozenset(("blocks", "lock", "log", "meta", "superblock.new"))
"""What a killed ``init`` may have left."""


def new_superblock(clock: Clock, block_size: int, compression: str) -> Superblock:
    """Raises ``ValueError`` for a block size or compression that no store can have."""
    if not BLOCK_SIZE_MIN <= block_size <= BLOCK_SIZE_MAX or block_size & (block_size - 1):
        raise ValueError(f"block size {block_size} is not a power of two from 4 KiB to 4 MiB")
    known = {"none": COMPRESSION_NONE, "zstd": COMPRESSION_ZSTD}
    if compression not in known:
        raise ValueError(f"compression {compression!r} is none of: none, zstd")
    return Superblock(
        Guid(clock.random_bytes(16)),
        block_size,
        INLINE_SIZE_MAX,
        INDIRECT_ENTRY_COUNT,
        known[compression],
        clock.now_ns(),
    )


def first_records(kv: KV, fileset_guid: Guid, of: RoleRecord | None = None) -> None:
    """What a store holds before anything is in it: its counters, and the root fileset without a root directory.

    ``of``: its role, if that is another one than that of a first primary.
    """
    root = tables.Fileset(ROOT_FILESET, fileset_guid, "root")
    records = {
        keys.STORE_STATE: tables.StoreState().pack(),
        keys.fileset(ROOT_FILESET): root.pack(),
        keys.usage(ROOT_FILESET): root.pack_usage(),
    }
    if of is not None:
        records[role.KEY] = role.pack(of)
    kv.commit({Table.SMALL: records})


def create_files(
    path: str,
    *,
    block_size: int = BLOCK_SIZE_DEFAULT,
    compression: str = "none",
    fileset_guid: Guid | None = None,
    first_role: RoleRecord | None = None,
    clock: Clock | None = None,
) -> None:
    """Make the files of a new store at ``path``, which does not exist, or is empty but for what a killed ``init`` left.

    ``fileset_guid``, ``first_role``: for a standby, that of its primary, and what it is: somebody may wait for a store
    to appear at this path, and must not take it for a primary. Raises ``StoreExists``, ``InsideStore``, ``ValueError``,
    ``OSError``; then nothing is left that was not there before.
    """
    clock = clock or System()
    block = new_superblock(clock, block_size, compression)
    if os.path.exists(os.path.join(path, "superblock")):
        raise StoreExists(f"{path}: is a store already")
    refuse_inside(path)
    is_new = not os.path.isdir(path)
    try:
        os.makedirs(path, exist_ok=True)
    except FileExistsError:
        raise StoreExists(f"{path}: is a file; name a directory that does not exist yet") from None
    if not _PARTS.issuperset(os.listdir(path)):
        raise StoreExists(f"{path}: is not empty; name a directory that does not exist yet")
    lock = StoreLock(path)
    if os.path.exists(os.path.join(path, "superblock")):
        # Another process made it before we had the lock.
        lock.close()
        raise StoreExists(f"{path}: is a store already")
    try:
        _remove_parts(path)
        os.mkdir(os.path.join(path, "meta"))
        os.mkdir(os.path.join(path, "blocks"))
        kv = LmdbKV(os.path.join(path, "meta"))
        try:
            first_records(kv, fileset_guid or Guid(clock.random_bytes(16)), first_role)
        finally:
            kv.close()
        _write_superblock(path, superblock.pack(block))
    except BaseException:
        _remove_files(path, directory=is_new)
        raise
    finally:
        lock.close()


def discard_files(path: str, *, directory: bool) -> None:
    """Undo ``create_files``, whose caller could not go on; not when somebody else uses the store by now."""
    with suppress(StoreInUse):
        lock = StoreLock(path)
        try:
            _remove_files(path, directory=directory)
        finally:
            lock.close()


def _remove_files(path: str, *, directory: bool) -> None:
    """Whoever calls this has locked the store. What somebody else put there stays."""
    with suppress(OSError):
        # crash: without it there is no store, and the rest is what a killed ``init`` leaves.
        with suppress(FileNotFoundError):
            os.unlink(os.path.join(path, "superblock"))
        _remove_parts(path)
        os.unlink(os.path.join(path, "lock"))
        if directory:
            os.rmdir(path)


def _remove_parts(path: str) -> None:
    """Of a store that did not come to have a superblock. Whoever calls this has locked it."""
    for part in ("meta", "blocks", "log"):
        with suppress(FileNotFoundError):
            with os.scandir(os.path.join(path, part)) as entries:
                for entry in entries:
                    os.unlink(entry.path)
            os.rmdir(os.path.join(path, part))
    with suppress(FileNotFoundError):
        os.unlink(os.path.join(path, "superblock.new"))


def _write_superblock(path: str, value: bytes) -> None:
    target = os.path.join(path, "superblock")
    with open(target + ".new", "wb") as file:
        file.write(value)
        file.flush()
        # crash: the superblock says that the store is complete, so it is whole before it has its name.
        os.fsync(file.fileno())
    os.rename(target + ".new", target)
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # crash: the name itself.
        os.fsync(directory)
    finally:
        os.close(directory)


def refuse_if_in_use(path: str) -> None:
    """Raises ``StoreInUse`` if another process has the store open: for who must know before it begins to read."""
    if os.path.realpath(path) not in lent and (pid := owner(path)) is not None:
        raise StoreInUse(path, pid)


def open_files(path: str, *, readonly: bool = False, background: bool = True, clock: Clock | None = None) -> Store:
    """Open the store at ``path``; the caller closes it.

    ``readonly`` takes no lock, sees the last committed group, and refuses changes. A store that this process lends
    is the owner's own; closing it commits, and no more. Raises ``StoreMissing``, ``StoreInUse``, ``FormatError``,
    ``OSError``.
    """
    if lent and (own := lent.get(os.path.realpath(path))) is not None:
        return own
    block = read_superblock(path)
    lock = None if readonly else StoreLock(path)
    try:
        kv = LmdbKV(os.path.join(path, "meta"), readonly=readonly, must_exist=True)
        try:
            if not readonly:
                upgrade(kv)
            blocks = LocalBlocks(os.path.join(path, "blocks"), readonly=readonly)
            store = Store(
                block,
                kv,
                blocks,
                clock or System(),
                log=_open_log(os.path.join(path, "log"), readonly),
                background=background and not readonly,
                readonly=readonly,
                on_close=lock.close if lock else None,
            )
            store.path = os.path.abspath(path)
            return store
        except BaseException:
            kv.close()
            raise
    except BaseException:
        if lock:
            lock.close()
        raise


def _open_log(path: str, readonly: bool) -> Blocks | None:
    """None where the host has no room for one, or nobody made one yet: then every sync commits."""
    if readonly and not os.path.isdir(path):
        return None
    try:
        return LocalBlocks(path, readonly=readonly)
    except OSError:
        return None
