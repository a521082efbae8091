"""The OpenAPI document says what there is: every route stands in it, needs what it says, answers as its schema."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from fastapi.routing import APIRoute

from idemfs.cli.served import ServedActions
from idemfs.clock import System
from idemfs.failover import actions
from idemfs.failover.standbys import LocalPlace, add_standby
from idemfs.node.http import health
from idemfs.node.http.part import build
from idemfs.node.node import Node
from idemfs.node.tokens import Scope
from idemfs.testing.clock import Simulated
from tests.unit.node.http.running import Running, config_of, make_store, running
from tests.unit.node.http.schema import mistakes

PATHS = {
    "GET /live",
    "GET /ready",
    "GET /primary",
    "GET /standby",
    "GET /v1/stores/{name}/ready",
    "GET /v1/stores/{name}/primary",
    "GET /v1/stores/{name}/standby",
    "GET /metrics",
    "GET /openapi.json",
    "GET /v1/node",
    "GET /v1/pair",
    "POST /v1/pair",
    "GET /v1/stores",
    "GET /v1/stores/{name}",
    "GET /v1/stores/{name}/filesets",
    "GET /v1/stores/{name}/history",
    "GET /v1/stores/{name}/links",
    "GET /v1/stores/{name}/snapshots",
    "POST /v1/stores/{name}/snapshots",
    "DELETE /v1/stores/{name}/snapshots/{snapshot}",
    "POST /v1/stores/{name}/switchover",
    "POST /v1/stores/{name}/failover",
    "POST /v1/stores/{name}/failback",
}
OPEN = {path for path in PATHS if path.rpartition("/")[2] in ("live", "ready", "primary", "standby", "pair")}


@pytest.fixture(scope="module")
def a(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A node with a store that has a standby at a path."""
    directory = tmp_path_factory.mktemp("document")
    store = make_store(directory, "a")
    add_standby(str(store), LocalPlace(str(directory / "standby")))
    with running(config_of(directory, "a")) as node:
        yield node


@pytest.fixture(scope="module")
def document(a: Running) -> Any:
    return a.ask("/openapi.json", token=a.token(Scope.READ)).said


def operations(document: Any) -> dict[str, Any]:
    return {
        f"{method.upper()} {path}": operation
        for path, found in document["paths"].items()
        for method, operation in found.items()
    }


def test_every_route_is_documented(a: Running, document: Any) -> None:
    api = build(a.node, ServedActions(), a.keys, System())
    found = [route for route in api.app.routes if isinstance(route, APIRoute)]
    routes = {f"{method} {route.path}" for route in found for method in route.methods or ()}
    assert routes == set(operations(document)) == PATHS
    for name, operation in operations(document).items():
        assert operation["summary"].endswith((".", ";")) or operation["summary"], name
        assert all(response["description"] for response in operation["responses"].values()), name


def test_every_reference_leads_somewhere(document: Any) -> None:
    text = json.dumps(document)
    names = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert names <= set(document["components"]["schemas"]) and len(names) > 8
    assert all("description" in schema for schema in document["components"]["schemas"].values())


def test_what_is_open_is_said_to_be_and_nothing_else(a: Running, document: Any) -> None:
    for name, operation in operations(document).items():
        method, path = name.split()
        path = path.replace("{name}", "data").replace("{snapshot}", "none")
        assert (operation["security"] == []) == (name in OPEN), name
        assert (a.ask(path, method).status == 401) == (name not in OPEN), name
        if name not in OPEN:
            assert {"401", "403"} <= set(operation["responses"]), name


def test_each_scope_is_what_is_needed(a: Running, document: Any) -> None:
    read, admin = a.token(Scope.READ), a.token(Scope.ADMIN)
    for name, operation in operations(document).items():
        method, path = name.split()
        path = path.replace("{name}", "nowhere").replace("{snapshot}", "none")
        wanted = operation.get("x-scope")
        if wanted is not None:
            assert (a.ask(path, method, token=read).status == 403) == (wanted == "admin"), name
            assert a.ask(path, method, token=admin).status != 403, name


STEPS: list[tuple[str, str, bytes | None, int]] = [
    ("GET /live", "/live", None, 200),
    ("GET /ready", "/ready", None, 200),
    ("GET /primary", "/primary", None, 200),
    ("GET /standby", "/standby?lag=5", None, 503),
    ("GET /v1/stores/{name}/ready", "/v1/stores/data/ready", None, 200),
    ("GET /v1/stores/{name}/primary", "/v1/stores/data/primary", None, 200),
    ("GET /v1/stores/{name}/standby", "/v1/stores/data/standby", None, 503),
    ("GET /v1/pair", "/v1/pair", None, 200),
    ("POST /v1/pair", "/v1/pair", b"{}", 400),
    ("POST /v1/pair", "/v1/pair", b'{"secret":"x","node":{"name":"x","url":"","certificate":""}}', 403),
    ("GET /v1/node", "/v1/node", None, 200),
    ("POST /v1/stores/{name}/snapshots", "/v1/stores/data/snapshots", b'{"names":["one"]}', 201),
    ("POST /v1/stores/{name}/snapshots", "/v1/stores/data/snapshots", b'{"names":["one"]}', 409),
    ("POST /v1/stores/{name}/snapshots", "/v1/stores/data/snapshots", b'{"names":[]}', 400),
    ("POST /v1/stores/{name}/snapshots", "/v1/stores/data/snapshots", b'{"names":["a/b"]}', 400),
    ("GET /v1/stores", "/v1/stores", None, 200),
    ("GET /v1/stores/{name}", "/v1/stores/data", None, 200),
    ("GET /v1/stores/{name}", "/v1/stores/other", None, 404),
    ("GET /v1/stores/{name}/snapshots", "/v1/stores/data/snapshots", None, 200),
    ("GET /v1/stores/{name}/filesets", "/v1/stores/data/filesets", None, 200),
    ("GET /v1/stores/{name}/links", "/v1/stores/data/links", None, 200),
    ("POST /v1/stores/{name}/failover", "/v1/stores/data/failover?dry_run=true", None, 409),
    ("POST /v1/stores/{name}/failback", "/v1/stores/data/failback", None, 409),
    ("POST /v1/stores/{name}/switchover", "/v1/stores/data/switchover?dry_run=true", None, 200),
    ("POST /v1/stores/{name}/switchover", "/v1/stores/data/switchover", None, 200),
    ("GET /v1/stores/{name}/standby", "/v1/stores/data/standby?lag=3600", None, 200),
    ("POST /v1/stores/{name}/failover", "/v1/stores/data/failover?dry_run=true", None, 200),
    ("GET /v1/stores/{name}/history", "/v1/stores/data/history", None, 200),
    ("DELETE /v1/stores/{name}/snapshots/{snapshot}", "/v1/stores/data/snapshots/one", None, 409),
    ("DELETE /v1/stores/{name}/snapshots/{snapshot}", "/v1/stores/data/snapshots/none", None, 404),
    ("GET /openapi.json", "/openapi.json", None, 200),
]


def test_answers_are_as_their_schemas_say(a: Running, document: Any) -> None:
    """One after the other: a snapshot, a look at everything, and an exchange of roles."""
    token = a.keys.add_token("orders", Scope.ADMIN, None)
    known = operations(document)
    for name, path, body, status in STEPS:
        answer = a.ask(path, name.split()[0], token=token, body=body)
        assert answer.status == status, (name, answer.body)
        said = known[name]["responses"][str(status)]["content"]["application/json"]["schema"]
        assert list(mistakes(answer.said, said, document["components"]["schemas"])) == [], (name, answer.said)
    assert {name for name, *_ in STEPS} == PATHS - {"GET /metrics"}
    events = a.ask("/v1/stores/data/history", token=token).said
    assert [(event["what"], event["outcome"]) for event in events if event["what"] != "transfer"] == [
        ("switchover", "done")
    ]
    assert {event["by"] for event in events} == {"token orders"}


def test_a_schema_that_is_not_kept_is_noticed() -> None:
    schemas: Any = {"S": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}}
    reference = {"$ref": "#/components/schemas/S"}
    assert list(mistakes({"a": 1}, reference, schemas)) == []
    others: list[Any] = [{}, {"a": "x"}, {"a": 1, "b": 2}, [], None, {"a": True}]
    for wrong in others:
        assert list(mistakes(wrong, reference, schemas)) != [], wrong


def test_the_check_of_lag(tmp_path: Path) -> None:
    make_store(tmp_path, "a")
    with running(config_of(tmp_path, "a")) as node:
        tree = node.node.stores()[0].tree
        taken = actions.take_snapshot(tree, "one")
        assert taken is not None
        actions.demote(tree, 1, None)
        checks = health.Health(node.node, Simulated(start_ns=taken.created_ns + 10 * 10**9))
        assert [checks.standby(lag).status_code for lag in (None, 11, 5)] == [200, 200, 503]
        assert [checks.store_standby("data", lag).status_code for lag in (None, 11, 5)] == [200, 200, 503]
        said = msgspec.json.decode(checks.standby(5).body)
        assert said == {"ok": False, "why": "the newest snapshot of store data is 10 seconds old"}
        assert checks.primary().status_code == 503


def test_a_node_without_stores_is_neither_primary_nor_standby(tmp_path: Path) -> None:
    with running(config_of(tmp_path, "a")) as node:
        assert isinstance(node.node, Node)
        assert [node.ask(path).status for path in ("/live", "/ready", "/primary", "/standby")] == [200, 200, 503, 503]
        assert msgspec.json.decode(node.ask("/primary").body) == {"error": "this node has no store"}
