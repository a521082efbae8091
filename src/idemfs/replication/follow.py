"""The filesets of a standby become what those of its primary are: found, made, named, placed, limited, deleted.

The primary has right of way: a fileset that only the standby has gives up a name or a place that one of the primary's
needs. A place is taken when the state that the standby has received shows an empty directory there; until then the
fileset appears nowhere.

Threads: as told for each; ``reconcile`` under the store's lock, as part of the open group.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from idemfs.errors import BadFilesetName, StreamDamaged, StreamRefused
from idemfs.format.tables import SNAPSHOTS_COUNT, Fileset
from idemfs.ids import ROOT_FILESET, ROOT_NUMBER, FilesetId, Guid, Ino, Number, fileset_of, make_ino, number_of
from idemfs.limits import FILESET_COUNT_MAX, FILESET_NUMBER_MAX
from idemfs.replication import partial
from idemfs.replication.apply import refuse_unless_standby
from idemfs.replication.describe import description_of
from idemfs.replication.description import Description
from idemfs.snapshots import clones, delete, drills, drop, lines, promote
from idemfs.snapshots.lines import Line
from idemfs.store.store import Store
from idemfs.vfs.junctions import check_fileset_name
from idemfs.vfs.tree import Tree

RECORD_BYTES = 2000
"""What the records of one fileset may take, without its policy."""


def find(store: Store, guid: Guid) -> Fileset | None:
    return next((each for each in store.catalog.listed_filesets() if each.guid == guid), None)


def make(store: Store, guid: Guid, name: str, compression: int, line: Line | None) -> Fileset:
    """An empty fileset that appears nowhere. Part of the open group. Raises ``StreamRefused``, ``StreamDamaged``."""
    try:
        check_fileset_name(name)
    except BadFilesetName as bad:
        raise StreamDamaged(f"the stream is damaged: {bad}") from bad
    with store.lock:
        store.admit(6, RECORD_BYTES)
        catalog = store.catalog
        if len(catalog.listed_filesets()) >= FILESET_COUNT_MAX or catalog.state.next_fileset > FILESET_NUMBER_MAX:
            raise StreamRefused("this store has had as many filesets as it can have: make another standby")
        made = catalog.add_fileset(guid, free_name(store, name), Ino(0), compression)
        if line is not None:
            lines.put_line(store, made.number, line)
        return made


def free_name(store: Store, wanted: str) -> str:
    name, count = wanted, 1
    while store.catalog.has_fileset(name):
        count += 1
        name = f"{wanted}-{count}"
    return name


# -- what they are -------------------------------------------------------------------------------------


def differs(tree: Tree, wanted: Mapping[Guid, Description]) -> bool:
    """Whether ``reconcile`` may have something to do."""
    store = tree.store
    for each in lines.own_filesets(store):
        if each.guid in wanted:
            policy = (lines.policy_of(store, each.number) or b"").decode()
            if description_of(store, each)._replace(policy=policy) != wanted[each.guid]:
                return True
    return False


def reconcile(tree: Tree, wanted: Mapping[Guid, Description]) -> bool:
    """Filesets of the own line, of which ``wanted`` tells, become so; whether anything was to be changed.

    The caller has admitted ``4 * len(wanted)`` records.
    """
    store = tree.store
    ours = {each.guid: each for each in lines.own_filesets(store) if each.guid in wanted}
    changed = _name(store, ours, wanted)
    changed |= place(tree, ours, wanted)
    for guid, fileset in ours.items():
        changed |= limit(store, fileset, wanted[guid])
        policy = wanted[guid].policy.encode() or None
        if lines.policy_of(store, fileset.number) != policy:
            lines.put_policy(store, fileset.number, policy)
            changed = True
    if changed:
        tree.moves += 1
    return changed


def _name(store: Store, ours: Mapping[Guid, Fileset], wanted: Mapping[Guid, Description]) -> bool:
    catalog = store.catalog
    changing = [fileset for guid, fileset in ours.items() if fileset.name != wanted[guid].name]
    names = {wanted[fileset.guid].name for fileset in changing}
    for fileset in changing:
        # Out of the way first, since two may have exchanged their names.
        catalog.change_fileset(fileset, name=f"@{fileset.guid.hex()}")
    for other in catalog.listed_filesets():
        if other.name in names:
            catalog.change_fileset(other, name=free_name(store, f"{other.name}-here"))
    for fileset in changing:
        catalog.change_fileset(fileset, name=wanted[fileset.guid].name)
    return bool(changing)


def place(tree: Tree, ours: Mapping[Guid, Fileset], wanted: Mapping[Guid, Description]) -> bool:
    """``ours`` appear where they are to; whether anything was to be changed. Part of the open group."""
    catalog = tree.store.catalog
    places: list[tuple[Fileset, Ino]] = []
    for guid, fileset in ours.items():
        place = _place_of(tree, fileset, ours, wanted[guid])
        if place is not None and place != fileset.junction:
            places.append((fileset, place))
    for stranger in catalog.listed_filesets():
        if stranger.guid not in ours and stranger.junction and _is_place(tree, stranger.junction) is False:
            # It is going, or nobody's but the standby's, and its directory went with what came.
            places.append((stranger, Ino(0)))
    for fileset, _ in places:
        # Two may have exchanged their places, too.
        catalog.change_fileset(fileset, junction=Ino(0))
    for fileset, place in places:
        other = catalog.junctions.get(place)
        if other is not None and place:
            catalog.change_fileset(catalog.filesets[other], junction=Ino(0))
        catalog.change_fileset(fileset, junction=place)
    return bool(places)


def _place_of(tree: Tree, fileset: Fileset, ours: Mapping[Guid, Fileset], description: Description) -> Ino | None:
    """Where a fileset is to appear now; 0: nowhere, None: where it does, since nobody can tell yet."""
    if fileset.number == ROOT_FILESET or description.parent is None:
        # Where the root of another line appears is for the store to say that it is a guest of.
        return Ino(0) if lines.is_own(tree.store, fileset.number) else None
    above = ours.get(description.parent)
    if above is None:
        return Ino(0)
    ino = make_ino(above.number, Number(description.junction))
    is_place = _is_place(tree, ino)
    return None if is_place is None else ino if is_place else Ino(0)


def _is_place(tree: Tree, ino: Ino) -> bool | None:
    """Whether a fileset can appear there; None: its fileset is half received, and nobody can tell."""
    if partial.get(tree.store, fileset_of(ino)) is not None:
        return None
    node = tree.active.inode(ino)
    return bool(node is not None and node.is_dir and node.nlink and not node.size and number_of(ino) != ROOT_NUMBER)


def limit(store: Store, fileset: Fileset, description: Description) -> bool:
    """Compression, quotas and flags become so; whether they were not. Part of the open group."""
    flags = fileset.flags & ~SNAPSHOTS_COUNT | description.flags
    now = fileset.compression, fileset.quota_bytes, fileset.quota_inodes, fileset.flags
    if now == (description.compression, description.quota_bytes, description.quota_inodes, flags):
        return False
    if not fileset.is_counted:
        # The root fileset of an old store, of which nobody kept count.
        return False
    fileset.compression = description.compression
    store.catalog.limit_fileset(fileset, description.quota_bytes, description.quota_inodes, flags)
    return True


# -- clones --------------------------------------------------------------------------------------------


def promote_clones(tree: Tree, independent: Iterable[Guid]) -> None:
    """Clones that the primary made independent become so; durable on return. Raises ``NoSpace``, ``CommitFailed``.

    So nothing rests any more on what the primary may delete, or purge.
    """
    guids = set(independent)
    for fileset in lines.own_filesets(tree.store):
        # One without snapshots is half received, and is made anew if it does not go on.
        if fileset.guid in guids and fileset.origin is not None and tree.store.catalog.snapshots(fileset.number):
            promote.promote(tree.active, fileset)


# -- those that are no more ----------------------------------------------------------------------------


def delete_gone(tree: Tree, guids: Iterable[Guid]) -> list[str]:
    """Delete the filesets that were deleted on the primary of their line; names of those that stay.

    One that has what the primary had not, or a snapshot of which somebody holds, or nobody may delete, or on which a
    clone rests, stays, and appears nowhere. It is asked for again at the next update. Raises ``NotStandby``,
    ``NoSpace``, ``CommitFailed``.
    """
    store = tree.store
    staying = []
    known = lines.gone(store)
    for guid in _clones_first(store, guids):
        fileset = find(store, guid)
        if fileset is not None:
            _let_drills_stand(tree, fileset)
        with store.lock:
            # Each time: who becomes primary meanwhile keeps what it has.
            refuse_unless_standby(tree)
            is_guest = fileset is not None and lines.line_of(store, fileset.number) is not None
            if guid not in known and not is_guest:
                store.admit(1, 100)
                lines.put_gone(store, guid)
            if fileset is None or fileset.number == ROOT_FILESET or drills.is_drill(store, fileset.number):
                continue
            store.admit(4, RECORD_BYTES)
            refuse_unless_standby(tree)
            for child in [*store.catalog.children(fileset.number), fileset]:
                if child.junction:
                    store.catalog.change_fileset(child, junction=Ino(0))
                    tree.moves += 1
            is_kept = lines.is_kept(store, fileset.number) or clones.rest_on(store, fileset)
            if is_kept or drop.held_snapshots(store, fileset):
                staying.append(fileset.name)
                continue
            origin = drop.begin(tree.active, fileset)
            # crash: from here on the deletion happens, now or when the store is opened again.
            store.commit()
        drop.finish(tree.active, fileset)
        if origin is not None:
            delete.finish(tree.active, origin)
    return staying


def _let_drills_stand(tree: Tree, fileset: Fileset) -> None:
    """Drills that rest on snapshots of a fileset that goes are made independent of it."""
    for clone in clones.resting(tree.store, fileset.number):
        if drills.is_drill(tree.store, clone.number):
            promote.promote(tree.active, clone)


def _clones_first(store: Store, guids: Iterable[Guid]) -> list[Guid]:
    """A fileset can go when no clone rests on it: clones of clones, then clones, then the others."""

    def depth(guid: Guid) -> int:
        fileset, count = find(store, guid), 0
        while fileset is not None and fileset.origin is not None:
            fileset, count = store.catalog.filesets.get(fileset.origin.fileset), count + 1
        return count

    return sorted(guids, key=depth, reverse=True)


def numbers_of(store: Store, guids: Iterable[Guid]) -> dict[Guid, FilesetId]:
    """The filesets of these guids that there are."""
    there = {each.guid: each.number for each in store.catalog.listed_filesets()}
    return {guid: there[guid] for guid in guids if guid in there}
