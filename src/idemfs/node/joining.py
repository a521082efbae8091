"""A place for a standby at another machine, or in a store that another process has open.

Threads: one.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from idemfs.engines import lock
from idemfs.failover import addresses, records
from idemfs.failover.addresses import HTTPS, SSH
from idemfs.failover.records import PeerRecord
from idemfs.failover.standbys import Guest, Invitation, LocalPlace, Place
from idemfs.ids import Guid
from idemfs.node import connecting
from idemfs.node.connecting import connect, hand_over
from idemfs.replication.session import Session
from idemfs.store import peek


class TakeIn(NamedTuple):
    invitation: Invitation
    members: bytes


class RemotePlace:
    """The store, or the free place, at the other end of ``session``."""

    def __init__(self, address: str, session: Session) -> None:
        self.address = address
        self._session = session

    def judge(self, invitation: Invitation) -> Guest:
        return self._session.call("judge", invitation, Guest)

    def make(self, invitation: Invitation) -> None:
        self._session.call("make_store", invitation, type(None))

    def take_in(self, invitation: Invitation, members: list[PeerRecord]) -> None:
        self._session.call("take_in", TakeIn(invitation, records.pack_members(members)), type(None))

    def host(self, invitation: Invitation) -> None:
        self._session.call("host", invitation, type(None))


@contextmanager
def place_at(store: str, address: str, own_address: str | None) -> Iterator[tuple[Place, str | None]]:
    """The place, and where it finds the store at ``store``, unless it is by its path.

    Raises ``PeerError``, ``OSError`` for a place that cannot be reached.
    """
    hand_over(store, address)
    own = None if own_address is None else addresses.absolute(own_address)
    if not addresses.is_remote(address) and not _is_in_use(address):
        yield LocalPlace(address), own
        return
    if own is None and addresses.is_remote(address) and addresses.parse(address).scheme == SSH:
        own = f"ssh://{socket.getfqdn()}{os.path.abspath(store)}"
    if own is None and addresses.is_remote(address) and addresses.parse(address).scheme == HTTPS:
        own = None if connecting.own_address is None else connecting.own_address(store)
    with Session(connect(addresses.absolute(address), False), Guid(b"")) as session:
        yield RemotePlace(addresses.absolute(address), session), own


def _is_in_use(path: str) -> bool:
    """Whether another process has the store there open."""
    return os.path.realpath(path) not in peek.lent and bool(lock.owner(path))
