"""Snapshots of several filesets: each has its own, and some are taken at one instant."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator

import pytest

from idemfs import FileSystem
from idemfs.check import find
from idemfs.engines.blocks.memory import MemoryBlocks
from idemfs.engines.kv.memory import MemoryKV
from idemfs.errors import FilesetInUse, FilesetMissing, SnapshotError, SnapshotExists, SnapshotMissing
from idemfs.ids import ROOT_FILESET
from idemfs.snapshots import bring_back
from idemfs.store.files import first_records, new_superblock
from idemfs.store.store import Store
from idemfs.testing.builders import assert_clean, memory_store
from idemfs.testing.clock import Simulated
from idemfs.vfs.tree import Tree


@pytest.fixture
def fs() -> Iterator[FileSystem]:
    """Filesets ``a``, ``b`` and, in ``a``, ``tmp``."""
    with FileSystem(Tree(memory_store())) as fs:
        for path in ("/a", "/b", "/a/tmp"):
            fs.filesets.create(path)
        yield fs
        fs.sync()
        assert_clean(fs.tree)


def operands(fs: FileSystem) -> list[str]:
    return [info.operand for fileset in fs.filesets for info in fs.filesets[fileset.name].snapshots]


def test_each_fileset_has_its_own_names_and_ids_grow_over_the_store(fs: FileSystem) -> None:
    ids = [fs.snapshots.create(name).id for name in ("x", "a@x", "@y", "b@x")]
    assert ids == sorted(set(ids)) and operands(fs) == ["x", "y", "a@x", "b@x"]
    assert [info.name for info in fs.snapshots] == ["x", "y"] and len(fs.filesets["a"].snapshots) == 1
    assert "a@x" in fs.snapshots and "tmp@x" not in fs.snapshots and "no@x" not in fs.snapshots
    assert "x" in fs.filesets["a"].snapshots and fs.filesets["a"].snapshots.info("x").fileset == "a"
    with pytest.raises(SnapshotExists):
        fs.snapshots.create("a@x")
    with pytest.raises(SnapshotMissing, match="of fileset 'tmp'"):
        fs.snapshots["tmp@x"]


def test_one_instant_by_name_and_by_pattern(fs: FileSystem) -> None:
    made = fs.snapshots.create_all("a@one", "b@one")
    assert [info.operand for info in made] == ["a@one", "b@one"] and made[0].created_ns == made[1].created_ns
    fs.snapshots.create_all("*@two", exclude=["tmp"])
    assert operands(fs) == ["two", "a@one", "a@two", "b@one", "b@two"]
    fs.snapshots.create_all("?@three", "a@three", "tmp@three")
    assert [name for name in operands(fs) if "three" in name] == ["a@three", "b@three", "tmp@three"]


def test_what_is_excluded_is_there(fs: FileSystem) -> None:
    for wrong in ("tmpp", "t?", "", "TMP"):
        with pytest.raises(FilesetMissing, match="no fileset matches what is excluded"):
            fs.snapshots.create_all("*@x", exclude=["tmp", wrong])
    assert operands(fs) == []


def test_all_of_them_or_none(fs: FileSystem) -> None:
    fs.snapshots.create("b@x")
    for names in (("a@x", "b@x"), ("a@x", "no@x"), ("no*@x",), ("*@x",)):
        with pytest.raises((SnapshotExists, FilesetMissing)):
            fs.snapshots.create_all(*names)
    with pytest.raises(SnapshotExists, match="named 'x' of fileset 'b' exists"):
        fs.snapshots.create_all("x", "b@x")
    assert operands(fs) == ["b@x"]
    fs.snapshots.create("x")
    with pytest.raises(SnapshotExists, match="named 'x' of fileset 'root' exists"):
        fs.snapshots.create_all("x", "a@x")


def test_one_group_holds_all_of_them(fs: FileSystem) -> None:
    fs.sync()
    store = fs.tree.store
    for path in ("/f", "/a/f", "/b/f"):
        fs.write_bytes(path, b"1")
    before = store._sealed_sequence
    fs.snapshots.create_all("*@x")
    assert store._sealed_sequence == before + 1


def test_what_is_named_by_fileset_is_read_compared_restored_and_deleted(fs: FileSystem) -> None:
    fs.write_bytes("/a/f", b"old" * 3000)
    fs.snapshots.create("a@x")
    fs.write_bytes("/a/f", b"new")
    fs.snapshots.hold("a@x", "me")
    assert fs.snapshots.holders("a@x") == ["me"]
    fs.snapshots.release("a@x", "me")
    assert fs.snapshots["a@x"].read_bytes("/f") == b"old" * 3000
    assert [(change.kind.value, change.path) for change in fs.snapshots.diff("a@x")] == [("modified", "/f")]
    undo = fs.snapshots.restore("a@x")
    assert undo.operand == "a@before-restore-x" and fs.read_bytes("/a/f") == b"old" * 3000
    fs.snapshots.restore(undo.operand)
    assert fs.read_bytes("/a/f") == b"new"
    assert fs.snapshots.rename("a@x", "y").operand == "a@y" and fs.snapshots.rename("a@y", "a@z").operand == "a@z"
    with pytest.raises(SnapshotError):
        fs.snapshots.rename("a@z", "b@z")
    fs.snapshots.create("b@z")
    with pytest.raises(SnapshotError):
        fs.snapshots.diff("a@z", "b@z")
    fs.snapshots.delete("a@z", "b@z")
    assert all("before-restore" in name for name in operands(fs))


def test_a_restore_leaves_no_fileset_without_a_place(fs: FileSystem) -> None:
    fs.snapshots.create("early")
    fs.makedirs("/late/place")
    fs.filesets.create("/late/place")
    fs.write_bytes("/late/place/f", b"1")
    with pytest.raises(FilesetInUse, match="'place'"):
        fs.snapshots.restore("early")
    fs.mkdir("/b/inner")
    fs.filesets["place"].attach("/b/inner")
    fs.snapshots.restore("early")
    assert fs.read_bytes("/b/inner/f") == b"1" and not fs.exists("/late")
    with pytest.raises(OSError, match="busy") as caught:
        fs.rmdir("/b/inner")
    assert caught.value.errno == errno.EBUSY


def test_going_back_all_the_same_leaves_it_without_a_place(fs: FileSystem) -> None:
    early = fs.snapshots.create("early")
    fs.makedirs("/late/place")
    fs.filesets.create("/late/place")
    fs.write_bytes("/late/place/f", b"1")
    fs.snapshots.create("place@x")
    bring_back.go_back(fs.tree.active, fs.tree.store.catalog.by_name(ROOT_FILESET, early.name))
    fs.tree.moves += 1
    assert fs.filesets["place"].path is None and not fs.exists("/late") and fs.filesets["a"].path == "/a"
    assert fs.snapshots["place@x"].read_bytes("/f") == b"1"
    assert ["appears nowhere" in finding.what for finding in find(fs.tree)] == [True]
    fs.mkdir("/again")
    fs.filesets["place"].attach("/again")
    assert fs.read_bytes("/again/f") == b"1"


def chain(fs: FileSystem, names: list[str], file: str, count: int) -> None:
    """Counters: each is written after the one that it is copied from."""
    for number in range(1, count + 1):
        for name in names:
            fs.write_bytes(f"/{name}/{file}", b"%d" % number + b" " * (number % 3 * 4000))


def test_no_counter_is_ahead_of_the_one_that_it_was_copied_from() -> None:
    clock, kv = Simulated(), MemoryKV()
    superblock = new_superblock(clock, 4096, "none")
    first_records(kv, superblock.guid)
    fs = FileSystem(Tree(Store(superblock, kv, MemoryBlocks(), clock, background=True)))
    names = [f"f{number}" for number in range(5)]
    files = ["a", "b", "c"]
    for name in names:
        fs.filesets.create(f"/{name}")
        for file in files:
            fs.write_bytes(f"/{name}/{file}", b"0")
    # Each through all filesets, and not all of them in the same order.
    orders = [names, names[::-1], names[2:] + names[:2]]
    writers = [
        threading.Thread(target=chain, args=(fs, order, file, 150)) for order, file in zip(orders, files, strict=True)
    ]
    for writer in writers:
        writer.start()
    taken = 0
    while any(writer.is_alive() for writer in writers) or taken < 3:
        fs.snapshots.create_all(f"*@{taken}", exclude=["root"])
        taken += 1
    for writer in writers:
        writer.join()
    seen = set()
    for number in range(taken):
        for order, file in zip(orders, files, strict=True):
            counters = [int(fs.snapshots[f"{name}@{number}"].read_bytes(f"/{file}") or b"-1") for name in order]
            # One of them may just have been emptied, to be written.
            written = [counter for counter in counters if counter >= 0]
            assert len(written) >= len(counters) - 1
            assert written == sorted(written, reverse=True) and written[0] - written[-1] <= 1, counters
            seen.add(written[0])
    assert len(seen) > 1
    fs.sync()
    assert_clean(fs.tree)
    fs.close()
