"""Restore of what has a path in a snapshot: where it is there, where it is to go, and what is refused.

Threads: a restore lets nobody else change anything while it runs.
"""

from __future__ import annotations

import errno

from idemfs.errors import FilesetInUse
from idemfs.format.tables import Snapshot
from idemfs.ids import ROOT_NUMBER, FilesetId, Ino, make_ino
from idemfs.limits import LINK_COUNT_MAX
from idemfs.snapshots import manage, restore_path
from idemfs.snapshots.subtree import Fate, Place, Plan
from idemfs.versions.resolve import View
from idemfs.vfs.names import check_name
from idemfs.vfs.paths import Paths
from idemfs.vfs.reader import Reader, posix
from idemfs.vfs.tree import Tree

_NAME_SIZE_MAX = 180
"""Of a snapshot, with room for what makes it unique."""


class PathRestore:
    """What a restore of a path did, or would do."""

    __slots__ = ("inode_count", "removed_count", "renumbered_count", "undo")

    def __init__(self, plan: Plan) -> None:
        self.undo: Snapshot | None = None
        """The state before, if it was kept."""
        self.inode_count = len(plan.members)
        """Files, directories and whatever else the snapshot has there."""
        self.renumbered_count = sum(fate is Fate.NEW for fate in plan.fates.values())
        """Of these, those that get another inode number, since somebody else has theirs."""
        self.removed_count = len(plan.going())
        """What is there now and is not in the snapshot."""


def restore(
    tree: Tree, snapshot: Snapshot, path: bytes, place: Place | None = None, undo_name: str | None = None
) -> PathRestore:
    """Bring back what has ``path`` in a snapshot: to ``place``, or in place; durable on return.

    In place, or with ``undo_name``, the snapshot of the state before is kept. Raises ``OSError``, ``FilesetInUse``,
    ``SnapshotExists``, ``NoSpace``, ``CommitFailed``; then nothing was changed.
    """
    store = tree.store
    with store.exclusive():
        tree.refuse_unless_primary()
        # What waits to be written is compared with what the snapshot has.
        store.commit(wait=False)
        plan = plan_restore(tree, snapshot, path, place)
        done = PathRestore(plan)
        name = undo_name or manage.unique_name(store, plan.fileset, f"before-restore-{snapshot.name}"[:_NAME_SIZE_MAX])
        done.undo = restore_path.restore(
            tree.active,
            plan,
            name,
            is_open=tree.is_open,
            reclaim=tree.reclaim,
            # What stands beside everything else can simply be removed again.
            keeps_undo=undo_name is not None or not plan.place.is_aside,
        )
        tree.moves += 1
        return done


def would_restore(tree: Tree, snapshot: Snapshot, path: bytes, place: Place | None = None) -> PathRestore:
    """What ``restore`` would do; nothing is changed. Raises ``OSError``, ``FilesetInUse``."""
    with tree.store.exclusive():
        if not tree.store.readonly:
            tree.store.commit(wait=False)
        return PathRestore(plan_restore(tree, snapshot, path, place))


def plan_restore(tree: Tree, snapshot: Snapshot, path: bytes, place: Place | None = None) -> Plan:
    """What ``restore`` is going to do, when what was changed is settled. Raises ``OSError``, ``FilesetInUse``."""
    reader = tree.snapshot_reader(snapshot)
    paths = Paths(reader)
    root, (directory, name, _) = paths.find(path, follow=False), paths.entry(path)
    if place is None:
        place = _same_place(tree, reader, path)
    plan = Plan(tree.active, View(tree.active, snapshot.id), root, (directory, name), place)
    _refuse(tree, plan)
    return plan


def place_at(tree: Tree, paths: Paths, path: bytes) -> Place:
    """A place in the active file system to restore to: a name that nothing has, or an empty directory.

    Raises ``OSError``.
    """
    with tree.store.lock:
        parent, name, _ = paths.entry(path)
        if name not in (b".", b".."):
            check_name(name)
            if tree.names.find(parent, name) is None:
                tree.refuse_as_parent(parent)
                return Place(parent, name, None, is_aside=True)
        return _empty(tree, tree.reader.lookup(parent, name))


def place_of_fileset(tree: Tree, fileset: FilesetId) -> Place:
    """The root directory of a fileset, which is empty. Raises ``OSError``."""
    with tree.store.lock:
        return _empty(tree, make_ino(fileset, ROOT_NUMBER))


def _empty(tree: Tree, ino: Ino) -> Place:
    node = tree.reader.inode(ino)
    if not node.is_dir:
        raise posix(errno.EEXIST)
    tree.refuse_as_parent(ino)
    if node.size:
        raise posix(errno.ENOTEMPTY, "what is restored goes to a new name, or into an empty directory")
    return Place(ino, b"", ino, is_aside=True)


def _same_place(tree: Tree, reader: Reader, path: bytes) -> Place:
    """Where the path of the snapshot leads in the active file system."""
    directory, name, _ = Paths(reader).entry(path)
    if name in (b".", b".."):
        raise posix(errno.EINVAL, "the root is restored with the whole fileset; a path ends in a name")
    at = make_ino(reader.fileset, ROOT_NUMBER)
    above = reader.path_inside(directory)
    for each in above.split(b"/"):
        if each:
            found = tree.names.find(at, each)
            if found is None or not tree.reader.inode(found).is_dir:
                raise posix(errno.ENOENT, f"{_shown(above)} is there no more; restore that, or elsewhere")
            at = found
    tree.refuse_as_parent(at)
    return Place(at, name, tree.names.find(at, name), is_aside=False)


def _refuse(tree: Tree, plan: Plan) -> None:
    lost = [tree.store.catalog.junctions[ino] for ino in plan.lost_junctions(tree.active)]
    if lost:
        name = tree.store.catalog.filesets[lost[0]].name
        raise FilesetInUse(
            f"fileset {name!r} appears in what would go; let it appear elsewhere ('idemfs fileset attach')"
        )
    place, is_dir = plan.place, plan.target(plan.root).is_dir
    if place.existing is not None and place.is_aside and not is_dir:
        raise posix(errno.EEXIST)
    parent = tree.reader.inode(place.parent)
    was_dir = place.existing is not None and tree.reader.inode(place.existing).is_dir
    if is_dir and not was_dir and parent.nlink >= LINK_COUNT_MAX:
        raise posix(errno.EMLINK)


def _shown(path: bytes) -> str:
    return path.decode(errors="backslashreplace")
