"""The client of etcd, against a real one: leases, compare-and-swap, and an etcd that is killed, restarted, paused."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from idemfs.errors import EtcdLost, EtcdRefused
from idemfs.failover.automatic import Holder, Line, Seen
from idemfs.failover.lease import Position
from idemfs.ids import Guid
from idemfs.node.etcd import EtcdClient, Put
from idemfs.node.line_key import LineKey
from tests.e2e import etcd_server
from tests.e2e.etcd_server import EtcdServer

NS = 1_000_000_000
ONE, OTHER, FILESET = Guid(b"1" * 16), Guid(b"2" * 16), Guid(b"f" * 16)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServer]:
    with etcd_server.running(tmp_path_factory.mktemp("etcd") / "data") as running:
        yield running


@pytest.fixture
def client(server: EtcdServer) -> Iterator[EtcdClient]:
    with EtcdClient([server.url], timeout_seconds=5) as client:
        yield client
        for key in client.read(b"/"):
            client.change({}, deletes=[key])


def dead_url() -> str:
    """Nobody listens there."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


def wait_until_gone(client: EtcdClient, key: bytes) -> None:
    until = time.monotonic() + 30
    while client.read(key):
        assert time.monotonic() < until, "the lease does not run out"


# -- keys ------------------------------------------------------------------------------------------------


def test_what_was_put_is_read_with_the_revision_of_its_last_change(client: EtcdClient) -> None:
    assert client.change({}, [Put(b"/a/1", b"one"), Put(b"/a/2", b"")])
    found = client.read(b"/a/")
    assert {key: item.value for key, item in found.items()} == {b"/a/1": b"one", b"/a/2": b""}
    assert client.change({}, [Put(b"/a/1", b"two")])
    assert client.read(b"/a/1")[b"/a/1"].revision > found[b"/a/1"].revision


def test_only_keys_with_the_prefix_are_read(client: EtcdClient) -> None:
    client.change({}, [Put(b"/a/1", b""), Put(b"/a0", b""), Put(b"/b", b"")])
    assert list(client.read(b"/a/")) == [b"/a/1"]


def test_a_change_is_done_only_if_all_stands_as_it_was_found(client: EtcdClient) -> None:
    assert client.change({b"/a": 0}, [Put(b"/a", b"first")])
    assert not client.change({b"/a": 0}, [Put(b"/a", b"second")])
    revision = client.read(b"/a")[b"/a"].revision
    assert not client.change({b"/a": revision, b"/b": 7}, [Put(b"/a", b"third")])
    assert client.read(b"/a")[b"/a"].value == b"first"
    assert client.change({b"/a": revision, b"/b": 0}, deletes=[b"/a"])
    assert not client.read(b"/a")


def test_a_key_goes_with_its_lease(client: EtcdClient) -> None:
    lease = client.grant(2)
    client.change({}, [Put(b"/a", b"", lease)])
    assert client.read(b"/a")[b"/a"].lease == lease
    assert client.keep_alive(lease)
    wait_until_gone(client, b"/a")
    assert not client.keep_alive(lease)
    with pytest.raises(EtcdRefused, match="lease not found"):
        client.change({}, [Put(b"/a", b"", lease)])


def test_a_revoked_lease_takes_its_keys_along_at_once(client: EtcdClient) -> None:
    lease = client.grant(60)
    client.change({}, [Put(b"/a", b"", lease)])
    client.revoke(lease)
    assert not client.read(b"/a")


# -- endpoints -------------------------------------------------------------------------------------------


def test_an_endpoint_that_does_not_answer_is_passed_over(server: EtcdServer) -> None:
    with EtcdClient([dead_url(), server.url], timeout_seconds=10) as client:
        assert client.change({}, [Put(b"/other", b"1")])
        assert client.read(b"/other")[b"/other"].value == b"1"
        client.change({}, deletes=[b"/other"])


def test_without_any_that_answers_etcd_is_lost() -> None:
    with (
        EtcdClient([dead_url(), dead_url()], timeout_seconds=2) as client,
        pytest.raises(EtcdLost, match="no endpoint"),
    ):
        client.read(b"/a")


def test_what_is_no_etcd_is_lost_too(tmp_path: Path) -> None:
    with EtcdClient(["http://127.0.0.1:1"], timeout_seconds=1) as client, pytest.raises(EtcdLost):
        client.grant(5)


def test_a_paused_etcd_is_lost_within_the_timeout_and_found_again(server: EtcdServer) -> None:
    with EtcdClient([server.url], timeout_seconds=0.5) as client:
        client.read(b"/a")
        server.pause()
        try:
            begun = time.monotonic()
            with pytest.raises(EtcdLost):
                client.read(b"/a")
            assert time.monotonic() - begun < 5
        finally:
            server.go_on()
        until = time.monotonic() + 30
        while True:
            try:
                client.read(b"/a")
                return
            except EtcdLost:
                assert time.monotonic() < until


def test_keys_and_leases_outlive_a_killed_etcd(tmp_path: Path) -> None:
    with etcd_server.running(tmp_path / "data") as server, EtcdClient([server.url], timeout_seconds=10) as client:
        lease = client.grant(60)
        assert client.change({}, [Put(b"/a", b"kept", lease)])
        server.kill()
        with pytest.raises(EtcdLost):
            client.keep_alive(lease)
        server.start()
        assert client.keep_alive(lease)
        assert client.read(b"/a")[b"/a"].value == b"kept"


# -- the key of a line -----------------------------------------------------------------------------------


def line_of(store: Guid, epoch: int, asked: tuple[Guid, ...] = ()) -> Line:
    position = Position(recent=(ONE, OTHER), created_ns=5)
    return Line(epoch=epoch, store=store, asked=asked, position=position, complete_ns=6, time_ns=7)


def test_the_key_is_claimed_kept_and_given_up(client: EtcdClient) -> None:
    key = LineKey(client, "/idemfs", FILESET, ONE)
    seen = key.read(keep_alive=True)
    assert seen == Seen()
    assert key.claim(line_of(ONE, 3), seen, 10 * NS)
    seen = key.read(keep_alive=True)
    assert seen.holder == Holder(store=ONE, epoch=3) and seen.line == line_of(ONE, 3) and seen.is_kept
    assert not key.read().is_kept
    assert key.publish(line_of(ONE, 3, (OTHER,)), seen)
    assert not key.publish(line_of(ONE, 3), seen), "the line stands as it was seen no more"
    key.give_up()
    seen = key.read()
    assert seen.holder is None and seen.line == line_of(ONE, 3, (OTHER,))


def test_of_two_that_claim_one_has_the_key(client: EtcdClient) -> None:
    one, other = LineKey(client, "/idemfs", FILESET, ONE), LineKey(client, "/idemfs", FILESET, OTHER)
    seen = one.read()
    assert other.claim(line_of(OTHER, 4), seen, 10 * NS)
    assert not one.claim(line_of(ONE, 5), seen, 10 * NS)
    one.give_up()
    found = one.read(keep_alive=True)
    assert found.holder == Holder(store=OTHER, epoch=4) and not found.is_kept


def test_a_key_that_nobody_keeps_is_free_after_its_lease(client: EtcdClient) -> None:
    one = LineKey(client, "/idemfs", FILESET, ONE)
    assert one.claim(line_of(ONE, 1), one.read(), 2 * NS)
    until = time.monotonic() + 30
    while one.read().holder is not None:
        assert time.monotonic() < until
    assert LineKey(client, "/idemfs", FILESET, OTHER).claim(line_of(OTHER, 2), one.read(), 2 * NS)


def test_a_pause_is_seen_by_all_of_the_line_and_by_no_other(client: EtcdClient) -> None:
    one, other = LineKey(client, "/idemfs", FILESET, ONE), LineKey(client, "/idemfs", FILESET, OTHER)
    one.pause(True)
    assert other.read().is_paused
    assert not LineKey(client, "/idemfs", ONE, ONE).read().is_paused
    other.pause(False)
    assert not one.read().is_paused


def test_what_somebody_else_wrote_there_is_refused(client: EtcdClient) -> None:
    client.change({}, [Put(b"/idemfs/" + FILESET.hex().encode() + b"/holder", b"somebody")])
    with pytest.raises(EtcdRefused, match="not written by idemfs"):
        LineKey(client, "/idemfs", FILESET, ONE).read()
