"""Restore of what has one path in a snapshot.

Threads: any; nobody else changes anything while a restore runs.
"""

from __future__ import annotations

from idemfs.api.names import AnyPath, encode, named
from idemfs.errors import SnapshotError
from idemfs.format.tables import Snapshot
from idemfs.snapshots.info import SnapshotInfo
from idemfs.snapshots.subtree import Place
from idemfs.vfs import restoring
from idemfs.vfs.paths import Paths
from idemfs.vfs.tree import Tree


class RestoreInfo:
    """What a restore of a path did, or would do."""

    __slots__ = ("inode_count", "removed_count", "renumbered_count", "undo")

    def __init__(self, done: restoring.PathRestore, undo: SnapshotInfo | None) -> None:
        self.undo = undo
        """The snapshot that has the state before, if one was kept."""
        self.inode_count = done.inode_count
        """Files, directories and whatever else the snapshot has at the path."""
        self.renumbered_count = done.renumbered_count
        """Of these, those that got another inode number, since theirs was in use."""
        self.removed_count = done.removed_count
        """What was at the place and is not in the snapshot."""

    def __repr__(self) -> str:
        return f"<RestoreInfo of {self.inode_count} inodes, undo={self.undo!r}>"


def restore_path(
    tree: Tree,
    snapshot: Snapshot,
    path: AnyPath,
    *,
    to: AnyPath | None,
    to_fileset: str | None,
    undo_name: str | None,
    dry_run: bool,
) -> RestoreInfo:
    """As ``Snapshots.restore`` says it."""
    try:
        with tree.store.exclusive():
            place = _place(tree, to, to_fileset)
            if dry_run:
                return RestoreInfo(restoring.would_restore(tree, snapshot, encode(path), place), None)
            done = restoring.restore(tree, snapshot, encode(path), place, undo_name)
            undo = done.undo
            info = None if undo is None else SnapshotInfo(undo, tree.store.catalog.filesets[undo.fileset])
            return RestoreInfo(done, info)
    except OSError as error:
        named(error, path, to)
        raise


def _place(tree: Tree, to: AnyPath | None, to_fileset: str | None) -> Place | None:
    if to is not None and to_fileset is not None:
        raise SnapshotError("it is restored to a path, or into a fileset: name one of both")
    if to is not None:
        return restoring.place_at(tree, Paths(tree.reader), encode(to))
    if to_fileset is not None:
        return restoring.place_of_fileset(tree, tree.store.catalog.fileset_named(to_fileset).number)
    return None
