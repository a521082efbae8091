"""The filesets and snapshots of a store, in memory, written with each group that changed them.

Invariant: the snapshots of a fileset are kept in order of their ids, oldest first;
``Fileset.newest`` is the last of them, one that is being deleted included, until it is gone. They are
loaded when a fileset's are first asked for, so that opening a store of many filesets costs what these cost.

Threads: under the store's lock.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping

from idemfs.errors import SnapshotMissing
from idemfs.format import keys, tables
from idemfs.format.tables import COMPLETE, DELETING, PINNED, SNAPSHOTS_DELETING, Fileset, Snapshot
from idemfs.ids import NO_SNAPSHOT, ROOT_FILESET, FilesetId, Guid, SnapshotId
from idemfs.limits import SCAN_COUNT
from idemfs.store.fileset_table import FilesetTable
from idemfs.store.records import Records


class Catalog(FilesetTable):
    """Counters, filesets and snapshots."""

    def __init__(self, small: Records) -> None:
        super().__init__(small)
        self._snapshots: dict[FilesetId, dict[SnapshotId, Snapshot]] = {}
        self._order: dict[FilesetId, list[SnapshotId]] = {}
        self._named: dict[FilesetId, dict[str, Snapshot]] = {}
        self._changed_snapshots: dict[SnapshotId, FilesetId] = {}

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
        self._named[fileset] = {each.name: each for each in known.values() if each.state == COMPLETE}
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
        """Oldest first, with those that are being deleted, or pinned: they still take part in resolving."""
        known = self._load(fileset)
        return [known[i] for i in self._order[fileset]]

    def snapshot(self, fileset: FilesetId, snapshot_id: SnapshotId) -> Snapshot:
        try:
            return self._load(fileset)[snapshot_id]
        except KeyError:
            raise SnapshotMissing(f"snapshot {snapshot_id} does not exist any more") from None

    def named(self, fileset: FilesetId) -> Mapping[str, Snapshot]:
        """The complete ones by their names."""
        self._load(fileset)
        return self._named[fileset]

    def rename_snapshot(self, snapshot: Snapshot, name: str) -> None:
        self._forget_name(snapshot)
        snapshot.name = name
        self._named[snapshot.fileset][name] = snapshot
        self.changed(snapshot)

    def _forget_name(self, snapshot: Snapshot) -> None:
        names = self._named[snapshot.fileset]
        if names.get(snapshot.name) is snapshot:
            del names[snapshot.name]

    def by_name(self, fileset: FilesetId, name: str) -> Snapshot:
        """Raises ``SnapshotMissing``."""
        snapshot = self.named(fileset).get(name)
        if snapshot is not None:
            return snapshot
        where = "" if fileset == ROOT_FILESET else f" of fileset {self.filesets[fileset].name!r}"
        raise SnapshotMissing(f"no snapshot{where} named {name!r}; 'idemfs snapshot list STORE' shows those there are")

    def snapshot_place(self, text: str, fileset: FilesetId = ROOT_FILESET) -> tuple[FilesetId, str]:
        """``NAME`` of ``fileset``, ``FILESET@NAME``, ``@NAME`` of the root fileset: which fileset, and the name in it.

        Raises ``FilesetMissing``.
        """
        name, at, snapshot = text.rpartition("@")
        if not at:
            return fileset, text
        return (self.fileset_named(name).number if name else ROOT_FILESET), snapshot

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
        fileset, snapshot_id = snapshot.fileset, snapshot.id
        self._load(fileset)[snapshot_id] = snapshot
        self._order[fileset].append(snapshot_id)
        self._named[fileset][snapshot.name] = snapshot
        self.filesets[fileset].newest = snapshot_id
        self._changed_newest.add(fileset)
        self._changed_snapshots[snapshot_id] = fileset

    def remove_fileset(self, fileset: Fileset) -> None:
        super().remove_fileset(fileset)
        self._snapshots.pop(fileset.number, None)
        self._order.pop(fileset.number, None)
        self._named.pop(fileset.number, None)

    def has_snapshot(self, snapshot: Snapshot) -> bool:
        return snapshot.fileset in self.filesets and snapshot.id in self._load(snapshot.fileset)

    def end_snapshot(self, snapshot: Snapshot) -> None:
        """Let it be one that is being deleted."""
        self._forget_name(snapshot)
        snapshot.state = DELETING
        self.changed(snapshot)
        self.filesets[snapshot.fileset].flags |= SNAPSHOTS_DELETING
        self.changed_fileset(snapshot.fileset)

    def pin_snapshot(self, snapshot: Snapshot) -> None:
        """Let it be one that was deleted, and stays for the clones that rest on it."""
        self._forget_name(snapshot)
        snapshot.state = PINNED
        self.changed(snapshot)

    def filesets_with_deletions(self) -> list[FilesetId]:
        """Those that may have snapshots that are being deleted; of the root fileset that was not always noted."""
        return [
            number
            for number, fileset in self.filesets.items()
            if number == ROOT_FILESET or fileset.flags & SNAPSHOTS_DELETING
        ]

    def has_no_deletions(self, number: FilesetId) -> None:
        """All its deletions have come to their end."""
        self.filesets[number].flags &= ~SNAPSHOTS_DELETING
        self.changed_fileset(number)

    def remove_snapshot(self, snapshot: Snapshot) -> None:
        known = self._load(snapshot.fileset)
        self._forget_name(snapshot)
        del known[snapshot.id]
        order = self._order[snapshot.fileset]
        order.remove(snapshot.id)
        self.filesets[snapshot.fileset].newest = order[-1] if order else NO_SNAPSHOT
        self.changed_fileset(snapshot.fileset)
        self.changed(snapshot)

    def changed(self, snapshot: Snapshot) -> None:
        self._changed_snapshots[snapshot.id] = snapshot.fileset

    def new_snapshot_id(self) -> SnapshotId:
        number = self.state.next_snapshot
        self.state.next_snapshot = number + 1
        return SnapshotId(number)

    def seal(self) -> None:
        """Write what changed into the open group."""
        self._put_if_changed(keys.STORE_STATE, self.state.pack())
        self._seal_filesets()
        changes: dict[bytes, bytes | None] = {}
        for snapshot_id, number in self._changed_snapshots.items():
            snapshot = self._snapshots[number].get(snapshot_id)
            changes[keys.snapshot(number, snapshot_id)] = None if snapshot is None else snapshot.pack()
        self._small.put_all(changes)
        self._changed_snapshots.clear()
