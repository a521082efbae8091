"""Whatever the other end of a session says, with sums that are right: an answer, or the connection is given up."""

from __future__ import annotations

import json
from contextlib import ExitStack
from random import Random

import hypothesis.strategies as st
from hypothesis import example, given
from xxhash import xxh3_64_intdigest

from idemfs.errors import ConnectionLost, PeerError
from idemfs.ids import Guid
from idemfs.node.peer import store_handlers
from idemfs.replication.session import Session
from idemfs.testing.builders import memory_tree
from idemfs.testing.clock import Simulated
from idemfs.testing.network import End, Network

HELLO = b"H" + json.dumps([1, 1, "any", "eHh4eHh4eHh4eHh4eHh4eA=="]).encode()
NAMES = sorted(store_handlers(ExitStack(), memory_tree()).keys() - {"claim"})
"""Who claims twice waits for itself, for some seconds."""
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=30) | st.just("eHh4eHh4eHh4eHh4eHh4eA=="),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
questions = st.tuples(st.sampled_from(NAMES), values, st.integers(0, 2)).map(
    lambda question: b"C" + json.dumps(question).encode()
)
anything = st.tuples(st.sampled_from(b"HCRFDEAMKx\0"), st.binary(max_size=60)).map(
    lambda said: bytes(said[:1]) + said[1]
)


@given(st.lists(questions | anything, max_size=8))
@example([b'C["\xecook",null,0]'])
@example([b'C["tell","\xec",0]'])
@example([b"C" + b"[" * 100_000])
def test_whatever_is_said_with_a_right_sum(said: list[bytes]) -> None:
    network = Network(Simulated(), Random(1))
    tree = memory_tree()

    def serve(end: End) -> None:
        with ExitStack() as stack:
            Session(end, Guid(b"B" * 16), store_handlers(stack, tree), beat_seconds=None).serve()

    def work() -> None:
        end = network.connect("A", "B", serve)
        for number, message in enumerate([HELLO, *said]):
            end.send(xxh3_64_intdigest(message, seed=number).to_bytes(8, "big") + message)

    try:
        network.run("A", work)
    except (ConnectionLost, PeerError) as given_up:
        assert str(given_up)
    finally:
        tree.store.abandon()


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=3))
def test_whatever_is_said(said: list[bytes]) -> None:
    network = Network(Simulated(), Random(1))

    def serve(end: End) -> None:
        Session(end, Guid(b"B" * 16), {}, beat_seconds=None).serve()

    def work() -> None:
        end = network.connect("A", "B", serve)
        for message in said:
            end.send(message)

    try:
        network.run("A", work)
    except ConnectionLost as given_up:
        assert str(given_up)
