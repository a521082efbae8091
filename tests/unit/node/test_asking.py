"""Asking several stores for leases at once: who is silent keeps nobody waiting, and is asked again later."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress

import pytest

from idemfs.errors import ConnectionLost, IdemfsError
from idemfs.failover import grants, remote
from idemfs.failover.lease import Answer, Ask
from idemfs.failover.observe import guid_of
from idemfs.format.role import RoleRecord
from idemfs.ids import Guid
from idemfs.node.asking import Asking
from idemfs.replication.channel import Channel, PipeChannel
from idemfs.replication.session import Session
from idemfs.testing.builders import memory_tree
from idemfs.testing.clock import Simulated
from idemfs.vfs.tree import Tree

SECOND = 1_000_000_000
OWN = Guid(b"o" * 16)


class Peers:
    """Stores by their addresses, each answering in a thread of its own while ``lets_go`` is set."""

    def __init__(self, stack: ExitStack) -> None:
        self.trees: dict[str, Tree] = {}
        self.connected: list[str] = []
        self.lets_go = threading.Event()
        self.lets_go.set()
        self._stack = stack

    def add(self, address: str, seed: int) -> Guid:
        self.trees[address] = tree = memory_tree(clock=Simulated(seed))
        return guid_of(tree)

    def connect(self, address: str) -> Channel:
        self.connected.append(address)
        if address not in self.trees:
            raise ConnectionLost(f"{address}: nobody is there")
        here, there = (each.detach() for each in socket.socketpair())
        thread = threading.Thread(target=self._serve, args=(self.trees[address], PipeChannel(there, there)))
        thread.start()
        self._stack.callback(thread.join)
        return PipeChannel(here, here)

    def _serve(self, tree: Tree, channel: Channel) -> None:
        def answer(raw: bytes, session: Session) -> Answer:
            self.lets_go.wait()
            found = remote.handlers(tree)["ask_lease"](raw, session)  # type: ignore[arg-type]
            assert isinstance(found, Answer)
            return found

        with (
            suppress(IdemfsError),
            Session(channel, guid_of(tree), {"ask_lease": answer}, beat_seconds=None) as session,
        ):
            session.serve()


@pytest.fixture
def peers() -> Iterator[Peers]:
    with ExitStack() as stack:
        yield Peers(stack)


@pytest.fixture
def make(peers: Peers) -> Iterator[Callable[[float], Asking]]:
    with ExitStack() as stack:

        def made(patience: float = 60) -> Asking:
            asking = Asking(OWN, peers.connect, "data", patience)
            stack.callback(asking.close)
            # A thread that waits for its turn to answer is let end first.
            stack.callback(peers.lets_go.set)
            return asking

        yield made


def ask(seconds: int = 0) -> Ask:
    return Ask(store=OWN, role=RoleRecord(), duration_ns=seconds * SECOND)


def test_all_are_asked_and_their_connections_kept(peers: Peers, make: Callable[[], Asking]) -> None:
    one, other = peers.add("one", 1), peers.add("other", 2)
    asking, meanwhile = make(), []
    for _ in range(3):
        found = asking.ask_all(
            {one: ("one", ask()), other: ("other", ask())}, 60, lambda: meanwhile.append(len(peers.connected))
        )
        assert {each.store for each in found} == {one, other} and not asking.failures
    assert sorted(peers.connected) == ["one", "other"] and len(meanwhile) == 3


def test_who_cannot_be_reached_is_told_and_keeps_nobody_waiting(peers: Peers, make: Callable[[], Asking]) -> None:
    one = peers.add("one", 1)
    asking, gone = make(), Guid(b"g" * 16)
    found = asking.ask_all({one: ("one", ask()), gone: ("gone", ask())}, 60, lambda: None)
    assert [each.store for each in found] == [one]
    assert asking.failures == {gone: "gone: nobody is there"}


def test_another_store_at_the_address_is_not_asked(peers: Peers, make: Callable[[], Asking]) -> None:
    peers.add("one", 1)
    asking, wanted = make(), Guid(b"w" * 16)
    assert asking.ask_all({wanted: ("one", ask())}, 60, lambda: None) == ()
    assert "another store" in asking.failures[wanted]


def test_a_silent_one_is_left_alone_until_it_has_answered(peers: Peers, make: Callable[[], Asking]) -> None:
    one = peers.add("one", 1)
    asking = make()
    peers.lets_go.clear()
    assert asking.ask_all({one: ("one", ask(10))}, 0.05, lambda: None) == ()
    assert asking.ask_all({one: ("one", ask(10))}, 0.05, lambda: None) == ()
    assert asking.failures == {one: "does not answer"}
    peers.lets_go.set()
    found: tuple[Answer, ...] = ()
    while not found:
        found = asking.ask_all({one: ("one", ask(10))}, 60, lambda: None)
    assert peers.connected == ["one"]


def test_a_connection_that_is_silent_for_too_long_is_given_up(peers: Peers, make: Callable[[float], Asking]) -> None:
    one = peers.add("one", 1)
    asking = make(0.0)
    peers.lets_go.clear()
    assert asking.ask_all({one: ("one", ask())}, 0.05, lambda: None) == ()
    peers.lets_go.set()
    found = asking.ask_all({one: ("one", ask())}, 60, lambda: None)
    assert [each.store for each in found] == [one] and peers.connected == ["one", "one"]


def test_a_store_that_moved_is_asked_where_it_is_now(peers: Peers, make: Callable[[], Asking]) -> None:
    one = peers.add("one", 1)
    asking = make()
    assert asking.ask_all({one: ("one", ask())}, 60, lambda: None)
    peers.trees["elsewhere"] = peers.trees.pop("one")
    assert asking.ask_all({one: ("elsewhere", ask())}, 60, lambda: None)
    assert peers.connected == ["one", "elsewhere"]


def test_what_is_granted_over_a_connection_is_recorded_there(peers: Peers, make: Callable[[], Asking]) -> None:
    from idemfs.failover import actions

    one = peers.add("one", 1)
    tree = peers.trees["one"]
    actions.take_snapshot(tree, "first")
    actions.demote(tree, 1, None)
    (answer,) = make().ask_all({one: ("one", ask(10))}, 60, lambda: None)
    assert answer.is_granted and answer.position is not None
    granted = grants.granted_by(tree)
    assert granted is not None and granted.holder == OWN
