"""Who is granted a write lease, what a store that is asked learns, and who is ahead of whom."""

from __future__ import annotations

import pytest

from idemfs.errors import Damaged
from idemfs.failover import lease
from idemfs.failover.lease import Ask, Grantor, Position, is_ahead, rule
from idemfs.format import lease as records
from idemfs.format.lease import Asked, Granted
from idemfs.format.role import Role, RoleRecord
from idemfs.ids import Guid

SECOND = 1_000_000_000
LOW, HIGH, THIRD = Guid(b"1" * 16), Guid(b"2" * 16), Guid(b"3" * 16)
STANDBY = RoleRecord(Role.STANDBY, 3, 3)


def ask(store: Guid = LOW, epoch: int = 3, seconds: int = 10, role: Role = Role.PRIMARY) -> Ask:
    return Ask(store=store, role=RoleRecord(role, epoch, epoch), duration_ns=seconds * SECOND)


def test_a_standby_grants_its_primary_a_lease() -> None:
    ruling = rule(Grantor(store=HIGH, role=STANDBY), ask())
    assert ruling.granted == Granted(LOW, 3, 10 * SECOND) and ruling.hear is None


def test_a_higher_epoch_is_heard_of_before_its_lease_is_granted() -> None:
    ruling = rule(Grantor(store=HIGH, role=STANDBY), ask(epoch=4))
    assert ruling.granted == Granted(LOW, 4, 10 * SECOND) and ruling.hear == 4


@pytest.mark.parametrize(
    ("own", "asked"),
    [
        (Grantor(store=HIGH, role=STANDBY), ask(epoch=2)),
        (Grantor(store=HIGH, role=STANDBY, is_taking_over=True), ask()),
        (Grantor(store=HIGH, role=STANDBY, granted=Granted(THIRD, 3, SECOND)), ask()),
        (Grantor(store=HIGH, role=RoleRecord(Role.PRIMARY, 3, 3)), ask()),
        (Grantor(store=HIGH, role=RoleRecord(Role.FENCED, 2, 3)), ask()),
        (Grantor(store=HIGH, role=STANDBY), ask(role=Role.STANDBY)),
        (Grantor(store=HIGH, role=STANDBY), ask(role=Role.FENCED)),
        (Grantor(store=HIGH, role=STANDBY), ask(seconds=0)),
    ],
)
def test_nobody_else_is_granted_one(own: Grantor, asked: Ask) -> None:
    ruling = rule(own, asked)
    assert ruling.granted is None and ruling.reason


def test_a_primary_that_is_asked_in_a_higher_epoch_hears_of_it() -> None:
    assert rule(Grantor(store=HIGH, role=RoleRecord(Role.PRIMARY, 3, 3)), ask(epoch=4)).hear == 4
    assert rule(Grantor(store=HIGH, role=RoleRecord(Role.PRIMARY, 3, 3)), ask(epoch=4, seconds=0)).hear == 4
    assert rule(Grantor(store=HIGH, role=RoleRecord(Role.PRIMARY, 3, 3)), ask(epoch=2)).hear is None


def test_of_two_primaries_of_one_epoch_the_one_with_the_lower_guid_gives_way() -> None:
    own = RoleRecord(Role.PRIMARY, 3, 3)
    assert rule(Grantor(store=LOW, role=own), ask(HIGH)).hear == 3
    assert rule(Grantor(store=HIGH, role=own), ask(LOW)).hear is None


def test_a_holder_relies_on_less_than_was_granted() -> None:
    assert lease.usable_ns(10 * SECOND) == 9 * SECOND


def position(*numbers: int, created: int = 0) -> Position:
    return Position(recent=tuple(Guid(bytes([number]) * 16) for number in numbers), created_ns=created)


def test_who_has_the_newest_snapshot_of_the_other_and_more_is_ahead() -> None:
    assert is_ahead(position(1, 2, 3), position(1, 2))
    assert not is_ahead(position(1, 2), position(1, 2, 3))
    assert not is_ahead(position(2, 3), position(1, 2, 3))


def test_a_clock_that_was_set_back_does_not_decide_who_is_ahead() -> None:
    assert is_ahead(position(1, 2, 3, created=5), position(1, 2, created=900))
    assert not is_ahead(position(1, 2, created=900), position(1, 2, 3, created=5))


def test_times_decide_between_stores_with_nothing_in_common() -> None:
    assert is_ahead(position(7, created=9), position(8, created=5))
    assert not is_ahead(position(8, created=5), position(7, created=9))
    assert is_ahead(position(1), None) and not is_ahead(None, position(1)) and not is_ahead(None, None)


def test_records_come_back_as_they_were() -> None:
    granted, asked = Granted(LOW, 7, SECOND), Asked(7, (LOW, HIGH))
    assert records.unpack_granted(records.pack_granted(granted)) == granted
    assert records.unpack_asked(records.pack_asked(asked)) == asked
    assert records.unpack_asked(records.pack_asked(Asked(7, ()))) == Asked(7, ())
    assert records.unpack_required(records.pack_required(SECOND)) == SECOND
    assert records.unpack_granted(None) is None and records.unpack_required(None) is None
    assert records.unpack_asked(None) == Asked(0, ())


@pytest.mark.parametrize("key", [records.REQUIRED, records.GRANTED, records.ASKED, b"Bother"])
@pytest.mark.parametrize("value", [b"", b"x", b"x" * 9, b"x" * 33])
def test_other_bytes_are_damage(key: bytes, value: bytes) -> None:
    with pytest.raises(Damaged):
        records.check(key, value)
