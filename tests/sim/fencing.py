"""Stores of one line with their keepers, etcd, and a network, in simulated time from a seed.

Each store has a clock of its own rate that starts with its boot; messages are late, lost, or cut off in one direction;
processes are paused and killed between any two orders of a turn. ``World.check`` holds after every event.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from random import Random

from idemfs.failover import keeper, lease
from idemfs.failover.automatic import NOBODY, Holder, Line, Own, Rules, Seen, next_epoch
from idemfs.failover.keeper import Claimed, Keeper, Order, Replies, Reply, Turning
from idemfs.failover.lease import Answer, Ask, Grantor, Position
from idemfs.format.lease import Granted
from idemfs.format.role import Role, RoleRecord
from idemfs.ids import Guid

SECOND = 1_000_000_000
DURATION = 10 * SECOND
TIMEOUT = DURATION // 5
ETCD = Guid(b"etcd")
_RATES = (0.98, 0.995, 1.0, 1.005, 1.02)


class Broken(AssertionError):
    """An invariant does not hold."""


@dataclass
class Key:
    store: Guid
    epoch: int
    lease: int
    revision: int


class Etcd:
    """Compare-and-swap and leases, by the etcd's own clock; nothing happens while it is down."""

    def __init__(self) -> None:
        self.is_down = False
        self.key: Key | None = None
        self.line: Line | None = None
        self.line_revision = 0
        self.revision = 0
        self.leases: dict[int, int] = {}
        self.next_lease = 1

    def expire(self, now: int) -> None:
        self.leases = {number: until for number, until in self.leases.items() if until > now}
        if self.key is not None and self.key.lease not in self.leases:
            self.key = None

    def read(self, store: Guid, now: int, keep_alive: bool) -> Seen:
        is_kept = keep_alive and self.key is not None and self.key.store == store
        if is_kept and self.key is not None:
            self.leases[self.key.lease] = now + DURATION
        holder = None if self.key is None else Holder(store=self.key.store, epoch=self.key.epoch)
        return Seen(
            holder=holder,
            holder_revision=self.key.revision if self.key else 0,
            line=self.line,
            line_revision=self.line_revision,
            is_kept=is_kept,
        )

    def grant(self, now: int) -> int:
        self.leases[self.next_lease] = now + DURATION
        self.next_lease += 1
        return self.next_lease - 1

    def put(self, line: Line, seen: Seen, holder: Key | None = None) -> bool:
        found = (self.key.revision if self.key else 0, self.line_revision)
        if found != (seen.holder_revision, seen.line_revision):
            return False
        self.revision += 1
        self.line, self.line_revision = line, self.revision
        if holder is not None and holder.lease in self.leases:
            self.key = replace(holder, revision=self.revision)
            return True
        return holder is None

    def give_up(self, store: Guid) -> None:
        if self.key is not None and self.key.store == store:
            self.leases.pop(self.key.lease, None)
            self.key = None


class Node:
    """One store, and the process that keeps it."""

    def __init__(self, world: World, guid: Guid, role: RoleRecord) -> None:
        self.world = world
        self.guid = guid
        self.role = role
        self.asked = NOBODY
        self.granted: Granted | None = None
        self.snapshots: list[int] = [1]
        self.boot(first=True)

    def boot(self, first: bool = False) -> None:
        self.life = self.world.number()
        self.is_up = True
        self.paused_until = 0
        self.rate = self.world.random.choice(_RATES)
        self.booted_at = self.world.now - (0 if first else self.world.random.randrange(SECOND))
        self.until_ns = 0
        self.granted_until_ns = 0 if self.granted is None else self.clock() + self.granted.duration_ns
        self.is_taking_over = False
        rules = Rules(duration_ns=DURATION, is_automatic=True, maximum_lag_ns=None)
        self.keeper = Keeper(rules, uses_etcd=self.world.uses_etcd)
        self.world.later(self.world.random.randrange(SECOND), self.begin, self)

    def clock(self) -> int:
        return int((self.world.now - self.booted_at) * self.rate)

    @property
    def accepts(self) -> bool:
        is_running = self.is_up and self.world.now >= self.paused_until
        return is_running and self.role.role is Role.PRIMARY and self.clock() < self.until_ns

    @property
    def position(self) -> Position:
        return Position(recent=tuple(_snapshot(number) for number in self.snapshots[-5:]), created_ns=0)

    # -- turns -------------------------------------------------------------------------------------------

    def begin(self) -> None:
        self.advance(self.keeper.turn(), None)

    def advance(self, turning: Turning, reply: Reply) -> None:
        try:
            order = turning.send(reply)
        except StopIteration:
            self.world.later(int(DURATION // 8 / self.rate), self.begin, self)
            return
        self.perform(order, lambda found: self.advance(turning, found))

    def perform(self, order: Order, then: Callable[[Reply], None]) -> None:
        match order:
            case keeper.Exchange():
                self._exchange(order, then)
            case keeper.Claim() | keeper.Publish() | keeper.GiveUp():
                self._write_etcd(order, then)
            case _:
                delay = self.world.random.randrange(SECOND // 20)
                if isinstance(order, keeper.Promote) and self.world.faults and self.world.random.random() < 0.2:
                    delay = self.world.random.randrange(2 * DURATION)
                self.world.later(delay, lambda: then(self._do(order)), self)

    def _do(self, order: Order) -> Reply:
        match order:
            case keeper.Look():
                return self.own()
            case keeper.Hear(epoch=epoch):
                self.hear(epoch)
            case keeper.Remember(asked=asked):
                self.asked = asked
            case keeper.Extend(epoch=epoch, until_ns=until_ns):
                if self.role.role is Role.PRIMARY and self.role.epoch == epoch:
                    self.until_ns = max(self.until_ns, until_ns)
            case keeper.End():
                self.until_ns = 0
            case keeper.Begin():
                self.is_taking_over = lease.left_ns(self.granted_until_ns, self.clock()) == 0
                return self.is_taking_over
            case keeper.Cease():
                self.is_taking_over = False
            case keeper.Promote(epoch=epoch):
                return self._promote(epoch)
            case keeper.ComeBack(primary=primary):
                self._come_back(self.world.nodes[primary])
        return None

    def _promote(self, epoch: int) -> bool:
        if epoch <= self.role.seen_epoch or self.role.role is not Role.STANDBY:
            return False
        self.role = RoleRecord(Role.PRIMARY, epoch, epoch)
        return True

    def _come_back(self, primary: Node) -> None:
        is_fit = primary.role.role is Role.PRIMARY and primary.role.epoch >= self.role.seen_epoch
        if is_fit and self.world.reaches_both(self, primary):
            self.role = RoleRecord(Role.STANDBY, primary.role.epoch, primary.role.epoch)
            self.snapshots = list(primary.snapshots)

    def hear(self, epoch: int) -> None:
        if epoch > self.role.seen_epoch:
            lost = Role.FENCED if self.role.role is Role.PRIMARY else self.role.role
            self.role = RoleRecord(lost, self.role.epoch, epoch)
            if lost is not Role.STANDBY:
                self.until_ns = 0

    def own(self) -> Own:
        return Own(
            store=self.guid,
            role=self.role,
            now_ns=self.clock(),
            members=tuple(self.world.nodes),
            granted_until_ns=self.granted_until_ns,
            asked=self.asked,
            position=self.position,
        )

    def answer(self, ask: Ask) -> Answer:
        grantor = Grantor(store=self.guid, role=self.role, granted=self.granted, is_taking_over=self.is_taking_over)
        ruling = lease.rule(grantor, ask)
        if ruling.hear is not None:
            self.hear(ruling.hear)
        if ruling.granted is not None:
            self.granted = ruling.granted
            self.granted_until_ns = max(self.granted_until_ns, self.clock() + ruling.granted.duration_ns)
        return Answer(store=self.guid, role=self.role, is_granted=ruling.granted is not None, position=self.position)

    # -- the network -------------------------------------------------------------------------------------

    def _exchange(self, order: keeper.Exchange, then: Callable[[Reply], None]) -> None:
        began_ns, life = self.clock(), self.life
        answers: list[Answer] = []
        found: list[Seen] = []
        done = [False]

        def end() -> None:
            if not done[0]:
                done[0] = True
                then(Replies(began_ns=began_ns, answers=tuple(answers), seen=found[0] if found else None))

        def came(answer: Answer) -> None:
            if self.life != life:
                # The process that asked is dead.
                return
            answers.append(answer)
            if found and len(answers) == len(order.asks):
                end()

        world = self.world
        for guid, ask in order.asks.items():
            self._ask(world.nodes[guid], ask, came)
        world.call_etcd(
            self, lambda: found.append(world.etcd.read(self.guid, world.now, order.keep_alive)), lambda: None
        )
        world.later(int(TIMEOUT / self.rate), end, self)

    def _ask(self, node: Node, ask: Ask, came: Callable[[Answer], None]) -> None:
        def arrive() -> None:
            answer = node.answer(ask)
            self.world.send(node, self, lambda: came(answer))

        self.world.send(self, node, arrive)

    def _write_etcd(self, order: Order, then: Callable[[Reply], None]) -> None:
        began_ns, world = self.clock(), self.world
        done: list[bool] = []
        answered = [False]

        def write() -> None:
            match order:
                case keeper.Claim(line=line, seen=seen):
                    number = world.etcd.grant(world.now)
                    # The two requests of a claim are apart, and the second one may come late.
                    world.later(world.delay(), lambda: put(line, seen, number), None)
                case keeper.Publish(line=line, seen=seen):
                    done.append(world.etcd.put(line, seen))
                case keeper.GiveUp():
                    world.etcd.give_up(self.guid)

        def put(line: Line, seen: Seen, number: int) -> None:
            world.etcd.expire(world.now)
            if not world.etcd.is_down:
                done.append(world.etcd.put(line, seen, Key(self.guid, line.epoch, number, 0)))

        def end() -> None:
            if answered[0]:
                return
            answered[0] = True
            is_done = bool(done and done[0])
            then(Claimed(began_ns=began_ns, is_mine=is_done) if isinstance(order, keeper.Claim) else is_done)

        world.call_etcd(self, write, lambda: None)
        world.later(int(TIMEOUT / self.rate), end, self)


class World:
    """Everything, and who may reach whom."""

    def __init__(self, seed: int, count: int = 3, *, uses_etcd: bool = True) -> None:
        """Without etcd an operator orders failovers, of stores that were asked for a lease."""
        self.random = Random(seed)
        self.uses_etcd = uses_etcd
        self.now = 1000 * SECOND
        self.etcd = Etcd()
        self.cut: set[tuple[Guid, Guid]] = set()
        self.nodes: dict[Guid, Node] = {}
        self._events: list[tuple[int, int, Callable[[], None], Node | None, int]] = []
        self._count = 0
        self._next_snapshot = 2
        self.writers: dict[int, Guid] = {}
        self.faults = True
        """Whether things fail, and messages come late."""
        for number in range(count):
            guid = Guid(bytes([number + 1]) * 16)
            role = RoleRecord() if number == 0 else RoleRecord(Role.STANDBY)
            self.nodes[guid] = Node(self, guid, role)
        self.later(3 * SECOND, self._fault, None)
        self.later(SECOND, self._replicate, None)

    def number(self) -> int:
        self._count += 1
        return self._count

    def delay(self) -> int:
        is_late = self.faults and self.random.random() < 0.02
        return self.random.randrange(DURATION if is_late else SECOND // 5)

    def later(self, delay: int, event: Callable[[], None], node: Node | None) -> None:
        life = node.life if node is not None else 0
        heapq.heappush(self._events, (self.now + delay, self.number(), event, node, life))

    def reaches(self, source: Guid, target: Guid) -> bool:
        return (source, target) not in self.cut

    def reaches_both(self, one: Node, other: Node) -> bool:
        return other.is_up and self.reaches(one.guid, other.guid) and self.reaches(other.guid, one.guid)

    def send(self, source: Node, target: Node, event: Callable[[], None]) -> None:
        """``event`` happens at ``target`` when the message comes."""
        if source.is_up and self.reaches(source.guid, target.guid):
            self.later(self.delay(), event, target)

    def call_etcd(self, node: Node, call: Callable[[], None], then: Callable[[], None]) -> None:
        def arrive() -> None:
            self.etcd.expire(self.now)
            if not self.etcd.is_down:
                call()
                # What is not heard of was done all the same.

        if self.uses_etcd and self.reaches(node.guid, ETCD) and self.reaches(ETCD, node.guid):
            self.later(self.delay(), arrive, None)

    # -- running -----------------------------------------------------------------------------------------

    def run(self, seconds: int) -> None:
        until = self.now + seconds * SECOND
        while self._events and self._events[0][0] <= until:
            at, order, event, node, life = heapq.heappop(self._events)
            self.now = max(self.now, at)
            if node is not None:
                if node.life != life or not node.is_up:
                    continue
                if node.paused_until > self.now:
                    heapq.heappush(self._events, (node.paused_until, order, event, node, life))
                    continue
            event()
            self.check()
        self.now = until

    def check(self) -> None:
        accepting = [node for node in self.nodes.values() if node.accepts]
        if len(accepting) > 1:
            raise Broken(f"at {self.now}: " + ", ".join(f"{each.guid[0]} in {each.role.epoch}" for each in accepting))
        for node in accepting:
            if self.writers.setdefault(node.role.epoch, node.guid) != node.guid:
                raise Broken(f"two stores took changes in epoch {node.role.epoch}")

    def heal(self) -> None:
        self.faults = False
        self.cut.clear()
        self.etcd.is_down = False
        for node in self.nodes.values():
            node.paused_until = self.now
            if not node.is_up:
                node.boot()

    # -- what happens ------------------------------------------------------------------------------------

    def _replicate(self) -> None:
        for node in self.nodes.values():
            if node.accepts:
                node.snapshots.append(self._next_snapshot)
                self._next_snapshot += 1
                for other in self.nodes.values():
                    follows = other.role.role is Role.STANDBY and other.role.seen_epoch <= node.role.epoch
                    if follows and self.reaches_both(node, other) and self.random.random() < 0.7:
                        other.snapshots = list(node.snapshots)
        self.later(SECOND, self._replicate, None)

    def _fault(self) -> None:
        self.later(self.random.randrange(DURATION), self._fault, None)
        if not self.faults:
            return
        random = self.random
        node = random.choice(list(self.nodes.values()))
        match random.randrange(9):
            case 0:
                self.cut = set()
            case 1 | 2:
                self._cut_off(node)
            case 3:
                others = [*self.nodes, ETCD]
                self.cut |= {(random.choice(others), random.choice(others)) for _ in range(2)}
            case 4:
                node.is_up = False
                pause = random.randrange(random.choice((SECOND // 2, 3 * DURATION)))
                self.later(pause, lambda: None if node.is_up else node.boot(), None)
            case 5 | 6:
                node.paused_until = self.now + random.randrange(3 * DURATION)
            case 7:
                self.etcd.is_down = not self.etcd.is_down
                if not self.etcd.is_down:
                    # A new head of etcd gives every lease its whole time again.
                    self.etcd.leases = dict.fromkeys(self.etcd.leases, self.now + DURATION)
            case 8:
                self._switch_over(node)
        if not self.uses_etcd and random.random() < 0.3:
            self.order_failover(node)

    def _cut_off(self, node: Node) -> None:
        """From some of the others, or all of them; from etcd perhaps."""
        others = [guid for guid in (*self.nodes, ETCD) if guid != node.guid and self.random.random() < 0.7]
        self.cut |= {(node.guid, other) for other in others}
        if self.random.random() < 0.7:
            self.cut |= {(other, node.guid) for other in others}

    def order_failover(self, node: Node, *, again: bool = False) -> None:
        """As ``idemfs failover`` does: tell those who can be reached, grant nothing more, wait, become primary.

        Of a store that was asked in the highest epoch that it knows, unless it has begun before.
        """
        granted = node.granted
        is_fit = node.is_up and node.role.role is Role.STANDBY and granted is not None
        if not is_fit or granted is None or (granted.epoch != node.role.seen_epoch and not again):
            return
        others = [each for each in self.nodes.values() if each is not node and self.reaches_both(node, each)]
        epoch = next_epoch(node.own(), max(each.role.seen_epoch for each in [node, *others]))
        for each in [node, *others]:
            each.hear(epoch)
        node.is_taking_over = True

        def promote() -> None:
            if lease.left_ns(node.granted_until_ns, node.clock()):
                self.later(SECOND // 2, promote, node)
                return
            if node.role.role is Role.STANDBY and node.role.seen_epoch == epoch:
                node.role = RoleRecord(Role.PRIMARY, epoch, epoch)
            node.is_taking_over = False

        self.later(self.delay(), promote, node)

    def _switch_over(self, target: Node) -> None:
        for node in self.nodes.values():
            is_fit = target.role.role is Role.STANDBY and self.reaches_both(node, target) and target.is_up
            if node.accepts and is_fit and target.role.seen_epoch <= node.role.epoch:
                seen = [each.role.seen_epoch for each in self.nodes.values() if self.reaches_both(node, each)]
                epoch = max([node.role.seen_epoch, *seen]) + 1
                count = len(self.nodes)
                epoch += (target.guid[0] - epoch) % count
                target.snapshots = list(node.snapshots)
                node.role = RoleRecord(Role.STANDBY, epoch, epoch)
                node.until_ns = 0
                target.role = RoleRecord(Role.PRIMARY, epoch, epoch)
                return


def _snapshot(number: int) -> Guid:
    return Guid(number.to_bytes(16, "big"))


def acceptors(world: World) -> Iterator[Node]:
    return (node for node in world.nodes.values() if node.accepts)
