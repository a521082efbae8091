"""Keys of every table. All numbers big-endian, so that byte order is number order and a scan is a range.

::

    active   ino(8) · 'b' · index(8)            indirect block
             ino(8) · 'd' · name                directory entry
             ino(8) · 'i'                       inode
             ino(8) · 'l' · parent(8) · name    a further back-reference of a hard-linked inode
             ino(8) · 'x' · name                extended attribute
    shadow   active key · snapshot id(8)
    owned    snapshot id(8) · active key
    small    'E' · sector(8)                    shared extent        'F' · fileset(2)              fileset
             'O' · ino(8)                       orphan               'R' · sector(8)               free extent
             's' · snapshot(8) · fileset(2)     snapshot             'T'                           store state
             'P' · text                         replication state    'H' · snapshot(8) · owner     hold
             'K' · fileset(2)                   policy               'D' · fileset(2)              schedule state
             'L' · snapshot(8)                  lock                 'I'                           mark of the log
             'U' · fileset(2)                   usage of a fileset    'G' · fileset(2)              origin of a clone
             'W' · snapshot(8) · ino(8)         orphan in a written snapshot           'Y'          restore of a subtree
             'V' · fileset(2) · text            replication state of a fileset         'Z'          purge under way
             'Q' · snapshot(8) · owner          hold known to both   'A' · time, ns(8)              purge that ended
             'A' · time, ns(8) · snapshot(8)    snapshot of a purge  'N' · fileset(2)              hooks of a schedule
             'Cf' · fileset(2)                  fileset of a drill   'Cs' · snapshot(8)            one that diverged
             'B' · text                         write leases

Values of link and xattr records start with ``PRESENT``, since in the shadow table
an empty value is ``ABSENT``. A shadow key cannot be taken for the key of a longer name: snapshot ids start
with a zero byte, and names hold none.
"""

from __future__ import annotations

from struct import Struct

from idemfs.ids import FilesetId, Ino, Number, SnapshotId
from idemfs.limits import SNAPSHOT_ID_MAX

SNAPSHOT_ORPHAN = b"W"
INODE, BLOCK, ENTRY, LINK, XATTR = b"i", b"b", b"d", b"l", b"x"
KIND_AT = 8
NAME_AT = 9

_SNAPSHOT = Struct(">cQH")

PRESENT = b"\x01"
STORE_STATE = b"T"
LOG_MARK = b"I"
UNDOING = b"Y"
"""Of the record that says which snapshot a restore of a subtree that is under way is undone with."""
PURGE = b"Z"
END = b"\xff" * 16
"""Greater than every key of the small table."""


def inode(ino: Ino) -> bytes:
    return ino.to_bytes(8, "big") + INODE


def block(ino: Ino, index: int) -> bytes:
    """Of the ``index``-th indirect block."""
    return ino.to_bytes(8, "big") + BLOCK + index.to_bytes(8, "big")


def entry(directory: Ino, name: bytes) -> bytes:
    return directory.to_bytes(8, "big") + ENTRY + name


def link(ino: Ino, parent: Number, name: bytes) -> bytes:
    return ino.to_bytes(8, "big") + LINK + parent.to_bytes(8, "big") + name


def xattr(ino: Ino, name: bytes) -> bytes:
    return ino.to_bytes(8, "big") + XATTR + name


def ino_of(key: bytes) -> Ino:
    """The inode that an active key belongs to."""
    return Ino(int.from_bytes(key[:8], "big"))


def fileset_of(key: bytes) -> FilesetId:
    """The fileset that an active key belongs to."""
    return key[0] << 8 | key[1]  # type: ignore[return-value]  # a call to name the type would double the cost


def kind_of(key: bytes) -> bytes:
    return key[8:9]


def index_of(key: bytes) -> int:
    """The index in the key of an indirect block."""
    return int.from_bytes(key[9:17], "big")


def kind_range(ino: Ino, kind: bytes) -> tuple[bytes, bytes]:
    """Start and end of all active keys of one kind of one inode; also holds for shadow keys."""
    start = ino.to_bytes(8, "big") + kind
    return start, start[:8] + bytes((kind[0] + 1,))


def ino_range(ino: Ino) -> tuple[bytes, bytes]:
    """Start and end of all active (or shadow) keys of one inode."""
    return ino.to_bytes(8, "big"), (ino + 1).to_bytes(8, "big")


def fileset_range(fileset: FilesetId) -> tuple[bytes, bytes]:
    """Start and end of all active (or shadow) keys of one fileset."""
    start = fileset.to_bytes(2, "big")
    return start, start + b"\xff" * 7


def shadow(key: bytes, snapshot: SnapshotId) -> bytes:
    return key + snapshot.to_bytes(8, "big")


def shadow_parts(shadow_key: bytes) -> tuple[bytes, SnapshotId]:
    return shadow_key[:-8], SnapshotId(int.from_bytes(shadow_key[-8:], "big"))


def shadow_range(key: bytes, oldest: SnapshotId) -> tuple[bytes, bytes]:
    """Start and end of the versions of ``key`` that ``oldest`` or a newer snapshot owns."""
    return key + oldest.to_bytes(8, "big"), key + (SNAPSHOT_ID_MAX + 1).to_bytes(8, "big")


def owned(snapshot: SnapshotId, key: bytes) -> bytes:
    return snapshot.to_bytes(8, "big") + key


def owned_range(snapshot: SnapshotId) -> tuple[bytes, bytes]:
    return snapshot.to_bytes(8, "big"), (snapshot + 1).to_bytes(8, "big")


def shared_extent(sector: int) -> bytes:
    return b"E" + sector.to_bytes(8, "big")


def free_extent(sector: int) -> bytes:
    return b"R" + sector.to_bytes(8, "big")


def fileset(number: FilesetId) -> bytes:
    return b"F" + number.to_bytes(2, "big")


def usage(number: FilesetId) -> bytes:
    """Of the record that says where a fileset appears, what it may hold and what it holds."""
    return b"U" + number.to_bytes(2, "big")


def origin(number: FilesetId) -> bytes:
    """Of the record that says which snapshot a fileset is a clone of."""
    return b"G" + number.to_bytes(2, "big")


def orphan(ino: Ino) -> bytes:
    return b"O" + ino.to_bytes(8, "big")


def orphan_range(number: FilesetId) -> tuple[bytes, bytes]:
    return b"O" + number.to_bytes(2, "big"), b"O" + number.to_bytes(2, "big") + b"\xff" * 7


def snapshot_orphan(snapshot_id: SnapshotId, ino: Ino) -> bytes:
    """Of an inode without a name that is open in a snapshot that is written to."""
    return SNAPSHOT_ORPHAN + snapshot_id.to_bytes(8, "big") + ino.to_bytes(8, "big")


def snapshot_orphan_parts(key: bytes) -> tuple[SnapshotId, Ino]:
    return SnapshotId(int.from_bytes(key[1:9], "big")), Ino(int.from_bytes(key[9:], "big"))


def snapshot(number: FilesetId, snapshot_id: SnapshotId) -> bytes:
    """Those that were taken together lie side by side, whatever their filesets, and new ones at the table's end."""
    return _SNAPSHOT.pack(b"s", snapshot_id, number)


def snapshot_parts(key: bytes) -> tuple[FilesetId, SnapshotId]:
    return FilesetId(int.from_bytes(key[9:], "big")), SnapshotId(int.from_bytes(key[1:9], "big"))


def hold(snapshot_id: SnapshotId, owner: bytes) -> bytes:
    return b"H" + snapshot_id.to_bytes(8, "big") + owner


def hold_range(snapshot_id: SnapshotId) -> tuple[bytes, bytes]:
    return b"H" + snapshot_id.to_bytes(8, "big"), b"H" + (snapshot_id + 1).to_bytes(8, "big")


def lock(snapshot_id: SnapshotId) -> bytes:
    """Until when nobody may delete the snapshot."""
    return b"L" + snapshot_id.to_bytes(8, "big")


def policy(number: FilesetId) -> bytes:
    """When snapshots of the fileset are taken, and which are kept."""
    return b"K" + number.to_bytes(2, "big")


def audit(at_ns: int) -> bytes:
    """Of the record of a purge."""
    return b"A" + at_ns.to_bytes(8, "big")


def audit_of(at_ns: int, snapshot_id: SnapshotId) -> bytes:
    """Of the record of what a snapshot has become by a purge."""
    return audit(at_ns) + snapshot_id.to_bytes(8, "big")


def audit_range(at_ns: int) -> tuple[bytes, bytes]:
    """Of all records of one purge."""
    return audit(at_ns), audit(at_ns + 1)


def hooks(number: FilesetId) -> bytes:
    """Commands around the snapshots that the schedule of the fileset takes."""
    return b"N" + number.to_bytes(2, "big")


def schedule_state(number: FilesetId) -> bytes:
    """How far the schedule of the fileset has come."""
    return b"D" + number.to_bytes(2, "big")


def drill(number: FilesetId) -> bytes:
    """Of the record that says which drill a fileset belongs to."""
    return b"Cf" + number.to_bytes(2, "big")


def drill_range() -> tuple[bytes, bytes]:
    return b"Cf", b"Cg"


def diverged(snapshot_id: SnapshotId) -> bytes:
    """Of the mark of a snapshot that this store alone had when it came to follow another one."""
    return b"Cs" + snapshot_id.to_bytes(8, "big")


def diverged_range() -> tuple[bytes, bytes]:
    return b"Cs", b"Ct"


def replication(name: str) -> bytes:
    return b"P" + name.encode()


def lease(name: str) -> bytes:
    return b"B" + name.encode()


def fileset_replication(number: FilesetId, name: str) -> bytes:
    """Replication state of one fileset; that of the root fileset is the store's."""
    return b"V" + number.to_bytes(2, "big") + name.encode() if number else replication(name)


def fileset_replication_range(number: FilesetId) -> tuple[bytes, bytes]:
    return b"V" + number.to_bytes(2, "big"), b"V" + number.to_bytes(2, "big") + b"\xff"


def came_hold(snapshot_id: SnapshotId, owner: bytes) -> bytes:
    """Of the mark that primary and standby both know of a hold."""
    return b"Q" + snapshot_id.to_bytes(8, "big") + owner


def came_hold_range(snapshot_id: SnapshotId) -> tuple[bytes, bytes]:
    return b"Q" + snapshot_id.to_bytes(8, "big"), b"Q" + (snapshot_id + 1).to_bytes(8, "big")


def prefix_range(prefix: bytes) -> tuple[bytes, bytes]:
    """Start and end of the small-table keys that start with a one-byte ``prefix``."""
    return prefix, bytes((prefix[0] + 1,))
