"""Differences with paths: every kind of change, told once, and nothing that is equal again."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest

from idemfs import Change, ChangeKind, FileSystem
from idemfs.clock import System
from idemfs.errors import SnapshotError, SnapshotMissing
from idemfs.snapshots import diff as diff_module
from idemfs.testing.builders import assert_clean, memory_store, random_changes
from idemfs.vfs.tree import Tree

ADDED, REMOVED, MODIFIED, RENAMED = ChangeKind.ADDED, ChangeKind.REMOVED, ChangeKind.MODIFIED, ChangeKind.RENAMED
METADATA = ChangeKind.METADATA


@pytest.fixture
def fs() -> Iterator[FileSystem]:
    with FileSystem(Tree(memory_store(clock=System()))) as fs:
        yield fs
        fs.sync()
        assert_clean(fs.tree)


def changes(fs: FileSystem, base: str = "base", target: str | None = None) -> list[Change]:
    """Without the directories of which entries alone changed, without sizes and ranges, and sorted."""
    found = [bare(each) for each in fs.snapshots.diff(base, target) if each.what != ("entries",)]
    return sorted(found, key=lambda each: (each.path, each.kind.value, each.new_path or ""))


def bare(change: Change) -> Change:
    return Change(*change[:4])


def test_each_kind_of_change(fs: FileSystem) -> None:
    for name in ("content", "grown", "cut", "mode", "owner", "time", "xattr", "renamed", "moved", "gone", "same"):
        fs.write_bytes(f"/{name}", name.encode() * 3000)
    fs.makedirs("/d")
    fs.symlink("x", "/link")
    fs.snapshots.create("base")
    with fs.open("/content", "r+b") as file:
        file.seek(9000)
        file.write(b"!")
    with fs.open("/grown", "ab") as file:
        file.write(b"!")
    fs.truncate("/cut", 100)
    fs.chmod("/mode", 0o600)
    fs.chown("/owner", 5, 5)
    fs.utime("/time", ns=(1, 1))
    fs.setxattr("/xattr", "user.a", b"1")
    fs.rename("/renamed", "/new-name")
    fs.rename("/moved", "/d/moved")
    fs.write_bytes("/d/moved", b"and changed")
    fs.unlink("/gone")
    fs.mkdir("/made")
    fs.write_bytes("/made/f", b"")
    wanted = [
        Change(MODIFIED, "/content", None, ("content",)),
        Change(MODIFIED, "/cut", None, ("content",)),
        Change(REMOVED, "/gone"),
        Change(MODIFIED, "/grown", None, ("content",)),
        Change(ADDED, "/made"),
        Change(ADDED, "/made/f"),
        Change(METADATA, "/mode", None, ("mode",)),
        Change(RENAMED, "/moved", "/d/moved", ("content",)),
        Change(METADATA, "/owner", None, ("owner",)),
        Change(RENAMED, "/renamed", "/new-name"),
        Change(METADATA, "/time", None, ("times",)),
        Change(METADATA, "/xattr", None, ("xattrs",)),
    ]
    assert changes(fs) == wanted
    fs.snapshots.create("target")
    fs.rmtree("/d")
    fs.write_bytes("/content", b"later")
    assert changes(fs, target="target") == wanted
    entries = {each.path for each in fs.snapshots.diff("base", "target") if each.what == ("entries",)}
    assert entries == {"/", "/d"}


def test_what_was_changed_and_changed_back_is_not_told(fs: FileSystem) -> None:
    for size in (10, 10_000):
        fs.write_bytes(f"/{size}", b"a" * size)
        fs.setxattr(f"/{size}", "user.a", b"1")
    fs.utime("/", ns=(7, 7))
    fs.snapshots.create("base")
    for size in (10, 10_000):
        path, before = f"/{size}", fs.stat(f"/{size}")
        fs.write_bytes(path, b"b" * size * 2)
        fs.write_bytes(path, b"a" * size)
        fs.chmod(path, 0o600)
        fs.chmod(path, before.st_mode & 0o7777)
        fs.setxattr(path, "user.a", b"2")
        fs.setxattr(path, "user.b", b"2")
        fs.setxattr(path, "user.a", b"1")
        fs.removexattr(path, "user.b")
        fs.rename(path, "/elsewhere")
        fs.rename("/elsewhere", path)
        fs.link(path, "/link")
        fs.unlink("/link")
        fs.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    fs.write_bytes("/new", b"")
    fs.unlink("/new")
    fs.utime("/", ns=(7, 7))
    assert list(fs.snapshots.diff("base")) == []


def test_between_inline_and_blocks(fs: FileSystem) -> None:
    fs.write_bytes("/f", b"a" * 1000 + bytes(200))
    fs.snapshots.create("base")
    time = fs.stat("/f").st_mtime_ns
    fs.truncate("/f", 100_000)
    fs.truncate("/f", 1200)
    fs.utime("/f", ns=(time, time))
    assert list(fs.snapshots.diff("base")) == []
    with fs.open("/f", "r+b") as file:
        file.write(b"b")
    assert changes(fs) == [Change(MODIFIED, "/f", None, ("content",))]


def test_the_tail_block_past_an_old_end(fs: FileSystem) -> None:
    fs.write_bytes("/f", b"a" * 5000)
    fs.snapshots.create("base")
    time = fs.stat("/f").st_mtime_ns
    with fs.open("/f", "ab") as file:
        file.write(b"b" * 100)
    fs.snapshots.create("longer")
    fs.truncate("/f", 5000)
    fs.utime("/f", ns=(time, time))
    assert list(fs.snapshots.diff("base")) == []
    assert changes(fs, "longer")[0].what == ("content",)
    assert changes(fs, "base", "longer")[0].what == ("content",)


def test_hard_links_count_by_name(fs: FileSystem) -> None:
    fs.makedirs("/d")
    fs.write_bytes("/a", b"1")
    fs.link("/a", "/b")
    fs.link("/a", "/c")
    fs.utime("/d", ns=(7, 7))
    fs.snapshots.create("base")
    fs.unlink("/a")
    fs.unlink("/b")
    fs.link("/c", "/d/x")
    assert changes(fs) == [Change(RENAMED, "/a", "/d/x"), Change(REMOVED, "/b", None, ("link",))]
    fs.write_bytes("/c", b"22")
    fs.link("/c", "/d/y")
    assert changes(fs) == [Change(RENAMED, "/a", "/d/x", ("content",)), Change(RENAMED, "/b", "/d/y")]
    fs.unlink("/d/y")
    fs.unlink("/d/x")
    fs.utime("/d", ns=(7, 7))
    assert changes(fs) == [
        Change(REMOVED, "/a", None, ("link",)),
        Change(REMOVED, "/b", None, ("link",)),
        Change(MODIFIED, "/c", None, ("content",)),
    ]
    fs.snapshots.create("one")
    fs.link("/c", "/more")
    fs.write_bytes("/first", b"1")
    fs.link("/first", "/second")
    assert changes(fs, "one") == [
        Change(ADDED, "/first"),
        Change(ADDED, "/more", None, ("link",)),
        Change(ADDED, "/second", None, ("link",)),
    ]


def test_a_file_that_is_saved_anew_is_one_change(fs: FileSystem) -> None:
    fs.write_bytes("/f", b"1")
    fs.write_bytes("/kept", b"1")
    fs.snapshots.create("base")
    fs.write_bytes("/f.new", b"2")
    fs.rename("/f.new", "/f")
    fs.rename("/kept", "/elsewhere")
    fs.write_bytes("/kept", b"3")
    assert changes(fs) == [
        Change(MODIFIED, "/f", None, ("replaced",)),
        Change(ADDED, "/kept"),
        Change(RENAMED, "/kept", "/elsewhere"),
    ]


def test_a_renamed_directory_is_one_change(fs: FileSystem) -> None:
    fs.makedirs("/a/b/c")
    for index in range(50):
        fs.write_bytes(f"/a/b/c/{index}", b"1")
    fs.snapshots.create("base")
    fs.rename("/a/b", "/z")
    assert changes(fs) == [Change(RENAMED, "/a/b", "/z")]
    fs.write_bytes("/z/c/7", b"22")
    fs.unlink("/z/c/8")
    fs.write_bytes("/z/c/new", b"")
    assert changes(fs) == [
        Change(RENAMED, "/a/b", "/z"),
        Change(REMOVED, "/a/b/c/8"),
        Change(MODIFIED, "/z/c/7", None, ("content",)),
        Change(ADDED, "/z/c/new"),
    ]


def test_a_removed_tree_has_the_paths_that_it_had(fs: FileSystem) -> None:
    fs.makedirs("/a/b/c")
    fs.write_bytes("/a/b/c/f", b"1")
    fs.snapshots.create("base")
    fs.rename("/a", "/x")
    fs.rmtree("/x")
    assert [each.path for each in changes(fs)] == ["/a", "/a/b", "/a/b/c", "/a/b/c/f"]
    assert {each.kind for each in changes(fs)} == {REMOVED}


def test_unlinked_and_still_open_is_removed(fs: FileSystem) -> None:
    fs.write_bytes("/f", b"1")
    fs.snapshots.create("base")
    with fs.open("/f", "r+b", buffering=0) as file:
        fs.unlink("/f")
        file.write(b"more")
        with fs.open("/new", "wb", buffering=0) as new:
            fs.unlink("/new")
            new.write(b"1")
            assert changes(fs) == [Change(REMOVED, "/f")]


def test_ends(fs: FileSystem) -> None:
    fs.snapshots.create("base")
    fs.write_bytes("/\udcff", b"")
    fs.snapshots.create("target")
    assert list(fs.snapshots.diff("base", "base")) == []
    assert list(fs.snapshots.diff("base")) == list(fs.snapshots.diff("base", "target"))
    assert changes(fs) == [Change(ADDED, "/\udcff")]
    with pytest.raises(SnapshotError, match="older one first"):
        fs.snapshots.diff("target", "base")
    with pytest.raises(SnapshotMissing):
        fs.snapshots.diff("base", "no")
    later = fs.snapshots.diff("base", "target")
    fs.snapshots.delete("base")
    with pytest.raises(SnapshotMissing):
        list(later)


def test_pages_go_on_where_they_ended(fs: FileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when a snapshot in between is deleted meanwhile, and what it owned goes to an older one."""
    monkeypatch.setattr(diff_module, "_PAGE_INODE_COUNT", 7)
    for index in range(60):
        fs.write_bytes(f"/{index:02}", b"1")
    fs.snapshots.create("base")
    for index in range(0, 60, 2):
        fs.write_bytes(f"/{index:02}", b"22")
    fs.snapshots.create("between")
    for index in range(1, 60, 2):
        fs.write_bytes(f"/{index:02}", b"22")
    found = []
    for count, change in enumerate(fs.snapshots.diff("base")):
        found.append(change.path)
        if count == 20:
            fs.snapshots.delete("between")
    assert sorted(found) == [f"/{index:02}" for index in range(60)]


def snapshot_of(fs: FileSystem, name: str | None) -> dict[str, tuple[object, ...]]:
    """Path → all that a difference speaks of."""
    view = fs if name is None else fs.snapshots[name]
    found: dict[str, tuple[object, ...]] = {}
    waiting = ["/"]
    while waiting:
        path = waiting.pop()
        status = view.lstat(path)
        data: object = None
        if view.is_symlink(path):
            data = view.readlink(path)
        elif view.is_file(path):
            data = view.read_bytes(path)
        elif view.is_dir(path):
            waiting += [path.rstrip("/") + "/" + name for name in view.listdir(path)]
        xattrs = [
            (each, view.getxattr(path, each, follow_symlinks=False))
            for each in view.listxattr(path, follow_symlinks=False)
        ]
        attributes = (status.st_mode, status.st_uid, status.st_gid, status.st_rdev)
        found[path] = (status.st_ino, attributes, status.st_mtime_ns, data, xattrs)
    return found


def test_a_walk_of_both_trees_finds_the_same(fs: FileSystem, seed: int) -> None:
    rng = Random(seed)
    names = []
    for index in range(8):
        random_changes(fs.tree, rng, 120)
        names.append(f"s{index}")
        fs.snapshots.create(names[-1])
    random_changes(fs.tree, rng, 60)
    states = {name: snapshot_of(fs, name) for name in [*names, None]}
    for first, base in enumerate(names):
        for target in [*names[first:], None]:
            old, new = states[base], states[target]
            told = list(fs.snapshots.diff(base, target))
            inodes = {path: state[0] for path, state in [*old.items(), *new.items()]}
            assert {each.path for each in told if each.kind is REMOVED} <= old.keys()
            assert {each.path for each in told if each.kind is ADDED} <= new.keys()
            named = {each.path for each in told} | {each.new_path for each in told}
            told_inodes = {inodes.get(path or "") for path in named}
            for path in old.keys() & new.keys():
                if old[path] != new[path]:
                    assert path in named or old[path][0] in told_inodes, (base, target, path)
            for each in told:
                if each.what == ("replaced",):
                    assert all(state[0] != new[each.path][0] for state in old.values())
                elif each.kind in (MODIFIED, METADATA):
                    before = next(state for state in old.values() if state[0] == new[each.path][0])
                    assert before[1:] != new[each.path][1:] or each.what == ("entries",), (base, target, each)
