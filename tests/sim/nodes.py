"""The simulated world over a network: a command opens its own store, and asks the others at the end of a connection.

Everything else is as in ``World``. What befalls the messages of a command is said before it, by the number of the
message or by chance; a node that is killed loses its power, alone, and its store is opened anew from what that left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from random import Random

from idemfs.errors import IdemfsError, PeerError
from idemfs.failover.driver import carry_out
from idemfs.failover.facts import Refusal, Unreachable
from idemfs.failover.remote import RemoteParty
from idemfs.failover.stage import Stage
from idemfs.node.peer import store_handlers
from idemfs.replication.session import Session
from idemfs.store.claim import Claim
from idemfs.testing.faults import Cut, Faults, PowerCut
from idemfs.testing.network import End, Network, Passed, Trouble
from idemfs.vfs.tree import Tree
from tests.sim.world import Decide, Machine, World

Event = Callable[["Nodes", Mapping[str, Tree]], None]
"""Something that happens while a command runs; it is given the stores that are open then."""


class ImpatientClaim(Claim):
    """Whoever would have to wait for another command is refused: time does not pass here."""

    def take(self, seconds: float = 0, end_others: Callable[[], None] | None = None) -> None:
        super().take(0, end_others)


class Nodes(World):
    """``befall`` and ``chances`` hold for every command until they are changed."""

    def __init__(self, names: str = "AB", seed: int = 0, *, nested: bool = False) -> None:
        super().__init__(names, seed, nested=nested)
        self._begin()

    def _begin(self) -> None:
        self.befall: dict[int, Trouble | Event] = {}
        self.chances: dict[Trouble, float] = {}
        self.blocked: set[tuple[str, str]] = set()
        """From whom to whom nothing arrives."""
        self.passed: list[Passed] = []
        """The messages of the last command."""
        self._open: dict[str, Tree] = {}
        self._owned: set[str] = set()
        """Those whose stores a process has open all the while."""
        for machine in self.machines.values():
            machine.faults = Faults()

    def copy(self) -> Nodes:
        twin = super().copy()
        twin._begin()
        twin.blocked = self.blocked.copy()
        return twin

    def calm(self) -> None:
        """Nothing befalls messages any more; who is cut off stays so."""
        self.befall, self.chances = {}, {}

    def make_room(self) -> None:
        """No disk is full any more."""
        for machine in self.machines.values():
            machine.faults = Faults()

    # -- commands ----------------------------------------------------------------------------------

    def run(self, name: str, decide: Decide, *, reach: Iterable[str] | None = None, steps: int | None = None) -> int:
        """As ``World.run``. Raises ``PowerCut`` when the store's own node was killed, else as the command does."""
        network = self._network()
        reachable = set(self.machines if reach is None else reach)
        try:
            return network.run(name, lambda: self._command(network, name, decide, reachable, steps))
        finally:
            self._over(network)

    def run_together(self, *orders: tuple[str, Decide], at: int | None = None) -> list[BaseException | None]:
        """Commands on nodes at the same time, each on a store that a process of its node has open all the while, as
        mounts do; how each of them failed. ``at``: the message of the first one at which the others begin. Everything
        is calm afterwards."""
        network = self._network()
        failures: list[BaseException | None] = [None] * len(orders)

        def work(number: int, name: str, decide: Decide) -> None:
            try:
                self._command(network, name, decide, set(self.machines), None)
            except (IdemfsError, PowerCut) as failure:
                failures[number] = failure

        with ExitStack() as stack:
            for machine in self.machines.values():
                self._open[machine.name] = stack.enter_context(self._running(machine))
                self._open[machine.name].store.claim = ImpatientClaim()
                self._owned.add(machine.name)
            (first, *others) = [(number, *order) for number, order in enumerate(orders)]

            def begin_others() -> None:
                for other in others:
                    network.spawn(other[1], partial(work, *other))

            if at is None:
                begin_others()
            else:
                network.befall[at] = begin_others
            try:
                with suppress(PowerCut):
                    network.run(first[1], partial(work, *first))
            finally:
                self.calm()
                self._owned.clear()
        self._over(network)
        return failures

    def _network(self) -> Network:
        network = Network(
            self.clock,
            Random(self.rng.random()),
            befall={number: self._event(what) for number, what in self.befall.items()},
            chances=self.chances,
            killed=self._lose_power,
        )
        network.blocked |= self.blocked
        return network

    def _over(self, network: Network) -> None:
        self.passed = network.passed
        self._open.clear()
        for machine in self.machines.values():
            if machine.power.happened:
                machine.crash(self.rng)

    def _event(self, what: Trouble | Event) -> Trouble | Callable[[], None]:
        return what if isinstance(what, Trouble) else lambda: what(self, dict(self._open))

    def _lose_power(self, name: str) -> None:
        self.machines[name].power.happened = True

    def _command(self, network: Network, name: str, decide: Decide, reachable: set[str], steps: int | None) -> int:
        done = 0
        with ExitStack() as stack:
            stage = self._stage(network, stack, name, reachable)
            decision = decide(stage)
            if isinstance(decision, Refusal):
                raise decision.error
            if steps != 0:
                for _ in carry_out(decision, stage):
                    done += 1
                    if done == steps:
                        # Killed: nothing of it is tidied up, and nothing more is committed.
                        stage.me.store.abandon()
                        break
        return done

    def _stage(self, network: Network, stack: ExitStack, name: str, reachable: set[str]) -> Stage:
        me = self.machines[name]
        own = stack.enter_context(self._running(me))
        own.store.claim.take()
        stack.callback(own.store.claim.release)
        peers, missing = {}, []
        for other in self.machines.values():
            if other is me:
                continue
            try:
                if other.name not in reachable:
                    raise PeerError("cut off")
                end = network.connect(name, other.name, self._server(other))
                session = stack.enter_context(Session(end, me.guid, beat_seconds=None))
                if session.peer.store != other.guid:
                    raise PeerError("another store stands there")
                party = RemoteParty(session, own)
                party.claim()
                peers[other.guid] = party
            except IdemfsError as error:
                missing.append(Unreachable(guid=other.guid, path=other.name, reason=str(error)))
        paths = {machine.guid: machine.name for machine in self.machines.values()}
        return Stage(me=own, peers=peers, paths=paths, missing=missing)

    def _server(self, machine: Machine) -> Callable[[End], None]:
        """What runs at the other end of a connection to ``machine``."""

        def serve(end: End) -> None:
            with ExitStack() as stack:
                tree = stack.enter_context(self._running(machine))
                answers = store_handlers(stack, tree)
                stack.enter_context(Session(end, machine.guid, answers, beat_seconds=None)).serve()

        return serve

    @contextmanager
    def _running(self, machine: Machine) -> Iterator[Tree]:
        """Its store while a process has it open: closed when that ends, unless its node has lost its power."""
        if machine.name in self._owned:
            yield self._open[machine.name]
            return
        tree = machine.open()
        self._open[machine.name] = tree
        try:
            yield tree
        finally:
            self._open.pop(machine.name, None)
            if not machine.power.happened:
                tree.store.close()
            tree.store.abandon()

    def run_befallen(self, name: str, decide: Decide, *, reach: Iterable[str] | None = None) -> BaseException | None:
        """A command to which something may happen; how it failed, None: it did not. Everything is calm afterwards."""
        try:
            self.run(name, decide, reach=reach)
        except (IdemfsError, PowerCut) as failure:
            return failure
        finally:
            self.calm()
        return None

    def run_with_power_cut(self, name: str, decide: Decide, after: int, *, reach: Iterable[str] | None = None) -> bool:
        """A power cut at the ``after``-th write point of one of the stores, chosen by chance; the others run on."""
        return self.cut_power_of(self.rng.choice([*self.machines]), after, name, decide, reach=reach)

    def cut_power_of(
        self, which: str, after: int, name: str, decide: Decide, *, reach: Iterable[str] | None = None
    ) -> bool:
        """Whether it came to that."""
        machine = self.machines[which]
        cut = Cut(after, effective=self.rng.random() < 0.5)
        machine.crash(self.rng, cut)
        self.run_befallen(name, decide, reach=reach)
        machine.crash(self.rng)
        return cut.happened
