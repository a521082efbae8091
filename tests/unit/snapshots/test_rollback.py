"""A rollback to a snapshot whose extents the active file system has already, shared by an earlier restore."""

from __future__ import annotations

from idemfs.ids import ROOT_FILESET
from idemfs.snapshots import bring_back, delete, manage
from idemfs.testing.builders import assert_clean, content_of, make_file, memory_tree


def test_a_rollback_gives_up_extents_that_the_active_file_names_as_well() -> None:
    tree = memory_tree()
    ino = make_file(tree, tree.root, b"f", b"x" * 9000)
    older = manage.create(tree.store, ROOT_FILESET, "older")
    tree.write(ino, 0, b"y" * 9000)
    undo = bring_back.restore(tree.active, older)
    last = bring_back.restore(tree.active, undo)
    delete.delete(tree.active, last)
    assert undo.data_bytes > 0
    bring_back.rollback(tree.active, ROOT_FILESET)
    assert content_of(tree.reader, ino) == b"y" * 9000
    assert undo.owned_bytes == 0
    assert_clean(tree)
