"""Restore of a file or subtree: what comes back and where, who else notices, and what a crash or an error leaves."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from itertools import product
from random import Random

import pytest

from idemfs import FileSystem
from idemfs.api.view import TreeView
from idemfs.check import find
from idemfs.errors import DamagedBlock, FilesetInUse, QuotaExceeded, SnapshotError, SnapshotExists
from idemfs.format import keys
from idemfs.ids import Ino
from idemfs.snapshots import graft
from idemfs.store import store as store_module
from idemfs.store.store import Store
from idemfs.testing.blocks import CrashingBlocks
from idemfs.testing.builders import assert_clean, memory_store, memory_tree, random_changes
from idemfs.testing.faults import Cut, PowerCut
from idemfs.testing.kv import CrashingKV
from idemfs.vfs.tree import Tree

BLOCK = 4096
Facts = tuple[object, ...]


@pytest.fixture
def fs() -> FileSystem:
    return FileSystem(memory_tree(block_size=BLOCK))


def facts_of(view: TreeView, path: str, *, numbers: bool = True) -> Facts:
    """All that a restore keeps of one inode."""
    status = view.lstat(path)
    what: object = None
    if view.is_symlink(path):
        what = view.readlink(path)
    elif view.is_file(path):
        what = view.read_bytes(path)
    elif view.is_dir(path):
        what = sorted(view.listdir(path))
    names = view.listxattr(path, follow_symlinks=False)
    attributes = {name: view.getxattr(path, name, follow_symlinks=False) for name in names}
    number = status.st_ino if numbers else None
    return status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, number, what, attributes


def subtree_of(view: TreeView, top: str, *, numbers: bool = True) -> dict[str, Facts]:
    """The facts of all below ``top``, and of itself, by paths from there."""
    found = {"": facts_of(view, top, numbers=numbers)}
    if view.is_dir(top) and not view.is_symlink(top):
        for where, directories, files in view.walk(top):
            for name in (*directories, *files):
                path = os.path.join(where, name)
                found[path.removeprefix(top)] = facts_of(view, path, numbers=numbers)
    return found


def furnish(fs: FileSystem) -> None:
    rng = Random(5)
    fs.makedirs("/docs/deep/er")
    fs.mkdir("/other")
    for number, path in enumerate(("/docs/a", "/docs/deep/b", "/docs/deep/er/c", "/other/x")):
        fs.write_bytes(path, rng.randbytes(100 + number * 7000))
        fs.setxattr(path, "user.n", b"%d" % number)
    fs.write_bytes("/docs/long", rng.randbytes(BLOCK * 600))
    fs.link("/docs/a", "/docs/deep/a2")
    fs.link("/docs/deep/b", "/other/b2")
    fs.symlink("../a", "/docs/deep/s")
    fs.setxattr("/docs/deep", "user.d", b"d" * 3000)


def spoil(fs: FileSystem) -> None:
    fs.write_bytes("/docs/a", b"new")
    fs.unlink("/docs/deep/er/c")
    fs.write_bytes("/docs/deep/er/c", b"another one")
    fs.rename("/docs/deep/s", "/docs/s")
    fs.write_bytes("/docs/deep/more", b"m" * 20_000)
    fs.makedirs("/docs/made/since")
    fs.removexattr("/docs/deep", "user.d")
    with fs.open("/docs/long", "r+b") as file:
        file.seek(300 * BLOCK + 7)
        file.write(b"x" * 5000)
        file.truncate(500 * BLOCK + 9)
    fs.write_bytes("/other/x", b"stranger")


def test_a_directory_becomes_what_it_was_with_the_same_numbers(fs: FileSystem) -> None:
    furnish(fs)
    fs.snapshots.create("s")
    spoil(fs)
    fs.snapshots.create("newer")
    spoiled, outside = subtree_of(fs, "/docs"), subtree_of(fs, "/other")
    done = fs.snapshots.restore("s", path="/docs")
    assert subtree_of(fs, "/docs") == subtree_of(fs.snapshots["s"], "/docs")
    assert subtree_of(fs, "/other") == outside
    assert fs.stat("/docs/a").st_nlink == fs.stat("/other/b2").st_nlink == 2
    assert done.undo is not None and done.undo.name == "before-restore-s"
    assert (done.inode_count, done.renumbered_count) == (8, 0)
    assert [each.name for each in fs.snapshots] == ["s", "newer", "before-restore-s"]
    assert_clean(fs.tree)
    fs.snapshots.restore(done.undo.name, path="/docs")
    assert subtree_of(fs, "/docs") == spoiled
    assert_clean(fs.tree)


def test_what_is_equal_already_costs_nothing(fs: FileSystem) -> None:
    furnish(fs)
    fs.snapshots.create("s")
    before = fs.tree.active.fileset(fs.tree.root).digest
    done = fs.snapshots.restore("s", path="/docs")
    assert done.undo is not None
    assert fs.snapshots.info(done.undo.name).owned_bytes == 0
    assert fs.tree.active.fileset(fs.tree.root).digest == before


def test_one_file_comes_back_in_place_and_nothing_else_does(fs: FileSystem) -> None:
    furnish(fs)
    fs.snapshots.create("s")
    number = fs.stat("/docs/deep/er/c").st_ino
    spoil(fs)
    fs.snapshots.restore("s", path="/docs/deep/er/c")
    assert fs.read_bytes("/docs/deep/er/c") == fs.snapshots["s"].read_bytes("/docs/deep/er/c")
    assert fs.stat("/docs/deep/er/c").st_ino == number
    assert fs.read_bytes("/docs/a") == b"new"
    fs.rmtree("/docs/deep")
    with pytest.raises(FileNotFoundError, match="/docs/deep/er is there no more"):
        fs.snapshots.restore("s", path="/docs/deep/er/c")
    assert_clean(fs.tree)


def test_no_data_is_written(fs: FileSystem) -> None:
    furnish(fs)
    fs.snapshots.create("s")
    fs.rmtree("/docs")
    fs.sync()
    used, free = fs.tree.store.blocks.used_bytes(), fs.tree.store.space.free_sectors()
    fs.snapshots.restore("s", path="/docs")
    fs.snapshots.restore("s", path="/docs", to="/again")
    assert (fs.tree.store.blocks.used_bytes(), fs.tree.store.space.free_sectors()) == (used, free)
    assert subtree_of(fs, "/again", numbers=False) == subtree_of(fs.snapshots["s"], "/docs", numbers=False)
    assert_clean(fs.tree)


def test_a_file_that_grew_in_its_last_block_is_cut_again(fs: FileSystem) -> None:
    fs.write_bytes("/f", b"1" * (BLOCK + 100))
    fs.snapshots.create("s")
    with fs.open("/f", "ab") as file:
        file.write(b"2" * 200)
    fs.sync()
    fs.snapshots.restore("s", path="/f", to="/g")
    assert fs.read_bytes("/g") == b"1" * (BLOCK + 100)
    fs.snapshots.restore("s", path="/f")
    assert fs.read_bytes("/f") == b"1" * (BLOCK + 100)
    with fs.open("/f", "r+b") as file:
        file.truncate(BLOCK + 300)
    assert fs.read_bytes("/f")[BLOCK + 100 :] == bytes(200)
    assert_clean(fs.tree)


# -- hard links --------------------------------------------------------------------------------------


def test_a_link_to_outside_stays_one_while_the_file_has_not_changed(fs: FileSystem) -> None:
    furnish(fs)
    fs.snapshots.create("s")
    fs.unlink("/docs/deep/b")
    fs.snapshots.restore("s", path="/docs")
    assert fs.stat("/docs/deep/b").st_ino == fs.stat("/other/b2").st_ino
    assert fs.stat("/other/b2").st_nlink == 2
    assert_clean(fs.tree)


@pytest.mark.parametrize("size", [100, BLOCK + 700, 3 * BLOCK])
def test_a_file_that_was_rewritten_with_the_same_content_has_not_changed(fs: FileSystem, size: int) -> None:
    """As on a standby, which got it twice, or after a sync that compares by content."""
    furnish(fs)
    content = bytes(range(1, 251)) * 100
    fs.write_bytes("/docs/deep/b", content[:size])
    fs.snapshots.create("s")
    before = fs.stat("/other/b2")
    with fs.open("/other/b2", "r+b") as file:
        file.write(bytes(2 * size))
        file.seek(0)
        file.write(content[:size])
        file.truncate(size)
    fs.unlink("/docs/deep/b")
    fs.utime("/other/b2", ns=(before.st_atime_ns, before.st_mtime_ns))
    done = fs.snapshots.restore("s", path="/docs")
    assert done.renumbered_count == 0
    assert fs.stat("/docs/deep/b").st_ino == fs.stat("/other/b2").st_ino == before.st_ino
    assert fs.read_bytes("/docs/deep/b") == content[:size]
    assert_clean(fs.tree)


def test_a_file_that_changed_is_another_one_for_its_names_outside(fs: FileSystem) -> None:
    furnish(fs)
    fs.snapshots.create("s")
    fs.write_bytes("/other/b2", b"changed")
    done = fs.snapshots.restore("s", path="/docs")
    assert done.renumbered_count == 1
    assert fs.read_bytes("/other/b2") == b"changed"
    assert fs.stat("/other/b2").st_nlink == fs.stat("/docs/deep/b").st_nlink == 1
    assert fs.read_bytes("/docs/deep/b") == fs.snapshots["s"].read_bytes("/docs/deep/b")
    assert_clean(fs.tree)


def test_what_was_moved_away_stays_there_and_comes_back_as_another_one(fs: FileSystem) -> None:
    furnish(fs)
    fs.snapshots.create("s")
    fs.rename("/docs", "/docs.old")
    moved = subtree_of(fs, "/docs.old")
    done = fs.snapshots.restore("s", path="/docs")
    assert done.renumbered_count == done.inode_count - 1, "the file that is linked to from outside is the same one"
    assert subtree_of(fs, "/docs.old") == moved
    assert subtree_of(fs, "/docs", numbers=False) == subtree_of(fs.snapshots["s"], "/docs", numbers=False)
    assert fs.stat("/docs/a").st_ino == fs.stat("/docs/deep/a2").st_ino != fs.stat("/docs.old/a").st_ino
    assert_clean(fs.tree)


def test_a_file_of_a_directory_that_was_moved_away_is_not_linked_to_it(fs: FileSystem) -> None:
    furnish(fs)
    fs.snapshots.create("s")
    fs.rename("/docs", "/docs.old")
    fs.mkdir("/docs")
    fs.snapshots.restore("s", path="/docs/long")
    assert fs.stat("/docs/long").st_nlink == fs.stat("/docs.old/long").st_nlink == 1
    assert fs.read_bytes("/docs/long") == fs.read_bytes("/docs.old/long")
    assert_clean(fs.tree)


def test_what_was_moved_in_goes_and_keeps_its_names_elsewhere(fs: FileSystem) -> None:
    furnish(fs)
    fs.snapshots.create("s")
    fs.link("/other/x", "/docs/x")
    fs.rename("/other/b2", "/docs/deep/b3")
    fs.snapshots.restore("s", path="/docs")
    assert subtree_of(fs, "/docs") == subtree_of(fs.snapshots["s"], "/docs")
    assert fs.stat("/other/x").st_nlink == 1
    assert fs.listdir("/other") == ["x"]
    assert fs.stat("/docs/deep/b").st_nlink == 1
    assert_clean(fs.tree)


def test_a_file_takes_the_place_of_a_directory_and_the_other_way_round(fs: FileSystem) -> None:
    fs.mkdir("/a")
    fs.write_bytes("/a/f", b"f")
    fs.write_bytes("/b", b"b")
    fs.snapshots.create("s")
    fs.rename("/a", "/c")
    fs.rename("/b", "/a")
    fs.rename("/c", "/b")
    for path in ("/a", "/b"):
        fs.snapshots.restore("s", path=path)
        assert_clean(fs.tree)
    assert fs.read_bytes("/b") == b"b"
    assert fs.read_bytes("/a/f") == b"f"
    assert fs.stat("/").st_nlink == 3


def test_who_has_a_file_open_goes_on_reading_it_after_it_went(fs: FileSystem) -> None:
    fs.mkdir("/d")
    fs.snapshots.create("s")
    content = Random(1).randbytes(BLOCK * 3)
    fs.write_bytes("/d/f", content)
    with fs.open("/d/f", "rb", buffering=0) as file:
        fs.snapshots.restore("s", path="/d")
        assert fs.listdir("/d") == []
        assert file.read() == content
    assert fs.tree.active.fileset(fs.tree.root).inode_count == 2
    assert_clean(fs.tree)


def test_a_file_that_was_removed_while_it_is_open_comes_back_as_itself(fs: FileSystem) -> None:
    fs.write_bytes("/f", b"1" * 9000)
    fs.snapshots.create("s")
    with fs.open("/f", "r+b", buffering=0) as file:
        file.write(b"2" * 9000)
        fs.unlink("/f")
        fs.snapshots.restore("s", path="/f")
        assert file.read() == b""
        file.seek(0)
        assert file.read() == b"1" * 9000
    assert fs.read_bytes("/f") == b"1" * 9000
    assert_clean(fs.tree)


# -- elsewhere ---------------------------------------------------------------------------------------


def test_what_is_restored_aside_shares_nothing_but_data_with_what_is_there(fs: FileSystem) -> None:
    furnish(fs)
    fs.snapshots.create("s")
    fs.unlink("/docs/deep/er/c")
    before = subtree_of(fs, "/docs")
    done = fs.snapshots.restore("s", path="/docs", to="/other/docs.then")
    assert done.undo is None and [each.name for each in fs.snapshots] == ["s"]
    assert subtree_of(fs, "/docs") == before
    snapshot = fs.snapshots["s"]
    assert subtree_of(fs, "/other/docs.then", numbers=False) == subtree_of(snapshot, "/docs", numbers=False)
    assert fs.stat("/other/docs.then/deep/er/c").st_ino == snapshot.stat("/docs/deep/er/c").st_ino
    assert fs.stat("/other/docs.then/a").st_ino == fs.stat("/other/docs.then/deep/a2").st_ino
    assert fs.stat("/other/docs.then/deep/b").st_nlink == 1
    fs.write_bytes("/other/docs.then/long", b"changed")
    assert subtree_of(fs, "/docs") == before
    assert_clean(fs.tree)


def test_where_something_is_nothing_is_restored_to(fs: FileSystem) -> None:
    furnish(fs)
    fs.snapshots.create("s")
    for to, number in (("/other/x", errno.EEXIST), ("/other", errno.ENOTEMPTY), ("/no/where", errno.ENOENT)):
        with pytest.raises(OSError) as refused:
            fs.snapshots.restore("s", path="/docs", to=to)
        assert refused.value.errno == number
    fs.mkdir("/empty")
    with pytest.raises(FileExistsError):
        fs.snapshots.restore("s", path="/docs/a", to="/empty")
    with pytest.raises(FileNotFoundError):
        fs.snapshots.restore("s", path="/docs/none", to="/new")
    with pytest.raises(OSError, match="the root is restored with the whole fileset"):
        fs.snapshots.restore("s", path="/")
    with pytest.raises(SnapshotError, match="needs a path"):
        fs.snapshots.restore("s", to="/new")  # type: ignore[call-overload]
    with pytest.raises(SnapshotExists):
        fs.snapshots.restore("s", "s", path="/docs")
    assert [each.name for each in fs.snapshots] == ["s"]


def test_a_dry_run_tells_and_does_nothing(fs: FileSystem) -> None:
    furnish(fs)
    fs.snapshots.create("s")
    spoil(fs)
    fs.sync()
    before = fs.tree.active.fileset(fs.tree.root).digest
    would = fs.snapshots.restore("s", path="/docs", dry_run=True)
    assert (would.undo, would.inode_count, would.renumbered_count, would.removed_count) == (None, 8, 0, 4)
    aside = fs.snapshots.restore("s", path="/docs", to="/new", dry_run=True)
    assert (aside.renumbered_count, aside.removed_count) == (7, 0)
    fs.sync()
    assert fs.tree.active.fileset(fs.tree.root).digest == before
    assert [each.name for each in fs.snapshots] == ["s"]


def test_into_another_fileset_numbers_in_use_are_replaced_and_strangers_stay(fs: FileSystem) -> None:
    furnish(fs)
    fs.dynamic_link("/docs/a", "/docs/dynamic")
    fs.dynamic_link("/other/x", "/docs/leads-out")
    fs.snapshots.create("s")
    home = fs.filesets.create("/home")
    for number in range(6):
        fs.write_bytes(f"/home/f{number}", b"stranger")
    home.snapshots.create("before")
    strangers = {name: facts_of(fs, f"/home/{name}") for name in fs.listdir("/home")}
    source = fs.tree.active.fileset(fs.tree.root)
    digest = source.digest
    done = fs.snapshots.restore("s", path="/docs", to="/home/docs")
    assert 0 < done.renumbered_count < done.inode_count
    snapshot = subtree_of(fs.snapshots["s"], "/docs", numbers=False)
    restored = subtree_of(fs, "/home/docs", numbers=False)
    assert restored.pop("/leads-out") != snapshot.pop("/leads-out")
    assert {path for path in snapshot if restored[path][:3] != snapshot[path][:3]} == set()
    assert restored["/deep"] == snapshot["/deep"] and restored["/long"] == snapshot["/long"]
    assert fs.stat("/home/docs/a").st_ino == fs.stat("/home/docs/deep/a2").st_ino
    home.snapshots.create("after")
    assert fs.stat("/home/docs/dynamic").st_ino == fs.stat("/home/docs/a").st_ino
    assert not fs.is_dynamic_link("/home/docs/leads-out") and not fs.exists("/home/docs/leads-out")
    assert {name: facts_of(fs, f"/home/{name}") for name in strangers} == strangers
    fs.sync()
    assert source.digest == digest, "the fileset that it came from has changed"
    assert [each.name for each in home.snapshots] == ["before", "after"]
    assert_clean(fs.tree)
    home.snapshots.restore("before")
    assert sorted(fs.listdir("/home")) == sorted(strangers)
    assert_clean(fs.tree)


def test_a_whole_snapshot_fills_an_empty_fileset_and_an_empty_directory(fs: FileSystem) -> None:
    furnish(fs)
    fs.snapshots.create("s")
    fs.filesets.create("/home")
    fs.filesets.create("/away")
    fs.mkdir("/away/in")
    fs.snapshots.restore("s", path="/", to_fileset="home")
    fs.snapshots.restore("s", path="/", to="/away/in")
    expected = subtree_of(fs.snapshots["s"], "/", numbers=False)
    for where in ("/home", "/away/in"):
        assert {path.lstrip("/") for path in subtree_of(fs, where)} == {path.lstrip("/") for path in expected}
        assert fs.stat(where).st_mtime_ns == fs.snapshots["s"].stat("/").st_mtime_ns
        assert fs.read_bytes(f"{where}/docs/long") == fs.snapshots["s"].read_bytes("/docs/long")
    with pytest.raises(OSError) as refused:
        fs.snapshots.restore("s", path="/", to_fileset="home")
    assert refused.value.errno == errno.ENOTEMPTY
    fs.write_bytes("/home/after", b"1")
    assert_clean(fs.tree)


# -- refusals and errors -------------------------------------------------------------------------------


def test_a_fileset_that_would_go_is_refused(fs: FileSystem) -> None:
    fs.mkdir("/d")
    fs.snapshots.create("s")
    fs.filesets.create("/d/home")
    fs.snapshots.create("with")
    with pytest.raises(FilesetInUse, match="'home' appears in what would go"):
        fs.snapshots.restore("s", path="/d")
    fs.write_bytes("/d/f", b"f")
    fs.write_bytes("/d/home/kept", b"k")
    fs.snapshots.restore("with", path="/d")
    assert fs.listdir("/d") == ["home"]
    assert fs.read_bytes("/d/home/kept") == b"k"
    assert_clean(fs.tree)


@pytest.mark.parametrize("counts", [False, True])
def test_a_quota_holds_and_what_does_not_fit_changes_nothing(fs: FileSystem, counts: bool) -> None:
    furnish(fs)
    fs.snapshots.create("s")
    home = fs.filesets.create("/home")
    home.set_quota(size=1 << 20, counts_snapshots=counts)
    fs.write_bytes("/home/f", b"f")
    fs.sync()
    digest = fs.tree.active.fileset(Ino(fs.stat("/home").st_ino)).digest
    with pytest.raises(QuotaExceeded):
        fs.snapshots.restore("s", path="/docs", to="/home/docs")
    home.set_quota(size=0, inodes=5)
    with pytest.raises(QuotaExceeded):
        fs.snapshots.restore("s", path="/docs", to="/home/docs")
    fs.sync()
    assert fs.tree.active.fileset(Ino(fs.stat("/home").st_ino)).digest == digest
    assert len(home.snapshots) == 0
    assert_clean(fs.tree)
    home.set_quota(inodes=10)
    fs.snapshots.restore("s", path="/docs", to="/home/docs")
    assert_clean(fs.tree)


def test_an_error_halfway_undoes_all(fs: FileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "GROUP_RECORD_COUNT_MAX", 60)
    furnish(fs)
    fs.snapshots.create("s")
    spoil(fs)
    fs.sync()
    before = fs.tree.active.fileset(fs.tree.root).digest
    trimmed: list[object] = []

    def trim(*arguments: object) -> None:
        trimmed.append(arguments)
        if len(trimmed) == 2:
            raise DamagedBlock("this block cannot be read")

    monkeypatch.setattr(graft, "trim_tail", trim)
    for to in (None, "/new"):
        trimmed.clear()
        with pytest.raises(DamagedBlock):
            fs.snapshots.restore("s", path="/docs", to=to)
        fs.sync()
        assert fs.tree.active.fileset(fs.tree.root).digest == before
        assert [each.name for each in fs.snapshots] == ["s"]
        assert fs.tree.store.small.get(keys.UNDOING) is None
        assert_clean(fs.tree)


# -- crashes -------------------------------------------------------------------------------------------


class OrderedCut(Cut):
    """A power cut whose time is said later."""

    def order(self, after: int | None) -> None:
        self._after = after


def every_cut(
    prepare: Callable[[FileSystem], None], step: Callable[[FileSystem], object], at: int | None, effective: bool = False
) -> tuple[Store, int, bool]:
    """A store on which the power went at one write point of ``step``, with its write points, and whether it did."""
    cut = OrderedCut(effective=effective)
    kv, blocks = CrashingKV(cut), CrashingBlocks(cut)
    store = memory_store(block_size=BLOCK, kv=kv, blocks=blocks)
    fs = FileSystem(Tree(store))
    prepare(fs)
    fs.sync()
    begun = cut.count
    cut.order(None if at is None else begun + at)
    try:
        step(fs)
        done = True
    except PowerCut:
        done = False
    count = cut.count - begun
    store.abandon()
    fresh = Cut()
    rng = Random(at or 0)
    return Store(store.superblock, kv.crash(rng, fresh), blocks.crash(rng, fresh), store.clock), count, done


@pytest.mark.parametrize("to", [None, "/other/docs", "/home/docs"])
def test_the_power_goes_at_every_write_point(to: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "GROUP_RECORD_COUNT_MAX", 8)
    states: list[dict[str, Facts]] = []

    def prepare(fs: FileSystem) -> None:
        furnish(fs)
        fs.filesets.create("/home")
        fs.write_bytes("/home/f", b"f" * 5000)
        fs.snapshots.create("s")
        spoil(fs)
        states.append(subtree_of(fs, "/"))

    def step(fs: FileSystem) -> None:
        fs.snapshots.restore("s", path="/docs", to=to)
        states.append(subtree_of(fs, "/"))

    _, count, done = every_cut(prepare, step, None)
    before, after = states[-2:]
    assert done and count > 12 and before != after
    outcomes = set()
    for at, effective in product(range(1, count + 1), (False, True)):
        store, _, _ = every_cut(prepare, step, at, effective)
        looked = list(find(Store(store.superblock, store.kv, store.blocks, store.clock, readonly=True)))
        assert looked == [], (at, looked)
        again = FileSystem(Tree(store))
        found = subtree_of(again, "/")
        assert found in (before, after), at
        outcomes.add(found == after)
        assert again.tree.store.small.get(keys.UNDOING) is None
        assert_clean(again.tree)
    assert outcomes == {False, True}


@pytest.mark.parametrize("seed", range(12))
def test_random_trees_come_back(seed: int) -> None:
    tree = memory_tree(block_size=BLOCK, compression="zstd" if seed % 2 else "none")
    fs = FileSystem(tree)
    rng = Random(seed)
    random_changes(tree, rng, 150)
    fs.snapshots.create("s")
    random_changes(tree, rng, 60)
    fs.snapshots.create("t")
    random_changes(tree, rng, 60)
    home = fs.filesets.create("/home")
    view = fs.snapshots["s"]
    tops = [name for name in view.listdir("/") if view.is_dir(f"/{name}") and not view.is_symlink(f"/{name}")]
    for name in tops:
        fs.snapshots.restore("s", path=f"/{name}", to=f"/home/{name}")
        fs.snapshots.restore("s", path=f"/{name}")
        expected = subtree_of(view, f"/{name}", numbers=False)
        for top in (f"/{name}", f"/home/{name}"):
            found = subtree_of(fs, top, numbers=False)
            links = {path for path in expected if found[path] != expected[path]}
            assert found.keys() == expected.keys()
            assert all(fs.is_symlink(top + path) for path in links), "only dynamic links lead elsewhere"
        assert_clean(tree)
    assert tops and len(home.snapshots) == 0
    fs.snapshots.delete("s", "t")
    assert_clean(tree)
