"""Messages between two stores, in order: what a session needs of a connection, and the one that two pipes make.

On a pipe each message stands behind its size: ``size(4, big-endian) · message``.

Threads: one that receives; any may send, one at a time (a session sees to that).
"""

from __future__ import annotations

import fcntl
import os
import select
import time
from typing import Protocol

from idemfs.errors import ConnectionLost
from idemfs.limits import MESSAGE_SIZE_MAX, SILENCE_SECONDS

_SIZE = 4
_READ_SIZE = 1 << 20
_PIPE_SIZE = 1 << 20


class Channel(Protocol):
    """Two ends. A message that was sent comes whole, once, after those before it; or the connection is lost."""

    def send(self, message: bytes) -> None:
        """May wait until the other end takes it. Raises ``ConnectionLost``."""

    def receive(self) -> bytes:
        """The next message. Raises ``ConnectionLost`` when the other end has gone, or is silent for too long."""

    def is_readable(self) -> bool:
        """Whether ``receive`` would return, or raise, at once."""

    def close(self) -> None:
        """The other end finds that this one has gone. May be called from another thread, and twice."""


class PipeChannel:
    """Messages over two file descriptors, which it closes: pipes, or a socket twice."""

    def __init__(self, reading: int, writing: int, *, silence_seconds: float = SILENCE_SECONDS) -> None:
        self._reading = reading
        self._writing = writing
        self._silence_ms = int(silence_seconds * 1000)
        self._came = bytearray()
        self._is_closed = False
        for fd in {reading, writing}:
            os.set_blocking(fd, False)
            _widen(fd)

    def send(self, message: bytes) -> None:
        if len(message) > MESSAGE_SIZE_MAX:
            raise ValueError(f"a message of {len(message)} bytes is too long")
        left = memoryview(len(message).to_bytes(_SIZE, "big") + message)
        while left:
            try:
                left = left[os.write(self._writing, left) :]
            except BlockingIOError:
                self._wait(self._writing, select.POLLOUT)
            except OSError as error:
                raise self._lost() from error

    def receive(self) -> bytes:
        size = int.from_bytes(self._take(_SIZE), "big")
        if size > MESSAGE_SIZE_MAX:
            raise ConnectionLost("what comes over the connection is not from idemfs: check the command that makes it")
        return self._take(size)

    def is_readable(self) -> bool:
        if len(self._came) >= _SIZE:
            return True
        found = select.poll()
        found.register(self._reading, select.POLLIN)
        return bool(found.poll(0))

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            for fd in {self._reading, self._writing}:
                os.close(fd)

    def _take(self, size: int) -> bytes:
        while len(self._came) < size:
            try:
                piece = os.read(self._reading, _READ_SIZE)
            except BlockingIOError:
                self._wait(self._reading, select.POLLIN)
                continue
            except OSError as error:
                raise self._lost() from error
            if not piece:
                raise self._lost()
            self._came += piece
        taken = bytes(memoryview(self._came)[:size])
        del self._came[:size]
        return taken

    def _wait(self, fd: int, event: int) -> None:
        """Until it can go on. A signal that comes meanwhile starts the wait anew."""
        waiting = select.poll()
        waiting.register(fd, event)
        begun = time.monotonic()
        if not waiting.poll(self._silence_ms):
            raise ConnectionLost(f"the other store has been silent for {time.monotonic() - begun:.0f} s")

    def _lost(self) -> ConnectionLost:
        return ConnectionLost("the connection to the other store ended")


def _widen(fd: int) -> None:
    """A pipe that takes more at a time, where it is one and the system lets it."""
    try:
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
    except OSError:
        # A socket, or beyond what the system allows this user: it works all the same.
        return
