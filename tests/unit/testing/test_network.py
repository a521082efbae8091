"""The simulated network: what befalls messages, who goes on, and that a run can be repeated."""

from __future__ import annotations

from random import Random

import pytest

from idemfs.errors import ConnectionLost
from idemfs.limits import SILENCE_SECONDS
from idemfs.testing.clock import Simulated, Skewed
from idemfs.testing.faults import PowerCut
from idemfs.testing.network import Befall, End, Network, Passed, Trouble


def echo(end: End) -> None:
    while True:
        end.send(b"re: " + end.receive())


def network(befall: Befall | None = None, seed: int = 1) -> Network:
    return Network(Simulated(seed), Random(seed), befall=befall)


def ask(net: Network, *questions: bytes) -> list[bytes]:
    """The answers that node B gives to node A, as far as they come."""
    found: list[bytes] = []

    def work() -> None:
        end = net.connect("A", "B", echo)
        for question in questions:
            end.send(question)
        found.extend(end.receive() for _ in questions)

    net.run("A", work)
    return found


def test_messages_come_whole_and_in_order() -> None:
    net = network()
    assert ask(net, b"one", b"two", b"three") == [b"re: one", b"re: two", b"re: three"]
    assert [(each.sender, each.size) for each in net.passed if each.sender == "A"] == [("A", 3), ("A", 3), ("A", 5)]
    assert [each.number for each in net.passed] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("trouble", "came"),
    [
        (Trouble.LOSE, [b"re: two", b"re: three"]),
        (Trouble.DUPLICATE, [b"re: one", b"re: one", b"re: two"]),
        (Trouble.REORDER, [b"re: two", b"re: one", b"re: three"]),
        (Trouble.DELAY, [b"re: one", b"re: two", b"re: three"]),
        (Trouble.STALL, []),
    ],
)
def test_what_befalls_the_first_message(trouble: Trouble, came: list[bytes]) -> None:
    net = network({1: trouble})
    found: list[bytes] = []

    def work() -> None:
        end = net.connect("A", "B", echo)
        for question in (b"one", b"two", b"three"):
            end.send(question)
        for _ in range(3):
            found.append(end.receive())

    if len(came) == 3:
        net.run("A", work)
    else:
        with pytest.raises(ConnectionLost):
            net.run("A", work)
        assert net.clock.monotonic_seconds() >= SILENCE_SECONDS
    assert found == came


def test_a_message_that_nothing_overtakes_arrives_late() -> None:
    assert ask(network({1: Trouble.REORDER}), b"only") == [b"re: only"]


@pytest.mark.parametrize("trouble", [Trouble.CORRUPT, Trouble.TRUNCATE])
def test_a_damaged_message_is_another_one(trouble: Trouble) -> None:
    (found,) = ask(network({1: trouble}), b"question")
    assert found != b"re: question"
    assert (len(found) == 12) == (trouble is Trouble.CORRUPT)


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_after_a_cut_both_ends_are_told(number: int) -> None:
    net = network({number: Trouble.CUT})
    told: list[str] = []

    def serve(end: End) -> None:
        try:
            echo(end)
        except ConnectionLost:
            told.append("B")

    def work() -> None:
        end = net.connect("A", "B", serve)
        for question in (b"one", b"two"):
            end.send(question)
            end.receive()

    with pytest.raises(ConnectionLost):
        net.run("A", work)
    assert told == ["B"]


def test_a_killed_node_does_nothing_more_and_is_up_again_in_the_next_run() -> None:
    killed: list[str] = []
    net = Network(Simulated(), Random(3), befall={2: Trouble.KILL_SENDER}, killed=killed.append)
    seen: list[bytes] = []

    def serve(end: End) -> None:
        while True:
            seen.append(end.receive())
            end.send(b"yes")

    def work() -> None:
        end = net.connect("A", "B", serve)
        end.send(b"one")
        end.receive()
        end.send(b"two")
        end.receive()

    with pytest.raises(ConnectionLost):
        net.run("A", work)
    assert killed == ["B"] and seen == [b"one"]
    net.run("A", work)
    assert seen == [b"one", b"one", b"two"]


def test_who_asks_a_killed_node_for_itself_hears_of_the_power_cut() -> None:
    net = network({1: Trouble.KILL_SENDER})
    with pytest.raises(PowerCut):
        ask(net, b"one")


def test_a_partition_in_one_direction_is_silence_and_one_in_both_refuses_connections() -> None:
    net = network()
    found: list[bytes] = []

    def work() -> None:
        end = net.connect("A", "B", echo)
        end.send(b"one")
        found.append(end.receive())
        net.partition("B", "A", both=False)
        end.send(b"two")
        found.append(end.receive())

    with pytest.raises(ConnectionLost, match="lost"):
        net.run("A", work)
    assert found == [b"re: one"]
    with pytest.raises(ConnectionLost, match="reached"):
        ask(net, b"one")
    net.heal()
    assert ask(net, b"one") == [b"re: one"]


def test_something_is_called_when_a_message_is_on_its_way() -> None:
    happened: list[int] = []
    net = network()
    befall: Befall = {2: lambda: happened.append(net.message_count)}
    net = network(befall)
    assert ask(net, b"one", b"two") == [b"re: one", b"re: two"]
    assert happened and happened[0] >= 2


def test_what_another_process_raises_is_raised() -> None:
    net = network()

    def serve(end: End) -> None:
        raise ValueError(end.receive().decode())

    def work() -> None:
        end = net.connect("A", "B", serve)
        end.send(b"mistake")
        end.receive()

    with pytest.raises(ValueError, match="mistake"):
        net.run("A", work)


def life(seed: int) -> tuple[list[Passed], float]:
    chances = {Trouble.CUT: 0.05, Trouble.DUPLICATE: 0.1, Trouble.DELAY: 0.1, Trouble.REORDER: 0.1}
    net = Network(Simulated(seed), Random(seed), chances=chances)

    def work() -> None:
        ends = [net.connect("A", name, echo) for name in "BCD"]
        for _ in range(20):
            for end in ends:
                end.send(b"question")
            for end in ends:
                end.receive()

    try:
        net.run("A", work)
    except ConnectionLost:
        return net.passed, net.clock.monotonic_seconds()
    return net.passed, net.clock.monotonic_seconds()


def test_a_seed_says_all_that_happens() -> None:
    assert all(life(seed) == life(seed) for seed in range(8))
    assert life(1) != life(2)


def test_machines_agree_on_how_much_time_passes_and_not_on_what_time_it_is() -> None:
    clock = Simulated()
    one, other = Skewed(clock), Skewed(clock)
    other.jump(-3600)
    clock.advance(5)
    assert one.now_ns() - other.now_ns() == 3600 * 10**9
    assert one.monotonic_seconds() == other.monotonic_seconds() == 5
