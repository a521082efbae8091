"""Standbys join a primary, and leave it.

Whoever joins is looked at first, with the same answer whether it is then done or, with ``dry_run``, only told.
Joining is one group in the standby, which then knows its primary, and one in the primary after it.

Threads: one.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass
from enum import Enum

from idemfs.clock import Clock
from idemfs.errors import Fenced, NotPrimary, PeerError
from idemfs.failover import decisions, driver, records
from idemfs.failover.facts import Held
from idemfs.failover.observe import observe
from idemfs.failover.places import open_stage, open_store
from idemfs.failover.records import PeerRecord
from idemfs.failover.stage import guid_of
from idemfs.format import role
from idemfs.format.role import Role, RoleRecord
from idemfs.format.superblock import COMPRESSION_ZSTD
from idemfs.ids import ROOT_FILESET, ROOT_INO
from idemfs.store.files import create_files
from idemfs.store.peek import read_superblock
from idemfs.store.store import Store
from idemfs.versions.active import Active
from idemfs.vfs.tree import Tree


class Arrival(Enum):
    """What the store at the standby's path is."""

    NEW = "there is no store yet"
    EMPTY = "an empty store"
    STANDBY = "a standby of the same files"


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """``path`` and ``name`` of the standby, and the newest snapshot of the root fileset that both had before."""

    path: str
    name: str
    arrival: Arrival
    common: Held | None = None


def add_standby(
    path: str, peer_path: str, *, compression: str | None = None, dry_run: bool = False, clock: Clock | None = None
) -> Joined:
    """Make the store at ``peer_path`` a standby of the one at ``path``; it is made when there is none.

    Empty stores and standbys of the same files are taken over, which makes it safe to repeat. Raises
    ``PeerError`` for any other store, and ``NotPrimary``, ``Fenced`` when ``path`` is no primary.
    """
    peer_path = os.path.abspath(peer_path)
    with ExitStack() as stack:
        me = Tree(open_store(stack, path, readonly=dry_run, clock=clock))
        _refuse_unless_primary(me, path)
        arrival = Arrival.NEW if _is_free(peer_path) else None
        if arrival is not None and dry_run:
            return Joined(path=peer_path, name=os.path.basename(peer_path), arrival=arrival)
        if arrival is not None:
            _make(me, peer_path, compression, clock)
        if read_superblock(peer_path).guid == guid_of(me):
            raise PeerError(f"{peer_path}: is the store itself; a standby is another one")
        peer = open_store(stack, peer_path, readonly=dry_run, clock=clock)
        active = Active(peer)
        found = _judge(active, peer_path, me, path)
        members = records.with_member(records.get_members(me.store), guid_of(me), os.path.abspath(path))
        members = records.with_member(members, peer.superblock.guid, peer_path)
        common = _common(me, peer) if found is Arrival.STANDBY else None
        if not dry_run:
            # The standby first: a primary that knows a standby can rely on its knowing the primary.
            _take_in(active, me, members, found)
            records.commit_members(me.store, members)
        name = next(record.name for record in members if record.guid == peer.superblock.guid)
        return Joined(path=peer_path, name=name, arrival=arrival or found, common=common)


def _refuse_unless_primary(me: Tree, path: str) -> None:
    if me.role.role is Role.STANDBY:
        raise NotPrimary(f"{path}: is a standby; add standbys to its primary")
    if me.role.role is Role.FENCED:
        raise Fenced(f"{path}: epoch {me.role.seen_epoch} has ended this store's right to write; run 'idemfs failback'")


def _is_free(path: str) -> bool:
    """Whether a store can be made there."""
    try:
        return not os.listdir(path)
    except FileNotFoundError:
        return True
    except NotADirectoryError:
        raise PeerError(f"{path}: is a file; name a store, or a directory that does not exist yet") from None


def _make(me: Tree, path: str, compression: str | None, clock: Clock | None) -> None:
    own = "zstd" if me.store.superblock.compression == COMPRESSION_ZSTD else "none"
    create_files(
        path,
        block_size=me.store.block_size,
        compression=compression or own,
        fileset_guid=me.store.catalog.filesets[ROOT_FILESET].guid,
        clock=clock,
    )


def _judge(active: Active, peer_path: str, me: Tree, path: str) -> Arrival:
    """Whether this store can be a standby. Raises ``PeerError``; nothing has changed."""
    peer = active.store
    if peer.block_size != me.store.block_size:
        raise PeerError(
            f"{peer_path}: has blocks of {peer.block_size} bytes, and {path} of {me.store.block_size}; "
            f"make it with 'idemfs init {peer_path} --standby-of {path}'"
        )
    is_same = peer.catalog.filesets[ROOT_FILESET].guid == me.store.catalog.filesets[ROOT_FILESET].guid
    now = role.unpack(peer.small.get(role.KEY))
    if now.role is Role.STANDBY and is_same:
        return Arrival.STANDBY
    if now.role is Role.PRIMARY and _is_untouched(active):
        return Arrival.EMPTY
    if is_same:
        raise PeerError(f"{peer_path}: was primary of the same files; 'idemfs failback' makes it a standby again")
    raise PeerError(f"{peer_path}: is in use for something else; name an empty store, or none")


def _is_untouched(active: Active) -> bool:
    """Whether there is nothing in the store but, perhaps, an empty root directory."""
    catalog = active.store.catalog
    if catalog.all_snapshots(ROOT_FILESET) or catalog.filesets[ROOT_FILESET].inode_count > 1:
        return False
    if len(catalog.filesets) > 1:
        return False
    root = active.inode(ROOT_INO)
    return root is None or not root.size


def _common(me: Tree, peer: Store) -> Held | None:
    there = {snapshot.guid for snapshot in peer.catalog.snapshots(ROOT_FILESET)}
    mine = observe(me, "")
    return next((held for held in reversed(mine.snapshots) if held.guid in there), None)


def _take_in(active: Active, me: Tree, members: list[PeerRecord], arrival: Arrival) -> None:
    """One group makes an empty store a standby that knows its primary, or tells a standby where that is."""
    peer = active.store
    if arrival is Arrival.STANDBY:
        records.commit_members(peer, members)
        return
    with peer.exclusive():
        peer.admit(100, 10_000)
        if active.inode(ROOT_INO) is not None:
            active.remove_inode(ROOT_INO)
        peer.catalog.filesets[ROOT_FILESET].guid = me.store.catalog.filesets[ROOT_FILESET].guid
        peer.catalog.changed_fileset(ROOT_FILESET)
        peer.small.put(role.KEY, role.pack(RoleRecord(Role.STANDBY, me.role.epoch, me.role.seen_epoch)))
        records.commit_members(peer, members)


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """A peer that is forgotten: where it is, whether it can be told, the newest snapshot that both have."""

    path: str
    is_reachable: bool
    common: Held | None = None


def remove_standby(path: str, wanted: str, *, dry_run: bool = False, clock: Clock | None = None) -> Left:
    """Forget a peer, by name or path, on both sides if it can be reached. Its files stay, and so does its role.

    Raises ``PeerError`` for a store that is not known here.
    """
    with open_stage(path, readonly=dry_run, clock=clock) as stage:
        record = records.find_peer(records.get_peers(stage.me.store), wanted)
        peer = stage.peers.get(record.guid)
        common = None
        if peer is not None:
            common = decisions.common_snapshot(observe(stage.me, path), observe(peer, record.path))
        if not dry_run:
            if peer is not None:
                records.commit_members(peer.store, [])
            driver.release_holds(stage.me, record.guid)
            members = records.get_members(stage.me.store)
            records.commit_members(stage.me.store, records.without_member(members, record.guid))
        return Left(path=record.path, is_reachable=peer is not None, common=common)
