"""The records of purges: what was removed from snapshots, when, by whom and why; and the purge that is under way.

A purge is a JSON object in the small table, under ``A`` · time, ns (8), and ``Z`` while it is under way. Beside it,
under ``A`` · time (8) · snapshot (8), stands for each snapshot what it was and what it has become: old guid (16), new
guid (16), new digest (16), name. All of them stay as long as the store.

Threads: under the store's lock.
"""

from __future__ import annotations

from typing import NamedTuple

from idemfs.errors import Damaged
from idemfs.format import keys
from idemfs.format.tables import Snapshot
from idemfs.limits import SCAN_COUNT, SNAPSHOT_NAME_SIZE_MAX
from idemfs.store.store import Store

RECORD_SIZE_MAX = 60_000
LISTED_COUNT_MAX = 1000
"""Inodes and snapshots that a record names; it counts them all."""
REPLACED_SIZE_MAX = 80 + SNAPSHOT_NAME_SIZE_MAX
"""Of the record, with its key, of what one snapshot has become."""


class Replaced(NamedTuple):
    """What one snapshot was before a purge, and what it has become by it. Guids and digest are hexadecimal."""

    name: str
    old_guid: str
    new_guid: str
    digest: str


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
    replaced: tuple[Replaced, ...] = ()
    """All of the snapshots, oldest first; as they are until now if the purge is under way."""


def pack(purge: Purge) -> bytes:
    from json import dumps

    fields = purge._asdict()
    del fields["replaced"]
    return dumps(fields).encode()


def unpack(value: bytes) -> Purge:
    """Raises ``Damaged``."""
    from json import loads

    try:
        fields = loads(value)
        fields["inodes"], fields["snapshots"] = tuple(fields["inodes"]), tuple(fields["snapshots"])
        return Purge(**fields)
    except (ValueError, TypeError, KeyError) as bad:
        raise Damaged("the record of a purge is damaged") from bad


def unpack_replaced(value: bytes) -> Replaced:
    """Raises ``Damaged``."""
    try:
        name = value[48:].decode()
    except UnicodeDecodeError as bad:
        raise Damaged("the record of a purged snapshot is damaged") from bad
    if not name:
        raise Damaged("the record of a purged snapshot is cut short")
    return Replaced(name, value[:16].hex(), value[16:32].hex(), value[32:48].hex())


def under_way(store: Store) -> Purge | None:
    """The purge that has begun and not ended."""
    value = store.small.get(keys.PURGE)
    return None if value is None else _with_replaced(store, unpack(value))


def begin(store: Store, purge: Purge, snapshots: list[Snapshot]) -> Purge:
    """Part of the open group; the record as it is kept. What ``snapshots`` are called so far is kept beside it.

    The caller has admitted ``RECORD_SIZE_MAX`` bytes, and ``REPLACED_SIZE_MAX`` for each of them.
    """
    at_ns = purge.at_ns
    while store.small.scan(*keys.audit_range(at_ns), 1):
        at_ns += 1
    purge = purge._replace(at_ns=at_ns)
    store.small.put(keys.PURGE, pack(purge))
    for snapshot in snapshots:
        _put_replaced(store, purge, snapshot, snapshot.guid)
    return purge


def note(store: Store, purge: Purge, snapshot: Snapshot) -> None:
    """What the snapshot has become, if it is one of those of the purge. ``REPLACED_SIZE_MAX`` bytes were admitted."""
    value = store.small.get(keys.audit_of(purge.at_ns, snapshot.id))
    if value is not None:
        _put_replaced(store, purge, snapshot, value[:16])


def has_replaced(store: Store, purge: Purge, snapshot: Snapshot) -> bool:
    """Whether the snapshot is one of those of the purge."""
    return store.small.get(keys.audit_of(purge.at_ns, snapshot.id)) is not None


def snapshot_before(store: Store, guid: bytes) -> int | None:
    """The number of the snapshot that had this guid before a purge."""
    start, limit = keys.prefix_range(b"A")
    while pairs := store.small.scan(start, limit, SCAN_COUNT):
        for key, value in pairs:
            if len(key) > len(keys.audit(0)) and value[:16] == guid:
                return int.from_bytes(key[-8:], "big")
        start = pairs[-1][0] + b"\0"
    return None


def _put_replaced(store: Store, purge: Purge, snapshot: Snapshot, old_guid: bytes) -> None:
    value = old_guid + snapshot.guid + snapshot.digest.to_bytes(16, "big") + snapshot.name.encode()
    store.small.put(keys.audit_of(purge.at_ns, snapshot.id), value)


def end(store: Store, purge: Purge) -> Purge:
    """It has ended, and is on record from now on, as it is returned. As ``begin``."""
    store.small.put(keys.audit(purge.at_ns), pack(purge))
    store.small.put(keys.PURGE, None)
    return _with_replaced(store, purge)


def _with_replaced(store: Store, purge: Purge) -> Purge:
    found: list[Replaced] = []
    start, limit = keys.audit_range(purge.at_ns)
    while pairs := store.small.scan(start, limit, SCAN_COUNT):
        found += [unpack_replaced(value) for key, value in pairs if len(key) > len(keys.audit(0))]
        start = pairs[-1][0] + b"\0"
    return purge._replace(replaced=tuple(found))


def purges(store: Store) -> list[Purge]:
    """All that have ended, oldest first."""
    found: list[Purge] = []
    start, limit = keys.prefix_range(b"A")
    while pairs := store.small.scan(start, limit, SCAN_COUNT):
        found += [unpack(value) for key, value in pairs if len(key) == len(keys.audit(0))]
        start = pairs[-1][0] + b"\0"
    return [_with_replaced(store, each) for each in found]
