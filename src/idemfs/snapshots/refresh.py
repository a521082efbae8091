"""Refresh: roll a snapshot forward to a newer one, or to the active state. No data is copied.

To the active state: a snapshot of it is taken under the same name, and in the same group the old one begins to be
deleted. To a newer snapshot: the old one stays where it is, and inode by inode comes to see what that one sees,
through dittos or by sharing addresses. That can be interrupted, and goes on when the store is opened. Either way, older
snapshots are given what they saw, and newer ones notice nothing.

Threads: the store's lock is held all the time.
"""

from __future__ import annotations

from idemfs.errors import SnapshotError
from idemfs.format import inode as inodes
from idemfs.format import keys
from idemfs.format.inode import Inode
from idemfs.format.tables import COMPLETE, Snapshot
from idemfs.ids import FilesetId, Ino, SnapshotId
from idemfs.snapshots import delete, manage
from idemfs.snapshots.changes import changed_inodes
from idemfs.snapshots.write import refuse_changing
from idemfs.store.store import Store
from idemfs.versions.active import Active
from idemfs.versions.resolve import View
from idemfs.versions.shadows import block_bytes
from idemfs.versions.writing import Writing

_REFRESH = keys.replication("refresh")
_RECORD_BYTES = 1 << 17


def refresh(active: Active, snapshot: Snapshot, newer: Snapshot | None) -> Snapshot:
    """Let ``snapshot`` see what ``newer`` does, None: what the active state is now. Durable on return.

    Returns the snapshot that has the name now. Raises ``SnapshotError`` for a ``newer`` that is older, or of another
    fileset, ``SnapshotHeld``, ``NoSpace``, ``CommitFailed``. Without space it has begun, and goes on when it is
    asked for again, or when the store is opened.
    """
    store = active.store
    with store.exclusive():
        refuse_changing(active, snapshot)
        if newer is None:
            return _replace(active, snapshot)
        if newer.fileset != snapshot.fileset:
            raise SnapshotError(f"snapshot {newer.name!r} to refresh to is of another fileset; name one of the same")
        if newer.id <= snapshot.id:
            raise SnapshotError(f"snapshot {newer.name!r} is not newer than {snapshot.name!r}: a refresh goes forward")
        if newer.id in active.written:
            raise SnapshotError(f"snapshot {newer.name!r} is open for writing; end that first")
        store.admit(2, 300)
        value = snapshot.fileset.to_bytes(2, "big") + snapshot.id.to_bytes(8, "big") + newer.id.to_bytes(8, "big")
        store.small.put(_REFRESH, value)
        _follow_all(active, snapshot, newer)
        return snapshot


def resume(active: Active) -> None:
    """Go on with what a crash interrupted."""
    store = active.store
    value = store.small.get(_REFRESH)
    if value is None:
        return
    with store.exclusive():
        pair = _named(store, value)
        if pair is None:
            # Without space it had come to nothing, and one of the two was deleted since.
            store.admit(1, 100, frees=True)
            store.small.put(_REFRESH, None)
        else:
            _follow_all(active, *pair)


def _named(store: Store, value: bytes) -> tuple[Snapshot, Snapshot] | None:
    fileset = FilesetId(int.from_bytes(value[:2], "big"))
    if fileset not in store.catalog.filesets:
        return None
    known = {each.id: each for each in store.catalog.snapshots(fileset)}
    found = known.get(SnapshotId(int.from_bytes(value[2:10], "big")))
    newer = known.get(SnapshotId(int.from_bytes(value[10:], "big")))
    return None if found is None or newer is None else (found, newer)


def _replace(active: Active, snapshot: Snapshot) -> Snapshot:
    """Take a snapshot of the active state in the place of this one."""
    store = active.store
    name = snapshot.name

    def end_old(made: Snapshot) -> bool:
        if snapshot.state != COMPLETE:
            return False
        store.catalog.end_snapshot(snapshot)
        made.name = name
        return True

    free_name = manage.unique_name(store, snapshot.fileset, f"refresh-{snapshot.id}")
    made = manage.create(store, snapshot.fileset, free_name, joined=end_old)
    delete.finish(active, snapshot)
    return made


def _follow_all(active: Active, snapshot: Snapshot, newer: Snapshot) -> None:
    store = active.store
    store.commit(wait=False)
    view = View(active, newer.id)
    known = store.catalog.all_snapshots(snapshot.fileset)
    between = [View(active, each.id) for each in known if snapshot.id < each.id < newer.id]
    for ino, changed in changed_inodes(store, snapshot.fileset, snapshot.id, newer.id):
        block_count = sum(key[8:9] == keys.BLOCK for key in changed)
        store.admit(
            6 * len(changed) + 40, 6 * sum(map(len, changed)) + 40_000 * block_count + _RECORD_BYTES, frees=True
        )
        writing = Writing(active, snapshot)
        try:
            _follow(writing, view, between, ino, changed)
        finally:
            writing.close()
    store.admit(2, 300, frees=True)
    store.small.put(_REFRESH, None)
    # crash: what was given to the snapshot is in this group and those before, and the record goes with the last of it.
    store.commit()


def _follow(writing: Writing, view: View, between: list[View], ino: Ino, changed: list[bytes]) -> None:
    """Let one inode be what it is in the newer snapshot; ``between``: the snapshots between the two."""
    target, current = view.inode(ino), writing.inode(ino)
    if target is None:
        if current is not None:
            writing.remove_inode(ino)
        return
    if current is None:
        fresh = inodes.unpack(target.pack())
        fresh.size, fresh.data = 0, b""
        writing.insert_inode(ino, fresh)
    node = writing.change_inode(ino)
    versions = [each.inode(ino) for each in between]
    ditto_size = min(map(block_bytes, versions), default=block_bytes(target))
    indexes = [keys.index_of(key) for key in changed if key[8:9] == keys.BLOCK]
    writing.follow(ino, node, target, view, indexes, ditto_size)
    writing.may_ditto = None not in versions
    if current is None and not writing.may_ditto:
        for key, _ in list(view.records(*keys.ino_range(ino))):
            if key[8:9] != keys.INODE:
                writing.own_record(key)
    for key in changed:
        if key[8:9] not in (keys.INODE, keys.BLOCK):
            value = view.version(key)
            if value is None:
                writing.delete_record(key, node)
            else:
                writing.put_record(key, value, node)
    _copy(target, node)


def _copy(source: Inode, node: Inode) -> None:
    for field in (*inodes.PORTABLE_FIELDS, "atime", "sectors"):
        setattr(node, field, getattr(source, field))
