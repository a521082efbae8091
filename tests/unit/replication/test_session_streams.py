"""Questions that come with several streams, of which the one who answers reads as much as it wants."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from random import Random

import msgspec
import pytest

from idemfs.errors import ConnectionLost, StreamInterrupted
from idemfs.ids import Guid
from idemfs.replication.session import Handler, Session
from idemfs.testing.clock import Simulated
from idemfs.testing.network import End, Network

STREAMS = ([b"a", b"bc", b"d"], [b"e"], [b"f", b"g"])


def ask(handlers: Mapping[str, Handler], streams: list[Iterator[bytes]]) -> list[str]:
    """What the other end answers."""
    network = Network(Simulated(), Random(1))

    def serve(end: End) -> None:
        Session(end, Guid(b"B" * 16), handlers, beat_seconds=None).serve()

    def work() -> list[str]:
        session = Session(network.connect("A", "B", serve), Guid(b"A" * 16), beat_seconds=None)
        answer = session.call("read", None, list[str], streams)
        assert session.call("read", None, list[str], streams=[iter([b"on"]) for _ in streams])
        return answer

    return network.run("A", work)


@pytest.mark.parametrize("wanted", [0, 1, 2, 9])
def test_what_is_not_read_of_a_stream_is_no_part_of_the_next_one(wanted: int) -> None:
    """A change set says itself where it ends; whoever reads it does not look for what comes after."""

    def read(_raw: msgspec.Raw, session: Session) -> list[str]:
        found = []
        for stream in [session.data() for _ in STREAMS]:
            pieces = [piece for _, piece in zip(range(wanted), stream, strict=False)]
            found.append(b"".join(pieces).decode())
        return found

    found = ask({"read": read}, [iter(stream) for stream in STREAMS])
    assert found == [b"".join(stream[:wanted]).decode() for stream in STREAMS]


def test_fewer_streams_than_are_read_are_an_interruption() -> None:
    def read(_raw: msgspec.Raw, session: Session) -> list[str]:
        return [b"".join(session.data()).decode() for _ in range(3)]

    with pytest.raises(StreamInterrupted):
        ask({"read": read}, [iter([b"only"])])


def test_a_stream_that_fails_where_it_is_made_fails_the_question_and_the_session_goes_on() -> None:
    def read(_raw: msgspec.Raw, session: Session) -> list[str]:
        return [b"".join(session.data()).decode() for _ in range(2)]

    def failing() -> Iterator[bytes]:
        yield b"begun"
        raise LookupError("deleted meanwhile")

    network = Network(Simulated(), Random(2))

    def serve(end: End) -> None:
        Session(end, Guid(b"B" * 16), {"read": read}, beat_seconds=None).serve()

    def work() -> list[str]:
        session = Session(network.connect("A", "B", serve), Guid(b"A" * 16), beat_seconds=None)
        with pytest.raises(LookupError):
            session.call("read", None, list[str], [failing(), iter([b"x"])])
        return session.call("read", None, list[str], [iter([b"one"]), iter([b"two"])])

    assert network.run("A", work) == ["one", "two"]


def test_an_end_that_is_cut_off_in_a_stream_is_told_so() -> None:
    network = Network(Simulated(), Random(3))
    seen: list[bytes | memoryview] = []

    def read(_raw: msgspec.Raw, session: Session) -> list[str]:
        seen.extend(session.data())
        return []

    def serve(end: End) -> None:
        Session(end, Guid(b"B" * 16), {"read": read}, beat_seconds=None).serve()

    def pieces() -> Iterator[bytes]:
        yield b"one"
        network.partition("A", "B")
        yield b"two"

    def work() -> None:
        session = Session(network.connect("A", "B", serve), Guid(b"A" * 16), beat_seconds=None)
        session.call("read", None, list[str], [pieces()])

    with pytest.raises(ConnectionLost):
        network.run("A", work)
    assert b"two" not in seen
