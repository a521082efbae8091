"""Write leases: who grants them, for how long they may be relied on, and what a failover waits for. Pure.

A primary that requires a lease takes changes while one of two things holds: it holds the line's key in etcd, or all
the standbys that it has ever asked in its epoch let it go on. A standby that granted a lease does not take over, nor
is it made primary by hand, before that has run out.

All times are of the clock that counts since boot, each machine's own. A holder counts from before it asked, and
relies on nine tenths of the time; who grants counts all of it from after it was asked. So clocks that differ in rate
by less than a tenth do no harm, and clocks that are set do none at all.
"""

from __future__ import annotations

from dataclasses import dataclass

from idemfs.format.lease import Granted
from idemfs.format.role import Role, RoleRecord
from idemfs.ids import Guid

DURATION_NS_MIN, DURATION_NS_MAX = 2_000_000_000, 3_600_000_000_000
"""etcd grants none that is shorter; a longer one would keep everybody waiting."""
DURATION_NS_DEFAULT = 10_000_000_000
_MARGIN_PARTS = 10


def usable_ns(duration_ns: int) -> int:
    """For how long, from before it asked, a holder relies on a lease that it was granted."""
    return duration_ns - duration_ns // _MARGIN_PARTS


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """How far a store has come on its line: its newest complete snapshots, the newest one last, and when that was
    taken, by its primary's clock."""

    recent: tuple[Guid, ...]
    created_ns: int

    @property
    def newest(self) -> Guid:
        return self.recent[-1]


def is_ahead(one: Position | None, other: Position | None) -> bool:
    """Whether ``one`` has what ``other`` lacks. Times decide only where no snapshot of one is known to the other."""
    if one is None or other is None:
        return one is not None
    if one.newest == other.newest or one.newest in other.recent:
        return False
    return other.newest in one.recent or one.created_ns > other.created_ns


# -- asking and granting -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """``store``, in ``epoch``, asks to be let write for so long. 0: it tells its epoch, and asks for the other's."""

    store: Guid
    role: RoleRecord
    duration_ns: int = 0

    @property
    def epoch(self) -> int:
        """That in which it writes or, when it does not, the highest that it knows."""
        return self.role.epoch if self.role.role is Role.PRIMARY else self.role.seen_epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """``role``: of the store that answers, after it heard what it was told. ``reason``: why it grants nothing."""

    store: Guid
    role: RoleRecord
    is_granted: bool = False
    position: Position | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grantor:
    """What a store that is asked knows of itself."""

    store: Guid
    role: RoleRecord
    granted: Granted | None = None
    is_taking_over: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruling:
    """What to do, in this order, before the answer is given: hear of an epoch, remember whom it granted to."""

    hear: int | None = None
    granted: Granted | None = None
    reason: str = ""


def rule(own: Grantor, ask: Ask) -> Ruling:
    """Whether a store that is asked grants a lease, and what it learns."""
    hear = ask.epoch if _teaches(own, ask) else None
    if ask.duration_ns == 0:
        return Ruling(hear=hear, reason="was not asked for a lease")
    refusal = _refusal(own, ask)
    if refusal:
        return Ruling(hear=hear, reason=refusal)
    return Ruling(hear=hear, granted=Granted(ask.store, ask.epoch, ask.duration_ns))


def _teaches(own: Grantor, ask: Ask) -> bool:
    if own.role.role is Role.PRIMARY and ask.role.role is Role.PRIMARY and ask.epoch == own.role.epoch:
        # Two that took over unseen by each other, and do not agree on who is there: see ``Side.outranks``.
        return ask.store > own.store
    return ask.epoch > own.role.seen_epoch


def _refusal(own: Grantor, ask: Ask) -> str:
    if own.role.role is not Role.STANDBY:
        return f"is {own.role.role.name.lower()}, and no standby"
    if ask.role.role is not Role.PRIMARY:
        return "grants leases to primaries alone"
    if own.is_taking_over:
        return "is taking over"
    if ask.epoch < own.role.seen_epoch:
        return f"has seen epoch {own.role.seen_epoch}"
    if own.granted is not None and own.granted.epoch == ask.epoch and own.granted.holder != ask.store:
        return f"has granted the lease of epoch {ask.epoch} to another store"
    return ""


# -- waiting -------------------------------------------------------------------------------------------


def left_ns(granted_until_ns: int, now_ns: int) -> int:
    """For how long a standby has still to wait before it may become primary."""
    return max(0, granted_until_ns - now_ns)


def waits(path: str, left: int) -> str:
    """What a failover waits for, in words."""
    return f"{path} granted its primary a write lease, which runs out in {left / 1e9:.1f} s: nobody takes over before"
