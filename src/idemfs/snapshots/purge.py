"""Remove a path, a file or a subtree, from every snapshot of a fileset: for what should never have been there.

Snapshots are gone through from the oldest to the newest, and in each the inodes below the path from the bottom up, the
name itself last. So a purge that was interrupted begins anew when the store is opened, and finds what is left by the
same path. One inode in one snapshot is one step, in one transaction group: first the next older snapshot is given
what it sees through this one (*insulate*), then the inode is made absent or loses a name, and at last what no
snapshot sees any more is freed. The digest and the count of inodes follow; the snapshots are other ones from then on,
and have other guids, which they get before anything is changed.

Threads: nobody else changes the store meanwhile (``Store.exclusive``).
"""

from __future__ import annotations

import errno
import os
from bisect import bisect_right
from collections.abc import Collection, Iterator
from typing import NamedTuple, NoReturn

from idemfs.errors import SnapshotError
from idemfs.format import entry, indirect, keys
from idemfs.format import inode as inodes
from idemfs.format.address import sector_count_of
from idemfs.format.digest import MASK
from idemfs.format.indirect import ShadowBlock
from idemfs.format.inode import ABSENT, Inode
from idemfs.format.tables import Snapshot
from idemfs.ids import ROOT_NUMBER, FilesetId, Guid, Ino, Number, SnapshotId, make_ino, number_of
from idemfs.limits import SCAN_COUNT, SECTOR_SIZE
from idemfs.snapshots import audit, manage
from idemfs.snapshots.audit import LISTED_COUNT_MAX, RECORD_SIZE_MAX, REPLACED_SIZE_MAX, Purge
from idemfs.snapshots.clones import refuse_if_clones_rest
from idemfs.snapshots.diff import Name, names_of
from idemfs.store.store import Store
from idemfs.versions import rule, state
from idemfs.versions.active import Active
from idemfs.versions.resolve import View


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
    """The snapshots that have something at this path, oldest first. Settled."""
    names = split(path)
    snapshots = active.store.catalog.all_snapshots(fileset)
    return [each for each in snapshots if _place(View(active, each.id), fileset, names) is not None]


def refuse_changing(store: Store, snapshot: Snapshot) -> None:
    """A hold for a standby is no obstacle: it is told what became of the snapshot. Raises ``SnapshotHeld``,
    ``SnapshotLocked``."""
    manage.refuse_if_held(store, snapshot, by_stores=False)
    refuse_if_clones_rest(store, snapshot)


def refuse_missing(path: bytes) -> NoReturn:
    raise FileNotFoundError(errno.ENOENT, "no snapshot has it", os.fsdecode(path))


def purge(active: Active, wanted: Purge, path: bytes, chosen: Collection[Snapshot] | None = None) -> Purge:
    """Remove ``path`` from all snapshots of the fileset; the record of it, which says what was done. Durable on return.

    ``chosen``: from these alone.

    Raises ``SnapshotHeld``, ``SnapshotLocked`` before anything is changed, ``FileNotFoundError``, ``NoSpace``,
    ``CommitFailed``; what a failure leaves undone is done when the store is opened again.
    """
    store = active.store
    with store.exclusive():
        _settle(active)
        fileset = FilesetId(wanted.fileset)
        snapshots = seen_by(active, fileset, path)
        if chosen is not None:
            snapshots = [each for each in snapshots if each in chosen]
        if not snapshots:
            refuse_missing(path)
        if audit.under_way(store) is not None:
            raise SnapshotError("another purge was interrupted: open the store again, which carries it to its end")
        for snapshot in snapshots:
            refuse_changing(store, snapshot)
        numbers = _numbers(active, fileset, snapshots, split(path))
        record = wanted._replace(
            inodes=tuple(sorted(numbers)[:LISTED_COUNT_MAX]),
            inode_count=len(numbers),
            snapshots=tuple(each.name for each in snapshots[:LISTED_COUNT_MAX]),
            snapshot_count=len(snapshots),
        )
        record = _cut(record)
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


def _cut(record: Purge) -> Purge:
    """With as many names as the size of a record lets it have."""
    while len(audit.pack(record)) > RECORD_SIZE_MAX:
        record = record._replace(snapshots=record.snapshots[: len(record.snapshots) // 2])
    return record


def _finish(active: Active, record: Purge) -> Purge:
    store, fileset = active.store, FilesetId(record.fileset)
    if fileset in store.catalog.filesets:
        names = split(os.fsencode(record.path))
        for snapshot in store.catalog.all_snapshots(fileset):
            if not audit.has_replaced(store, record, snapshot):
                continue
            _settle(active)
            _Purging(active, snapshot).remove(names)
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


def _below(view: View, top: Place) -> Iterator[Place]:
    """Everything that the path names and leads to, from the bottom up, itself last."""
    waiting = [(top, False)]
    while waiting:
        place, is_done = waiting.pop()
        node = view.inode(place.ino)
        if is_done or node is None or not node.is_dir:
            yield place
            continue
        waiting.append((place, True))
        for key, value in view.records(*keys.kind_range(place.ino, keys.ENTRY)):
            child = make_ino(keys.fileset_of(key), entry.unpack(value)[0])
            waiting.append((Place(place.ino, key[keys.NAME_AT :], child), False))


def _numbers(active: Active, fileset: FilesetId, snapshots: list[Snapshot], names: list[bytes]) -> set[int]:
    """Of all inodes that the path leads to."""
    found: set[int] = set()
    for snapshot in snapshots:
        view = View(active, snapshot.id)
        top = _place(view, fileset, names)
        if top is not None:
            found.update(number_of(place.ino) for place in _below(view, top))
    return found


class _Purging:
    """One snapshot that loses the path."""

    def __init__(self, active: Active, snapshot: Snapshot) -> None:
        self._active = active
        self._store = active.store
        self._snapshot = snapshot
        self._fileset = snapshot.fileset
        self._view = View(active, snapshot.id)
        self._shadows = active.shadows

    def remove(self, names: list[bytes]) -> None:
        top = _place(self._view, self._fileset, names)
        if top is None:
            return
        places = list(_below(self._view, top))
        gone = {(number_of(place.directory), place.name) for place in places}
        for place in places:
            if place != top:
                self._lose(place.ino, gone)
        # The last step: until then the path leads to what is left.
        node = self._view.inode(top.ino)
        self._admit(top.ino, top.directory)
        self._change_inode(top.ino, gone)
        self._change_directory(top, is_dir=node is not None and node.is_dir)

    def _lose(self, ino: Ino, gone: set[Name]) -> None:
        self._admit(ino)
        self._change_inode(ino, gone)

    def _admit(self, *inos: Ino) -> None:
        count = size = 0
        for ino in inos:
            start, end = keys.ino_range(ino)
            if ino != inos[0]:
                # Of the directory, its inode and one entry change.
                start, end = keys.kind_range(ino, keys.INODE)
            while pairs := self._store.shadow.scan(start, end, SCAN_COUNT):
                count += len(pairs)
                size += sum(len(key) + len(value) for key, value in pairs)
                start = pairs[-1][0] + b"\0"
        for ino in inos:
            # The next older snapshot may be given all blocks of the file.
            node = self._view.inode(ino)
            if node is not None and node.is_file and not node.is_inline:
                count += node.size // self._store.block_size // 100 + 1
                size += 40 * (node.size // self._store.block_size + 1)
        self._store.admit(3 * count + 40, 2 * size + 40_000, frees=True)

    def _change_inode(self, ino: Ino, gone: set[Name]) -> None:
        """The inode goes, or loses those of its names that go."""
        node = self._view.inode(ino)
        if node is None:
            return
        names = names_of(self._view, ino, node)
        if names and not names & gone:
            return
        before = state.digest_of_inode(self._view, ino)
        left = names - gone
        if left:
            self._unlink(ino, node, names & gone, left)
        else:
            older = self._store.catalog.next_older(self._fileset, self._snapshot.id)
            if older is not None:
                self._give_all(ino, older)
            self._set(keys.inode(ino), ABSENT)
            self._snapshot.inode_count -= 1
            _Leavings(self._active, self._fileset, ino).free()
        self._account(ino, before)

    def _give_all(self, ino: Ino, older: Snapshot) -> None:
        """The next older snapshot, if it keeps the inode, owns all that it sees of it: nobody sees through a gap."""
        view = View(self._active, older.id)
        node = view.inode(ino)
        if node is None:
            return
        start, end = keys.ino_range(ino)
        shadowed = (keys.shadow_parts(key)[0] for key, _ in self._store.shadow.scan(start, end, 1 << 30))
        active = (key for key, _ in self._store.active.scan(start, end, 1 << 30))
        for key in sorted({*shadowed, *active}):
            if key[8:9] == keys.BLOCK:
                self._give_map(ino, node, keys.index_of(key), older)
            elif self._store.shadow.get(keys.shadow(key, older.id)) is None:
                self._shadows.put(key, older, view.version(key) or ABSENT)

    def _give_map(self, ino: Ino, node: Inode, index: int, older: Snapshot) -> None:
        count = state.entry_count(self._store, node, index)
        if not count:
            return
        resolved = View(self._active, older.id).map(ino, index)
        key = keys.block(ino, index)
        value = self._store.shadow.get(keys.shadow(key, older.id))
        own = ShadowBlock() if value is None else indirect.unpack_shadow(value)
        for number in range(count):
            if number not in own.entries:
                pair = own.entries[number] = resolved.get(number)
                # What the owner so far needs no more, it gives up below.
                self._store.space.share(pair[0])
                older.data_bytes += sector_count_of(pair[0]) * SECTOR_SIZE
        self._shadows.put(key, older, own.pack())

    def _unlink(self, ino: Ino, node: Inode, lost: set[Name], left: set[Name]) -> None:
        node.nlink -= len(lost)
        for parent, name in sorted(lost - {(node.parent, node.name)}):
            self._set(keys.link(ino, parent, name), ABSENT)
        if (node.parent, node.name) in lost:
            node.parent, node.name = min(left)
            self._set(keys.link(ino, node.parent, node.name), ABSENT)
        self._set(keys.inode(ino), node.pack())

    def _change_directory(self, top: Place, *, is_dir: bool) -> None:
        """The directory of the path lists the name no more."""
        node = self._view.inode(top.directory)
        if node is None:
            return
        before = state.digest_of_inode(self._view, top.directory)
        self._set(keys.entry(top.directory, top.name), ABSENT)
        node.size -= 1
        node.nlink -= is_dir
        self._set(keys.inode(top.directory), node.pack())
        self._account(top.directory, before)

    def _account(self, ino: Ino, before: int) -> None:
        self._active.resolved.pop(ino, None)
        self._snapshot.digest = (self._snapshot.digest + state.digest_of_inode(self._view, ino) - before) & MASK
        self._store.catalog.changed(self._snapshot)

    def _set(self, key: bytes, value: bytes) -> None:
        """What this snapshot has of a record from now on; older ones see what they saw."""
        older = self._store.catalog.next_older(self._fileset, self._snapshot.id)
        if older is not None and self._store.shadow.get(keys.shadow(key, older.id)) is None:
            self._insulate(key, older)
        self._shadows.put(key, self._snapshot, value)
        if key[8:9] == keys.INODE and self._snapshot.id == self._shadows.newest(keys.ino_of(key)):
            self._keep_from_preserving(keys.ino_of(key))

    def _insulate(self, key: bytes, older: Snapshot) -> None:
        ino, view = keys.ino_of(key), View(self._active, older.id)
        is_there = view.inode(ino) is not None
        if is_there or self._shadows.is_seen(ino, older.id) or key[8:9] == keys.INODE:
            seen = view.version(key) if is_there else None
            self._shadows.put(key, older, seen or ABSENT)

    def _keep_from_preserving(self, ino: Ino) -> None:
        """The newest snapshot has a version of its own now, which the next change must not replace."""
        node = self._active.inode(ino)
        if node is not None:
            node.seen = self._snapshot.id
            # What is local to a store alone changes: nothing is preserved for it.
            self._active.records.put(keys.inode(ino), node.pack())


class _Leavings:
    """What snapshots own of an inode that some of them have just lost."""

    def __init__(self, active: Active, fileset: FilesetId, ino: Ino) -> None:
        self._active = active
        self._store = active.store
        self._fileset = fileset
        self._ino = ino
        self._ids = [each.id for each in self._store.catalog.all_snapshots(fileset)]
        self._runs = list(self._seeing())

    def _seeing(self) -> Iterator[tuple[int, int, Inode]]:
        """Snapshots that still see the inode: those newer than the first number, up to the second; and what of it."""
        before = 0
        for owner, value in self._versions(keys.inode(self._ino)):
            if value != ABSENT:
                yield before, owner, inodes.unpack(value)
            before = owner
        node = self._active.inode(self._ino)
        if node is not None:
            yield max(before, node.birth), self._ids[-1], node

    def _versions(self, key: bytes) -> list[tuple[SnapshotId, bytes]]:
        pairs = self._store.shadow.scan(*keys.shadow_range(key, SnapshotId(0)), 1 << 30)
        return [(keys.shadow_parts(shadow_key)[1], value) for shadow_key, value in pairs]

    def _is_between(self, low: int, high: int) -> bool:
        """Whether there is a snapshot newer than ``low`` and not newer than ``high``."""
        at = bisect_right(self._ids, low)
        return at < len(self._ids) and self._ids[at] <= high

    def _is_needed(self, low: int, high: int, index: int = -1, number: int = -1) -> bool:
        """Whether a snapshot in this range sees the inode; and, of an indirect block, so much of the file."""
        return any(
            self._is_between(max(low, first), min(high, last))
            and (index < 0 or number < state.entry_count(self._store, node, index))
            for first, last, node in self._runs
        )

    def free(self) -> None:
        grouped: dict[bytes, list[tuple[SnapshotId, bytes]]] = {}
        for shadow_key, value in self._store.shadow.scan(*keys.ino_range(self._ino), 1 << 30):
            key, owner = keys.shadow_parts(shadow_key)
            grouped.setdefault(key, []).append((owner, value))
        for key, versions in grouped.items():
            if key[8:9] == keys.BLOCK:
                self._free_blocks(key, versions)
            elif key[8:9] != keys.INODE:
                before = 0
                for owner, _ in versions:
                    if not self._is_needed(before, owner):
                        self._active.shadows.drop(key, self._store.catalog.snapshot(self._fileset, owner))
                    before = owner
        self._free_absence(grouped)

    def _free_blocks(self, key: bytes, versions: list[tuple[SnapshotId, bytes]]) -> None:
        index = keys.index_of(key)
        before: dict[int, int] = {}
        for owner, value in versions:
            snapshot = self._store.catalog.snapshot(self._fileset, owner)
            block, kept = indirect.unpack_shadow(value), ShadowBlock()
            for number, pair in block.entries.items():
                if self._is_needed(before.get(number, 0), owner, index, number):
                    kept.entries[number] = pair
                else:
                    self._store.free(pair[0])
                    snapshot.data_bytes -= sector_count_of(pair[0]) * SECTOR_SIZE
                before[number] = owner
            if len(kept.entries) == len(block.entries):
                continue
            if kept.entries:
                self._active.shadows.put(key, snapshot, kept.pack())
            else:
                self._active.shadows.drop(key, snapshot)
        self._active.resolved.pop(self._ino, None)
        self._active.shadows.forget()

    def _free_absence(self, grouped: dict[bytes, list[tuple[SnapshotId, bytes]]]) -> None:
        """Of several snapshots in a row that do not have the inode, the newest says so for all of them."""
        catalog, key = self._store.catalog, keys.inode(self._ino)
        node = self._active.inode(self._ino)
        versions = self._versions(key)
        if not self._runs and node is not None:
            # As if it had been made after the newest snapshot.
            node.birth = node.seen = SnapshotId(self._ids[-1])
            self._active.records.put(key, node.pack())
            newest = catalog.snapshot(self._fileset, self._ids[-1])
            if self._store.shadow.get(keys.shadow(key, newest.id)) is None:
                self._active.shadows.put(key, newest, ABSENT)
        for at, (owner, value) in enumerate(versions):
            newer = versions[at + 1][1] if at + 1 < len(versions) else None
            is_said = newer == ABSENT or (newer is None and (node is None or rule.is_born_after(node.birth, owner)))
            if newer is None and node is not None:
                is_said = is_said and owner != self._ids[-1]
            snapshot = catalog.snapshot(self._fileset, owner)
            if value == ABSENT and is_said and not self._owns_more(owner):
                self._active.shadows.drop(key, snapshot)

    def _owns_more(self, owner: SnapshotId) -> bool:
        start, end = keys.ino_range(self._ino)
        pairs = self._store.owned.scan(keys.owned(owner, start), keys.owned(owner, end), 2)
        return any(key[8:] != keys.inode(self._ino) for key, _ in pairs)
