"""Nodes that run in the test's own process, and what others ask of them over real connections."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from idemfs.cli.served import ServedActions
from idemfs.cli.serving import commands
from idemfs.clock import Clock, System
from idemfs.node import tls
from idemfs.node.config import Address, NodeConfig, StoreConfig
from idemfs.node.http.commit_times import COMMIT_TIMES, counting
from idemfs.node.http.part import HttpPart
from idemfs.node.keys import Keys
from idemfs.node.node import Node
from idemfs.node.tokens import Scope
from idemfs.store.files import create_files
from idemfs.testing.clock import Simulated

LOOPBACK = Address("127.0.0.1", 0)


class Answer(NamedTuple):
    """What came back; ``said`` is its JSON."""

    status: int
    body: bytes
    headers: dict[str, str]

    @property
    def said(self) -> Any:
        return json.loads(self.body)


class Running(NamedTuple):
    """A node that listens."""

    node: Node
    keys: Keys
    clock: Clock

    @property
    def port(self) -> int:
        return int(self.keys.url().rpartition(":")[2])

    def ask(
        self,
        path: str,
        method: str = "GET",
        *,
        token: str | None = None,
        body: bytes | None = None,
        context: ssl.SSLContext | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        connection = http.client.HTTPSConnection(
            "127.0.0.1", self.port, timeout=30, context=context or tls.unverified()
        )
        shown = dict(headers or {})
        if token is not None:
            shown["Authorization"] = f"Bearer {token}"
        try:
            connection.request(method, path, body, shown)
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, response.read(), found)
        finally:
            connection.close()

    def token(self, scope: Scope) -> str:
        return self.keys.add_token(f"{scope.value} {len(self.keys.tokens())}", scope, None)


def config_of(directory: Path, name: str, *, listen: bool = True, metrics: str = "token") -> NodeConfig:
    """A node with the store ``data``, if ``directory`` has one."""
    path = directory / name
    has_store = (path / "data" / "superblock").exists()
    return NodeConfig(
        file=str(directory / f"{name}.toml"),
        name=name,
        listen=LOOPBACK if listen else None,
        url="https://127.0.0.1:0" if listen else "",
        state=str(path / "state"),
        metrics=metrics,
        stores=(StoreConfig(name="data", path=str(path / "data")),) if has_store else (),
    )


def make_store(directory: Path, name: str) -> Path:
    path = directory / name / "data"
    path.parent.mkdir(exist_ok=True)
    create_files(str(path))
    return path


@contextmanager
def running(config: NodeConfig, clock: Clock | None = None) -> Iterator[Running]:
    """A node that listens until the ``with`` is left."""
    clock = clock or System()

    def make(node: Node) -> HttpPart:
        return HttpPart(node, ServedActions(), clock)

    node = Node(config, commands(), {COMMIT_TIMES: counting}, {"https": make})
    node.start()
    try:
        assert node.problems == {}
        yield Running(node, Keys(config, clock), clock)
    finally:
        node.close()


def pair(one: Keys, other: Keys) -> None:
    """As ``idemfs node pair`` leaves them."""
    one.prepare()
    other.prepare()
    one.add_peer(other.card())
    other.add_peer(one.card())


def long_ago() -> Simulated:
    """A clock of a time at which certificates were made that have expired by now."""
    return Simulated()
