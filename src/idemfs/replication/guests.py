"""Filesets of other lines in a store: *guests*, each line as a line of its own, beside each other and never mixed.

A *host* is a standby that follows nobody: its root fileset has nothing but a directory for each line that it holds, in
which the root fileset of that line appears. Readers see it as a snapshot of the root fileset, taken when a line comes.
A standby that follows a primary may have guests, too; as its root directory is the primary's, they appear nowhere, and
are read by name.

The root fileset of a line has the name that its link gives it, ``a``, the others are ``a-home``. Where these appear in
each other is as in their primary::

    P host    empty: the store is a host

Threads: as told for each; what is put is part of the open group.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping

from idemfs.errors import FilesetExists, PeerError
from idemfs.format import keys, role
from idemfs.format.role import Role, RoleRecord
from idemfs.format.tables import Fileset
from idemfs.ids import ROOT_FILESET, ROOT_INO, Guid, number_of
from idemfs.replication import follow
from idemfs.replication.description import Description
from idemfs.snapshots import delete, lines, manage, received
from idemfs.store.store import Store
from idemfs.versions.active import Active
from idemfs.vfs.fileset_state import new_inode
from idemfs.vfs.tree import Tree

_HOST = keys.replication("host")
_PLACES = "places"
_RECORD_COUNT, _RECORD_BYTES = 20, 10_000
"""What one more directory of the root changes."""


def name_there(prefix: str, description: Description, root: Guid, guid: Guid) -> str:
    """What a fileset of the line of ``root`` is called in the store that it is a guest of."""
    return prefix if guid == root else f"{prefix}-{description.name}"


def told(prefix: str, wanted: Mapping[Guid, Description], root: Guid) -> dict[Guid, Description]:
    """What the filesets of a line are in the store where they are guests: its policies take no effect there."""
    return {guid: each._replace(name=name_there(prefix, each, root, guid), policy="") for guid, each in wanted.items()}


def epochs(store: Store) -> dict[Guid, int]:
    """By lines that have guests here: the highest epoch that was heard of in each."""
    found: dict[Guid, int] = {}
    for each in store.catalog.listed_filesets():
        line = lines.line_of(store, each.number)
        if line is not None:
            found[line.root] = max(line.seen_epoch, found.get(line.root, 0))
    return found


# -- hosts ---------------------------------------------------------------------------------------------


def is_host(store: Store) -> bool:
    return store.small.get(_HOST) is not None


def become_host(tree: Tree) -> None:
    """An empty store takes filesets of others in from now on; a standby does already. Durable on return.

    Raises ``PeerError`` for a store that is in use.
    """
    store = tree.store
    if tree.role.role is Role.STANDBY:
        return
    if tree.role.role is not Role.PRIMARY or not is_untouched(tree.active):
        raise PeerError("is in use for something else; name an empty store, a standby, or none")
    with store.exclusive():
        # crash: nothing relies on it; the group below holds the change of role alone.
        store.commit()
        store.admit(4, 1000)
        epoch = tree.role.epoch
        store.small.put(_HOST, b"")
        store.small.put(role.KEY, role.pack(RoleRecord(Role.STANDBY, epoch, max(epoch, tree.role.seen_epoch))))
        # crash: who asked for it makes filesets next, which only a standby has a place for.
        store.commit()
        tree.reload_role()
        tree.moves += 1
    _show_places(tree)


def is_untouched(active: Active) -> bool:
    """Whether there is nothing in the store but, perhaps, an empty root directory."""
    catalog = active.store.catalog
    with active.store.lock:
        if catalog.all_snapshots(ROOT_FILESET) or catalog.filesets[ROOT_FILESET].inode_count > 1:
            return False
        if len(catalog.filesets) > 1:
            return False
        root = active.inode(ROOT_INO)
        return root is None or not root.size


def settle(tree: Tree) -> None:
    """In a host each line appears in the root directory, by its name. Durable on return."""
    store = tree.store
    with store.exclusive():
        if not is_host(store) or tree.role.role is not Role.STANDBY:
            return
        roots = [each for each in store.catalog.listed_filesets() if _is_root(store, each)]
        for fileset in roots:
            if not fileset.junction:
                _place(tree, fileset)
    _show_places(tree)


def _is_root(store: Store, fileset: Fileset) -> bool:
    line = lines.line_of(store, fileset.number)
    return line is not None and line.root == fileset.guid


def _place(tree: Tree, fileset: Fileset) -> None:
    """A directory of the root, which is made if there is none, and is empty."""
    store, name = tree.store, fileset.name.encode()
    store.admit(_RECORD_COUNT, _RECORD_BYTES)
    ino = tree.names.find(ROOT_INO, name)
    if ino is None:
        now_ns = store.clock.now_ns()
        ino = store.catalog.new_ino(store.catalog.filesets[ROOT_FILESET])
        mode = stat.S_IFDIR | 0o755
        node = new_inode(mode, 0, 0, now_ns)
        node.parent, node.name = number_of(ROOT_INO), name
        tree.active.insert_inode(ino, node, is_new=True)
        tree.names.add(ROOT_INO, name, ino, mode, now_ns)
    if ino not in store.catalog.junctions:
        store.catalog.change_fileset(fileset, junction=ino)
    tree.moves += 1


def _show_places(tree: Tree) -> None:
    """Readers of a standby see what was received last: here, the directories as they are now."""
    store = tree.store
    with store.exclusive():
        # crash: nothing relies on it; it brings the digest up to date.
        store.commit()
        before = received.base(store, ROOT_FILESET)
        if not is_host(store) or (before is not None and before.digest == store.catalog.filesets[ROOT_FILESET].digest):
            return
        made = manage.create(store, ROOT_FILESET, manage.unique_name(store, ROOT_FILESET, _PLACES))
        tree.moves += 1
    for each in store.catalog.snapshots(ROOT_FILESET):
        if each.id < made.id and each.name.startswith(_PLACES):
            delete.delete(tree.active, each)


# -- what guests are -----------------------------------------------------------------------------------


def refuse_taken(store: Store, guid: Guid, name: str) -> None:
    """Raises ``FilesetExists`` for a line whose name is that of something else."""
    if follow.find(store, guid) is None and store.catalog.has_fileset(name):
        raise FilesetExists(f"a fileset named {name!r} is there already, and is of another store: choose another 'as'")


def reconcile(tree: Tree, wanted: Mapping[Guid, Description]) -> bool:
    """Guests of which ``wanted`` tells become so, as ``follow.reconcile`` does it for the store's own line; whether
    anything was to be changed. The caller has admitted ``4 * len(wanted)`` records."""
    store = tree.store
    ours = {
        each.guid: each
        for each in store.catalog.listed_filesets()
        if each.guid in wanted and lines.line_of(store, each.number) is not None
    }
    if not ours:
        return False
    changed = False
    for guid, fileset in ours.items():
        if fileset.name != wanted[guid].name and not store.catalog.has_fileset(wanted[guid].name):
            store.catalog.change_fileset(fileset, name=wanted[guid].name)
            changed = True
        changed |= follow.limit(store, fileset, wanted[guid])
    changed |= follow.place(tree, ours, wanted)
    if changed:
        tree.moves += 1
    return changed
