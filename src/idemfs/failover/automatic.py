"""Automatic failover: what a store does next, made of what it sees. Pure; ``keeper`` carries it out.

The line has a key in etcd that its primary holds, bound to a lease: the *holder*. Beside it stands, for good, what
the holder has published: its epoch, whose grants it needs (*asked*), how far it had come. Rules:

- a store claims the key only in an epoch above all that it has seen, by compare-and-swap, before it uses the epoch;
- only a standby that the holder has published as asked takes over, so the holder cannot write without its grant or
  the key; and only when the key is nobody's, and what it granted itself has run out;
- of such standbys that can be reached, only one that no other is ahead of takes over, and none that lags too much;
- a primary without etcd goes on while all that it asked grant it a lease, and stops by itself when they do not;
- whoever meets a higher epoch stops for good, and comes back as standby of the primary that has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from idemfs.failover.lease import Answer, Position, is_ahead, left_ns
from idemfs.format.lease import Asked
from idemfs.format.role import Role, RoleRecord
from idemfs.ids import Guid

NOBODY = Asked(0, ())


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """``duration_ns`` 0: no lease is needed to write, and stores tell each other of epochs only. ``is_automatic``: the
    store takes over, and comes back, by itself. ``maximum_lag_ns`` None: whatever is lost."""

    duration_ns: int
    is_automatic: bool = False
    maximum_lag_ns: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Own:
    """What a store knows of itself. ``members``: all stores of its line, in the order that all know.

    ``failure``: why it cannot be primary, as a store that takes no changes after an error cannot.
    """

    store: Guid
    role: RoleRecord
    now_ns: int
    members: tuple[Guid, ...]
    granted_until_ns: int = 0
    asked: Asked = NOBODY
    position: Position | None = None
    complete_ns: int = 0
    """Until when, by its own clock, its snapshots have everything; of a primary."""
    time_ns: int = 0
    is_frozen: bool = False
    failure: str = ""

    @property
    def asked_now(self) -> tuple[Guid, ...]:
        """Whose grants a primary needs in its present epoch; also one that is no member any more, until it is sure
        that it does not take over."""
        return self.asked.stores if self.asked.epoch == self.role.epoch else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Whose the key is."""

    store: Guid
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What the holder published last."""

    epoch: int
    store: Guid
    asked: tuple[Guid, ...] = ()
    position: Position | None = None
    complete_ns: int = 0
    time_ns: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What stands in etcd. ``…_revision``: of the key, and of the line; 0: there is none."""

    holder: Holder | None = None
    holder_revision: int = 0
    line: Line | None = None
    line_revision: int = 0
    is_paused: bool = False
    is_kept: bool = False
    """Whether the key is this store's and its lease was renewed just now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """All that a decision is made of. ``seen`` None: etcd cannot be reached, or is not used. ``answers``: of those
    peers that could be."""

    own: Own
    rules: Rules
    seen: Seen | None = None
    answers: tuple[Answer, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """Somebody else is in charge, and there is nothing to do."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Renew:
    """The primary goes on, as far as it is let."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Acquire:
    """The primary takes the key, in its own epoch, which is still the highest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overrule:
    """The primary was made one by command, and a store of a lower epoch has the key: that is told, and waited for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demote:
    """The primary stops taking changes: for good when there is an ``epoch`` above its own."""

    reason: str
    epoch: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeOver:
    """The standby becomes primary of ``epoch``, once it has the key in it."""

    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """The key is still this store's: by a claim that came to nothing, or from when it was primary."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Return:
    """The old primary becomes the standby of ``primary``."""

    primary: Guid


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Nothing can be done now; why."""

    reason: str


Action: TypeAlias = Keep | Renew | Acquire | Overrule | Demote | TakeOver | Release | Return | Wait


def decide(view: View) -> Action:
    match view.own.role.role:
        case Role.PRIMARY:
            return _as_primary(view)
        case Role.STANDBY:
            return _as_standby(view)
        case Role.FENCED:
            return _as_fenced(view)


def next_epoch(own: Own, above: int) -> int:
    """The first epoch above ``above`` of those that are dealt out to this store; see ``decisions.next_epoch``."""
    first = above + 1
    if own.store not in own.members:
        return first
    return first + (own.members.index(own.store) + 1 - first) % len(own.members)


def highest_epoch(view: View) -> int:
    """Of all that the store knows of, itself, others and etcd."""
    epochs = [view.own.role.seen_epoch, *(answer.role.seen_epoch for answer in view.answers)]
    if view.seen is not None:
        epochs += [each.epoch for each in (view.seen.holder, view.seen.line) if each is not None]
    return max(epochs)


def lag_ns(line: Line, position: Position) -> int:
    """How much of what the primary did before it published last would be lost, by its own clock."""
    if line.position is None or position.newest == line.position.newest:
        return max(0, line.time_ns - line.complete_ns)
    return max(0, line.time_ns - position.created_ns)


# -- by role -------------------------------------------------------------------------------------------


def _as_primary(view: View) -> Action:
    own, seen = view.own, view.seen
    epoch = highest_epoch(view)
    if epoch > own.role.epoch or _is_outranked(own, view.answers):
        return Demote(reason=f"epoch {epoch} has ended the right of epoch {own.role.epoch}", epoch=epoch)
    if seen is not None and seen.holder is not None and seen.holder.store != own.store:
        if seen.holder.epoch == epoch:
            return Demote(reason=f"another store holds the key of epoch {epoch}", epoch=epoch)
        return Overrule()
    if own.failure:
        return Demote(reason=own.failure)
    if seen is not None and not has_key(view):
        return Acquire()
    return Renew()


def has_key(view: View) -> bool:
    """Whether this store holds the key, in its own epoch, by a lease that was renewed just now."""
    seen = view.seen
    return seen is not None and seen.is_kept and seen.holder == Holder(store=view.own.store, epoch=view.own.role.epoch)


def _is_outranked(own: Own, answers: Sequence[Answer]) -> bool:
    """Whether there is a second primary of the same epoch, and it is this one that gives way."""
    same = [each for each in answers if each.role.role is Role.PRIMARY and each.role.epoch == own.role.epoch]
    return any(answer.store > own.store for answer in same)


def _as_standby(view: View) -> Action:
    own, rules, seen = view.own, view.rules, view.seen
    if _has_left_key(view):
        return Release()
    if not rules.is_automatic:
        return Keep(reason="this store takes over by command alone")
    if seen is None:
        return Wait(reason="etcd cannot be reached")
    if seen.holder is not None:
        return Keep(reason=f"the primary of epoch {seen.holder.epoch} holds the key")
    refusal = _may_not(view, seen)
    if refusal:
        return Wait(reason=refusal)
    return TakeOver(epoch=next_epoch(own, highest_epoch(view)))


def _has_left_key(view: View) -> bool:
    return view.seen is not None and view.seen.holder is not None and view.seen.holder.store == view.own.store


def _may_not(view: View, seen: Seen) -> str:
    """Why a standby does not take over though nobody holds the key."""
    own, rules, line = view.own, view.rules, seen.line
    if seen.is_paused:
        return "automatic failover is paused"
    if line is None or own.store not in line.asked:
        return "the primary has not made this store one of those that may take over"
    if own.failure:
        return own.failure
    if own.position is None:
        return "this store never received a complete snapshot"
    left = left_ns(own.granted_until_ns, own.now_ns)
    if left:
        return f"the lease that it granted runs out in {left / 1e9:.1f} s"
    for answer in view.answers:
        may = answer.store in line.asked and answer.role.role is Role.STANDBY
        if may and is_ahead(answer.position, own.position):
            return "another standby has a newer snapshot"
    lag = lag_ns(line, own.position)
    if rules.maximum_lag_ns is not None and lag > rules.maximum_lag_ns:
        return f"its newest snapshot lags {lag / 1e9:.1f} s behind, which is more than the maximum_lag"
    return ""


def _as_fenced(view: View) -> Action:
    own = view.own
    if _has_left_key(view):
        return Release()
    if own.is_frozen:
        return Wait(reason="a switchover has begun; the same command finishes it")
    primaries = [each for each in view.answers if each.role.role is Role.PRIMARY]
    primaries = [each for each in primaries if each.role.epoch >= own.role.seen_epoch]
    if not view.rules.is_automatic:
        return Wait(reason="'idemfs failback' makes this store a standby again")
    if view.seen is not None and view.seen.is_paused:
        return Wait(reason="automatic failover is paused")
    if not primaries:
        return Wait(reason="no primary of the epoch that ended its right can be reached")
    best = max(primaries, key=lambda each: (each.role.epoch, each.store))
    return Return(primary=best.store)
