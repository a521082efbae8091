"""The guard of a store: keeps its write lease, meets higher epochs, and takes over and comes back by itself.

What it does next is decided in ``failover.automatic`` and ordered by ``failover.keeper``, one turn after the other;
here the orders are carried out. The lease of a store runs out by itself when this does not.

Threads: one of its own for the turns, and those of ``asking``; ``status`` by any.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import msgspec

from idemfs.errors import ConfigError, ConnectionLost, EtcdLost, EtcdRefused, IdemfsError, PeerError
from idemfs.failover import actions, automatic, decisions, driver, grants, keeper, records
from idemfs.failover.automatic import Keep, Own, Rules, Seen, Wait
from idemfs.failover.facts import Decision, Peer, Refusal, Side
from idemfs.failover.keeper import Claimed, Keeper, Order, Replies, Reply, Turn
from idemfs.failover.lease import DURATION_NS_DEFAULT, DURATION_NS_MAX, DURATION_NS_MIN
from idemfs.failover.observe import guid_of
from idemfs.failover.places import open_stage
from idemfs.format.role import Role
from idemfs.ids import ROOT_FILESET, Guid
from idemfs.node import connecting, history
from idemfs.node.asking import Asking
from idemfs.node.bell import Bell
from idemfs.node.etcd import EtcdClient
from idemfs.node.history import Event
from idemfs.node.line_key import LineKey
from idemfs.node.log import about
from idemfs.node.peer import end_sessions
from idemfs.replication.channel import Channel

if TYPE_CHECKING:
    from idemfs.node.config import EtcdConfig, StoreConfig
    from idemfs.node.owner import OwnedStore
    from idemfs.vfs.tree import Tree

_T = TypeVar("_T")
_NS = 1_000_000_000
_TURN_PARTS = 8
"""Turns in the time of a lease."""
_TIMEOUT_PARTS = 5
_SOON_SECONDS = 0.1
"""After this long it is looked again whether a key that somebody is about to give up is free."""
_COMMAND_SECONDS = 5.0
BY = "automatic"

log = logging.getLogger("idemfs.guard")

guards: dict[Guid, Guard] = {}
"""Those of this process, by their stores, for commands that ask."""


class GuardStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What a guard knows. ``lease_left_seconds`` None: the store is no primary. ``missing``: who did not grant, why."""

    role: str
    epoch: int
    lease_seconds: float
    lease_left_seconds: float | None
    granted_left_seconds: float
    """As a standby, how long it would wait before it takes over."""
    is_automatic: bool
    is_paused: bool
    etcd: str
    """``not used``, ``answers``, or why it does not."""
    holder: str | None
    granted: tuple[str, ...] = ()
    missing: dict[str, str] = {}
    state: str = ""


class Guard:
    """Of one open store, a part of its owner. ``report`` is told in words what keeps it from its work, None: nothing;
    ``changed`` is called when the role, or the files, became others; ``etcd`` tells what is configured now."""

    def __init__(
        self,
        tree: Tree,
        path: str,
        name: str,
        rules: Rules,
        connect: Callable[[str, bool], Channel],
        etcd: Callable[[], EtcdConfig | None],
        *,
        report: Callable[[str | None], None] = lambda problem: None,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self.tree = tree
        self.rules = rules
        self._path, self._name = path, name
        self._connect = connect
        self._report, self._changed = report, changed
        self._clock = tree.store.clock
        self._seconds = rules.duration_ns / _NS
        self._etcd_now = etcd
        self._etcd_config = etcd()
        self._client: EtcdClient | None = None
        self._key: LineKey | None = None
        self._keeper = Keeper(rules, uses_etcd=self._etcd_config is not None)
        self._asking = Asking(
            guid_of(tree), lambda address: connect(address, False), name, patience_seconds=2 * self._seconds
        )
        self._etcd_failure = ""
        self._answered: frozenset[Guid] = frozenset()
        self._last: Turn | None = None
        self._last_had_lease = False
        self._state = "has not looked yet"
        self._bell = Bell()
        self._channels: list[Channel] = []
        """To the other stores of the command that is being carried out."""
        self._thread = threading.Thread(target=self._run, name="idemfs-guard", daemon=True)

    # -- life ------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Raises ``IdemfsError``, ``OSError``."""
        grants.require(self.tree, self.rules.duration_ns)
        if self._etcd_config is not None:
            self._client, self._key = line_key(self.tree, self._etcd_config, self._seconds / _TIMEOUT_PARTS)
        guards[guid_of(self.tree)] = self
        self._thread.start()

    def wake(self) -> None:
        self._bell.ring()

    def configure(self, config: StoreConfig) -> bool:
        try:
            return (rules_of(config), self._etcd_now()) == (self.rules, self._etcd_config)
        except ConfigError:
            # Whoever makes it anew reports that.
            return False

    def close(self) -> None:
        with self._bell.lock:
            self._bell.end()
            channels = list(self._channels)
        for channel in channels:
            # What is sent to a store that comes back may be much; it goes on when the store is opened again.
            channel.close()
        self._thread.join()
        guards.pop(guid_of(self.tree), None)
        self._asking.close()
        if self._client is not None:
            self._client.close()

    def _run(self) -> None:
        with about(store=self._name):
            while not self._bell.is_over:
                seconds = self._seconds / _TURN_PARTS
                try:
                    turn = self._turn()
                    if turn is not None:
                        self._tell(turn)
                        seconds = self._rest(turn, seconds)
                except Exception:
                    # The lease runs out when this goes on.
                    log.exception("a turn of the guard failed")
                self._bell.wait(seconds)

    def _rest(self, turn: Turn, seconds: float) -> float:
        if self.tree.role != turn.view.own.role:
            return 0.0
        waits = isinstance(turn.action, automatic.Overrule | automatic.Acquire) and not self._has_lease()
        return min(seconds, _SOON_SECONDS) if waits else seconds

    def _turn(self) -> Turn | None:
        """None: it ended before its end, since the store is being closed."""
        turning = self._keeper.turn()
        reply: Reply = None
        while not self._bell.is_over:
            try:
                reply = self._perform(turning.send(reply))
            except StopIteration as ended:
                turn: Turn = ended.value
                return turn
        return None

    # -- orders ----------------------------------------------------------------------------------------

    def _perform(self, order: Order) -> Reply:
        lease = self.tree.write_lease
        match order:
            case keeper.Look():
                return self._own()
            case keeper.Exchange():
                return self._exchange(order)
            case keeper.Claim():
                return self._claim(order)
            case keeper.Publish(line=line, seen=seen):
                return self._with_key(lambda key: key.publish(line, seen)) is True
            case keeper.GiveUp():
                self._with_key(lambda key: key.give_up())
            case keeper.Hear(epoch=epoch):
                self._hear(epoch)
            case keeper.Remember(asked=asked):
                grants.remember(self.tree, asked)
            case keeper.Extend(epoch=epoch, until_ns=until_ns) if lease is not None:
                with self.tree.store.lock:
                    if self.tree.role.role is Role.PRIMARY and self.tree.role.epoch == epoch:
                        lease.extend(until_ns)
            case keeper.End() if lease is not None:
                with self.tree.store.lock:
                    lease.end()
            case keeper.Begin():
                return grants.begin(self.tree)
            case keeper.Cease():
                grants.cease(self.tree)
            case keeper.Promote(epoch=epoch):
                return self._take_over(epoch)
            case keeper.ComeBack():
                self._come_back()
        return None

    def _own(self) -> Own:
        failure = self.tree.store.failure
        return grants.own_of(self.tree, "" if failure is None else f"the store takes no changes: {failure}")

    def _exchange(self, order: keeper.Exchange) -> Replies:
        began_ns = self._clock.since_boot_ns()
        addresses = {record.guid: record.path for record in records.get_peers(self.tree.store)}
        asks = {guid: (addresses[guid], ask) for guid, ask in order.asks.items() if guid in addresses}
        found: list[Seen | None] = []
        answers = self._asking.ask_all(
            asks,
            self._seconds / _TIMEOUT_PARTS,
            lambda: found.append(self._with_key(lambda key: key.read(keep_alive=order.keep_alive))),
        )
        self._answered = frozenset(answer.store for answer in answers)
        return Replies(began_ns=began_ns, answers=answers, seen=found[0])

    def _claim(self, claim: keeper.Claim) -> Claimed:
        began_ns = self._clock.since_boot_ns()
        duration_ns = self.rules.duration_ns
        is_mine = self._with_key(lambda key: key.claim(claim.line, claim.seen, duration_ns)) is True
        return Claimed(began_ns=began_ns, is_mine=is_mine)

    def _with_key(self, call: Callable[[LineKey], _T]) -> _T | None:
        """What ``call`` returns; None without etcd."""
        if self._key is None:
            return None
        try:
            found = call(self._key)
        except (EtcdLost, EtcdRefused) as error:
            if not self._etcd_failure:
                log.warning("%s", error)
            self._etcd_failure = str(error)
            return None
        if self._etcd_failure:
            log.info("etcd answers again")
        self._etcd_failure = ""
        return found

    # -- roles -----------------------------------------------------------------------------------------

    def _hear(self, epoch: int) -> None:
        was = self.tree.role
        actions.tell(self.tree, epoch)
        if was.role is Role.PRIMARY and self.tree.role.role is not Role.PRIMARY:
            log.error("epoch %d has ended this store's right to write, which it had in epoch %d", epoch, was.epoch)
            history.record_fence(self._path, was, self.tree.role, by=BY)
            self._changed()

    def _take_over(self, epoch: int) -> bool:
        log.warning("takes over as primary of epoch %d", epoch)
        return self._carry_out(
            "failover",
            lambda me, peers: decisions.failover(me, peers, epoch),
            # What the silent primary began here, or a link of ours began there, has the store claimed.
            end_others=partial(end_sessions, self._path),
        )

    def _come_back(self) -> None:
        log.warning("comes back as a standby")
        self._carry_out("failback", decisions.failback)

    def _carry_out(
        self,
        command: str,
        decide: Callable[[Side, list[Peer]], Decision],
        end_others: Callable[[], None] | None = None,
    ) -> bool:
        """Whether it came to its end. Who did not answer just now is not waited for."""

        def refuse_closing(_snapshot: Guid, _size: int) -> None:
            if self._bell.is_over:
                raise PeerError("the store is being closed")

        begun = self._clock.monotonic_seconds()
        event = Event(what=command, target=self._path, by=BY)
        try:
            with open_stage(self._path, connect=self._connect_answered, end_others=end_others) as stage:
                plan = decide(*stage.facts())
                if isinstance(plan, Refusal):
                    raise plan.error
                common = plan.common.name if plan.common else None
                event = Event(what=command, source=plan.source, target=plan.target, snapshot=common, by=BY)
                for _ in driver.carry_out(plan, stage, refuse_closing):
                    if self.tree.role.role is not Role.FENCED:
                        self._changed()
        except (IdemfsError, OSError) as error:
            log.error("%s failed: %s", command, error)
            self._note(msgspec.structs.replace(event, outcome=str(error)))
            return False
        finally:
            self._channels.clear()
        seconds = round(self._clock.monotonic_seconds() - begun, 3)
        log.warning("%s is done: %s of epoch %d", command, self.tree.role.role.name.lower(), self.tree.role.epoch)
        self._note(msgspec.structs.replace(event, seconds=seconds))
        self._changed()
        return True

    def _connect_answered(self, address: str, readonly: bool) -> Channel:
        for record in records.get_peers(self.tree.store):
            if record.path == address and record.guid not in self._answered:
                raise ConnectionLost(self._asking.failures.get(record.guid) or "does not answer")
        channel = self._connect(address, readonly)
        with self._bell.lock:
            self._channels.append(channel)
            is_late = self._bell.is_over
        if is_late:
            channel.close()
        return channel

    def _note(self, event: Event) -> None:
        history.record(self._path, msgspec.structs.replace(event, by=BY))

    # -- telling ---------------------------------------------------------------------------------------

    def _has_lease(self) -> bool:
        lease = self.tree.write_lease
        return lease is not None and lease.is_live()

    def _tell(self, turn: Turn) -> None:
        """Log what has changed, and report what is wrong."""
        action, problem = turn.action, None
        state = getattr(action, "reason", "") or type(action).__name__.lower()
        role = self.tree.role.role
        if role is Role.PRIMARY and not self._has_lease():
            problem = "takes no changes, since its write lease has run out" + self._why(turn)
        elif role is Role.FENCED:
            problem = f"epoch {self.tree.role.seen_epoch} has ended this store's right to write; {state}"
        if isinstance(action, Wait | Keep) and state != self._state:
            log.info("%s", state)
        had_lease = self._last is not None and self._last_had_lease
        if role is Role.PRIMARY and had_lease and not self._has_lease():
            log.error("the write lease has run out, and no changes are taken%s", self._why(turn))
            # What the kernel could not write back is not in the store, and nobody is to read it.
            self._changed()
        elif role is Role.PRIMARY and not had_lease and self._has_lease():
            log.info("has a write lease, and takes changes in epoch %d", self.tree.role.epoch)
        self._last, self._last_had_lease, self._state = turn, self._has_lease(), state
        self._report(problem)

    def _why(self, turn: Turn) -> str:
        reasons = [self._etcd_failure] if self._etcd_failure else []
        names = {record.guid: record.name for record in records.get_peers(self.tree.store)}
        reasons += [f"{names[store]}: {why}" for store, why in self._missing(turn).items() if store in names]
        return f" ({'; '.join(reasons)})" if reasons else ""

    def _missing(self, turn: Turn) -> dict[Guid, str]:
        said = {answer.store: answer.reason for answer in turn.view.answers}
        return {store: said.get(store) or self._asking.failures.get(store, "does not answer") for store in turn.missing}

    def status(self) -> GuardStatus:
        turn, lease, now_ns = self._last, self.tree.write_lease, self._clock.since_boot_ns()
        names = {record.guid: record.name for record in records.get_members(self.tree.store)}
        is_primary = self.tree.role.role is Role.PRIMARY
        seen = None if turn is None else turn.view.seen
        holder = None if seen is None else seen.holder
        missing = {} if turn is None else self._missing(turn)
        return GuardStatus(
            role=self.tree.role.role.name.lower(),
            epoch=self.tree.role.epoch,
            lease_seconds=self._seconds,
            lease_left_seconds=max(0.0, (lease.until_ns - now_ns) / _NS) if lease is not None and is_primary else None,
            granted_left_seconds=grants.granted_left_ns(self.tree) / _NS,
            is_automatic=self.rules.is_automatic,
            is_paused=seen is not None and seen.is_paused,
            etcd=self._etcd_failure or ("not used" if self._key is None else "answers"),
            holder=None if holder is None else names.get(holder.store, holder.store.hex()),
            granted=() if turn is None else tuple(names.get(store, store.hex()) for store in turn.granted),
            missing={names.get(store, store.hex()): why for store, why in missing.items()},
            state=self._state,
        )

    def pause(self, is_paused: bool) -> None:
        """For all stores of the line. Raises ``PeerError``, ``EtcdLost``, ``EtcdRefused``."""
        if self._etcd_config is None:
            raise PeerError(f"{self._path}: no [etcd] is configured, so no store of its line takes over by itself")
        with one_key(self.tree, self._etcd_config) as key:
            key.pause(is_paused)
        self.wake()


def guarding(owner: OwnedStore, etcd: Callable[[], EtcdConfig | None]) -> Guard | None:
    """A part factory: the guard that the store's configuration asks for, if it does. Raises ``ConfigError``."""
    rules = rules_of(owner.config)
    if rules is None:
        grants.require(owner.tree, None)
        return None

    def changed() -> None:
        owner.files_changed()
        owner.wake()

    return Guard(
        owner.tree,
        owner.path,
        owner.name,
        rules,
        connecting.connect,
        etcd,
        report=lambda problem: owner.report("guard", problem),
        changed=changed,
    )


def rules_of(config: StoreConfig) -> Rules | None:
    """None: nobody guards the store. Raises ``ConfigError``."""
    if not config.write_lease_seconds and not config.automatic_failover:
        return None
    duration_ns = config.write_lease_seconds * _NS or DURATION_NS_DEFAULT
    if not DURATION_NS_MIN <= duration_ns <= DURATION_NS_MAX:
        raise ConfigError(
            f"{config.name}: write_lease is {DURATION_NS_MIN // _NS} s at least, {DURATION_NS_MAX // _NS} s at most"
        )
    lag = config.maximum_lag_seconds
    return Rules(
        duration_ns=duration_ns,
        is_automatic=config.automatic_failover,
        maximum_lag_ns=None if lag is None else lag * _NS,
    )


def line_key(tree: Tree, etcd: EtcdConfig, timeout_seconds: float) -> tuple[EtcdClient, LineKey]:
    """Raises ``OSError`` for files that cannot be read."""
    client = EtcdClient(etcd.endpoints, ca=etcd.ca, cert=etcd.cert, key=etcd.key, timeout_seconds=timeout_seconds)
    fileset = Guid(tree.store.catalog.filesets[ROOT_FILESET].guid)
    return client, LineKey(client, etcd.prefix, fileset, guid_of(tree))


@contextmanager
def one_key(tree: Tree, etcd: EtcdConfig) -> Iterator[LineKey]:
    """For a thread of its own."""
    client, key = line_key(tree, etcd, _COMMAND_SECONDS)
    with client:
        yield key
