"""Stores by their paths: a store together with its peers, opened; standbys added and removed.

A path is only where a store was seen last. What stands there is taken for the store only if its guid says so.
All stores of a command are opened at its start, each with its lock, so that nobody changes roles meanwhile.

Threads: one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from idemfs.clock import Clock
from idemfs.errors import Fenced, IdemfsError, NotPrimary, PeerError, StoreInUse, StoreMissing
from idemfs.failover import driver, records
from idemfs.failover.facts import Unreachable
from idemfs.failover.records import PeerRecord
from idemfs.failover.stage import Stage, guid_of
from idemfs.format import role
from idemfs.format.role import Role, RoleRecord
from idemfs.format.superblock import COMPRESSION_ZSTD
from idemfs.ids import ROOT_FILESET, ROOT_INO, Guid
from idemfs.store.files import create_files, open_files
from idemfs.store.peek import read_superblock
from idemfs.store.store import Store
from idemfs.versions.active import Active
from idemfs.vfs.tree import Tree


@contextmanager
def open_stage(path: str, *, readonly: bool = False, clock: Clock | None = None) -> Iterator[Stage]:
    """The store at ``path`` and those of its peers that can be opened. ``readonly`` changes and locks nothing.

    Raises as ``open_files`` does for the store itself; a peer that cannot be opened is told in the facts.
    """
    with ExitStack() as stack:
        me = Tree(_opened(stack, path, readonly, clock))
        peers: dict[Guid, Tree] = {}
        paths = {guid_of(me): path}
        missing: list[Unreachable] = []
        for record in records.get_peers(me.store):
            try:
                peers[record.guid] = _open_peer(stack, record, readonly, clock)
                paths[record.guid] = record.path
            except (IdemfsError, OSError) as error:
                missing.append(_unreachable(record, error))
        yield Stage(me=me, peers=peers, paths=paths, missing=missing)


def _opened(stack: ExitStack, path: str, readonly: bool, clock: Clock | None) -> Store:
    store = open_files(path, readonly=readonly, background=False, clock=clock)
    stack.callback(store.close)
    return store


def _open_peer(stack: ExitStack, record: PeerRecord, readonly: bool, clock: Clock | None) -> Tree:
    # Looked at before it is opened: opening makes changes to a store that was not closed well.
    if read_superblock(record.path).guid != record.guid:
        raise PeerError("another store stands there")
    return Tree(_opened(stack, record.path, readonly, clock))


def _unreachable(record: PeerRecord, error: Exception) -> Unreachable:
    if isinstance(error, StoreInUse):
        reason = f"in use by process {error.pid}"
        return Unreachable(guid=record.guid, path=record.path, reason=reason, is_alive=True)
    if isinstance(error, StoreMissing):
        return Unreachable(guid=record.guid, path=record.path, reason="no store there")
    text = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
    return Unreachable(guid=record.guid, path=record.path, reason=text.removeprefix(f"{record.path}: "))


# -- adding and removing -------------------------------------------------------------------------------


def add_standby(path: str, peer_path: str, *, compression: str | None = None, clock: Clock | None = None) -> PeerRecord:
    """Make the store at ``peer_path`` a standby of the one at ``path``; it is made when there is none.

    Untouched stores and standbys of the same fileset are taken over, which makes it safe to repeat. Raises
    ``PeerError`` for any other store, and ``NotPrimary``, ``Fenced`` when ``path`` is no primary.
    """
    peer_path = os.path.abspath(peer_path)
    with ExitStack() as stack:
        me = Tree(_opened(stack, path, False, clock))
        _refuse_unless_primary(me, path)
        if _is_free(peer_path):
            own = "zstd" if me.store.superblock.compression == COMPRESSION_ZSTD else "none"
            create_files(
                peer_path,
                block_size=me.store.block_size,
                compression=compression or own,
                fileset_guid=me.store.catalog.filesets[ROOT_FILESET].guid,
                clock=clock,
            )
        if read_superblock(peer_path).guid == guid_of(me):
            raise PeerError(f"{peer_path}: is the store itself; a standby is another one")
        peer = _opened(stack, peer_path, False, clock)
        members = records.with_member(records.get_members(me.store), guid_of(me), os.path.abspath(path))
        members = records.with_member(members, peer.superblock.guid, peer_path)
        # The standby first: a primary that knows a standby can rely on its knowing the primary.
        _adopt(peer, peer_path, me, path, members)
        records.commit_members(me.store, members)
        return next(record for record in members if record.guid == peer.superblock.guid)


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


def _adopt(peer: Store, peer_path: str, me: Tree, path: str, members: list[PeerRecord]) -> None:
    """One group makes an untouched store a standby that knows its primary, or tells a standby where that is."""
    fileset = peer.catalog.filesets[ROOT_FILESET]
    wanted = me.store.catalog.filesets[ROOT_FILESET].guid
    now = role.unpack(peer.small.get(role.KEY))
    if peer.block_size != me.store.block_size:
        raise PeerError(
            f"{peer_path}: has blocks of {peer.block_size} bytes, and {path} of {me.store.block_size}; "
            f"make it with 'idemfs init {peer_path} --standby-of {path}'"
        )
    if now.role is Role.STANDBY and fileset.guid == wanted:
        records.commit_members(peer, members)
        return
    active = Active(peer)
    if now.role is not Role.PRIMARY or not _is_untouched(active):
        if fileset.guid == wanted:
            raise PeerError(f"{peer_path}: was primary of the same files; 'idemfs failback' makes it a standby again")
        raise PeerError(f"{peer_path}: is in use for something else; name an empty store, or none")
    with peer.exclusive():
        peer.admit(100, 10_000)
        if active.inode(ROOT_INO) is not None:
            active.remove_inode(ROOT_INO)
        fileset.guid = wanted
        peer.small.put(role.KEY, role.pack(RoleRecord(Role.STANDBY, me.role.epoch, me.role.seen_epoch)))
        records.commit_members(peer, members)


def _is_untouched(active: Active) -> bool:
    """Whether there is nothing in the store but, perhaps, an empty root directory."""
    catalog = active.store.catalog
    if catalog.all_snapshots(ROOT_FILESET) or catalog.filesets[ROOT_FILESET].inode_count > 1:
        return False
    root = active.inode(ROOT_INO)
    return root is None or not root.size


def remove_standby(path: str, wanted: str, *, clock: Clock | None = None) -> PeerRecord:
    """Forget a peer, by name or path, on both sides if it can be reached. Its files stay, and so does its role."""
    with open_stage(path, clock=clock) as stage:
        record = records.find_peer(records.get_peers(stage.me.store), wanted)
        if record.guid in stage.peers:
            records.commit_members(stage.peers[record.guid].store, [])
        driver.release_holds(stage.me, record.guid)
        members = records.get_members(stage.me.store)
        records.commit_members(stage.me.store, records.without_member(members, record.guid))
        return record
