"""Clones: what they cost, what they see, and what becomes of their origins."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

import pytest

import idemfs
from idemfs import FileSystem
from idemfs.errors import FilesetError, FilesetInUse, NoSpace, QuotaExceeded, SnapshotHeld, SnapshotMissing
from idemfs.format import keys
from idemfs.format.tables import PINNED
from idemfs.ids import ROOT_FILESET, FilesetId, Ino, fileset_of
from idemfs.limits import SECTOR_SIZE
from idemfs.replication.difference import difference
from idemfs.snapshots import clones, freed, promote
from idemfs.store.space import Space
from idemfs.testing.builders import assert_clean, memory_store, reopened
from idemfs.vfs.sharing import copy_range
from idemfs.vfs.tree import Tree

BLOCK = 4096
LONG = b"x" * (10 * BLOCK + 1000)


def furnished() -> FileSystem:
    """Snapshot ``s`` of the root fileset, which has files, directories, links and an extended attribute."""
    fs = FileSystem(Tree(memory_store()))
    fs.makedirs("/d/e")
    fs.write_bytes("/d/small", b"small")
    fs.write_bytes("/d/long", LONG)
    fs.write_bytes("/d/e/f", b"f" * 5000)
    fs.link("/d/small", "/d/e/again")
    fs.setxattr("/d/small", "user.a", b"1")
    fs.snapshots.create("s")
    return fs


@pytest.fixture
def fs() -> Iterator[FileSystem]:
    with furnished() as fs:
        yield fs
        fs.sync()
        assert_clean(fs.tree)


def origin_of(fs: FileSystem, name: str = "c") -> tuple[str | None, bool]:
    info = fs.filesets[name].info()
    return info.origin, info.origin_deleted


def test_a_clone_is_one_record_and_what_makes_a_directory(fs: FileSystem) -> None:
    fs.mkdir("/c")
    fs.sync()
    store = fs.tree.store
    before = {key for key, _ in store.active.scan(b"", b"\xff" * 9, 1 << 20)}
    small = {key for key, _ in store.small.scan(b"", b"\xff" * 9, 1 << 20)}
    clone = fs.filesets.clone("s", "/c")
    assert {key for key, _ in store.active.scan(b"", b"\xff" * 9, 1 << 20)} == before
    added = {key for key, _ in store.small.scan(b"", b"\xff" * 9, 1 << 20)} - small
    assert added == {letter + b"\0\1" for letter in (b"F", b"U", b"G")}
    info, origin = clone.info(), fs.snapshots.info("s")
    assert (info.active_bytes, info.snapshot_bytes, info.inode_count) == (0, 0, origin.file_count)
    assert fs.snapshots.create("c@same").digest == origin.digest


def test_it_has_everything_and_what_it_changes_is_its_own(fs: FileSystem) -> None:
    fs.filesets.clone("s", "/c")
    assert [where for where, _, _ in fs.walk("/c")] == ["/c", "/c/d", "/c/d/e"]
    assert fs.read_bytes("/c/d/long") == LONG and fs.getxattr("/c/d/small", "user.a") == b"1"
    stat = fs.stat("/c/d/small")
    assert stat.st_nlink == 2 and fileset_of(stat.st_ino) == 1 and stat.st_ino == fs.stat("/c/d/e/again").st_ino  # type: ignore[arg-type]
    fs.unlink("/c/d/small")
    fs.rename("/c/d/e", "/c/moved")
    fs.write_bytes("/c/moved/new", b"new")
    fs.removexattr("/c/moved/again", "user.a")
    assert fs.stat("/c/moved/again").st_nlink == 1 and fs.listxattr("/c/moved/again") == []
    assert sorted(fs.listdir("/c/d")) == ["long"] and sorted(fs.listdir("/c/moved")) == ["again", "f", "new"]
    assert sorted(fs.listdir("/d")) == ["e", "long", "small"] and fs.getxattr("/d/small", "user.a") == b"1"
    assert sorted(fs.snapshots["s"].listdir("/d/e")) == ["again", "f"]
    with pytest.raises(OSError) as caught:
        fs.rename("/c/d/long", "/long")
    assert caught.value.errno == errno.EXDEV


def test_usage_counts_what_the_clone_owns(fs: FileSystem) -> None:
    clone = fs.filesets.clone("s", "/c")
    with fs.open("/c/d/long", "r+b") as file:
        file.seek(3 * BLOCK)
        file.write(b"y" * BLOCK)
    fs.sync()
    record = fs.tree.store.catalog.filesets[FilesetId(1)]
    # The block, and the last one, which is shared.
    assert record.sectors == 2
    assert clone.info().active_bytes < 2 * SECTOR_SIZE + 1000
    assert fs.stat("/c/d/long").st_blocks == fs.stat("/d/long").st_blocks
    clone.set_quota(40_000)
    with pytest.raises(QuotaExceeded):
        fs.write_bytes("/c/d/long", b"z" * 60_000)
    # Truncating gives nothing back that is the origin's.
    fs.truncate("/c/d/long", 0)
    fs.sync()
    assert record.sectors == 0 and fs.read_bytes("/d/long") == LONG


def test_what_is_appended_to_the_original_does_not_show(fs: FileSystem) -> None:
    """Though the clone sees through to a block that the original has filled up since."""
    fs.filesets.clone("s", "/c")
    fs.filesets.clone("s", "/other")
    for path in ("/d/long", "/d/e/f"):
        with fs.open(path, "ab") as file:
            file.write(b"SECRET" * 20)
    fs.sync()
    assert fs.read_bytes("/c/d/long") == LONG
    fs.truncate("/c/d/long", len(LONG) + 100)
    with fs.open("/c/d/e/f", "r+b") as file:
        file.seek(5100)
        file.write(b"end")
    assert fs.read_bytes("/c/d/long") == LONG + bytes(100)
    assert fs.read_bytes("/c/d/e/f") == b"f" * 5000 + bytes(100) + b"end"
    # The other way round: the clone has its own, and the original changes afterwards.
    fs.truncate("/other/d/e/f", 9000)
    with fs.open("/d/e/f", "ab") as file:
        file.write(b"SECRET" * 400)
    fs.sync()
    assert fs.read_bytes("/other/d/e/f") == b"f" * 5000 + bytes(4000)


def test_a_hole_at_the_end_that_the_original_fills_stays_one(fs: FileSystem) -> None:
    fs.truncate("/d/e/f", 3 * BLOCK + 10)
    fs.snapshots.create("holes")
    fs.filesets.clone("holes", "/c")
    fs.truncate("/c/d/e/f", 3 * BLOCK + 2000)
    with fs.open("/d/e/f", "r+b") as file:
        file.seek(3 * BLOCK + 20)
        file.write(b"SECRET")
    fs.sync()
    assert fs.read_bytes("/c/d/e/f") == b"f" * 5000 + bytes(3 * BLOCK + 2000 - 5000)


def test_a_file_of_nothing_but_holes_keeps_its_last_one() -> None:
    """Its indirect block has no record in the origin."""
    fs = furnished()
    fs.write_bytes("/sparse", b"")
    fs.truncate("/sparse", 3 * BLOCK + 10)
    fs.snapshots.create("holes")
    fs.filesets.clone("holes", "/c")
    fs.truncate("/c/sparse", 3 * BLOCK + 2000)
    fs = FileSystem(reopened(fs.tree))
    with fs.open("/sparse", "r+b") as file:
        file.seek(3 * BLOCK + 20)
        file.write(b"SECRET")
    fs.sync()
    assert fs.read_bytes("/c/sparse") == bytes(3 * BLOCK + 2000)
    fs.snapshots.create("c@now")
    assert_clean(fs.tree)
    fs.filesets["c"].promote()
    assert fs.read_bytes("/c/sparse") == bytes(3 * BLOCK + 2000)
    assert_clean(fs.tree)
    fs.close()


def test_its_snapshots_see_what_it_saw(fs: FileSystem) -> None:
    fs.filesets.clone("s", "/c")
    first = fs.snapshots.create("c@first")
    fs.write_bytes("/c/d/long", b"short")
    fs.unlink("/c/d/small")
    fs.snapshots.create("c@second")
    fs.unlink("/c/d/e/f")
    view = fs.snapshots["c@first"]
    assert view.read_bytes("/d/long") == LONG and view.read_bytes("/d/e/f") == b"f" * 5000
    assert fs.snapshots["c@second"].read_bytes("/d/long") == b"short"
    # What a snapshot of the clone keeps, it shares with the origin.
    assert fs.tree.store.small.scan(b"E", b"F", 100)
    fs.snapshots.restore("c@first")
    assert fs.read_bytes("/c/d/long") == LONG and fs.read_bytes("/c/d/small") == b"small"
    assert fs.snapshots.create("c@third").digest == first.digest
    changes = {str(change.path) for change in fs.snapshots.diff("c@first", "c@second")}
    assert {"/d/long", "/d/small"} <= changes and "/d/e/f" not in changes


def test_clones_of_clones(fs: FileSystem) -> None:
    for depth in range(5):
        origin = "s" if not depth else f"c{depth - 1}@here"
        fs.filesets.clone(origin, f"/c{depth}")
        with fs.open(f"/c{depth}/d/long", "r+b") as file:
            file.seek(depth * BLOCK)
            file.write(bytes((65 + depth,)) * BLOCK)
        fs.unlink(f"/c{depth}/d/small") if depth == 2 else None
        fs.snapshots.create(f"c{depth}@here")
    expected = b"".join(bytes((65 + depth,)) * BLOCK for depth in range(5)) + LONG[5 * BLOCK :]
    assert fs.read_bytes("/c4/d/long") == expected and fs.listdir("/c4/d") == ["e", "long"]
    with pytest.raises(FilesetInUse, match="c3"):
        fs.filesets["c2"].delete()
    fs.filesets["c3"].promote()
    fs.snapshots.delete("c2@here")
    fs.filesets["c2"].delete()
    assert fs.read_bytes("/c4/d/long") == expected
    fs.filesets["c4"].promote()
    for name in ("c3", "c1", "c0"):
        fs.filesets[name].delete()
    fs.snapshots.delete("s")
    assert fs.read_bytes("/c4/d/long") == expected


def test_an_origin_that_is_deleted_stays_without_its_name(fs: FileSystem) -> None:
    fs.filesets.clone("s", "/c")
    fs.filesets.clone("s", "/d2")
    assert len(clones.clones_of(fs.tree.store, fs.tree.store.catalog.by_name(ROOT_FILESET, "s"))) == 2
    view = fs.snapshots["s"]
    snapshot = fs.tree.store.catalog.by_name(ROOT_FILESET, "s")
    assert freed.bytes_freed(fs.tree.active, {ROOT_FILESET: [snapshot.id]}) == 0
    fs.snapshots.delete("s")
    assert "s" not in fs.snapshots and snapshot.state == PINNED and origin_of(fs) == ("s", True)
    with pytest.raises(OSError) as caught:
        view.read_bytes("/d/long")
    assert caught.value.errno == errno.ESTALE
    with pytest.raises(SnapshotMissing):
        fs.filesets.clone("s", "/third")
    # Its name is free again.
    fs.snapshots.create("s")
    fs.unlink("/d/long")
    fs.snapshots.delete("s")
    assert fs.filesets["root"].info().snapshot_bytes >= 11 * SECTOR_SIZE
    fs.filesets["c"].delete()
    assert fs.tree.store.catalog.has_snapshot(snapshot) and fs.read_bytes("/d2/d/long") == LONG
    fs.filesets["d2"].delete()
    assert not fs.tree.store.catalog.has_snapshot(snapshot)
    assert fs.filesets["root"].info().snapshot_bytes == 0


def test_holds_and_locks_are_asked_before_an_origin_is_pinned(fs: FileSystem) -> None:
    fs.filesets.clone("s", "/c")
    fs.snapshots.hold("s", "me")
    with pytest.raises(SnapshotHeld):
        fs.snapshots.delete("s")
    assert origin_of(fs) == ("s", False)


def test_what_the_original_goes_through_is_not_noticed(fs: FileSystem) -> None:
    fs.filesets.clone("s", "/c")
    digest = fs.snapshots.create("c@now").digest
    fs.snapshots.create("newer")
    fs.unlink("/d/small")
    fs.write_bytes("/d/long", b"1" * 30_000)
    fs.snapshots.create("newest")
    fs.snapshots.restore("newer")
    for name in [each.name for each in fs.snapshots]:
        fs.snapshots.delete(name)
    fs.write_bytes("/d/e/f", b"")
    fs.sync()
    assert fs.snapshots.create("c@then").digest == digest
    assert fs.read_bytes("/c/d/long") == LONG


def test_promote_shares_and_copies_no_data(fs: FileSystem) -> None:
    clone = fs.filesets.clone("s", "/c")
    fs.unlink("/c/d/small")
    fs.snapshots.create("c@now")
    fs.sync()
    used = fs.tree.store.blocks.used_bytes()
    clone.promote()
    assert fs.tree.store.blocks.used_bytes() == used
    assert origin_of(fs) == (None, False) and fs.read_bytes("/c/d/long") == LONG
    assert clone.info().active_bytes > len(LONG)
    assert all(value for _, value in fs.tree.store.active.scan_own(b"\0\1", b"\0\2", 1000)), "a mark of absence is left"
    with pytest.raises(FilesetError):
        clone.promote()
    fs.unlink("/d/long")
    fs.snapshots.delete("s")
    fs.sync()
    assert fs.read_bytes("/c/d/long") == LONG and fs.snapshots["c@now"].read_bytes("/d/long") == LONG


def test_a_promotion_that_stops_goes_on_at_the_next_opening(monkeypatch: pytest.MonkeyPatch) -> None:
    fs = furnished()
    fs.filesets.clone("s", "/c")

    def full(*arguments: object) -> None:
        raise NoSpace("no room")

    with monkeypatch.context() as patch:
        patch.setattr(promote, "_take_over_map", full)
        with pytest.raises(NoSpace):
            fs.filesets["c"].promote()
        fs.write_bytes("/c/d/new", b"new")
        fs.sync()
        assert_clean(fs.tree)
        # There is no room at this opening either.
        tree = reopened(fs.tree)
        assert FileSystem(tree).filesets["c"].info().origin == "s"
    again = FileSystem(reopened(tree))
    assert again.filesets["c"].info().origin is None and again.read_bytes("/c/d/long") == LONG
    assert again.read_bytes("/c/d/new") == b"new"
    assert_clean(again.tree)


def test_a_full_change_set_brings_what_is_seen_through(fs: FileSystem) -> None:
    fs.filesets.clone("s", "/c")
    fs.snapshots.create("c@all")
    tree = fs.tree
    origin = tree.store.catalog.by_name(ROOT_FILESET, "s")
    copy = tree.store.catalog.by_name(FilesetId(1), "all")
    sent = [[change for group in difference(tree, None, each) for change in group.changes] for each in (origin, copy)]
    assert sent[0] == sent[1] and len(sent[0]) > 10


def test_a_fileset_without_clones_shows_no_marks(fs: FileSystem) -> None:
    fs.filesets.clone("s", "/c")
    fs.unlink("/c/d/long")
    fs.unlink("/d/long")
    fs.sync()
    assert fs.listdir("/c/d") == fs.listdir("/d") == ["e", "small"]
    assert not fs.exists("/c/d/long") and not fs.exists("/d/long")
    fs.filesets["c"].delete()
    fs.sync()
    assert not fs.tree.store.active.beneath and not fs.tree.store.catalog.clones
    assert fs.tree.store.small.get(b"G\0\1") is None


def test_a_full_host_refuses_the_change_and_leaves_the_file(fs: FileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clone may have to copy the last block of a file before it changes it."""
    fs.filesets.clone("s", "/c")
    with fs.open("/d/long", "ab") as file:
        file.write(b"more")
    fs.sync()

    def full(self: Space, count: int, *, frees: bool = False) -> int:
        raise NoSpace("no room")

    with monkeypatch.context() as patch:
        patch.setattr(Space, "allocate", full)
        with pytest.raises(NoSpace):
            fs.truncate("/c/d/long", len(LONG) + 100)
        with pytest.raises(NoSpace):
            fs.write_bytes("/c/d/e/f", b"y" * 9000)
        fs.unlink("/c/d/small")
        fs.sync()
    assert fs.read_bytes("/c/d/long") == LONG
    assert_clean(fs.tree)
    fs.truncate("/c/d/long", len(LONG) + 100)
    assert fs.read_bytes("/c/d/long") == LONG + bytes(100)


def test_a_clone_is_used_while_it_is_promoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(promote, "_STEP_RECORD_COUNT", 8)
    fs = idemfs.create(tmp_path / "store", block_size=BLOCK)
    for number in range(200):
        fs.write_bytes(f"/f{number}", bytes((number,)) * (number * 100))
    fs.snapshots.create("s")
    fs.filesets.clone("s", "/c")
    is_over = threading.Event()

    def work() -> None:
        for number in cycle(range(0, 200, 2)):
            fs.write_bytes(f"/c/f{number}", b"changed" * 1000)
            fs.unlink(f"/c/f{(number + 100) % 200}")
            fs.write_bytes(f"/c/f{(number + 100) % 200}", b"again")
            if is_over.is_set():
                return

    worker = threading.Thread(target=work)
    worker.start()
    try:
        fs.filesets["c"].promote()
    finally:
        is_over.set()
        worker.join()
    fs.snapshots.delete("s")
    for number in range(1, 200, 2):
        assert fs.read_bytes(f"/c/f{number}") == bytes((number,)) * (number * 100)
    fs.sync()
    assert origin_of(fs) == (None, False)
    assert_clean(fs.tree)
    fs.close()


@pytest.mark.parametrize("size", [5 * BLOCK + 100, 5 * BLOCK])
def test_a_file_that_is_cut_twice_in_one_group_stays_in_the_snapshot_of_the_clone(fs: FileSystem, size: int) -> None:
    """The block that is cut first waits to be written; as the last one it was taken over without being preserved."""
    fs.filesets.clone("s", "/c")
    fs.snapshots.create("c@t")
    fs.truncate("/c/d/long", 5 * BLOCK + 1000)
    fs.truncate("/c/d/long", size)
    assert fs.snapshots["c@t"].read_bytes("/d/long") == LONG
    fs.sync()
    assert fs.snapshots["c@t"].read_bytes("/d/long") == LONG
    assert fs.read_bytes("/c/d/long") == LONG[:size]


def test_a_file_that_was_cut_when_its_clone_is_promoted_stays_in_the_snapshot(fs: FileSystem) -> None:
    fs.filesets.clone("s", "/c")
    fs.snapshots.create("c@t")
    fs.truncate("/c/d/long", 5 * BLOCK + 1000)
    fs.filesets["c"].promote()
    assert fs.snapshots["c@t"].read_bytes("/d/long") == LONG
    assert fs.read_bytes("/c/d/long") == LONG[: 5 * BLOCK + 1000]


def test_a_file_that_is_cut_and_changed_again_in_one_group(fs: FileSystem) -> None:
    """The cut block waits to be written; a snapshot of the clone went on with what the clone had taken over instead."""
    clone = fs.filesets.clone("s", "/c")
    clone.snapshots.create("mine")
    fs.truncate("/c/d/long", 3 * BLOCK + 100)
    with fs.open("/c/d/long", "r+b") as file:
        file.write(b"first")
    fs.sync()
    assert fs.read_bytes("/c/d/long") == b"first" + LONG[5 : 3 * BLOCK + 100]
    assert clone.snapshots["mine"].read_bytes("/d/long") == LONG == fs.snapshots["s"].read_bytes("/d/long")


def test_a_file_that_is_cut_and_removed_in_one_group(fs: FileSystem) -> None:
    clone = fs.filesets.clone("s", "/c")
    clone.snapshots.create("mine")
    with fs.open("/c/d/long", "r+b") as file:
        file.truncate(3 * BLOCK + 100)
        fs.unlink("/c/d/long")
    fs.sync()
    assert clone.snapshots["mine"].read_bytes("/d/long") == LONG


@pytest.mark.parametrize("limit", [1, 7, 16, 1000])
def test_what_the_fileset_of_the_origin_has_removed_is_seen_once_however_it_is_read(fs: FileSystem, limit: int) -> None:
    for name in range(60):
        fs.write_bytes(f"/d/e/n{name}", b"")
    fs.snapshots.create("t")
    clone = fs.filesets.clone("t", "/c")
    fs.rmtree("/d")
    number = fs.tree.store.catalog.fileset_named(clone.name).number
    start, end = keys.fileset_range(number)
    found: list[bytes] = []
    while page := fs.tree.store.active.scan(start, end, limit):
        assert not found or page[0][0] > found[-1]
        found += [key for key, _ in page]
        start = found[-1] + b"\0"
    assert len(found) == len(set(found)) > 120
    assert len(fs.listdir("/c/d/e")) == 62


def test_a_quota_does_not_stop_a_promotion(fs: FileSystem) -> None:
    clone = fs.filesets.clone("s", "/c")
    clone.set_quota(2 * BLOCK)
    clone.promote()
    assert clone.info().origin is None and clone.info().active_bytes > 2 * BLOCK
    with pytest.raises(QuotaExceeded):
        fs.write_bytes("/c/more", LONG)


def test_what_the_origins_fileset_appended_does_not_show_where_blocks_are_copied_past_the_end(fs: FileSystem) -> None:
    """A file of a clone that grew by sharing blocks had not taken over its last one."""
    fs.write_bytes("/source", b"s" * BLOCK)
    fs.filesets.clone("s", "/c")
    fs.tree.append(Ino(fs.stat("/d/long").st_ino), b"later")
    fs.sync()
    source, target = (Ino(fs.stat(path).st_ino) for path in ("/source", "/c/d/long"))
    assert copy_range(fs.tree, fs.tree.reader, source, 0, target, 12 * BLOCK, BLOCK) == BLOCK
    assert fs.read_bytes("/c/d/long") == LONG.ljust(12 * BLOCK, b"\0") + b"s" * BLOCK


@pytest.mark.parametrize("size", [BLOCK + 100, 300 * BLOCK + 100])
def test_a_file_that_is_removed_from_a_clone_of_a_clone_while_the_first_one_appends(size: int) -> None:
    content = b"y" * (size - 100) + bytes(100)
    with FileSystem(Tree(memory_store())) as fs:
        fs.write_bytes("/a", content)
        fs.snapshots.create("s")
        fs.filesets.clone("s", "/c")
        fs.filesets.at("/c").snapshots.create("t")
        fs.filesets.clone(f"{fs.filesets.at('/c').name}@t", "/d")
        with fs.open("/c/a", "ab") as appending:
            fs.unlink("/d/a")
            appending.write(b"x" * 2 * BLOCK)
        fs.sync()
        assert (fs.listdir("/d"), fs.read_bytes("/c/a")) == ([], content + b"x" * 2 * BLOCK)
        assert_clean(fs.tree)
