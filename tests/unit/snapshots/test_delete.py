"""Deleting snapshots: any order, what the others see stays, space comes back, and a crash only delays it."""

from __future__ import annotations

import errno
from itertools import permutations
from random import Random

import pytest

from idemfs.engines.kv.api import Table
from idemfs.errors import SnapshotHeld, SnapshotMissing
from idemfs.format.tables import Snapshot
from idemfs.ids import ROOT_FILESET
from idemfs.snapshots import delete, manage
from idemfs.store import store as store_module
from idemfs.store.store import Store
from idemfs.testing.blocks import CrashingBlocks
from idemfs.testing.builders import (
    assert_clean,
    content_of,
    make_directory,
    make_file,
    memory_store,
    memory_tree,
    random_changes,
)
from idemfs.testing.clock import Simulated
from idemfs.testing.faults import Cut, PowerCut
from idemfs.testing.kv import CrashingKV
from idemfs.vfs.tree import Tree

BLOCK = 4096


@pytest.fixture
def tree() -> Tree:
    return memory_tree(block_size=BLOCK)


def take(tree: Tree, name: str) -> Snapshot:
    return manage.create(tree.store, ROOT_FILESET, name)


def names(tree: Tree) -> list[str]:
    return [snapshot.name for snapshot in tree.store.catalog.snapshots(ROOT_FILESET)]


def used(tree: Tree) -> int:
    """Sectors that are not free."""
    tree.sync()
    return tree.store.space.sector_count - tree.store.space.free_sectors()


@pytest.mark.parametrize("order", list(permutations(range(4))), ids=lambda order: "".join(map(str, order)))
def test_in_any_order_the_others_stay_and_at_last_nothing_is_left(order: tuple[int, ...]) -> None:
    tree = memory_tree(block_size=BLOCK)
    taken = []
    for turn in range(4):
        random_changes(tree, Random(turn), 80)
        taken.append(take(tree, f"s{turn}"))
    random_changes(tree, Random(7), 80)
    for turn in order:
        delete.delete(tree.active, taken[turn])
        assert_clean(tree)
    assert names(tree) == []
    assert [tree.store.kv.scan(table, b"", b"\xff" * 16, 10) for table in (Table.SHADOW, Table.OWNED)] == [[], []]


def test_the_next_older_takes_what_it_lacks_and_only_that(tree: Tree) -> None:
    ino = make_file(tree, tree.root, b"f", b"0" * 3 * BLOCK)
    first = take(tree, "first")
    tree.write(ino, 0, b"1" * BLOCK)
    second = take(tree, "second")
    tree.write(ino, 0, b"2" * 2 * BLOCK)
    tree.sync()
    assert (first.data_bytes, second.data_bytes) == (BLOCK, 2 * BLOCK)
    before = used(tree)
    delete.delete(tree.active, second)
    # Block 0 it had itself, so one was freed; block 1 it saw through the other one.
    assert first.data_bytes == 2 * BLOCK
    assert used(tree) == before - 1
    assert content_of(tree.snapshot_reader(first), ino) == b"0" * 3 * BLOCK


def test_it_goes_to_the_next_older_one_and_to_nobody_else(tree: Tree) -> None:
    ino = make_file(tree, tree.root, b"f", b"0" * 2 * BLOCK)
    taken = [take(tree, f"s{turn}") for turn in range(4)]
    tree.write(ino, 0, b"1" * BLOCK)
    tree.sync()
    for turn in (3, 1):
        delete.delete(tree.active, taken[turn])
    assert [taken[turn].data_bytes for turn in (0, 2)] == [0, BLOCK]
    assert content_of(tree.snapshot_reader(taken[0]), ino) == b"0" * 2 * BLOCK


def test_the_oldest_gives_back_all_that_it_alone_had(tree: Tree) -> None:
    ino = make_file(tree, tree.root, b"f", b"0" * 20 * BLOCK)
    before = used(tree)
    first = take(tree, "first")
    tree.write(ino, 0, b"1" * 20 * BLOCK)
    assert used(tree) == before + 20
    delete.delete(tree.active, first)
    assert used(tree) == before
    assert content_of(tree.reader, ino) == b"1" * 20 * BLOCK


def test_what_did_not_exist_in_the_older_one_is_freed(tree: Tree) -> None:
    first = take(tree, "first")
    folder = make_directory(tree, tree.root, b"d")
    make_file(tree, folder, b"f", b"0" * 5 * BLOCK)
    second = take(tree, "second")
    tree.unlink(folder, b"f")
    tree.rmdir(tree.root, b"d")
    tree.sync()
    assert second.data_bytes == 5 * BLOCK
    delete.delete(tree.active, second)
    assert first.data_bytes == 0
    assert tree.snapshot_reader(first).entries(tree.root) == []
    assert_clean(tree)


def test_many_records_go_in_several_steps(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delete, "_STEP_RECORD_COUNT", 7)
    random_changes(tree, Random(1), 200)
    take(tree, "first")
    random_changes(tree, Random(2), 200)
    second = take(tree, "second")
    random_changes(tree, Random(3), 200)
    delete.delete(tree.active, second)
    assert_clean(tree)


def test_a_snapshot_that_is_held_stays_until_it_is_released_or_the_hold_expires(tree: Tree) -> None:
    clock = tree.store.clock
    assert isinstance(clock, Simulated)
    first, second = take(tree, "first"), take(tree, "second")
    manage.hold(tree.store, first, "somebody")
    manage.hold(tree.store, second, "somebody", clock.now_ns() + 10**9)
    for snapshot in (first, second):
        with pytest.raises(SnapshotHeld, match="somebody"):
            delete.delete(tree.active, snapshot)
    assert names(tree) == ["first", "second"]
    clock.advance(2)
    delete.delete(tree.active, second)
    manage.release(tree.store, first, "somebody")
    delete.delete(tree.active, first)
    assert names(tree) == []


def test_a_name_can_be_used_again_and_who_reads_the_deleted_one_is_told(tree: Tree) -> None:
    ino = make_file(tree, tree.root, b"f", b"content")
    snapshot = take(tree, "first")
    reader = tree.snapshot_reader(snapshot)
    assert content_of(reader, ino) == b"content"
    delete.delete(tree.active, snapshot)
    with pytest.raises(OSError) as stale:
        reader.read(ino, 0, 10)
    assert stale.value.errno == errno.ESTALE
    with pytest.raises(SnapshotMissing):
        delete.delete(tree.active, snapshot)
    again = take(tree, "first")
    assert again.id > snapshot.id
    assert content_of(tree.snapshot_reader(again), ino) == b"content"


@pytest.mark.parametrize("name", ["s0", "s1", "s2"])
def test_a_deletion_that_is_cut_short_is_finished_when_the_store_is_opened(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delete, "_STEP_RECORD_COUNT", 10)
    monkeypatch.setattr(store_module, "GROUP_RECORD_COUNT_MAX", 60)
    ends: list[str] = []
    while "done" not in ends:
        kv, blocks = CrashingKV(), CrashingBlocks()
        tree = Tree(memory_store(block_size=BLOCK, kv=kv, blocks=blocks))
        for turn in range(3):
            random_changes(tree, Random(turn), 60)
            take(tree, f"s{turn}")
        random_changes(tree, Random(7), 60)
        tree.store.close()
        cut = Cut(len(ends) + 1)
        crashing, sectors = kv.crash(Random(1), cut), blocks.crash(Random(1), cut)
        tree = Tree(Store(tree.store.superblock, crashing, sectors, tree.store.clock))
        try:
            delete.delete(tree.active, tree.store.catalog.by_name(ROOT_FILESET, name))
            tree.sync()
        except PowerCut:
            tree.store.abandon()
            clock, superblock = tree.store.clock, tree.store.superblock
            tree = Tree(Store(superblock, crashing.crash(Random(2)), sectors.crash(Random(2)), clock))
            ends.append("finished" if name not in names(tree) else "not begun")
        else:
            ends.append("done")
        assert len(names(tree)) == 3 - (name not in names(tree))
        assert len(tree.store.catalog.all_snapshots(ROOT_FILESET)) == len(names(tree))
        assert_clean(tree)
    assert ends[0] == "not begun"
    assert ends.count("finished") > 2
