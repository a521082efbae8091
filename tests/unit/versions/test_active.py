"""The one door through which active records change: what it leaves in the newest snapshot, and in the digest."""

from __future__ import annotations

from random import Random

import pytest

from idemfs.format import keys
from idemfs.format.inode import ABSENT
from idemfs.ids import ROOT_FILESET
from idemfs.snapshots import manage
from idemfs.testing.builders import make_directory, make_file, memory_tree, random_changes, reopened
from idemfs.versions.state import ActiveView, digest_of
from idemfs.vfs.tree import RenameFlag, Tree

BLOCK = 4096


@pytest.fixture
def tree() -> Tree:
    return memory_tree(block_size=BLOCK)


def owned(tree: Tree) -> set[bytes]:
    """Keys of what snapshots own."""
    tree.sync()
    return {key[8:] for key, _ in tree.store.owned.scan(b"", b"\xff" * 16, 10_000)}


@pytest.mark.parametrize("kind", range(4))
def test_the_digest_is_that_of_the_records_after_every_group(kind: int) -> None:
    tree = memory_tree(block_size=BLOCK, compression=("none", "zstd")[kind % 2])
    for turn in range(10):
        random_changes(tree, Random(100 * kind + turn), 40)
        tree.sync()
        assert digest_of(ActiveView(tree.active), ROOT_FILESET) == tree.active.fileset(tree.root).digest
        if kind > 1:
            tree = reopened(tree)


def test_what_comes_and_goes_between_two_snapshots_leaves_no_trace_of_its_own(tree: Tree) -> None:
    manage.create(tree.store, ROOT_FILESET, "first")
    ino = make_file(tree, tree.root, b"f", b"x" * 3 * BLOCK)
    tree.set_xattr(ino, b"user.a", b"1")
    tree.link(ino, tree.root, b"g")
    tree.unlink(tree.root, b"f")
    tree.unlink(tree.root, b"g")
    assert owned(tree) == {keys.inode(tree.root)}


def test_creating_leaves_the_inode_and_its_entry_as_absent(tree: Tree) -> None:
    snapshot = manage.create(tree.store, ROOT_FILESET, "first")
    ino = make_file(tree, tree.root, b"f")
    tree.set_xattr(ino, b"user.a", b"1")
    entry = keys.entry(tree.root, b"f")
    assert owned(tree) == {keys.inode(tree.root), entry, keys.inode(ino)}
    for key in (entry, keys.inode(ino)):
        assert tree.store.shadow.get(keys.shadow(key, snapshot.id)) == ABSENT


def test_a_record_is_preserved_once_for_each_snapshot(tree: Tree) -> None:
    ino = make_file(tree, tree.root, b"f")
    sizes = []
    for name in ("first", "second"):
        snapshot = manage.create(tree.store, ROOT_FILESET, name)
        assert snapshot.owned_bytes == 0
        for turn in range(3):
            tree.set_attributes(ino, mode=turn)
            sizes.append(snapshot.owned_bytes)
    assert sizes[0] == sizes[1] == sizes[2] == sizes[3] == sizes[5] > 0


def test_reading_preserves_nothing(tree: Tree) -> None:
    ino = make_file(tree, tree.root, b"f")
    snapshot = manage.create(tree.store, ROOT_FILESET, "first")
    before = tree.active.fileset(tree.root).digest
    tree.touch_atime(ino)
    assert owned(tree) == set()
    assert snapshot.owned_bytes == 0
    assert tree.active.fileset(tree.root).digest == before


def test_overwriting_moves_the_address_and_takes_no_space_twice(tree: Tree) -> None:
    ino = make_file(tree, tree.root, b"f", b"x" * 4 * BLOCK)
    snapshot = manage.create(tree.store, ROOT_FILESET, "first")
    old = tree.active.block(ino, 2)
    tree.write(ino, 2 * BLOCK, b"y" * BLOCK)
    tree.write(ino, 2 * BLOCK, b"z" * BLOCK)
    assert snapshot.data_bytes == BLOCK
    tree.sync()
    free = tree.store.space.free_sectors()
    assert tree.snapshot_reader(snapshot).view.block(ino, 2) == old
    tree.write(ino, 2 * BLOCK, b"w" * BLOCK)
    tree.sync()
    assert snapshot.data_bytes == BLOCK
    assert tree.store.space.free_sectors() == free


def test_a_hole_that_is_filled_is_remembered_and_costs_no_data(tree: Tree) -> None:
    ino = make_file(tree, tree.root, b"f")
    tree.truncate(ino, 4 * BLOCK)
    snapshot = manage.create(tree.store, ROOT_FILESET, "first")
    tree.write(ino, BLOCK, b"y" * BLOCK)
    assert keys.block(ino, 0) in owned(tree)
    assert snapshot.data_bytes == 0
    assert tree.snapshot_reader(snapshot).read(ino, 0, 4 * BLOCK) == bytes(4 * BLOCK)


@pytest.mark.parametrize("flags", [RenameFlag.NONE, RenameFlag.EXCHANGE])
def test_renaming_preserves_entries_and_inodes(tree: Tree, flags: RenameFlag) -> None:
    here, there = make_directory(tree, tree.root, b"here"), make_directory(tree, tree.root, b"there")
    moved, replaced = make_file(tree, here, b"f", b"moved"), make_file(tree, there, b"g", b"replaced")
    snapshot = manage.create(tree.store, ROOT_FILESET, "first")
    tree.rename(here, b"f", there, b"g", flags)
    assert owned(tree) == {
        *map(keys.inode, (here, there, moved, replaced)),
        keys.entry(here, b"f"),
        keys.entry(there, b"g"),
    }
    reader = tree.snapshot_reader(snapshot)
    assert (reader.lookup(here, b"f"), reader.lookup(there, b"g")) == (moved, replaced)
    assert [name for _, name in reader.links(moved)] == [b"f"]
