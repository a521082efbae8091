"""Who may come in: in front of everything that the server answers.

A caller is the paired node whose certificate the connection showed, or whoever has a token. Without either everything
is refused, unknown paths too, but health checks, which load balancers ask for, and the first step of pairing. Which
scope a path needs is said where the path is (``api``).

The gate also bounds what a request may bring, and is where an error that nobody expected ends: it is logged, and
the caller learns nothing of it.

Threads: the server's.
"""

from __future__ import annotations

import logging
import re

import msgspec
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from idemfs.errors import IdemfsError
from idemfs.limits import REQUEST_SIZE_MAX
from idemfs.node import tokens
from idemfs.node.keys import Keys

OPEN = re.compile(r"/(live|ready|primary|standby)|/v1/stores/[^/]+/(ready|primary|standby)|/v1/pair")
METRICS = "/metrics"
UNAUTHENTICATED = "show the certificate of a paired node, or a token: Authorization: Bearer TOKEN"
TOO_LARGE = f"a request has at most {REQUEST_SIZE_MAX} bytes"
UNEXPECTED = "this failed unexpectedly; the log of the node tells more"

log = logging.getLogger("idemfs.http")


class Caller(msgspec.Struct, frozen=True):
    """Who asks. ``name`` is that of the node or of the token; ``scopes``: what it may do."""

    name: str
    scopes: frozenset[tokens.Scope]
    is_node: bool


_ANYBODY = Caller("anybody", frozenset({tokens.Scope.READ}), is_node=False)
"""Where no one is refused. What may be ordered there has its own proof."""


class TooLarge(Exception):
    """The body of a request is larger than it may be."""


class Gate:
    """The application that the server runs; it lets requests through to ``app``."""

    def __init__(self, app: ASGIApp, keys: Keys, *, open_metrics: bool) -> None:
        self._app = app
        self._keys = keys
        self._open_metrics = open_metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_begun = False

        async def sending(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._enter(scope, receive, sending)
        except TooLarge:
            if not has_begun:
                await refuse(scope, send, 413, TOO_LARGE)
        except ClientDisconnect:
            # Before it had said all of its request: nobody is there to be answered.
            return
        except Exception:
            log.exception("%s %s failed", scope.get("method", scope["type"]), scope.get("path"))
            if not has_begun:
                await refuse(scope, send, 500, UNEXPECTED)

    async def _enter(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        path: str = scope["path"]
        shown = scope["state"]["certificate"], headers.get(b"authorization", b"")
        caller = self._caller(*shown)
        is_open = OPEN.fullmatch(path) is not None or (path == METRICS and self._open_metrics)
        if caller is None and not is_open:
            await refuse(scope, send, 401, UNAUTHENTICATED, (b"www-authenticate", b"Bearer"))
            return
        scope["state"]["caller"] = caller or _ANYBODY
        # For what lasts: who is trusted no more gets no further answer.
        scope["state"]["is_let_in"] = lambda: caller is not None and self._caller(*shown) == caller
        if scope["type"] == "http":
            receive = _bounded(receive, headers.get(b"content-length", b"0"))
        await self._app(scope, receive, send)

    def _caller(self, certificate: bytes | None, authorization: bytes) -> Caller | None:
        try:
            if certificate is not None:
                peer = self._keys.peer_of(certificate)
                if peer is not None:
                    return Caller(peer.name, frozenset({tokens.Scope.READ, tokens.Scope.PEER}), is_node=True)
            kind, _, text = authorization.partition(b" ")
            if kind.lower() == b"bearer":
                token = self._keys.token_of(text.strip().decode("latin-1"))
                if token is not None:
                    return Caller(token.name, frozenset({tokens.Scope.READ, token.scope}), is_node=False)
        except (IdemfsError, OSError) as error:
            # Nobody is let in because a list cannot be read.
            log.error("nobody can be recognized: %s", error)
        return None


def _bounded(receive: Receive, content_length: bytes) -> Receive:
    if not content_length.isdigit() or int(content_length[:20]) > REQUEST_SIZE_MAX:
        raise TooLarge
    size = 0

    async def receiving() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > REQUEST_SIZE_MAX:
            raise TooLarge
        return message

    return receiving


async def refuse(scope: Scope, send: Send, status: int, error: str, *headers: tuple[bytes, bytes]) -> None:
    """Answer with one error; a WebSocket that has not begun yet is refused with it."""
    kind = "websocket.http.response" if scope["type"] == "websocket" else "http.response"
    body = msgspec.json.encode({"error": error})
    said = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *headers]
    await send({"type": f"{kind}.start", "status": status, "headers": said})
    await send({"type": f"{kind}.body", "body": body})
