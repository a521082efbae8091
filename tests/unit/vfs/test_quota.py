"""Quotas: what they refuse, what they let through, and that they are told exactly."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from random import Random

import pytest

from idemfs import FileSystem
from idemfs.errors import FilesetMissing, QuotaExceeded
from idemfs.format import keys
from idemfs.format.address import is_compressed
from idemfs.ids import Ino
from idemfs.snapshots.usage import used_bytes
from idemfs.testing.builders import assert_clean, memory_store, random_changes, reopened
from idemfs.vfs.tree import Tree

MIB = 1 << 20


def limited() -> FileSystem:
    """Fileset ``f`` at /f with a quota of 1 MiB."""
    fs = FileSystem(Tree(memory_store()))
    fs.filesets.create("/f").set_quota(MIB)
    return fs


@pytest.fixture
def fs() -> Iterator[FileSystem]:
    """As ``limited``, and checked afterwards."""
    with limited() as fs:
        yield fs
        fs.sync()
        assert_clean(fs.tree)


def fill(fs: FileSystem, size: int, name: str = "n") -> int:
    """Write files of ``size`` until that is refused; how many there are."""
    count = 0
    while True:
        try:
            fs.write_bytes(f"/f/{name}{count}", os.urandom(size))
        except QuotaExceeded as full:
            assert full.errno == errno.EDQUOT and "'f'" in str(full) and full.filename == f"/f/{name}{count}"
            return count
        count += 1


@pytest.mark.parametrize("size", [300, 5000, 60_000])
def test_it_is_nearly_used_up_and_never_exceeded(fs: FileSystem, size: int) -> None:
    count = fill(fs, size)
    info = fs.filesets["f"].info()
    assert info.quota_bytes == MIB and MIB - size - 20_000 < info.active_bytes <= MIB
    assert count > (10 if size > 50_000 else 100)
    fs.write_bytes("/elsewhere", os.urandom(MIB))
    for number in range(count):
        fs.unlink(f"/f/n{number}")
    assert abs(fill(fs, size, "m") - count) <= 2


def test_appending_and_overwriting(fs: FileSystem) -> None:
    with fs.open("/f/log", "wb", buffering=0) as file:
        with pytest.raises(QuotaExceeded):
            for _ in range(20_000):
                file.write(b"x" * 99)
        size = file.tell()
    assert MIB - 30_000 < size <= MIB and MIB - 30_000 < fs.filesets["f"].info().active_bytes <= MIB
    fs.truncate("/f/log", 1000)
    with fs.open("/f/log", "r+b", buffering=0) as file:
        for turn in range(500):
            file.seek(turn % 7)
            file.write(b"y" * 900)


def test_what_adds_nothing_is_let_through(fs: FileSystem) -> None:
    fs.mkdir("/f/d")
    fill(fs, 3000)
    fill(fs, 10, "small")
    fs.chmod("/f/n0", 0o600)
    fs.rename("/f/n0", "/f/d/n0")
    fs.truncate("/f/n1", 10)
    fs.unlink("/f/n2")
    for refused in (
        lambda: fs.write_bytes("/f/more", os.urandom(100_000)),
        lambda: fs.setxattr("/f/n3", "user.x", b"x" * 60_000),
    ):
        with pytest.raises(QuotaExceeded):
            refused()


def test_inodes(fs: FileSystem) -> None:
    fs.filesets["f"].set_quota(0, 4)
    fs.write_bytes("/f/a", os.urandom(2 * MIB))
    fs.mkdir("/f/d")
    fs.symlink("a", "/f/s")
    for make in (lambda: fs.mkdir("/f/e"), lambda: fs.write_bytes("/f/b", b""), lambda: fs.symlink("a", "/f/t")):
        with pytest.raises(QuotaExceeded, match="4 inodes"):
            make()
    fs.link("/f/a", "/f/second")
    fs.unlink("/f/s")
    fs.mkdir("/f/e")
    assert fs.filesets["f"].info().quota_inodes == 4 and fs.filesets["f"].info().quota_bytes is None


def test_snapshots_count_when_that_is_chosen(fs: FileSystem) -> None:
    fs.write_bytes("/f/a", os.urandom(600_000))
    fs.snapshots.create("f@one")
    fs.write_bytes("/f/a", os.urandom(600_000))
    fs.snapshots.create("f@two")
    fs.filesets["f"].set_quota(counts_snapshots=True)
    info = fs.filesets["f"].info()
    assert info.snapshots_count and info.active_bytes + info.snapshot_bytes > MIB > info.active_bytes
    with pytest.raises(QuotaExceeded, match="a snapshot for example"):
        fs.write_bytes("/f/b", b"x" * 5000)
    fs.snapshots.delete("f@one")
    fs.write_bytes("/f/b", b"x" * 5000)
    with pytest.raises(QuotaExceeded):
        fs.write_bytes("/f/a", os.urandom(600_000))
    assert used_bytes(fs.tree.store, fs.tree.store.catalog.fileset_named("f")) <= MIB


def test_another_limit(fs: FileSystem) -> None:
    fill(fs, 5000)
    fs.filesets["f"].set_quota(2 * MIB)
    assert fill(fs, 5000, "more") > 100
    fs.filesets["f"].set_quota(MIB)
    with pytest.raises(QuotaExceeded):
        fs.write_bytes("/f/x", os.urandom(5000))
    fs.filesets["f"].set_quota(0)
    fs.write_bytes("/f/x", os.urandom(5000))
    for wrong in (-1, 1 << 63):
        with pytest.raises(ValueError, match="quota"):
            fs.filesets["f"].set_quota(wrong)
    gone = fs.filesets["f"]
    gone.delete()
    with pytest.raises(FilesetMissing):
        gone.set_quota(1)


def test_it_holds_when_the_store_is_opened_again() -> None:
    fs = limited()
    fs.filesets["f"].set_quota(inodes=1000, counts_snapshots=True)
    again = FileSystem(reopened(fs.tree))
    info = again.filesets["f"].info()
    assert (info.quota_bytes, info.quota_inodes, info.snapshots_count) == (MIB, 1000, True)
    assert 100 < fill(again, 5000) < 130
    again.sync()
    assert_clean(again.tree)


def test_free_space_is_seen_through_it(fs: FileSystem) -> None:
    fs.write_bytes("/f/a", os.urandom(500_000))
    fs.sync()
    found = fs.statvfs("/f/a")
    assert found.f_blocks * found.f_frsize == MIB and 500_000 < found.f_bavail * found.f_frsize < 560_000
    assert fs.statvfs("/").f_blocks != found.f_blocks
    fs.filesets["f"].set_quota(inodes=10)
    assert fs.statvfs("/f").f_ffree == 8


def is_counted(fs: FileSystem) -> bool:
    return fs.tree.store.catalog.filesets[fs.tree.fileset].is_counted


def test_the_root_fileset_of_an_old_store_is_counted_from_now_on() -> None:
    fs = limited()
    fs.write_bytes("/a", os.urandom(300_000))
    fs.sync()
    store = fs.tree.store
    with store.lock:
        store.admit(1, 100)
        store.small.put(keys.usage(store.catalog.filesets[fs.tree.fileset].number), None)
    old = FileSystem(reopened(fs.tree))
    assert not is_counted(old) and old.filesets["root"].info().active_bytes > 300_000
    random_changes(old.tree, Random(1), 50)
    old.filesets["root"].set_quota(400_000)
    assert is_counted(old)
    with pytest.raises(QuotaExceeded):
        old.write_bytes("/b", os.urandom(400_000))
    random_changes(old.tree, Random(2), 20)
    old.sync()
    assert_clean(old.tree)


def test_what_is_written_is_compressed_as_the_fileset_says() -> None:
    for store, names in (("none", ("none", "zstd")), ("zstd", ("none", "store"))):
        fs = FileSystem(Tree(memory_store(block_size=65536, compression=store)))
        for path, compression in zip(("/a", "/b"), names, strict=True):
            fs.filesets.create(path, compression=compression)
            fs.write_bytes(f"{path}/f", b"much the same " * 10_000)
        fs.sync()
        inos = [Ino(fs.stat(f"{path}/f").st_ino) for path in ("/a", "/b")]
        assert [is_compressed(fs.tree.active.block(ino, number)[0]) for ino in inos for number in (0, 2)] == [
            False,
            False,
            True,
            True,
        ]
        assert_clean(fs.tree)
