"""Making, opening and closing stores from Python; what importing costs; what a standby shows."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import idemfs
from idemfs import FileSystem
from idemfs.clock import System
from idemfs.errors import CommitFailed, Damaged, FormatTooNew, NotPrimary, StoreExists, StoreInUse, StoreMissing
from idemfs.format import role
from idemfs.format.role import Role, RoleRecord
from idemfs.snapshots import received
from idemfs.testing.builders import assert_clean, memory_store
from idemfs.vfs.tree import Tree


def make_standby(fs: FileSystem) -> None:
    """As if what the store holds had been received."""
    store = fs.tree.store
    with store.lock:
        store.admit(2, 200)
        store.small.put(role.KEY, role.pack(RoleRecord(Role.STANDBY, 1, 1)))
        snapshots = store.catalog.snapshots(fs.tree.fileset)
        received.put_base(store, snapshots[-1].guid if snapshots else None)
        store.commit()
    fs.tree.reload_role()


def test_names_of_the_package() -> None:
    for name in idemfs.__all__:
        assert getattr(idemfs, name) is not None and name in dir(idemfs)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = idemfs.__getattr__("nothing")


def test_importing_the_package_imports_nothing_else() -> None:
    code = "import sys, idemfs; print([name for name in sys.modules if name.startswith('idemfs.')])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"


def test_making_and_opening(tmp_path: Path) -> None:
    with idemfs.create(tmp_path / "store", block_size=65536, compression="zstd") as fs:
        fs.write_bytes("/f", b"1" * 100_000)
        assert fs.tree.store.block_size == 65536 and "primary" in repr(fs)
    with idemfs.open(str(tmp_path / "store")) as fs:
        assert fs.read_bytes("/f") == b"1" * 100_000
        assert fs.stat("/f").st_blocks * 512 < 100_000
        assert_clean(fs.tree)


def test_refusals(tmp_path: Path) -> None:
    store = tmp_path / "store"
    with pytest.raises(StoreMissing):
        idemfs.open(store)
    for size in (1000, 2048, 8 << 20):
        with pytest.raises(ValueError):
            idemfs.create(store, block_size=size)
    with pytest.raises(ValueError):
        idemfs.create(store, compression="lzma")
    idemfs.create(store).close()
    with pytest.raises(StoreExists):
        idemfs.create(store)
    with idemfs.open(store), pytest.raises(StoreInUse, match=f"process {os.getpid()}"):
        idemfs.open(store)
    superblock = store / "superblock"
    whole = superblock.read_bytes()
    superblock.write_bytes(whole[:8] + b"\x63" + whole[9:])
    with pytest.raises(FormatTooNew):
        idemfs.open(store)
    superblock.write_bytes(whole[:-1] + b"\0")
    with pytest.raises(Damaged):
        idemfs.open(store)
    superblock.write_bytes(whole)
    idemfs.open(store).close()


READING = """
import sys, idemfs
with idemfs.open(sys.argv[1], readonly=True) as fs:
    assert fs.read_bytes("/f") == b"1"
    assert [info.name for info in fs.snapshots] == ["monday"]
    assert fs.snapshots["monday"].read_bytes("/f") == b"1"
    for change in (
        lambda: fs.write_bytes("/g", b""),
        lambda: fs.write_bytes("/f", b"3"),
        lambda: fs.unlink("/f"),
        lambda: fs.snapshots.create("tuesday"),
        lambda: fs.open("/f", "a"),
    ):
        try:
            change()
        except OSError as error:
            print(error.errno)
"""


def test_reading_only_takes_no_lock_and_changes_nothing(tmp_path: Path) -> None:
    with idemfs.create(tmp_path / "store") as fs:
        fs.write_bytes("/f", b"1")
        fs.snapshots.create("monday")
        fs.write_bytes("/f", b"2")
        command = [sys.executable, "-c", READING, str(tmp_path / "store")]
        assert subprocess.check_output(command, text=True).split() == [str(errno.EROFS)] * 5
        assert fs.read_bytes("/f") == b"2" and fs.listdir("/") == ["f"]


def test_after_the_end_nothing_is_taken(tmp_path: Path) -> None:
    fs = idemfs.create(tmp_path / "store")
    file = fs.open("/f", "wb", buffering=0)
    fs.close()
    fs.close()
    with pytest.raises(CommitFailed):
        fs.write_bytes("/g", b"")
    with pytest.raises(CommitFailed):
        file.write(b"1")
    file.close()


def test_what_an_exception_leaves_is_kept(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), idemfs.create(tmp_path / "store") as fs:
        fs.write_bytes("/f", b"1")
        _ = 1 / 0
    with idemfs.open(tmp_path / "store") as fs:
        assert fs.read_bytes("/f") == b"1"


def test_what_was_synced_survives_what_was_not(tmp_path: Path) -> None:
    fs = idemfs.create(tmp_path / "store")
    fs.write_bytes("/synced", b"1" * 10_000)
    fs.sync()
    fs.write_bytes("/lost", b"2")
    fs.tree.store.abandon()
    with idemfs.open(tmp_path / "store") as fs:
        assert fs.listdir("/") == ["synced"] and fs.read_bytes("/synced") == b"1" * 10_000


def test_a_standby_shows_what_it_received_and_takes_no_changes() -> None:
    with FileSystem(Tree(memory_store(clock=System()))) as fs:
        fs.makedirs("/d/e")
        fs.write_bytes("/d/f", b"received")
        fs.snapshots.create("one")
        fs.snapshots.create("two")
        fs.write_bytes("/d/f", b"half-received")
        fs.write_bytes("/d/g", b"")
        make_standby(fs)
        assert fs.read_bytes("/d/f") == b"received" and fs.listdir("/d") == ["e", "f"]
        assert fs.stat("/d/f").st_size == 8 and [entry.name for entry in fs.scandir("/d")] == ["e", "f"]
        with fs.open("/d/f") as file:
            assert file.read() == "received"
        for change in (
            lambda: fs.write_bytes("/d/f", b""),
            lambda: fs.write_bytes("/no/f", b""),
            lambda: fs.unlink("/d/f"),
            lambda: fs.mkdir("/d/e"),
            lambda: fs.chmod("/nothing", 0o600),
            lambda: fs.rename("/d", "/x"),
            lambda: fs.open("/d/f", "w"),
            lambda: fs.snapshots.create("three"),
            lambda: fs.snapshots.rename("one", "eins"),
            lambda: fs.snapshots.restore("one"),
        ):
            with pytest.raises(NotPrimary):
                change()
        assert list(fs.snapshots.diff("one")) == []
        with pytest.raises(idemfs.IdemfsError, match="received last"):
            fs.snapshots.delete("one", "two")
        assert [info.name for info in fs.snapshots] == ["one", "two"]
        fs.snapshots.delete("one")


def test_a_standby_that_has_received_nothing_is_empty() -> None:
    with FileSystem(Tree(memory_store(clock=System()))) as fs:
        fs.write_bytes("/f", b"half-received")
        make_standby(fs)
        assert not fs.exists("/f")


def test_paths_are_looked_up_anew_after_a_change_of_role() -> None:
    with FileSystem(Tree(memory_store(clock=System()))) as fs:
        fs.makedirs("/d")
        fs.write_bytes("/d/f", b"1")
        moves = fs.tree.moves
        fs.tree.reload_role()
        assert fs.tree.moves > moves


def test_threads_append_and_make_files_at_once(tmp_path: Path) -> None:
    """Appending looks for the end when its turn has come: no thread overwrites another one's lines."""
    failures: list[BaseException] = []
    with idemfs.create(tmp_path / "store", block_size=4096) as fs:

        def work(number: int) -> None:
            try:
                with fs.open("/log", "ab", buffering=0) as file:
                    for index in range(300):
                        file.write(b"%d:%03d\n" % (number, index))
                        fs.write_bytes(f"/{number}-{index % 7}", b"x" * index * 20)
                        if index % 50 == 0:
                            fs.sync()
            except BaseException as failure:
                failures.append(failure)
                raise

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        lines = fs.read_text("/log").splitlines()
        assert sorted(lines) == [f"{number}:{index:03}" for number in range(4) for index in range(300)]
        fs.sync()
        assert_clean(fs.tree)
