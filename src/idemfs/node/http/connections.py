"""One connection to the server: what uvicorn's protocol lacks.

It hands on which certificate the other end showed, bounds the head of a request and how many there are at once, and
ends connections on which none comes, or none to its end.

Threads: the server's.
"""

from __future__ import annotations

import asyncio
from typing import Any

from httptools import HttpParserError
from starlette.types import Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState

from idemfs.limits import CONNECTION_COUNT_MAX, REQUEST_HEAD_SIZE_MAX

IDLE_SECONDS = 20.0
"""How long a new connection may take until it has said all of what it wants, and a request that follows until all of
it has come: who says no more would keep others out."""
CLOSING_SECONDS = 0.5
"""How long the other end of a WebSocket has to take leave."""


class Connection(HttpToolsProtocol):
    """HTTP on one connection, until it may become a WebSocket."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._head_size = 0
        self._idle: asyncio.TimerHandle | None = None
        self._is_too_many = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        # Only the one that comes last: those that are there are served on.
        self._is_too_many = len(self.connections) > CONNECTION_COUNT_MAX
        shown = transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
        # What stands here is in the scope of every request of this connection.
        self.app_state = {**self.app_state, "certificate": shown}
        self._await_request()

    def connection_lost(self, exc: Exception | None) -> None:
        self._not_idle()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        self._head_size = 0
        self._await_request()
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        served = self.app
        if self._is_too_many or len(self.tasks) > CONNECTION_COUNT_MAX:
            self.app = _too_many
        super().on_headers_complete()
        self.app = served

    def on_message_complete(self) -> None:
        self._not_idle()
        super().on_message_complete()

    def handle_websocket_upgrade(self) -> None:
        self._not_idle()
        super().handle_websocket_upgrade()

    def shutdown(self) -> None:
        """The server ends: so does a connection on which nothing is under way, without the other end's consent."""
        super().shutdown()
        if self.transport.is_closing() and not self.transport.get_write_buffer_size():
            self.transport.abort()

    def _count(self, size: int) -> None:
        self._head_size += size
        if self._head_size > REQUEST_HEAD_SIZE_MAX:
            # The parser answers with status 400, and ends the connection.
            raise HttpParserError("the head of the request is too large")

    def _await_request(self) -> None:
        if self._idle is None:
            self._idle = self.loop.call_later(IDLE_SECONDS, self.transport.close)

    def _not_idle(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None


async def _too_many(_scope: Scope, _receive: Receive, send: Send) -> None:
    """As every failure of the API is answered."""
    body = b'{"error":"too many connections, or requests, at once; try again"}'
    headers = [(b"content-type", b"application/json"), (b"connection", b"close"), (b"retry-after", b"1")]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class Socket(WebSocketsSansIOProtocol):
    """A WebSocket."""

    def shutdown(self) -> None:
        """The server ends: the other end is told, and need not answer."""
        super().shutdown()
        self.loop.call_later(CLOSING_SECONDS, self.transport.abort)
