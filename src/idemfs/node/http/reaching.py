"""The way out of a node: how ``https://HOST:PORT/NAME`` is reached, by whatever in its process wants to.

What that takes is imported when somebody does: a node that has nobody to reach never needs it.

Threads: any.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from idemfs.clock import System
from idemfs.failover.addresses import Remote
from idemfs.node.node import Node
from idemfs.replication.channel import Channel


def reaching(node: Node) -> Callable[[Remote], Channel]:
    """What makes connections with this node's certificate, to nodes that it is paired with."""

    def connect(remote: Remote) -> Channel:
        from idemfs.node.http import client
        from idemfs.node.keys import Keys

        return client.connect(Keys(node.config, System()), remote.host, remote.port, remote.path)

    return connect


def own_addresses(node: Node) -> Callable[[str], str | None]:
    """Where other nodes find the store at a path; None: nowhere, or it is none of this node's."""

    def address(path: str) -> str | None:
        from idemfs.node.keys import Keys

        url = Keys(node.config, System()).url()
        there = os.path.realpath(path)
        names = [store.name for store in node.config.stores if os.path.realpath(store.path) == there]
        return f"{url}/{names[0]}" if url and names else None

    return address
