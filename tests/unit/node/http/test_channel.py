"""Channels between nodes: messages come whole and in order, both ways, or the connection is lost."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
import pytest

from idemfs.cli.served import ServedActions
from idemfs.clock import System
from idemfs.errors import ConnectionLost, PeerError
from idemfs.ids import Guid
from idemfs.limits import MESSAGE_SIZE_MAX
from idemfs.node import tls
from idemfs.node.http import client
from idemfs.node.http.client import WebSocketChannel
from idemfs.node.http.gate import Caller
from idemfs.node.keys import Keys
from idemfs.node.tokens import Scope
from idemfs.replication.channel import Channel
from idemfs.replication.remote import RemoteReceiver
from idemfs.replication.session import Session
from tests.unit.node.http.running import Running, config_of, long_ago, make_store, pair, running

Serve = Callable[[Channel], None]


@pytest.fixture
def a(tmp_path: Path) -> Iterator[Running]:
    make_store(tmp_path, "a")
    with running(config_of(tmp_path, "a")) as node:
        yield node


@pytest.fixture
def b(a: Running, tmp_path: Path) -> Keys:
    keys = Keys(config_of(tmp_path, "b", listen=False), System())
    pair(a.keys, keys)
    return keys


def connect(a: Running, b: Keys, name: str = "data") -> WebSocketChannel:
    return client.connect(b, "127.0.0.1", a.port, name)


@contextmanager
def served_by(a: Running, b: Keys, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> Iterator[WebSocketChannel]:
    """A channel at whose other end ``serve`` is, which has ended when this is left."""
    ended = threading.Event()
    callers: list[Caller] = []

    def serve_peer(_: ServedActions, path: str, channel: Channel, by: Caller) -> None:
        callers.append(by)
        try:
            serve(channel)
        finally:
            ended.set()

    monkeypatch.setattr(ServedActions, "serve_peer", serve_peer)
    channel = connect(a, b)
    try:
        yield channel
    finally:
        channel.close()
        assert ended.wait(30)
    assert [(caller.name, caller.is_node) for caller in callers] == [("b", True)]


@contextmanager
def connect_closing(a: Running, b: Keys) -> Iterator[Session]:
    with Session(connect(a, b), Guid(b"?" * 16)) as session:
        yield session


def echo(channel: Channel) -> None:
    with suppress(ConnectionLost):
        while True:
            channel.send(bytes(channel.receive()))


def test_messages_of_all_sizes_come_back(a: Running, b: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    with served_by(a, b, echo, monkeypatch) as channel:
        assert not channel.is_readable()
        for size in (0, 1, 125, 126, 65535, 65536, 1 << 20, MESSAGE_SIZE_MAX):
            message = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
            channel.send(message)
            assert channel.receive() == message


def test_both_ends_send_much_at_once(a: Running, b: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than the network and all queues hold: whoever sends takes in what comes meanwhile."""
    count = 6
    message = b"m" * MESSAGE_SIZE_MAX

    def serve(channel: Channel) -> None:
        for _ in range(count):
            channel.send(message)
        for _ in range(count):
            assert channel.receive() == message
        channel.send(b"all")
        with suppress(ConnectionLost):
            channel.receive()

    with served_by(a, b, serve, monkeypatch) as channel:
        for _ in range(count):
            channel.send(message)
        assert [len(channel.receive()) for _ in range(count)] == [MESSAGE_SIZE_MAX] * count
        assert channel.receive() == b"all"


def test_a_sender_waits_for_one_who_does_not_take(a: Running, b: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    may_take = threading.Event()
    taken: list[int] = []

    def serve(channel: Channel) -> None:
        may_take.wait(30)
        with suppress(ConnectionLost):
            while True:
                taken.append(len(channel.receive()))

    sent: list[int] = []
    with served_by(a, b, serve, monkeypatch) as channel:

        def send() -> None:
            for _ in range(32):
                channel.send(b"m" * MESSAGE_SIZE_MAX)
                sent.append(len(taken))

        sender = threading.Thread(target=send)
        sender.start()
        sender.join(2)
        assert sender.is_alive() and len(sent) < 16
        may_take.set()
        sender.join(30)
        assert not sender.is_alive()
        channel.send(b"")
    assert len(taken) in (32, 33)


def test_another_thread_may_send_while_one_receives(a: Running, b: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    with served_by(a, b, echo, monkeypatch) as channel:
        received: list[bytes] = []
        receiver = threading.Thread(target=lambda: received.extend(channel.receive() for _ in range(50)))
        receiver.start()
        for number in range(50):
            channel.send(bytes([number]) * 100_000)
        receiver.join(30)
        assert [message[:1] for message in received] == [bytes([number]) for number in range(50)]


def test_the_other_end_goes(a: Running, b: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    def serve(channel: Channel) -> None:
        channel.send(b"last")

    with served_by(a, b, serve, monkeypatch) as channel:
        assert channel.receive() == b"last"
        with pytest.raises(
            ConnectionLost, match=r"store data of a at https://.*: the connection is lost: the other end"
        ):
            channel.receive()
        assert channel.is_readable()
        with pytest.raises(ConnectionLost):
            channel.send(b"")


def test_this_end_goes(a: Running, b: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []

    def serve(channel: Channel) -> None:
        try:
            channel.receive()
        except ConnectionLost as lost:
            told.append(str(lost))

    with served_by(a, b, serve, monkeypatch) as channel:
        channel.close()
        channel.close()
        with pytest.raises(ConnectionLost, match="it was closed here"):
            channel.send(b"")
    assert told == ["b, for store data: the connection is lost: the other end has gone"]


def test_a_channel_that_is_closed_from_another_thread(a: Running, b: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    with served_by(a, b, echo, monkeypatch) as channel:
        failures: list[BaseException] = []

        def receive() -> None:
            try:
                channel.receive()
            except ConnectionLost as lost:
                failures.append(lost)

        receiver = threading.Thread(target=receive)
        receiver.start()
        channel.close()
        receiver.join(30)
        assert len(failures) == 1


def test_the_node_ends(a: Running, b: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    with served_by(a, b, echo, monkeypatch) as channel:
        channel.send(b"one")
        assert channel.receive() == b"one"
        a.node.close()
        with pytest.raises(ConnectionLost):
            channel.receive()


def test_a_message_that_is_too_large_ends_the_connection(a: Running, b: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    with served_by(a, b, echo, monkeypatch) as channel, pytest.raises(ConnectionLost):
        channel.send(b"x" * (MESSAGE_SIZE_MAX + 1))
        channel.receive()


def test_a_session_with_a_store(a: Running, b: Keys) -> None:
    store = a.node.stores()[0].tree.store
    with connect_closing(a, b) as session:
        assert session.peer.store == store.superblock.guid


def test_a_channel_ends_when_its_node_is_unpaired(a: Running, b: Keys) -> None:
    with connect_closing(a, b) as session:
        receiver = RemoteReceiver(session)
        receiver.stand()
        a.keys.remove_peer("b")
        with pytest.raises(ConnectionLost):
            receiver.stand()


# -- refusals ------------------------------------------------------------------------------------------


def test_a_store_that_is_not_there(a: Running, b: Keys) -> None:
    with pytest.raises(PeerError, match=r"store other of a at https://.*: this node has no store other"):
        connect(a, b, "other")


def test_the_other_node_has_unpaired_this_one(a: Running, b: Keys) -> None:
    a.keys.remove_peer("b")
    with pytest.raises(ConnectionLost, match=r"a at https://.* does not trust this node"):
        connect(a, b)


def test_another_node_answers_there(a: Running, b: Keys, tmp_path: Path) -> None:
    with running(config_of(tmp_path, "c")) as c:
        known = b.peers()[0]
        moved = b.card().__class__(name="a", url=c.keys.url(), certificate=known.certificate)
        b.add_peer(moved)
        with pytest.raises(ConnectionLost, match="does not show the certificate of a: another one answers there"):
            client.connect(b, "127.0.0.1", c.port, "data")


def test_the_certificate_there_has_expired(tmp_path: Path) -> None:
    b = Keys(config_of(tmp_path, "b", listen=False), System())
    with running(config_of(tmp_path, "a"), long_ago()) as old:
        pair(old.keys, b)
        with pytest.raises(ConnectionLost, match=r"the certificate of a at https://.* has expired"):
            client.connect(b, "127.0.0.1", old.port, "data")


def test_the_certificate_here_has_expired(a: Running, tmp_path: Path) -> None:
    """It is one that the configuration names, which nobody but the user renews."""
    old = Keys(config_of(tmp_path, "old", listen=False), long_ago())
    old.prepare()
    shown = old.shown()
    config = msgspec.structs.replace(
        config_of(tmp_path, "b", listen=False), certificate=shown.certificate, key=shown.key
    )
    b = Keys(config, System())
    pair(a.keys, b)
    with pytest.raises(PeerError, match=r"certificate\.pem: this certificate has expired.*: renew it"):
        connect(a, b)


def test_a_configured_certificate(a: Running, tmp_path: Path) -> None:
    """What somebody else issued is the node's identity then."""
    other = Keys(config_of(tmp_path, "other", listen=False), System())
    other.prepare()
    config = msgspec.structs.replace(
        config_of(tmp_path, "b", listen=False), certificate=other.shown().certificate, key=other.shown().key
    )
    b = Keys(config, System())
    pair(a.keys, b)
    with connect_closing(a, b) as session:
        assert session.peer.store


@pytest.mark.parametrize(("scope", "status"), [(None, 401), (Scope.READ, 403), (Scope.ADMIN, 403), (Scope.PEER, 101)])
def test_a_token_needs_the_scope(a: Running, scope: Scope | None, status: int) -> None:
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    token = None if scope is None else a.token(scope)
    answer = a.ask("/v1/stores/data/peer", token=token, headers=upgrade, context=tls.unverified())
    assert answer.status == status
    if status != 101:
        assert list(answer.said) == ["error"]
