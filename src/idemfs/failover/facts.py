"""What decisions are made of, and what they are: facts about stores, steps, plans. Pure values.

A *side* is a store that could be looked at, an *unreachable* one is known by name only. Steps name
their store by its guid. Every step is durable when it is done, and a step that was done already, or half done,
is planned again from what is found; so no plan is ever stored.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from idemfs.errors import RoleError
from idemfs.format.role import Role, RoleRecord
from idemfs.ids import Guid


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """One complete snapshot of a side."""

    guid: Guid
    name: str
    digest: int
    created_ns: int
    owned_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Purged:
    """What a snapshot was called before something was purged from it, what it is called since, and its digest then."""

    old: Guid
    new: Guid
    digest: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One fileset of a side: ``digest`` is that of its active state, ``base`` what a standby received of it last."""

    fileset: Guid
    name: str = ""
    """Empty for the root fileset."""
    snapshots: tuple[Held, ...] = ()
    digest: int = 0
    base: Guid | None = None
    purged: tuple[Purged, ...] = ()
    """In the order in which it was."""

    @property
    def newest(self) -> Held | None:
        return self.snapshots[-1] if self.snapshots else None

    @property
    def has_changed(self) -> bool:
        """Whether the active state differs from the newest snapshot."""
        return self.newest is None or self.newest.digest != self.digest

    @property
    def is_kept(self) -> bool:
        """Whether some snapshot has the active state."""
        return any(held.digest == self.digest for held in self.snapshots)


@dataclass(frozen=True, slots=True, kw_only=True)
class Frozen:
    """A switchover that has begun: the peer that is to become primary, and its epoch then."""

    peer: Guid
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One store as found. ``fileset``, ``snapshots``, ``digest``, ``base``, ``purged`` are those of its root fileset;
    ``others`` are the other filesets of its line. ``half_received``: of any of them.

    ``members``: the stores that know each other, this one too, in an order that is the same on each.
    """

    guid: Guid
    path: str
    fileset: Guid
    role: RoleRecord
    members: tuple[Guid, ...]
    snapshots: tuple[Held, ...] = ()
    digest: int = 0
    base: Guid | None = None
    purged: tuple[Purged, ...] = ()
    half_received: bool = False
    frozen: Frozen | None = None
    others: tuple[Part, ...] = ()
    diverged_count: int = 0
    """Snapshots that only this store had when it came to follow another one, and that nobody has released yet."""
    diverged_bytes: int = 0
    """What those own."""
    granted_ns: int | None = None
    """How long the write lease that it granted last has still to run. None: it never granted one."""
    granted_epoch: int | None = None
    """That of the primary which it granted that lease."""
    needs_lease: bool = False
    """Whether it takes changes, as primary, only with a live write lease."""

    @property
    def parts(self) -> tuple[Part, ...]:
        """Its filesets, the root fileset first."""
        root = Part(
            fileset=self.fileset, snapshots=self.snapshots, digest=self.digest, base=self.base, purged=self.purged
        )
        return root, *self.others

    @property
    def is_primary(self) -> bool:
        return self.role.role is Role.PRIMARY

    @property
    def is_standby(self) -> bool:
        return self.role.role is Role.STANDBY

    @property
    def newest(self) -> Held | None:
        return self.snapshots[-1] if self.snapshots else None

    @property
    def has_changed(self) -> bool:
        """Whether the active state of a fileset differs from its newest snapshot."""
        return any(part.has_changed for part in self.parts)

    @property
    def is_kept(self) -> bool:
        """Whether of each fileset some snapshot has the active state."""
        return all(part.is_kept for part in self.parts)

    def held(self, guid: Guid | None) -> Held | None:
        return next((held for held in self.snapshots if held.guid == guid), None)

    def outranks(self, other: Side) -> bool:
        """Whether this is a primary whose right to write ends that of ``other``, or is the one ``other`` may follow.

        Two stores that took over apart from each other have equal epochs; then the greater guid decides.
        """
        if not self.is_primary:
            return False
        if other.is_primary:
            return (self.role.epoch, self.guid) > (other.role.epoch, other.guid)
        return self.role.epoch >= other.role.seen_epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreachable:
    """A store that is known, and could not be opened; ``reason`` is one line. ``is_alive``: a process uses it."""

    guid: Guid
    path: str
    reason: str
    is_alive: bool = False


Peer: TypeAlias = Side | Unreachable


# -- steps ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Tell:
    """``store`` hears of ``epoch``. If it was primary of a lower one, or one of two of this one, it is fenced."""

    store: Guid
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeSnapshot:
    """Take snapshots of the filesets whose active state differs from the newest one, at one instant; with a ``name``
    from all of them. ``name`` None: by the time."""

    store: Guid
    name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Send:
    """Every snapshot of every fileset that ``target`` lacks, in order."""

    source: Guid
    target: Guid


@dataclass(frozen=True, slots=True, kw_only=True)
class TellPurges:
    """``target`` purges what ``source`` has purged, from the snapshots that both had."""

    source: Guid
    target: Guid


@dataclass(frozen=True, slots=True, kw_only=True)
class DropPartial:
    """Drop what is half received of any fileset."""

    store: Guid


@dataclass(frozen=True, slots=True, kw_only=True)
class GoBack:
    """The active state of a fileset becomes that of ``snapshot``, which becomes the base; newer snapshots stay."""

    store: Guid
    snapshot: Guid


@dataclass(frozen=True, slots=True, kw_only=True)
class Freeze:
    """A primary stops writing for good, since ``peer`` is to be primary of ``epoch``."""

    store: Guid
    peer: Guid
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AwaitLease:
    """``store`` grants no lease any more, and waits until the one that it granted last has run out, ``left_ns`` from
    now."""

    store: Guid
    left_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Promote:
    """Become primary of ``epoch``.

    ``after``: the old primary, which stands still and says which inode numbers it has given out. None: it is
    not to be relied on, so a range of numbers is left out that it cannot have used up.
    """

    store: Guid
    epoch: int
    after: Guid | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Demote:
    """Become a standby in ``epoch``; the active state is that of the snapshot ``base`` (None: the newest of each
    fileset). ``others``: the same for the other filesets; one without keeps what it has, and follows nobody."""

    store: Guid
    epoch: int
    base: Guid | None = None
    others: tuple[Guid, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Introduce:
    """``store`` remembers the store of the command, and all peers of it, as its own peers."""

    store: Guid


Step: TypeAlias = (
    Tell | Introduce | TakeSnapshot | TellPurges | Send | DropPartial | GoBack | Freeze | AwaitLease | Promote | Demote
)


# -- plans ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Risk:
    """What one store has of a fileset, and the other one will not have on its line.

    ``why`` says what becomes of it. ``since`` None: all that the store has. ``is_known`` is False when
    the store cannot be looked at; it may have more than was ever seen here.
    """

    path: str
    why: str
    store: Guid
    fileset: Guid | None = None
    """None: the root fileset."""
    fileset_name: str = ""
    since: Held | None = None
    snapshots: tuple[Held, ...] = ()
    unsaved_changes: bool = False
    is_known: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Steps in order, and what a user wants to know before the first one."""

    command: str
    source: str
    target: str
    """Paths: from which store to which one data, or the right to write, will go."""
    common: Held | None = None
    steps: tuple[Step, ...] = ()
    risks: tuple[Risk, ...] = ()
    warning: str | None = None
    """A reason to answer no."""
    notes: tuple[str, ...] = field(default=())
    then: RoleError | None = None
    """After the steps the command has failed all the same, with this error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Nothing is to be done; why."""

    error: RoleError


Decision: TypeAlias = Plan | Refusal
