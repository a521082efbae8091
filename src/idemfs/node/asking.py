"""Asks the other stores of a line for leases, each over a connection of its own that is kept open.

A store that does not answer in time is left alone until it does, or until its connection is given up; nobody else
waits for it. What it answers late is of no use to who asked: but it was asked, and has granted what it says.

Threads: one a peer that asks; ``ask_all`` is called by one at a time.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from queue import SimpleQueue

from idemfs.errors import IdemfsError, PeerError
from idemfs.failover.lease import Answer, Ask
from idemfs.ids import Guid
from idemfs.node.log import about
from idemfs.replication.channel import Channel
from idemfs.replication.session import Session

log = logging.getLogger("idemfs.guard")

_JOIN_SECONDS = 2.0
"""A thread that waits for a connection to be made may wait longer; it touches nothing of the store."""
Connect = Callable[[str], Channel]
"""Makes a connection to the store at an address. Raises ``IdemfsError``, ``OSError``."""


class _Wanted:
    """One exchange: what is asked, and what came of it."""

    def __init__(self) -> None:
        self.answers: dict[Guid, Answer] = {}
        self.failures: dict[Guid, str] = {}
        self.changed = threading.Condition()


class _Peer:
    """One other store. ``address`` may change; ``failure``: why it does not answer, in words."""

    def __init__(self, own: Guid, guid: Guid, address: str, connect: Connect, store: str) -> None:
        self.address = address
        self._own, self._guid, self._connect, self._store = own, guid, connect, store
        self._asked: SimpleQueue[tuple[Ask, _Wanted] | None] = SimpleQueue()
        self._session: Session | None = None
        self._connected_to = ""
        self.busy_since: float | None = None
        self.is_closing = False
        self._thread = threading.Thread(target=self._run, name="idemfs-ask", daemon=True)
        self._thread.start()

    def ask(self, ask: Ask, wanted: _Wanted) -> None:
        self.busy_since = time.monotonic()
        self._asked.put((ask, wanted))

    def close(self) -> None:
        self.is_closing = True
        self._asked.put(None)
        session = self._session
        if session is not None:
            session.close()

    def join(self) -> None:
        self._thread.join(_JOIN_SECONDS)

    def _run(self) -> None:
        with about(store=self._store):
            while (item := self._asked.get()) is not None:
                ask, wanted = item
                self._answer(ask, wanted)
                self.busy_since = None
            self._disconnect()

    def _answer(self, ask: Ask, wanted: _Wanted) -> None:
        try:
            answer, failure = self._reach().call("ask_lease", ask, Answer), ""
            if answer.store != self._guid:
                raise PeerError("another store stands there")
        except (IdemfsError, OSError) as error:
            answer, failure = None, str(error)
            self._disconnect()
        with wanted.changed:
            if answer is not None:
                wanted.answers[self._guid] = answer
            else:
                wanted.failures[self._guid] = failure
            wanted.changed.notify_all()

    def _reach(self) -> Session:
        """The connection, made when there is none."""
        if self._session is not None and self._connected_to != self.address:
            self._disconnect()
        if self._session is None:
            self._connected_to = self.address
            session = Session(self._connect(self.address), self._own)
            self._session = session
            if session.peer.store != self._guid:
                raise PeerError("another store stands there" if session.peer.store else "no store there")
        if self.is_closing:
            raise PeerError("the store is being closed")
        return self._session

    def _disconnect(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            with suppress(IdemfsError, OSError):
                session.close()


class Asking:
    """``own``: the store that asks. ``patience_seconds``: after so long a connection without an answer is given up."""

    def __init__(self, own: Guid, connect: Connect, store: str, patience_seconds: float) -> None:
        self._own, self._connect, self._store = own, connect, store
        self._patience = patience_seconds
        self._peers: dict[Guid, _Peer] = {}
        self.failures: dict[Guid, str] = {}
        """Why those who did not answer the last time did not, where that is known."""

    def ask_all(
        self, asks: Mapping[Guid, tuple[str, Ask]], seconds: float, meanwhile: Callable[[], None]
    ) -> tuple[Answer, ...]:
        """What came within so many seconds; ``asks``: by guid where each is, and what it is asked. ``meanwhile`` is
        called when all were asked, and is waited for."""
        begun = time.monotonic()
        wanted = _Wanted()
        for guid in [guid for guid in self._peers if guid not in asks]:
            self._peers.pop(guid).close()
        waiting = {guid for guid, (address, ask) in asks.items() if self._put(guid, address, ask, wanted)}
        meanwhile()
        with wanted.changed:
            left = max(0.0, begun + seconds - time.monotonic())
            wanted.changed.wait_for(lambda: waiting <= wanted.answers.keys() | wanted.failures.keys(), left)
            silent = {guid: "does not answer" for guid in asks if guid not in wanted.answers}
            self.failures = silent | wanted.failures
            return tuple(wanted.answers.values())

    def _put(self, guid: Guid, address: str, ask: Ask, wanted: _Wanted) -> bool:
        """Whether it was asked: not while it has an older question to answer."""
        peer = self._peers.get(guid)
        if peer is not None and peer.busy_since is not None:
            if time.monotonic() - peer.busy_since < self._patience:
                return False
            peer.close()
            peer = None
        if peer is None:
            peer = self._peers[guid] = _Peer(self._own, guid, address, self._connect, self._store)
        peer.address = address
        peer.ask(ask, wanted)
        return True

    def close(self) -> None:
        for peer in self._peers.values():
            peer.close()
        for peer in self._peers.values():
            peer.join()
        self._peers.clear()
