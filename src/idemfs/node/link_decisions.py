"""What a link does when it has found out who is at the other end. Pure: two stores as they are, in; one decision, out.

Only primaries send to the stores that they know as their standbys; a standby sends what it received on to stores that
nobody else sends to. So two nodes may each have a link to the other: the one whose store follows rests.

A store is never filled because it happens to stand at the right address: it is the one that this link filled before, or
a standby that the store knows, or the link fills one for the first time.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple, TypeAlias

from idemfs.format.role import Role, RoleRecord
from idemfs.ids import Guid


class Here(NamedTuple):
    """The store that sends. ``members``: guids of those that it knows."""

    guid: Guid
    role: RoleRecord
    root: Guid
    members: Collection[Guid]


class There(NamedTuple):
    """The store at the other end."""

    guid: Guid
    role: RoleRecord
    root: Guid
    filesets: Collection[Guid]


class Send(NamedTuple):
    """Bring it up to date. ``is_guest``: our filesets stand beside those of another store's line."""

    is_guest: bool = False


class Join(NamedTuple):
    """Make it a standby first."""


class Learn(NamedTuple):
    """It has heard of a later epoch: that ends our right to write, if we have it."""

    epoch: int


class Tell(NamedTuple):
    """It has not heard of our epoch, and thinks that it may write."""

    epoch: int
    reason: str


class Rest(NamedTuple):
    """Nothing is to be done, and nothing is wrong."""

    reason: str


class Refuse(NamedTuple):
    """Somebody has to do something."""

    reason: str


Decision: TypeAlias = Send | Join | Learn | Tell | Rest | Refuse


def decide(address: str, own: str, here: Here, there: There | None, filled: Guid | None) -> Decision:
    """``there`` None: no store. ``own``: path of our store, for people. ``filled``: the store that this link, of all,
    filled before."""
    again = f"'idemfs standby add {own} {address}' makes it a standby again"
    if there is None:
        return Join() if filled is None else Refuse(f"the store that this link filled is not there any more: {again}")
    if there.guid == here.guid:
        return Refuse("is the store itself; a standby is another one")
    is_known = there.guid in here.members
    if filled not in (None, there.guid) and not is_known:
        return Refuse(f"another store is there than the one that this link filled: {again}")
    if there.root != here.root:
        if there.role.role is Role.STANDBY and here.root in there.filesets:
            return Send(is_guest=True)
        if there.role.role is Role.PRIMARY and filled is None:
            # Who judges it in full finds out whether it is empty.
            return Join()
        if filled is None:
            return Refuse("holds other files; name a store that is empty, or none")
        return Refuse(f"the store that this link filled holds other files now; if it is empty, {again}")
    return _of_one_line(own, here, there, is_known=is_known)


def _of_one_line(own: str, here: Here, there: There, *, is_known: bool) -> Decision:
    if there.role.seen_epoch > here.role.seen_epoch:
        return Learn(there.role.seen_epoch)
    if here.role.role is Role.FENCED:
        return Rest(f"epoch {here.role.seen_epoch} has ended this store's right to write; run 'idemfs failback {own}'")
    if there.role.role is Role.FENCED:
        return Refuse("was primary, and has not come back since: 'idemfs failback' there makes it a standby again")
    if there.role.role is Role.PRIMARY:
        return _two_that_write(here, there)
    if here.role.role is Role.STANDBY:
        return Rest("its primary sends to it") if is_known else Send()
    # A primary knows its standbys, and they know it.
    return Send() if is_known else Join()


def _two_that_write(here: Here, there: There) -> Decision:
    if here.role.role is Role.STANDBY:
        return Rest("is the primary")
    if there.role.seen_epoch < here.role.epoch:
        return Tell(here.role.epoch, "was primary until now: 'idemfs failback' there makes it a standby again")
    return Refuse(
        "is primary too, and neither of the two epochs is later; 'idemfs failback' on the one to follow settles it"
    )
