"""Stores by their addresses: a store together with its peers, opened, or reached over a connection.

An address is only where a store was seen last. What stands there is taken for the store only if its guid says so.
All stores of a command are opened, or claimed, at its start, so that nobody changes roles meanwhile.

Threads: one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TypeAlias

from idemfs.clock import Clock
from idemfs.errors import ConnectionLost, IdemfsError, PeerError, RoleError, StoreInUse, StoreMissing
from idemfs.failover import addresses, records
from idemfs.failover.facts import Unreachable
from idemfs.failover.observe import guid_of
from idemfs.failover.party import Party
from idemfs.failover.records import PeerRecord
from idemfs.failover.remote import RemoteParty
from idemfs.failover.stage import Stage
from idemfs.ids import Guid
from idemfs.replication.channel import Channel
from idemfs.replication.session import Session
from idemfs.store.files import open_files
from idemfs.store.peek import read_superblock
from idemfs.store.store import Store
from idemfs.vfs.tree import Tree

Connect: TypeAlias = Callable[[str, bool], Channel]
"""Makes a connection to the store at an address, or path of a store that another process owns. With True it is for
looking only. Raises ``PeerError``, ``OSError``."""


@contextmanager
def open_stage(
    path: str,
    *,
    readonly: bool = False,
    clock: Clock | None = None,
    connect: Connect | None = None,
    end_others: Callable[[], None] | None = None,
) -> Iterator[Stage]:
    """The store at ``path`` and those of its peers that can be opened. ``readonly`` changes and locks nothing.
    ``end_others`` ends what else moves data or roles of the store; without it, that is waited for.

    Raises as ``open_files`` does for the store itself, ``RoleError`` when another command goes on with it; a peer that
    cannot be opened is told in the facts.
    """
    with ExitStack() as stack:
        me = Tree(open_store(stack, path, readonly=readonly, clock=clock))
        _claim(stack, me.store, end_others)
        peers: dict[Guid, Tree | Party] = {}
        paths = {guid_of(me): path}
        missing: list[Unreachable] = []
        for record in records.get_peers(me.store):
            try:
                peers[record.guid] = _reach(stack, me, record, readonly, clock, connect)
                paths[record.guid] = record.path
            except (IdemfsError, OSError) as error:
                if isinstance(error, StoreInUse) and error.path == path:
                    # Only the process that has this store open can reach that one: the command is its to carry out.
                    raise
                missing.append(_unreachable(record, error))
        yield Stage(me=me, peers=peers, paths=paths, missing=missing)


def open_store(stack: ExitStack, path: str, *, readonly: bool = False, clock: Clock | None = None) -> Store:
    """The store at ``path``, closed with ``stack``. Raises as ``open_files`` does."""
    store = open_files(path, readonly=readonly, background=False, clock=clock)
    stack.callback(store.close)
    return store


def _claim(stack: ExitStack, store: Store, end_others: Callable[[], None] | None = None) -> None:
    if not store.readonly:
        store.claim.take(end_others=end_others)
        stack.callback(store.claim.release)


def _reach(
    stack: ExitStack, me: Tree, record: PeerRecord, readonly: bool, clock: Clock | None, connect: Connect | None
) -> Tree | Party:
    if addresses.is_remote(record.path):
        return _connected(stack, me, record, readonly, connect)
    # Looked at before it is opened: opening makes changes to a store that was not closed well.
    if read_superblock(record.path).guid != record.guid:
        raise PeerError("another store stands there")
    try:
        tree = Tree(open_store(stack, record.path, readonly=readonly, clock=clock))
    except StoreInUse as error:
        try:
            return _connected(stack, me, record, readonly, connect)
        except ConnectionLost:
            # Whoever has it open does not answer.
            raise error from None
    _claim(stack, tree.store)
    return tree


def _connected(stack: ExitStack, me: Tree, record: PeerRecord, readonly: bool, connect: Connect | None) -> Party:
    if connect is None:
        raise ConnectionLost("is reached over a connection, which cannot be made here")
    session = stack.enter_context(Session(connect(record.path, readonly), guid_of(me)))
    if session.peer.store != record.guid:
        raise PeerError("another store stands there" if session.peer.store else "no store there")
    party = RemoteParty(session, me)
    if not readonly:
        party.claim()
    return party


def _unreachable(record: PeerRecord, error: Exception) -> Unreachable:
    if isinstance(error, StoreInUse):
        reason = f"in use by process {error.pid}"
        return Unreachable(guid=record.guid, path=record.path, reason=reason, is_alive=True)
    if type(error) is RoleError:
        # Its claim was refused. Whoever decides on a failover is to know that it is not lost.
        reason = "another command moves data or roles of it just now"
        return Unreachable(guid=record.guid, path=record.path, reason=reason, is_alive=True)
    if isinstance(error, StoreMissing):
        return Unreachable(guid=record.guid, path=record.path, reason="no store there")
    text = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
    return Unreachable(guid=record.guid, path=record.path, reason=text.removeprefix(f"{record.path}: "))
