"""Snapshots that only this store had when it came to follow another one, until a user releases them.

Threads: any.
"""

from __future__ import annotations

import builtins
from collections.abc import Iterator
from typing import NamedTuple

from idemfs.api.snapshots import refuse_deleting
from idemfs.errors import SnapshotMissing
from idemfs.format.role import Role
from idemfs.format.tables import COMPLETE, Fileset, Snapshot
from idemfs.ids import ROOT_FILESET
from idemfs.snapshots import delete, diff, diverged, drop, lines
from idemfs.snapshots.diff import ChangeKind
from idemfs.snapshots.diverged import Mark
from idemfs.snapshots.info import SnapshotInfo
from idemfs.vfs.tree import Tree


class DivergedInfo(NamedTuple):
    """One that is not released. ``name``: ``NAME`` of the root fileset, or ``FILESET@NAME``.

    ``since``: the common snapshot, as ``name``; None when there was none, and all of it diverged, or when it was
    deleted, and nobody can tell what was changed. ``files``: how many files, directories and links were added, removed,
    renamed or changed; None when nobody can tell.
    """

    name: str
    epoch: int
    since: str | None
    created_ns: int
    owned_bytes: int
    files: int | None
    changed_bytes: int | None


class DivergedSnapshots:
    """Those of a store that are not released; iterating gives a ``DivergedInfo`` each."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._store = tree.store

    def list(self, *, compares: bool = True) -> builtins.list[DivergedInfo]:
        """``compares``: with what was changed since the common snapshot, which takes as long as that is much."""
        with self._store.lock:
            if not self._store.readonly:
                self._tree.active.settle()
            found = diverged.unreleased(self._store)
        return [self._info(snapshot, mark, compares=compares) for snapshot, mark in found]

    def _info(self, snapshot: Snapshot, mark: Mark, *, compares: bool) -> DivergedInfo:
        catalog = self._store.catalog
        known = {each.id: each for each in catalog.snapshots(snapshot.fileset)}
        since = known.get(mark.since)
        # Without anything in common all of it is.
        files = None if mark.since else snapshot.inode_count
        size = None
        if since is not None and compares:
            files = size = 0
            for change in diff.diff(self._tree.active, since, snapshot):
                if change.kind is not ChangeKind.MODIFIED or change.what != ("entries",):
                    # A directory of which only the names changed is told by those.
                    files += 1
                    size += change.changed_bytes
        return DivergedInfo(
            self._operand(snapshot),
            mark.epoch,
            None if since is None else self._operand(since),
            snapshot.created_ns,
            snapshot.owned_bytes,
            files,
            size,
        )

    def _operand(self, snapshot: Snapshot) -> str:
        return SnapshotInfo(snapshot, self._store.catalog.filesets[snapshot.fileset]).operand

    def __iter__(self) -> Iterator[DivergedInfo]:
        return iter(self.list())

    def release(self, name: str, *, delete: bool = False) -> None:
        """``name`` is not reported any more, and is like any other snapshot, or it is deleted; durable on return.

        With the last snapshot of a fileset that no primary knows of, the fileset is deleted. Raises
        ``SnapshotMissing`` when it did not diverge, or was released before, ``SnapshotHeld``, ``NoSpace``.
        """
        self._release(self._find(name), is_deleted=delete)

    def check_releasable(self, name: str, *, delete: bool = False) -> None:
        """Raises what ``release`` would raise."""
        snapshot = self._find(name)
        if delete and not self._goes_whole(snapshot):
            refuse_deleting(self._tree, snapshot)

    def _find(self, name: str) -> Snapshot:
        with self._store.lock:
            snapshot = self._store.catalog.by_name(*self._store.catalog.snapshot_place(name))
            mark = diverged.of(self._store, snapshot)
        if mark is None or mark.is_released or snapshot.state != COMPLETE:
            raise SnapshotMissing(
                f"snapshot {name!r} is not reported as diverged; 'idemfs diverged list STORE' shows those that are"
            )
        return snapshot

    def _release(self, snapshot: Snapshot, *, is_deleted: bool) -> None:
        store = self._store
        with store.lock:
            if is_deleted and self._goes_whole(snapshot):
                self._drop_fileset(store.catalog.filesets[snapshot.fileset])
                return
            if is_deleted:
                refuse_deleting(self._tree, snapshot)
            store.admit(2, 200)
            diverged.release(store, snapshot)
            if not any(each.fileset == snapshot.fileset for each, _ in diverged.unreleased(store)):
                # The primary's word goes for the whole fileset again.
                lines.put_kept(store, snapshot.fileset, False)
            # crash: who released it is told so.
            store.commit()
        if is_deleted:
            delete.delete(self._tree.active, snapshot)

    def _goes_whole(self, snapshot: Snapshot) -> bool:
        """Whether it is the last one of a fileset that no primary knows of, and that a standby has put aside."""
        mark = diverged.of(self._store, snapshot)
        is_aside = mark is not None and not mark.since and snapshot.fileset != ROOT_FILESET
        if not is_aside or self._tree.role.role is not Role.STANDBY:
            return False
        is_shown = self._store.catalog.filesets[snapshot.fileset].junction != 0
        return not is_shown and len(self._store.catalog.snapshots(snapshot.fileset)) == 1

    def _drop_fileset(self, fileset: Fileset) -> None:
        store = self._store
        self._tree.refuse_deleting(fileset)
        store.admit(20, 4000, frees=True)
        origin = drop.begin(self._tree.active, fileset)
        # crash: from here on the deletion happens, now or when the store is opened again.
        store.commit()
        drop.finish(self._tree.active, fileset)
        if origin is not None:
            delete.finish(self._tree.active, origin)
