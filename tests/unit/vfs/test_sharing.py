"""Copying parts of files: what arrives, what is shared, and that neither file is changed through the other."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from idemfs import FileSystem
from idemfs.errors import QuotaExceeded
from idemfs.ids import Ino
from idemfs.testing.builders import assert_clean, file_tree, memory_tree
from idemfs.vfs.reader import Reader
from idemfs.vfs.sharing import copy_range
from idemfs.vfs.snapshot_tree import SnapshotTree

BLOCK = 4096
HALF = Random(8).randbytes(BLOCK // 2)


@pytest.fixture
def fs() -> FileSystem:
    return FileSystem(memory_tree(block_size=BLOCK))


def ino_of(fs: FileSystem, path: str) -> Ino:
    return Ino(fs.stat(path).st_ino)


def copied(fs: FileSystem, reader: Reader, source: Ino, at: int, path: str, to: int, size: int) -> int:
    """All of it, call by call."""
    done = 0
    while done < size:
        count = copy_range(fs.tree, reader, source, at + done, ino_of(fs, path), to + done, size - done)
        if not count:
            break
        done += count
    return done


def sectors_taken(fs: FileSystem) -> int:
    fs.sync()
    return fs.tree.store.space.sector_count - fs.tree.store.space.free_sectors()


def test_whole_blocks_are_shared_and_stay_apart(fs: FileSystem) -> None:
    content = Random(1).randbytes(20 * BLOCK)
    fs.write_bytes("/a", content)
    fs.write_bytes("/b", b"")
    before = sectors_taken(fs)
    assert copied(fs, fs.tree.reader, ino_of(fs, "/a"), 0, "/b", 0, 1 << 30) == len(content)
    assert sectors_taken(fs) == before
    assert fs.read_bytes("/b") == content
    with fs.open("/b", "r+b") as file:
        file.write(b"changed")
    fs.unlink("/a")
    fs.sync()
    assert fs.read_bytes("/b") == b"changed" + content[7:]
    assert_clean(fs.tree)


def test_a_small_file_is_shared_to_its_end(fs: FileSystem) -> None:
    content = Random(4).randbytes(3 * BLOCK // 2)
    fs.write_bytes("/a", content)
    fs.write_bytes("/b", b"")
    before = sectors_taken(fs)
    assert copied(fs, fs.tree.reader, ino_of(fs, "/a"), 0, "/b", 0, 1 << 30) == len(content)
    assert sectors_taken(fs) == before
    with fs.open("/a", "ab") as file:
        file.write(b"of a")
    with fs.open("/b", "ab") as file:
        file.write(b"and of b")
    assert (fs.read_bytes("/a"), fs.read_bytes("/b")) == (content + b"of a", content + b"and of b")
    with fs.open("/b", "r+b") as file:
        file.truncate(BLOCK + 1)
        file.truncate(2 * BLOCK)
    assert fs.read_bytes("/b") == content[: BLOCK + 1] + bytes(BLOCK - 1)
    assert fs.read_bytes("/a") == content + b"of a"
    assert_clean(fs.tree)


def test_a_last_block_is_not_shared_where_the_other_file_goes_on(fs: FileSystem) -> None:
    content, other = Random(5).randbytes(3 * BLOCK // 2), Random(6).randbytes(2 * BLOCK)
    fs.write_bytes("/a", content)
    fs.write_bytes("/b", other)
    fs.sync()
    assert copied(fs, fs.tree.reader, ino_of(fs, "/a"), 0, "/b", 0, 1 << 30) == len(content)
    assert fs.read_bytes("/b") == content + other[len(content) :]
    assert_clean(fs.tree)


def test_a_last_block_is_not_shared_where_it_holds_what_was_appended_since(fs: FileSystem) -> None:
    content = Random(7).randbytes(BLOCK // 2)
    fs.write_bytes("/a", content)
    reader = fs.snapshots[fs.snapshots.create("s").name].reader
    with fs.open("/a", "ab") as file:
        file.write(b"appended")
    fs.sync()
    fs.write_bytes("/b", b"")
    assert copied(fs, reader, ino_of(fs, "/a"), 0, "/b", 0, 1 << 30) == len(content)
    with fs.open("/b", "r+b") as file:
        file.truncate(BLOCK)
    assert fs.read_bytes("/b") == content + bytes(BLOCK - len(content))
    assert_clean(fs.tree)


@pytest.fixture
def written_snapshot(fs: FileSystem) -> Iterator[SnapshotTree]:
    """``s``, open for writing: ``/a`` and ``/c`` of half a block, ``/b`` a bit longer than one, appended to since."""
    fs.write_bytes("/a", HALF)
    fs.write_bytes("/b", b"b" * (BLOCK + 10))
    fs.write_bytes("/c", b"c" * len(HALF))
    snapshot = fs.snapshots.create("s")
    with fs.open("/b", "ab") as file:
        file.write(b"since" * BLOCK)
    fs.sync()
    tree = SnapshotTree(fs.tree, fs.tree.store.catalog.by_name(fs.tree.fileset, snapshot.name))
    yield tree
    tree.close()
    assert_clean(fs.tree)


def test_a_copy_inside_a_snapshot_shows_nothing_that_was_appended_since(
    fs: FileSystem, written_snapshot: SnapshotTree
) -> None:
    tree, b = written_snapshot, ino_of(fs, "/b")
    assert copy_range(tree, tree.reader, ino_of(fs, "/a"), 0, b, 3 * BLOCK, BLOCK) == len(HALF)
    assert tree.reader.read(b, 0, 1 << 20) == b"b" * (BLOCK + 10) + bytes(2 * BLOCK - 10) + HALF
    assert fs.read_bytes("/b") == b"b" * (BLOCK + 10) + b"since" * BLOCK


def test_a_copy_inside_a_snapshot_is_there_for_what_comes_next(fs: FileSystem, written_snapshot: SnapshotTree) -> None:
    tree, c = written_snapshot, ino_of(fs, "/c")
    assert copy_range(tree, tree.reader, ino_of(fs, "/a"), 0, c, 0, BLOCK) == len(HALF)
    fs.unlink("/c")
    fs.sync()
    assert fs.snapshots["s"].read_bytes("/c") == HALF


def test_what_waits_in_another_state_is_copied_as_it_is_there(fs: FileSystem, written_snapshot: SnapshotTree) -> None:
    with fs.open("/a", "r+b") as file:
        file.write(b"now")
    tree, b = written_snapshot, ino_of(fs, "/b")
    tree.truncate(b, 0)
    assert copy_range(tree, fs.tree.reader, ino_of(fs, "/a"), 0, b, 0, BLOCK) == len(HALF)
    assert tree.reader.read(b, 0, 1 << 20) == b"now" + HALF[3:]


def interrupted(fs: FileSystem, monkeypatch: pytest.MonkeyPatch, change: Callable[[], object]) -> None:
    """Somebody else's ``change`` comes when the next operation is admitted, and waits for a commit."""
    admit = fs.tree.store.admit

    def others_first(*arguments: Any, **options: Any) -> None:
        monkeypatch.setattr(fs.tree.store, "admit", admit)
        change()
        fs.tree.store.commit()
        admit(*arguments, **options)

    monkeypatch.setattr(fs.tree.store, "admit", others_first)


def test_what_is_appended_to_the_target_meanwhile_stays(fs: FileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    fs.write_bytes("/a", HALF)
    fs.write_bytes("/b", b"b")
    fs.sync()
    interrupted(fs, monkeypatch, lambda: fs.tree.write(ino_of(fs, "/b"), len(HALF), b"theirs"))
    assert copied(fs, fs.tree.reader, ino_of(fs, "/a"), 0, "/b", 0, len(HALF)) == len(HALF)
    assert fs.read_bytes("/b") == HALF + b"theirs"
    assert_clean(fs.tree)


@pytest.mark.parametrize("size", [len(HALF), 2 * BLOCK])
def test_a_source_that_becomes_another_meanwhile(fs: FileSystem, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    fs.write_bytes("/a", Random(9).randbytes(size))
    fs.write_bytes("/b", b"")
    fs.sync()
    a = ino_of(fs, "/a")

    def change() -> None:
        fs.tree.truncate(a, 0)
        fs.tree.write(a, 0, b"new")

    interrupted(fs, monkeypatch, change)
    assert copied(fs, fs.tree.reader, a, 0, "/b", 0, 1 << 20) == 3
    assert fs.read_bytes("/b") == b"new"
    assert_clean(fs.tree)


def test_a_quota_is_asked_for_what_is_copied_and_no_more() -> None:
    fs = FileSystem(memory_tree(block_size=16 * BLOCK))
    home = fs.filesets.create("/home")
    content = Random(10).randbytes(9000)
    fs.write_bytes("/home/a", content)
    fs.write_bytes("/home/b", b"")
    fs.sync()
    home.set_quota(60_000)
    assert copied(fs, fs.tree.reader, ino_of(fs, "/home/a"), 0, "/home/b", 0, 1 << 20) == len(content)
    assert fs.read_bytes("/home/b") == content


def test_syncing_a_copy_of_what_still_waited_takes_the_log(tmp_path: Path) -> None:
    with FileSystem(file_tree(str(tmp_path / "store"), block_size=BLOCK)) as fs:
        fs.write_bytes("/b", b"")
        fs.sync()
        fs.write_bytes("/a", HALF)
        assert copied(fs, fs.tree.reader, ino_of(fs, "/a"), 0, "/b", 0, len(HALF)) == len(HALF)
        assert ino_of(fs, "/b") not in fs.tree.store.intents.otherwise


def test_from_a_snapshot_into_another_fileset(fs: FileSystem) -> None:
    content = Random(2).randbytes(9 * BLOCK + 100)
    fs.write_bytes("/a", content)
    snapshot = fs.snapshots.create("s")
    with fs.open("/a", "ab") as file:
        file.write(b"appended" * 1000)
    fs.filesets.create("/home").set_quota(1 << 20)
    fs.write_bytes("/home/b", b"longer than it" * BLOCK)
    reader = fs.snapshots[snapshot.name].reader
    assert copied(fs, reader, ino_of(fs, "/a"), 0, "/home/b", BLOCK, 1 << 30) == len(content)
    expected = b"longer than it" * BLOCK
    assert fs.read_bytes("/home/b") == expected[:BLOCK] + content + expected[BLOCK + len(content) :]
    fs.snapshots.delete("s")
    fs.unlink("/a")
    assert_clean(fs.tree)
    fs.write_bytes("/large", Random(3).randbytes(300 * BLOCK))
    with pytest.raises(QuotaExceeded):
        copied(fs, fs.tree.reader, ino_of(fs, "/large"), 0, "/home/b", 0, 1 << 30)
    assert_clean(fs.tree)


@pytest.mark.parametrize("seed", range(8))
def test_any_part_arrives_anywhere(fs: FileSystem, seed: int) -> None:
    rng = Random(seed)
    contents = {
        path: bytearray(rng.randbytes(rng.choice((0, 900, 7 * BLOCK, 11 * BLOCK + 5)))) for path in ("/a", "/b")
    }
    for path, content in contents.items():
        fs.write_bytes(path, content)
    for turn in range(60):
        source, path = rng.choice(["/a", "/b"]), rng.choice(["/a", "/b"])
        at, to = (rng.choice((0, BLOCK, 3 * BLOCK, rng.randrange(9 * BLOCK))) for _ in range(2))
        size = rng.choice((1, BLOCK, 4 * BLOCK, rng.randrange(1, 6 * BLOCK)))
        piece = bytes(contents[source][at : at + size])
        if source == path and abs(at - to) < len(piece):
            continue
        assert copied(fs, fs.tree.reader, ino_of(fs, source), at, path, to, len(piece)) == len(piece)
        target = contents[path]
        if piece:
            target.extend(bytes(max(0, to - len(target))))
            target[to : to + len(piece)] = piece
        if turn % 7 == 0:
            fs.snapshots.create(f"s{turn}")
        if turn % 5 == 0:
            size = rng.randrange(len(target) + 1)
            with fs.open(path, "r+b") as file:
                file.truncate(size)
            del target[size:]
        assert {each: fs.read_bytes(each) for each in contents} == contents
    assert_clean(fs.tree)


def test_what_is_refused(fs: FileSystem) -> None:
    fs.write_bytes("/a", bytes(range(256)) * 100)
    fs.mkdir("/d")
    a, d = ino_of(fs, "/a"), ino_of(fs, "/d")
    for source, at, target, to, number in (
        (a, 0, d, 0, errno.EISDIR),
        (d, 0, a, 0, errno.EISDIR),
        (a, 0, a, 100, errno.EINVAL),
        (a, 0, a, 1 << 44, errno.EFBIG),
    ):
        with pytest.raises(OSError) as refused:
            copy_range(fs.tree, fs.tree.reader, source, at, target, to, 1000)
        assert refused.value.errno == number
    assert copy_range(fs.tree, fs.tree.reader, a, 1 << 20, a, 0, 10) == 0
