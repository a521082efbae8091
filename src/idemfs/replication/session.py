"""Questions and answers between two stores over one channel, and streams.

Each end may ask. Whoever waits for an answer serves the other's questions meanwhile, so one connection, made by either
end, is enough for both directions. A message::

    xxh3(8, big-endian, with the number of the message as seed) · kind(1) · body

    H hello       version, oldest version understood, release, guid of the store
    C question    name of the operation and what it is asked with      R answer      F failure: error class, text, errno
    D data        a piece of a stream    E its end    A its end, broken off by the sender
    M more        a piece of what comes with the next message that is none of these
    K             nothing: this end is alive, and busy

Bodies are JSON, but for data. A message that is damaged, missing, repeated or out of place has another checksum than
the one expected; then the connection is given up, and nothing that was half said happens.

Threads: one at each end asks and serves; another one sends K.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

import msgspec
from xxhash import xxh3_64, xxh3_64_intdigest

from idemfs import errors
from idemfs.errors import ConnectionLost, IdemfsError, PeerError, StreamInterrupted
from idemfs.ids import Guid
from idemfs.limits import BEAT_SECONDS, MESSAGE_SIZE_MAX, SAID_SIZE_MAX
from idemfs.replication.channel import Channel

VERSION = OLDEST = 1
_PIECE_SIZE = MESSAGE_SIZE_MAX // 2
_HELLO, _CALL, _REPLY, _FAILURE, _DATA, _END, _ABORT, _MORE, _ALIVE = b"HCRFDEAMK"

_NO_SENSE = msgspec.DecodeError, UnicodeDecodeError, RecursionError
"""What reading a body raises that is none."""

T = TypeVar("T")
Handler = Callable[[msgspec.Raw, "Session"], object]
"""Carries an operation out; what it returns is the answer. It may read streams from the session."""


class Hello(NamedTuple):
    """Who is there. ``store`` is empty where there is no store yet."""

    version: int
    oldest: int
    release: str
    store: Guid


class _Call(NamedTuple):
    name: str
    arguments: msgspec.Raw
    stream_count: int = 0


class _Failed(NamedTuple):
    kind: str
    text: str
    errno: int = 0


class Session:
    """One end. Close it when done; what it holds at the other end ends with it."""

    def __init__(
        self,
        channel: Channel,
        store: Guid,
        handlers: Mapping[str, Handler] | None = None,
        *,
        beat_seconds: float | None = BEAT_SECONDS,
    ) -> None:
        """Exchanges greetings. ``handlers``: what the other end may ask for, by name; ``beat_seconds`` None: never
        say that this end is alive. Raises ``ConnectionLost``, ``PeerError``; then the channel is closed."""
        self.handlers = dict(handlers or {})
        self._channel = channel
        self._sent = self._received = 0
        self._sending = threading.Lock()
        self._has_spoken = False
        self._closed = threading.Event()
        self._streams_left = 0
        self._is_midway = False
        """A stream was begun, and has not been read to its end."""
        try:
            self._send(_HELLO, msgspec.json.encode(Hello(VERSION, OLDEST, _release(), store)))
            self.peer = self._greeted()
        except BaseException:
            # Whoever made the connection has nothing else to close it by.
            self.close()
            raise
        if beat_seconds is not None:
            beats = threading.Thread(target=self._beat, args=(beat_seconds,), name="idemfs-beat", daemon=True)
            beats.start()

    def close(self) -> None:
        self._closed.set()
        self._channel.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- asking ----------------------------------------------------------------------------------------

    def call(
        self, name: str, arguments: object, reply: type[T], streams: Sequence[Iterable[bytes | memoryview]] = ()
    ) -> T:
        """Ask for an operation. Raises what it raises there, as the same class, and ``ConnectionLost``, ``PeerError``.

        ``streams`` are sent after the question, one after the other, and stop early when the answer is there. What
        one of them raises breaks the operation off, and is raised again.
        """
        body = msgspec.json.encode(_Call(name, msgspec.Raw(msgspec.json.encode(arguments)), len(streams)))
        self._send(_CALL, body)
        early: tuple[int, bytes | memoryview] | None = None
        try:
            for stream in streams:
                early = self._send_stream(stream) if early is None else early
                self._send(_END, b"")
        except ConnectionLost:
            raise
        except BaseException:
            self._break_off()
            raise
        kind, answer = early or self._await()
        try:
            if kind == _REPLY:
                return msgspec.json.decode(answer, type=reply)
            failed = msgspec.json.decode(answer, type=_Failed)
        except _NO_SENSE as bad:
            raise _nonsense() from bad
        raise _rebuilt(failed)

    def _send_stream(self, stream: Iterable[bytes | memoryview]) -> tuple[int, bytes | memoryview] | None:
        """An answer that came before the end, if one did."""
        for chunk in stream:
            view = memoryview(chunk)
            for at in range(0, len(view), _PIECE_SIZE):
                self._send(_DATA, view[at : at + _PIECE_SIZE])
            while self._channel.is_readable():
                kind, body = self._one()
                if kind == _ALIVE:
                    continue
                if kind == _MORE:
                    kind, body = self._next(body)
                if kind in (_REPLY, _FAILURE):
                    return kind, body
                raise _nonsense()
        return None

    def _break_off(self) -> None:
        """The caller failed; the other end is told, and its answer is of no more interest."""
        try:
            self._send(_ABORT, b"")
            self._await()
        except (IdemfsError, OSError):
            self.close()

    def _await(self) -> tuple[int, bytes | memoryview]:
        while True:
            kind, body = self._next()
            if kind in (_REPLY, _FAILURE):
                return kind, body
            if kind != _CALL:
                raise _nonsense()
            self._answer(body)

    # -- answering -------------------------------------------------------------------------------------

    def serve(self) -> None:
        """Answer until the other end has gone. Raises ``ConnectionLost`` when it went in the midst of something."""
        while True:
            try:
                kind, body = self._next()
            except ConnectionLost:
                return
            if kind != _CALL:
                raise _nonsense()
            self._answer(body)

    def _answer(self, body: bytes | memoryview) -> None:
        try:
            call = msgspec.json.decode(body, type=_Call)
        except _NO_SENSE as bad:
            raise _nonsense() from bad
        self._streams_left = call.stream_count
        self._is_midway = False
        try:
            handler = self.handlers.get(call.name)
            if handler is None:
                raise PeerError(f"the other store asks for {call.name[:40]!r}, which this idemfs does not do")
            answer = _REPLY, msgspec.json.encode(handler(call.arguments, self))
        except ConnectionLost:
            raise
        except _NO_SENSE:
            answer = (
                _FAILURE,
                msgspec.json.encode(_Failed("PeerError", "the other store was asked what makes no sense")),
            )
        except (IdemfsError, OSError) as error:
            answer = _FAILURE, msgspec.json.encode(_failed(error))
        self._send(*answer)
        self._skip_streams()

    def data(self) -> Iterator[bytes | memoryview]:
        """The pieces of the next stream of the question that is being answered; what its reader left of the one before
        is skipped. Raises ``StreamInterrupted``."""
        if self._is_midway:
            self._skip_stream()
        if not self._streams_left:
            raise StreamInterrupted("the other store broke off before this stream; what came is kept")
        self._is_midway = True
        while True:
            kind, body = self._next()
            if kind == _DATA:
                yield body
                continue
            self._end_stream(kind)
            if kind == _ABORT:
                raise StreamInterrupted("the other store broke the stream off; what came is kept")
            return

    def _end_stream(self, kind: int) -> None:
        if kind not in (_END, _ABORT):
            raise _nonsense()
        self._is_midway = False
        self._streams_left = 0 if kind == _ABORT else self._streams_left - 1

    def _skip_stream(self) -> None:
        kind = _DATA
        while kind == _DATA:
            kind, _ = self._next()
        self._end_stream(kind)

    def _skip_streams(self) -> None:
        """What was not read of the streams of a question that is answered."""
        while self._streams_left:
            self._skip_stream()

    # -- messages --------------------------------------------------------------------------------------

    def _greeted(self) -> Hello:
        kind, body = self._next()
        try:
            hello = msgspec.json.decode(body, type=Hello) if kind == _HELLO else None
        except _NO_SENSE:
            hello = None
        if hello is None:
            raise _nonsense()
        if hello.oldest > VERSION or hello.version < OLDEST:
            newer = "this one" if hello.oldest > VERSION else "the other one"
            raise PeerError(
                f"the other store is used by idemfs {hello.release[:40]}, and this one by {_release()}, which do not "
                f"understand each other: install a newer idemfs at {newer}"
            )
        return hello

    def _send(self, kind: int, body: bytes | memoryview) -> None:
        left = memoryview(body)
        with self._sending:
            while len(left) > _PIECE_SIZE:
                self._put(_MORE, left[:_PIECE_SIZE])
                left = left[_PIECE_SIZE:]
            self._put(kind, left)
            self._has_spoken = True

    def _put(self, kind: int, body: memoryview) -> None:
        head = bytes((kind,))
        check = xxh3_64(head, seed=self._sent)
        check.update(body)
        self._sent += 1
        # Its digest is big-endian, as the integer is sent.
        self._channel.send(b"".join((check.digest(), head, body)))

    def _next(self, said: bytes | memoryview = b"") -> tuple[int, bytes | memoryview]:
        """Kind and body of the next message that says something; ``said``: what has come of it."""
        while True:
            kind, body = self._one()
            if kind == _ALIVE:
                continue
            said = bytes(said) + body if said else body
            if kind != _MORE:
                return kind, said
            if len(said) > SAID_SIZE_MAX:
                raise _nonsense()

    def _one(self) -> tuple[int, bytes | memoryview]:
        message = memoryview(self._channel.receive())
        check = xxh3_64_intdigest(message[8:], seed=self._received)
        if len(message) < 9 or int.from_bytes(message[:8], "big") != check:
            self.close()
            raise ConnectionLost("what came over the connection to the other store is damaged; it is given up")
        self._received += 1
        kind, body = message[8], message[9:]
        # What is long is not copied: it is content, which its reader takes apart.
        return kind, body if kind == _DATA else bytes(body)

    def _beat(self, seconds: float) -> None:
        while not self._closed.wait(seconds):
            try:
                with self._sending:
                    if not self._has_spoken:
                        self._put(_ALIVE, memoryview(b""))
                    self._has_spoken = False
            except (ConnectionLost, OSError):
                # Whoever asks, or answers, finds out by itself.
                return


def _nonsense() -> ConnectionLost:
    return ConnectionLost("the other store does not keep to the protocol; the connection is given up")


def _release() -> str:
    from importlib.metadata import version

    return version("idemfs")


# -- errors --------------------------------------------------------------------------------------------


def _failed(error: Exception) -> _Failed:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    kind = type(error).__name__ if isinstance(error, IdemfsError) else "OSError"
    return _Failed(kind, text.encode(errors="backslashreplace").decode(), getattr(error, "errno", None) or 0)


def _rebuilt(failed: _Failed) -> Exception:
    """The error as it was at the other end, or a ``PeerError`` with its text."""
    if failed.kind == "OSError":
        return OSError(failed.errno or errno.EIO, failed.text)
    kind = getattr(errors, failed.kind, None)
    if not isinstance(kind, type) or not issubclass(kind, IdemfsError) or kind is errors.StoreInUse:
        return PeerError(failed.text)
    return kind(failed.text)
