"""What a snapshot sees, by pages of every size, with many versions of a record, and across dittos of many snapshots."""

from __future__ import annotations

import stat
from random import Random

import pytest

from idemfs.format import keys
from idemfs.ids import ROOT_FILESET
from idemfs.snapshots import manage
from idemfs.testing.builders import content_of, make_directory, make_file, memory_tree, random_changes
from idemfs.versions import resolve
from idemfs.versions.resolve import View
from idemfs.versions.state import ActiveView, digest_of
from idemfs.vfs.tree import Tree

BLOCK = 4096


@pytest.fixture
def tree() -> Tree:
    return memory_tree(block_size=BLOCK)


def records(view: View | ActiveView, limit: int) -> list[tuple[bytes, bytes]]:
    found = []
    start, end = keys.fileset_range(ROOT_FILESET)
    at: bytes | None = start
    while at is not None:
        page, at = view.page(at, end, limit)
        assert all(key < at for key, _ in page) if at is not None else True
        found += page
    return found


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 50])
def test_pages_of_any_size_hold_each_record_once(tree: Tree, limit: int) -> None:
    views = []
    for turn in range(5):
        random_changes(tree, Random(turn), 120)
        views.append(View(tree.active, manage.create(tree.store, ROOT_FILESET, f"s{turn}").id))
    random_changes(tree, Random(9), 120)
    for view in views:
        whole = list(view.records(*keys.fileset_range(ROOT_FILESET)))
        assert records(view, limit) == whole
        assert [key for key, _ in whole] == sorted({key for key, _ in whole})


def test_a_record_with_more_versions_than_a_page_holds(tree: Tree) -> None:
    ino = make_file(tree, tree.root, b"f")
    views = []
    for turn in range(8):
        tree.set_attributes(ino, mode=turn)
        tree.set_xattr(ino, b"user.turn", b"%d" % turn)
        views.append(View(tree.active, manage.create(tree.store, ROOT_FILESET, f"s{turn}").id))
    tree.remove_xattr(ino, b"user.turn")
    for turn, view in enumerate(views):
        assert dict(records(view, 2))[keys.xattr(ino, b"user.turn")] == keys.PRESENT + b"%d" % turn
        node = view.inode(ino)
        assert node is not None and node.mode == stat.S_IFREG | turn


def test_names_that_begin_alike_are_kept_apart_when_their_versions_meet_the_end_of_a_page(tree: Tree) -> None:
    names = [b"a", b"a\x01", b"a\x01\x01", b"a\x02", b"aa", b"\xff"]
    for name in names:
        make_file(tree, tree.root, name)
    snapshot = manage.create(tree.store, ROOT_FILESET, "first")
    for name in names[::2]:
        tree.unlink(tree.root, name)
    reader = tree.snapshot_reader(snapshot)
    for limit in range(1, 8):
        seen: list[bytes] = []
        while page := reader.entries(tree.root, seen[-1] if seen else b"", limit):
            seen += [name for name, _, _ in page]
        assert seen == sorted(names)


def test_each_block_is_found_in_the_first_snapshot_that_has_it(tree: Tree) -> None:
    ino = make_file(tree, tree.root, b"f", b"0" * 6 * BLOCK)
    readers, contents = [], []
    for turn in range(6):
        readers.append(tree.snapshot_reader(manage.create(tree.store, ROOT_FILESET, f"s{turn}")))
        contents.append(content_of(tree.reader, ino))
        tree.write(ino, turn * BLOCK, b"%d" % (turn + 1) * BLOCK)
        tree.sync()
    tree.active.resolved.clear()
    for reader, content in zip(readers, contents, strict=True):
        assert content_of(reader, ino) == content


def test_more_versions_of_an_indirect_block_than_are_fetched_at_once(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolve, "SCAN_COUNT", 2)
    ino = make_file(tree, tree.root, b"f", b"0" * 6 * BLOCK)
    first = manage.create(tree.store, ROOT_FILESET, "first")
    for turn in range(6):
        tree.write(ino, turn * BLOCK, b"x" * BLOCK)
        manage.create(tree.store, ROOT_FILESET, f"s{turn}")
    assert content_of(tree.snapshot_reader(first), ino) == b"0" * 6 * BLOCK


def test_an_unwritten_change_of_the_open_group_is_not_seen_and_hides_nothing(tree: Tree) -> None:
    ino = make_file(tree, tree.root, b"f", b"0" * 3 * BLOCK)
    snapshot = manage.create(tree.store, ROOT_FILESET, "first")
    reader = tree.snapshot_reader(snapshot)
    # A whole block goes out at once, a part of one waits; neither is in the tables yet.
    tree.write(ino, 0, b"x" * BLOCK)
    tree.write(ino, BLOCK + 5, b"y")
    assert content_of(reader, ino) == b"0" * 3 * BLOCK
    tree.truncate(ino, 0)
    assert content_of(reader, ino) == b"0" * 3 * BLOCK
    tree.sync()
    assert content_of(reader, ino) == b"0" * 3 * BLOCK


def test_inodes_born_later_are_not_seen(tree: Tree) -> None:
    folder = make_directory(tree, tree.root, b"d")
    snapshot = manage.create(tree.store, ROOT_FILESET, "first")
    late = make_file(tree, folder, b"late", b"x" * 2 * BLOCK)
    tree.set_xattr(late, b"user.a", b"1")
    view = View(tree.active, snapshot.id)
    assert list(view.inos(ROOT_FILESET)) == [tree.root, folder]
    assert view.inode(late) is None
    assert digest_of(view, ROOT_FILESET) == snapshot.digest


def test_indirect_blocks_that_only_a_shadow_has_are_listed(tree: Tree) -> None:
    ino = make_file(tree, tree.root, b"f")
    span = 512 * BLOCK
    for index in (0, 2, 5):
        tree.write(ino, index * span, b"x")
    snapshot = manage.create(tree.store, ROOT_FILESET, "first")
    tree.truncate(ino, span)
    tree.write(ino, 7 * span, b"y")
    tree.sync()
    view = View(tree.active, snapshot.id)
    node = view.inode(ino)
    assert node is not None
    assert [index for index in view.map_indexes(ino, node.size) if view.file_map(ino, node, index).addresses] == [
        0,
        2,
        5,
    ]
    assert list(view.map_indexes(ino, node.size, 3)) == [5]


@pytest.mark.parametrize("limit", [1, 3, 50])
def test_who_goes_on_right_after_a_key_does_not_find_it_again(tree: Tree, limit: int) -> None:
    ino = make_file(tree, tree.root, b"f")
    tree.set_xattr(ino, b"user.a", b"1")
    tree.set_xattr(ino, b"user.b", b"1")
    view = View(tree.active, manage.create(tree.store, ROOT_FILESET, "s").id)
    tree.set_xattr(ino, b"user.a", b"2")
    start, end = keys.xattr(ino, b"user.a") + b"\0", keys.fileset_range(ROOT_FILESET)[1]
    found: list[bytes] = []
    at: bytes | None = start
    while at is not None:
        page, at = view.page(at, end, limit)
        found += [key for key, _ in page]
    assert found == [keys.xattr(ino, b"user.b")]
