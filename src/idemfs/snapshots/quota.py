"""Quotas: what a fileset may hold, in bytes and in inodes.

How much an operation adds is known when its group is sealed; until then the most that it can be is counted. When
that does not fit, the group is sealed first. So what is refused would have exceeded the quota, but for what the
estimate of this one operation exceeds it; and what is let through does not, but for what an operation takes that
is meant to add nothing: the records of a new mode or another name, the rest of a block that is cut.

Threads: under the store's lock.
"""

from __future__ import annotations

from idemfs.errors import QuotaExceeded
from idemfs.format.tables import SNAPSHOTS_COUNT, Fileset
from idemfs.snapshots import usage
from idemfs.store.store import Store


def has_room(store: Store, fileset: Fileset, size: int, inodes: int) -> bool:
    """Count an operation that adds up to ``size`` bytes and ``inodes``, if it is sure that they fit.

    Raises ``QuotaExceeded`` for inodes, whose number is always known.
    """
    if fileset.quota_inodes and inodes and fileset.inode_count + inodes > fileset.quota_inodes:
        raise QuotaExceeded(
            f"fileset {fileset.name!r} has {fileset.inode_count} inodes, and a quota of {fileset.quota_inodes}: remove "
            "something, or raise it ('idemfs fileset quota')"
        )
    return not fileset.quota_bytes or size <= _left(store, fileset, size)


def take_room(store: Store, fileset: Fileset, size: int) -> None:
    """As ``has_room`` for bytes, when the group has been sealed. Raises ``QuotaExceeded``."""
    left = _left(store, fileset, size)
    if size > left:
        what = "remove something, a snapshot for example" if fileset.flags & SNAPSHOTS_COUNT else "remove something"
        raise QuotaExceeded(
            f"fileset {fileset.name!r} has {max(left, 0)} bytes left of its quota of {fileset.quota_bytes}: {what}, or "
            "raise it ('idemfs fileset quota')"
        )


def _left(store: Store, fileset: Fileset, size: int) -> int:
    """What may still be added; ``size`` is taken of it if it fits."""
    left = store.catalog.left_bytes.get(fileset.number)
    if left is None:
        left = fileset.quota_bytes - usage.used_bytes(store, fileset)
    if size <= left:
        store.catalog.left_bytes[fileset.number] = left - size
    return left
