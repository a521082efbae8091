"""What a link does when it has found out who is at the other end. Pure: two stores as they are, in; one decision, out.

Only primaries send to the stores that they know as their standbys; a standby sends what it received on to stores that
nobody else sends to, or that it made its own standbys: to these it sends in any role. So two nodes may each have a link
to the other: the one whose store follows rests.

A store is never filled because it happens to stand at the right address: it is the one that this link filled before, or
a standby that the store knows, or the link fills one for the first time.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple, TypeAlias

from idemfs.format.role import Role, RoleRecord
from idemfs.ids import Guid


class Here(NamedTuple):
    """The store that sends. ``members``: guids of those that it knows; ``is_new``: nothing was ever written to it."""

    guid: Guid
    role: RoleRecord
    root: Guid
    members: Collection[Guid]
    is_new: bool = False


class There(NamedTuple):
    """The store at the other end."""

    guid: Guid
    role: RoleRecord
    root: Guid
    filesets: Collection[Guid]
    guests: Mapping[Guid, int] = {}
    """The highest epoch that it knows of each other line of which it has filesets, by the guid of its root."""
    via: Guid | None = None
    """The standby through which it follows its primary."""


class Send(NamedTuple):
    """Bring it up to date. ``is_guest``: our filesets stand beside those of another store's line; ``is_sole``: nobody
    but our line sends what it has of ours."""

    is_guest: bool = False
    is_sole: bool = False


class Join(NamedTuple):
    """Make it a standby first; ``is_guest``: one that takes in filesets of several lines."""

    is_guest: bool = False


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


_NEW = "nothing was written here yet, and another store is there"

Decision: TypeAlias = Send | Join | Learn | Tell | Rest | Refuse


def decide(
    address: str, own: str, here: Here, there: There | None, filled: Guid | None, guest_name: str | None = None
) -> Decision:
    """``there`` None: no store. ``own``: path of our store, for people. ``filled``: the store that this link, of all,
    filled before. ``guest_name``: our filesets are to stand there beside those of others."""
    option = "" if guest_name is None else f" --as {guest_name}"
    again = f"'idemfs standby add {own} {address}{option}' makes it a standby again"
    if there is None:
        if guest_name is not None and here.role.role is not Role.PRIMARY:
            return Rest("its primary makes it")
        return (
            Join(guest_name is not None)
            if filled is None
            else Refuse(f"the store that this link filled is not there any more: {again}")
        )
    if there.guid == here.guid:
        return Refuse("is the store itself; a standby is another one")
    is_known = there.guid in here.members
    if filled not in (None, there.guid) and not is_known:
        return Refuse(f"another store is there than the one that this link filled: {again}")
    if guest_name is not None:
        return _beside_others(own, here, there, filled, again)
    if there.root != here.root:
        if there.role.role is Role.STANDBY and here.root in there.filesets:
            return Send(is_guest=True)
        if there.role.role is Role.PRIMARY and filled is None:
            # Who judges it in full finds out whether it is empty; of two that are, the one written to is to win.
            return Rest(_NEW) if here.is_new else Join()
        if filled is None:
            return Refuse("holds other files; name a store that is empty, or none, or set 'as' to stand beside them")
        return Refuse(f"the store that this link filled holds other files now; if it is empty, {again}")
    return _of_one_line(own, here, there, is_known=is_known)


def _beside_others(own: str, here: Here, there: There, filled: Guid | None, again: str) -> Decision:
    if there.root == here.root:
        return Refuse("is of the same files as the store itself: leave 'as' out")
    if there.guests.get(here.root, 0) > here.role.seen_epoch:
        return Learn(there.guests[here.root])
    if here.role.role is Role.FENCED:
        return Rest(f"epoch {here.role.seen_epoch} has ended this store's right to write; run 'idemfs failback {own}'")
    if here.role.role is Role.STANDBY:
        return Rest("its primary sends to it")
    if there.role.role is Role.STANDBY:
        return Send(is_guest=True, is_sole=True)
    if there.role.role is Role.PRIMARY and filled is None:
        # Who judges it in full finds out whether it is empty.
        return Rest(_NEW) if here.is_new else Join(is_guest=True)
    return Refuse(f"is no standby, so it takes no filesets of others in; if it is empty, {again}")


def _of_one_line(own: str, here: Here, there: There, *, is_known: bool) -> Decision:
    if there.role.seen_epoch > here.role.seen_epoch:
        return Learn(there.role.seen_epoch)
    if here.role.role is Role.FENCED:
        return Rest(f"epoch {here.role.seen_epoch} has ended this store's right to write; run 'idemfs failback {own}'")
    if there.role.role is Role.FENCED:
        return Refuse("was primary, and has not come back since: 'idemfs failback' there makes it a standby again")
    if there.role.role is Role.PRIMARY:
        return _two_that_write(here, there)
    if there.via == here.guid:
        return Send(is_sole=True)
    if here.role.role is Role.STANDBY:
        if there.via is not None:
            return Rest("it follows another standby")
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
