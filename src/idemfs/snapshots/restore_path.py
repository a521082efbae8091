"""Bring a file or subtree of a snapshot back: where it was, at another place, or into another fileset.

Before anything is changed a snapshot is taken of the fileset that is changed, and a record says that a restore is
under way. Whatever ends it early, an error or a crash, goes back to that snapshot: at once, or when the store is opened
again. So a restore is done whole or not at all, however many groups it takes.

Threads: nobody else changes anything while it runs.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from idemfs.errors import CommitFailed, NoSpace, QuotaExceeded
from idemfs.format import keys
from idemfs.format.tables import COMPLETE, Fileset, Snapshot
from idemfs.ids import FilesetId, Ino, SnapshotId
from idemfs.snapshots import bring_back, delete, manage, usage
from idemfs.snapshots.graft import Graft
from idemfs.snapshots.subtree import Plan
from idemfs.store.store import Store
from idemfs.versions.active import Active


def restore(
    active: Active,
    plan: Plan,
    name: str,
    *,
    is_open: Callable[[Ino], bool],
    reclaim: Callable[[Ino], None],
    keeps_undo: bool,
) -> Snapshot | None:
    """Carry out ``plan``; the snapshot with the state before, called ``name``, if it is kept. Durable on return.

    ``reclaim`` is called for inodes without a name that are large. The caller is ``exclusive``. Raises
    ``SnapshotExists``, ``CommitFailed``, ``QuotaExceeded``, ``NoSpace``, ``Damaged``; then all is as it was before.
    """
    store = active.store
    fileset = store.catalog.filesets[plan.fileset]
    _refuse_inodes(fileset, plan)
    used_before = usage.used_bytes(store, fileset)

    def begin(undo: Snapshot) -> bool:
        store.small.put(keys.UNDOING, undo.fileset.to_bytes(2, "big") + undo.id.to_bytes(8, "big"))
        return True

    undo = manage.create(store, plan.fileset, name, joined=begin)
    try:
        graft = Graft(active, plan, is_open)
        graft.carry_out()
        for ino in graft.left:
            if not is_open(ino):
                reclaim(ino)
        _refuse_bytes(store, fileset, used_before)
        _forget(store)
        if keeps_undo:
            # crash: from here on it is done; until then opening the store undoes it.
            store.commit()
    except CommitFailed:
        # The next opening undoes it.
        raise
    except Exception:
        _undo(active, undo)
        raise
    if keeps_undo:
        return undo
    with suppress(NoSpace):
        # What is left of it goes when the store is opened.
        delete.delete(active, undo)
    return None


def _refuse_inodes(fileset: Fileset, plan: Plan) -> None:
    count = len(plan.members) - len(plan.present)
    if fileset.quota_inodes and count > 0 and fileset.inode_count + count > fileset.quota_inodes:
        raise QuotaExceeded(
            f"fileset {fileset.name!r} has {fileset.inode_count} inodes, and a quota of {fileset.quota_inodes}: "
            f"{count} more do not fit; raise it ('idemfs fileset quota')"
        )


def _refuse_bytes(store: Store, fileset: Fileset, used_before: int) -> None:
    """What it takes is known exactly when it is done; who took less than before is let through."""
    if not fileset.quota_bytes and not fileset.quota_inodes:
        return
    store.commit(wait=False)
    used = usage.used_bytes(store, fileset)
    if fileset.quota_bytes and used > max(fileset.quota_bytes, used_before):
        raise QuotaExceeded(
            f"fileset {fileset.name!r} would hold {used} bytes, and has a quota of {fileset.quota_bytes}: restore "
            "less, or raise it ('idemfs fileset quota')"
        )


def _undo(active: Active, undo: Snapshot) -> None:
    """Back to what was before, which the host holds already; then the snapshot of it goes."""
    store = active.store
    if store.catalog.filesets[undo.fileset].newest == undo.id:
        bring_back.rollback(active, undo.fileset)
    else:
        # Somebody who had begun before took another one.
        bring_back.go_back(active, undo)
    _forget(store)
    delete.delete(active, undo)


def _forget(store: Store) -> None:
    """Part of the group in which the snapshot is marked to go."""
    store.admit(1, 100, frees=True)
    store.small.put(keys.UNDOING, None)


def resume(active: Active) -> None:
    """Undo what a crash interrupted."""
    store = active.store
    value = store.small.get(keys.UNDOING)
    if value is None:
        return
    with store.exclusive():
        _undo(active, _undoing(store, value))


def _undoing(store: Store, value: bytes) -> Snapshot:
    fileset, snapshot = FilesetId(int.from_bytes(value[:2], "big")), SnapshotId(int.from_bytes(value[2:], "big"))
    found = store.catalog.snapshot(fileset, snapshot)
    assert found.state == COMPLETE, "the record goes in the group in which the snapshot does"
    return found
