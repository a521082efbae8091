"""The small table: filesets, snapshots, holds, replication state; shared and free extents are checked with the others.

Threads: under the store's lock.
"""

from __future__ import annotations

from collections.abc import Iterator

from idemfs.check.context import Context, Timeline
from idemfs.check.findings import Finding, Kind
from idemfs.check.scans import pairs
from idemfs.errors import BadSnapshotName, Damaged
from idemfs.format import intent, keys, lease, role, tables
from idemfs.format.tables import COMPLETE, DELETING, PINNED, Snapshot
from idemfs.ids import NO_SNAPSHOT, FilesetId, SnapshotId
from idemfs.limits import SECTOR_COUNT_MAX
from idemfs.snapshots import audit, diverged, drills, hooks, policy
from idemfs.snapshots.manage import check_name

_KEY_SIZES = {
    b"D": 3,
    b"E": 9,
    b"F": 3,
    b"G": 3,
    b"I": 1,
    b"K": 3,
    b"L": 9,
    b"N": 3,
    b"O": 9,
    b"R": 9,
    b"T": 1,
    b"U": 3,
    b"W": 17,
    b"Y": 1,
    b"Z": 1,
    b"s": 11,
}
_EIGHT = frozenset((b"D", b"E", b"H", b"L", b"R"))
"""Tables of which each value is one number of 8 bytes."""
_OF_FILESETS = {b"D": "a schedule", b"K": "a schedule", b"N": "hooks", b"V": "replication state"}
_UNDER_WAY_SIZES = {
    keys.replication("restore"): 10,
    keys.replication("rollback"): 10,
    keys.replication("undo"): 8,
    keys.replication("refresh"): 18,
    keys.replication("base"): 16,
}
"""Records that name snapshots, and the sizes of their values."""


def read(context: Context) -> Iterator[Finding]:
    """Fill ``context`` with filesets and snapshots; what cannot be read is reported and left out."""
    snapshots: dict[FilesetId, list[Snapshot]] = {}
    holds: list[SnapshotId] = []
    planned: dict[FilesetId, str] = {}
    for key, value in pairs(context.store.small):
        try:
            _read_record(context, key, value, snapshots, holds)
            if key[:1] in _OF_FILESETS:
                planned[FilesetId(int.from_bytes(key[1:3], "big"))] = _OF_FILESETS[key[:1]]
        except Damaged as damaged:
            yield Finding(Kind.RECORD, _where(key), str(damaged))
            if key[:1] == b"s" and len(key) == 11:
                context.unreadable.add(keys.snapshot_parts(key)[0])
    for number in context.filesets:
        context.timelines[number] = Timeline(snapshots.get(number, ()))
    for number in snapshots.keys() - context.filesets.keys():
        yield Finding(Kind.FILESET, f"fileset {number}", "has snapshots and does not exist")
    yield from _counters(context)
    for number in context.filesets:
        yield from _snapshots(context, number)
    for number in sorted(planned.keys() - context.filesets.keys()):
        yield Finding(Kind.FILESET, f"fileset {number}", f"has {planned[number]} and does not exist")
    for number in sorted(context.drills - context.filesets.keys()):
        yield Finding(Kind.FILESET, f"fileset {number}", "is of a drill and does not exist")
    known = {snapshot for timeline in context.timelines.values() for snapshot in timeline.ids}
    for held in holds:
        if held not in known and not context.unreadable:
            yield Finding(Kind.SNAPSHOT, f"snapshot number {held}", "is held or locked, or marked, and does not exist")


def _where(key: bytes) -> str:
    return f"key {key[:1].decode('latin-1')!r} {key[1:].hex()}"


def _read_record(
    context: Context,
    key: bytes,
    value: bytes,
    snapshots: dict[FilesetId, list[Snapshot]],
    holds: list[SnapshotId],
) -> None:
    prefix = key[:1]
    size = _KEY_SIZES.get(prefix)
    if size is not None and len(key) != size:
        raise Damaged(f"has {len(key)} bytes and not {size}")
    if prefix in _EIGHT and len(value) != 8:
        raise Damaged(f"its value has {len(value)} bytes and not 8")
    match prefix:
        case b"F":
            number = FilesetId(int.from_bytes(key[1:], "big"))
            context.filesets[number] = tables.unpack_fileset(number, value)
        case b"s":
            number, snapshot_id = keys.snapshot_parts(key)
            snapshots.setdefault(number, []).append(tables.unpack_snapshot(number, snapshot_id, value))
        case b"O" | b"W":
            if value:
                raise Damaged("its value is not empty")
        case b"H" | b"L" | b"Q":
            if len(key) < 9:
                raise Damaged("names no snapshot")
            holds.append(SnapshotId(int.from_bytes(key[1:9], "big")))
        case b"P":
            if key == role.KEY:
                role.unpack(value)
            elif len(value) != _UNDER_WAY_SIZES.get(key, len(value)):
                raise Damaged("names no snapshot")
        case b"B":
            lease.check(key, value)
        case b"V":
            if len(key) < 4:
                raise Damaged("says nothing")
            if key[3:] == b"base" and len(value) != 16:
                raise Damaged("names no snapshot")
        case b"U":
            number = FilesetId(int.from_bytes(key[1:], "big"))
            if number not in context.filesets:
                raise Damaged("is of a fileset that does not exist, or whose record is damaged")
            tables.unpack_usage(context.filesets[number], value)
        case b"G":
            number = FilesetId(int.from_bytes(key[1:], "big"))
            if number not in context.filesets:
                raise Damaged("is of a fileset that does not exist, or whose record is damaged")
            context.filesets[number].origin = tables.unpack_origin(number, value)
        case b"I":
            intent.unpack_mark(value)
        case b"T":
            tables.unpack_state(value)
        case b"K":
            policy.unpack(value)
        case b"N":
            hooks.unpack(value)
        case b"A" | b"Z":
            _read_purge(key, value)
        case b"C":
            _read_drill(context, key, value, holds)
        case b"D" | b"E" | b"R":
            return
        case b"Y":
            if len(value) != 10:
                raise Damaged("names no snapshot")
        case _:
            raise Damaged("is in no table of this format")


def _read_drill(context: Context, key: bytes, value: bytes, holds: list[SnapshotId]) -> None:
    """A fileset of a drill, or a snapshot that diverged."""
    if key[1:2] == b"f" and len(key) == 4:
        drills.unpack(value)
        context.drills.add(FilesetId(int.from_bytes(key[2:], "big")))
    elif key[1:2] == b"s" and len(key) == 10:
        diverged.unpack(value)
        holds.append(SnapshotId(int.from_bytes(key[2:], "big")))
    else:
        raise Damaged("is in no table of this format")


def _read_purge(key: bytes, value: bytes) -> None:
    if key[:1] == b"A" and len(key) == len(keys.audit(0)) + 8:
        audit.unpack_replaced(value)
    elif key[:1] == b"A" and len(key) != len(keys.audit(0)):
        raise Damaged("names neither a purge nor a snapshot of one")
    else:
        audit.unpack(value)


def _counters(context: Context) -> Iterator[Finding]:
    state = context.state
    if not 1 <= state.sector_count <= SECTOR_COUNT_MAX:
        yield Finding(Kind.RECORD, "store", f"says that it has {state.sector_count} sectors")
    for number, fileset in context.filesets.items():
        if number >= state.next_fileset:
            yield Finding(
                Kind.FILESET, f"fileset {number}", f"has a number that is to be given next ({state.next_fileset})"
            )
        timeline = context.timelines[number]
        if fileset.newest != timeline.newest and number not in context.unreadable:
            what = f"says that its newest snapshot is number {fileset.newest}; it is {timeline.newest}"
            yield Finding(Kind.FILESET, f"fileset {number}", what)


def _snapshots(context: Context, number: FilesetId) -> Iterator[Finding]:
    names: set[str] = set()
    guids: set[bytes] = set()
    older = NO_SNAPSHOT
    for snapshot in context.timelines[number].snapshots:
        where = f"snapshot {snapshot.name}"
        if snapshot.older != older and number not in context.unreadable:
            what = f"says that the next older one is number {snapshot.older}; it is {older}"
            yield Finding(Kind.SNAPSHOT, where, what)
        older = snapshot.id
        if not 0 < snapshot.id < context.state.next_snapshot:
            what = f"has number {snapshot.id}; the next one to be given is {context.state.next_snapshot}"
            yield Finding(Kind.SNAPSHOT, where, what)
        if snapshot.state not in (COMPLETE, DELETING, PINNED):
            yield Finding(Kind.SNAPSHOT, where, f"is in state {snapshot.state}, which means nothing")
        if snapshot.guid in guids:
            yield Finding(Kind.SNAPSHOT, where, "has the guid of another snapshot")
        guids.add(snapshot.guid)
        if snapshot.state != COMPLETE:
            continue
        try:
            check_name(snapshot.name)
        except BadSnapshotName as bad:
            yield Finding(Kind.SNAPSHOT, where, str(bad))
        if snapshot.name in names:
            yield Finding(Kind.SNAPSHOT, where, "has the name of another snapshot")
        names.add(snapshot.name)
