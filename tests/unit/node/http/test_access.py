"""Who may ask a node for what, over real connections."""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from idemfs.clock import System
from idemfs.errors import ConnectionLost
from idemfs.limits import REQUEST_HEAD_SIZE_MAX, REQUEST_SIZE_MAX
from idemfs.node import tls
from idemfs.node.http import client, connections
from idemfs.node.keys import Keys
from idemfs.node.tokens import Scope
from tests.unit.node.http.running import Running, config_of, long_ago, make_store, pair, running

HEALTH = ("/live", "/ready", "/primary", "/v1/stores/data/ready", "/v1/stores/data/primary")


@pytest.fixture
def a(tmp_path: Path) -> Iterator[Running]:
    make_store(tmp_path, "a")
    with running(config_of(tmp_path, "a")) as node:
        yield node


def keys_of(tmp_path: Path, name: str) -> Keys:
    return Keys(config_of(tmp_path, name, listen=False), System())


def context_of(keys: Keys) -> ssl.SSLContext:
    """Shows the certificate of these keys, to anybody."""
    keys.prepare()
    context = tls.unverified()
    context.load_cert_chain(keys.shown().certificate, keys.shown().key)
    return context


@pytest.mark.parametrize(
    "path", ["/", "/v1/node", "/openapi.json", "/metrics", "/docs", "/live/", "/v1/stores/x/primary/y"]
)
def test_nothing_is_told_to_strangers(a: Running, path: str) -> None:
    answer = a.ask(path)
    assert (answer.status, list(answer.said)) == (401, ["error"]), path
    assert answer.headers["www-authenticate"] == "Bearer"
    assert a.ask(path, token="idemfs_wrong").status == 401
    assert a.ask(path, headers={"Authorization": "Basic b3BzOm9wcw=="}).status == 401


@pytest.mark.parametrize("path", HEALTH)
def test_health_is_told_to_anybody(a: Running, path: str) -> None:
    assert (a.ask(path).status, a.ask(path).said) == (200, {"ok": True, "why": ""})


def test_health_of_what_is_not_so(a: Running) -> None:
    assert a.ask("/standby").status == a.ask("/v1/stores/data/standby").status == 503
    assert a.ask("/standby").said == {"ok": False, "why": "store data is primary"}
    assert a.ask("/v1/stores/other/primary").status == 404
    assert a.ask("/standby?lag=x").status == 400


def test_a_token_opens_what_its_scope_names(a: Running) -> None:
    read, admin, peer = (a.token(scope) for scope in (Scope.READ, Scope.ADMIN, Scope.PEER))
    assert [a.ask("/v1/node", token=token).status for token in (read, admin, peer)] == [200, 200, 200]
    wanted = b'{"names": ["one"]}'
    for token in (read, peer):
        answer = a.ask("/v1/stores/data/snapshots", "POST", token=token, body=wanted)
        assert answer.status == 403 and "has not the scope 'admin'" in answer.said["error"]
        assert a.ask("/v1/stores/data/failover", "POST", token=token).status == 403
    assert a.ask("/v1/stores/data/snapshots", "POST", token=admin, body=wanted).status == 201


def test_a_token_that_was_revoked_is_refused_at_once(a: Running, tmp_path: Path) -> None:
    token = a.token(Scope.READ)
    assert a.ask("/v1/node", token=token).status == 200
    # As another process does.
    keys_of(tmp_path, "a").remove_token("read 0")
    assert a.ask("/v1/node", token=token).status == 401


def test_a_token_expires(tmp_path: Path) -> None:
    clock = long_ago()
    with running(config_of(tmp_path, "a"), clock) as node:
        token = node.keys.add_token("short", Scope.READ, 60)
        assert node.ask("/v1/node", token=token).status == 200
        clock.advance(60)
        assert node.ask("/v1/node", token=token).status == 401


def test_a_paired_node_shows_its_certificate(a: Running, tmp_path: Path) -> None:
    b = keys_of(tmp_path, "b")
    pair(a.keys, b)
    context = context_of(b)
    assert a.ask("/v1/node", context=context).said["peers"] == ["b"]
    assert a.ask("/v1/stores/data/failover", "POST", context=context).status == 403
    a.keys.remove_peer("b")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        a.ask("/v1/node", context=context)


def test_a_connection_of_a_node_that_was_unpaired_is_refused_too(a: Running, tmp_path: Path) -> None:
    b = keys_of(tmp_path, "b")
    pair(a.keys, b)
    connection = http.client.HTTPSConnection("127.0.0.1", a.port, context=context_of(b), timeout=30)
    statuses = []
    for _ in range(2):
        connection.request("GET", "/v1/node")
        with connection.getresponse() as response:
            response.read()
            statuses.append(response.status)
        if len(statuses) == 1:
            a.keys.remove_peer("b")
    connection.close()
    assert statuses == [200, 401]


def test_a_certificate_of_a_stranger_is_refused(a: Running, tmp_path: Path) -> None:
    with pytest.raises((ssl.SSLError, ConnectionError)):
        a.ask("/live", context=context_of(keys_of(tmp_path, "stranger")))


def test_an_expired_certificate_of_a_paired_node_is_refused(a: Running, tmp_path: Path) -> None:
    b = Keys(config_of(tmp_path, "b", listen=False), long_ago())
    pair(a.keys, b)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        a.ask("/live", context=context_of(b))
    assert a.ask("/live").status == 200


def test_the_certificate_is_renewed_while_the_node_runs(tmp_path: Path) -> None:
    clock = long_ago()
    with running(config_of(tmp_path, "a"), clock) as node:
        before = ssl.get_server_certificate(("127.0.0.1", node.port))
        clock.advance(300 * 24 * 3600)
        after = ssl.get_server_certificate(("127.0.0.1", node.port))
        assert before != after and after in node.keys.certificate().decode()


def test_requests_are_bounded(a: Running) -> None:
    token = a.token(Scope.ADMIN)
    large = b'{"names": ["' + b"x" * REQUEST_SIZE_MAX + b'"]}'
    answer = a.ask("/v1/stores/data/snapshots", "POST", token=token, body=large)
    assert (answer.status, answer.said) == (413, {"error": "a request has at most 65536 bytes"})
    assert a.ask("/live", headers={"X": "x" * REQUEST_HEAD_SIZE_MAX}).status == 400
    assert a.ask("/v1/pair", "POST", body=large).status == 413
    assert a.ask("/live").status == 200


def test_a_body_that_does_not_tell_its_size_is_bounded_too(a: Running) -> None:
    connection = http.client.HTTPSConnection("127.0.0.1", a.port, context=tls.unverified(), timeout=30)
    pieces = [b"x" * 1000] * (REQUEST_SIZE_MAX // 1000 + 1)
    connection.request("POST", "/v1/pair", iter(pieces), encode_chunked=True)
    with connection.getresponse() as response:
        assert response.status == 413
    connection.close()


HALF = b"GET /live HTTP/1.1\r\nHost: a\r\n"
HALF_REQUESTS = {
    "head": [HALF],
    "body": [b"POST /v1/pair HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{"],
    "second head": [HALF + b"\r\n", HALF],
}


@pytest.mark.parametrize("what", HALF_REQUESTS)
def test_who_says_half_of_a_request_keeps_nobody_out(
    a: Running, what: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(connections, "IDLE_SECONDS", 0.5)
    with socket.create_connection(("127.0.0.1", a.port), 30) as plain:
        connection = tls.unverified().wrap_socket(plain)
        connection.settimeout(10)
        *before, half = HALF_REQUESTS[what]
        for piece in before:
            connection.sendall(piece)
            assert connection.recv(4096).startswith(b"HTTP/1.1 200")
        connection.sendall(half)
        with suppress(ssl.SSLError, ConnectionError):
            while connection.recv(4096):
                pass
        connection.close()
    assert a.ask("/live").status == 200
    assert [each.getMessage() for each in caplog.records if each.exc_info] == []


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("DELETE", "/v1/node", 405),
        ("GET", "/v1/stores/other", 404),
        ("DELETE", "/v1/stores/data/snapshots/none", 404),
        ("POST", "/v1/stores/data/failover", 409),
        ("POST", "/v1/stores/data/snapshots", 400),
        ("POST", "/v1/stores/data/failover?dry_run=perhaps", 400),
    ],
)
def test_each_failure_is_one_line_of_json(a: Running, method: str, path: str, status: int) -> None:
    answer = a.ask(path, method, token=a.token(Scope.ADMIN))
    assert (answer.status, list(answer.said), answer.headers["content-type"]) == (
        status,
        ["error"],
        "application/json",
    )
    assert answer.said["error"] and "\n" not in answer.said["error"]


def test_an_error_that_nobody_expected_is_logged_and_not_told(
    a: Running, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = a.token(Scope.READ)

    def fail(_: Keys) -> str:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(Keys, "fingerprint", fail)
    answer = a.ask("/v1/node", token=token)
    assert answer.status == 500 and answer.said == {"error": "this failed unexpectedly; the log of the node tells more"}
    a.node.close()
    assert "GET /v1/node failed" in caplog.text and "secret" in caplog.text


def test_open_metrics(tmp_path: Path) -> None:
    with running(config_of(tmp_path, "a", metrics="open")) as node:
        assert node.ask("/metrics").status == 200
        assert node.ask("/v1/node").status == 401


def test_a_node_that_this_one_is_not_paired_with_is_not_asked(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="this node is paired with none there; run 'idemfs node pair --offer'"):
        client.connect(keys_of(tmp_path, "b"), "127.0.0.1", 7443, "data")
    with running(config_of(tmp_path, "a")) as node:
        b = keys_of(tmp_path, "b")
        pair(node.keys, b)
        port = node.port
    with pytest.raises(ConnectionLost, match=f"a at https://127.0.0.1:{port} cannot be reached: Connection refused"):
        client.connect(b, "127.0.0.1", port, "data")


def test_more_connections_than_there_may_be(a: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "CONNECTION_COUNT_MAX", 2)
    kept = [http.client.HTTPSConnection("127.0.0.1", a.port, timeout=30, context=tls.unverified()) for _ in range(2)]
    try:
        for each in kept:
            each.request("GET", "/live")
            assert each.getresponse().read() == b'{"ok":true,"why":""}'
        refused = a.ask("/live")
        assert (refused.status, refused.headers["content-type"]) == (503, "application/json")
        assert "too many connections" in refused.said["error"] and refused.headers["connection"] == "close"
        kept[0].request("GET", "/live")
        assert kept[0].getresponse().status == 200, "those that are there are served on"
        with socket.create_connection(("127.0.0.1", a.port), timeout=30) as raw, tls.unverified().wrap_socket(raw):
            kept[1].request("GET", "/live")
            assert kept[1].getresponse().status == 200, "also while one more is there"
    finally:
        for each in kept:
            each.close()
