"""Roles move with all filesets of a store: in memory, step by step."""

from __future__ import annotations

import stat

import pytest

from idemfs.errors import PeerError, RoleError
from idemfs.failover import actions, decisions, records
from idemfs.failover.driver import carry_out
from idemfs.failover.facts import Decision, GoBack, Refusal
from idemfs.failover.observe import guid_of, observe
from idemfs.failover.stage import Stage
from idemfs.failover.status import status
from idemfs.format import keys
from idemfs.format.role import Role
from idemfs.replication import follow
from idemfs.replication.link import hold_owner, replicate_into
from idemfs.snapshots import automatic, delete, lines, manage, received
from idemfs.snapshots.policy import Policy
from idemfs.testing.builders import assert_clean, make_file, reopened
from idemfs.vfs.tree import Tree
from tests.unit.replication.pairs import standby_of
from tests.unit.replication.test_link_filesets import named, nested, root_of, seen, take_all, write


class Two:
    """A primary with filesets in filesets, and its standby, which know each other."""

    def __init__(self) -> None:
        self.a = nested()
        self.b = standby_of(self.a)
        members = [records.PeerRecord(guid=guid_of(t), path=f"/{n}", name=n) for t, n in ((self.a, "A"), (self.b, "B"))]
        for tree in (self.a, self.b):
            records.commit_members(tree.store, members)

    def stage(self, tree: Tree) -> Stage:
        other = self.b if tree is self.a else self.a
        paths = {guid_of(self.a): "/A", guid_of(self.b): "/B"}
        return Stage(me=tree, peers={guid_of(other): other}, paths=paths)

    def run(self, decision: Decision, tree: Tree) -> None:
        if isinstance(decision, Refusal):
            raise decision.error
        for _ in carry_out(decision, self.stage(tree)):
            """Each step."""

    def replicate(self, tree: Tree) -> None:
        self.run(decisions.replicate(*self.stage(tree).facts()), tree)

    def failover(self, tree: Tree) -> None:
        self.run(decisions.failover(*self.stage(tree).facts()), tree)

    def failback(self, tree: Tree) -> None:
        self.run(decisions.failback(*self.stage(tree).facts()), tree)

    def switchover(self, tree: Tree) -> None:
        self.run(decisions.switchover(*self.stage(tree).facts()), tree)


@pytest.fixture
def two() -> Two:
    found = Two()
    found.replicate(found.a)
    found.a.store.clock.advance(5)  # type: ignore[attr-defined]
    return found


def names(tree: Tree, fileset: str) -> list[str]:
    return [each.name for each in tree.store.catalog.snapshots(named(tree, fileset).number)]


def test_only_filesets_that_changed_get_a_snapshot_and_all_at_one_instant(two: Two) -> None:
    assert actions.take_snapshot(two.a) is None
    for name in ("home", "deep"):
        make_file(two.a, root_of(named(two.a, name)), b"more", b"1")
    taken = actions.take_snapshot(two.a)
    assert taken is not None
    newest = [two.a.store.catalog.snapshots(named(two.a, name).number) for name in ("root", "home", "deep")]
    assert [len(each) for each in newest] == [1, 2, 2]
    assert newest[1][-1].created_ns == newest[2][-1].created_ns == taken.created_ns


def test_what_diverged_is_kept_in_each_fileset_and_only_changes_travel(two: Two) -> None:
    make_file(two.a, root_of(named(two.a, "deep")), b"unsent", b"1" * 20_000)
    make_file(two.a, two.a.root, b"unsent", b"1")
    two.a.store.commit()
    two.failover(two.b)
    make_file(two.b, root_of(named(two.b, "deep")), b"late", b"2")
    two.b.store.commit()
    plan = decisions.failback(*two.stage(two.a).facts())
    assert not isinstance(plan, Refusal)
    assert [risk.fileset_name for risk in plan.risks] == ["", "deep"]
    assert sum(isinstance(step, GoBack) for step in plan.steps) == 2
    for done in carry_out(plan, two.stage(two.a)):
        if done.report is not None:
            assert [each.fileset for each in done.report.transfers] == ["deep"]
            assert done.report.bytes < 5000
    assert names(two.a, "deep")[1] == names(two.a, "root")[1] == "diverged-1"
    assert names(two.a, "home") == names(two.b, "home")
    assert seen(two.a) == seen(two.b)
    two.switchover(two.b)
    assert two.a.role.role is Role.PRIMARY and not lines.is_kept(two.a.store, named(two.a, "deep").number)
    assert_clean(two.a)
    assert_clean(two.b)
    # What was kept is a snapshot of the primary now, like any other.
    two.replicate(two.a)
    assert "diverged-1" in names(two.b, "root")
    assert seen(two.a) == seen(two.b)
    rows = status(two.stage(two.a))
    assert [(row.behind_snapshots, row.diverged_snapshots) for row in rows[1:]] == [(0, 0)]


def test_a_fileset_that_only_the_old_primary_had_is_kept_and_comes_back_with_the_role(two: Two) -> None:
    alone = two.a.make_fileset(two.a.root, b"alone", "alone", 0, 0)
    make_file(two.a, root_of(alone), b"f", b"only here")
    two.a.store.commit()
    two.failover(two.b)
    two.failback(two.a)
    assert not alone.junction and names(two.a, "alone") == ["diverged-1"]
    assert_clean(two.a)
    two.replicate(two.b)
    two.switchover(two.b)
    assert names(two.a, "alone")[0] == "diverged-1"
    two.a.create(two.a.root, b"place", stat.S_IFDIR | 0o755, 0, 0)
    two.a.attach_fileset(alone, two.a.root, b"place")
    two.replicate(two.a)
    assert names(two.b, "alone")[0] == "diverged-1"
    assert seen(two.b)[b"/place/f"] == b"only here"


def test_deleted_while_the_other_one_was_gone(two: Two) -> None:
    """What it had, the old primary has still, in a fileset that appears nowhere."""
    make_file(two.a, root_of(named(two.a, "deep")), b"unsent", b"1")
    two.a.store.commit()
    two.failover(two.b)
    two.b.delete_fileset(named(two.b, "deep"), held=True)
    two.failback(two.a)
    assert names(two.a, "deep")[-1] == "diverged-1"
    assert not named(two.a, "deep").junction
    two.replicate(two.b)
    assert two.a.store.catalog.has_fileset("deep")
    assert_clean(two.a)


def test_a_fileset_of_which_nothing_was_received_does_not_survive_a_failover(two: Two) -> None:
    from idemfs.replication import follow

    follow.make(two.b.store, two.a.store.superblock.guid, "empty", 0, None)
    two.failover(two.b)
    assert not two.b.store.catalog.has_fileset("empty")
    assert_clean(two.b)


def test_each_fileset_has_numbers_that_nobody_gave_out_and_a_snapshot_that_is_held(two: Two) -> None:
    before = {each.name: each.next_number for each in two.b.store.catalog.listed_filesets()}
    two.failover(two.b)
    for fileset in two.b.store.catalog.listed_filesets():
        assert fileset.next_number >= before[fileset.name] + (1 << 31)
        common = two.b.store.catalog.snapshots(fileset.number)[-1]
        assert manage.holders(two.b.store, common) == [hold_owner(guid_of(two.a))]
        assert two.b.store.small.get(keys.fileset_replication(fileset.number, "base")) is None


def test_the_policy_of_the_primary_takes_effect_when_the_standby_becomes_one(two: Two) -> None:
    home = named(two.a, "home").number
    rules = Policy(every_seconds=60, keep_last=2)
    automatic.set_policy(two.a.store, home, rules)
    two.replicate(two.a)
    there = named(two.b, "home").number
    assert automatic.planned_filesets(two.b.store) == []
    two.failover(two.b)
    assert automatic.policy_of(two.b.store, there) == rules
    assert automatic.take_due(two.b.active, there) == (None, "")
    two.b.store.clock.advance(61)  # type: ignore[attr-defined]
    taken, _ = automatic.take_due(two.b.active, there)
    assert taken is not None


def test_a_hold_that_came_is_the_stores_own_after_a_failover(two: Two) -> None:
    one = two.a.store.catalog.snapshots(named(two.a, "home").number)[-1]
    manage.hold(two.a.store, one, "audit")
    two.replicate(two.a)
    two.failover(two.b)
    there = two.b.store.catalog.by_guid(named(two.b, "home").number, one.guid)
    assert there is not None and "audit" in manage.holders(two.b.store, there)
    manage.release(two.a.store, one, "audit")
    two.failback(two.a)
    assert "audit" in manage.holders(two.a.store, one)


def test_a_fileset_without_a_common_snapshot_is_told_by_name(two: Two) -> None:
    two.failover(two.b)
    home = named(two.b, "home")
    write(two.b, b"2")
    take_all(two.b, "two")
    for snapshot in two.b.store.catalog.snapshots(home.number)[:-1]:
        for owner in manage.holders(two.b.store, snapshot):
            manage.release(two.b.store, snapshot, owner)
        delete.delete(two.b.active, snapshot)
    with pytest.raises(PeerError, match="no snapshot of fileset 'home' in common"):
        two.failback(two.a)


def test_a_half_received_group_is_gone_after_a_failover(two: Two) -> None:
    write(two.a, b"2" * 9000)
    last = take_all(two.a, "two")[-1]
    before = seen(two.b)

    class Stopped(Exception):
        """Somebody stopped it."""

    def stop(guid: object, _size: int) -> None:
        if guid == last.guid:
            raise Stopped

    with pytest.raises(Stopped):
        replicate_into(two.a, two.b, stop)
    assert observe(two.b, "/B").half_received
    two.b = reopened(two.b)
    assert seen(two.b) == before
    two.failover(two.b)
    assert seen(two.b) == before
    for fileset in two.b.store.catalog.listed_filesets():
        assert received.base(two.b.store, fileset.number) is not None
    assert_clean(two.b)


def test_an_interrupted_switchover_is_finished_with_all_filesets(two: Two) -> None:
    write(two.a, b"3")
    plan = decisions.switchover(*two.stage(two.a).facts())
    assert not isinstance(plan, Refusal)
    for at, _ in enumerate(carry_out(plan, two.stage(two.a))):
        if type(plan.steps[at]).__name__ == "Promote":
            break
    two.switchover(two.a)
    assert two.a.role.role is Role.STANDBY and two.b.role.role is Role.PRIMARY
    assert seen(two.a) == seen(two.b)
    with pytest.raises(RoleError):
        two.a.make_fileset(two.a.root, b"x", "x", 0, 0)


def test_a_clone_that_the_new_primary_deletes_goes_on_the_old_one_too_with_its_pinned_origin(two: Two) -> None:
    """It was swept without end there: what is seen through a clone cannot be removed from it."""
    origin = manage.create(two.a.store, named(two.a, "deep").number, "origin")
    two.a.clone_snapshot(origin, two.a.root, b"try", "try", 0, 0)
    delete.delete(two.a.active, origin)
    two.replicate(two.a)
    two.switchover(two.a)
    two.b.delete_fileset(named(two.b, "try"), held=True)
    two.replicate(two.b)
    assert not two.a.store.catalog.has_fileset("try") and not two.a.store.catalog.clones
    kept = two.a.store.catalog.all_snapshots(named(two.a, "deep").number)
    assert origin.id not in [each.id for each in kept]
    assert_clean(two.a)


def test_a_fileset_on_which_a_clone_rests_stays_until_the_clone_is_promoted(two: Two) -> None:
    """What the primary has promoted is promoted on the standby before anything is deleted there."""
    origin = manage.create(two.a.store, named(two.a, "deep").number, "origin")
    two.a.clone_snapshot(origin, two.a.root, b"try", "try", 0, 0)
    two.replicate(two.a)
    there = named(two.b, "deep")
    assert follow.delete_gone(two.b, [there.guid]) == ["deep"]
    assert two.b.store.catalog.has_fileset("deep") and two.b.store.catalog.clones
    two.a.promote_fileset(named(two.a, "try"))
    two.a.delete_fileset(named(two.a, "deep"), held=True)
    two.replicate(two.a)
    assert not two.b.store.catalog.has_fileset("deep") and not two.b.store.catalog.clones
    assert seen(two.a) == seen(two.b)
    two.a.delete_fileset(named(two.a, "try"), held=True)
    two.replicate(two.a)
    assert not two.b.store.catalog.has_fileset("try")
    assert_clean(two.b)


def test_a_clone_that_the_new_primary_deletes_lets_its_origin_go_on_the_old_one(two: Two) -> None:
    origin = manage.create(two.a.store, named(two.a, "deep").number, "origin")
    two.a.clone_snapshot(origin, two.a.root, b"try", "try", 0, 0)
    two.replicate(two.a)
    two.switchover(two.a)
    two.b.delete_fileset(named(two.b, "try"), held=True)
    two.b.delete_fileset(named(two.b, "deep"), held=True)
    two.replicate(two.b)
    for tree in (two.a, two.b):
        assert (
            not any(tree.store.catalog.has_fileset(name) for name in ("try", "deep")) and not tree.store.catalog.clones
        )
        assert_clean(tree)
