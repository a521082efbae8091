"""What users are told of a fileset, and what it takes.

What the active state of a fileset takes is kept with each group. The root fileset of a store that was made before
that was so is counted when somebody asks.

Threads: under the store's lock.
"""

from __future__ import annotations

from idemfs.format import indirect, keys
from idemfs.format import inode as inodes
from idemfs.format.address import is_real, sector_count_of
from idemfs.format.indirect import PartialBlock
from idemfs.format.tables import NO_COMPRESSION, SNAPSHOTS_COUNT, ZSTD_COMPRESSION, Fileset
from idemfs.ids import Address
from idemfs.limits import SCAN_COUNT, SECTOR_SIZE
from idemfs.snapshots import clones
from idemfs.store.store import Store

COMPRESSIONS = {"store": 0, "none": NO_COMPRESSION, "zstd": ZSTD_COMPRESSION}
"""How what is written to a fileset is compressed, by the names that users write."""


class FilesetInfo:
    """One fileset as it was when it was asked for."""

    __slots__ = (
        "active_bytes",
        "compression",
        "guid",
        "inode_count",
        "name",
        "origin",
        "origin_deleted",
        "path",
        "quota_bytes",
        "quota_inodes",
        "shared_bytes",
        "snapshot_bytes",
        "snapshot_count",
        "snapshots_count",
    )

    def __init__(self, store: Store, fileset: Fileset, path: str | None) -> None:
        snapshots = store.catalog.snapshots(fileset.number)
        self.name = fileset.name
        self.path = path
        """Where it appears; None when no directory leads to it."""
        self.guid = fileset.guid.hex()
        self.inode_count = fileset.inode_count
        self.active_bytes = active_bytes(store, fileset)
        """What its active state takes: extents in whole sectors, and records."""
        self.snapshot_count = len(snapshots)
        self.snapshot_bytes = sum(snapshot.owned_bytes for snapshot in store.catalog.all_snapshots(fileset.number))
        """What its snapshots own, those included that are being deleted, or stay for clones without their names."""
        self.shared_bytes: int | None = None
        """How much of both is in extents that other records name, too; None unless it was asked for."""
        origin = clones.origin_of(store, fileset)
        self.origin = None if origin is None else origin[0]
        """The snapshot that it is a clone of; what it has changed itself is all that its bytes count."""
        self.origin_deleted = origin is not None and origin[1]
        """Whether the origin has lost its name, and goes when no clone needs it."""
        self.quota_bytes = fileset.quota_bytes or None
        self.quota_inodes = fileset.quota_inodes or None
        self.snapshots_count = bool(fileset.flags & SNAPSHOTS_COUNT)
        """Whether the quota of bytes counts what snapshots own."""
        self.compression = next(name for name, number in COMPRESSIONS.items() if number == fileset.compression)

    def __repr__(self) -> str:
        return f"<FilesetInfo {self.name!r} path={self.path!r} active_bytes={self.active_bytes}>"


def active_bytes(store: Store, fileset: Fileset) -> int:
    """Of the last sealed group."""
    if fileset.is_counted:
        return fileset.active_bytes
    sectors, record_bytes = counted(store, fileset)
    return sectors * SECTOR_SIZE + record_bytes


def counted(store: Store, fileset: Fileset) -> tuple[int, int]:
    """Sectors and bytes of records of the active state, from the records themselves."""
    sectors = record_bytes = 0
    start, end = keys.fileset_range(fileset.number)
    while pairs := store.active.scan(start, end, SCAN_COUNT):
        for key, value in pairs:
            record_bytes += len(key) + len(value)
            if keys.kind_of(key) == keys.INODE:
                sectors += inodes.unpack(value).sectors
        start = pairs[-1][0] + b"\0"
    return sectors, record_bytes


def shared_bytes(store: Store, fileset: Fileset) -> int:
    """How much of what the active state and the snapshots take is in extents that more than one record names.

    Each record counts, as it does there. Counted from all indirect blocks of the fileset, one page at a time. Settled.
    """
    if store.small.first(*keys.prefix_range(b"E")) is None:
        return 0
    sectors = 0
    for scan in (store.active.scan_own, store.shadow.scan):
        start, end = keys.fileset_range(fileset.number)
        while pairs := scan(start, end, SCAN_COUNT):
            for key, value in pairs:
                if keys.kind_of(key) == keys.BLOCK:
                    named = _active_addresses(value) if scan == store.active.scan_own else _kept_addresses(value)
                    sectors += sum(sector_count_of(each) for each in named if store.space.reference_count(each) > 1)
            start = pairs[-1][0] + b"\0"
    return sectors * SECTOR_SIZE


def _active_addresses(value: bytes) -> list[Address]:
    block = indirect.unpack_own(value)
    if isinstance(block, PartialBlock):
        return [address for address, _ in block.entries.values() if is_real(address)]
    return [address for _, address, _ in block.real_entries()]


def _kept_addresses(value: bytes) -> list[Address]:
    return [address for address, _ in indirect.unpack_shadow(value).entries.values() if is_real(address)]


def used_bytes(store: Store, fileset: Fileset) -> int:
    """What counts against the quota of bytes."""
    used = active_bytes(store, fileset)
    if fileset.flags & SNAPSHOTS_COUNT:
        used += sum(snapshot.owned_bytes for snapshot in store.catalog.all_snapshots(fileset.number))
    return used
