"""What is said to come back when snapshots go is what comes back, whichever go, in whatever order."""

from __future__ import annotations

from random import Random

import pytest

from idemfs.ids import ROOT_FILESET, SnapshotId
from idemfs.limits import SECTOR_SIZE
from idemfs.snapshots import bring_back, delete, freed, manage
from idemfs.testing.builders import assert_clean, memory_tree, random_changes
from idemfs.vfs.tree import Tree


def used_bytes(tree: Tree) -> int:
    tree.sync()
    return (tree.store.space.sector_count - tree.store.space.free_sectors()) * SECTOR_SIZE


def foretold(tree: Tree, gone: set[SnapshotId]) -> int:
    with tree.store.lock:
        tree.active.settle()
        return freed.bytes_freed(tree.active, {ROOT_FILESET: gone})


@pytest.mark.parametrize("seed", range(12))
def test_what_comes_back_is_what_was_said(seed: int) -> None:
    rng = Random(seed)
    tree = memory_tree(compression="zstd" if seed % 2 else "none")
    for turn in range(7):
        random_changes(tree, Random(seed * 100 + turn), 60)
        manage.create(tree.store, ROOT_FILESET, f"s{turn}")
        if turn == 4 and seed % 3 == 0:
            # Shares extents between the active state and snapshots.
            with tree.store.exclusive():
                bring_back.restore(tree.active, tree.store.catalog.by_name(ROOT_FILESET, "s2"))
    random_changes(tree, Random(seed * 100 + 50), 60)
    some = False
    while snapshots := tree.store.catalog.snapshots(ROOT_FILESET):
        going = rng.sample(snapshots, rng.randint(1, min(4, len(snapshots))))
        before = used_bytes(tree)
        said = foretold(tree, {each.id for each in going})
        assert foretold(tree, {each.id for each in going}) == said and used_bytes(tree) == before
        for snapshot in going:
            delete.delete(tree.active, snapshot)
        assert before - used_bytes(tree) == said
        some = some or said > 0
    assert some
    assert_clean(tree)


def test_nothing_comes_back_for_no_snapshot() -> None:
    tree = memory_tree()
    random_changes(tree, Random(1), 50)
    manage.create(tree.store, ROOT_FILESET, "one")
    assert foretold(tree, set()) == 0
