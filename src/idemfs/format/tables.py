"""Records of the small table: store state, filesets, snapshots.

Layouts (little-endian)::

    store state   next snapshot(8) next fileset(8) sector count(8)
    fileset       guid(16) next number(8) newest snapshot(8) digest(16) inodes(8) name
    usage         state(1) flags(1) compression(1) junction(8) quota bytes(8) quota inodes(8) sectors(8) record bytes(8)
    origin        fileset(2) snapshot(8) next number(8) state(1)
    snapshot      guid(16) created ns(8) digest(16) data bytes(8) record bytes(8) state(1) inodes(8) older(8) name

A snapshot's *data bytes* are those of the extents that its records name, in whole
sectors; its *record bytes* are the keys and values of its shadow records.
Both are what the snapshot owns; they are kept as records move. A fileset's *sectors* are those of the
extents that its active records name, its *record bytes* the keys and values of these records.
"""

from __future__ import annotations

from struct import Struct, error

from idemfs.errors import Damaged
from idemfs.ids import NO_SNAPSHOT, FilesetId, Guid, Ino, SnapshotId
from idemfs.limits import SECTOR_SIZE

_STATE = Struct("<QQQ")
_FILESET = Struct("<16sQQ16sQ")
_USAGE = Struct("<BBBQQQqq")
_ORIGIN = Struct("<HQQB")
_SNAPSHOT = Struct("<16sq16sqqBQQ")

COMPLETE, DELETING, PINNED = 0, 1, 2
"""States of a snapshot, and of a fileset. A snapshot that was deleted while clones rest on it is pinned."""
RESTING, PROMOTING, SWEEPING = 0, 1, 2
"""States of a clone: it rests on its origin; it is being given all that it sees there; it needs the origin no more,
and the marks of absence go."""
SNAPSHOTS_COUNT, SNAPSHOTS_DELETING = 1, 2
"""Flags of a fileset: its quota counts its snapshots too; a snapshot of it is being deleted."""
STORE_COMPRESSION, NO_COMPRESSION, ZSTD_COMPRESSION = 0, 1, 2
"""How what is written to a fileset is compressed: as the store says, or as it says itself."""


class StoreState:
    """Counters of the whole store."""

    __slots__ = ("next_fileset", "next_snapshot", "sector_count")

    def __init__(self, next_snapshot: int = 1, next_fileset: int = 1, sector_count: int = 1) -> None:
        self.next_snapshot = next_snapshot
        self.next_fileset = next_fileset
        self.sector_count = sector_count

    def pack(self) -> bytes:
        return _STATE.pack(self.next_snapshot, self.next_fileset, self.sector_count)


class Origin:
    """What a clone is a clone of. Inodes with ``next_number`` or a greater one are the clone's own."""

    __slots__ = ("fileset", "next_number", "snapshot", "state")

    def __init__(self, fileset: FilesetId, snapshot: SnapshotId, next_number: int, state: int = RESTING) -> None:
        self.fileset = fileset
        self.snapshot = snapshot
        self.next_number = next_number
        self.state = state

    def pack(self) -> bytes:
        return _ORIGIN.pack(self.fileset, self.snapshot, self.next_number, self.state)


class Fileset:
    """One fileset as the open group sees it. ``guid`` is the same on primary and standby.

    ``junction``: the directory of another fileset where it appears; 0 for the root fileset, and for one that appears
    nowhere. A quota of 0 is none. ``is_counted``: whether ``sectors`` and ``record_bytes`` are kept; they are not in
    the root fileset of a store that was made before they were.
    """

    __slots__ = (
        "compression",
        "digest",
        "flags",
        "guid",
        "inode_count",
        "is_counted",
        "junction",
        "name",
        "newest",
        "next_number",
        "number",
        "origin",
        "quota_bytes",
        "quota_inodes",
        "record_bytes",
        "sectors",
        "state",
    )

    def __init__(
        self,
        number: FilesetId,
        guid: Guid,
        name: str,
        next_number: int = 1,
        newest: SnapshotId = SnapshotId(0),
        digest: int = 0,
        inode_count: int = 0,
    ) -> None:
        self.number = number
        self.guid = guid
        self.name = name
        self.next_number = next_number
        self.newest = newest
        self.digest = digest
        self.inode_count = inode_count
        self.is_counted = False
        self.state = COMPLETE
        self.flags = 0
        self.compression = STORE_COMPRESSION
        self.junction = Ino(0)
        self.origin: Origin | None = None
        """None for what is no clone."""
        self.quota_bytes = self.quota_inodes = 0
        self.sectors = self.record_bytes = 0

    @property
    def active_bytes(self) -> int:
        """What its active state takes, where that is counted: extents in whole sectors, and records."""
        return self.sectors * SECTOR_SIZE + self.record_bytes

    def pack_usage(self) -> bytes:
        return _USAGE.pack(
            self.state,
            self.flags,
            self.compression,
            self.junction,
            self.quota_bytes,
            self.quota_inodes,
            self.sectors,
            self.record_bytes,
        )

    def pack(self) -> bytes:
        return (
            _FILESET.pack(
                self.guid, self.next_number, self.newest, self.digest.to_bytes(16, "little"), self.inode_count
            )
            + self.name.encode()
        )


class Snapshot:
    """One snapshot as the open group sees it."""

    __slots__ = (
        "created_ns",
        "data_bytes",
        "digest",
        "fileset",
        "guid",
        "id",
        "inode_count",
        "name",
        "older",
        "record_bytes",
        "state",
    )

    def __init__(
        self,
        fileset: FilesetId,
        id: SnapshotId,
        guid: Guid,
        name: str,
        created_ns: int,
        digest: int,
        inode_count: int,
        data_bytes: int = 0,
        record_bytes: int = 0,
        state: int = COMPLETE,
        older: SnapshotId = NO_SNAPSHOT,
    ) -> None:
        self.fileset = fileset
        self.id = id
        self.guid = guid
        self.name = name
        self.created_ns = created_ns
        self.digest = digest
        self.inode_count = inode_count
        self.data_bytes = data_bytes
        self.record_bytes = record_bytes
        self.state = state
        self.older = older

    @property
    def owned_bytes(self) -> int:
        """Bytes that this snapshot alone keeps: extents in whole sectors, and its records."""
        return self.data_bytes + self.record_bytes

    def pack(self) -> bytes:
        return (
            _SNAPSHOT.pack(
                self.guid,
                self.created_ns,
                self.digest.to_bytes(16, "little"),
                self.data_bytes,
                self.record_bytes,
                self.state,
                self.inode_count,
                self.older,
            )
            + self.name.encode()
        )


def unpack_state(value: bytes) -> StoreState:
    try:
        return StoreState(*_STATE.unpack(value))
    except error as bad:
        raise Damaged("the store state record is damaged") from bad


def unpack_fileset(number: FilesetId, value: bytes) -> Fileset:
    try:
        guid, next_number, newest, digest, inodes = _FILESET.unpack_from(value)
        name = value[_FILESET.size :].decode()
    except (error, UnicodeDecodeError) as bad:
        raise Damaged(f"the record of fileset {number} is damaged") from bad
    return Fileset(number, Guid(guid), name, next_number, SnapshotId(newest), int.from_bytes(digest, "little"), inodes)


def unpack_usage(fileset: Fileset, value: bytes) -> None:
    """Fill in what the usage record of a fileset says; raises ``Damaged``."""
    try:
        fields = _USAGE.unpack(value)
    except error as bad:
        raise Damaged(f"the usage record of fileset {fileset.number} is damaged") from bad
    fileset.is_counted = True
    fileset.state, fileset.flags, fileset.compression = fields[:3]
    fileset.junction = Ino(fields[3])
    fileset.quota_bytes, fileset.quota_inodes, fileset.sectors, fileset.record_bytes = fields[4:]


def unpack_origin(number: FilesetId, value: bytes) -> Origin:
    """Raises ``Damaged``."""
    try:
        fileset, snapshot, next_number, state = _ORIGIN.unpack(value)
    except error as bad:
        raise Damaged(f"the origin record of fileset {number} is damaged") from bad
    return Origin(FilesetId(fileset), SnapshotId(snapshot), next_number, state)


def unpack_snapshot(fileset: FilesetId, snapshot_id: SnapshotId, value: bytes) -> Snapshot:
    try:
        guid, created, digest, data, records, state, inodes, older = _SNAPSHOT.unpack_from(value)
        name = value[_SNAPSHOT.size :].decode()
    except (error, UnicodeDecodeError) as bad:
        raise Damaged(f"the record of snapshot {snapshot_id} is damaged") from bad
    if older >= snapshot_id:
        raise Damaged(f"the record of snapshot {snapshot_id} is damaged: the next older one is said to be {older}")
    return Snapshot(
        fileset,
        snapshot_id,
        Guid(guid),
        name,
        created,
        int.from_bytes(digest, "little"),
        inodes,
        data,
        records,
        state,
        SnapshotId(older),
    )
