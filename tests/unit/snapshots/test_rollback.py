"""A rollback to a snapshot whose extents the active file system has already, shared by an earlier restore."""

from __future__ import annotations

from idemfs import FileSystem
from idemfs.format import keys
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


def test_a_rollback_frees_what_a_longer_older_snapshot_reads_zeros_from() -> None:
    tree = memory_tree()
    ino = make_file(tree, tree.root, b"f", b"x" * 8192)
    tree.truncate(ino, 5 * 4096 + 2000)
    long = manage.create(tree.store, ROOT_FILESET, "long")
    tree.truncate(ino, 4096)
    short = manage.create(tree.store, ROOT_FILESET, "short")
    tree.truncate(ino, 5 * 4096 + 2000)
    middle = manage.create(tree.store, ROOT_FILESET, "middle")
    tree.append(ino, b"y" * 10)
    delete.delete(tree.active, middle)
    tree.write(ino, 0, b"z")
    bring_back.rollback(tree.active, ROOT_FILESET)
    assert content_of(tree.reader, ino) == b"x" * 4096
    assert content_of(tree.snapshot_reader(long), ino) == b"x" * 8192 + bytes(3 * 4096 + 2000)
    assert short.owned_bytes == 0
    assert_clean(tree)


def test_a_rollback_leaves_nothing_of_what_was_purged_from_the_snapshot_alone() -> None:
    fs = FileSystem(memory_tree())
    fs.mkdir("/d")
    fs.write_bytes("/d/f", b"x" * 9000)
    fs.setxattr("/d/f", "user.a", b"a")
    fs.snapshots.create("s")
    fs.snapshots.purge("/d")
    bring_back.rollback(fs.tree.active, ROOT_FILESET)
    assert fs.listdir("/") == []
    owner = fs.tree.store.catalog.by_name(ROOT_FILESET, "s").id
    assert fs.tree.store.owned.scan(*keys.owned_range(owner), 100) == []
    assert_clean(fs.tree)
