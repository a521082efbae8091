"""Snapshots of an open store, by name.

Threads: any.
"""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import overload

from idemfs.api.names import AnyPath
from idemfs.api.purging import Purging
from idemfs.api.restoring import RestoreInfo, restore_path
from idemfs.api.snapshot_writing import SnapshotWriting
from idemfs.api.view import TreeView
from idemfs.errors import FilesetMissing, SnapshotError, SnapshotHeld, SnapshotMissing
from idemfs.format.role import Role
from idemfs.format.tables import Snapshot
from idemfs.limits import SCHEDULE_SECONDS_MAX, SNAPSHOT_NAME_SIZE_MAX
from idemfs.snapshots import bring_back, choose, delete, manage, received
from idemfs.snapshots.drills import is_drill
from idemfs.snapshots.info import NEVER_NS, SnapshotInfo
from idemfs.store.keeps import read_keeps
from idemfs.vfs.paths import Paths
from idemfs.vfs.tree import Tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from datetime import datetime

    from idemfs.api.schedule import Schedule


class SnapshotView(TreeView):
    """A snapshot to read. Once it is deleted, what is asked of it fails with ESTALE."""

    def __init__(self, tree: Tree, snapshot: Snapshot, info: SnapshotInfo) -> None:
        # Directories may move in a snapshot, too, when it is written to.
        super().__init__(tree, Paths(tree.snapshot_reader(snapshot), lambda: tree.moves))
        self.info = info
        """As it was when this view was made."""

    def __repr__(self) -> str:
        return f"<SnapshotView {self.info.name!r}>"


class Snapshots(Purging, SnapshotWriting):
    """The snapshots of a fileset; iterating gives a ``SnapshotInfo`` each, oldest first.

    A name is that of a snapshot of this fileset, or ``FILESET@NAME`` for any fileset of the store; ``@NAME`` is of the
    root fileset. What raises ``SnapshotMissing`` does so for a name that no snapshot has. A standby takes no changes
    here but deletions, holds and releases, and in drills: it gets its snapshots from the primary.
    """

    def create(self, name: str) -> SnapshotInfo:
        """Take a snapshot of the active state; durable on return.

        Raises ``BadSnapshotName``, ``SnapshotExists``, ``NotPrimary``, ``NoSpace``, ``CommitFailed``.
        """
        with self._store.lock:
            fileset, name = self._place(name)
            self._tree.refuse_changing(fileset)
            return self._new_info(manage.create(self._store, fileset, name))

    def create_all(
        self, *names: str, exclude: Iterable[str] = (), quiesce: AbstractContextManager[object] | None = None
    ) -> builtins.list[SnapshotInfo]:
        """Take snapshots of several filesets at one instant, all or none; durable on return. Raises as ``create``.

        ``"*@NAME"``: of all filesets whose names match, but those that match one of ``exclude``.
        ``quiesce`` is entered before the instant and left after it, whatever happens; the store is not locked then.
        """
        with quiesce or nullcontext(), self._store.lock:
            places = choose.places(self._store.catalog, names, exclude, self._fileset)
            if self._tree.role.role is not Role.PRIMARY:
                for fileset, _ in places:
                    self._tree.refuse_changing(fileset)
            made, filesets = manage.create_all(self._store, places), self._store.catalog.filesets
            return [SnapshotInfo(each, filesets[each.fileset]) for each in made]

    def list(self) -> list[SnapshotInfo]:
        """All of them, oldest first, with exactly what each owns now."""
        with self._store.lock:
            if not self._store.readonly:
                # What moves into the newest snapshot is counted when its group is sealed.
                self._tree.active.settle()
            keeps, now_ns = read_keeps(self._store.small), self._store.clock.now_ns()
            filesets, snapshots = self._store.catalog.filesets, self._store.catalog.snapshots(self._fileset)
            return [SnapshotInfo(each, filesets[each.fileset], keeps.get(each.id), now_ns) for each in snapshots]

    def __iter__(self) -> Iterator[SnapshotInfo]:
        return iter(self.list())

    def __len__(self) -> int:
        with self._store.lock:
            return len(self._store.catalog.named(self._fileset))

    def __contains__(self, name: object) -> bool:
        with self._store.lock:
            try:
                return isinstance(name, str) and self._find(name) is not None
            except (FilesetMissing, SnapshotMissing):
                return False

    def __getitem__(self, name: str) -> SnapshotView:
        """The snapshot as a tree to read."""
        with self._store.lock:
            snapshot = self._find(name)
            return SnapshotView(self._tree, snapshot, self._info(snapshot))

    def info(self, name: str) -> SnapshotInfo:
        with self._store.lock:
            if not self._store.readonly:
                self._tree.active.settle()
            return self._info(self._find(name))

    def delete(self, *names: str) -> None:
        """Delete snapshots, in any order. All of them may be deleted, or none is.

        On return it is durable that they go; what they give back is free when the next group is durable.

        Raises ``SnapshotHeld``, ``NoSpace``, ``CommitFailed``.
        """
        for snapshot in self._deletable(names):
            delete.delete(self._tree.active, snapshot)

    def check_deletable(self, *names: str) -> None:
        """Raises what ``delete`` would raise for these names."""
        self._deletable(names)

    def _deletable(self, names: Iterable[str]) -> builtins.list[Snapshot]:
        with self._store.lock:
            snapshots = [self._find(name) for name in dict.fromkeys(names)]
            for snapshot in snapshots:
                refuse_deleting(self._tree, snapshot)
            return snapshots

    def rename(self, name: str, new_name: str) -> SnapshotInfo:
        """Give a snapshot another name; its guid stays. Raises ``BadSnapshotName``, ``SnapshotExists``."""
        with self._store.lock:
            snapshot = self._find(name)
            self._tree.refuse_changing(snapshot.fileset)
            fileset, new_name = self._store.catalog.snapshot_place(new_name, snapshot.fileset)
            if fileset != snapshot.fileset:
                raise SnapshotError(
                    f"{new_name!r} is a name in another fileset than {name!r}: snapshots stay in theirs"
                )
            manage.rename(self._store, snapshot, new_name)
            return self._info(snapshot)

    @overload
    def restore(self, name: str, undo_name: str | None = None) -> SnapshotInfo: ...
    @overload
    def restore(
        self,
        name: str,
        undo_name: str | None = None,
        *,
        path: AnyPath,
        to: AnyPath | None = None,
        to_fileset: str | None = None,
        dry_run: bool = False,
    ) -> RestoreInfo: ...
    def restore(
        self,
        name: str,
        undo_name: str | None = None,
        *,
        path: AnyPath | None = None,
        to: AnyPath | None = None,
        to_fileset: str | None = None,
        dry_run: bool = False,
    ) -> SnapshotInfo | RestoreInfo:
        """Make the active state that of a snapshot; the snapshot that undoes it. Newer ones stay; durable on return.

        ``undo_name``: ``before-restore-NAME`` unless given. Files that are open show what the snapshot has of
        them. Refused while a fileset appears in a directory that the snapshot has not, or not empty.

        ``path``: only what has this path in the snapshot, a file or a directory with all that is in it; who has
        a name elsewhere by now stays as it is. It comes back where it was, or with ``to`` at another path of the
        store, which nothing has or which is an empty directory; or as all that is in fileset ``to_fileset``, which
        is empty. What is restored elsewhere can be removed again, so no snapshot is left to undo that unless
        ``undo_name`` is given. ``dry_run``: only say what would be done.

        Raises ``SnapshotExists``, ``FilesetInUse``, ``NotPrimary``, ``NoSpace``, ``CommitFailed``; for a path
        ``OSError`` as well, ``QuotaExceeded`` among them. Then nothing was changed.
        """
        if path is not None:
            with self._store.lock:
                return restore_path(
                    self._tree,
                    self._find(name),
                    path,
                    to=to,
                    to_fileset=to_fileset,
                    undo_name=undo_name,
                    dry_run=dry_run,
                )
        if to is not None or to_fileset is not None or dry_run:
            raise SnapshotError("what is to be restored elsewhere needs a path; '/' is all that the snapshot has")
        with self._store.exclusive():
            self._tree.refuse_unless_primary()
            snapshot = self._find(name)
            self._tree.refuse_losing_junctions(snapshot)
            undo = bring_back.restore(self._tree.active, snapshot, undo_name)
            self._tree.moves += 1
            return self._info(undo)

    def hold(self, name: str, owner: str, seconds: float | None = None) -> None:
        """Keep a snapshot from being deleted, for so many seconds, or until ``release``; durable on return.

        ``owner`` is a text of 1 to 200 bytes that says who needs it. Raises ``ValueError`` for another one, and for
        one that begins as those of the holds that stores make for their standbys.
        """
        if not owner.isprintable() or not 0 < len(owner.encode()) <= SNAPSHOT_NAME_SIZE_MAX:
            raise ValueError(
                f"the owner of a hold has 1 to {SNAPSHOT_NAME_SIZE_MAX} bytes, all printable: not {owner!r}"
            )
        if owner.startswith(manage.STANDBY_PREFIX):
            raise ValueError(
                f"{manage.STANDBY_PREFIX!r} begins the owners of the holds that a store makes for its standbys; "
                f"choose another owner than {owner!r}"
            )
        if seconds is not None and not 0 < seconds < SCHEDULE_SECONDS_MAX:
            raise ValueError(f"a hold lasts more than 0 and less than {SCHEDULE_SECONDS_MAX:,} seconds: not {seconds}")
        with self._store.lock:
            expires_ns = NEVER_NS if seconds is None else self._store.clock.now_ns() + int(seconds * 1e9)
            manage.hold(self._store, self._find(name), owner, expires_ns)
            self._store.commit()

    def release(self, name: str, owner: str) -> None:
        """End the hold of ``owner``, if there is one; durable on return.

        That may be a standby's, which costs it a longer transfer if the snapshot goes.
        """
        with self._store.lock:
            manage.release(self._store, self._find(name), owner)
            self._store.commit()

    def holders(self, name: str) -> builtins.list[str]:
        """Who holds the snapshot now."""
        with self._store.lock:
            return manage.holders(self._store, self._find(name))

    def lock(self, name: str, until: datetime) -> None:
        """Nobody can delete the snapshot before ``until``, and nothing takes this back; durable on return.

        Raises ``SnapshotLocked`` for an earlier time than it is locked until already, ``ValueError`` for a
        time without a zone, or one that is past or more than a century away.
        """
        if until.tzinfo is None:
            raise ValueError("a lock needs a time with a zone, such as datetime(2030, 1, 1, tzinfo=UTC)")
        with self._store.lock:
            until_ns = int(until.timestamp()) * 1_000_000_000
            seconds = (until_ns - self._store.clock.now_ns()) / 1e9
            if not 0 < seconds < SCHEDULE_SECONDS_MAX:
                raise ValueError(f"a lock ends in the future, within {SCHEDULE_SECONDS_MAX:,} seconds: not {until}")
            manage.lock(self._store, self._find(name), until_ns)
            self._store.commit()

    def locked_until(self, name: str) -> datetime | None:
        """Before when nobody can delete the snapshot; None when anybody may who has the right."""
        from datetime import UTC, datetime

        with self._store.lock:
            until_ns = manage.locked_until(self._store, self._find(name))
            return (
                datetime.fromtimestamp(until_ns // 1_000_000_000, UTC)
                if until_ns > self._store.clock.now_ns()
                else None
            )

    @property
    def schedule(self) -> Schedule:
        """When snapshots are taken by themselves, and which are kept."""
        from idemfs.api.schedule import Schedule

        return Schedule(self._tree, self._fileset)

    def _new_info(self, snapshot: Snapshot) -> SnapshotInfo:
        """Nothing keeps what was just made."""
        return SnapshotInfo(snapshot, self._store.catalog.filesets[snapshot.fileset])

    def _info(self, snapshot: Snapshot) -> SnapshotInfo:
        keep, store = manage.keep_of(self._store, snapshot), self._store
        return SnapshotInfo(snapshot, store.catalog.filesets[snapshot.fileset], keep, store.clock.now_ns())


def refuse_deleting(tree: Tree, snapshot: Snapshot) -> None:
    """Raises ``SnapshotHeld``, ``Fenced``."""
    if is_drill(tree.store, snapshot.fileset):
        manage.refuse_if_held(tree.store, snapshot)
        return
    if tree.role.role is Role.FENCED:
        tree.refuse_unless_primary()
    if tree.role.role is Role.STANDBY and received.base(tree.store, snapshot.fileset) is snapshot:
        raise SnapshotHeld(f"snapshot {snapshot.name!r} is what this standby received last, and what it shows")
    manage.refuse_if_held(tree.store, snapshot)
