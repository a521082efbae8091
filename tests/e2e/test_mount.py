"""Real mounts: their beginning and end, what the kernel keeps, commands on a mounted store, standbys."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from idemfs.engines.lock import owner
from idemfs.limits import TIME_NS_MAX, TIME_NS_MIN
from tests.conformance.mounted import idemfs, missing, mounted
from tests.e2e.ending import kill, wait_for_end

pytestmark = pytest.mark.skipif(missing() is not None, reason=missing() or "")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    idemfs("init", tmp_path / "store")
    return tmp_path / "store"


@pytest.fixture
def at(store: Path, tmp_path: Path) -> Iterator[Path]:
    with mounted(store, tmp_path / "mount") as directory:
        yield directory


class TestBeginningAndEnd:
    def test_back_to_back(self, store: Path, tmp_path: Path) -> None:
        for number in range(3):
            with mounted(store, tmp_path / "mount") as at:
                (at / str(number)).write_text(str(number))
                assert sorted(os.listdir(at)) == [str(each) for each in range(number + 1)]
            assert owner(str(store)) is None and os.listdir(tmp_path / "mount") == []

    def test_the_kernels_umount_and_a_mount_at_once(self, store: Path, tmp_path: Path) -> None:
        at = tmp_path / "mount"
        at.mkdir()
        for number in range(3):
            idemfs("mount", store, at)
            (at / "f").write_text(str(number))
            subprocess.run(["umount", at], check=True)
        with mounted(store, at):
            assert (at / "f").read_text() == "2"

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_signal_unmounts(self, store: Path, tmp_path: Path, number: signal.Signals) -> None:
        at = tmp_path / "mount"
        at.mkdir()
        idemfs("mount", store, at)
        (at / "f").write_text("1")
        pid = owner(str(store))
        assert pid
        os.kill(pid, number)
        wait_for_end(pid)
        assert os.listdir(at) == [] and "clean" in idemfs("check", store).stdout

    def test_a_signal_while_it_is_in_use(self, store: Path, tmp_path: Path) -> None:
        at = tmp_path / "mount"
        at.mkdir()
        idemfs("mount", store, at)
        with open(at / "f", "wb", buffering=0) as file:
            file.write(b"1")
            assert "busy" in idemfs("umount", at, check=False).stderr
            pid = owner(str(store))
            assert pid
            os.kill(pid, signal.SIGTERM)
            wait_for_end(pid)
            with pytest.raises(OSError, match="not connected"):
                file.write(b"2")
        assert idemfs("cat", store, "/f").stdout == "1"

    def test_after_a_kill_what_was_synced_is_there(self, store: Path, tmp_path: Path) -> None:
        at = tmp_path / "mount"
        at.mkdir()
        idemfs("mount", store, at)
        with open(at / "f", "wb") as file:
            file.write(b"kept")
            file.flush()
            os.fsync(file.fileno())
        pid = owner(str(store))
        assert pid
        os.kill(pid, signal.SIGKILL)
        wait_for_end(pid)
        # The kernel may still answer this from what it knows.
        with suppress(OSError):
            os.stat(at)
        with mounted(store, at):
            assert (at / "f").read_bytes() == b"kept"
        assert os.listdir(at) == [] and str(at) not in Path("/proc/self/mounts").read_text()

    def test_after_a_kill_the_log_has_what_was_synced(self, store: Path, tmp_path: Path) -> None:
        """As a database writes: in place, 8 KiB at a time, each of which is durable when ``fdatasync`` returns."""
        at = tmp_path / "mount"
        with mounted(store, at):
            (at / "wal").write_bytes(bytes(1 << 20))
        idemfs("mount", store, at)
        pages = [bytes([number]) * 8192 for number in range(1, 41)]
        with open(at / "wal", "r+b", buffering=0) as file:
            for number, page in enumerate(pages):
                os.pwrite(file.fileno(), page, number * 8192)
                os.fdatasync(file.fileno())
            os.ftruncate(file.fileno(), 900_000)
            os.pwrite(file.fileno(), b"last", 0)
            os.fdatasync(file.fileno())
            for number, page in enumerate(pages[::-1]):
                os.pwrite(file.fileno(), page, (40 + number) * 8192)
                os.fdatasync(file.fileno())
            kill(store)
        with suppress(OSError):
            os.stat(at)
        told = idemfs("check", store).stdout
        assert "clean" in told and "40 synced writes wait in the log" in told
        with mounted(store, at):
            wanted = b"last" + b"".join(pages + pages[::-1])[4:]
            assert (at / "wal").read_bytes() == wanted.ljust(900_000, b"\0")
        assert "wait" not in idemfs("check", store).stdout

    def test_failures_are_told_by_the_command(self, store: Path, tmp_path: Path) -> None:
        assert "no store here" in idemfs("mount", tmp_path / "none", tmp_path, check=False).stderr
        assert "No such file" in idemfs("mount", store, tmp_path / "none", check=False).stderr
        assert "no snapshot" in idemfs("mount", store, tmp_path, "--snapshot", "x", check=False).stderr
        assert "no store is mounted" in idemfs("umount", tmp_path, check=False).stderr
        with mounted(store, tmp_path / "mount"):
            (tmp_path / "other").mkdir()
            ended = idemfs("mount", store, tmp_path / "other", check=False)
            assert ended.returncode == 1 and "in use by process" in ended.stderr

    def test_read_only(self, store: Path, tmp_path: Path) -> None:
        with mounted(store, tmp_path / "mount", "--read-only") as at:
            with pytest.raises(OSError) as caught:
                (at / "f").write_text("1")
            assert caught.value.errno == errno.EROFS

    def test_the_helper_of_mount(self, store: Path, tmp_path: Path) -> None:
        at = tmp_path / "mount"
        at.mkdir()
        idemfs("snapshot", "create", store, "monday")
        code = "import sys; from idemfs.cli.mount import helper; sys.exit(helper())"
        options = "rw,nosuid,noauto,user=root,snapshot=monday"
        command = [sys.executable, "-c", code, str(store), str(at), "-o", options]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
        try:
            assert os.listdir(at) == [] and os.statvfs(at).f_flag & os.ST_RDONLY
        finally:
            idemfs("umount", at)


class TestSnapshots:
    def test_the_folder(self, at: Path, store: Path) -> None:
        (at / "f").write_text("1")
        idemfs("snapshot", "create", store, "one")
        (at / "f").write_text("22")
        os.mkdir(at / ".snapshots" / "two")
        assert ".snapshots" not in os.listdir(at)
        for link in (".snapshots/latest", ".snapshots/one/.snapshots"):
            assert os.lstat(at / link).st_size == len(os.readlink(at / link)), "as who reads links relies on"
        assert sorted(os.listdir(at / ".snapshots")) == ["latest", "one", "two"]
        assert (at / ".snapshots/one/f").read_text() == "1"
        assert (at / ".snapshots/two/f").read_text() == (at / ".snapshots/latest/f").read_text() == "22"
        numbers = {os.stat(at / each / "f").st_ino for each in ("", ".snapshots/one", ".snapshots/two")}
        assert len(numbers) == 3
        names = [each["name"] for each in json.loads(idemfs("snapshot", "list", store, "--json").stdout)]
        assert names == ["one", "two"]
        for call in (
            lambda: (at / ".snapshots/one/f").write_text("no"),
            lambda: os.unlink(at / ".snapshots/one/f"),
            lambda: os.rename(at / ".snapshots/one/f", at / ".snapshots/one/g"),
            lambda: os.chmod(at / ".snapshots/one/f", 0),
        ):
            with pytest.raises(OSError) as caught:
                call()
            assert caught.value.errno == errno.EROFS

    def test_they_vanish_at_once(self, at: Path, store: Path) -> None:
        (at / "f").write_bytes(b"x" * 100_000)
        for name in ("one", "two"):
            os.mkdir(at / ".snapshots" / name)
        with open(at / ".snapshots/one/f", "rb", buffering=0) as file:
            assert len(file.read()) == 100_000
            os.rmdir(at / ".snapshots/one")
            file.seek(0)
            with pytest.raises(OSError) as caught:
                file.read()
            assert caught.value.errno == errno.ESTALE
        with open(at / ".snapshots/two/f", "rb", buffering=0) as file:
            assert len(file.read()) == 100_000
            idemfs("snapshot", "delete", store, "two", "--yes")
            assert not (at / ".snapshots/two").exists() and os.listdir(at / ".snapshots") == []
            file.seek(0)
            with pytest.raises(OSError) as caught:
                file.read()
            assert caught.value.errno == errno.ESTALE
        with pytest.raises(FileNotFoundError):
            os.readlink(at / ".snapshots/latest")

    def test_names(self, at: Path) -> None:
        folder = at / ".snapshots"
        os.mkdir(folder / "one")
        os.rename(folder / "one", folder / "eins")
        assert os.readlink(folder / "latest") == "eins"
        for call, number in (
            (lambda: os.mkdir(folder / "eins"), errno.EEXIST),
            (lambda: os.mkdir(folder / "latest"), errno.EEXIST),
            (lambda: os.mkdir(folder / "a@b"), errno.EINVAL),
            (lambda: os.rmdir(folder / "none"), errno.ENOENT),
            (lambda: (folder / "file").write_text(""), errno.EPERM),
            (lambda: os.mkdir(at / ".snapshots"), errno.EEXIST),
            (lambda: os.rmdir(at / ".snapshots"), errno.EBUSY),
            (lambda: os.rename(folder / "eins", at / "out"), errno.EXDEV),
        ):
            with pytest.raises(OSError) as caught:
                call()
            assert caught.value.errno == number

    def test_others_take_and_delete_none(self, at: Path) -> None:
        os.chmod(at, 0o755)
        os.mkdir(at / ".snapshots/one")
        code = "import os, sys; os.setgid(65534); os.setuid(65534); getattr(os, sys.argv[1])(sys.argv[2])"
        for call, path in (("mkdir", ".snapshots/two"), ("rmdir", ".snapshots/one"), ("listdir", ".snapshots/one")):
            ended = subprocess.run(
                [sys.executable, "-c", code, call, path], cwd=at, capture_output=True, text=True, check=False
            )
            assert (ended.returncode == 0) == (call == "listdir"), ended.stderr
            assert call == "listdir" or "PermissionError" in ended.stderr

    def test_what_was_written_is_in_the_snapshot(self, at: Path) -> None:
        import mmap

        with open(at / "written", "wb", buffering=0) as file, open(at / "mapped", "w+b") as mapped_file:
            mapped_file.truncate(10_000)
            mapped = mmap.mmap(mapped_file.fileno(), 10_000)
            mapped[5_000:5_003] = b"map"
            mapped.flush()
            file.write(b"written")
            os.mkdir(at / ".snapshots/one")
            mapped[5_000:5_003] = b"MAP"
            mapped.flush()
            file.write(b" later")
            mapped.close()
        assert (at / ".snapshots/one/written").read_bytes() == b"written"
        assert (at / ".snapshots/one/mapped").read_bytes()[5_000:5_003] == b"map"

    def test_a_mount_of_one(self, store: Path, tmp_path: Path) -> None:
        with mounted(store, tmp_path / "mount") as at:
            os.makedirs(at / "d/e")
            (at / "d/e/f").write_text("1")
            os.mkdir(at / ".snapshots/one")
            (at / "d/e/f").write_text("2")
        with mounted(store, tmp_path / "mount", "--snapshot", "one") as at:
            assert (at / "d/e/f").read_text() == "1" and os.listdir(at) == ["d"]
            with pytest.raises(OSError) as caught:
                os.unlink(at / "d/e/f")
            assert caught.value.errno == errno.EROFS

    def test_a_mount_of_one_to_be_written(self, store: Path, tmp_path: Path) -> None:
        where = tmp_path / "mount"
        with mounted(store, where) as at:
            (at / "f").write_bytes(b"1" * 300_000)
            for name in ("one", "two"):
                os.mkdir(at / f".snapshots/{name}")
            (at / "f").write_text("active")
        with mounted(store, where, "--snapshot", "two", "--writable") as at:
            with open(at / "f", "r+b") as file:
                file.seek(200_000)
                file.write(b"2" * 10)
                file.truncate(250_000)
                os.fsync(file.fileno())
            os.makedirs(at / "d/e")
            (at / "d/e/g").write_text("new")
            os.link(at / "d/e/g", at / "h")
            os.rename(at / "d/e", at / "moved")
            with open(at / "gone", "w+b") as file:
                os.unlink(at / "gone")
                file.write(b"still")
                file.seek(0)
                assert file.read() == b"still"
            assert (at / ".snapshots/two/moved/g").read_text() == (at / "h").read_text() == "new"
            (at / "h").write_text("newer")
            assert (at / ".snapshots/two/h").read_text() == "newer"
            assert (
                "open for writing already"
                in idemfs("snapshot", "write", store, "two", "--mkdir", "/x", check=False).stderr
            )
            idemfs("snapshot", "write", store, "one", "--mkdir", "/x")
            assert os.listdir(at / ".snapshots/one/x") == []
        assert idemfs("cat", store, "/f").stdout == "active"
        assert idemfs("cat", f"{store}@one", "/f").stdout == "1" * 300_000
        assert idemfs("cat", f"{store}@two", "/f").stdout == "1" * 200_000 + "2" * 10 + "1" * 49_990
        assert sorted(idemfs("ls", f"{store}@two", "/").stdout.split()) == ["d", "f", "h", "moved"]
        assert idemfs("check", store, "--data").stdout.startswith("clean")
        assert "goes with --snapshot" in idemfs("mount", store, where, "--writable", check=False).stderr

    def test_a_mount_of_one_of_another_fileset_to_be_written(self, store: Path, tmp_path: Path) -> None:
        idemfs("fileset", "create", store, "/home")
        with mounted(store, tmp_path / "mount") as at:
            (at / "home/f").write_text("1")
            os.chmod(at, 0o750)
            os.chmod(at / "home", 0o711)
            idemfs("snapshot", "create", store, "home@one")
        with mounted(store, tmp_path / "mount", "-o", "snapshot=home@one,writable") as at:
            assert os.listdir(at) == ["f"]
            assert os.stat(at).st_mode & 0o777 == 0o711, "the fileset's root is shown, not the store's"
            os.chmod(at, 0o700)
            assert os.stat(at).st_mode & 0o777 == 0o700
            os.mkdir(at / "d")
            os.rename(at / "f", at / "d/f")
            idemfs("snapshot", "delete", store, "home@one", "--yes")
            with pytest.raises(OSError) as caught:
                os.mkdir(at / "e")
            assert caught.value.errno == errno.ESTALE
        assert idemfs("ls", store, "/home").stdout.split() == ["f"]
        assert idemfs("check", store).stdout.startswith("clean")


class TestCommands:
    def test_on_a_mounted_store(self, at: Path, store: Path, tmp_path: Path) -> None:
        source = tmp_path / "source"
        source.mkdir()
        (source / "f").write_text("put")
        idemfs("put", os.path.relpath(store, source), ".", "/in", cwd=source)
        assert (at / "in/f").read_text() == "put"
        (at / "in/f").write_text("mounted")
        assert idemfs("cat", store, "/in/f").stdout == "mounted"
        assert idemfs("ls", store, "/in").stdout == "f\n"
        idemfs("get", store, "/in", "copy", cwd=tmp_path)
        assert (tmp_path / "copy/f").read_text() == "mounted"
        assert idemfs("check", store).stdout.startswith("clean")
        ended = idemfs("cat", store, "/none", check=False)
        assert ended.returncode == 1 and "No such file" in ended.stderr
        assert idemfs("ls", store, "--nonsense", check=False).returncode == 2

    def test_a_restore_is_seen_at_once(self, at: Path, store: Path) -> None:
        (at / "d").mkdir()
        (at / "d/f").write_bytes(b"old" * 50_000)
        idemfs("snapshot", "create", store, "one")
        (at / "d/f").write_bytes(b"newer" * 50_000)
        (at / "d/g").write_text("1")
        with open(at / "d/f", "rb", buffering=0) as file:
            assert file.read(5) == b"newer" and os.listdir(at / "d") == ["f", "g"]
            idemfs("snapshot", "restore", store, "one", "--yes")
            file.seek(0)
            assert file.read(6) == b"oldold"
        assert (at / "d/f").read_bytes() == b"old" * 50_000
        assert os.listdir(at / "d") == ["f"] and not (at / "d/g").exists()

    def test_a_standby_that_has_received_nothing(self, tmp_path: Path) -> None:
        command = [sys.executable, "-m", "idemfs"]
        subprocess.run([*command, "init", str(tmp_path / "first")], check=True, capture_output=True)
        adding = [*command, "standby", "add", str(tmp_path / "first"), str(tmp_path / "second")]
        subprocess.run(adding, check=True, capture_output=True)
        with mounted(tmp_path / "second", tmp_path / "empty") as at:
            assert os.listdir(at) == [] and os.listxattr(at) == []
            with pytest.raises(OSError) as caught:
                os.getxattr(at, "user.any")
            assert caught.value.errno == errno.ENODATA

    def test_streams(self, at: Path, store: Path, tmp_path: Path) -> None:
        (at / "f").write_text("1")
        os.mkdir(at / ".snapshots/one")
        command = [sys.executable, "-m", "idemfs"]
        with open(tmp_path / "stream", "wb") as stream:
            subprocess.run([*command, "send", str(store), "one"], stdout=stream, check=True)
        other = tmp_path / "other"
        with open(tmp_path / "stream", "rb") as stream:
            subprocess.run([*command, "receive", str(other)], stdin=stream, check=True, capture_output=True)
        with mounted(other, tmp_path / "standby") as standby:
            assert (standby / "f").read_text() == "1"
            (at / "f").write_text("2")
            os.mkdir(at / ".snapshots/two")
            with open(standby / "f", "rb", buffering=0) as file:
                sending = subprocess.Popen(
                    [*command, "send", str(store), "--base", "one", "two"], stdout=subprocess.PIPE
                )
                subprocess.run([*command, "receive", str(other)], stdin=sending.stdout, check=True, capture_output=True)
                assert sending.stdout is not None
                sending.stdout.close()
                assert sending.wait() == 0
                assert file.read() == b"1", "who had it open goes on reading what it opened"
            assert (standby / "f").read_text() == "2"
            assert os.readlink(standby / ".snapshots/latest") == "two"
            with pytest.raises(OSError) as caught:
                (standby / "f").write_text("3")
            assert caught.value.errno == errno.EROFS


class TestFiles:
    def test_unlinked_while_open(self, at: Path) -> None:
        with open(at / "f", "w+b", buffering=0) as file:
            file.write(b"x" * 300_000)
            os.unlink(at / "f")
            assert os.fstat(file.fileno()).st_nlink == 0
            file.seek(0)
            assert len(file.read()) == 300_000
        assert os.listdir(at) == []

    def test_two_processes_append(self, at: Path) -> None:
        code = (
            "import os, sys; fd = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)\n"
            "for _ in range(500): os.write(fd, sys.argv[2].encode() * 10)"
        )
        running = [subprocess.Popen([sys.executable, "-c", code, at / "f", each]) for each in "ab"]
        assert [each.wait() for each in running] == [0, 0]
        content = (at / "f").read_bytes()
        pieces = [content[start : start + 10] for start in range(0, len(content), 10)]
        assert sorted(pieces) == [b"a" * 10] * 500 + [b"b" * 10] * 500

    def test_listing_while_it_changes(self, at: Path) -> None:
        stay = {f"stay-{number:04}" for number in range(3_000)}
        for name in stay:
            (at / name).touch()
        seen: list[str] = []
        with os.scandir(at) as entries:
            for count, entry in enumerate(entries):
                seen.append(entry.name)
                if count % 7 == 0:
                    (at / f"more-{count}").touch()
                    (at / f"z-{count}").touch()
                if count % 11 == 0 and count:
                    os.unlink(at / f"z-{count - count % 7}") if (at / f"z-{count - count % 7}").exists() else None
        assert sorted(name for name in seen if name.startswith("stay")) == sorted(stay)
        assert len(seen) == len(set(seen))

    def test_places_in_a_listing_hold_for_other_handles(self, at: Path) -> None:
        import ctypes

        libc = ctypes.CDLL(None)
        libc.opendir.restype = libc.readdir.restype = ctypes.c_void_p
        libc.telldir.restype = ctypes.c_long
        for number in range(500):
            (at / f"{number:03}").touch()
        first, second = (ctypes.c_void_p(libc.opendir(os.fsencode(at))) for _ in range(2))
        for _ in range(302):
            libc.readdir(first)
        libc.seekdir(second, ctypes.c_long(libc.telldir(first)))
        here, there = ctypes.string_at(libc.readdir(first) + 19), ctypes.string_at(libc.readdir(second) + 19)
        assert here == there == b"300"
        libc.closedir(first), libc.closedir(second)

    def test_default_access_control_lists_are_inherited(self, at: Path) -> None:
        list_ = b"\x02\0\0\0" + b"".join(
            tag.to_bytes(2, "little") + bits.to_bytes(2, "little") + number.to_bytes(4, "little")
            for tag, bits, number in (
                (1, 7, 0xFFFFFFFF),
                (2, 7, 2),
                (4, 5, 0xFFFFFFFF),
                (16, 7, 0xFFFFFFFF),
                (32, 0, 0xFFFFFFFF),
            )
        )
        (at / "d").mkdir()
        os.setxattr(at / "d", "system.posix_acl_default", list_)
        fd = os.open(at / "d/f", os.O_CREAT | os.O_WRONLY, 0o664)
        os.close(fd)
        (at / "d/sub").mkdir()
        assert os.stat(at / "d/f").st_mode & 0o777 == 0o660
        assert "system.posix_acl_access" in os.listxattr(at / "d/f")
        assert os.getxattr(at / "d/sub", "system.posix_acl_default") == list_
        os.chmod(at / "d/f", 0o600)
        mask = os.getxattr(at / "d/f", "system.posix_acl_access")[4 + 3 * 8 :][:4]
        assert mask == b"\x10\0\0\0"
        os.setxattr(at / "d/f", "system.posix_acl_access", list_)
        assert os.stat(at / "d/f").st_mode & 0o777 == 0o770

    def test_bits_that_give_rights_go_when_others_write(self, at: Path) -> None:
        os.chmod(at, 0o777)
        (at / "f").write_text("1")
        code = "import os, sys; os.setgid(65534); os.setuid(65534); open(sys.argv[1], 'a').write('x')"
        os.chmod(at / "f", 0o6777)
        (at / "f").write_text("2")
        assert os.stat(at / "f").st_mode & 0o7777 == 0o6777, "root keeps them"
        subprocess.run([sys.executable, "-c", code, "f"], check=True, cwd=at)
        assert os.stat(at / "f").st_mode & 0o7777 == 0o777

    @pytest.mark.parametrize("seconds", [1 << 35, -(1 << 40), (1 << 62) + 5])
    def test_times_that_cannot_be_kept_become_the_nearest(self, at: Path, seconds: int) -> None:
        (at / "f").touch()
        os.utime(at / "f", (seconds, seconds))
        status = os.stat(at / "f")
        assert status.st_atime_ns == status.st_mtime_ns == (TIME_NS_MAX if seconds > 0 else TIME_NS_MIN)
