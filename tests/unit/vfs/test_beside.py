"""File systems beside the one that owns the store: nothing of the store's own is missing in them."""

from __future__ import annotations

import pytest

from idemfs.errors import NotPrimary
from idemfs.failover import actions
from idemfs.ids import ROOT_FILESET
from idemfs.snapshots import manage
from idemfs.testing.builders import content_of, make_file, memory_tree
from idemfs.vfs.beside import Beside
from idemfs.vfs.fileset_tree import FilesetTree
from idemfs.vfs.snapshot_tree import SnapshotTree
from idemfs.vfs.tree import Tree

OF_THE_OWNER = {"_current", "_received"}
"""How far the store is behind, and what of it is cached: asked of the owner, or not used."""


def both(tree: Tree) -> list[Beside]:
    make_file(tree, tree.root, b"f", b"old")
    manage.create(tree.store, ROOT_FILESET, "one")
    tree.truncate(tree.reader.lookup(tree.root, b"f"), 0)
    (snapshot,) = tree.store.catalog.snapshots(ROOT_FILESET)
    return [FilesetTree(tree, ROOT_FILESET), SnapshotTree(tree, snapshot)]


def test_all_that_the_owner_has_is_there() -> None:
    tree = memory_tree()
    for beside in both(tree):
        missing = {name for name in vars(tree).keys() - OF_THE_OWNER if not hasattr(beside, name)}
        assert missing == set(), type(beside)


def test_what_is_the_stores_is_one() -> None:
    tree = memory_tree()
    for beside in both(tree):
        beside.moves += 1
        assert beside.moves == tree.moves
        assert beside.watchers is tree.watchers
        actions.tell(tree, tree.role.seen_epoch + 1)
        assert beside.role == tree.role
        tree.note_current(3.0)
        assert beside.current_age() == pytest.approx(3.0, abs=1.0)


def test_a_snapshot_that_is_open_for_writing_is_shown_also_when_the_store_becomes_a_standby() -> None:
    tree = memory_tree()
    _, inside = both(tree)
    tree.truncate(tree.reader.lookup(tree.root, b"f"), 0)
    actions.tell(tree, 2)
    (snapshot,) = tree.store.catalog.snapshots(ROOT_FILESET)
    actions.go_back(tree, snapshot.guid)
    actions.demote(tree, 2, snapshot.guid)
    reader = inside.newest_reader()
    assert content_of(reader, reader.lookup(inside.root, b"f")) == b"old"
    with pytest.raises(NotPrimary):
        make_file(inside, inside.root, b"g", b"1")
