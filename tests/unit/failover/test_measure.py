"""Bytes that a snapshot lacks are counted by content, not by what they take on disk."""

from __future__ import annotations

from idemfs.failover.measure import bytes_since
from idemfs.ids import ROOT_FILESET, Guid
from idemfs.snapshots import manage
from idemfs.testing.builders import make_file, memory_tree
from idemfs.vfs.tree import Tree

BLOCK = 4096


def taken(tree: Tree) -> Guid:
    name = manage.unique_name(tree.store, ROOT_FILESET, "s")
    return manage.create(tree.store, ROOT_FILESET, name).guid


def since(tree: Tree, guid: Guid | None) -> int:
    with tree.store.lock:
        tree.active.settle()
    return bytes_since(tree, guid)


def test_without_a_snapshot_everything_counts() -> None:
    tree = memory_tree(compression="zstd")
    make_file(tree, tree.root, b"inline", b"1" * 100)
    make_file(tree, tree.root, b"blocks", b"2" * (3 * BLOCK + 10))
    tree.truncate(make_file(tree, tree.root, b"hole"), 1 << 30)
    assert since(tree, None) == 100 + 3 * BLOCK + 10


def test_only_what_changed_counts() -> None:
    tree = memory_tree()
    small = make_file(tree, tree.root, b"small", b"1" * 100)
    large = make_file(tree, tree.root, b"large", b"2" * (20 * BLOCK))
    gone = make_file(tree, tree.root, b"gone", b"3" * (5 * BLOCK))
    one = taken(tree)
    assert since(tree, one) == 0
    tree.write(large, 7 * BLOCK + 5, b"x")
    assert since(tree, one) == BLOCK
    tree.append(large, b"y" * 10)
    assert since(tree, one) == BLOCK + 10
    tree.write(small, 0, b"z")
    assert since(tree, one) == BLOCK + 10 + 100
    tree.unlink(tree.root, b"gone")
    assert tree.active.inode(gone) is None
    tree.truncate(large, 8 * BLOCK)
    assert since(tree, one) == BLOCK + 100
    two = taken(tree)
    make_file(tree, tree.root, b"new", b"4" * BLOCK)
    assert since(tree, two) == BLOCK
    assert since(tree, one) == 2 * BLOCK + 100


def test_a_change_of_attributes_alone_counts_nothing() -> None:
    tree = memory_tree()
    ino = make_file(tree, tree.root, b"f", b"1" * (2 * BLOCK))
    one = taken(tree)
    tree.set_attributes(ino, mode=0o600)
    tree.link(ino, tree.root, b"g")
    assert since(tree, one) == 0
