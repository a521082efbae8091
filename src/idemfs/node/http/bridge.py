"""A channel whose far end is a WebSocket of the server: one thread uses it, while the server's thread moves bytes.

A few messages may wait each way. When as many have come as may wait, no more are read from the network, and so the
other end waits; when as many are to go, ``send`` waits. Who uses the channel is told of its end by ``ConnectionLost``.

Threads: what a ``Channel`` has is for the thread that uses it; ``run`` is the server's.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable

from starlette.websockets import WebSocket, WebSocketDisconnect

from idemfs.errors import ConnectionLost
from idemfs.limits import PEER_QUEUE_COUNT, SILENCE_SECONDS

Serve = Callable[["ServerChannel"], None]

log = logging.getLogger("idemfs.http")


class ServerChannel:
    """Messages to and from the node that has connected."""

    def __init__(self, socket: WebSocket, what: str, is_let_in: Callable[[], bool]) -> None:
        """``socket`` is accepted. ``what`` names the other end in messages. ``is_let_in``: whether it may still come
        in, which is asked for each message."""
        self._socket = socket
        self._what = what
        self._is_let_in = is_let_in
        self._loop = asyncio.get_running_loop()
        self._changed = threading.Condition()
        self._incoming: deque[bytes] = deque()
        self._outgoing: deque[bytes] = deque()
        self._lost: str | None = None
        self._is_closing = False
        self._may_read = asyncio.Event()
        self._may_write = asyncio.Event()

    # -- for the thread that uses it ---------------------------------------------------------------------

    def send(self, message: bytes) -> None:
        """Returns when it is among those to go. Raises ``ConnectionLost``."""
        with self._changed:
            while self._lost is None and len(self._outgoing) >= PEER_QUEUE_COUNT:
                self._changed.wait()
            self._refuse_if_lost()
            self._outgoing.append(message)
            if len(self._outgoing) == 1:
                self._tell(self._may_write)

    def receive(self) -> bytes:
        """The next message. Raises ``ConnectionLost``."""
        with self._changed:
            while not self._incoming:
                self._refuse_if_lost()
                if not self._changed.wait(SILENCE_SECONDS):
                    self._lost = f"it has been silent for {SILENCE_SECONDS:.0f} s"
            message = self._incoming.popleft()
            if len(self._incoming) == PEER_QUEUE_COUNT - 1:
                self._tell(self._may_read)
        if not self._is_let_in():
            raise ConnectionLost(f"{self._what}: the connection is given up: it is not trusted any more")
        return message

    def is_readable(self) -> bool:
        """Whether ``receive`` would return, or raise, at once."""
        with self._changed:
            return bool(self._incoming) or self._lost is not None

    def close(self) -> None:
        """What was sent still goes."""
        with self._changed:
            self._is_closing = True
            if self._lost is None:
                self._lost = "it was closed here"
            self._changed.notify_all()
            self._tell(self._may_write)

    def _refuse_if_lost(self) -> None:
        if self._lost is not None:
            raise ConnectionLost(f"{self._what}: the connection is lost: {self._lost}")

    def _tell(self, event: asyncio.Event) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(event.set)

    # -- for the server ----------------------------------------------------------------------------------

    async def run(self, serve: Serve) -> None:
        """Let ``serve`` use the channel in a thread of its own, until it returns."""
        ended = asyncio.Event()
        thread = threading.Thread(target=self._serve, args=(serve, ended), name="idemfs-peer", daemon=True)
        reading = asyncio.create_task(self._read())
        writing = asyncio.create_task(self._write())
        thread.start()
        try:
            await ended.wait()
            await writing
        finally:
            self._end("the server ends")
            reading.cancel()
            writing.cancel()

    def _serve(self, serve: Serve, ended: asyncio.Event) -> None:
        try:
            serve(self)
        except ConnectionLost as lost:
            log.info("%s", lost)
        except Exception:
            log.exception("%s: the channel ends", self._what)
        finally:
            self.close()
            self._tell(ended)

    async def _read(self) -> None:
        """What comes may be taken; no more is read than may wait."""
        while True:
            with self._changed:
                is_full = len(self._incoming) >= PEER_QUEUE_COUNT
                self._may_read.clear()
            if is_full:
                await self._may_read.wait()
                continue
            event = await self._socket.receive()
            if event["type"] != "websocket.receive":
                self._end(event.get("reason") or "the other end has gone")
                return
            message = event.get("bytes")
            if message is None:
                self._end("the other end sent text")
                return
            with self._changed:
                self._incoming.append(message)
                self._changed.notify_all()

    async def _write(self) -> None:
        """What is to go goes, one after the other; when the channel is closed, so is the socket."""
        while True:
            with self._changed:
                message = self._outgoing[0] if self._outgoing else None
                is_over = message is None and (self._is_closing or self._lost is not None)
                self._may_write.clear()
            try:
                if message is not None:
                    await self._socket.send({"type": "websocket.send", "bytes": message})
                elif is_over:
                    await self._socket.close()
                    return
                else:
                    await self._may_write.wait()
                    continue
            except (OSError, RuntimeError, WebSocketDisconnect) as error:
                self._end(str(error) or "the other end has gone")
                return
            with self._changed:
                self._outgoing.popleft()
                self._changed.notify_all()

    def _end(self, why: str) -> None:
        with self._changed:
            if self._lost is None:
                self._lost = why
            self._changed.notify_all()
        self._may_write.set()
