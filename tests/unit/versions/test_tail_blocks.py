"""What older snapshots see of a tail block that a newer snapshot has inside a shorter file."""

from __future__ import annotations

import pytest

from idemfs.ids import ROOT_FILESET
from idemfs.snapshots import bring_back, delete, manage
from idemfs.testing.builders import assert_clean, content_of, make_file, memory_tree

BLOCK = 4096


@pytest.mark.parametrize("is_deleted", [False, True])
def test_a_tail_block_with_zeros_outlasts_a_restore_of_the_shorter_file_and_an_append(is_deleted: bool) -> None:
    tree = memory_tree()
    store = tree.store
    ino = make_file(tree, tree.root, b"f", b"x" * (BLOCK + 900))
    short = manage.create(store, ROOT_FILESET, "short")
    tree.truncate(ino, BLOCK + 3000)
    long = manage.create(store, ROOT_FILESET, "long")
    before = content_of(tree.snapshot_reader(long), ino)
    bring_back.restore(tree.active, short)
    again = manage.create(store, ROOT_FILESET, "again")
    tree.append(ino, b"y" * 100)
    if is_deleted:
        delete.delete(tree.active, again)
    assert content_of(tree.snapshot_reader(long), ino) == before
    assert_clean(tree)


def test_a_rollback_cuts_what_was_appended_in_a_tail_block_that_was_a_hole() -> None:
    tree = memory_tree()
    ino = make_file(tree, tree.root, b"f", b"x" * BLOCK)
    tree.truncate(ino, BLOCK + 700)
    snapshot = manage.create(tree.store, ROOT_FILESET, "hole")
    before = content_of(tree.snapshot_reader(snapshot), ino)
    tree.append(ino, b"y" * 100)
    tree.write(ino, 0, b"z")
    bring_back.rollback(tree.active, ROOT_FILESET)
    assert content_of(tree.reader, ino) == before
    assert snapshot.owned_bytes == 0
    assert_clean(tree)
