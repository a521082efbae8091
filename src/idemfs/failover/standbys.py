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
from typing import NamedTuple, Protocol

from idemfs.clock import Clock
from idemfs.errors import Fenced, NotPrimary, PeerError
from idemfs.failover import actions, addresses, decisions, records
from idemfs.failover.facts import Held
from idemfs.failover.observe import guid_of, observe
from idemfs.failover.places import Connect, open_stage, open_store
from idemfs.failover.records import PeerRecord
from idemfs.format import role
from idemfs.format.role import Role, RoleRecord
from idemfs.format.superblock import COMPRESSION_ZSTD
from idemfs.ids import ROOT_FILESET, ROOT_INO, Guid
from idemfs.replication import guests, via
from idemfs.store.files import create_files
from idemfs.store.peek import read_superblock
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


class Invitation(NamedTuple):
    """What a primary says to whoever is to follow it: the guid of its root fileset, its format, its role."""

    primary: str
    fileset: Guid
    store: Guid
    block_size: int
    compression: str
    epoch: int
    seen_epoch: int
    via: Guid | None = None
    """The standby that says so, and that is to be followed itself."""


class Guest(NamedTuple):
    """Who follows: ``store`` None where there is none yet; ``snapshots`` of the root fileset by guid."""

    arrival: Arrival
    store: Guid | None = None
    snapshots: tuple[Guid, ...] = ()


class Place(Protocol):
    """Where the standby is, or is to be: ``address`` for people, and for the records of both stores."""

    address: str

    def judge(self, invitation: Invitation) -> Guest:
        """What is there; nothing changes. Raises ``PeerError`` for what cannot be a standby."""

    def make(self, invitation: Invitation) -> None:
        """A store, where there is none."""

    def take_in(self, invitation: Invitation, members: list[PeerRecord]) -> None:
        """Durable on return: a standby that knows its primary. Raises as ``judge``."""

    def host(self, invitation: Invitation) -> None:
        """Durable on return: a standby that filesets of any store may come to. Raises ``PeerError``."""


def add_standby(
    path: str,
    place: Place | str,
    *,
    own_address: str | None = None,
    compression: str | None = None,
    dry_run: bool = False,
    clock: Clock | None = None,
) -> Joined:
    """Make the store at ``place`` a standby of the one at ``path``; it is made when there is none.

    Empty stores and standbys of the same files are taken over, which makes it safe to repeat. ``own_address``: where
    the standby finds the primary; its path if it does not say. Where ``path`` is a standby itself, the other one
    follows it, and no other store is told. Raises ``PeerError`` for any other store, ``Fenced`` when the right of
    ``path`` to write has ended.
    """
    place = LocalPlace(place, clock) if isinstance(place, str) else place
    with ExitStack() as stack:
        me = Tree(open_store(stack, path, readonly=dry_run, clock=clock))
        _refuse_fenced(me, path)
        invitation = invite(me, path, compression)
        guest = place.judge(invitation)
        arrival = guest.arrival
        if arrival is Arrival.NEW and dry_run:
            return Joined(path=place.address, name=addresses.name_of(place.address), arrival=arrival)
        if arrival is Arrival.NEW:
            place.make(invitation)
            guest = place.judge(invitation)
        assert guest.store is not None
        members = records.get_members(me.store)
        members = records.with_member(members, guid_of(me), _own_address(me, members, path, own_address))
        if invitation.via is None:
            members = records.with_member(members, guest.store, place.address)
        common = _common(me, guest) if arrival is Arrival.STANDBY else None
        if not dry_run:
            # The standby first: a primary that knows a standby can rely on its knowing the primary.
            place.take_in(invitation, members)
            if invitation.via is None:
                records.commit_members(me.store, members)
        name = addresses.name_of(place.address)
        name = next((record.name for record in members if record.guid == guest.store), name)
        return Joined(path=place.address, name=name, arrival=arrival, common=common)


def _own_address(me: Tree, members: list[PeerRecord], path: str, wanted: str | None) -> str:
    """What it was called before, if that means the same everywhere."""
    if wanted is not None:
        return addresses.absolute(wanted)
    known = next((each.path for each in members if each.guid == guid_of(me)), path)
    return known if addresses.is_remote(known) else os.path.abspath(path)


def lodge(path: str, place: Place | str, *, clock: Clock | None = None) -> None:
    """The store at ``place`` is one that filesets of the one at ``path`` can stand in beside others; it is made when
    there is none. Raises ``PeerError`` for one that is in use for something else, ``NotPrimary``, ``Fenced``."""
    place = LocalPlace(place, clock) if isinstance(place, str) else place
    with ExitStack() as stack:
        me = Tree(open_store(stack, path, clock=clock))
        _refuse_fenced(me, path)
        if me.role.role is Role.STANDBY:
            raise NotPrimary(f"{path}: is a standby; its primary makes the store that filesets of both come to")
        place.host(invite(me, path))


def _refuse_fenced(me: Tree, path: str) -> None:
    if me.role.role is Role.FENCED:
        raise Fenced(
            f"{path}: epoch {me.role.seen_epoch} has ended this store's right to write; run 'idemfs failback {path}'"
        )


def invite(me: Tree, path: str, compression: str | None = None) -> Invitation:
    """What the store at ``path`` says to a store that is to follow it."""
    own = "zstd" if me.store.superblock.compression == COMPRESSION_ZSTD else "none"
    return Invitation(
        primary=path,
        fileset=Guid(me.store.catalog.filesets[ROOT_FILESET].guid),
        store=guid_of(me),
        block_size=me.store.block_size,
        compression=compression or own,
        epoch=me.role.epoch,
        seen_epoch=me.role.seen_epoch,
        via=guid_of(me) if me.role.role is Role.STANDBY else None,
    )


def _common(me: Tree, guest: Guest) -> Held | None:
    mine = observe(me, "")
    return next((held for held in reversed(mine.snapshots) if held.guid in guest.snapshots), None)


# -- the standby's side --------------------------------------------------------------------------------


class LocalPlace:
    """A path of this machine. ``address``: how others name it, if not by its path."""

    def __init__(self, path: str, clock: Clock | None = None, address: str | None = None) -> None:
        self.path = os.path.abspath(path)
        self.address = address or self.path
        self._clock = clock

    def judge(self, invitation: Invitation) -> Guest:
        if _is_free(self.path):
            return Guest(Arrival.NEW)
        if read_superblock(self.path).guid == invitation.store:
            raise PeerError(f"{self.address}: is the store itself; a standby is another one")
        with ExitStack() as stack:
            peer = open_store(stack, self.path, readonly=True, clock=self._clock)
            active = Active(peer) if peer.lent_by is None else Tree(peer).active
            arrival = _judge(active, self.address, invitation)
            snapshots = tuple(Guid(each.guid) for each in peer.catalog.snapshots(ROOT_FILESET))
            return Guest(arrival, Guid(peer.superblock.guid), snapshots)

    def make(self, invitation: Invitation) -> None:
        create_files(
            self.path,
            block_size=invitation.block_size,
            compression=invitation.compression,
            fileset_guid=invitation.fileset,
            first_role=RoleRecord(Role.STANDBY, invitation.epoch, invitation.seen_epoch),
            clock=self._clock,
        )

    def take_in(self, invitation: Invitation, members: list[PeerRecord]) -> None:
        with ExitStack() as stack:
            peer = open_store(stack, self.path, clock=self._clock)
            # Whoever has it open already finds that it has another role, and no root directory.
            owner = Tree(peer) if peer.lent_by is not None else None
            active = Active(peer) if owner is None else owner.active
            _take_in(active, invitation, members, _judge(active, self.address, invitation))
            if owner is not None:
                owner.reload_role()
                owner.moves += 1

    def host(self, invitation: Invitation) -> None:
        if _is_free(self.path):
            # Its root fileset is nobody's but its own.
            create_files(
                self.path, block_size=invitation.block_size, compression=invitation.compression, clock=self._clock
            )
        if read_superblock(self.path).guid == invitation.store:
            raise PeerError(f"{self.address}: is the store itself; a standby is another one")
        with ExitStack() as stack:
            peer = Tree(open_store(stack, self.path, clock=self._clock))
            if peer.store.block_size != invitation.block_size:
                raise PeerError(_other_blocks(self.address, peer.store.block_size, invitation))
            if peer.store.catalog.filesets[ROOT_FILESET].guid == invitation.fileset:
                raise PeerError(f"{self.address}: is a standby of the same files; give no name with 'as'")
            try:
                guests.become_host(peer)
            except PeerError as error:
                raise PeerError(f"{self.address}: {error}") from None


def _other_blocks(address: str, size: int, invitation: Invitation) -> str:
    return (
        f"{address}: has blocks of {size} bytes, and {invitation.primary} of {invitation.block_size}; "
        f"make it with 'idemfs init {address} --standby-of {invitation.primary}'"
    )


def _is_free(path: str) -> bool:
    """Whether a store can be made there."""
    try:
        return not os.listdir(path)
    except FileNotFoundError:
        return True
    except NotADirectoryError:
        raise PeerError(f"{path}: is a file; name a store, or a directory that does not exist yet") from None


def _judge(active: Active, peer_path: str, invitation: Invitation) -> Arrival:
    """Whether this store can be a standby. Raises ``PeerError``; nothing has changed."""
    peer = active.store
    if peer.block_size != invitation.block_size:
        raise PeerError(_other_blocks(peer_path, peer.block_size, invitation))
    is_same = peer.catalog.filesets[ROOT_FILESET].guid == invitation.fileset
    now = role.unpack(peer.small.get(role.KEY))
    if now.role is Role.STANDBY and is_same:
        return Arrival.STANDBY
    if now.role is Role.PRIMARY and guests.is_untouched(active):
        return Arrival.EMPTY
    if is_same:
        raise PeerError(f"{peer_path}: was primary of the same files; 'idemfs failback' makes it a standby again")
    raise PeerError(f"{peer_path}: is in use for something else; name an empty store, or none")


def _take_in(active: Active, invitation: Invitation, members: list[PeerRecord], arrival: Arrival) -> None:
    """One group makes an empty store a standby that knows its primary, or tells a standby where that is."""
    peer = active.store
    if arrival is Arrival.STANDBY:
        with peer.exclusive():
            peer.admit(1, 100)
            via.put(peer, invitation.via)
            records.commit_members(peer, members)
        return
    with peer.exclusive():
        peer.admit(100, 10_000)
        via.put(peer, invitation.via)
        if active.inode(ROOT_INO) is not None:
            active.remove_inode(ROOT_INO)
        peer.catalog.filesets[ROOT_FILESET].guid = invitation.fileset
        peer.catalog.changed_fileset(ROOT_FILESET)
        peer.small.put(role.KEY, role.pack(RoleRecord(Role.STANDBY, invitation.epoch, invitation.seen_epoch)))
        records.commit_members(peer, members)


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """A peer that is forgotten: where it is, whether it can be told, the newest snapshot that both have."""

    path: str
    is_reachable: bool
    common: Held | None = None


def remove_standby(
    path: str, wanted: str, *, dry_run: bool = False, clock: Clock | None = None, connect: Connect | None = None
) -> Left:
    """Forget a peer, by name or path, on both sides if it can be reached. Its files stay, and so does its role.

    Raises ``PeerError`` for a store that is not known here.
    """
    with open_stage(path, readonly=dry_run, clock=clock, connect=connect) as stage:
        record = records.find_peer(records.get_peers(stage.me.store), wanted)
        peer = stage.party(record.guid) if record.guid in stage.peers else None
        common = None
        if peer is not None:
            common = decisions.common_snapshot(observe(stage.me, path), peer.observe(record.path))
        if not dry_run:
            if peer is not None:
                peer.commit_members([])
            actions.release_holds(stage.me, record.guid)
            members = records.get_members(stage.me.store)
            records.commit_members(stage.me.store, records.without_member(members, record.guid))
        return Left(path=record.path, is_reachable=peer is not None, common=common)
