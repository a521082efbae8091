"""Messages between two stores, in order: what a session needs of a connection, and the one that two pipes make.

On a pipe each message stands behind its size: ``size(4, big-endian) · message``.

Threads: one that receives; any may send, one at a time (a session sees to that).
"""

from __future__ import annotations

import fcntl
import os
import select
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from idemfs.errors import ConnectionLost
from idemfs.limits import MESSAGE_SIZE_MAX, SILENCE_SECONDS, STUCK_SECONDS

_SIZE = 4
_PIPE_SIZE = 1 << 20


class Channel(Protocol):
    """Two ends. A message that was sent comes whole, once, after those before it; or the connection is lost."""

    def send(self, message: bytes) -> None:
        """May wait until the other end takes it. Raises ``ConnectionLost``."""

    def receive(self) -> bytes | bytearray:
        """The next message. Raises ``ConnectionLost`` when the other end has gone, or is silent for too long."""

    def is_readable(self) -> bool:
        """Whether ``receive`` would return, or raise, at once."""

    def close(self) -> None:
        """The other end finds that this one has gone. May be called from another thread, and twice."""


class PipeChannel:
    """Messages over two file descriptors, which it closes: pipes, or a socket twice."""

    def __init__(
        self,
        reading: int,
        writing: int,
        *,
        silence_seconds: float = SILENCE_SECONDS,
        stuck_seconds: float = STUCK_SECONDS,
    ) -> None:
        self._reading = reading
        self._writing = writing
        self._waking = os.eventfd(0, os.EFD_CLOEXEC)
        self._silence_ms = int(silence_seconds * 1000)
        self._stuck_ms = int(stuck_seconds * 1000)
        self._has_begun = False
        """Something came: before, the connection is being made, and the other store opened."""
        self._users = 0
        self._is_closing = False
        self._is_closed = False
        self._counting = threading.Lock()
        for fd in {reading, writing}:
            os.set_blocking(fd, False)
            _widen(fd)

    def send(self, message: bytes) -> None:
        if len(message) > MESSAGE_SIZE_MAX:
            raise ValueError(f"a message of {len(message)} bytes is too long")
        left = [memoryview(len(message).to_bytes(_SIZE, "big")), memoryview(message)]
        with self._in_use():
            while left:
                try:
                    left = _after(left, os.writev(self._writing, left))
                except BlockingIOError:
                    self._wait(self._writing, select.POLLOUT, self._stuck_ms)
                except OSError as error:
                    raise self._lost() from error

    def receive(self) -> bytes | bytearray:
        with self._in_use():
            size = int.from_bytes(self._take(_SIZE), "big")
            if size > MESSAGE_SIZE_MAX:
                raise self._strange()
            return self._take(size)

    def is_readable(self) -> bool:
        with self._in_use():
            found = select.poll()
            found.register(self._reading, select.POLLIN)
            return bool(found.poll(0))

    def close(self) -> None:
        with self._counting:
            if self._is_closing:
                return
            self._is_closing = True
            is_free = not self._users
            # Not later: who uses the descriptors may be the one that closes them, as soon as it is let go on.
            os.eventfd_write(self._waking, 1)
        if is_free:
            self._release()

    def _release(self) -> None:
        """The last one to use the descriptors closes them, so that nobody else's are read."""
        if not self._is_closed:
            self._is_closed = True
            for fd in {self._reading, self._writing, self._waking}:
                os.close(fd)

    @contextmanager
    def _in_use(self) -> Iterator[None]:
        with self._counting:
            if self._is_closing:
                raise self._lost()
            self._users += 1
        try:
            yield
        finally:
            if self._leave():
                self._release()

    def _leave(self) -> bool:
        """Whether nobody needs the descriptors any more."""
        with self._counting:
            self._users -= 1
            return self._is_closing and not self._users

    def _take(self, size: int) -> bytearray:
        """So many bytes, read to where they stay."""
        taken = bytearray(size)
        left = memoryview(taken)
        while left:
            try:
                count = os.readv(self._reading, [left])
            except BlockingIOError:
                self._wait(self._reading, select.POLLIN, self._silence_ms if self._has_begun else self._stuck_ms)
                continue
            except OSError as error:
                raise self._lost() from error
            if not count:
                raise self._lost()
            left = left[count:]
            self._has_begun = True
        return taken

    def _wait(self, fd: int, event: int, milliseconds: int) -> None:
        """Until it can go on. Raises ``ConnectionLost`` after a silence, or when this end is closed."""
        waiting = select.poll()
        waiting.register(fd, event)
        waiting.register(self._waking, select.POLLIN)
        ready = waiting.poll(milliseconds)
        if not ready:
            raise ConnectionLost(f"the other store has been silent for {milliseconds / 1000:.0f} s")
        if self._is_closing:
            raise ConnectionLost("the connection to the other store was closed here")

    def _lost(self) -> ConnectionLost:
        return ConnectionLost("the connection to the other store ended")

    def _strange(self) -> ConnectionLost:
        return ConnectionLost("what comes over the connection is not from idemfs: check the command that makes it")


def _after(left: list[memoryview], count: int) -> list[memoryview]:
    """What is left of these when so many bytes are gone."""
    while left and count >= len(left[0]):
        count -= len(left[0])
        left = left[1:]
    return [left[0][count:], *left[1:]] if left else left


def _widen(fd: int) -> None:
    """A pipe that takes more at a time, where it is one and the system lets it."""
    try:
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
    except OSError:
        # A socket, or beyond what the system allows this user: it works all the same.
        return
