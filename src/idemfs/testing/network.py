"""Nodes and a network in one process: channels that break as networks do, in an order that follows from a seed.

Each process of a node is a thread here, and exactly one runs at a time: it has the turn until it waits for a message,
has sent one, or ends. Then the scheduler, which is whoever called ``run``, chooses by ``rng`` who goes on. Time stands
still while anybody can go on; else it moves to the next arrival. When nobody can go on and nothing is under way any
more, those who wait are told, ``SILENCE_SECONDS`` later, that the connection is lost, as a keepalive does.

Messages are counted from 1 over all channels, so that one number names one instant of a run; a test counts those of
a command, and then lets each ``Trouble`` befall each of them.

Threads: as above. Objects of this module are touched by whoever has the turn, and by nobody else.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from enum import Enum
from random import Random
from typing import NamedTuple, TypeVar

from idemfs.errors import ConnectionLost, PeerError
from idemfs.limits import MESSAGE_SIZE_MAX, SILENCE_SECONDS
from idemfs.testing.clock import Simulated
from idemfs.testing.faults import PowerCut

DELAY_SECONDS = 20.0
LATENCY_SECONDS_MAX = 0.05
_WINDOW_COUNT = 8
"""Messages that may be under way in one direction; who sends more waits."""
_TURN_SECONDS_MAX = 300
"""A thread that keeps the turn so long waits for what another thread has: a mistake of the code under test."""

T = TypeVar("T")


class Trouble(Enum):
    """What may befall one message."""

    CUT = "the connection breaks in both directions; this message is lost, and perhaps others that are under way"
    STALL = "nothing sent in this direction arrives any more, and nobody is told"
    LOSE = "this message does not arrive, and later ones do"
    DUPLICATE = "it arrives twice"
    REORDER = "it arrives after the next one"
    CORRUPT = "it arrives with other bits"
    TRUNCATE = "it arrives without its end"
    DELAY = "it arrives much later, and so do those after it"
    KILL_SENDER = "the sender's node loses its power; whether the message left is not said"
    KILL_RECEIVER = "the receiver's node loses its power before it has seen the message"


Befall = Mapping[int, Trouble | Callable[[], None]]
"""By the number of the message: what befalls it; or what a process of no node does while it is on its way."""


class Passed(NamedTuple):
    """One message that was sent, for a test to see what came of it."""

    number: int
    sender: str
    receiver: str
    size: int
    trouble: Trouble | None


class End:
    """One end of a channel, a ``replication.channel.Channel``."""

    def __init__(self, network: Network, here: str, there: str) -> None:
        self._network = network
        self.here = here
        self.there = there
        self.peer: End = self
        self.arriving: deque[tuple[int, bytes]] = deque()
        """What the other end sent: when it arrives, in order."""
        self.kept_back: bytes | None = None
        self.is_stalled = False
        """Nothing arrives here any more."""
        self.is_lost = False
        """Nobody sends any more; what has arrived can be received."""
        self.is_closed = False

    def send(self, message: bytes) -> None:
        assert len(message) <= MESSAGE_SIZE_MAX
        self._network.wait(lambda: self.is_lost or len(self.peer.arriving) < _WINDOW_COUNT)
        if self.is_lost or self.is_closed:
            raise ConnectionLost(f"{self.there}: the connection is lost")
        self._network.transmit(self, message)
        # Others may run before it is known here that it was sent.
        self._network.wait(lambda: True)

    def receive(self) -> bytes:
        self._network.wait(self.is_readable, self)
        if self.is_closed or not self.has_arrived():
            raise ConnectionLost(f"{self.there}: the connection is lost")
        return self.arriving.popleft()[1]

    def is_readable(self) -> bool:
        return self.is_closed or self.has_arrived() or (self.is_lost and not self.arriving)

    def has_arrived(self) -> bool:
        return bool(self.arriving) and self.arriving[0][0] <= self._network.now_ns()

    def close(self) -> None:
        """What was sent before arrives; then the other end is told."""
        self.is_closed = True
        self.peer.release_kept()
        if not self.peer.is_stalled:
            self.peer.is_lost = True

    def put(self, message: bytes, seconds: float) -> None:
        """It arrives at this end ``seconds`` from now, and not before those that were sent earlier."""
        at = self._network.now_ns() + round(seconds * 1e9)
        if self.arriving:
            at = max(at, self.arriving[-1][0])
        self.arriving.append((at, message))

    def release_kept(self) -> bool:
        """Let what was kept back, so that a later one overtakes it, arrive. Whether there was something."""
        message, self.kept_back = self.kept_back, None
        if message is not None:
            self.put(message, 0)
        return message is not None

    def break_(self, rng: Random) -> None:
        """No more comes; of what is under way only a beginning arrives."""
        self.kept_back = None
        self.is_lost = True
        kept = rng.randint(0, len(self.arriving))
        while len(self.arriving) > kept:
            self.arriving.pop()


class _Task:
    """One process of a node: a thread that waits for its turn."""

    def __init__(self, node: str, work: Callable[[], object]) -> None:
        self.node = node
        self.work = work
        self.turn = threading.Semaphore(0)
        self.is_ready: Callable[[], bool] = lambda: True
        self.waits_for: End | None = None
        self.is_killed = False
        self.has_ended = False
        self.failure: BaseException | None = None
        self.ends: list[End] = []
        self.thread: threading.Thread | None = None


class Network:
    """Nodes by name, and what goes on among them.

    ``killed`` is called when a node loses its power, before any of its threads runs on: let its engines fail.
    """

    def __init__(
        self,
        clock: Simulated,
        rng: Random,
        *,
        befall: Befall | None = None,
        chances: Mapping[Trouble, float] | None = None,
        killed: Callable[[str], None] | None = None,
    ) -> None:
        self.clock = clock
        self.rng = rng
        self.passed: list[Passed] = []
        self.blocked: set[tuple[str, str]] = set()
        """From whom to whom nothing arrives; new connections need both directions."""
        self.befall = dict(befall or {})
        self._chances = dict(chances or {})
        self._killed = killed
        self._down: set[str] = set()
        self._tasks: list[_Task] = []
        self._links: list[End] = []
        self._scheduler = threading.Semaphore(0)
        self._running: _Task | None = None

    @property
    def message_count(self) -> int:
        return len(self.passed)

    def now_ns(self) -> int:
        """Of the time that passes, whatever the clocks of the nodes are set to."""
        return round(self.clock.monotonic_seconds() * 1e9)

    # -- what processes do -------------------------------------------------------------------------

    def connect(self, here: str, there: str, serve: Callable[[End], None]) -> End:
        """A channel from ``here`` to a new process of node ``there``, running ``serve``. Raises ``ConnectionLost``."""
        if there in self._down or {(here, there), (there, here)} & self.blocked:
            raise ConnectionLost(f"{there}: cannot be reached")
        mine, other = End(self, here, there), End(self, there, here)
        mine.peer, other.peer = other, mine
        self._links += [mine, other]
        if self._running is not None:
            self._running.ends.append(mine)
        self.spawn(there, lambda: serve(other)).ends.append(other)
        return mine

    def spawn(self, node: str, work: Callable[[], object]) -> _Task:
        """One more process of ``node``; it begins when it is its turn."""
        task = _Task(node, work)
        self._tasks.append(task)
        return task

    def wait(self, is_ready: Callable[[], bool], end: End | None = None) -> None:
        """Give the turn away until ``is_ready``. Raises ``PowerCut`` in the processes of a node that was killed."""
        task = self._running
        assert task is not None, "channels are used by processes of the network"
        if not task.is_killed:
            task.is_ready, task.waits_for = is_ready, end
            self._scheduler.release()
            task.turn.acquire()
        if task.is_killed:
            raise PowerCut

    def transmit(self, end: End, message: bytes) -> None:
        """One message on its way, and what befalls it."""
        number = self.message_count + 1
        trouble = self._trouble(number)
        self.passed.append(
            Passed(number, end.here, end.there, len(message), trouble if isinstance(trouble, Trouble) else None)
        )
        there = end.peer
        if (end.here, end.there) in self.blocked:
            there.is_stalled = True
        if there.is_stalled or there.is_closed:
            return
        if isinstance(trouble, Trouble):
            self._befallen(trouble, end, message)
            return
        if trouble is not None:
            self.spawn("", trouble)
        self._deliver(there, message)

    def _deliver(self, there: End, message: bytes, seconds: float | None = None) -> None:
        there.put(message, self.rng.random() * LATENCY_SECONDS_MAX if seconds is None else seconds)
        there.release_kept()

    def _trouble(self, number: int) -> Trouble | Callable[[], None] | None:
        found = self.befall.get(number)
        if found is None and self._chances:
            drawn = self.rng.random()
            for trouble, chance in self._chances.items():
                drawn -= chance
                if drawn < 0:
                    return trouble
        return found

    def _befallen(self, trouble: Trouble, end: End, message: bytes) -> None:
        there = end.peer
        match trouble:
            case Trouble.CUT:
                end.break_(self.rng)
                there.break_(self.rng)
            case Trouble.STALL:
                there.is_stalled = True
            case Trouble.LOSE:
                there.release_kept()
            case Trouble.DUPLICATE:
                self._deliver(there, message)
                self._deliver(there, message)
            case Trouble.REORDER if there.kept_back is None:
                there.kept_back = message
            case Trouble.CORRUPT:
                at = self.rng.randrange(len(message))
                other = message[at] ^ (1 << self.rng.randrange(8))
                self._deliver(there, message[:at] + bytes([other]) + message[at + 1 :])
            case Trouble.TRUNCATE:
                self._deliver(there, message[: self.rng.randrange(len(message))])
            case Trouble.REORDER | Trouble.DELAY:
                self._deliver(there, message, DELAY_SECONDS)
            case Trouble.KILL_SENDER:
                if self.rng.random() < 0.5:
                    self._deliver(there, message)
                self.kill(end.here)
            case Trouble.KILL_RECEIVER:
                self.kill(end.there)

    # -- what happens to nodes ---------------------------------------------------------------------

    def partition(self, one: str, other: str, *, both: bool = True) -> None:
        """Nothing that ``one`` sends reaches ``other`` any more, nor, with ``both``, the other way round."""
        self.blocked |= {(one, other), (other, one)} if both else {(one, other)}

    def heal(self) -> None:
        """All reach all again; connections that stalled stay so."""
        self.blocked.clear()

    def kill(self, node: str) -> None:
        """The node loses its power now: its processes do nothing more. Others are told, sooner or later."""
        self._down.add(node)
        if self._killed is not None:
            self._killed(node)
        for task in self._tasks:
            if task.node == node:
                task.is_killed = True
        for end in self._links:
            if end.here == node:
                end.peer.break_(self.rng)
                end.is_lost = True

    # -- the scheduler -----------------------------------------------------------------------------

    def run(self, node: str, work: Callable[[], T]) -> T:
        """A process of ``node``, and all that it starts, until all of them have ended; what ``work`` returns.

        Nodes that were killed before are up again. Raises what ``work`` raises, ``PowerCut`` if ``node`` was killed;
        but first what any other process raised that is no ``PeerError``, as processes tell each other's failures.
        """
        self._down.clear()
        results: list[T] = []
        main = self.spawn(node, lambda: results.append(work()))
        others = self._finish(main)
        for failure in others:
            if not isinstance(failure, (PeerError, PowerCut)):
                raise failure
        if main.failure is not None:
            raise main.failure
        return results[0]

    def _finish(self, main: _Task) -> list[BaseException]:
        """Give turns until all processes have ended; how others than ``main`` failed."""
        while alive := [task for task in self._tasks if not task.has_ended]:
            ready = [task for task in alive if task.is_killed or task.is_ready()]
            if ready:
                self._give_turn(self.rng.choice(ready))
            else:
                self._pass_time(alive)
        failures = [task.failure for task in self._tasks if task is not main and task.failure is not None]
        self._tasks.clear()
        self._links.clear()
        return failures

    def _give_turn(self, task: _Task) -> None:
        self._running = task
        if task.thread is None:
            task.thread = threading.Thread(target=self._live, args=(task,), name=f"node {task.node}", daemon=True)
            task.thread.start()
        else:
            task.turn.release()
        if not self._scheduler.acquire(timeout=_TURN_SECONDS_MAX):
            raise AssertionError(f"a process of node {task.node!r} waits for something that is no message")
        self._running = None
        if task.has_ended:
            task.thread.join()
            if isinstance(task.failure, PowerCut) and task.node and not task.is_killed:
                # Its engines lost their power: so did all else on that node.
                self.kill(task.node)

    def _live(self, task: _Task) -> None:
        try:
            if task.is_killed:
                raise PowerCut
            task.work()
        except BaseException as failure:
            task.failure = failure
        finally:
            for end in task.ends:
                end.close()
            task.has_ended = True
            self._scheduler.release()

    def _pass_time(self, alive: list[_Task]) -> None:
        """To the next arrival; without one, to when those who wait give up."""
        now = self.now_ns()
        arrivals = [end.arriving[0][0] for end in self._links if end.arriving and end.arriving[0][0] > now]
        if arrivals:
            self.clock.advance((min(arrivals) - now) / 1e9)
        elif not sum(end.release_kept() for end in self._links):
            self.clock.advance(SILENCE_SECONDS)
            waiting = [task.waits_for for task in alive if task.waits_for is not None]
            assert waiting, "all processes wait, and none for a message"
            for end in waiting:
                end.is_lost = end.peer.is_lost = True
