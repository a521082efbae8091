"""The channel to a store of another node: a WebSocket over TLS, which both prove by their certificates.

TLS and WebSocket are computed on bytes, and the socket never blocks. While a message is being sent, what comes is taken
in, so that two ends that both send do not wait for each other; when as much has come as may wait, it stays in the
network. A host that has gone silent is noticed by TCP, one that does nothing by its silence.

Threads: one receives; any may send, one at a time. TLS is no matter of two threads at once, so a lock guards each of
its steps; none of them waits.
"""

from __future__ import annotations

import logging
import select
import socket
import ssl
import threading
import time
from collections import deque
from contextlib import suppress
from urllib.parse import quote

import msgspec
from websockets.client import ClientProtocol
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import CONNECTING, OPEN
from websockets.uri import parse_uri

from idemfs.errors import ConnectionLost, PeerError
from idemfs.limits import MESSAGE_SIZE_MAX, PEER_QUEUE_COUNT, SILENCE_SECONDS, TCP_SILENCE_SECONDS
from idemfs.node import offers, tls
from idemfs.node.keys import Keys, TrustedPeer

OPENING_SECONDS = 10.0
"""How long connecting may take, and each answer until the channel stands."""
_PIECE_SIZE = 256 << 10
_PIECES_AT_ONCE = 16
"""TLS gives 16 KiB at a time."""

log = logging.getLogger("idemfs.http")


def connect(keys: Keys, host: str, port: int | None, name: str) -> WebSocketChannel:
    """The channel to the store that another node calls ``name``. Raises ``PeerError``, also ``ConnectionLost``."""
    peer = keys.peer_at(host, offers.DEFAULT_PORT if port is None else port)
    try:
        context = tls.client_context(keys, peer)
        plain = socket.create_connection((host, offers.DEFAULT_PORT if port is None else port), OPENING_SECONDS)
        try:
            make_lively(plain)
            connection = context.wrap_socket(plain, server_hostname=host)
        except BaseException:
            plain.close()
            raise
    except OSError as error:
        raise ConnectionLost(tls.what_failed(error, peer)) from error
    try:
        tls.require_peer(keys, peer, connection)
        return WebSocketChannel(connection, peer, name)
    except BaseException:
        connection.close()
        raise


def make_lively(connection: socket.socket) -> None:
    """No delays for small messages, and an end when the other host has gone. What a listener has, connections get."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, TCP_SILENCE_SECONDS // 3)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, TCP_SILENCE_SECONDS // 6)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, TCP_SILENCE_SECONDS * 1000)


class WebSocketChannel:
    """Messages to and from a store of another node."""

    def __init__(self, connection: ssl.SSLSocket, peer: TrustedPeer, name: str) -> None:
        """``connection`` is the channel's from here on. Raises ``PeerError``."""
        self._connection = connection
        self._what = f"store {name} of {peer.name} at {peer.url}"
        uri = parse_uri(f"wss://{peer.url.removeprefix('https://')}/v1/stores/{quote(name, safe='')}/peer")
        self._protocol = ClientProtocol(uri, max_size=MESSAGE_SIZE_MAX, logger=log)
        self._lock = threading.Lock()
        self._reader: int | None = None
        """The thread that receives: no other one may take messages in, or it would wait for what has come."""
        self._messages: deque[bytes] = deque()
        self._parts: list[bytes] = []
        self._unsent: deque[memoryview] = deque()
        self._failure: str | None = None
        self._open(peer)

    def _open(self, peer: TrustedPeer) -> None:
        until = time.monotonic() + OPENING_SECONDS
        try:
            self._connection.settimeout(OPENING_SECONDS)
            self._protocol.send_request(self._protocol.connect())
            self._connection.sendall(b"".join(self._protocol.data_to_send()))
            while self._protocol.state is CONNECTING and self._protocol.handshake_exc is None:
                if time.monotonic() > until:
                    raise TimeoutError
                piece = self._connection.recv(_PIECE_SIZE)
                if not piece and self._protocol.state is CONNECTING:
                    # What the other end has against the certificate, it does not say.
                    raise ConnectionResetError
                self._take(piece)
        except OSError as error:
            raise ConnectionLost(tls.what_failed(error, peer)) from error
        failure = self._protocol.handshake_exc
        if isinstance(failure, InvalidStatus):
            raise PeerError(self._refusal(failure.response, peer)) from failure
        if failure is not None or self._protocol.state is not OPEN:
            raise ConnectionLost(f"{self._what}: the other end speaks another language: {failure}") from failure
        self._connection.setblocking(False)

    def _refusal(self, response: Response, peer: TrustedPeer) -> str:
        if response.status_code == 401:
            return tls.not_trusted(peer)
        try:
            said = msgspec.json.decode(response.body or b"", type=dict[str, str]).get("error")
        except (msgspec.DecodeError, UnicodeDecodeError):
            said = None
        return f"{self._what}: {said or f'answered with status {response.status_code}'}"

    # -- a channel -------------------------------------------------------------------------------------

    def send(self, message: bytes) -> None:
        """Returns when all of it is on its way. Raises ``ConnectionLost``."""
        with self._lock:
            self._refuse_if_lost()
            try:
                self._protocol.send_binary(message)
            except ConnectionClosed as closed:
                raise self._lost(str(closed)) from closed
        while not self._write():
            self._let_in()

    def receive(self) -> bytes:
        """The next message. Raises ``ConnectionLost``."""
        self._reader = threading.get_ident()
        while not self._messages:
            if not self._read():
                self._wait(select.POLLIN)
        return self._messages.popleft()

    def is_readable(self) -> bool:
        """Whether ``receive`` would return, or raise, at once."""
        if not self._messages and self._failure is None:
            with suppress(ConnectionLost):
                self._read()
        return bool(self._messages) or self._failure is not None

    def close(self) -> None:
        """Tell the other end, if that can be done at once."""
        with self._lock:
            if self._failure is None:
                self._failure = "it was closed here"
                with suppress(OSError, ConnectionClosed):
                    self._protocol.send_close(1000)
                    if not self._unsent:
                        self._connection.send(b"".join(self._protocol.data_to_send()))
            with suppress(OSError):
                # Whoever waits for it wakes.
                self._connection.shutdown(socket.SHUT_RDWR)
            self._connection.close()

    # -- bytes -----------------------------------------------------------------------------------------

    def _write(self) -> bool:
        """Send what can be sent now; whether that was all. Raises ``ConnectionLost``."""
        with self._lock:
            self._unsent.extend(memoryview(piece) for piece in self._protocol.data_to_send() if piece)
            try:
                while self._unsent:
                    piece = self._unsent[0]
                    count = self._connection.send(piece)
                    if count < len(piece):
                        self._unsent[0] = piece[count:]
                    else:
                        self._unsent.popleft()
            except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
                return False
            except OSError as error:
                raise self._lost(error.strerror or str(error)) from error
            return True

    def _let_in(self) -> None:
        """The way out is full: until it is not, take in what comes, as much as may wait."""
        if self._reader not in (None, threading.get_ident()) or len(self._messages) >= PEER_QUEUE_COUNT:
            self._wait(select.POLLOUT)
        elif self._wait(select.POLLIN | select.POLLOUT) & select.POLLIN:
            self._read()

    def _read(self) -> bool:
        """Take in what has come; whether anything had. Raises ``ConnectionLost``."""
        with self._lock:
            self._refuse_if_lost()
            pieces: list[bytes] = []
            try:
                while len(pieces) < _PIECES_AT_ONCE:
                    pieces.append(self._connection.recv(_PIECE_SIZE))
                    if not pieces[-1]:
                        break
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                if not pieces:
                    return False
            except OSError as error:
                raise self._lost(error.strerror or str(error)) from error
            came = b"".join(pieces)
            if came:
                self._take(came)
            if not pieces[-1]:
                self._take(b"")
        self._write()
        return True

    def _take(self, data: bytes) -> None:
        """Bytes, or if there are none the end, become messages."""
        if data:
            self._protocol.receive_data(data)
        else:
            self._protocol.receive_eof()
        for event in self._protocol.events_received():
            if isinstance(event, Frame) and event.opcode in (Opcode.BINARY, Opcode.CONT):
                self._parts.append(bytes(event.data))
                if event.fin:
                    self._messages.append(self._parts[0] if len(self._parts) == 1 else b"".join(self._parts))
                    self._parts = []
        if self._protocol.state not in (CONNECTING, OPEN) and self._failure is None:
            received = self._protocol.close_rcvd
            self._failure = received.reason if received and received.reason else "the other end has gone"

    def _wait(self, events: int) -> int:
        """Until something of this happens; which. Raises ``ConnectionLost`` when nothing does for too long."""
        with self._lock:
            self._refuse_if_lost()
            poll = select.poll()
            poll.register(self._connection, events)
        found = poll.poll(SILENCE_SECONDS * 1000)
        if not found:
            with self._lock:
                raise self._lost(f"it has been silent for {SILENCE_SECONDS:.0f} s")
        return found[0][1]

    def _lost(self, why: str) -> ConnectionLost:
        if self._failure is None:
            self._failure = why
        return ConnectionLost(f"{self._what}: the connection is lost: {self._failure}")

    def _refuse_if_lost(self) -> None:
        if self._failure is not None:
            raise self._lost(self._failure)
