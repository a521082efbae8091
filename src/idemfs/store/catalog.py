"""The filesets and snapshots of a store, in memory, written with each group that changed them.

Invariant: the snapshots of a fileset are kept in order of their ids, oldest first;
``Fileset.newest`` is the last of them, one that is being deleted included, until it is gone.

Threads: under the store's lock.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right

from idemfs.errors import Damaged, SnapshotMissing
from idemfs.format import keys, tables
from idemfs.format.tables import COMPLETE, Fileset, Snapshot, StoreState
from idemfs.ids import NO_SNAPSHOT, FilesetId, Guid, Ino, SnapshotId, make_ino
from idemfs.ids import Number as NumberType
from idemfs.limits import SCAN_COUNT
from idemfs.store.records import Records


class Catalog:
    """Counters, filesets and snapshots."""

    def __init__(self, small: Records) -> None:
        self._small = small
        value = small.get(keys.STORE_STATE)
        if value is None:
            raise Damaged("the store has no state record; restore it from a standby or a backup")
        self.state: StoreState = tables.unpack_state(value)
        self.filesets: dict[FilesetId, Fileset] = {}
        self._snapshots: dict[FilesetId, dict[SnapshotId, Snapshot]] = {}
        self._order: dict[FilesetId, list[SnapshotId]] = {}
        self._changed_snapshots: set[tuple[FilesetId, SnapshotId]] = set()
        for key, value in small.scan(*keys.prefix_range(b"F"), 1 << 16):
            number = FilesetId(int.from_bytes(key[1:], "big"))
            self.filesets[number] = tables.unpack_fileset(number, value)

    def _load(self, fileset: FilesetId) -> dict[SnapshotId, Snapshot]:
        known = self._snapshots.get(fileset)
        if known is not None:
            return known
        known = {}
        start, end = keys.snapshot_range(fileset)
        while pairs := self._small.scan(start, end, SCAN_COUNT):
            for key, value in pairs:
                snapshot_id = SnapshotId(int.from_bytes(key[3:], "big"))
                known[snapshot_id] = tables.unpack_snapshot(fileset, snapshot_id, value)
            start = pairs[-1][0] + b"\0"
        self._snapshots[fileset] = known
        self._order[fileset] = sorted(known)
        return known

    def snapshots(self, fileset: FilesetId) -> list[Snapshot]:
        """The complete ones, oldest first."""
        known = self._load(fileset)
        return [known[i] for i in self._order[fileset] if known[i].state == COMPLETE]

    def newest(self, fileset: FilesetId) -> Snapshot | None:
        """The newest complete one."""
        known = self._load(fileset)
        return next((known[i] for i in reversed(self._order[fileset]) if known[i].state == COMPLETE), None)

    def all_snapshots(self, fileset: FilesetId) -> list[Snapshot]:
        """Oldest first, with those that are being deleted: they still take part in resolving."""
        known = self._load(fileset)
        return [known[i] for i in self._order[fileset]]

    def snapshot(self, fileset: FilesetId, snapshot_id: SnapshotId) -> Snapshot:
        try:
            return self._load(fileset)[snapshot_id]
        except KeyError:
            raise SnapshotMissing(f"snapshot {snapshot_id} does not exist any more") from None

    def by_name(self, fileset: FilesetId, name: str) -> Snapshot:
        """Raises ``SnapshotMissing``."""
        for snapshot in self.snapshots(fileset):
            if snapshot.name == name:
                return snapshot
        raise SnapshotMissing(f"no snapshot named {name!r}; 'idemfs snapshot list STORE' shows those there are")

    def by_guid(self, fileset: FilesetId, guid: Guid) -> Snapshot | None:
        for snapshot in self.snapshots(fileset):
            if snapshot.guid == guid:
                return snapshot
        return None

    def next_older(self, fileset: FilesetId, snapshot_id: SnapshotId) -> Snapshot | None:
        known = self._load(fileset)
        order = self._order[fileset]
        at = bisect_left(order, snapshot_id)
        return known[order[at - 1]] if at else None

    def next_newer(self, fileset: FilesetId, snapshot_id: SnapshotId) -> Snapshot | None:
        known = self._load(fileset)
        order = self._order[fileset]
        at = bisect_right(order, snapshot_id)
        return known[order[at]] if at < len(order) else None

    def add_snapshot(self, snapshot: Snapshot) -> None:
        self._load(snapshot.fileset)[snapshot.id] = snapshot
        self._order[snapshot.fileset].append(snapshot.id)
        self.filesets[snapshot.fileset].newest = snapshot.id
        self.changed(snapshot)

    def remove_snapshot(self, snapshot: Snapshot) -> None:
        known = self._load(snapshot.fileset)
        del known[snapshot.id]
        order = self._order[snapshot.fileset]
        order.remove(snapshot.id)
        self.filesets[snapshot.fileset].newest = order[-1] if order else NO_SNAPSHOT
        self._changed_snapshots.add((snapshot.fileset, snapshot.id))

    def changed(self, snapshot: Snapshot) -> None:
        self._changed_snapshots.add((snapshot.fileset, snapshot.id))

    def new_snapshot_id(self) -> SnapshotId:
        number = self.state.next_snapshot
        self.state.next_snapshot = number + 1
        return SnapshotId(number)

    def new_ino(self, fileset: Fileset) -> Ino:
        number = fileset.next_number
        fileset.next_number = number + 1
        return make_ino(fileset.number, NumberType(number))

    def seal(self) -> None:
        """Write what changed into the open group."""
        self._put_if_changed(keys.STORE_STATE, self.state.pack())
        for number, fileset in self.filesets.items():
            self._put_if_changed(keys.fileset(number), fileset.pack())
        for number, snapshot_id in self._changed_snapshots:
            snapshot = self._snapshots[number].get(snapshot_id)
            self._small.put(keys.snapshot(number, snapshot_id), None if snapshot is None else snapshot.pack())
        self._changed_snapshots.clear()

    def _put_if_changed(self, key: bytes, value: bytes) -> None:
        if self._small.get(key) != value:
            self._small.put(key, value)
