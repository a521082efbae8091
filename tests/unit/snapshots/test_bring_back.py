"""Restore and rollback: what comes back, what it costs, what snapshots own after it, and what a crash makes of it."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

from idemfs.errors import SnapshotExists
from idemfs.format import keys
from idemfs.format.inode import LOCAL_SIZE
from idemfs.format.tables import Snapshot
from idemfs.ids import ROOT_FILESET
from idemfs.snapshots import bring_back, manage
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
    reopened,
)
from idemfs.testing.faults import Cut, PowerCut
from idemfs.testing.kv import CrashingKV
from idemfs.vfs.tree import Tree

BLOCK = 4096


@pytest.fixture
def tree() -> Tree:
    return memory_tree(block_size=BLOCK)


def take(tree: Tree, name: str) -> Snapshot:
    return manage.create(tree.store, ROOT_FILESET, name)


def digest(tree: Tree) -> int:
    tree.sync()
    return tree.active.fileset(tree.root).digest


def test_an_older_snapshot_comes_back_and_newer_ones_stay(tree: Tree) -> None:
    taken = []
    for turn in range(4):
        random_changes(tree, Random(turn), 100)
        taken.append(take(tree, f"s{turn}"))
    random_changes(tree, Random(9), 100)
    before = digest(tree)
    undo = bring_back.restore(tree.active, taken[1])
    assert digest(tree) == taken[1].digest
    assert undo.name == "before-restore-s1"
    assert undo.digest == before
    assert_clean(tree)
    bring_back.restore(tree.active, undo)
    assert digest(tree) == before
    assert_clean(tree)


def test_the_snapshot_to_undo_it_with_gets_a_free_name_or_the_one_wanted(tree: Tree) -> None:
    first = take(tree, "first")
    names = [bring_back.restore(tree.active, first).name for _ in range(2)]
    assert names == ["before-restore-first", "before-restore-first-2"]
    assert bring_back.restore(tree.active, first, "mine").name == "mine"
    with pytest.raises(SnapshotExists):
        bring_back.restore(tree.active, first, "mine")


def test_a_restore_copies_no_data(tree: Tree) -> None:
    ino = make_file(tree, tree.root, b"f", Random(1).randbytes(50 * BLOCK))
    first = take(tree, "first")
    tree.unlink(tree.root, b"f")
    tree.sync()
    written = tree.store.blocks.used_bytes(), tree.store.space.free_sectors()
    bring_back.restore(tree.active, first)
    assert (tree.store.blocks.used_bytes(), tree.store.space.free_sectors()) == written
    view = tree.snapshot_reader(first).view
    assert all(tree.active.block(ino, number) == view.block(ino, number) for number in range(50))
    assert_clean(tree)


def test_extents_that_are_shared_outlive_each_of_their_owners(tree: Tree) -> None:
    content = Random(1).randbytes(5 * BLOCK)
    ino = make_file(tree, tree.root, b"f", content)
    first = take(tree, "first")
    tree.truncate(ino, 0)
    bring_back.restore(tree.active, first)
    tree.write(ino, 0, b"x" * BLOCK)
    tree.sync()
    assert content_of(tree.snapshot_reader(first), ino) == content
    tree.unlink(tree.root, b"f")
    tree.sync()
    assert content_of(tree.snapshot_reader(first), ino) == content
    assert_clean(tree)


def test_the_tail_block_that_somebody_appended_to_is_cut(tree: Tree) -> None:
    ino = make_file(tree, tree.root, b"f", b"x" * (BLOCK + 10))
    first = take(tree, "first")
    tree.append(ino, b"secret")
    undo = bring_back.restore(tree.active, first)
    tree.truncate(ino, 2 * BLOCK)
    assert tree.reader.read(ino, BLOCK, BLOCK) == b"x" * 10 + bytes(BLOCK - 10)
    assert content_of(tree.snapshot_reader(undo), ino) == b"x" * (BLOCK + 10) + b"secret"
    assert_clean(tree)


def test_an_inode_comes_back_with_its_number_its_names_and_its_attributes(tree: Tree) -> None:
    folder = make_directory(tree, tree.root, b"d")
    ino = make_file(tree, folder, b"f", b"content")
    tree.link(ino, tree.root, b"g")
    tree.set_xattr(ino, b"user.a", b"1")
    first = take(tree, "first")
    before = tree.reader.inode(ino).pack()[LOCAL_SIZE:]
    tree.unlink(folder, b"f")
    tree.unlink(tree.root, b"g")
    tree.rmdir(tree.root, b"d")
    bring_back.restore(tree.active, first)
    assert tree.reader.lookup(folder, b"f") == tree.reader.lookup(tree.root, b"g") == ino
    assert tree.reader.inode(ino).pack()[LOCAL_SIZE:] == before
    assert tree.reader.xattr(ino, b"user.a") == b"1"
    assert content_of(tree.reader, ino) == b"content"
    new = make_file(tree, tree.root, b"new")
    assert new > max(ino, folder)


def test_what_was_created_since_is_gone_and_is_in_the_undo_snapshot(tree: Tree) -> None:
    first = take(tree, "first")
    ino = make_file(tree, tree.root, b"late", b"x" * 3 * BLOCK)
    undo = bring_back.restore(tree.active, first)
    assert tree.reader.entries(tree.root) == []
    assert tree.active.inode(ino) is None
    assert content_of(tree.snapshot_reader(undo), ino) == b"x" * 3 * BLOCK


def test_a_file_without_a_name_comes_back_as_an_orphan_and_is_reclaimed(tree: Tree) -> None:
    ino = make_file(tree, tree.root, b"f", b"x" * 3 * BLOCK)
    tree.open(ino)
    tree.unlink(tree.root, b"f")
    first = take(tree, "first")
    tree.release(ino)
    assert tree.active.inode(ino) is None
    bring_back.restore(tree.active, first)
    assert tree.store.small.get(keys.orphan(ino)) is not None
    tree.recover()
    assert tree.active.inode(ino) is None
    assert content_of(tree.snapshot_reader(first), ino) == b"x" * 3 * BLOCK
    assert_clean(tree)


def test_after_a_rollback_the_newest_snapshot_owns_nothing(tree: Tree) -> None:
    random_changes(tree, Random(1), 150)
    older = take(tree, "older")
    random_changes(tree, Random(2), 150)
    newest = take(tree, "newest")
    tree.sync()
    free, older_owned = tree.store.space.free_sectors(), older.owned_bytes
    count = tree.store.space.sector_count - free
    random_changes(tree, Random(3), 150)
    assert newest.owned_bytes > 0
    bring_back.rollback(tree.active, ROOT_FILESET)
    assert digest(tree) == newest.digest
    assert newest.owned_bytes == 0
    assert older.owned_bytes == older_owned
    assert tree.store.space.sector_count - tree.store.space.free_sectors() == count
    assert_clean(tree)


# -- interrupted -------------------------------------------------------------------------------------------


def interrupted(
    do: Callable[[Tree], object], monkeypatch: pytest.MonkeyPatch
) -> list[tuple[dict[str, int], dict[str, int]]]:
    """Digests by name before ``do`` and when the power has come back, for a cut at each of its write points."""
    monkeypatch.setattr(store_module, "GROUP_RECORD_COUNT_MAX", 60)
    found: list[tuple[dict[str, int], dict[str, int]] | None] = []
    after = 0
    while not found or found[-1] is not None:
        after += 1
        found.append(_interrupted_once(do, after))
    assert after > 8
    return [pair for pair in found if pair is not None]


def _interrupted_once(do: Callable[[Tree], object], after: int) -> tuple[dict[str, int], dict[str, int]] | None:
    kv, blocks = CrashingKV(), CrashingBlocks()
    tree = Tree(memory_store(block_size=BLOCK, kv=kv, blocks=blocks))
    for name in ("first", "second", "third"):
        random_changes(tree, Random(name), 60)
        take(tree, name)
    random_changes(tree, Random("last"), 60)
    before = {"active": digest(tree)} | {each.name: each.digest for each in tree.store.catalog.snapshots(ROOT_FILESET)}
    tree.store.close()
    cut = Cut(after)
    tree = Tree(Store(tree.store.superblock, kv.crash(Random(1), cut), blocks.crash(Random(1), cut), tree.store.clock))
    try:
        do(tree)
    except PowerCut:
        tree.store.abandon()
    else:
        return None
    store = tree.store
    assert isinstance(store.kv, CrashingKV) and isinstance(store.blocks, CrashingBlocks)
    tree = Tree(Store(store.superblock, store.kv.crash(Random(2)), store.blocks.crash(Random(2)), store.clock))
    assert bring_back.pending(tree.store) is None
    assert_clean(tree)
    after_it = {"active": digest(tree)}
    return before, after_it | {each.name: each.digest for each in tree.store.catalog.snapshots(ROOT_FILESET)}


def test_an_interrupted_restore_is_done_or_not_begun_when_the_store_is_open_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def do(tree: Tree) -> None:
        bring_back.restore(tree.active, tree.store.catalog.by_name(ROOT_FILESET, "first"), "undo")

    ends = set()
    for before, after in interrupted(do, monkeypatch):
        undo = after.pop("undo", None)
        ends.add((undo is not None, after["active"] == before["first"]))
        assert undo in (None, before["active"])
        assert after["active"] in ((before["active"], before["first"]) if undo is not None else (before["active"],))
        assert after | {"active": 0} == before | {"active": 0}
    assert ends >= {(False, False), (True, True)}


def test_an_interrupted_rollback_is_done_or_not_begun_when_the_store_is_open_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ends = set()
    for before, after in interrupted(lambda tree: bring_back.rollback(tree.active, ROOT_FILESET), monkeypatch):
        ends.add(after["active"] == before["third"])
        assert after["active"] in (before["active"], before["third"])
        assert after | {"active": 0} == before | {"active": 0}
    assert ends == {False, True}


@pytest.mark.parametrize("is_durable", [True, False])
def test_a_restore_waits_for_the_commit_that_has_all_of_it(is_durable: bool) -> None:
    cut = Cut()
    tree = Tree(memory_store(block_size=BLOCK, kv=CrashingKV(cut)))
    ino = make_file(tree, tree.root, b"f", b"a" * 2 * BLOCK)
    first = take(tree, "first")
    tree.write(ino, 0, b"b" * BLOCK)
    if is_durable:
        tree.sync()
    begun = cut.count
    undo = bring_back.restore(tree.active, first)
    # What was changed before is of the group before, and the undo has it.
    assert cut.count - begun == (1 if is_durable else 2)
    again = reopened(tree, committed=False)
    assert content_of(again.reader, ino) == b"a" * 2 * BLOCK
    found = again.store.catalog.by_name(ROOT_FILESET, undo.name)
    assert content_of(again.snapshot_reader(found), ino) == b"b" * BLOCK + b"a" * BLOCK
    assert bring_back.pending(again.store) is None
    assert_clean(again)


def test_a_restore_whose_undo_has_a_taken_name_changes_nothing(tree: Tree) -> None:
    ino = make_file(tree, tree.root, b"f", b"a")
    first = take(tree, "first")
    tree.write(ino, 0, b"b")
    with pytest.raises(SnapshotExists):
        bring_back.restore(tree.active, first, "first")
    assert bring_back.pending(tree.store) is None
    assert content_of(tree.reader, ino) == b"b"
    assert_clean(tree)
