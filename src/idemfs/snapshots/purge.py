"""Remove a path, a file or a subtree, from every snapshot of a fileset: for what should never have been there.

Snapshots are gone through from the oldest to the newest, and in each the names below the path from the bottom up, the
path itself last, by the door by which snapshots are written to (``versions.writing``). So a purge that was interrupted
begins anew when the store is opened, and finds what is left by the same path. One name in one snapshot is one step, in
one transaction group; a large file is cut a part at a time. At the end of a step, what no snapshot sees any more of an
inode is freed. The snapshots are other ones from then on, and have other guids, which they get before anything is
changed.

Threads: nobody else changes the store meanwhile (``Store.exclusive``).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Iterator
from typing import NamedTuple, NoReturn

from idemfs.errors import SnapshotError
from idemfs.format import entry, indirect, keys
from idemfs.format.address import sector_count_of
from idemfs.format.inode import ABSENT, Inode
from idemfs.format.tables import DELETING, PINNED, Snapshot
from idemfs.ids import ROOT_NUMBER, FilesetId, Guid, Ino, Number, SnapshotId, fileset_of, make_ino, number_of
from idemfs.limits import INDIRECT_ENTRY_COUNT, SECTOR_SIZE
from idemfs.snapshots import audit, delete, manage, write
from idemfs.snapshots.audit import LISTED_COUNT_MAX, RECORD_SIZE_MAX, REPLACED_SIZE_MAX, Purge
from idemfs.snapshots.clones import refuse_if_clones_rest
from idemfs.versions import through
from idemfs.versions.active import Active
from idemfs.versions.resolve import View
from idemfs.versions.shadows import block_bytes
from idemfs.versions.writing import Writing

_STEP_RECORD_COUNT, _STEP_BYTES = 60, 60_000
_PART_MAP_COUNT = 4
"""Indirect blocks by which a large file is cut in one step."""
_MAP_RECORD_COUNT, _MAP_BYTES = 8, 40_000
_FREEING_COUNT = 64
"""Records that nobody sees any more, and that are freed in one step."""
_DIRECTORY = 0o040000 >> 12


class Place(NamedTuple):
    """Where the path leads in one snapshot."""

    directory: Ino
    name: bytes
    ino: Ino


def split(path: bytes) -> list[bytes]:
    """Raises ``OSError`` (EINVAL) for the root, and for ``..``."""
    names = [name for name in path.split(b"/") if name not in (b"", b".")]
    if not names or b".." in names:
        raise OSError(errno.EINVAL, "a purge needs the path of a file or directory below the root of its fileset")
    return names


def seen_by(active: Active, fileset: FilesetId, path: bytes) -> list[Snapshot]:
    """The snapshots that have something at this path, oldest first, with those that are pinned. Settled."""
    names = split(path)
    snapshots = active.store.catalog.all_snapshots(fileset)
    present = [each for each in snapshots if each.state != DELETING]
    return [each for each in present if _place(View(active, each.id), fileset, names) is not None]


def refuse_changing(active: Active, snapshot: Snapshot) -> None:
    """A hold for a standby is no obstacle: it is told what became of the snapshot.

    Raises ``SnapshotHeld``, ``SnapshotLocked``, ``SnapshotError`` for one that is open for writing.
    """
    if snapshot.state != PINNED:
        manage.refuse_if_held(active.store, snapshot, by_stores=False)
        write.refuse_if_open(active, snapshot)
    refuse_if_clones_rest(active.store, snapshot)


def refuse_missing(path: bytes) -> NoReturn:
    raise FileNotFoundError(errno.ENOENT, "no snapshot has it", os.fsdecode(path))


def purge(active: Active, wanted: Purge, path: bytes, chosen: Collection[Snapshot] | None = None) -> Purge:
    """Remove ``path`` from all snapshots of the fileset; the record of it, which says what was done. Durable on return.

    ``chosen``: from these alone.

    Raises ``SnapshotHeld``, ``SnapshotLocked``, ``SnapshotError`` before anything is changed, ``FileNotFoundError``,
    ``NoSpace``, ``CommitFailed``; what a failure leaves undone is done when the store is opened again.
    """
    store = active.store
    with store.exclusive():
        fileset = FilesetId(wanted.fileset)
        _finish_deletions(active, fileset)
        _settle(active)
        snapshots = seen_by(active, fileset, path)
        if chosen is not None:
            snapshots = [each for each in snapshots if each in chosen]
        if not snapshots:
            refuse_missing(path)
        if audit.under_way(store) is not None:
            raise SnapshotError("another purge was interrupted: open the store again, which carries it to its end")
        for snapshot in snapshots:
            refuse_changing(active, snapshot)
        record = _counted(active, wanted, snapshots, split(path))
        store.admit(4 + 2 * len(snapshots), RECORD_SIZE_MAX + (REPLACED_SIZE_MAX + 300) * len(snapshots), frees=True)
        record = audit.begin(store, record, snapshots)
        for snapshot in snapshots:
            # Two contents never have one guid, also if this is interrupted.
            snapshot.guid = Guid(store.clock.random_bytes(16))
            store.catalog.changed(snapshot)
        # crash: from here on the purge happens, now or when the store is opened again.
        store.commit()
        return _finish(active, record)


def resume(active: Active) -> None:
    """Finish the purge that a crash interrupted."""
    record = audit.under_way(active.store)
    if record is not None:
        with active.store.exclusive():
            _finish(active, record)


def _finish_deletions(active: Active, fileset: FilesetId) -> None:
    """What is being deleted takes part in resolving, and would be given what newer ones lose."""
    for snapshot in active.store.catalog.all_snapshots(fileset):
        if snapshot.state == DELETING:
            delete.finish(active, snapshot)


def _finish(active: Active, record: Purge) -> Purge:
    store, fileset = active.store, FilesetId(record.fileset)
    if fileset in store.catalog.filesets:
        names = split(os.fsencode(record.path))
        for snapshot in store.catalog.all_snapshots(fileset):
            if not audit.has_replaced(store, record, snapshot):
                continue
            _settle(active)
            _remove(active, snapshot, names)
            store.admit(1, REPLACED_SIZE_MAX, frees=True)
            audit.note(store, record, snapshot)
    store.admit(3, RECORD_SIZE_MAX, frees=True)
    record = audit.end(store, record)
    active.resolved.clear()
    # crash: the audit record and the end of the purge are of one group.
    store.commit()
    return record


def _settle(active: Active) -> None:
    while active.settle():
        pass


# -- looking -----------------------------------------------------------------------------------------


def _place(view: View, fileset: FilesetId, names: list[bytes]) -> Place | None:
    at = make_ino(fileset, Number(ROOT_NUMBER))
    for index, name in enumerate(names):
        value = view.version(keys.entry(at, name)) if view.inode(at) is not None else None
        if value is None:
            return None
        below = make_ino(fileset, entry.unpack(value)[0])
        if index == len(names) - 1:
            return Place(at, name, below)
        at = below
    return None


class _Directory:
    """A directory that is gone through: from where on its entries are still to be read, and directories in it."""

    __slots__ = ("at", "below", "place")

    def __init__(self, place: Place, *, is_dir: bool) -> None:
        self.place = place
        self.at = keys.kind_range(place.ino, keys.ENTRY)[0] if is_dir else None
        self.below: list[Place] = []


def _below(view: View, top: Place) -> Iterator[Place]:
    """Everything that the path names and leads to, from the bottom up, itself last. What it gave may be removed.

    One page of entries is kept for each directory on the way down.
    """
    node = view.inode(top.ino)
    way = [_Directory(top, is_dir=node is not None and node.is_dir)]
    while way:
        here = way[-1]
        if here.below:
            way.append(_Directory(here.below.pop(), is_dir=True))
        elif here.at is None:
            yield here.place
            way.pop()
        else:
            ino = here.place.ino
            pairs, here.at = view.page(here.at, keys.kind_range(ino, keys.ENTRY)[1])
            for key, value in pairs:
                number, kind = entry.unpack(value)
                place = Place(ino, key[keys.NAME_AT :], make_ino(fileset_of(ino), number))
                if kind == _DIRECTORY:
                    here.below.append(place)
                else:
                    yield place


class _Numbers:
    """Inode numbers, each counted once, as bits: numbers of a subtree stand close to each other."""

    __slots__ = ("_bits", "count", "lowest")

    def __init__(self) -> None:
        self._bits: dict[int, int] = {}
        self.count = 0
        self.lowest: list[int] = []
        """The first that were added, so many as a record lists."""

    def add(self, number: int) -> None:
        at, bit = number >> 9, 1 << (number & 511)
        bits = self._bits.get(at, 0)
        if not bits & bit:
            self._bits[at] = bits | bit
            self.count += 1
            if self.count <= LISTED_COUNT_MAX:
                self.lowest.append(number)


def _counted(active: Active, wanted: Purge, snapshots: list[Snapshot], names: list[bytes]) -> Purge:
    """The record with what is going to be removed, and with as many names as its size lets it have."""
    numbers = _Numbers()
    for snapshot in snapshots:
        view = View(active, snapshot.id)
        top = _place(view, snapshot.fileset, names)
        for place in _below(view, top) if top is not None else ():
            numbers.add(number_of(place.ino))
    record = wanted._replace(
        inodes=tuple(sorted(numbers.lowest)),
        inode_count=numbers.count,
        snapshots=tuple(each.name for each in snapshots[:LISTED_COUNT_MAX]),
        snapshot_count=len(snapshots),
    )
    while len(audit.pack(record)) > RECORD_SIZE_MAX:
        record = record._replace(snapshots=record.snapshots[: len(record.snapshots) // 2])
    return record


# -- removing ----------------------------------------------------------------------------------------


def _remove(active: Active, snapshot: Snapshot, names: list[bytes]) -> None:
    view = View(active, snapshot.id)
    top = _place(view, snapshot.fileset, names)
    if top is None:
        return
    writing = Writing(active, snapshot)
    writing.renews_guid = False
    try:
        removing = _Removing(active, writing)
        for place in _below(view, top):
            removing.remove(place)
    finally:
        writing.close()


class _Removing:
    """One snapshot that loses names."""

    def __init__(self, active: Active, writing: Writing) -> None:
        self._store = active.store
        self._writing = writing
        self._leavings = _Leavings(active, writing.snapshot)

    def remove(self, place: Place) -> None:
        """The name goes, and with the last one the inode. Times stay what they are."""
        ino, writing = place.ino, self._writing
        node = writing.inode(ino)
        is_last = node is not None and (node.is_dir or node.nlink <= 1)
        if node is not None and is_last:
            self._shrink(ino, node)
        self._admit()
        directory = writing.change_inode(place.directory)
        writing.delete_record(keys.entry(place.directory, place.name), directory)
        directory.size -= 1
        directory.nlink -= node is not None and node.is_dir
        if is_last:
            writing.remove_inode(ino)
        elif node is not None:
            self._drop_name(ino, number_of(place.directory), place.name)
        writing.flush()
        if is_last:
            self._leavings.free(ino)

    def _admit(self, map_count: int = 2, size: int = 0) -> None:
        self._writing.flush()
        records = _STEP_RECORD_COUNT + _MAP_RECORD_COUNT * map_count
        self._store.admit(records, _STEP_BYTES + _MAP_BYTES * map_count + 2 * size, frees=True)
        self._writing.begin()

    def _shrink(self, ino: Ino, node: Inode) -> None:
        """What could be too much for one step goes before: extended attributes, and blocks from the end on."""
        writing = self._writing
        for key, value in writing.view.records(*keys.kind_range(ino, keys.XATTR)):
            self._admit(0, len(value))
            writing.delete_record(key, writing.change_inode(ino))
        size = block_bytes(node)
        part = _PART_MAP_COUNT * INDIRECT_ENTRY_COUNT
        last = -(-size // self._store.block_size)
        while last > part:
            last -= part
            self._admit(_PART_MAP_COUNT + 1)
            changing = writing.change_inode(ino)
            writing.drop_blocks(ino, changing, last)
            changing.size = last * self._store.block_size

    def _drop_name(self, ino: Ino, parent: Number, name: bytes) -> None:
        writing = self._writing
        node = writing.change_inode(ino)
        node.nlink -= 1
        if (node.parent, node.name) != (parent, name):
            writing.delete_record(keys.link(ino, parent, name), node)
            return
        for key, _ in writing.view.records(*keys.kind_range(ino, keys.LINK)):
            node.parent, node.name = Number(int.from_bytes(key[9:17], "big")), key[17:]
            writing.delete_record(key, node)
            return


class _Leavings:
    """What snapshots own of an inode that one of them has just lost, and that no older one sees."""

    def __init__(self, active: Active, snapshot: Snapshot) -> None:
        self._active = active
        self._store = active.store
        self._snapshot = snapshot

    def free(self, ino: Ino) -> None:
        """Of snapshots in a row that do not have the inode, the newest says so for all of them, and owns no more."""
        catalog, snapshot = self._store.catalog, self._snapshot
        older = catalog.next_older(snapshot.fileset, snapshot.id)
        if older is not None:
            if self._sees(older, ino) or self._active.shadows.is_seen(ino, older.id):
                return
            self._free(older, ino)
        at: Snapshot | None = snapshot
        while at is not None and not self._sees(at, ino):
            self._free(at, ino)
            at = catalog.next_newer(at.fileset, at.id)
        if at is None:
            self._note_born(ino)

    def _note_born(self, ino: Ino) -> None:
        """No snapshot sees the inode: what the active state still has of it is not preserved when it goes.

        A clone goes on seeing it as it was in the origin, which keeps it all anyhow.
        """
        active = self._active
        node = active.inode(ino)
        newest = active.fileset(ino).newest
        if node is not None and node.birth < newest and not through.rests(active, ino):
            self._store.admit(1, _MAP_BYTES, frees=True)
            node.birth = node.seen = newest
            # They are this store's own, as the time of access is: for that nothing is preserved.
            active.touch_atime(ino, node.atime)

    def _sees(self, snapshot: Snapshot, ino: Ino) -> bool:
        return View(self._active, snapshot.id).inode(ino) is not None

    def _free(self, owner: Snapshot, ino: Ino) -> None:
        """``owner`` does not see the inode, and nobody who is older."""
        start, end = (keys.owned(owner.id, key) for key in keys.ino_range(ino))
        while owned := self._store.owned.scan(start, end, _FREEING_COUNT):
            self._store.admit(4 * len(owned), _MAP_BYTES, frees=True)
            for key, _ in owned:
                self._free_record(owner, ino, key[8:])
            start = owned[-1][0] + b"\0"
        self._active.resolved.pop(ino, None)

    def _free_record(self, owner: Snapshot, ino: Ino, key: bytes) -> None:
        kind = keys.kind_of(key)
        if kind == keys.INODE:
            newer = View(self._active, SnapshotId(owner.id + 1))
            if newer.inode(ino) is not None:
                return
        elif kind == keys.BLOCK:
            value = self._store.shadow.get(keys.shadow(key, owner.id)) or ABSENT
            for address, _ in indirect.unpack_shadow(value).entries.values():
                self._store.free(address)
                owner.data_bytes -= sector_count_of(address) * SECTOR_SIZE
        self._active.shadows.drop(key, owner)
