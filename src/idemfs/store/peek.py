"""What the tables of a store on the local file system say, read without its lock and without the rest of a store.

For commands that only list: most of the time of a short command goes into importing, and a
store that another process uses can be listed all the same. What is read is the last committed group.
"""

from __future__ import annotations

import os

from idemfs.engines.kv.api import Table
from idemfs.engines.kv.lmdb_engine import LmdbKV
from idemfs.errors import FormatError, InsideStore, StoreMissing
from idemfs.format import superblock
from idemfs.format.superblock import Superblock
from idemfs.ids import ROOT_FILESET, SnapshotId
from idemfs.store.catalog import Catalog
from idemfs.store.keeps import Keep, read_keeps
from idemfs.store.records import Records

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from idemfs.format.tables import Fileset, Snapshot
    from idemfs.store.store import Store

lent: dict[str, Store] = {}
"""By real path: open stores that their owner in this process lends to whoever opens them; see ``vfs.lending``."""


def read_superblock(path: str) -> Superblock:
    """Raises ``StoreMissing``, ``FormatTooNew``, ``Damaged``."""
    try:
        with open(os.path.join(path, "superblock"), "rb") as file:
            value = file.read(4096)
    except (FileNotFoundError, NotADirectoryError):
        store, _, snapshot = path.rpartition("@")
        if store and is_store(store):
            raise StoreMissing(
                f"{path}: here the store alone is named, '{store}': nothing changes its snapshot {snapshot!r}"
            ) from None
        if "://" in path:
            raise StoreMissing(f"{path}: an address; give the command on that machine, with the store's path") from None
        raise StoreMissing(f"{path}: no store here; 'idemfs init {path}' makes one") from None
    try:
        return superblock.unpack(value)
    except FormatError as wrong:
        raise type(wrong)(f"{path}: {wrong}") from None


def is_store(path: str) -> bool:
    """Whether this directory is a store: a damaged one is, too."""
    try:
        with open(os.path.join(path, "superblock"), "rb") as file:
            return file.read(len(superblock.MAGIC)) == superblock.MAGIC
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError):
        return False


def refuse_inside(path: str) -> None:
    """Raises ``InsideStore`` for a path, of something that is there or not, that is a store or lies in one."""
    at = os.path.realpath(path)
    while True:
        if is_store(at):
            raise InsideStore(f"{path}: lies in the store {at}; name a place outside of it")
        above = os.path.dirname(at)
        if above == at:
            return
        at = above


def read_snapshots(
    path: str,
    choose: Callable[[Catalog], list[Fileset]] | None = None,
    keeps: dict[SnapshotId, Keep] | None = None,
) -> list[tuple[Fileset, list[Snapshot]]]:
    """Filesets, the root fileset unless others are chosen, with their complete snapshots, oldest first.

    ``keeps`` is given the holds and locks of all snapshots. Raises as ``read_superblock``, ``OSError``, and what
    ``choose`` raises.
    """
    if lent and (own := lent.get(os.path.realpath(path))) is not None:
        with own.lock:
            return _read(own.small, own.catalog, choose, keeps)
    read_superblock(path)
    kv = LmdbKV(os.path.join(path, "meta"), readonly=True)
    try:
        small = Records(kv, Table.SMALL)
        return _read(small, Catalog(small), choose, keeps)
    finally:
        kv.close()


def _read(
    small: Records,
    catalog: Catalog,
    choose: Callable[[Catalog], list[Fileset]] | None,
    keeps: dict[SnapshotId, Keep] | None,
) -> list[tuple[Fileset, list[Snapshot]]]:
    if keeps is not None:
        keeps |= read_keeps(small)
    chosen = [catalog.filesets[ROOT_FILESET]] if choose is None else choose(catalog)
    return [(fileset, catalog.snapshots(fileset.number)) for fileset in chosen]
