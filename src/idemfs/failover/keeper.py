"""Keeps the write lease of one store, and carries out what ``automatic`` decides, a turn at a time. Without any I/O.

A turn yields *orders* and is sent what came of each; whoever drives it may be late, or never come back. So
what makes a later step safe is ordered before it:

- a standby is remembered as asked before it is asked, and published as asked only when it has granted;
- a lease counts from before the exchange that brought it;
- a standby that takes over stops granting first, then claims the key, remembers whose grants it needs, and only
  then becomes primary;
- a higher epoch ends the lease before it is recorded.

Threads: one a keeper.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from idemfs.failover import automatic
from idemfs.failover.automatic import (
    Acquire,
    Action,
    Demote,
    Line,
    Overrule,
    Own,
    Release,
    Renew,
    Return,
    Rules,
    Seen,
    TakeOver,
    View,
)
from idemfs.failover.lease import Answer, Ask, usable_ns
from idemfs.format.lease import Asked
from idemfs.format.role import Role
from idemfs.ids import Guid

# -- orders --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Look:
    """What the store knows of itself: ``Own``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """Ask peers and etcd, all at once, each for a short time: ``Replies``.

    ``keep_alive``: renew the lease of the key, if the key is this store's, before it is read.
    """

    asks: Mapping[Guid, Ask] = field(default_factory=dict)
    keep_alive: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Replies:
    """``began_ns``: before anything was sent. Of peers that did not answer in time there is nothing."""

    began_ns: int
    answers: tuple[Answer, ...] = ()
    seen: Seen | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Take the key with a new lease, and put ``line``, if both stand as they were ``seen``: ``Claimed``."""

    line: Line
    seen: Seen


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """``began_ns``: before it was sent."""

    began_ns: int
    is_mine: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Publish:
    """The line becomes ``line``, if it and the key stand as they were ``seen``: whether it was done."""

    line: Line
    seen: Seen


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The key becomes nobody's, if it is this store's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hear:
    """Record a higher epoch, durably: a primary is fenced."""

    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Remember:
    """Record whose grants are needed, durably."""

    asked: Asked


@dataclass(frozen=True, slots=True, kw_only=True)
class Extend:
    """The write lease of ``epoch`` is live until then; nothing, if the store is not primary of that any more."""

    epoch: int
    until_ns: int


@dataclass(frozen=True, slots=True)
class End:
    """No change is accepted from now on."""


@dataclass(frozen=True, slots=True)
class Begin:
    """Grant nothing any more, unless something that was granted has not run out: whether it was done."""


@dataclass(frozen=True, slots=True)
class Cease:
    """Grant again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Promote:
    """Carry out a failover to ``epoch``: whether this store is primary of it now."""

    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ComeBack:
    """Carry out a failback from ``primary``."""

    primary: Guid


Order: TypeAlias = (
    Look | Exchange | Claim | Publish | GiveUp | Hear | Remember | Extend | End | Begin | Cease | Promote | ComeBack
)
Reply: TypeAlias = Own | Replies | Claimed | bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What was seen and decided in a turn."""

    action: Action
    view: View
    granted: tuple[Guid, ...] = ()
    """Of those that were asked."""

    @property
    def missing(self) -> tuple[Guid, ...]:
        return tuple(store for store in self.view.own.asked_now if store not in self.granted)


Turning: TypeAlias = Generator[Order, Reply, Turn]


class Keeper:
    """The turns of one store."""

    def __init__(self, rules: Rules, *, uses_etcd: bool) -> None:
        self.rules = rules
        self.uses_etcd = uses_etcd

    def turn(self) -> Turning:
        own = yield from _own()
        is_writing = own.role.role is Role.PRIMARY and not own.failure
        replies = yield from _replies(Exchange(asks=self._asks(own, is_writing), keep_alive=is_writing))
        # Whoever was asked may have taught this store an epoch meanwhile.
        own = yield from _own()
        view = View(own=own, rules=self.rules, seen=replies.seen, answers=replies.answers)
        granted = tuple(answer.store for answer in replies.answers if answer.is_granted)
        action = automatic.decide(view)
        match action:
            case Demote(epoch=epoch):
                yield End()
                yield GiveUp()
                if epoch is not None:
                    yield Hear(epoch=epoch)
            case Acquire() | Renew() if self.rules.duration_ns:
                yield from self._write_on(view, replies.began_ns, granted, acquires=isinstance(action, Acquire))
            case Overrule() if view.seen is not None:
                yield Publish(line=_line(own, ()), seen=view.seen)
            case TakeOver(epoch=epoch):
                yield from self._take_over(view, epoch)
            case Release():
                yield GiveUp()
            case Return(primary=primary):
                yield ComeBack(primary=primary)
            case _:
                pass
        return Turn(action=action, view=view, granted=granted)

    def _asks(self, own: Own, is_writing: bool) -> dict[Guid, Ask]:
        needed = own.asked_now if is_writing and own.role.role is Role.PRIMARY else ()
        return {
            store: Ask(store=own.store, role=own.role, duration_ns=self.rules.duration_ns if store in needed else 0)
            for store in own.members
            if store != own.store
        }

    # -- a primary -------------------------------------------------------------------------------------

    def _write_on(
        self, view: View, began_ns: int, granted: tuple[Guid, ...], *, acquires: bool
    ) -> Generator[Order, Reply, None]:
        own, seen = view.own, view.seen
        until_ns = began_ns + usable_ns(self.rules.duration_ns)
        may_forget = not self.uses_etcd
        if automatic.has_key(view) or self._is_let(view, granted):
            yield Extend(epoch=own.role.epoch, until_ns=until_ns)
        if seen is not None:
            line = _line(own, self._published(view, granted))
            if acquires:
                claimed = yield from _claimed(Claim(line=line, seen=seen))
                may_forget = claimed.is_mine
                if may_forget:
                    until_ns = claimed.began_ns + usable_ns(self.rules.duration_ns)
                    yield Extend(epoch=own.role.epoch, until_ns=until_ns)
            else:
                may_forget = (yield Publish(line=line, seen=seen)) is True
        wanted = self._whom_to_ask(own, view.answers, may_forget=may_forget)
        if wanted != own.asked:
            yield Remember(asked=wanted)

    def _is_let(self, view: View, granted: tuple[Guid, ...]) -> bool:
        """Whether all that it needs to ask let the primary go on. With etcd it needs the key once in its epoch before
        it goes on without: until then others may take over from the one before it."""
        own = view.own
        if self.uses_etcd and own.asked.epoch != own.role.epoch:
            return False
        needed = own.asked_now
        return set(needed) <= set(granted) and (bool(needed) or view.seen is None)

    def _published(self, view: View, granted: tuple[Guid, ...]) -> tuple[Guid, ...]:
        """Who may take over: only who has granted, so that what was relied on without its grant ran out before that."""
        own, line = view.own, view.seen.line if view.seen else None
        before = line.asked if line is not None and (line.store, line.epoch) == (own.store, own.role.epoch) else ()
        asked = (store for store in own.asked_now if store in own.members)
        return tuple(store for store in asked if store in granted or store in before)

    def _whom_to_ask(self, own: Own, answers: tuple[Answer, ...], *, may_forget: bool) -> Asked:
        """Standbys join when they answer. One that was removed is forgotten when it cannot take over any more."""
        known = own.asked_now
        if self.uses_etcd and not may_forget and own.asked.epoch != own.role.epoch:
            return own.asked
        if may_forget:
            known = tuple(store for store in known if store in own.members)
        new = [each.store for each in answers if each.role.role is Role.STANDBY and each.store not in known]
        return Asked(own.role.epoch, (*known, *new))

    # -- a standby -------------------------------------------------------------------------------------

    def _take_over(self, view: View, epoch: int) -> Generator[Order, Reply, None]:
        own, seen = view.own, view.seen
        assert seen is not None and seen.line is not None
        if not (yield Begin()):
            return
        others = tuple(store for store in seen.line.asked if store != own.store)
        # Should it end halfway, the same stores may go on, this one too.
        line = replace(seen.line, epoch=epoch, store=own.store)
        claimed = yield from _claimed(Claim(line=line, seen=seen))
        if claimed.is_mine:
            # Those that may take over after this store are asked from its first write on.
            yield Remember(asked=Asked(epoch, others))
            if (yield Promote(epoch=epoch)):
                yield Extend(epoch=epoch, until_ns=claimed.began_ns + usable_ns(self.rules.duration_ns))
            else:
                yield GiveUp()
        yield Cease()


def _line(own: Own, asked: tuple[Guid, ...]) -> Line:
    return Line(
        epoch=own.role.epoch,
        store=own.store,
        asked=asked,
        position=own.position,
        complete_ns=own.complete_ns,
        time_ns=own.time_ns,
    )


# -- what orders bring ---------------------------------------------------------------------------------


def _own() -> Generator[Order, Reply, Own]:
    reply = yield Look()
    assert isinstance(reply, Own)
    return reply


def _replies(exchange: Exchange) -> Generator[Order, Reply, Replies]:
    reply = yield exchange
    assert isinstance(reply, Replies)
    return reply


def _claimed(claim: Claim) -> Generator[Order, Reply, Claimed]:
    reply = yield claim
    assert isinstance(reply, Claimed)
    return reply
