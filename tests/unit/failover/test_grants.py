"""A standby that granted a write lease: what it records, what a failover waits for, and what it refuses meanwhile."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from idemfs.errors import LeaseOver, RoleError
from idemfs.failover import actions, decisions, driver, grants, records
from idemfs.failover.facts import AwaitLease, Plan, Promote
from idemfs.failover.lease import Ask
from idemfs.failover.observe import guid_of
from idemfs.failover.places import open_stage
from idemfs.failover.standbys import add_standby
from idemfs.format.lease import Asked, Granted
from idemfs.format.role import Role, RoleRecord
from idemfs.ids import ROOT_FILESET
from idemfs.replication import link
from idemfs.store.files import create_files, open_files
from idemfs.testing.builders import assert_clean, make_file, memory_tree, reopened
from idemfs.testing.clock import Simulated
from idemfs.vfs.tree import Tree

SECOND = 1_000_000_000


def ask_of(tree: Tree, seconds: float = 10) -> Ask:
    return Ask(store=guid_of(tree), role=tree.role, duration_ns=int(seconds * SECOND))


def standby_tree(clock: Simulated) -> Tree:
    tree = memory_tree(clock=clock)
    actions.take_snapshot(tree, "one")
    actions.demote(tree, 1, None)
    return tree


def test_a_grant_is_recorded_once_and_renewed_in_memory() -> None:
    clock = Simulated()
    primary, standby = memory_tree(clock=clock), standby_tree(clock)
    assert grants.answer(standby, ask_of(primary)).is_granted
    assert grants.granted_by(standby) == Granted(guid_of(primary), 1, 10 * SECOND)
    assert grants.granted_left_ns(standby) == 10 * SECOND
    clock.advance(4)
    assert grants.answer(standby, ask_of(primary)).is_granted
    assert grants.granted_left_ns(standby) == 10 * SECOND and not standby.store.dirty


def test_after_a_crash_it_counts_in_full() -> None:
    clock = Simulated()
    primary, standby = memory_tree(clock=clock), standby_tree(clock)
    grants.answer(standby, ask_of(primary))
    clock.advance(9)
    standby = reopened(standby, committed=False)
    assert grants.granted_left_ns(standby) == 10 * SECOND
    assert_clean(standby)


def test_it_is_not_made_primary_before_it_ran_out() -> None:
    clock = Simulated()
    primary, standby = memory_tree(clock=clock), standby_tree(clock)
    grants.answer(standby, ask_of(primary))
    clock.advance(9)
    with pytest.raises(RoleError, match=r"runs out in 1\.0 s"):
        actions.promote(standby, 2, None)
    assert standby.role.role is Role.STANDBY and not standby.is_taking_over
    clock.advance(1)
    actions.promote(standby, 2, None)
    assert standby.role == RoleRecord(Role.PRIMARY, 2, 2)


def test_in_a_switchover_nothing_is_waited_for() -> None:
    clock = Simulated()
    primary, standby = memory_tree(clock=clock), standby_tree(clock)
    grants.answer(standby, ask_of(primary))
    actions.promote(standby, 2, {})
    assert standby.role.role is Role.PRIMARY


def test_it_begins_to_take_over_only_without_a_grant_and_then_grants_nothing() -> None:
    clock = Simulated()
    primary, standby = memory_tree(clock=clock), standby_tree(clock)
    grants.answer(standby, ask_of(primary))
    assert not grants.begin(standby) and grants.answer(standby, ask_of(primary)).is_granted
    clock.advance(10)
    assert grants.begin(standby)
    refused = grants.answer(standby, ask_of(primary))
    assert not refused.is_granted and refused.reason == "is taking over"
    grants.cease(standby)
    assert grants.answer(standby, ask_of(primary)).is_granted


def test_a_primary_that_is_asked_in_a_higher_epoch_is_fenced_by_that() -> None:
    clock = Simulated()
    old, new = memory_tree(clock=clock), standby_tree(clock)
    actions.promote(new, 4, None)
    answer = grants.answer(old, ask_of(new, 0))
    assert answer.role == RoleRecord(Role.FENCED, 1, 4) and not answer.is_granted
    assert old.role.role is Role.FENCED


def test_a_store_requires_a_lease_from_when_that_is_recorded_until_it_is_not() -> None:
    clock = Simulated()
    tree = memory_tree(clock=clock)
    grants.require(tree, 5 * SECOND)
    with pytest.raises(LeaseOver):
        make_file(tree, tree.root, b"file")
    tree = reopened(tree)
    with pytest.raises(LeaseOver):
        make_file(tree, tree.root, b"file")
    grants.require(tree, None)
    make_file(tree, tree.root, b"file")
    assert reopened(tree).write_lease is None


def test_a_role_that_was_lost_takes_the_lease_along() -> None:
    clock = Simulated()
    tree = memory_tree(clock=clock)
    grants.require(tree, 5 * SECOND)
    assert tree.write_lease is not None
    tree.write_lease.extend(100 * SECOND)
    actions.tell(tree, 3)
    assert not tree.write_lease.is_live()


def test_what_it_knows_of_itself() -> None:
    clock = Simulated()
    tree = memory_tree(clock=clock)
    own = grants.own_of(tree, "")
    assert own.members == (guid_of(tree),) and own.position is None and own.complete_ns == 0
    grants.remember(tree, Asked(1, (guid_of(tree),)))
    actions.take_snapshot(tree, "one")
    taken_ns = clock.now_ns()
    clock.advance(5)
    own = grants.own_of(tree, "")
    assert own.asked == Asked(1, (guid_of(tree),)) and own.complete_ns == clock.now_ns()
    newest = tree.store.catalog.newest(ROOT_FILESET)
    assert own.position is not None and newest is not None and own.position.newest == newest.guid
    make_file(tree, tree.root, b"file")
    assert grants.own_of(tree, "").complete_ns == taken_ns
    tree.sync()
    assert grants.own_of(tree, "").complete_ns == taken_ns


def test_a_failover_says_what_it_waits_for_and_waits(tmp_path: Path) -> None:
    one, other = str(tmp_path / "one"), str(tmp_path / "other")
    create_files(one)
    add_standby(one, other)
    source, target = Tree(open_files(one)), Tree(open_files(other))
    actions.take_snapshot(source, "one")
    link.replicate_into(source, target)
    assert grants.answer(target, ask_of(source, 1.5)).is_granted
    source.store.close()
    target.store.close()
    # Whoever opens it now does not know when it was granted.
    begun = time.monotonic()
    with open_stage(other) as stage:
        plan = decisions.failover(*stage.facts())
        assert isinstance(plan, Plan)
        waiting, promoting = plan.steps[-2:]
        assert isinstance(waiting, AwaitLease) and isinstance(promoting, Promote)
        assert 1 <= waiting.left_ns / 1e9 <= 1.5
        assert any("runs out in 1." in note for note in plan.notes)
        for _ in driver.carry_out(plan, stage):
            assert time.monotonic() - begun < 60
        assert stage.me.role.role is Role.PRIMARY and not stage.me.is_taking_over
        assert time.monotonic() - begun >= 1.5
        assert records.get_peers(stage.me.store)
