"""Purges: what is refused, what stays on record, what is given back, and that a step is small."""

from __future__ import annotations

from random import Random

import pytest

from idemfs import FileSystem
from idemfs.errors import SnapshotError, SnapshotHeld
from idemfs.format import keys
from idemfs.ids import ROOT_FILESET, FilesetId, Ino
from idemfs.snapshots import audit, purge
from idemfs.store import store as store_module
from idemfs.testing.builders import assert_clean, memory_store, random_changes
from idemfs.vfs.tree import Tree
from tests.property.test_clones import seen_as
from tests.property.test_purge import States, assert_purged, pick, states_of, wanted, without
from tests.property.walked import walk

BLOCK = 4096
SECRET = b"secret" * 3000


@pytest.fixture
def fs() -> FileSystem:
    return FileSystem(Tree(memory_store()))


def owned_of(fs: FileSystem, path: str, ino: int) -> list[bytes]:
    """What snapshots own of an inode, but for that it was absent."""
    pairs = fs.tree.store.shadow.scan(*keys.ino_range(Ino(ino)), 1000)
    return [key for key, value in pairs if value]


def test_what_snapshots_have_become_is_on_record(fs: FileSystem) -> None:
    fs.write_bytes("/secret", SECRET)
    for name in "abc":
        fs.write_bytes("/other", name.encode())
        fs.snapshots.create(name)
    fs.unlink("/secret")
    fs.snapshots.create("d")
    before = {info.name: info.guid for info in fs.snapshots}
    record = fs.snapshots.purge("/secret")
    assert [each.name for each in record.replaced] == ["a", "b", "c"]
    for each in record.replaced:
        now = fs.snapshots.info(each.name)
        assert (each.old_guid, each.new_guid, each.digest) == (before[each.name], now.guid, now.digest)
        assert each.old_guid != each.new_guid
    assert fs.snapshots.purges() == [record]
    again = fs.snapshots.purge("/other", reason="once more")
    assert [each.old_guid for each in again.replaced[:3]] == [each.new_guid for each in record.replaced]
    assert [len(each.replaced) for each in fs.snapshots.purges()] == [3, 4]
    assert_clean(fs.tree)


def test_a_deleted_snapshot_that_clones_rest_on_refuses(fs: FileSystem) -> None:
    fs.write_bytes("/secret", SECRET)
    fs.snapshots.create("origin")
    clone = fs.filesets.clone("origin", "/try")
    fs.snapshots.create("after")
    with pytest.raises(SnapshotHeld, match="clones rest on snapshot 'origin' as it is: try"):
        fs.snapshots.purge("/secret")
    fs.snapshots.delete("origin")
    for ask in (lambda: fs.snapshots.check_purgeable("/secret"), lambda: fs.snapshots.purge("/secret")):
        with pytest.raises(SnapshotHeld, match=r"deleted snapshot 'origin' .*: try; .*promote.*fileset delete"):
            ask()
    assert fs.snapshots["after"].read_bytes("/secret") == SECRET
    clone.promote()
    assert fs.snapshots.purge("/secret").snapshots == ("after",)
    assert fs.read_bytes("/try/secret") == SECRET == fs.read_bytes("/secret")
    assert not fs.snapshots["after"].exists("/secret")
    assert_clean(fs.tree)


def test_a_deleted_clone_holds_nothing_any_more(fs: FileSystem) -> None:
    fs.write_bytes("/secret", SECRET)
    fs.snapshots.create("origin")
    clone = fs.filesets.clone("origin", "/try")
    fs.snapshots.create("after")
    fs.snapshots.delete("origin")
    clone.delete()
    fs.unlink("/secret")
    fs.sync()
    used = fs.tree.store.catalog.filesets[ROOT_FILESET]
    assert fs.snapshots.purge("/secret").snapshots == ("after",)
    assert used.sectors == 0 and fs.filesets["root"].info().snapshot_bytes < BLOCK
    assert_clean(fs.tree)


def test_one_that_is_open_for_writing_refuses(fs: FileSystem) -> None:
    fs.write_bytes("/secret", SECRET)
    fs.snapshots.create("a")
    with fs.snapshots.write("a"), pytest.raises(SnapshotError, match="open for writing"):
        fs.snapshots.purge("/secret")
    assert fs.snapshots.purge("/secret").snapshot_count == 1


@pytest.mark.parametrize("number", range(6))
def test_in_snapshots_of_clones(number: int, seed: int) -> None:
    rng = Random(seed * 100 + number)
    fs = FileSystem(Tree(memory_store()))
    random_changes(fs.tree, rng, 120)
    fs.snapshots.create("origin")
    origin = walk(fs.snapshots["origin"])
    clone = fs.filesets.clone("origin", "/the-clone")
    inside = seen_as(fs.tree, FilesetId(1))
    for index in range(4):
        random_changes(inside, rng, (0, 30, 60, 30)[index])
        clone.snapshots.create(f"s{index}")
    for _ in range(3):
        before: States = {info.name: walk(clone.snapshots[info.name]) for info in clone.snapshots}
        path = pick(before, rng)
        clone.snapshots.purge(path)
        for name, state in before.items():
            assert name and walk(clone.snapshots[name]) == without(state, path)
        assert walk(fs.snapshots["origin"]) == origin
        assert_clean(fs.tree)
    clone.promote()
    assert_clean(fs.tree)


def test_what_a_moved_file_had_later_is_freed(fs: FileSystem) -> None:
    """An older snapshot keeps it elsewhere; what newer ones had is not handed down to one that does not see it."""
    fs.makedirs("/conf")
    fs.write_bytes("/key", b"1" * 3 * BLOCK)
    ino = fs.stat("/key").st_ino
    fs.snapshots.create("a")
    fs.rename("/key", "/conf/key")
    for name in "bcd":
        fs.write_bytes("/conf/key", name.encode() * 3 * BLOCK)
        fs.snapshots.create(name)
    fs.unlink("/conf/key")
    fs.sync()
    fs.snapshots.purge("/conf")
    assert fs.snapshots["a"].read_bytes("/key") == b"1" * 3 * BLOCK
    sizes = {each.name: each.data_bytes for each in fs.tree.store.catalog.all_snapshots(ROOT_FILESET)}
    assert sizes == {"a": 3 * BLOCK, "b": 0, "c": 0, "d": 0}
    fs.snapshots.purge("/key")
    assert not owned_of(fs, "/key", ino)
    assert sum(each.data_bytes for each in fs.tree.store.catalog.all_snapshots(ROOT_FILESET)) == 0
    assert_clean(fs.tree)


def test_what_goes_later_leaves_nothing_in_snapshots_that_were_purged(fs: FileSystem) -> None:
    fs.mkdir("/d")
    fs.write_bytes("/d/secret", SECRET)
    fs.setxattr("/d/secret", "user.key", b"hunter2")
    for name in "abc":
        fs.write_bytes("/d/other", name.encode())
        fs.snapshots.create(name)
    inodes = [fs.stat(path).st_ino for path in ("/d", "/d/secret")]
    fs.snapshots.purge("/d")
    fs.unlink("/d/secret")
    fs.unlink("/d/other")
    fs.rmdir("/d")
    fs.sync()
    assert [owned_of(fs, "", ino) for ino in inodes] == [[], []]
    assert_clean(fs.tree)


def test_what_was_purged_and_stays_is_preserved_for_later_snapshots(fs: FileSystem) -> None:
    fs.mkdir("/d")
    fs.write_bytes("/d/f", SECRET)
    fs.setxattr("/d/f", "user.key", b"old")
    fs.snapshots.create("before")
    fs.snapshots.purge("/d")
    fs.snapshots.create("after")
    fs.setxattr("/d/f", "user.key", b"new")
    fs.write_bytes("/d/f", b"new")
    after = fs.snapshots["after"]
    assert (after.read_bytes("/d/f"), after.getxattr("/d/f", "user.key")) == (SECRET, b"old")
    assert not fs.snapshots["before"].exists("/d")
    fs.snapshots.delete("before")
    assert_clean(fs.tree)


def test_many_snapshots_keep_one_trace(fs: FileSystem) -> None:
    """Of what is gone in all of them, the newest alone says so."""
    fs.makedirs("/d")
    for index in range(5):
        fs.write_bytes(f"/d/{index}", b"x" * 9000)
        fs.setxattr(f"/d/{index}", "user.a", b"1")
    for name in "abcdef":
        fs.snapshots.create(name)
    numbers = [fs.stat(path).st_ino for path in ("/d", *(f"/d/{index}" for index in range(5)))]
    fs.snapshots.purge("/d")
    newest = fs.snapshots.list()[-1].id
    for number in numbers:
        pairs = fs.tree.store.shadow.scan(*keys.ino_range(Ino(number)), 1000)
        assert {(keys.shadow_parts(key)[1], value) for key, value in pairs} == {(newest, b"")}
    fs.rmtree("/d")
    fs.sync()
    assert_clean(fs.tree)


def test_what_is_being_deleted_is_first(fs: FileSystem) -> None:
    fs.write_bytes("/secret", SECRET)
    for name in "abc":
        fs.snapshots.create(name)
    fs.unlink("/secret")
    fs.sync()
    catalog = fs.tree.store.catalog
    with fs.tree.store.lock:
        catalog.end_snapshot(catalog.by_name(ROOT_FILESET, "b"))
    record = fs.snapshots.purge("/secret")
    assert record.snapshots == ("a", "c") and [each.name for each in catalog.all_snapshots(ROOT_FILESET)] == ["a", "c"]
    assert sum(each.data_bytes for each in catalog.all_snapshots(ROOT_FILESET)) == 0
    assert_clean(fs.tree)


def test_a_large_file_goes_in_parts(fs: FileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(purge, "_PART_MAP_COUNT", 1)
    monkeypatch.setattr(store_module, "GROUP_RECORD_COUNT_MAX", 100)
    content = bytes(range(1, 201)) * (1800 * BLOCK // 200)
    fs.write_bytes("/kept", b"k" * 9000)
    fs.write_bytes("/large", content)
    for name in "ab":
        fs.snapshots.create(name)
    with fs.open("/large", "r+b") as file:
        file.seek(1000 * BLOCK)
        file.write(b"changed")
    fs.snapshots.create("c")
    before = states_of(fs)
    fs.snapshots.purge("/large")
    assert_purged(fs, before, "/large")
    assert fs.read_bytes("/large")[: 1000 * BLOCK] == content[: 1000 * BLOCK]
    assert sum(each.data_bytes for each in fs.tree.store.catalog.all_snapshots(ROOT_FILESET)) == 0


def test_groups_are_bounded_however_much_goes(fs: FileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    bound = 400
    for directory in range(3):
        fs.makedirs(f"/d/{directory}")
        for index in range(400):
            fs.write_bytes(f"/d/{directory}/{index}", b"x")
    for name in "ab":
        fs.snapshots.create(name)
    monkeypatch.setattr(store_module, "GROUP_RECORD_COUNT_MAX", bound)
    store, counts = fs.tree.store, []
    store.before_seal.append(lambda: counts.append(len(store.shadow.values) + len(store.owned.values)))
    record = fs.snapshots.purge("/d")
    assert (record.inode_count, len(record.inodes)) == (1204, audit.LISTED_COUNT_MAX)
    assert len(counts) > 10 and max(counts) < 2 * bound
    assert_clean(fs.tree)


def test_numbers_are_counted_once() -> None:
    numbers = purge._Numbers()
    for number in (5, 5, 511, 512, 1 << 40, 5):
        numbers.add(number)
    assert numbers.count == 4 and numbers.lowest == [5, 511, 512, 1 << 40]


def test_check_names_a_damaged_record_of_a_snapshot(fs: FileSystem) -> None:
    from idemfs.check import find

    store = fs.tree.store
    with store.lock:
        store.admit(2, 1000)
        store.small.put(keys.audit(7) + b"short", b"")
        store.small.put(keys.audit_of(8, FilesetId(1)), b"short")  # type: ignore[arg-type]
    fs.sync()
    found = [each.what for each in find(fs.tree)]
    assert len(found) == 2 and any("neither a purge" in each for each in found)
    assert any("cut short" in each for each in found)


def test_purges_at_one_time_are_told_apart(fs: FileSystem) -> None:
    """``purges`` may be many at one time by the clock, and each keeps what it replaced."""
    fs.write_bytes("/a", b"1")
    fs.write_bytes("/b", b"2")
    fs.snapshots.create("s")
    for path in ("/a", "/b"):
        purge.purge(fs.tree.active, wanted(path), path.encode())
    one, other = audit.purges(fs.tree.store)
    assert (one.at_ns, other.at_ns) == (7, 8)
    assert one.replaced[0].new_guid == other.replaced[0].old_guid
