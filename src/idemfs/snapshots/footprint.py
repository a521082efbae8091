"""What the files of a store are made of, to the byte: parts that add up to the sizes of all its files.

What the records say is set against what the files are: sectors are in use, or free, or were claimed from the host for
a group that is not committed yet; pages of the metadata are in use or free. Sizes are lengths of files: what is free
inside the block files was given back to the host, and takes no room there.

Threads: under the store's lock. For a store that another process changes meanwhile, parts may be of two moments; they
add up all the same.
"""

from __future__ import annotations

import os

from idemfs.format.tables import PINNED
from idemfs.ids import FilesetId
from idemfs.limits import SECTOR_SIZE
from idemfs.snapshots import usage
from idemfs.store.store import Store

_META, _META_LOCKS = os.path.join("meta", "data.mdb"), os.path.join("meta", "lock.mdb")

PARTS = (
    "active_data",
    "snapshot_data",
    "pinned_data",
    "shared_data",
    "free_data",
    "claimed_data",
    "metadata_used",
    "metadata_free",
    "metadata_locks",
    "log",
    "superblock",
    "other",
)
"""In the order in which they are shown. ``shared_data`` is not positive: the others count it once for each owner."""


def footprint(store: Store, path: str) -> dict[str, int]:
    """Bytes of each of ``PARTS``, then ``total`` and ``allocated``: what the host gave for it. Raises ``OSError``."""
    lengths, allocated = _files(path)
    blocks = sum(length for name, length in lengths.items() if name.startswith("blocks" + os.sep))
    log = sum(length for name, length in lengths.items() if name.startswith("log" + os.sep))
    metadata = lengths.get(_META, 0)
    parts = dict.fromkeys(PARTS, 0)
    parts["active_data"] = sum(active_bytes(store, number) for number in store.catalog.filesets)
    parts["snapshot_data"] = sum(snapshot_bytes(store, number) for number in store.catalog.filesets)
    parts["pinned_data"] = sum(pinned_bytes(store, number) for number in store.catalog.filesets)
    # The first sector is never used, so that no disk address is 0.
    in_use = (store.space.sector_count - store.space.free_sectors() - 1) * SECTOR_SIZE
    parts["shared_data"] = in_use - parts["active_data"] - parts["snapshot_data"] - parts["pinned_data"]
    parts["free_data"] = store.space.free_sectors() * SECTOR_SIZE
    parts["claimed_data"] = blocks - in_use - parts["free_data"]
    parts["metadata_used"] = min(store.kv.used_bytes(), metadata)
    parts["metadata_free"] = metadata - parts["metadata_used"]
    parts["metadata_locks"] = lengths.get(_META_LOCKS, 0)
    parts["log"] = log
    parts["superblock"] = lengths.get("superblock", 0)
    total = sum(lengths.values())
    parts["other"] = total - sum(parts.values())
    return parts | {"total": total, "allocated": allocated}


def active_bytes(store: Store, number: FilesetId) -> int:
    """Extents that the active state of a fileset names, in whole sectors."""
    fileset = store.catalog.filesets[number]
    sectors = fileset.sectors if fileset.is_counted else usage.counted(store, fileset)[0]
    return sectors * SECTOR_SIZE


def snapshot_bytes(store: Store, number: FilesetId) -> int:
    """Extents that its snapshots own, in whole sectors; without those that stay for clones alone."""
    return sum(each.data_bytes for each in store.catalog.all_snapshots(number) if each.state != PINNED)


def pinned_bytes(store: Store, number: FilesetId) -> int:
    """The same of those that were deleted, and stay for clones."""
    return sum(each.data_bytes for each in store.catalog.all_snapshots(number) if each.state == PINNED)


def _files(path: str) -> tuple[dict[str, int], int]:
    """Length of each file of the store by its path in it, and what the host gave for all of them."""
    lengths: dict[str, int] = {}
    allocated = 0
    for directory, _, names in os.walk(path):
        for name in names:
            full = os.path.join(directory, name)
            try:
                status = os.lstat(full)
            except FileNotFoundError:
                # A socket or a log of the process that owns the store may go at any time.
                continue
            lengths[os.path.relpath(full, path)] = status.st_size
            allocated += status.st_blocks * 512
    return lengths, allocated
