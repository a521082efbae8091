"""What old snapshots see through the dittos of newer ones, after the file was shorter, or gone, in between."""

from __future__ import annotations

import stat

import pytest

from idemfs.format.tables import Snapshot
from idemfs.ids import ROOT_FILESET, Ino
from idemfs.snapshots import bring_back, delete, manage
from idemfs.testing.builders import memory_tree
from idemfs.vfs.snapshot_tree import SnapshotTree
from idemfs.vfs.tree import Tree

BLOCK = 4096


@pytest.fixture
def tree() -> Tree:
    return memory_tree(block_size=BLOCK)


def make(tree: Tree, name: bytes, kind: int = stat.S_IFREG) -> Ino:
    return tree.create(tree.root, name, kind | 0o755, 0, 0)


def take(tree: Tree, name: str) -> Snapshot:
    return manage.create(tree.store, ROOT_FILESET, name)


def content(tree: Tree, snapshot: Snapshot, ino: Ino) -> bytes:
    tree.active.resolved.clear()
    return tree.snapshot_reader(snapshot).read(ino, 0, 1 << 20)


def test_a_hole_stays_one_when_the_file_was_shorter_in_a_newer_snapshot_and_grows_again(tree: Tree) -> None:
    ino = make(tree, b"f")
    tree.write(ino, 9 * BLOCK, b"end")
    first = take(tree, "first")
    before = content(tree, first, ino)
    tree.truncate(ino, 0)
    second = take(tree, "second")
    tree.write(ino, 4 * BLOCK + 9, b"x" * 2 * BLOCK)
    third = take(tree, "third")
    assert content(tree, first, ino) == before
    assert content(tree, second, ino) == b""
    delete.delete(tree.active, third)
    assert content(tree, first, ino) == before


def test_a_hole_in_the_tail_block_stays_one_when_a_newer_snapshot_ends_inside_it(tree: Tree) -> None:
    ino = make(tree, b"f")
    tree.truncate(ino, 3 * BLOCK)
    first = take(tree, "first")
    tree.truncate(ino, BLOCK + 10)
    second = take(tree, "second")
    tree.append(ino, b"more")
    tree.sync()
    assert content(tree, first, ino) == bytes(3 * BLOCK)
    assert content(tree, second, ino) == bytes(BLOCK + 10)


def test_a_hole_is_handed_down_past_a_snapshot_that_has_the_file_shorter(tree: Tree) -> None:
    ino = make(tree, b"f")
    tree.write(ino, 9 * BLOCK, b"end")
    first = take(tree, "first")
    before = content(tree, first, ino)
    tree.truncate(ino, 0)
    take(tree, "second")
    third = take(tree, "third")
    tree.write(ino, 4 * BLOCK, b"x" * BLOCK)
    fourth = take(tree, "fourth")
    tree.truncate(ino, 0)
    delete.delete(tree.active, third)
    assert content(tree, first, ino) == before
    delete.delete(tree.active, fourth)
    assert content(tree, first, ino) == before


def test_what_only_grew_leaves_no_block_records(tree: Tree) -> None:
    ino = make(tree, b"f")
    tree.write(ino, 0, b"a" * 3 * BLOCK)
    snapshot = take(tree, "first")
    tree.append(ino, b"b" * 3 * BLOCK)
    tree.sync()
    assert snapshot.data_bytes == 0
    keys_owned = [key[8:] for key, _ in tree.store.owned.scan(b"", b"\xff" * 16, 100)]
    assert [key[8:9] for key in keys_owned] == [b"i"]


def test_what_a_file_gets_after_it_was_brought_back_is_absent_in_the_snapshot_it_came_from(tree: Tree) -> None:
    ino = make(tree, b"f")
    tree.write(ino, 9 * BLOCK, b"end")
    first = take(tree, "first")
    before = content(tree, first, ino)
    tree.unlink(tree.root, b"f")
    undo = bring_back.restore(tree.active, first)
    tree.set_xattr(ino, b"user.late", b"1")
    tree.link(ino, tree.root, b"g")
    tree.write(ino, 4 * BLOCK, b"x" * BLOCK)
    tree.sync()

    def is_kept() -> bool:
        reader = tree.snapshot_reader(first)
        return reader.xattr_names(ino) == [] and len(reader.links(ino)) == 1 and content(tree, first, ino) == before

    assert is_kept()
    later = take(tree, "later")
    tree.remove_xattr(ino, b"user.late")
    tree.write(ino, 5 * BLOCK, b"y" * BLOCK)
    delete.delete(tree.active, undo)
    assert is_kept()
    delete.delete(tree.active, later)
    assert is_kept()


def test_an_entry_made_after_its_directory_was_brought_back_is_absent_below_two_snapshots_without_it(
    tree: Tree,
) -> None:
    folder = make(tree, b"d", stat.S_IFDIR)
    first = take(tree, "first")
    tree.rmdir(tree.root, b"d")
    second = take(tree, "second")
    undo = bring_back.restore(tree.active, first)
    tree.create(folder, b"late", stat.S_IFREG | 0o600, 0, 0)
    delete.delete(tree.active, undo)
    assert tree.snapshot_reader(first).entries(folder) == []
    delete.delete(tree.active, second)
    assert tree.snapshot_reader(first).entries(folder) == []
    assert [name for name, _, _ in tree.reader.entries(folder)] == [b"late"]


def test_a_file_brought_back_twice_is_preserved_for_the_snapshot_in_between(tree: Tree) -> None:
    ino = make(tree, b"f")
    first = take(tree, "first")
    tree.unlink(tree.root, b"f")
    bring_back.restore(tree.active, first)
    between = bring_back.restore(tree.active, first)
    tree.set_xattr(ino, b"user.late", b"1")
    assert tree.snapshot_reader(between).xattr_names(ino) == []


def test_a_listing_goes_on_after_a_name_that_only_the_snapshot_has(tree: Tree) -> None:
    for name in (b"a", b"a\x01", b"b"):
        make(tree, name)
    snapshot = take(tree, "first")
    for name in (b"a", b"a\x01", b"b"):
        tree.unlink(tree.root, name)
    reader = tree.snapshot_reader(snapshot)
    assert [name for name, _, _ in reader.entries(tree.root, after=b"a")] == [b"a\x01", b"b"]
    assert [name for name, _, _ in reader.entries(tree.root, after=b"b")] == []


def test_a_tail_block_with_zeros_behind_it_stays_so_when_a_restore_made_the_file_shorter(tree: Tree) -> None:
    ino = make(tree, b"f")
    tree.write(ino, 0, b"x" * (2 * BLOCK + 100))
    first = take(tree, "first")
    tree.append(ino, bytes(BLOCK))
    undo = bring_back.restore(tree.active, first)
    take(tree, "third")
    tree.append(ino, b"y" * 100)
    tree.sync()
    assert content(tree, undo, ino) == b"x" * (2 * BLOCK + 100) + bytes(BLOCK)


def test_a_block_that_a_longer_snapshot_ends_in_is_kept_from_its_start(tree: Tree) -> None:
    ino = make(tree, b"f")
    tree.write(ino, 0, b"x")
    tree.truncate(ino, 2 * BLOCK + 1)
    first = take(tree, "first")
    before = content(tree, first, ino)
    tree.unlink(tree.root, b"f")
    empty = take(tree, "empty")
    newest = take(tree, "newest")
    bring_back.go_back(tree.active, first)
    tree.append(ino, b"y" * BLOCK)
    tree.sync()
    tree.write(ino, BLOCK + 100, b"z" * 2 * BLOCK)
    tree.sync()
    assert content(tree, first, ino) == before
    delete.delete(tree.active, newest)
    assert content(tree, first, ino) == before
    delete.delete(tree.active, empty)
    assert content(tree, first, ino) == before


def test_a_snapshot_in_which_the_file_is_gone_keeps_no_extent_of_it(tree: Tree) -> None:
    ino = make(tree, b"f")
    data = b"x" * (2 * BLOCK + 100)
    tree.write(ino, 0, data)
    first = take(tree, "first")
    tree.unlink(tree.root, b"f")
    empty = take(tree, "empty")
    bring_back.go_back(tree.active, first)
    tree.append(ino, b"y" * BLOCK)
    tree.write(ino, 0, b"z" * BLOCK)
    tree.sync()
    assert empty.data_bytes == 0
    assert content(tree, first, ino) == data
    later = take(tree, "later")
    tree.write(ino, 0, b"w" * 3 * BLOCK)
    tree.sync()
    for snapshot in (later, empty):
        delete.delete(tree.active, snapshot)
        assert content(tree, first, ino) == data


def test_a_snapshot_that_was_written_to_keeps_nothing_of_a_file_that_it_lost(tree: Tree) -> None:
    ino = make(tree, b"f")
    data = b"x" * (2 * BLOCK + 100)
    tree.write(ino, 0, data)
    first, written = take(tree, "first"), take(tree, "written")
    changing = SnapshotTree(tree, written)
    changing.unlink(tree.root, b"f")
    changing.close()
    tree.sync()
    owned = first.data_bytes, written.data_bytes
    tree.append(ino, b"y" * 100)
    tree.sync()
    assert (first.data_bytes, written.data_bytes) == owned
    tree.write(ino, 0, b"z" * 3 * BLOCK)
    tree.sync()
    assert (first.data_bytes, written.data_bytes) == owned
    assert content(tree, first, ino) == data
    delete.delete(tree.active, written)
    assert content(tree, first, ino) == data


def test_what_is_appended_behind_the_longest_one_is_kept_by_none_though_the_newest_ends_before_it(tree: Tree) -> None:
    ino = make(tree, b"f")
    tree.write(ino, 0, b"x" * (2 * BLOCK + 100))
    first = take(tree, "first")
    tree.append(ino, bytes(100))
    longer = bring_back.restore(tree.active, first)
    newest = take(tree, "newest")
    tree.truncate(ino, 2 * BLOCK + 200)
    tree.append(ino, b"y" * 100)
    tree.sync()
    assert (longer.data_bytes, newest.data_bytes) == (0, 0)
    before = b"x" * (2 * BLOCK + 100) + bytes(100)
    assert content(tree, longer, ino) == before
    tree.write(ino, 2 * BLOCK + 150, b"z")
    tree.sync()
    assert newest.data_bytes == BLOCK
    assert content(tree, longer, ino) == before
    delete.delete(tree.active, newest)
    assert content(tree, longer, ino) == before


def test_a_hole_in_the_tail_stays_one_for_older_ones_though_those_between_have_nothing_of_the_block(tree: Tree) -> None:
    """What is appended there, one that is as long sees; when that goes, the next older one has no such block."""
    ino = make(tree, b"f")
    size = 2 * BLOCK + 100
    tree.truncate(ino, size)
    long = take(tree, "long")
    tree.truncate(ino, 0)
    take(tree, "short")
    bring_back.go_back(tree.active, long)
    same = take(tree, "same")
    tree.write(ino, size, b"y" * 100)
    grown = take(tree, "grown")
    tree.write(ino, size - 50, b"z" * 100)
    tree.sync()
    for gone in (same, grown):
        delete.delete(tree.active, gone)
        assert content(tree, long, ino) == bytes(size)
