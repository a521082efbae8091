"""What a difference finds, and what it costs."""

from __future__ import annotations

import stat
from random import Random

import pytest

from idemfs.engines.kv.api import Table
from idemfs.engines.kv.memory import MemoryKV
from idemfs.errors import DamagedBlock, SnapshotMissing
from idemfs.format.tables import Snapshot
from idemfs.ids import NO_SNAPSHOT, Ino, number_of
from idemfs.limits import FILE_SIZE_MAX
from idemfs.replication import difference as module
from idemfs.replication.difference import difference
from idemfs.replication.records import (
    BlockChange,
    Change,
    Cursor,
    EntryChange,
    InodeChange,
    InodeRemoved,
    LinkChange,
    XattrChange,
)
from idemfs.replication.send import send
from idemfs.snapshots import bring_back, delete
from idemfs.testing.builders import make_directory, make_file, memory_store, memory_tree, random_changes
from idemfs.testing.clock import Simulated
from idemfs.vfs.tree import Tree
from tests.unit.replication.pairs import snapshots, take

BLOCK = 4096
INDEX = 512 * BLOCK
"""Bytes of file that one indirect block maps."""


@pytest.fixture
def tree() -> Tree:
    return memory_tree()


def changes(tree: Tree, base: Snapshot | None, target: Snapshot, after: Cursor | None = None) -> list[Change]:
    return [change for group in difference(tree, base, target, after) for change in group.changes]


def of(ino: Ino, found: list[Change]) -> list[Change]:
    return [change for change in found if change.number == number_of(ino)]


def kinds(found: list[Change]) -> list[type[Change]]:
    return [type(change) for change in found]


def blocks(ino: Ino, found: list[Change]) -> dict[int, bytes]:
    return {change.block: bytes(change.payload) for change in of(ino, found) if isinstance(change, BlockChange)}


def test_nothing_changed(tree: Tree) -> None:
    make_file(tree, tree.root, b"f", b"x" * 9 * BLOCK)
    assert changes(tree, take(tree, "one"), take(tree, "two")) == []


def test_reading_changes_nothing(tree: Tree) -> None:
    ino = make_file(tree, tree.root, b"f", b"x")
    one = take(tree, "one")
    tree.set_attributes(ino, mode=0o600)
    two = take(tree, "two")
    tree.touch_atime(ino)
    assert kinds(changes(tree, one, two)) == [InodeChange]
    assert changes(tree, two, take(tree, "three")) == []


def test_everything_of_a_new_inode_in_order(tree: Tree) -> None:
    one = take(tree, "one")
    ino = make_file(tree, tree.root, b"f", b"x" * (2 * BLOCK + 5))
    tree.link(ino, tree.root, b"g")
    tree.set_xattr(ino, b"user.a", b"1")
    two = take(tree, "two")
    found = changes(tree, one, two)
    assert kinds(of(tree.root, found)) == [InodeChange, EntryChange, EntryChange]
    assert kinds(of(ino, found)) == [InodeChange, BlockChange, BlockChange, BlockChange, LinkChange, XattrChange]
    assert blocks(ino, found) == {0: b"x" * BLOCK, 1: b"x" * BLOCK, 2: b"x" * 5}
    assert found == changes(tree, one, two)


def test_a_removed_inode_is_one_record(tree: Tree) -> None:
    directory = make_directory(tree, tree.root, b"d")
    for number in range(50):
        make_file(tree, directory, b"f%d" % number)
    one = take(tree, "one")
    for number in range(50):
        tree.unlink(directory, b"f%d" % number)
    tree.rmdir(tree.root, b"d")
    two = take(tree, "two")
    found = changes(tree, one, two)
    assert kinds(found) == [InodeChange, EntryChange] + [InodeRemoved] * 51
    assert found[1] == EntryChange(number_of(tree.root), b"d", None)


def test_what_came_and_went_is_no_change(tree: Tree) -> None:
    one = take(tree, "one")
    ino = make_file(tree, tree.root, b"f")
    tree.set_xattr(tree.root, b"user.a", b"1")
    take(tree, "between")
    tree.unlink(tree.root, b"f")
    tree.remove_xattr(tree.root, b"user.a")
    found = changes(tree, one, take(tree, "two"))
    assert of(ino, found) == []
    assert set(kinds(found)) <= {InodeChange}


def test_an_append_in_the_tail_block_brings_the_tail_block_and_what_follows(tree: Tree) -> None:
    ino = make_file(tree, tree.root, b"f", b"x" * (3 * BLOCK + 100))
    one = take(tree, "one")
    tree.append(ino, b"y" * BLOCK)
    two = take(tree, "two")
    tree.append(ino, b"z" * 2 * BLOCK)
    found = changes(tree, one, two)
    assert blocks(ino, found) == {3: b"x" * 100 + b"y" * (BLOCK - 100), 4: b"y" * 100}


def test_an_append_of_zeros_brings_no_block(tree: Tree) -> None:
    ino = make_file(tree, tree.root, b"f", b"x" * (3 * BLOCK + 100))
    one = take(tree, "one")
    tree.append(ino, bytes(BLOCK))
    assert blocks(ino, changes(tree, one, take(tree, "two"))) == {}


def test_holes_are_sent_where_blocks_were(tree: Tree) -> None:
    ino = make_file(tree, tree.root, b"f", b"x" * 6 * BLOCK)
    one = take(tree, "one")
    tree.punch(ino, BLOCK, 2 * BLOCK)
    assert blocks(ino, changes(tree, one, take(tree, "two"))) == {1: b"", 2: b""}


def test_truncated_blocks_need_no_records(tree: Tree) -> None:
    ino = make_file(tree, tree.root, b"f", b"x" * 6 * BLOCK)
    one = take(tree, "one")
    tree.truncate(ino, BLOCK + 7)
    assert blocks(ino, changes(tree, one, take(tree, "two"))) == {1: b"x" * 7}


def test_from_inline_to_blocks_and_back(tree: Tree) -> None:
    ino = make_file(tree, tree.root, b"f", b"x" * 9)
    one = take(tree, "one")
    tree.append(ino, b"y" * BLOCK)
    two = take(tree, "two")
    tree.truncate(ino, 0)
    tree.write(ino, 0, b"z")
    three = take(tree, "three")
    assert blocks(ino, changes(tree, one, two)) == {0: b"x" * 9 + b"y" * (BLOCK - 9), 1: b"y" * 9}
    assert kinds(of(ino, changes(tree, two, three))) == [InodeChange]
    assert kinds(of(ino, changes(tree, one, three))) == [InodeChange]


def test_a_file_that_was_shorter_on_the_way_is_compared_past_where_it_ended(tree: Tree) -> None:
    """Its blocks there are new, though the file did not grow: a snapshot on the way owns the holes that they filled."""
    ino = make_file(tree, tree.root, b"f", b"x" * BLOCK)
    tree.truncate(ino, 9 * INDEX)
    one = take(tree, "one")
    tree.truncate(ino, 100)
    take(tree, "between")
    tree.write(ino, 7 * INDEX, b"y" * BLOCK)
    tree.truncate(ino, 9 * INDEX)
    assert blocks(ino, changes(tree, one, take(tree, "two"))) == {0: b"x" * 100, 7 * 512: b"y" * BLOCK}


def test_a_restored_file_brings_only_what_differs(tree: Tree) -> None:
    ino = make_file(tree, tree.root, b"f", b"x" * 100 * BLOCK)
    zero = take(tree, "zero")
    tree.write(ino, 5 * BLOCK, b"y")
    one = take(tree, "one")
    bring_back.restore(tree.active, zero)
    two = take(tree, "two")
    assert blocks(ino, changes(tree, one, two)) == {5: b"x" * BLOCK}
    assert blocks(ino, changes(tree, zero, two)) == {}


def test_a_number_that_is_used_again_is_removed_first(tree: Tree) -> None:
    """An inode whose birth says that the base cannot have seen it brings all it has, whatever the base has there."""
    ino = make_file(tree, tree.root, b"f", b"x" * 3 * BLOCK)
    tree.set_xattr(ino, b"user.a", b"1")
    one = take(tree, "one")
    tree.set_attributes(ino, mode=0o600)
    tree.active.change_inode(ino).birth = one.id
    found = of(ino, changes(tree, one, take(tree, "two")))
    assert kinds(found) == [InodeRemoved, InodeChange, BlockChange, BlockChange, BlockChange, XattrChange]


def test_a_sparse_file_of_the_largest_size_costs_what_is_in_it() -> None:
    class Counting(MemoryKV):
        scans = 0

        def scan(
            self, table: Table, start: bytes, end: bytes, limit: int, reverse: bool = False
        ) -> list[tuple[bytes, bytes]]:
            self.scans += 1
            return super().scan(table, start, end, limit, reverse)

    kv = Counting()
    tree = Tree(memory_store(kv=kv))
    ino = make_file(tree, tree.root, b"f")
    tree.truncate(ino, FILE_SIZE_MAX)
    tree.write(ino, FILE_SIZE_MAX // 2, b"middle")
    one = take(tree, "one")
    tree.write(ino, FILE_SIZE_MAX - 3, b"end")
    two = take(tree, "two")
    tree.truncate(ino, 0)
    tree.truncate(ino, FILE_SIZE_MAX)
    three = take(tree, "three")
    kv.scans = 0
    assert list(blocks(ino, changes(tree, None, two))) == [FILE_SIZE_MAX // 2 // BLOCK, FILE_SIZE_MAX // BLOCK - 1]
    assert list(blocks(ino, changes(tree, one, two))) == [FILE_SIZE_MAX // BLOCK - 1]
    assert set(blocks(ino, changes(tree, two, three)).values()) == {b""}
    assert kv.scans < 200


def test_a_directory_of_many_pages(tree: Tree) -> None:
    directory = make_directory(tree, tree.root, b"d")
    names = [b"n%05d" % number for number in range(2500)]
    for name in names:
        make_file(tree, directory, name)
    one = take(tree, "one")
    for name in names[::2]:
        tree.unlink(directory, name)
    two = take(tree, "two")
    full = of(directory, changes(tree, None, one))
    assert [change.name for change in full if isinstance(change, EntryChange)] == names
    gone = of(directory, changes(tree, one, two))
    assert [change for change in gone if isinstance(change, EntryChange)] == [
        EntryChange(number_of(directory), name, None) for name in names[::2]
    ]


# -- going on ------------------------------------------------------------------------------------------------


def worked(seed: int, count: int = 300) -> Tree:
    tree = memory_tree(clock=Simulated(seed))
    rng = Random(seed)
    for name in ("one", "two", "three", "four", "five"):
        random_changes(tree, rng, count)
        take(tree, name)
    return tree


@pytest.mark.parametrize("is_full", [False, True])
def test_from_every_cursor_the_rest_is_what_would_have_come(is_full: bool) -> None:
    tree = worked(5, 60)
    base, target = (None if is_full else snapshots(tree)[1]), snapshots(tree)[4]
    found = changes(tree, base, target)
    cursor = Cursor(number_of(Ino(0)))
    assert len(found) > 100
    for change in found:
        rest = changes(tree, base, target, cursor)
        assert rest == [each for each in found if not cursor.is_past(each)]
        cursor = cursor.after(change)


@pytest.mark.parametrize("gone", ["two", "three", "four"])
def test_snapshots_in_between_may_be_deleted_meanwhile(gone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_GROUP_RECORD_COUNT_MAX", 3)
    monkeypatch.setattr(module, "_PAGE_KEY_COUNT_MIN", 4)
    monkeypatch.setattr(module, "SCAN_COUNT", 12)
    tree = worked(6)
    one, _, _, _, five = snapshots(tree)
    expected = changes(tree, one, five)
    for stop in (1, 7, 30):
        tree = worked(6)
        one, _, _, _, five = snapshots(tree)
        found: list[Change] = []
        for count, group in enumerate(difference(tree, one, five)):
            found += group.changes
            if count == stop:
                delete.delete(tree.active, tree.store.catalog.by_name(tree.fileset, gone))
        assert found == expected


def test_users_may_write_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_GROUP_RECORD_COUNT_MAX", 2)
    tree = worked(7)
    one, _, _, _, five = snapshots(tree)
    expected = changes(tree, one, five), changes(tree, None, five)
    for base, wanted in zip((one, None), expected, strict=True):
        rng = Random(8)
        found: list[Change] = []
        for group in difference(tree, base, five):
            found += group.changes
            random_changes(tree, rng, 3)
            if rng.random() < 0.1:
                take(tree, f"more-{rng.random()}")
        assert found == wanted


@pytest.mark.parametrize("which", ["one", "five"])
def test_an_end_that_is_deleted_ends_the_difference(which: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_GROUP_RECORD_COUNT_MAX", 2)
    tree = worked(9)
    one, _, _, _, five = snapshots(tree)
    groups = difference(tree, one, five)
    next(groups)
    delete.delete(tree.active, tree.store.catalog.by_name(tree.fileset, which))
    with pytest.raises(SnapshotMissing, match=which):
        list(groups)


def test_a_damaged_block_is_named_by_its_path(tree: Tree) -> None:
    ino = make_file(tree, make_directory(tree, tree.root, b"d"), b"f", b"x" * 3 * BLOCK)
    one = take(tree, "one")
    address, _ = tree.active.block(ino, 1)
    tree.store.blocks.write(address & (1 << 38) - 1, b"something else")
    tree.store.data.drop_cache()
    with pytest.raises(DamagedBlock, match=r"/d/f: block 1 .* snapshot one"):
        changes(tree, None, one)


def test_bytes_on_the_wire_are_little_more_than_changed_blocks() -> None:
    tree = memory_tree(block_size=128 << 10)
    rng = Random(1)
    files = [make_file(tree, tree.root, b"f%d" % number, rng.randbytes(300_000)) for number in range(20)]
    one = take(tree, "one")
    for ino in files:
        tree.write(ino, rng.randrange(200_000), rng.randbytes(1000))
    two = take(tree, "two")
    sent = send(tree, one, two, lambda _: None)
    assert 20 * (128 << 10) <= sent.block_bytes < sent.bytes <= 1.05 * sent.block_bytes


def test_a_stream_holds_nothing_of_this_store_alone(tree: Tree) -> None:
    """No births, access times, or sectors: equal snapshots give equal records wherever they are."""
    ino = make_file(tree, tree.root, b"f", b"x" * BLOCK)
    one = take(tree, "one")
    before = changes(tree, None, one)
    node = tree.active.change_inode(ino)
    node.atime, node.sectors, node.birth = 1, 99, NO_SNAPSHOT
    assert changes(tree, None, take(tree, "two")) == before
    assert stat.S_ISREG(node.mode)
