"""Snapshots that are written to: who sees it, who does not, who may not, and what is left of it."""

from __future__ import annotations

import errno
import stat
from collections.abc import Callable
from typing import NamedTuple

import pytest

from idemfs import FileSystem
from idemfs.api.snapshots import Snapshots
from idemfs.errors import NotPrimary, QuotaExceeded, SnapshotError, SnapshotHeld, SnapshotLocked
from idemfs.format import keys, role
from idemfs.format.role import Role, RoleRecord
from idemfs.format.tables import Snapshot
from idemfs.ids import ROOT_FILESET, Ino
from idemfs.snapshots import bring_back, delete, manage
from idemfs.testing.builders import assert_clean, make_file, memory_tree, reopened
from idemfs.vfs import snapshot_tree
from idemfs.vfs.snapshot_tree import OPERATIONS, SnapshotTree
from idemfs.vfs.tree import Tree

BLOCK = 4096


class Scene(NamedTuple):
    """Three snapshots of a file, with as many blocks of A, B and C; then the active file has four of D."""

    tree: Tree
    ino: Ino
    one: Snapshot
    two: Snapshot
    three: Snapshot


@pytest.fixture
def scene() -> Scene:
    tree = memory_tree()
    ino = make_file(tree, tree.root, b"f", b"A" * BLOCK)
    one = manage.create(tree.store, ROOT_FILESET, "one")
    tree.write(ino, 0, b"B" * 2 * BLOCK)
    two = manage.create(tree.store, ROOT_FILESET, "two")
    tree.write(ino, 0, b"C" * 3 * BLOCK)
    three = manage.create(tree.store, ROOT_FILESET, "three")
    tree.write(ino, 0, b"D" * 4 * BLOCK)
    return Scene(tree, ino, one, two, three)


def content(tree: Tree, snapshot: Snapshot, ino: Ino) -> bytes:
    return tree.snapshot_reader(snapshot).read(ino, 0, 1 << 20)


def written(tree: Tree, snapshot: Snapshot, change: Callable[[SnapshotTree], object]) -> None:
    changing = SnapshotTree(tree, snapshot)
    change(changing)
    changing.close()
    tree.sync()
    assert_clean(tree)


def test_nobody_else_sees_it(scene: Scene) -> None:
    tree, ino, one, two, three = scene
    written(tree, two, lambda inside: inside.write(ino, 100, b"!" * 10))
    assert content(tree, two, ino) == b"B" * 100 + b"!" * 10 + b"B" * (2 * BLOCK - 110)
    assert content(tree, one, ino) == b"A" * BLOCK
    assert content(tree, three, ino) == b"C" * 3 * BLOCK
    assert tree.reader.read(ino, 0, 1 << 20) == b"D" * 4 * BLOCK


def test_a_reader_sees_each_change_at_once(scene: Scene) -> None:
    tree, ino, _, two, _ = scene
    reader = tree.snapshot_reader(two)
    assert reader.read(ino, 0, 3) == b"BBB"
    inside = SnapshotTree(tree, two)
    for count in range(3):
        inside.write(ino, count, b"x")
        assert reader.read(ino, 0, 3) == b"xxx"[: count + 1] + b"BBB"[count + 1 :]
    inside.truncate(ino, 1)
    assert reader.read(ino, 0, 1 << 20) == b"x"
    inside.close()


def test_what_older_ones_saw_through_it_is_shared_not_copied() -> None:
    tree = memory_tree()
    ino = make_file(tree, tree.root, b"f", b"A" * 4 * BLOCK)
    one, two = (manage.create(tree.store, ROOT_FILESET, name) for name in ("one", "two"))
    tree.sync()
    count = tree.store.space.sector_count - tree.store.space.free_sectors()
    written(tree, two, lambda inside: inside.truncate(ino, BLOCK))
    assert content(tree, one, ino) == b"A" * 4 * BLOCK and content(tree, two, ino) == b"A" * BLOCK
    assert tree.store.space.sector_count - tree.store.space.free_sectors() == count
    assert (one.data_bytes, two.data_bytes) == (3 * BLOCK, 0)
    tree.unlink(tree.root, b"f")
    tree.sync()
    assert_clean(tree)
    for snapshot in (two, one):
        delete.delete(tree.active, snapshot)
        tree.sync()
        assert_clean(tree)


def test_what_is_past_its_end_belongs_to_newer_ones() -> None:
    """Bytes that were appended later, in its tail block and behind it, are zeros when the file grows."""
    tree = memory_tree()
    ino = make_file(tree, tree.root, b"f", b"A" * (BLOCK + 10))
    one = manage.create(tree.store, ROOT_FILESET, "one")
    tree.append(ino, b"N" * 3 * BLOCK)
    tree.sync()
    written(tree, one, lambda inside: inside.truncate(ino, 3 * BLOCK))
    assert content(tree, one, ino) == b"A" * (BLOCK + 10) + bytes(2 * BLOCK - 10)
    assert tree.reader.read(ino, 0, 1 << 20) == b"A" * (BLOCK + 10) + b"N" * 3 * BLOCK
    tree.write(ino, 0, b"Z" * 4 * BLOCK)
    tree.sync()
    assert content(tree, one, ino) == b"A" * (BLOCK + 10) + bytes(2 * BLOCK - 10)
    assert_clean(tree)


def test_many_blocks_of_newer_ones_are_hidden_in_several_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot_tree, "_COVERED_STEP_COUNT", 3)
    tree = memory_tree()
    ino = make_file(tree, tree.root, b"f", b"A" * 2000)
    one = manage.create(tree.store, ROOT_FILESET, "one")
    tree.append(ino, b"N" * 11 * BLOCK)
    tree.sync()
    written(tree, one, lambda inside: inside.write(ino, 11 * BLOCK, b"end"))
    assert content(tree, one, ino) == b"A" * 2000 + bytes(11 * BLOCK - 2000) + b"end"


def test_what_is_made_inside_is_nowhere_else(scene: Scene) -> None:
    tree, _, one, two, three = scene

    def change(inside: SnapshotTree) -> None:
        directory = inside.create(inside.root, b"d", stat.S_IFDIR | 0o755, 0, 0)
        ino = inside.create(directory, b"new", stat.S_IFREG | 0o644, 0, 0)
        inside.write(ino, 0, b"new" * 2000)
        inside.set_xattr(ino, b"user.a", b"1")
        inside.unlink(inside.root, b"f")

    written(tree, two, change)
    assert [name for name, _, _ in tree.snapshot_reader(two).entries(tree.root)] == [b"d"]
    for reader in (tree.snapshot_reader(one), tree.snapshot_reader(three), tree.reader):
        assert [name for name, _, _ in reader.entries(tree.root)] == [b"f"]
    # Its number is used by nobody else, and it comes to the active state with a restore.
    bring_back.restore(tree.active, two)
    assert tree.reader.read(tree.reader.lookup(tree.reader.lookup(tree.root, b"d"), b"new"), 0, 6) == b"newnew"
    for snapshot in (one, three):
        assert [name for name, _, _ in tree.snapshot_reader(snapshot).entries(tree.root)] == [b"f"]
    assert_clean(tree)


def test_the_newest_one_stays_as_it_was_written_while_files_change() -> None:
    tree = memory_tree()
    ino = make_file(tree, tree.root, b"f", b"A" * 3 * BLOCK)
    manage.create(tree.store, ROOT_FILESET, "one")
    two = manage.create(tree.store, ROOT_FILESET, "two")
    written(tree, two, lambda inside: inside.write(ino, BLOCK, b"w" * 10))
    tree.write(ino, 0, b"Z" * 2 * BLOCK)
    tree.set_attributes(ino, mode=0o600)
    tree.sync()
    assert content(tree, two, ino) == b"A" * BLOCK + b"w" * 10 + b"A" * (2 * BLOCK - 10)
    assert_clean(tree)
    bring_back.rollback(tree.active, ROOT_FILESET)
    assert tree.reader.read(ino, BLOCK, 11) == b"w" * 10 + b"A"
    tree.write(ino, 0, b"Y" * 2 * BLOCK)
    tree.sync()
    assert_clean(tree)


def test_each_change_gives_another_guid(scene: Scene) -> None:
    tree, ino, _, two, _ = scene
    guids = [two.guid]
    inside = SnapshotTree(tree, two)
    for at in range(3):
        inside.write(ino, at, b"x")
        guids.append(two.guid)
    inside.close()
    assert len(set(guids)) == 4
    SnapshotTree(tree, two).close()
    assert two.guid == guids[-1], "nothing was changed"


def test_who_may_not() -> None:
    tree = memory_tree()
    ino = make_file(tree, tree.root, b"f", b"A" * BLOCK)
    one = manage.create(tree.store, ROOT_FILESET, "one")
    inside = SnapshotTree(tree, one)
    with pytest.raises(SnapshotError, match="open for writing already"):
        SnapshotTree(tree, one)
    manage.hold(tree.store, one, "standby:00")
    with pytest.raises(OSError) as refused:
        inside.write(ino, 0, b"x")
    assert refused.value.errno == errno.EBUSY
    inside.close()
    with pytest.raises(SnapshotHeld, match="bring the standby to a newer one first"):
        SnapshotTree(tree, one)
    manage.release(tree.store, one, "standby:00")
    manage.hold(tree.store, one, "backup")
    with pytest.raises(SnapshotHeld, match="'idemfs snapshot release' lets it go"):
        SnapshotTree(tree, one)
    manage.release(tree.store, one, "backup")
    manage.lock(tree.store, one, tree.store.clock.now_ns() + 10**12)
    with pytest.raises(SnapshotLocked, match="nobody can change it before"):
        SnapshotTree(tree, one)
    assert content(tree, one, ino) == b"A" * BLOCK
    tree.store.small.put(role.KEY, role.pack(RoleRecord(Role.STANDBY)))
    tree.reload_role()
    with pytest.raises(NotPrimary):
        SnapshotTree(tree, one)


def test_a_deleted_one_takes_no_changes(scene: Scene) -> None:
    tree, ino, _, two, _ = scene
    inside = SnapshotTree(tree, two)
    inside.write(ino, 0, b"x")
    delete.delete(tree.active, two)
    for change in (
        lambda: inside.write(ino, 0, b"y"),
        lambda: inside.truncate(ino, 0),
        lambda: inside.unlink(tree.root, b"f"),
    ):
        with pytest.raises(OSError) as refused:
            change()
        assert refused.value.errno == errno.ESTALE
    inside.close()
    tree.sync()
    assert_clean(tree)


@pytest.mark.parametrize("how", ["closed", "door closed", "crash"])
def test_a_file_that_is_open_stays_until_it_is_closed(scene: Scene, how: str) -> None:
    tree, ino, one, two, three = scene
    inside = SnapshotTree(tree, two)
    inside.open(ino)
    inside.unlink(inside.root, b"f")
    inside.write(ino, 0, b"still")
    assert tree.snapshot_reader(two).read(ino, 0, 5) == b"still"
    if how == "crash":
        tree.sync()
        tree = reopened(tree, committed=False)
    elif how == "closed":
        inside.release(ino)
    if how != "crash":
        inside.close()
    tree.sync()
    assert not tree.store.small.scan(*keys.prefix_range(keys.SNAPSHOT_ORPHAN), 10)
    assert tree.snapshot_reader(tree.store.catalog.by_name(ROOT_FILESET, "two")).view.inode(ino) is None
    for snapshot, byte in ((one, b"A"), (three, b"C")):
        assert content(tree, snapshot, ino)[:1] == byte
    assert_clean(tree)


def test_a_crash_takes_back_what_was_not_committed(scene: Scene) -> None:
    tree, ino, *_ = scene
    tree.sync()
    SnapshotTree(tree, scene.two).write(ino, 0, b"lost")
    tree = reopened(tree, committed=False)
    two = tree.store.catalog.by_name(ROOT_FILESET, "two")
    assert content(tree, two, ino) == b"B" * 2 * BLOCK
    assert_clean(tree)


def test_the_log_is_told_nothing(scene: Scene) -> None:
    """Synced writes to the active file are logged by inode number, which is the same in the snapshot."""
    tree, ino, _, two, _ = scene
    tree.sync()
    inside = SnapshotTree(tree, two)
    tree.write(ino, 0, b"a")
    inside.write(ino, 1, b"b")
    inside.sync_file(ino)
    tree = reopened(tree, committed=False)
    assert tree.reader.read(ino, 0, 2) == b"aD"
    assert content(tree, tree.store.catalog.by_name(ROOT_FILESET, "two"), ino)[:2] == b"Bb"


def test_every_change_of_a_tree_is_written_through() -> None:
    """Whatever may change something admits it, so it is one of the operations, or made of them."""
    users = {
        name
        for base in Tree.__mro__
        for name, method in vars(base).items()
        if not name.startswith("_") and "_change" in getattr(getattr(method, "__code__", None), "co_names", ())
    }
    of_filesets = {"make_fileset", "rename_fileset", "attach_fileset", "set_quota", "delete_fileset"}
    assert users - of_filesets <= set(OPERATIONS)


# -- refresh ------------------------------------------------------------------------------------------------


def test_refresh_to_a_newer_one(scene: Scene) -> None:
    tree, ino, one, two, three = scene
    snapshots = Snapshots(tree)
    snapshots.refresh("one", "two")
    assert [content(tree, each, ino)[:1] for each in (one, two, three)] == [b"B", b"B", b"C"]
    assert one.digest == two.digest and one.guid != two.guid
    assert_clean(tree)
    snapshots.refresh("one", "three")
    assert [content(tree, each, ino)[:1] for each in (one, two, three)] == [b"C", b"B", b"C"]
    assert one.digest == three.digest
    assert_clean(tree)
    for name in ("three", "two"):
        snapshots.delete(name)
    assert content(tree, one, ino) == b"C" * 3 * BLOCK
    tree.write(ino, 0, b"E" * 4 * BLOCK)
    tree.sync()
    assert content(tree, one, ino) == b"C" * 3 * BLOCK
    assert_clean(tree)


def test_refresh_to_the_active_state(scene: Scene) -> None:
    tree, ino, one, _, three = scene
    two = Snapshots(tree).refresh("two")
    assert [each.name for each in tree.store.catalog.snapshots(ROOT_FILESET)] == ["one", "three", "two"]
    fresh = tree.store.catalog.by_name(ROOT_FILESET, "two")
    assert fresh.guid.hex() == two.guid
    assert [content(tree, each, ino)[:1] for each in (one, three, fresh)] == [b"A", b"C", b"D"]
    tree.sync()
    assert_clean(tree)


def test_refresh_copies_nothing(scene: Scene) -> None:
    tree, _, _, _, _ = scene
    tree.sync()
    before = tree.store.space.sector_count - tree.store.space.free_sectors()
    Snapshots(tree).refresh("one", "three")
    Snapshots(tree).refresh("two")
    tree.sync()
    tree.sync()
    # What only they had is free.
    assert tree.store.space.sector_count - tree.store.space.free_sectors() == before - 3


def test_an_inode_that_a_refresh_brings_is_preserved_from_then_on() -> None:
    """It was born after the snapshot that now sees it."""
    tree = memory_tree()
    one = manage.create(tree.store, ROOT_FILESET, "one")
    ino = make_file(tree, tree.root, b"later", b"L" * 3 * BLOCK)
    tree.set_xattr(ino, b"user.a", b"1")
    manage.create(tree.store, ROOT_FILESET, "two")
    Snapshots(tree).refresh("one", "two")
    Snapshots(tree).delete("two")
    tree.write(ino, BLOCK, b"Z" * BLOCK)
    tree.set_xattr(ino, b"user.a", b"2")
    tree.sync()
    reader = tree.snapshot_reader(one)
    assert reader.read(ino, 0, 1 << 20) == b"L" * 3 * BLOCK and reader.xattr(ino, b"user.a") == b"1"
    assert_clean(tree)


def test_refresh_refuses(scene: Scene) -> None:
    tree, _, _, two, _ = scene
    snapshots = Snapshots(tree)
    with pytest.raises(SnapshotError, match="is not newer than"):
        snapshots.refresh("two", "one")
    tree.make_fileset(tree.root, b"home", "home", 0, 0)
    with pytest.raises(SnapshotError, match="'later' to refresh to is of another fileset"):
        snapshots.refresh("two", snapshots.create("home@later").operand)
    manage.hold(tree.store, two, "standby:ab")
    with pytest.raises(SnapshotHeld):
        snapshots.refresh("two")
    snapshots.release("two", "standby:ab")
    inside = SnapshotTree(tree, two)
    for name, to in (("two", None), ("two", "three"), ("one", "two")):
        with pytest.raises(SnapshotError, match="open for writing"):
            snapshots.refresh(name, to)
    inside.close()


def test_a_tail_that_a_refresh_lengthens_is_owned_where_one_between_is_shorter() -> None:
    """Going back to the one between cuts the block, which it has a part of."""
    tree = memory_tree()
    ino = make_file(tree, tree.root, b"f", b"A" * 6000)
    one = manage.create(tree.store, ROOT_FILESET, "one")
    manage.create(tree.store, ROOT_FILESET, "two")
    tree.append(ino, b"N" * 6000)
    manage.create(tree.store, ROOT_FILESET, "three")
    snapshots = Snapshots(tree)
    snapshots.refresh("one", "three")
    snapshots.delete("three")
    bring_back.rollback(tree.active, ROOT_FILESET)
    assert content(tree, one, ino) == b"A" * 6000 + b"N" * 6000
    assert tree.reader.read(ino, 0, 1 << 20) == b"A" * 6000
    assert_clean(tree)


def test_a_long_file_is_removed_in_several_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot_tree, "RECLAIM_BLOCK_COUNT", 300)
    tree = memory_tree()
    size = 1000 * BLOCK
    ino = make_file(tree, tree.root, b"f", b"A" * size)
    one, two = (manage.create(tree.store, ROOT_FILESET, name) for name in ("one", "two"))
    written(tree, two, lambda inside: inside.unlink(inside.root, b"f"))
    assert tree.snapshot_reader(two).view.inode(ino) is None
    assert content(tree, one, ino) == b"A" * (1 << 20)
    assert tree.reader.inode(ino).size == size
    assert not tree.store.small.scan(*keys.prefix_range(keys.SNAPSHOT_ORPHAN), 10)


def test_a_deleted_fileset_takes_its_open_snapshot_with_it() -> None:
    tree = memory_tree()
    fileset = tree.make_fileset(tree.root, b"home", "home", 0, 0)
    tree.sync()
    one = manage.create(tree.store, fileset.number, "one")
    inside = SnapshotTree(tree, one)
    inside.create(inside.root, b"f", stat.S_IFREG | 0o644, 0, 0)
    tree.delete_fileset(fileset)
    with pytest.raises(OSError) as refused:
        inside.create(inside.root, b"g", stat.S_IFREG | 0o644, 0, 0)
    assert refused.value.errno == errno.ESTALE
    inside.close()
    tree.sync()
    assert_clean(tree)


def test_a_quota_that_counts_snapshots_counts_what_is_written_to_them() -> None:
    tree = memory_tree()
    root = tree.store.catalog.filesets[ROOT_FILESET]
    ino = make_file(tree, tree.root, b"f", b"A" * BLOCK)
    one = manage.create(tree.store, ROOT_FILESET, "one")
    tree.set_quota(root, quota_bytes=30 * BLOCK, quota_inodes=1)
    written(tree, one, lambda inside: inside.write(ino, 0, b"B" * 40 * BLOCK))
    tree.set_quota(root, quota_bytes=60 * BLOCK, counts_snapshots=True)
    inside = SnapshotTree(tree, one)
    inside.create(inside.root, b"inodes are not counted", stat.S_IFREG | 0o644, 0, 0)
    with pytest.raises(QuotaExceeded):
        inside.write(ino, 40 * BLOCK, b"B" * 40 * BLOCK)
    inside.close()
    assert_clean(tree)


class Keeping(NamedTuple):
    """A way to rely on snapshot ``two``, and how that ends."""

    begin: Callable[[FileSystem], object]
    end: Callable[[FileSystem], object]


KEEPING = {
    "hold": Keeping(lambda fs: fs.snapshots.hold("two", "me"), lambda fs: fs.snapshots.release("two", "me")),
    "clone": Keeping(lambda fs: fs.filesets.clone("two", "/c"), lambda fs: fs.filesets["c"].delete()),
}


@pytest.mark.parametrize("is_closed", [True, False], ids=["closed", "killed"])
@pytest.mark.parametrize("keeping", KEEPING.values(), ids=KEEPING.keys())
def test_a_file_that_was_open_stays_without_a_name_in_a_snapshot_that_is_kept_meanwhile(
    scene: Scene, keeping: Keeping, is_closed: bool
) -> None:
    """Neither closing it nor opening the store changes what somebody relies on."""
    tree, ino, _, two, _ = scene
    inside = SnapshotTree(tree, two)
    inside.open(ino)
    inside.unlink(inside.root, b"f")
    keeping.begin(FileSystem(tree))
    if is_closed:
        inside.close()
    tree.sync()
    as_kept = two.guid, two.digest
    tree = reopened(tree, committed=False)
    two = tree.store.catalog.by_name(ROOT_FILESET, "two")
    assert (two.guid, two.digest) == as_kept
    assert content(tree, two, ino) == b"B" * 2 * BLOCK
    assert_clean(tree)
    keeping.end(FileSystem(tree))
    tree = reopened(tree)
    two = tree.store.catalog.by_name(ROOT_FILESET, "two")
    assert tree.snapshot_reader(two).view.inode(ino) is None and two.digest != as_kept[1]
    assert_clean(tree)
