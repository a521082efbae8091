"""Bring the records of a store that was written before idemfs 0.1.0 into the layout of today.

Snapshots had keys of their fileset and id, in this order, and did not name the next older one.
"""

from __future__ import annotations

from idemfs.engines.kv.api import KV, Table
from idemfs.format import keys
from idemfs.ids import NO_SNAPSHOT, FilesetId, SnapshotId
from idemfs.limits import SCAN_COUNT

BEFORE = b"S"
"""What the keys of these snapshots begin with; fileset(2) and snapshot(8) follow."""
_NAME_AT = 65


def upgrade(kv: KV) -> None:
    """Nothing is done where nothing is old. Whoever calls has the store alone. Raises ``NoSpace``, ``OSError``."""
    start, end = keys.prefix_range(BEFORE)
    changes: dict[bytes, bytes | None] = {}
    older: dict[FilesetId, SnapshotId] = {}
    while pairs := kv.scan(Table.SMALL, start, end, SCAN_COUNT):
        for key, value in pairs:
            number, snapshot_id = FilesetId(int.from_bytes(key[1:3], "big")), SnapshotId(int.from_bytes(key[3:], "big"))
            changes[key] = None
            link = older.get(number, NO_SNAPSHOT).to_bytes(8, "little")
            changes[keys.snapshot(number, snapshot_id)] = value[:_NAME_AT] + link + value[_NAME_AT:]
            older[number] = snapshot_id
        start = pairs[-1][0] + b"\0"
    if changes:
        # crash: one commit, so that all of them are found, the old way or the new one.
        kv.commit({Table.SMALL: changes})
