"""The filesets and snapshots of a store, in memory, written with each group that changed them.

Invariant: the snapshots of a fileset are kept in order of their ids, oldest first;
``Fileset.newest`` is the last of them, one that is being deleted included, until it is gone, and ``Snapshot.older`` of
each is the one before. They are loaded along these when a fileset's are first asked for, so that opening a store of
many filesets costs what these cost.

Threads: under the store's lock.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping

from idemfs.errors import Damaged, FormatError, SnapshotMissing
from idemfs.format import keys, tables
from idemfs.format.tables import COMPLETE, DELETING, PINNED, SNAPSHOTS_DELETING, Fileset, Snapshot
from idemfs.ids import NO_SNAPSHOT, ROOT_FILESET, FilesetId, Guid, SnapshotId
from idemfs.store import upgrade
from idemfs.store.fileset_table import FilesetTable
from idemfs.store.records import Records

_ATTEMPT_COUNT_MAX = 10


class _Sequence:
    """The snapshots of one fileset: by their ids, these in order, and by their names the complete ones."""

    __slots__ = ("by_id", "by_name", "order")

    def __init__(self, snapshots: list[Snapshot]) -> None:
        self.by_id = {each.id: each for each in snapshots}
        self.order = [each.id for each in snapshots]
        self.by_name = {each.name: each for each in snapshots if each.state == COMPLETE}


def _read(small: Records, fileset: FilesetId, newest: SnapshotId) -> list[Snapshot]:
    """The snapshots of a fileset, oldest first; raises ``Damaged``."""
    at = missing = newest
    for _ in range(_ATTEMPT_COUNT_MAX):
        read: list[Snapshot] = []
        while at and (value := small.get(keys.snapshot(fileset, at))) is not None:
            read.append(tables.unpack_snapshot(fileset, at, value))
            at = read[-1].older
        if not at:
            return read[::-1]
        # Another process may have removed it since, where this one reads without the store's lock.
        missing, record = at, small.get(keys.fileset(fileset))
        at = NO_SNAPSHOT if record is None else tables.unpack_fileset(fileset, record).newest
    raise Damaged(f"the record of snapshot {missing} is missing; restore the store from a standby or a backup")


class Catalog(FilesetTable):
    """Counters, filesets and snapshots."""

    def __init__(self, small: Records) -> None:
        super().__init__(small)
        if small.first(*keys.prefix_range(upgrade.BEFORE)) is not None:
            raise FormatError(
                "written before idemfs 0.1.0, when snapshots were kept in another order; "
                "whatever changes the store, as 'idemfs snapshot create', brings it forward"
            )
        self._sequences: dict[FilesetId, _Sequence] = {}
        self._changed_snapshots: dict[SnapshotId, FilesetId] = {}

    def _load(self, fileset: FilesetId) -> _Sequence:
        known = self._sequences.get(fileset)
        if known is None:
            newest = self.filesets[fileset].newest if fileset in self.filesets else NO_SNAPSHOT
            known = self._sequences[fileset] = _Sequence(_read(self._small, fileset, newest))
        return known

    def snapshots(self, fileset: FilesetId) -> list[Snapshot]:
        """The complete ones, oldest first."""
        known = self._load(fileset)
        return [known.by_id[i] for i in known.order if known.by_id[i].state == COMPLETE]

    def newest(self, fileset: FilesetId) -> Snapshot | None:
        """The newest complete one."""
        known = self._load(fileset)
        return next((known.by_id[i] for i in reversed(known.order) if known.by_id[i].state == COMPLETE), None)

    def all_snapshots(self, fileset: FilesetId) -> list[Snapshot]:
        """Oldest first, with those that are being deleted, or pinned: they still take part in resolving."""
        known = self._load(fileset)
        return [known.by_id[i] for i in known.order]

    def snapshot(self, fileset: FilesetId, snapshot_id: SnapshotId) -> Snapshot:
        try:
            return self._load(fileset).by_id[snapshot_id]
        except KeyError:
            raise SnapshotMissing(f"snapshot {snapshot_id} does not exist any more") from None

    def named(self, fileset: FilesetId) -> Mapping[str, Snapshot]:
        """The complete ones by their names."""
        return self._load(fileset).by_name

    def rename_snapshot(self, snapshot: Snapshot, name: str) -> None:
        self._forget_name(snapshot)
        snapshot.name = name
        self._load(snapshot.fileset).by_name[name] = snapshot
        self.changed(snapshot)

    def _forget_name(self, snapshot: Snapshot) -> None:
        names = self._load(snapshot.fileset).by_name
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
        at = bisect_left(known.order, snapshot_id)
        return known.by_id[known.order[at - 1]] if at else None

    def next_newer(self, fileset: FilesetId, snapshot_id: SnapshotId) -> Snapshot | None:
        known = self._load(fileset)
        at = bisect_right(known.order, snapshot_id)
        return known.by_id[known.order[at]] if at < len(known.order) else None

    def add_snapshot(self, snapshot: Snapshot) -> None:
        number, snapshot_id, fileset = snapshot.fileset, snapshot.id, self.filesets[snapshot.fileset]
        known = self._load(number)
        known.by_id[snapshot_id] = snapshot
        known.order.append(snapshot_id)
        known.by_name[snapshot.name] = snapshot
        snapshot.older = fileset.newest
        fileset.newest = snapshot_id
        self._changed_newest.add(number)
        self._changed_snapshots[snapshot_id] = number

    def remove_fileset(self, fileset: Fileset) -> None:
        super().remove_fileset(fileset)
        self._sequences.pop(fileset.number, None)

    def has_snapshot(self, snapshot: Snapshot) -> bool:
        return snapshot.fileset in self.filesets and snapshot.id in self._load(snapshot.fileset).by_id

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
        """The next newer one changes, too."""
        known = self._load(snapshot.fileset)
        newer = self.next_newer(snapshot.fileset, snapshot.id)
        if newer is not None:
            newer.older = snapshot.older
            self.changed(newer)
        self._forget_name(snapshot)
        del known.by_id[snapshot.id]
        known.order.remove(snapshot.id)
        self.filesets[snapshot.fileset].newest = known.order[-1] if known.order else NO_SNAPSHOT
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
            snapshot = self._sequences[number].by_id.get(snapshot_id)
            changes[keys.snapshot(number, snapshot_id)] = None if snapshot is None else snapshot.pack()
        self._small.put_all(changes)
        self._changed_snapshots.clear()
