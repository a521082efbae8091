"""Questions and answers over a connection, and what becomes of them when it is not what it should be."""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec
import pytest

from idemfs.errors import ConnectionLost, Fenced, IdemfsError, NoSpace, PeerError, SnapshotMissing, StreamInterrupted
from idemfs.ids import Guid
from idemfs.limits import MESSAGE_SIZE_MAX
from idemfs.replication.channel import Channel, PipeChannel
from idemfs.replication.session import Handler, Hello, Session
from idemfs.testing.connected import channels

ONE, OTHER = Guid(b"1" * 16), Guid(b"2" * 16)


@contextmanager
def answering(handlers: dict[str, Handler], here: Channel, there: Channel) -> Iterator[Session]:
    """A session whose other end answers in a thread, until it fails or this end closes."""

    def serve() -> None:
        try:
            with Session(there, OTHER, handlers) as session:
                session.serve()
        except IdemfsError:
            there.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with Session(here, ONE) as session:
            yield session
    finally:
        here.close()
        thread.join()


def raising(error: Exception) -> Handler:
    def handler(_raw: msgspec.Raw, _session: Session) -> object:
        raise error

    return handler


def test_each_end_knows_the_other() -> None:
    with answering({}, *channels()) as session:
        assert session.peer.store == OTHER


def test_answers_of_any_size_come_back() -> None:
    handlers: dict[str, Handler] = {"repeat": lambda raw, _: msgspec.json.decode(raw, type=bytes)}
    with answering(handlers, *channels()) as session:
        for size in (0, 1, MESSAGE_SIZE_MAX // 2, 3 * MESSAGE_SIZE_MAX):
            assert session.call("repeat", b"x" * size, bytes) == b"x" * size


@pytest.mark.parametrize(
    "error",
    [SnapshotMissing("no snapshot 'one'"), Fenced("epoch 3 has begun"), NoSpace("full"), OSError(errno.EDQUOT, "over")],
)
def test_an_error_is_the_same_at_both_ends(error: Exception) -> None:
    with answering({"fail": raising(error)}, *channels()) as session:
        with pytest.raises(type(error)) as caught:
            session.call("fail", None, int)
        assert getattr(caught.value, "errno", None) == getattr(error, "errno", None)
        assert str(caught.value) == str(error)
        with pytest.raises(type(error)):
            session.call("fail", None, int)


def test_what_nobody_knows_and_what_makes_no_sense_is_refused_and_the_session_goes_on() -> None:
    handlers: dict[str, Handler] = {"double": lambda raw, _: 2 * msgspec.json.decode(raw, type=int)}
    with answering(handlers, *channels()) as session:
        with pytest.raises(PeerError, match="asks for 'fly'"):
            session.call("fly", None, int)
        with pytest.raises(PeerError, match="makes no sense"):
            session.call("double", "text", int)
        assert session.call("double", 4, int) == 8
        with pytest.raises(ConnectionLost, match="protocol"):
            session.call("double", 4, str)


def test_who_waits_for_an_answer_serves_the_others_questions() -> None:
    handlers: dict[str, Handler] = {"ask back": lambda _, session: session.call("name", None, str) + "!"}
    with answering(handlers, *channels()) as session:
        session.handlers["name"] = lambda _raw, _session: "one"
        assert session.call("ask back", None, str) == "one!"


def test_streams_follow_a_question_in_order() -> None:
    def read(_raw: msgspec.Raw, session: Session) -> list[int]:
        return [sum(map(len, session.data())), sum(map(len, session.data()))]

    with answering({"read": read}, *channels()) as session:
        big = [b"x" * MESSAGE_SIZE_MAX] * 3
        assert session.call("read", None, list[int], [big, [b"ab", b""]]) == [3 * MESSAGE_SIZE_MAX, 2]


def test_an_early_answer_ends_the_stream() -> None:
    def refuse(_raw: msgspec.Raw, session: Session) -> object:
        next(session.data())
        raise NoSpace("full")

    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        while True:
            sent += 1
            yield b"x" * 100_000

    with answering({"receive": refuse, "double": lambda _raw, _: 2}, *channels()) as session:
        with pytest.raises(NoSpace):
            session.call("receive", None, int, [endless(), [b"never read"]])
        assert sent > 0
        assert session.call("double", None, int) == 2


def test_a_stream_that_fails_is_broken_off_at_both_ends() -> None:
    seen: list[type[BaseException]] = []

    def read(_raw: msgspec.Raw, session: Session) -> object:
        try:
            return list(session.data())
        except StreamInterrupted as error:
            seen.append(type(error))
            raise

    def failing() -> Iterator[bytes]:
        yield b"x"
        raise KeyError("why")

    with answering({"read": read, "double": lambda _raw, _: 2}, *channels()) as session:
        with pytest.raises(KeyError, match="why"):
            session.call("read", None, list[bytes], [failing(), [b"y"]])
        assert session.call("double", None, int) == 2
    assert seen == [StreamInterrupted]


class Changing:
    """A channel that does something else with some messages that it is to send."""

    def __init__(self, inner: Channel, change: Callable[[int, bytes], list[bytes]]) -> None:
        self._inner, self._change, self._count = inner, change, 0
        self._late: list[bytes] = []

    def send(self, message: bytes) -> None:
        for each in self._change(self._count, message):
            self._inner.send(each)
        self._count += 1

    def receive(self) -> bytes | bytearray:
        return self._inner.receive()

    def is_readable(self) -> bool:
        return self._inner.is_readable()

    def close(self) -> None:
        self._inner.close()


def swapped() -> Callable[[int, bytes], list[bytes]]:
    kept: list[bytes] = []

    def change(count: int, message: bytes) -> list[bytes]:
        if count == 2:
            kept.append(message)
            return []
        return [message, *kept[:1]] if count == 3 else [message]

    return change


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda n, m: [m[:-1] + bytes((m[-1] ^ 1,))] if n == 2 else [m], id="damaged"),
        pytest.param(lambda n, m: [m, m] if n == 2 else [m], id="repeated"),
        pytest.param(lambda n, m: [] if n == 2 else [m], id="lost"),
        pytest.param(swapped(), id="out of place"),
        pytest.param(lambda n, m: [m[:5]] if n == 2 else [m], id="cut"),
        pytest.param(lambda n, m: [b""] if n == 2 else [m], id="empty"),
    ],
)
def test_a_connection_that_changes_anything_is_given_up(change: Callable[[int, bytes], list[bytes]]) -> None:
    read: list[int] = []

    def receive(_raw: msgspec.Raw, session: Session) -> int:
        total = sum(map(len, session.data()))
        read.append(total)
        return total

    here, there = channels()
    with answering({"receive": receive}, Changing(here, change), there) as session, pytest.raises(ConnectionLost):
        session.call("receive", None, int, [[b"a" * 10, b"b" * 20, b"c" * 30]])
    assert read == []


def test_idemfs_that_do_not_understand_each_other_say_which_is_to_be_newer() -> None:
    for version, oldest, newer in ((9, 8, "this one"), (0, 0, "the other one")):
        here, there = channels()
        stranger = threading.Thread(target=_greet, args=(there, Hello(version, oldest, "9.1", OTHER)))
        stranger.start()
        with pytest.raises(PeerError, match=f"install a newer idemfs at {newer}"):
            Session(here, ONE)
        stranger.join()
        here.close()
        there.close()


def _greet(channel: Channel, hello: Hello) -> None:
    from xxhash import xxh3_64_intdigest

    message = b"H" + msgspec.json.encode(hello)
    channel.send(xxh3_64_intdigest(message, seed=0).to_bytes(8, "big") + message)


def test_what_is_not_idemfs_is_told_apart() -> None:
    here, there = socket.socketpair()
    with there:
        there.sendall(b"Last login: Mon Nov 23\r\n" * 3)
        channel = PipeChannel(here.fileno(), here.detach())
        with pytest.raises(ConnectionLost, match="is not from idemfs"):
            Session(channel, ONE)
        channel.close()


def test_a_silent_end_is_given_up() -> None:
    here, there = socket.socketpair()
    with there:
        channel = PipeChannel(here.fileno(), here.detach(), silence_seconds=0.05, stuck_seconds=0.05)
        with pytest.raises(ConnectionLost, match="silent"):
            while True:
                channel.send(b"x" * MESSAGE_SIZE_MAX)
        with pytest.raises(ConnectionLost, match="silent"):
            channel.receive()
        channel.close()


def test_a_channel_whose_other_end_does_not_greet_is_closed() -> None:
    here, there = socket.socketpair()
    with there:
        channel = PipeChannel(here.fileno(), here.detach(), silence_seconds=0.05, stuck_seconds=0.05)
        with pytest.raises(ConnectionLost, match="silent"):
            Session(channel, ONE)
        assert there.recv(1 << 16)
        assert there.recv(1) == b""


def test_a_busy_end_says_that_it_is_alive() -> None:
    ends = [socket.socketpair(), socket.socketpair()]
    (read_here, write_there), (read_there, write_here) = ends
    here = PipeChannel(read_here.detach(), write_here.detach(), silence_seconds=0.5)
    there = PipeChannel(read_there.detach(), write_there.detach())
    gone_on = threading.Event()

    def work(_raw: msgspec.Raw, _session: Session) -> int:
        gone_on.wait(1.5)
        return 1

    def serve() -> None:
        with Session(there, OTHER, {"work": work}, beat_seconds=0.1) as session:
            session.serve()

    thread = threading.Thread(target=serve)
    thread.start()
    with Session(here, ONE) as session:
        assert session.call("work", None, int) == 1
    thread.join()


def test_a_busy_receiver_says_that_it_is_alive_and_the_stream_goes_on() -> None:
    here, there = channels()
    spoken = threading.Event()

    class Noticing(Changing):
        """Knows when its end has said that it is alive."""

        def send(self, message: bytes) -> None:
            super().send(message)
            if message[8:] == b"K":
                spoken.set()

    def receive(_raw: msgspec.Raw, session: Session) -> int:
        return sum(map(len, session.data()))

    def serve() -> None:
        noticing = Noticing(there, lambda _, message: [message])
        with Session(noticing, OTHER, {"receive": receive}, beat_seconds=0.01) as session:
            session.serve()

    def slow() -> Iterator[bytes]:
        for _ in range(3):
            spoken.clear()
            assert spoken.wait(10)
            yield b"x"

    thread = threading.Thread(target=serve)
    thread.start()
    with Session(here, ONE) as session:
        assert session.call("receive", None, int, [slow()]) == 3
    thread.join()


def test_a_channel_closed_from_another_thread_ends_who_waits() -> None:
    here, there = channels()
    failures: list[Exception] = []

    def wait() -> None:
        try:
            here.receive()
        except ConnectionLost as error:
            failures.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    count = len(os.listdir("/proc/self/fd"))
    here.close()
    thread.join()
    here.close()
    assert len(failures) == 1
    assert len(os.listdir("/proc/self/fd")) == count - 2
    with pytest.raises(ConnectionLost):
        there.receive()
    there.close()
