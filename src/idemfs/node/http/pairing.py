"""Routes of pairing, and the WebSocket on which paired nodes speak.

Threads: of the pool; the WebSocket is the server's, and has a thread of its own beside it (``bridge``).
"""

from __future__ import annotations

import threading
from typing import Annotated

from fastapi import Depends, Response
from starlette.websockets import WebSocket

from idemfs.errors import PeerError
from idemfs.limits import PEER_CHANNEL_COUNT_MAX
from idemfs.node import tokens
from idemfs.node.http import gate
from idemfs.node.http.actions import Actions
from idemfs.node.http.api import Api, RequestRefused, answer, body_of, decoded
from idemfs.node.http.bridge import ServerChannel
from idemfs.node.http.gate import Caller, log
from idemfs.node.keys import Keys
from idemfs.node.node import Node
from idemfs.node.offers import Card
from idemfs.node.pairing import PATH, PairRequest

Body = Annotated[bytes, Depends(body_of)]


class PairingRoutes:
    """``add_to`` makes the routes."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    def add_to(self, api: Api) -> None:
        api.add("GET", PATH, self.card, scope=None, answers=Card)
        api.add("POST", PATH, self.pair, scope=None, takes=PairRequest, answers=Card, refusals=(403,))

    def card(self) -> Response:
        """How this node presents itself to one that pairs with it.

        Nothing of it is secret; whoever asks compares it with a fingerprint that came another way.
        """
        return answer(self._keys.card())

    def pair(self, body: Body) -> Response:
        """Pair with the node that proves a code of `idemfs node pair --offer`."""
        request: PairRequest = decoded(body, PairRequest)
        try:
            peer = self._keys.accept(request.secret, request.node)
        except PeerError as refused:
            log.warning("refused to pair with a node that calls itself %.100r: %s", request.node.name, refused)
            raise RequestRefused(403, str(refused)) from refused
        log.info("paired with %s at %s, fingerprint %s", peer.name, peer.url or "no address", peer.fingerprint)
        return answer(self._keys.card())


class PeerRoute:
    """``/v1/stores/{name}/peer``: a channel to a store, for paired nodes and tokens of scope ``peer``."""

    def __init__(self, node: Node, actions: Actions) -> None:
        self._node = node
        self._actions = actions
        self._slots = threading.BoundedSemaphore(PEER_CHANNEL_COUNT_MAX)

    def add_to(self, api: Api) -> None:
        api.app.add_api_websocket_route("/v1/stores/{name}/peer", self.connect)

    async def connect(self, websocket: WebSocket) -> None:
        """Serve one session, until the other end has gone."""
        name: str = websocket.path_params["name"]
        caller: Caller = websocket.state.caller
        path = next((store.path for store in self._node.config.stores if store.name == name), "")
        refusal = _refusal(name, path, caller)
        if refusal is None and not self._slots.acquire(blocking=False):
            refusal = 503, f"{PEER_CHANNEL_COUNT_MAX} nodes are connected already; try again later"
        if refusal is not None:
            await gate.refuse(websocket.scope, websocket._send, *refusal)
            return
        try:
            await websocket.accept()
            channel = ServerChannel(websocket, f"{caller.name}, for store {name}", websocket.state.is_let_in)
            await channel.run(lambda channel: self._serve(channel, name, path, caller))
        finally:
            self._slots.release()

    def _serve(self, channel: ServerChannel, name: str, path: str, caller: Caller) -> None:
        """The store is the node's before the session begins: or it would be the session's alone while that lasts."""
        if self._node.store(name) is None:
            self._node.complete()
        try:
            self._actions.serve_peer(path, channel, caller)
        finally:
            if self._node.store(name) is None:
                # It may have been made just now.
                self._node.complete()


def _refusal(name: str, path: str, caller: Caller) -> tuple[int, str] | None:
    if tokens.Scope.PEER not in caller.scopes:
        return 403, f"token {caller.name} has not the scope 'peer', which this needs"
    return None if path else (404, f"this node has no store {name}")
