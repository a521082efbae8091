"""The server: one thread with an event loop, inside the process that owns the stores.

What a request asks of a store runs in threads of a pool, since it waits for locks and disks; a channel of another
node has a thread of its own. Signals are the process's, not the server's.

Threads: ``start`` and ``close`` are for the process's main thread.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading

import uvicorn
import uvloop
from starlette.types import ASGIApp

from idemfs.limits import CONNECTION_COUNT_MAX, MESSAGE_SIZE_MAX
from idemfs.node.config import Address
from idemfs.node.http.client import make_lively
from idemfs.node.http.connections import Connection, Socket
from idemfs.node.tls import ServerTls

CLOSING_SECONDS = 5
"""How long requests under way may take when the server ends."""
_BACKLOG = 128

log = logging.getLogger("idemfs.http")


class Server:
    """Listens from the moment it is made, and answers from ``start`` to ``close``."""

    def __init__(self, app: ASGIApp, address: Address, tls: ServerTls) -> None:
        """Raises ``OSError`` when nobody can listen there."""
        self._socket = _listen(address)
        self.port: int = self._socket.getsockname()[1]
        self._loop = uvloop.new_event_loop()
        config = uvicorn.Config(
            app,
            http=Connection,
            ws=Socket,
            ws_max_size=MESSAGE_SIZE_MAX,
            # A host that has gone silent is noticed by TCP: who is busy for long is not gone.
            ws_ping_interval=None,
            ws_per_message_deflate=False,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=CONNECTION_COUNT_MAX,
            timeout_graceful_shutdown=CLOSING_SECONDS,
            ssl_context_factory=lambda _config, _default: tls.context,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, name="idemfs-http", daemon=True)
        # It tells of each connection and of its own life; what concerns users is logged here.
        logging.getLogger("uvicorn").setLevel(logging.ERROR)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Take no more connections; end those that there are."""
        self._server.should_exit = True
        if self._thread.ident is None:
            self._loop.close()
        else:
            self._thread.join()
        self._socket.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._server.serve(sockets=[self._socket]))
        except Exception:
            log.exception("the network side of the node has ended")
        finally:
            self._loop.run_until_complete(self._abort())
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
            self._loop.close()

    async def _abort(self) -> None:
        """End connections that have not ended by themselves."""
        connections = self._server.server_state.connections
        for connection in list(connections):
            connection.transport.abort()
        while connections:
            await asyncio.sleep(0)


def _listen(address: Address) -> socket.socket:
    listener = _bound(address)
    try:
        make_lively(listener)
    except BaseException:
        listener.close()
        raise
    return listener


def _bound(address: Address) -> socket.socket:
    if not address.host and socket.has_dualstack_ipv6():
        return socket.create_server(("", address.port), family=socket.AF_INET6, backlog=_BACKLOG, dualstack_ipv6=True)
    found = socket.getaddrinfo(address.host or "0.0.0.0", address.port, type=socket.SOCK_STREAM)
    family, _, _, _, place = found[0]
    return socket.create_server(place, family=family, backlog=_BACKLOG)
