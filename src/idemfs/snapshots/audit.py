"""The records of purges: what was removed from snapshots, when, by whom and why; and the purge that is under way.

Both are JSON objects in the small table, under ``A`` · time, ns (8) and ``Z``. Audit records stay as long as the store.

Threads: under the store's lock.
"""

from __future__ import annotations

from typing import NamedTuple

from idemfs.errors import Damaged
from idemfs.format import keys
from idemfs.limits import SCAN_COUNT
from idemfs.store.store import Store

RECORD_SIZE_MAX = 60_000
LISTED_COUNT_MAX = 1000
"""Inodes and snapshots that a record names; it counts them all."""


class Purge(NamedTuple):
    """One purge of a path from the snapshots of a fileset."""

    at_ns: int
    fileset: int
    fileset_name: str
    path: str
    """From the root of the fileset, by ``os.fsdecode``."""
    uid: int
    user: str
    reason: str
    is_active: bool
    """Whether it was removed from the active state, too."""
    inodes: tuple[int, ...]
    inode_count: int
    snapshots: tuple[str, ...]
    snapshot_count: int


def pack(purge: Purge) -> bytes:
    from json import dumps

    return dumps(purge._asdict()).encode()


def unpack(value: bytes) -> Purge:
    """Raises ``Damaged``."""
    from json import loads

    try:
        fields = loads(value)
        fields["inodes"], fields["snapshots"] = tuple(fields["inodes"]), tuple(fields["snapshots"])
        return Purge(**fields)
    except (ValueError, TypeError, KeyError) as bad:
        raise Damaged("the record of a purge is damaged") from bad


def under_way(store: Store) -> Purge | None:
    """The purge that has begun and not ended."""
    value = store.small.get(keys.PURGE)
    return None if value is None else unpack(value)


def begin(store: Store, purge: Purge) -> None:
    """Part of the open group; the caller has admitted ``RECORD_SIZE_MAX`` bytes."""
    store.small.put(keys.PURGE, pack(purge))


def end(store: Store, purge: Purge) -> None:
    """It has ended, and is on record from now on. As ``begin``."""
    at_ns = purge.at_ns
    while store.small.get(keys.audit(at_ns)) is not None:
        at_ns += 1
    store.small.put(keys.audit(at_ns), pack(purge))
    store.small.put(keys.PURGE, None)


def purges(store: Store) -> list[Purge]:
    """All that have ended, oldest first."""
    found: list[Purge] = []
    start, limit = keys.prefix_range(b"A")
    while pairs := store.small.scan(start, limit, SCAN_COUNT):
        found += [unpack(value) for _, value in pairs]
        start = pairs[-1][0] + b"\0"
    return found
