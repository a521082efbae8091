"""What only one store had when another one had taken over: kept, reported, compared, and released by name."""

from __future__ import annotations

import pytest

from idemfs import FileSystem
from idemfs.api.diverged import DivergedInfo
from idemfs.check import find
from idemfs.errors import Damaged, SnapshotHeld, SnapshotMissing
from idemfs.failover.observe import observe
from idemfs.failover.status import status
from idemfs.ids import SnapshotId
from idemfs.snapshots import automatic, diverged, lines, manage
from idemfs.snapshots.diverged import Mark
from idemfs.snapshots.policy import Policy
from idemfs.testing.builders import assert_clean, make_file, reopened
from idemfs.vfs.tree import Tree
from tests.unit.failover.test_roles_filesets import Two, names
from tests.unit.replication.test_link_filesets import named, root_of, take_all


@pytest.fixture
def two() -> Two:
    """A is a standby again, and has snapshots, unsaved changes, and a fileset, that B never had."""
    two = Two()
    two.replicate(two.a)
    two.a.store.clock.advance(5)  # type: ignore[attr-defined]
    make_file(two.a, two.a.root, b"unsent", b"1" * 10_000)
    take_all(two.a, "mine")
    two.a.store.clock.advance(5)  # type: ignore[attr-defined]
    make_file(two.a, root_of(named(two.a, "home")), b"unsaved", b"2" * 20_000)
    alone = two.a.make_fileset(two.a.root, b"alone", "alone", 0, 0)
    make_file(two.a, root_of(alone), b"f", b"only here")
    two.a.sync()
    two.failover(two.b)
    make_file(two.b, two.b.root, b"late", b"3")
    two.failback(two.a)
    return two


def reported(tree: Tree) -> dict[str, DivergedInfo]:
    return {each.name: each for each in FileSystem(tree).diverged}


def test_everything_that_the_primary_has_not_is_reported(two: Two) -> None:
    found = reported(two.a)
    # Of ``deep`` nothing diverged but the name of a snapshot.
    assert list(found) == ["mine", "diverged-1", "home@mine", "home@diverged-1", "deep@mine", "alone@diverged-1"]
    common = names(two.a, "root")[0]
    assert {each.epoch for each in found.values()} == {1}
    assert found["mine"].since == found["diverged-1"].since == common
    assert found["home@diverged-1"].since == f"home@{common}"
    assert (found["mine"].files, found["mine"].changed_bytes) == (1, 10_000)
    assert (found["home@mine"].files, found["home@mine"].changed_bytes) == (0, 0)
    assert (found["home@diverged-1"].files, found["home@diverged-1"].changed_bytes) == (1, 20_000)
    assert (found["alone@diverged-1"].since, found["alone@diverged-1"].files) == (None, 2)
    assert not reported(two.b)
    assert_clean(two.a)


def test_status_counts_it_until_all_are_released(two: Two) -> None:
    def counts() -> list[int | None]:
        return [row.unreleased_snapshots for row in status(two.stage(two.a))]

    left = reported(two.a)
    assert counts() == [6, 0]
    assert observe(two.a, "").diverged_bytes == sum(each.owned_bytes for each in left.values())
    fs = FileSystem(two.a)
    for count, name in enumerate(list(left), 1):
        fs.diverged.release(name)
        assert counts() == [6 - count, 0]
    assert not reported(two.a)
    assert [row.unreleased_bytes for row in status(two.stage(two.a))] == [0, 0]
    # They are snapshots like any other, and are not reported when roles change again.
    assert "diverged-1" in names(two.a, "root")
    two.replicate(two.b)
    two.failover(two.a)
    two.failback(two.b)
    assert not reported(two.a) and not reported(two.b)
    assert_clean(two.b)


def test_it_stays_reported_over_restarts_transfers_and_roles(two: Two) -> None:
    before = list(reported(two.a))
    two.a = reopened(two.a)
    two.replicate(two.b)
    assert list(reported(two.a)) == before
    two.failover(two.a)
    two.failback(two.b)
    assert list(reported(two.a)) == before


def test_no_rule_deletes_it_nor_what_it_is_told_apart_from(two: Two) -> None:
    for turn in range(3):
        two.b.store.clock.advance(60)  # type: ignore[attr-defined]
        make_file(two.b, two.b.root, b"more%d" % turn, b"4")
        two.replicate(two.b)
    rules = Policy(keep_last=1, prune_matching=".")
    automatic.set_policy(two.a.store, two.a.fileset, rules)
    common, *rest = names(two.a, "root")
    verdicts = {each.snapshot.name: each for each in automatic.plan_retention(two.a.active, two.a.fileset)}
    assert verdicts["diverged-1"].reason == "diverged in epoch 1, and not released"
    assert verdicts[common].reason == "what diverged and is not released began there"
    automatic.prune(two.a.active, two.a.fileset)
    kept = names(two.a, "root")
    assert kept[:3] == [common, "mine", "diverged-1"] and len(kept) == 4
    FileSystem(two.a).diverged.release("mine")
    FileSystem(two.a).diverged.release("diverged-1")
    automatic.prune(two.a.active, two.a.fileset)
    assert names(two.a, "root") == kept[3:]
    assert len(rest) > 3
    assert_clean(two.a)


def test_release_can_delete(two: Two) -> None:
    fs = FileSystem(two.a)
    fs.diverged.release("mine", delete=True)
    assert "mine" not in names(two.a, "root") and "mine" not in reported(two.a)
    assert not diverged.marks(two.a.store).keys() - {
        each.id for number in two.a.store.catalog.filesets for each in two.a.store.catalog.all_snapshots(number)
    }
    manage.hold(two.a.store, two.a.store.catalog.by_name(two.a.fileset, "diverged-1"), "lawyer")
    with pytest.raises(SnapshotHeld, match="lawyer"):
        fs.diverged.release("diverged-1", delete=True)
    assert "diverged-1" in reported(two.a)
    fs.diverged.release("diverged-1")
    assert_clean(two.a)


def test_with_the_last_snapshot_of_a_fileset_that_no_primary_knows_the_fileset_goes(two: Two) -> None:
    fs = FileSystem(two.a)
    fs.diverged.check_releasable("alone@diverged-1", delete=True)
    fs.diverged.release("alone@diverged-1", delete=True)
    assert not two.a.store.catalog.has_fileset("alone")
    assert_clean(two.a)
    two.replicate(two.b)
    two.switchover(two.b)
    assert_clean(two.a)


def test_when_all_of_a_fileset_is_released_the_primary_may_delete_it(two: Two) -> None:
    fs = FileSystem(two.a)
    assert lines.is_kept(two.a.store, named(two.a, "deep").number)
    fs.diverged.release("deep@mine")
    assert not lines.is_kept(two.a.store, named(two.a, "deep").number)
    for name in ("deep", "home"):
        two.b.delete_fileset(named(two.b, name), held=True)
    two.replicate(two.b)
    assert not two.a.store.catalog.has_fileset("deep")
    assert {"home@mine", "home@diverged-1"} <= reported(two.a).keys()


def test_what_a_standby_got_from_a_primary_that_was_passed_over_is_reported_too() -> None:
    two = Two()
    two.replicate(two.a)
    two.a.store.clock.advance(5)  # type: ignore[attr-defined]
    # B has a snapshot more than A will have: A goes back, and takes over what it had.
    make_file(two.a, two.a.root, b"f2", b"1")
    two.replicate(two.a)
    newest = names(two.b, "root")[-1]
    manage.release(two.a.store, two.a.store.catalog.by_name(two.a.fileset, newest), _holder(two.a, newest))
    FileSystem(two.a).snapshots.delete(newest)
    make_file(two.a, two.a.root, b"f3", b"1")
    two.a.store.clock.advance(5)  # type: ignore[attr-defined]
    two.replicate(two.a)
    assert list(reported(two.b)) == [newest]
    assert_clean(two.b)


def _holder(tree: Tree, name: str) -> str:
    (owner,) = manage.holders(tree.store, tree.store.catalog.by_name(tree.fileset, name))
    return owner


def test_names_that_did_not_diverge_cannot_be_released(two: Two) -> None:
    fs = FileSystem(two.a)
    with pytest.raises(SnapshotMissing, match="not reported as diverged"):
        fs.diverged.release(names(two.a, "root")[0])
    fs.diverged.release("mine")
    with pytest.raises(SnapshotMissing, match="not reported as diverged"):
        fs.diverged.release("mine")
    with pytest.raises(SnapshotMissing, match="no snapshot"):
        fs.diverged.release("other")


def test_without_its_common_snapshot_nobody_can_tell_what_changed(two: Two) -> None:
    common = names(two.a, "root")[0]
    FileSystem(two.a).snapshots.delete(common)
    found = reported(two.a)["diverged-1"]
    assert (found.since, found.files, found.changed_bytes) == (None, None, None)
    assert_clean(two.a)


def test_records() -> None:
    for mark in (Mark(1), Mark(7, SnapshotId(9), is_released=True)):
        assert diverged.unpack(diverged.pack(mark)) == mark
    with pytest.raises(Damaged):
        diverged.unpack(b"\x01")


def test_a_mark_without_a_snapshot_is_found(two: Two) -> None:
    two.a.store.admit(1, 100)
    snapshot = two.a.store.catalog.by_name(two.a.fileset, "mine")
    two.a.store.small.put(b"Cs" + (snapshot.id + 90).to_bytes(8, "big"), diverged.pack(Mark(1)))
    assert ["is held or locked, or marked, and does not exist" in str(each) for each in find(two.a)] == [True]
