"""The network side as a part of a node: keys, server and routes together, from ``start`` to ``close``.

Threads: as parts of a node have it.
"""

from __future__ import annotations

import logging

from idemfs.clock import Clock
from idemfs.node.config import NodeConfig
from idemfs.node.http.actions import Actions
from idemfs.node.http.api import Api
from idemfs.node.http.gate import Gate
from idemfs.node.http.health import Health
from idemfs.node.http.metrics import Metrics
from idemfs.node.http.pairing import PairingRoutes, PeerRoute
from idemfs.node.http.server import Server
from idemfs.node.http.stores import StoreRoutes
from idemfs.node.keys import Keys
from idemfs.node.node import Node
from idemfs.node.tls import ServerTls

log = logging.getLogger("idemfs.http")


class HttpPart:
    """Serves the API of a node."""

    def __init__(self, node: Node, actions: Actions, clock: Clock) -> None:
        self._node = node
        self._actions = actions
        self._clock = clock
        self._config = _network(node.config)
        self._keys = Keys(node.config, clock)
        self._server: Server | None = None

    def start(self) -> None:
        """Raises ``ConfigError``, ``OSError``."""
        config = self._node.config
        assert config.listen is not None
        tls = ServerTls(self._keys, self._clock)
        api = build(self._node, self._actions, self._keys, self._clock)
        gate = Gate(api.app, self._keys, open_metrics=config.metrics == "open")
        server = Server(gate, config.listen, tls)
        try:
            self._keys.note_listening(f"{config.listen.host}:{server.port}")
        except BaseException:
            server.close()
            raise
        server.start()
        self._server = server
        log.info("listens on port %d, fingerprint %s", server.port, self._keys.fingerprint())

    def close(self) -> None:
        self._keys.note_listening(None)
        if self._server is not None:
            self._server.close()

    def configure(self, config: NodeConfig) -> bool:
        return _network(config) == self._config


def build(node: Node, actions: Actions, keys: Keys, clock: Clock) -> Api:
    """All routes."""
    api = Api()
    Health(node, clock).add_to(api)
    PairingRoutes(keys).add_to(api)
    StoreRoutes(node, actions, keys).add_to(api)
    Metrics(node, keys).add_to(api)
    PeerRoute(node, actions).add_to(api)
    return api


def _network(config: NodeConfig) -> tuple[object, ...]:
    """What the part is made of."""
    own = config.certificate, config.key, config.ca
    return config.name, config.listen, config.url, config.state, config.metrics, own
