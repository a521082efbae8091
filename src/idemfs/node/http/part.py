"""The network side as parts of a node: the way out to others; and keys, server and routes together.

Threads: as parts of a node have it.
"""

from __future__ import annotations

import logging

from idemfs.clock import Clock, System
from idemfs.node import connecting
from idemfs.node.config import NodeConfig
from idemfs.node.http import client
from idemfs.node.http.actions import Actions, Lists
from idemfs.node.http.api import Api
from idemfs.node.http.gate import Gate
from idemfs.node.http.health import Health
from idemfs.node.http.metrics import Metrics
from idemfs.node.http.pairing import PairingRoutes, PeerRoute
from idemfs.node.http.server import Server
from idemfs.node.http.stores import StoreRoutes
from idemfs.node.keys import Keys
from idemfs.node.node import Node, NodePart, NodePartFactory
from idemfs.node.tls import ServerTls

log = logging.getLogger("idemfs.http")


def listening(actions: Actions, lists: Lists) -> NodePartFactory:
    """The factory of the part: for a node that listens."""

    def make(node: Node) -> NodePart | None:
        return None if node.config.listen is None else HttpPart(node, actions, lists, System())

    return make


def reaching(node: Node) -> NodePart | None:
    """The factory of the part with which stores of other nodes are reached, whether or not this node listens."""
    return Reaching(node, System())


class Reaching:
    """Lends this node's certificate to whoever connects to ``https://HOST:PORT/NAME``."""

    def __init__(self, node: Node, clock: Clock) -> None:
        self._config = _network(node.config)
        self._keys = Keys(node.config, clock)

    def start(self) -> None:
        connecting.https = lambda remote: client.connect(self._keys, remote.host, remote.port, remote.path)

    def close(self) -> None:
        connecting.https = None

    def configure(self, config: NodeConfig) -> bool:
        return _network(config) == self._config


class HttpPart:
    """Serves the API of a node."""

    def __init__(self, node: Node, actions: Actions, lists: Lists, clock: Clock) -> None:
        self._node = node
        self._actions = actions
        self._lists = lists
        self._clock = clock
        self._config = _network(node.config)
        self._keys = Keys(node.config, clock)
        self._server: Server | None = None

    def start(self) -> None:
        """Raises ``ConfigError``, ``OSError``."""
        config = self._node.config
        assert config.listen is not None
        tls = ServerTls(self._keys, self._clock)
        api = build(self._node, self._actions, self._lists, self._keys, self._clock)
        gate = Gate(api.app, self._keys, open_metrics=config.metrics == "open")
        self._server = Server(gate, config.listen, tls)
        self._keys.note_listening(f"{config.listen.host}:{self._server.port}")
        self._server.start()
        log.info("listens on port %d, fingerprint %s", self._server.port, self._keys.fingerprint())

    def close(self) -> None:
        self._keys.note_listening(None)
        if self._server is not None:
            self._server.close()

    def configure(self, config: NodeConfig) -> bool:
        return _network(config) == self._config


def build(node: Node, actions: Actions, lists: Lists, keys: Keys, clock: Clock) -> Api:
    """All routes."""
    api = Api()
    Health(node, clock).add_to(api)
    PairingRoutes(keys).add_to(api)
    StoreRoutes(node, actions, lists, keys).add_to(api)
    Metrics(node, lists, keys).add_to(api)
    PeerRoute(node, actions).add_to(api)
    return api


def _network(config: NodeConfig) -> tuple[object, ...]:
    """What the part is made of."""
    own = config.certificate, config.key, config.ca
    return config.name, config.listen, config.url, config.state, config.metrics, own
