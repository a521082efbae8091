"""What answers for a store at the end of a connection: to whoever replicates into it, or moves roles.

Whoever may open the connection may do everything with the store that its owner may: that is for the transport to see
to (ssh, rights of the local socket, certificates).

Threads: the caller's, until the other end has gone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import msgspec

from idemfs.errors import StoreMissing
from idemfs.failover import remote
from idemfs.failover.records import unpack_members
from idemfs.failover.standbys import Guest, Invitation, LocalPlace
from idemfs.ids import Guid
from idemfs.node.history import Event, record
from idemfs.node.joining import TakeIn
from idemfs.node.local_socket import STAYS, LocalSocket, Run
from idemfs.replication.channel import Channel
from idemfs.replication.session import Handler, Session
from idemfs.store.files import open_files
from idemfs.vfs.lending import lending
from idemfs.vfs.tree import Tree

_CLAIM_SECONDS = 5.0


def serve_peer(channel: Channel, path: str, *, readonly: bool = False, run: Run | None = None) -> None:
    """Answer for the store at ``path``, or for the place where one can be made, until the other end has gone.

    ``readonly``: look at its last committed group, without a lock. ``run``: carries out the commands of others, which
    find the store in use meanwhile: whoever wants to fail over need not wait until a lost connection is noticed.
    Raises as ``open_files``, ``ConnectionLost``.
    """
    with ExitStack() as stack:
        handlers = place_handlers(path)
        guid = Guid(b"")
        try:
            # Committing in the background, since what comes slowly is to be durable as it comes.
            store = open_files(path, readonly=readonly)
        except StoreMissing:
            store = None
        if store is not None:
            stack.callback(store.close)
            tree = Tree(store)
            guid = Guid(store.superblock.guid)
            handlers |= store_handlers(stack, tree)
            if store.lent_by is None and not readonly:
                stack.enter_context(lending(path, tree))
                if run is not None:
                    stack.enter_context(_listening(path, run))
        ending = _sessions.setdefault(os.path.realpath(path), set())
        stack.callback(ending.discard, channel)
        ending.add(channel)
        session = stack.enter_context(Session(channel, guid, handlers))
        session.serve()


@contextmanager
def _listening(path: str, run: Run) -> Iterator[None]:
    local = LocalSocket(path, run, lambda _: None, {STAYS: lambda: True}, lambda: end_sessions(path))
    try:
        yield
    finally:
        local.close()


def end_sessions(path: str) -> None:
    """Those with the store at ``path`` in this process find their connections closed."""
    for channel in list(_sessions.get(os.path.realpath(path), ())):
        channel.close()


_sessions: dict[str, set[Channel]] = {}


def store_handlers(stack: ExitStack, tree: Tree) -> dict[str, Handler]:
    """``stack``: what is claimed is given back when it is left."""

    def claim(_raw: msgspec.Raw, _: Session) -> None:
        tree.store.claim.take(_CLAIM_SECONDS)
        stack.callback(tree.store.claim.release)

    return {name: _watched(tree, handler) for name, handler in remote.handlers(tree).items()} | {"claim": claim}


def _watched(tree: Tree, handler: Handler) -> Handler:
    """Whoever shows the tree is told when a question changed what there is to see."""

    def answer(raw: msgspec.Raw, session: Session) -> object:
        before = tree.moves, tree.active.rewritten_count
        role = tree.role
        try:
            return handler(raw, session)
        finally:
            if (tree.role.role, tree.role.epoch) != (role.role, role.epoch) and tree.store.path:
                what = tree.role.role.name.lower()
                record(tree.store.path, Event(what=what, target=tree.store.path, epoch=tree.role.epoch))
            if (tree.moves, tree.active.rewritten_count) != before:
                for told in tree.watchers:
                    told()

    return answer


def place_handlers(path: str) -> dict[str, Handler]:
    """For whoever wants a standby there."""
    decode = msgspec.json.decode

    def judge(raw: msgspec.Raw, _: Session) -> Guest:
        return LocalPlace(path).judge(decode(raw, type=Invitation))

    def make(raw: msgspec.Raw, _: Session) -> None:
        LocalPlace(path).make(decode(raw, type=Invitation))

    def take_in(raw: msgspec.Raw, _: Session) -> None:
        invitation, members = decode(raw, type=TakeIn)
        LocalPlace(path).take_in(invitation, unpack_members(members))

    return {"judge": judge, "make_store": make, "take_in": take_in}
