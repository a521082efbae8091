"""Snapshots that change: written to in place, or refreshed.

Threads: any.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from idemfs.api.contents import Writable
from idemfs.snapshots import refresh
from idemfs.snapshots.info import SnapshotInfo
from idemfs.store.store import Store
from idemfs.vfs.snapshot_tree import SnapshotTree
from idemfs.vfs.tree import Tree

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from idemfs.format.tables import Snapshot


class WritableSnapshot(Writable):
    """A snapshot with the changing methods of a ``FileSystem``. Leaving its ``with`` makes durable what was done.

    What is read of the snapshot elsewhere shows each change at once. Once it is closed, or its snapshot deleted,
    changes fail with ESTALE.
    """

    def __init__(self, tree: SnapshotTree) -> None:
        super().__init__(tree)
        self._snapshot_tree = tree

    @property
    def name(self) -> str:
        """Of the snapshot, as it is now."""
        return self._snapshot_tree.snapshot.name

    def sync(self) -> None:
        """Everything that was changed before is durable on return. Raises ``CommitFailed``."""
        # crash: what is not in the log, as nothing of a snapshot is, is in the one open group.
        self.tree.sync()

    def close(self) -> None:
        """Make durable what was done, and let others write to the snapshot. Raises ``CommitFailed``."""
        self._snapshot_tree.close()
        # crash: who has written is told that it is durable.
        self.tree.sync()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<WritableSnapshot {self.name!r}>"


class SnapshotWriting:
    """The part of ``Snapshots`` that changes what snapshots hold."""

    _tree: Tree
    _store: Store

    if TYPE_CHECKING:

        def _find(self, name: str) -> Snapshot: ...
        def _info(self, snapshot: Snapshot) -> SnapshotInfo: ...

    def write(self, name: str) -> WritableSnapshot:
        """Open a snapshot to change it in place; close it, or use it in a ``with``. One at a time for a snapshot.

        Older and newer snapshots and the active file system stay what they are. The snapshot gets a new guid with each
        change. Raises ``SnapshotHeld`` for one that is held, locked, or what a standby goes on from, ``SnapshotError``
        for one that is open for writing already, ``NotPrimary``.
        """
        with self._store.lock:
            snapshot = self._find(name)
        return WritableSnapshot(SnapshotTree(self._tree, snapshot))

    def refresh(self, name: str, to: str | None = None) -> SnapshotInfo:
        """Let a snapshot be what the newer snapshot ``to`` is, or None: what the active state is now.

        Durable on return. Others stay what they are, and no data is copied. One that is brought to the active state
        becomes the newest; files that are open in it fail with ESTALE. Raises as ``write``, ``NoSpace``,
        ``CommitFailed``.
        """
        with self._store.exclusive():
            self._tree.refuse_unless_primary()
            snapshot = self._find(name)
            newer = None if to is None else self._find(to)
            self._tree.moves += 1
            return self._info(refresh.refresh(self._tree.active, snapshot, newer))
