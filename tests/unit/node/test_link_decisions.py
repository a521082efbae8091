"""What a link does, by who is at the other end."""

from __future__ import annotations

import re

import pytest

from idemfs.format.role import Role, RoleRecord
from idemfs.ids import Guid
from idemfs.node.link_decisions import Decision, Here, Join, Learn, Refuse, Rest, Send, Tell, There, decide

ME, PEER, STRANGER, FILES, OTHERS = (Guid(name.ljust(16).encode()) for name in ("me", "peer", "who", "files", "others"))


def here(role: Role = Role.PRIMARY, epoch: int = 3, seen: int | None = None, *, knows: bool = True) -> Here:
    return Here(ME, RoleRecord(role, epoch, seen or epoch), FILES, [PEER] if knows else [])


def there(
    role: Role = Role.STANDBY,
    epoch: int = 3,
    seen: int | None = None,
    *,
    guid: Guid = PEER,
    root: Guid = FILES,
    also: tuple[Guid, ...] = (),
) -> There:
    return There(guid, RoleRecord(role, epoch, seen or epoch), root, (root, *also))


def decided(mine: Here, other: There | None, filled: Guid | None = PEER) -> Decision:
    return decide("/b", "/a", mine, other, filled)


@pytest.mark.parametrize(
    ("mine", "other", "filled", "expected"),
    [
        (here(), there(), PEER, Send()),
        (here(), there(epoch=1), PEER, Send()),
        (here(knows=False), there(), PEER, Join()),
        (here(), there(), None, Send()),
        (here(), None, None, Join()),
        (here(), there(Role.PRIMARY, 1, root=OTHERS), None, Join()),
        # A store that was made anew, and that its user added as a standby again.
        (here(), there(), STRANGER, Send()),
        (here()._replace(is_new=True), None, None, Join()),
        # A standby of a standby.
        (here(Role.STANDBY, knows=False), there(), PEER, Send()),
        (here(Role.STANDBY, knows=False), None, None, Join()),
        # It was made by this one's link, which goes on after a failover, and after the roles are exchanged again.
        (here(knows=False), there()._replace(via=ME), PEER, Send(is_sole=True)),
        (here(Role.STANDBY), there()._replace(via=ME), PEER, Send(is_sole=True)),
        # Filesets beside those of another line.
        (here(), there(root=OTHERS, also=(FILES,)), None, Send(is_guest=True)),
        # Later epochs.
        (here(), there(seen=4), PEER, Learn(4)),
        (here(), there(Role.PRIMARY, 4), PEER, Learn(4)),
        (here(Role.STANDBY), there(Role.PRIMARY, 5), PEER, Learn(5)),
    ],
)
def test_what_is_to_be_done(mine: Here, other: There | None, filled: Guid | None, expected: Decision) -> None:
    assert decided(mine, other, filled) == expected


@pytest.mark.parametrize(
    ("mine", "other", "reason"),
    [
        (here(Role.STANDBY, epoch=4), there(Role.PRIMARY, 4), "is the primary"),
        (here(Role.STANDBY), there(), "its primary sends to it"),
        (here(Role.FENCED, 3, 4), there(Role.PRIMARY, 4), "run 'idemfs failback /a'"),
        (here(Role.FENCED, 3, 4), there(), "run 'idemfs failback /a'"),
        (here()._replace(is_new=True), there(Role.PRIMARY, 1, root=OTHERS), "nothing was written here yet"),
    ],
)
def test_when_nothing_is_wrong_and_nothing_to_do(mine: Here, other: There, reason: str) -> None:
    found = decided(mine, other, None if mine.is_new else PEER)
    assert isinstance(found, Rest) and reason in found.reason


def test_an_old_primary_is_told_that_its_epoch_has_ended() -> None:
    found = decided(here(epoch=4), there(Role.PRIMARY, 3))
    assert isinstance(found, Tell) and found.epoch == 4 and "failback" in found.reason


@pytest.mark.parametrize(
    ("mine", "other", "filled", "reason"),
    [
        (here(), None, PEER, "'idemfs standby add /a /b'"),
        (here(knows=False), there(guid=STRANGER), PEER, "another store is there.*'idemfs standby add /a /b'"),
        (here(), there(Role.PRIMARY, 1, guid=STRANGER, root=OTHERS), PEER, "another store is there"),
        (here(), there(Role.PRIMARY, 1, root=OTHERS), PEER, "holds other files now.*standby add"),
        (here(), there(root=OTHERS), None, "holds other files; name a store that is empty"),
        (here(), there(guid=ME), None, "is the store itself"),
        (here(), there(Role.PRIMARY, 3), PEER, "is primary too"),
        (here(), there(Role.FENCED, 2, 3), PEER, "'idemfs failback' there"),
    ],
)
def test_what_somebody_has_to_settle(mine: Here, other: There | None, filled: Guid | None, reason: str) -> None:
    found = decided(mine, other, filled)
    assert isinstance(found, Refuse)
    assert re.search(reason, found.reason)


@pytest.mark.parametrize(
    ("mine", "other", "filled", "expected"),
    [
        (here(), None, None, Join(is_guest=True)),
        (here(), there(Role.PRIMARY, 1, root=OTHERS), None, Join(is_guest=True)),
        (here(), there(root=OTHERS), None, Send(is_guest=True, is_sole=True)),
        (here(), there(root=OTHERS)._replace(guests={FILES: 3}), PEER, Send(is_guest=True, is_sole=True)),
        (here(), there(root=OTHERS)._replace(guests={FILES: 4}), PEER, Learn(4)),
        (here(Role.STANDBY), there(root=OTHERS), PEER, Rest("its primary sends to it")),
        (here(Role.STANDBY), None, None, Rest("its primary makes it")),
        (
            here()._replace(is_new=True),
            there(Role.PRIMARY, 1, root=OTHERS),
            None,
            Rest("nothing was written here yet, and another store is there"),
        ),
    ],
)
def test_what_is_to_be_done_beside_others(
    mine: Here, other: There | None, filled: Guid | None, expected: Decision
) -> None:
    assert decide("/b", "/a", mine, other, filled, "a") == expected


@pytest.mark.parametrize(
    ("other", "filled", "reason"),
    [
        (there(), None, "leave 'as' out"),
        (None, PEER, "--as a"),
        (there(guid=STRANGER, root=OTHERS), PEER, "--as a"),
        (there(Role.PRIMARY, root=OTHERS), PEER, "is no standby"),
        (there(Role.FENCED, root=OTHERS), None, "is no standby"),
    ],
)
def test_what_is_refused_beside_others(other: There | None, filled: Guid | None, reason: str) -> None:
    found = decide("/b", "/a", here(knows=False), other, filled, "a")
    assert isinstance(found, Refuse) and reason in found.reason
