"""What programs ask of a mount beside reading and writing: locks, shared mappings, times left alone, large listings.

Two processes take part where that makes the difference. Here too: a request fails in a way that nobody expected.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import mmap
import os
import stat
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conformance.mounted import idemfs, missing, mounted
from tests.e2e.ending import kill

pytestmark = pytest.mark.skipif(missing() is not None, reason=missing() or "")

_LIBC = ctypes.CDLL(None, use_errno=True)
_NAME_OFFSET = 19
_PAGE_SIZE = 16_384
PATIENCE_SECONDS = 30
UTIME_NOW, UTIME_OMIT = (1 << 30) - 1, (1 << 30) - 2
BROKEN = """
import sys
from idemfs.mount.attributes import AttributeRequests
from idemfs.mount.wire import Opcode

def broken(self, request):
    raise {error}

AttributeRequests.statfs = broken
from idemfs.cli import ls
ls.run = lambda options: broken(None, None)
from idemfs.cli.main import entry
sys.exit(entry())
"""


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Path]:
    idemfs("init", tmp_path / "store")
    with mounted(tmp_path / "store", tmp_path / "mount") as directory:
        yield directory


def another(code: str, *arguments: str | int | Path) -> str:
    """What another process prints, which runs ``code``."""
    command = [sys.executable, "-c", "import fcntl, mmap, os, sys\n" + code, *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


class TestLocks:
    @pytest.mark.parametrize("call", [fcntl.flock, fcntl.lockf])
    def test_between_two_processes(self, at: Path, call: Callable[[int, int], None]) -> None:
        name = call.__name__
        code = (
            "fd = os.open(sys.argv[1], os.O_RDWR)\n"
            f"try: fcntl.{name}(fd, fcntl.LOCK_NB | int(sys.argv[2]))\n"
            "except BlockingIOError: print('no')\n"
            "else: print('yes')"
        )
        (at / "f").write_text("1")
        with open(at / "f", "r+b") as file:
            call(file.fileno(), fcntl.LOCK_EX)
            assert another(code, at / "f", fcntl.LOCK_SH) == "no"
            call(file.fileno(), fcntl.LOCK_SH)
            assert another(code, at / "f", fcntl.LOCK_SH) == "yes"
            assert another(code, at / "f", fcntl.LOCK_EX) == "no"
            call(file.fileno(), fcntl.LOCK_UN)
            assert another(code, at / "f", fcntl.LOCK_EX) == "yes"
            call(file.fileno(), fcntl.LOCK_EX)
        assert another(code, at / "f", fcntl.LOCK_EX) == "yes", "closing unlocks"

    def test_of_ranges(self, at: Path) -> None:
        code = (
            "fd = os.open(sys.argv[1], os.O_RDWR)\n"
            "for start in range(0, 50, 10):\n"
            "    try: fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, start)\n"
            "    except BlockingIOError: print(start)"
        )
        with open(at / "f", "w+b") as file:
            fcntl.lockf(file, fcntl.LOCK_EX, 20, 5)
            assert another(code, at / "f").split() == ["0", "10", "20"]
            fcntl.lockf(file, fcntl.LOCK_UN, 10, 5)
            assert another(code, at / "f").split() == ["10", "20"]


class TestMappings:
    def test_are_shared_between_processes(self, at: Path) -> None:
        code = (
            "fd = os.open(sys.argv[1], os.O_RDWR)\n"
            "with mmap.mmap(fd, 10_000) as mapped:\n"
            "    print(mapped[4_090:4_100].decode())\n"
            "    mapped[9_000:9_006] = b'theirs'\n"
            "    mapped.flush()"
        )
        with open(at / "f", "w+b", buffering=0) as file:
            file.truncate(10_000)
            with mmap.mmap(file.fileno(), 10_000) as mapped:
                mapped[4_090:4_100] = b"0123456789"
                assert another(code, at / "f") == "0123456789", "before it was synced"
                assert mapped[9_000:9_006] == b"theirs"
                assert os.pread(file.fileno(), 6, 9_000) == b"theirs"
                file.seek(9_000)
                file.write(b"call")
                assert mapped[9_000:9_006] == b"callrs"
        assert (at / "f").read_bytes()[4_090:4_100] == b"0123456789"

    def test_outlive_the_name_and_the_descriptor(self, at: Path) -> None:
        (at / "f").write_bytes(b"x" * 10_000)
        with open(at / "f", "r+b") as file:
            mapped = mmap.mmap(file.fileno(), 10_000)
        (at / "g").write_bytes(b"other")
        os.rename(at / "g", at / "f")
        mapped[0:3] = b"yyy"
        mapped.flush()
        assert mapped[0:4] == b"yyyx" and (at / "f").read_bytes() == b"other"
        mapped.close()


class TestTimes:
    def set(self, path: Path, atime: tuple[int, int], mtime: tuple[int, int]) -> None:
        times = (ctypes.c_long * 4)(*atime, *mtime)
        if _LIBC.utimensat(-100, os.fsencode(path), times, 0):
            raise OSError(ctypes.get_errno(), "utimensat")

    def test_one_of_two_is_left_alone(self, at: Path) -> None:
        (at / "f").touch()
        os.utime(at / "f", ns=(1_000_000_001, 2_000_000_002))
        self.set(at / "f", (0, UTIME_OMIT), (5, 5))
        found = os.stat(at / "f")
        assert (found.st_atime_ns, found.st_mtime_ns) == (1_000_000_001, 5_000_000_005)
        self.set(at / "f", (7, 7), (0, UTIME_OMIT))
        found = os.stat(at / "f")
        assert (found.st_atime_ns, found.st_mtime_ns) == (7_000_000_007, 5_000_000_005)
        changed = found.st_ctime_ns
        self.set(at / "f", (0, UTIME_OMIT), (0, UTIME_OMIT))
        assert os.stat(at / "f").st_ctime_ns == changed, "nothing was to be changed"
        self.set(at / "f", (0, UTIME_OMIT), (0, UTIME_NOW))
        found = os.stat(at / "f")
        assert found.st_atime_ns == 7_000_000_007 and found.st_mtime_ns > 1_000_000_000_000_000_000

    def test_of_a_file_that_is_renamed_and_linked_stay(self, at: Path) -> None:
        (at / "d").mkdir()
        (at / "f").touch()
        os.utime(at / "f", ns=(3, 4))
        os.rename(at / "f", at / "d/f")
        os.link(at / "d/f", at / "g")
        found = os.stat(at / "g")
        assert (found.st_mtime_ns, found.st_nlink) == (4, 2)
        os.unlink(at / "d/f")
        found = os.stat(at / "g")
        assert (found.st_mtime_ns, found.st_nlink) == (4, 1)


class TestListings:
    def read(self, fd: int) -> Iterator[str]:
        """Names as the kernel tells them, page by page. Raises ``OSError``."""
        buffer = ctypes.create_string_buffer(_PAGE_SIZE)
        while size := _LIBC.getdents64(fd, buffer, _PAGE_SIZE):
            if size < 0:
                raise OSError(ctypes.get_errno(), "getdents64")
            start = 0
            while start < size:
                (length,) = struct.unpack_from("=16xH", buffer, start)
                yield ctypes.string_at(ctypes.addressof(buffer) + start + _NAME_OFFSET).decode()
                start += length

    def test_what_was_listed_is_removed_while_others_list(self, at: Path) -> None:
        """No place in a listing is lost, however many others there were since."""
        (at / "removed").mkdir()
        for number in range(3_000):
            (at / "removed" / f"{number:04}").touch()
        (at / "large").mkdir()
        for number in range(700):
            (at / "large" / f"{number:03}").touch()
        for number in range(100):
            os.mkdir(at / ".snapshots" / str(number))
        fd = os.open(at / "removed", os.O_RDONLY)
        try:
            names = self.read(fd)
            seen = [next(names) for _ in range(500)]
            for number in range(2_000):
                os.unlink(at / "removed" / f"{number:04}")
            for number in range(100):
                assert len(os.listdir(at / ".snapshots" / str(number) / "large")) == 700
            seen.extend(names)
        finally:
            os.close(fd)
        assert [name for name in seen if name >= "2000"] == [f"{number:04}" for number in range(2_000, 3_000)]


@pytest.mark.parametrize("error", ["ZeroDivisionError('unexpected')", "OSError('without a number')", "MemoryError()"])
def test_a_failure_that_nobody_expected(tmp_path: Path, error: str) -> None:
    """It answers EIO and is logged with its operation, and the mount lives on."""
    store, at = tmp_path / "store", tmp_path / "mount"
    idemfs("init", store)
    at.mkdir()
    code = BROKEN.format(error=error)
    subprocess.run([sys.executable, "-c", code, "mount", str(store), str(at)], check=True, stdin=subprocess.DEVNULL)
    try:
        for _ in range(10):  # More often than there are threads.
            with pytest.raises(OSError) as caught:
                os.statvfs(at)
            assert caught.value.errno == errno.EIO
        (at / "f").write_text("alive")
        assert (at / "f").read_text() == "alive"
        listed = idemfs("ls", store, check=False)
        assert listed.returncode == 1 and listed.stderr.startswith("idemfs: ")
        assert idemfs("cat", store, "/f").stdout == "alive"
    finally:
        idemfs("umount", at)
    log = (store / "mount.log").read_text()
    assert log.count("STATFS of inode 1 failed") == 10
    assert log.count(error.split("(")[0]) >= 10 and "in broken" in log
    assert idemfs("cat", store, "/f").stdout == "alive"
    assert idemfs("check", store, "--data").stdout.startswith("clean")


@pytest.mark.parametrize(
    "change",
    [
        "os.write(fd, b'new')",
        "os.ftruncate(fd, 10)",
        "os.posix_fallocate(fd, 0, 400_000)",
        "os.copy_file_range(os.open(sys.argv[2], os.O_RDONLY), fd, 300_000)",
    ],
)
def test_rights_end_when_somebody_else_changes_the_content(tmp_path: Path, change: str) -> None:
    """Set-id bits and capabilities, however the content is changed; root keeps the bits."""
    code = "os.setgroups([]); os.setgid(65533); os.setuid(65533)\nfd = os.open(sys.argv[1], os.O_RDWR)\n" + change
    idemfs("init", tmp_path / "store")
    with mounted(tmp_path / "store", tmp_path / "mount", "--allow-other") as at:
        (at / "other").write_bytes(b"o" * 300_000)
        (at / "program").write_bytes(b"p" * 300_000)
        os.setxattr(at / "program", "security.capability", struct.pack("<5I", 0x02000001, 1 << 12, 0, 0, 0))
        os.chmod(at / "program", 0o6777)
        for directory in (tmp_path, *tmp_path.parents[:3]):
            os.chmod(directory, os.stat(directory).st_mode | 0o055)
        another(code, at / "program", at / "other")
        assert os.stat(at / "program").st_mode & 0o7777 == 0o777
        assert os.listxattr(at / "program") == []
        os.chmod(at / "program", 0o6777)
        another(code.partition("\n")[2], at / "program", at / "other")
        assert os.stat(at / "program").st_mode & 0o7777 == 0o6777


class TestWhatLostItsLastName:
    def test_a_fifo_that_is_open(self, at: Path) -> None:
        os.mkfifo(at / "fifo", 0o640)
        fd = os.open(at / "fifo", os.O_RDWR)
        before = os.fstat(fd)
        os.unlink(at / "fifo")
        after = os.fstat(fd)
        assert (after.st_ino, after.st_mode, after.st_nlink) == (before.st_ino, before.st_mode, 0)
        os.write(fd, b"through")
        assert os.read(fd, 10) == b"through"
        os.close(fd)

    def test_the_directory_that_a_program_is_in(self, at: Path) -> None:
        (at / "d").mkdir(mode=0o750)
        code = "os.chdir(sys.argv[1]); os.rmdir(sys.argv[1]); s = os.stat('.'); print(oct(s.st_mode), s.st_nlink)"
        assert another(code, at / "d") == "0o40750 0"

    def test_only_the_last_ones_are_remembered(self, at: Path) -> None:
        os.mkfifo(at / "first")
        fd = os.open(at / "first", os.O_RDWR)
        os.unlink(at / "first")
        for _ in range(1024):
            os.mkfifo(at / "other")
            os.unlink(at / "other")
        with pytest.raises(FileNotFoundError):
            os.fstat(fd)
        os.close(fd)


class TestFilesWithoutAName:
    def test_one_is_nowhere_until_it_is_linked(self, at: Path) -> None:
        (at / "d").mkdir()
        before = (at / "d").stat().st_mtime_ns
        fd = os.open(at / "d", os.O_TMPFILE | os.O_RDWR, 0o640)
        os.write(fd, b"content" * 50_000)
        assert (os.listdir(at / "d"), os.fstat(fd).st_nlink) == ([], 0)
        assert (at / "d").stat().st_mtime_ns == before
        os.link(f"/proc/self/fd/{fd}", at / "d" / "f", src_dir_fd=fd)
        assert os.fstat(fd).st_nlink == 1
        os.close(fd)
        assert (at / "d" / "f").read_bytes() == b"content" * 50_000
        assert stat.S_IMODE((at / "d" / "f").stat().st_mode) == 0o640

    @pytest.mark.parametrize("flags", [os.O_RDWR, os.O_WRONLY])
    def test_one_that_is_closed_is_gone_with_what_it_took(self, at: Path, flags: int) -> None:
        count = os.statvfs(at).f_files - os.statvfs(at).f_ffree
        fd = os.open(at, os.O_TMPFILE | flags)
        os.write(fd, b"content" * 50_000)
        assert os.statvfs(at).f_files - os.statvfs(at).f_ffree == count + 1
        os.close(fd)
        until = time.monotonic() + PATIENCE_SECONDS
        while os.statvfs(at).f_files - os.statvfs(at).f_ffree != count:
            assert time.monotonic() < until
            time.sleep(0.01)

    def test_one_that_is_not_to_be_linked_and_one_that_was_unlinked_are_not(self, at: Path) -> None:
        fd = os.open(at, os.O_TMPFILE | os.O_RDWR | os.O_EXCL)
        with pytest.raises(FileNotFoundError):
            os.link(f"/proc/self/fd/{fd}", at / "f", src_dir_fd=fd)
        os.close(fd)
        fd = os.open(at / "g", os.O_CREAT | os.O_RDWR)
        os.unlink(at / "g")
        with pytest.raises(FileNotFoundError):
            os.link(f"/proc/self/fd/{fd}", at / "g", src_dir_fd=fd)
        os.close(fd)

    def test_a_crash_leaves_nothing_of_it(self, tmp_path: Path) -> None:
        store, at = tmp_path / "store", tmp_path / "mount"
        idemfs("init", store)
        at.mkdir()
        idemfs("mount", store, at)
        fd = os.open(at, os.O_TMPFILE | os.O_RDWR)
        os.write(fd, b"content" * 50_000)
        os.fsync(fd)
        kill(store)
        os.close(fd)
        with mounted(store, at):
            assert os.listdir(at) == []
        assert json.loads(idemfs("info", store, "--json").stdout)["files"] == 1
