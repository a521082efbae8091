"""Stores at paths: what becomes a standby, what is refused, what is reached."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from idemfs.errors import Fenced, NotPrimary, PeerError, StoreMissing
from idemfs.failover import actions, decisions, records
from idemfs.failover.facts import Frozen, Plan, Unreachable
from idemfs.failover.observe import guid_of
from idemfs.failover.places import open_stage
from idemfs.failover.standbys import Arrival, LocalPlace, add_standby, invite, lodge, remove_standby
from idemfs.format.role import Role, RoleRecord
from idemfs.ids import ROOT_FILESET, Guid
from idemfs.replication import link, via
from idemfs.snapshots import manage
from idemfs.store.claim import Claim
from idemfs.store.files import create_files, open_files
from idemfs.testing.builders import assert_clean, make_file
from idemfs.vfs.lending import lending
from idemfs.vfs.tree import Tree


@pytest.fixture
def a(tmp_path: Path) -> str:
    """A primary with one file and one snapshot."""
    path = str(tmp_path / "A")
    create_files(path, block_size=8192, compression="zstd")
    tree = opened(path)
    make_file(tree, tree.root, b"f", b"1" * 9000)
    manage.create(tree.store, ROOT_FILESET, "one")
    tree.store.close()
    return path


def opened(path: str) -> Tree:
    return Tree(open_files(path, background=False))


def test_a_standby_is_made_like_its_primary_and_both_know_each_other(a: str, tmp_path: Path) -> None:
    b = str(tmp_path / "B")
    joined = add_standby(a, b)
    assert (joined.path, joined.name, joined.arrival) == (b, "B", Arrival.NEW)
    primary, standby = opened(a), opened(b)
    assert standby.store.block_size == 8192
    assert standby.store.superblock.compression == primary.store.superblock.compression
    assert standby.role.role is Role.STANDBY and standby.role.epoch == 1
    guids = [tree.store.catalog.filesets[ROOT_FILESET].guid for tree in (primary, standby)]
    assert guids[0] == guids[1]
    assert standby.active.inode(standby.root) is None
    assert [(peer.guid, peer.path) for peer in records.get_peers(primary.store)] == [(guid_of(standby), b)]
    assert [(peer.guid, peer.path) for peer in records.get_peers(standby.store)] == [(guid_of(primary), a)]
    assert_clean(standby)
    for tree in (primary, standby):
        tree.store.close()


def test_an_opened_and_empty_store_is_taken_over_and_can_receive(a: str, tmp_path: Path) -> None:
    b = str(tmp_path / "B")
    create_files(b, block_size=8192)
    opened(b).store.close()
    add_standby(a, b)
    primary, standby = opened(a), opened(b)
    assert_clean(standby)
    link.replicate_into(primary, standby)
    assert [snapshot.name for snapshot in standby.store.catalog.snapshots(ROOT_FILESET)] == ["one"]
    assert_clean(standby)
    for tree in (primary, standby):
        tree.store.close()


def test_a_store_that_is_made_to_follow_is_a_standby_before_anybody_can_open_it(a: str, tmp_path: Path) -> None:
    b = str(tmp_path / "B")
    tree = opened(a)
    invitation = invite(tree, a)
    tree.store.close()
    LocalPlace(b).make(invitation)
    standby = opened(b)
    assert standby.role == RoleRecord(Role.STANDBY, 1, 1) and standby.active.inode(standby.root) is None
    standby.store.close()


def test_a_making_that_was_interrupted_is_finished_by_repeating_it(a: str, tmp_path: Path) -> None:
    """The files of the standby were made, and nothing was said to it."""
    b = str(tmp_path / "B")
    tree = opened(a)
    fileset = tree.store.catalog.filesets[ROOT_FILESET].guid
    tree.store.close()
    create_files(b, block_size=8192, fileset_guid=fileset)
    add_standby(a, b)
    standby = opened(b)
    assert standby.role.role is Role.STANDBY
    standby.store.close()


def test_what_cannot_become_a_standby_is_refused_and_stays_as_it_is(a: str, tmp_path: Path) -> None:
    used = str(tmp_path / "used")
    create_files(used, block_size=8192)
    tree = opened(used)
    make_file(tree, tree.root, b"f")
    tree.store.close()
    with pytest.raises(PeerError, match="something else"):
        add_standby(a, used)
    other = str(tmp_path / "other")
    create_files(other)
    with pytest.raises(PeerError, match="blocks of 131072 bytes"):
        add_standby(a, other)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("x")
    with pytest.raises(StoreMissing):
        add_standby(a, str(tmp_path / "full"))
    twin = str(tmp_path / "twin")
    shutil.copytree(a, twin)
    with pytest.raises(PeerError, match="is the store itself"):
        add_standby(a, twin)
    for path in (a, used):
        tree = opened(path)
        assert tree.role.role is Role.PRIMARY and records.get_peers(tree.store) == []
        tree.store.close()


def test_a_standby_gets_standbys_of_its_own_and_no_lines_beside(a: str, tmp_path: Path) -> None:
    b, c = str(tmp_path / "B"), str(tmp_path / "C")
    add_standby(a, b)
    add_standby(b, c)
    second, third = opened(b), opened(c)
    assert via.get(third.store) == second.store.superblock.guid
    assert {each.path for each in records.get_peers(third.store)} == {a, b}
    assert [each.path for each in records.get_peers(second.store)] == [a]
    for tree in (second, third):
        tree.store.close()
    with pytest.raises(NotPrimary):
        lodge(b, str(tmp_path / "D"))
    assert not os.path.exists(tmp_path / "D")


def test_one_whose_right_to_write_has_ended_gets_none(a: str, tmp_path: Path) -> None:
    tree = opened(a)
    actions.freeze(tree, Frozen(peer=Guid(b"x" * 16), epoch=3))
    tree.store.close()
    with pytest.raises(Fenced):
        add_standby(a, str(tmp_path / "C"))
    assert not os.path.exists(tmp_path / "C")


def test_an_old_primary_of_the_same_files_is_not_taken_for_an_empty_store(a: str, tmp_path: Path) -> None:
    b = str(tmp_path / "B")
    add_standby(a, b)
    primary, standby = opened(a), opened(b)
    link.replicate_into(primary, standby)
    actions.promote(standby, 5, None)
    primary.store.close()
    standby.store.close()
    with pytest.raises(PeerError, match="failback"):
        add_standby(b, a)


@pytest.mark.parametrize(
    ("place", "reason"),
    [("nothing", "no store there"), ("file", "no store there"), ("stranger", "another store"), ("damaged", "checksum")],
)
def test_a_path_is_only_where_a_store_was_seen_last(a: str, tmp_path: Path, place: str, reason: str) -> None:
    b = tmp_path / "B"
    add_standby(a, str(b))
    b.rename(tmp_path / "moved")
    if place == "file":
        b.write_text("x")
    elif place == "stranger":
        create_files(str(b))
    elif place == "damaged":
        shutil.copytree(tmp_path / "moved", b)
        block = bytearray((b / "superblock").read_bytes())
        block[40] ^= 1
        (b / "superblock").write_bytes(block)
    with open_stage(a) as stage:
        (peer,) = stage.facts()[1]
        assert isinstance(peer, Unreachable) and reason in peer.reason and not peer.is_alive


def test_a_store_in_use_is_known_to_be_alive(a: str, tmp_path: Path) -> None:
    b = str(tmp_path / "B")
    add_standby(a, b)
    tree = opened(b)
    with open_stage(a) as stage:
        (peer,) = stage.facts()[1]
        assert isinstance(peer, Unreachable) and peer.is_alive and f"process {os.getpid()}" in peer.reason
    tree.store.close()


def test_a_store_that_a_command_is_busy_with_is_known_to_be_alive(
    a: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Claim.take, "__defaults__", (0.01, None))
    b = str(tmp_path / "B")
    add_standby(a, b)
    bring_up(a, b)
    tree = opened(a)
    tree.store.claim.take()
    with lending(a, tree), open_stage(b) as stage:
        me, peers = stage.facts()
        assert isinstance(peers[0], Unreachable) and "another command moves data or roles" in peers[0].reason
        plan = decisions.failover(me, peers)
        assert isinstance(plan, Plan) and plan.warning is not None and "is not lost" in plan.warning
    tree.store.close()


def bring_up(a: str, b: str) -> None:
    """The standby has what its primary has."""
    with open_stage(a) as stage:
        (guid,) = stage.peers
        link.replicate_into(stage.me, stage.party(guid).receiver())


def test_removing_a_standby_forgets_it_on_both_sides_and_what_was_held_for_it(a: str, tmp_path: Path) -> None:
    b = str(tmp_path / "B")
    add_standby(a, b)
    with open_stage(a) as stage:
        (guid,) = stage.peers
        link.replicate_into(stage.me, stage.party(guid).receiver())
        one = stage.me.store.catalog.by_name(ROOT_FILESET, "one")
        assert manage.holders(stage.me.store, one)
    remove_standby(a, "B")
    primary, standby = opened(a), opened(b)
    assert records.get_peers(primary.store) == records.get_peers(standby.store) == []
    one = primary.store.catalog.by_name(ROOT_FILESET, "one")
    assert manage.holders(primary.store, one) == []
    assert standby.role.role is Role.STANDBY
    for tree in (primary, standby):
        tree.store.close()
    add_standby(a, b)
    os.rename(b, b + ".away")
    assert remove_standby(a, b).path == b
