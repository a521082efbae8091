"""Purges go along: what one store removed from its snapshots, the other removes from the same ones.

A purge record says of each snapshot what it was and what it has become: two guids, and the digest. The other store
purges the snapshots that it has under the old guids, by itself, and gives them guids that nobody knows; only when the
digest of one is that of the record, it gets the guid of the record, and is common again. So a purge that is interrupted
on either side, at any time, goes on when it is told again, and no two stores ever have two contents under one guid. Two
stores that were purged of the same by hand find each other in the same way.

While a standby purges the snapshot that it received last, its receiving record says that something is being undone:
its active state goes back to what that snapshot is then.

Threads: the two stores' locks are never held together.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import NamedTuple

from idemfs.errors import PeerError, SnapshotError
from idemfs.format.role import Role
from idemfs.format.tables import COMPLETE, DELETING, PINNED, Fileset, Snapshot
from idemfs.ids import FilesetId, Guid
from idemfs.replication import follow, holds, partial
from idemfs.replication.apply import drop_partial
from idemfs.replication.holds import NOTHING
from idemfs.replication.partial import Partial
from idemfs.replication.records import START
from idemfs.snapshots import audit, clones, drills, lines, promote, purge, received
from idemfs.snapshots.audit import REPLACED_SIZE_MAX, Purge
from idemfs.store.store import Store
from idemfs.vfs.tree import Tree


class Told(NamedTuple):
    """One purge of the other store; ``present``: guids of the snapshots that the fileset has there now."""

    fileset: Guid
    purge: Purge
    present: set[bytes]


def purges_of(store: Store, fileset: FilesetId) -> list[Purge]:
    """Those of the snapshots of a fileset that have ended, oldest first."""
    return [each for each in audit.purges(store) if each.fileset == fileset]


def carry_out(tree: Tree, purges: Iterable[Told]) -> None:
    """Purge what another store has purged from the snapshots that both have; durable on return.

    Raises ``PeerError`` when that cannot be done, ``NoSpace``, ``CommitFailed``.
    """
    for told in purges:
        fileset = follow.find(tree.store, told.fileset)
        if fileset is not None and lines.is_own(tree.store, fileset.number):
            with tree.store.exclusive():
                _carry_out(tree, fileset, told)
                _adopt(tree.store, fileset, told.purge)


def told_by(store: Store) -> list[Told]:
    """What another store may not know yet."""
    with store.lock:
        own = {each.number: each for each in lines.own_filesets(store)}
        ended = [each for each in audit.purges(store) if each.fileset in own]
        found = []
        for each in ended:
            fileset = own[FilesetId(each.fileset)]
            present: set[bytes] = {snapshot.guid for snapshot in store.catalog.snapshots(fileset.number)}
            found.append(Told(Guid(fileset.guid), each, present))
        return found


def _known(store: Store, fileset: Fileset) -> dict[bytes, Snapshot]:
    """By their guids."""
    known = store.catalog.all_snapshots(fileset.number)
    return {each.guid: each for each in known if each.state in (COMPLETE, PINNED)}


# -- purging -------------------------------------------------------------------------------------------


def _carry_out(tree: Tree, fileset: Fileset, told: Told) -> None:
    store = tree.store
    known = _known(store, fileset)
    guids = [bytes.fromhex(each.old_guid) for each in told.purge.replaced]
    named = [known[guid] for guid in guids if guid in known]
    half = partial.get(store, fileset.number)
    if half is not None and (named or half.is_dropping):
        # Also when the power went after the purge: the active state must not go on having it until something comes.
        drop_partial(tree, fileset.number)
    if not named:
        return
    for snapshot in named:
        # What came with holds of the other store's users, which let it be purged. Those that they have now come anew.
        holds.protect(store, snapshot, NOTHING)
        _free_of_drills(tree, snapshot)
        if tree.role.role is not Role.PRIMARY:
            _free_of_clones(tree, snapshot)
    # One that stayed for a clone alone is gone by now.
    named = [each for each in named if store.catalog.has_snapshot(each) and each.state != DELETING]
    if not named:
        return
    # crash: nothing relies on it; it brings the digest up to date.
    store.commit()
    chosen = [*named, *_others(tree, fileset, told, named)]
    follows = _follows(tree, fileset, chosen)
    if follows:
        base = received.base(store, fileset.number)
        assert base is not None
        store.admit(1, partial.RECORD_SIZE_MAX)
        partial.put(store, Partial(Guid(base.guid), None, START, base.name, is_dropping=True), fileset.number)
        # crash: from here on the active state is not to be relied on, and goes back to the snapshot, as it is then.
        store.commit()
    try:
        wanted = told.purge._replace(fileset=int(fileset.number), fileset_name=fileset.name, replaced=())
        purge.purge(tree.active, wanted, os.fsencode(told.purge.path), chosen)
    except (SnapshotError, FileNotFoundError) as error:
        raise PeerError(
            f"{told.purge.path} was purged from snapshots of fileset {fileset.name!r}, and cannot be purged from those "
            f"of the other store: {error}"
        ) from error
    finally:
        if follows and audit.under_way(store) is None:
            drop_partial(tree, fileset.number)
        tree.moves += 1


def _free_of_clones(tree: Tree, snapshot: Snapshot) -> None:
    """On the other store no clone rests on it: what does here was deleted there, is half received, or is kept here."""
    for clone in clones.clones_of(tree.store, snapshot):
        if tree.store.catalog.snapshots(clone.number):
            promote.promote(tree.active, clone)
        else:
            drop_partial(tree, clone.number)


def _free_of_drills(tree: Tree, snapshot: Snapshot) -> None:
    """A drill is nobody's but this store's: what it sees of the snapshot it gets as its own, and keeps."""
    for clone in clones.clones_of(tree.store, snapshot):
        if drills.is_drill(tree.store, clone.number):
            promote.promote(tree.active, clone)


def _others(tree: Tree, fileset: Fileset, told: Told, named: list[Snapshot]) -> list[Snapshot]:
    """Older snapshots that a standby alone has still: the path goes from these, too, unless somebody keeps them."""
    if tree.role.role is not Role.STANDBY:
        return []
    newest = max(each.id for each in named)
    found = []
    path = os.fsencode(told.purge.path)
    for snapshot in purge.seen_by(tree.active, fileset.number, path):
        if snapshot.id < newest:
            # One that stayed for a drill alone is gone then.
            _free_of_drills(tree, snapshot)
    for snapshot in purge.seen_by(tree.active, fileset.number, path):
        if snapshot.id < newest and snapshot not in named and snapshot.guid not in told.present:
            try:
                purge.refuse_changing(tree.active, snapshot)
            except SnapshotError:
                continue
            found.append(snapshot)
    return found


def _follows(tree: Tree, fileset: Fileset, chosen: list[Snapshot]) -> bool:
    """Whether the active state is that of a snapshot that is purged, and nobody works with it."""
    base = received.base(tree.store, fileset.number)
    if base is None or base not in chosen or tree.role.role is Role.PRIMARY:
        return False
    return fileset.digest == base.digest


# -- agreeing ------------------------------------------------------------------------------------------


def _adopt(store: Store, fileset: Fileset, told: Purge) -> None:
    """Snapshots that were purged here, and are now what those of ``told`` are, get the guids of these.

    Raises ``PeerError`` when the one that was received last is another one.
    """
    known = _known(store, fileset)
    base = received.base(store, fileset.number)
    mine = {
        each.old_guid: (each.new_guid, ended) for ended in purges_of(store, fileset.number) for each in ended.replaced
    }
    changed = False
    for each in told.replaced:
        new_guid, ended = mine.get(each.old_guid, (each.new_guid, None))
        snapshot = known.get(bytes.fromhex(new_guid))
        if snapshot is None or ended is None or bytes.fromhex(each.new_guid) in known:
            continue
        if snapshot.digest == int(each.digest, 16):
            store.admit(4, REPLACED_SIZE_MAX + 600)
            snapshot.guid = Guid(bytes.fromhex(each.new_guid))
            store.catalog.changed(snapshot)
            if base is not None and snapshot.id == base.id:
                received.put_base(store, Guid(snapshot.guid), fileset.number)
            audit.note(store, ended, snapshot)
            changed = True
        elif base is not None and snapshot.id == base.id:
            raise PeerError(
                f"{told.path} was purged from snapshot {snapshot.name!r} of both stores, and it is not the same "
                "in both: run 'idemfs check' on both; if nothing is found, make a new standby"
            )
    if changed:
        # crash: nothing relies on it; told again, it is found again.
        store.commit()
