"""The way out of a node: what ``https://HOST:PORT/NAME`` is reached with, by whatever in this process wants to.

What that takes is imported when somebody does: a node that has nobody to reach never needs it.

Threads: as parts of a node have it; connections are made by any.
"""

from __future__ import annotations

from idemfs.clock import Clock, System
from idemfs.failover.addresses import Remote
from idemfs.node import connecting
from idemfs.node.config import NodeConfig
from idemfs.node.node import Node, NodePart
from idemfs.replication.channel import Channel


def reaching(node: Node) -> NodePart | None:
    """The factory of the part."""
    return Reaching(node.config, System())


class Reaching:
    """Lends this node's certificate to whoever connects, whether or not this node listens."""

    def __init__(self, config: NodeConfig, clock: Clock) -> None:
        self._config = config
        self._clock = clock

    def start(self) -> None:
        connecting.https = self._connect

    def close(self) -> None:
        connecting.https = None

    def configure(self, config: NodeConfig) -> bool:
        return network(config) == network(self._config)

    def _connect(self, remote: Remote) -> Channel:
        from idemfs.node.http import client
        from idemfs.node.keys import Keys

        return client.connect(Keys(self._config, self._clock), remote.host, remote.port, remote.path)


def network(config: NodeConfig) -> tuple[object, ...]:
    """What the network side of a node is made of."""
    own = config.certificate, config.key, config.ca
    return config.name, config.listen, config.url, config.state, config.metrics, own
