"""Modes, owners, times, devices and extended attributes: one suite for every way to a tree."""

from __future__ import annotations

import errno
import os
import stat

import pytest

from idemfs import FileSystem
from tests.conformance.filesystem.subject import fails


class Attributes:
    def test_chmod(self, fs: FileSystem) -> None:
        fs.write_bytes("/f", b"")
        fs.mkdir("/d")
        for mode in (0o000, 0o4755, 0o1777, 0o644):
            fs.chmod("/f", mode)
            assert stat.S_IMODE(fs.stat("/f").st_mode) == mode and fs.is_file("/f")
        fs.chmod("/d", 0o3711)
        assert fs.stat("/d").st_mode == stat.S_IFDIR | 0o3711

    def test_chown(self, fs: FileSystem) -> None:
        fs.write_bytes("/f", b"")
        fs.chown("/f", 1000, 2000)
        fs.chown("/f", -1, 3000)
        fs.chown("/f", 4000, -1)
        assert (fs.stat("/f").st_uid, fs.stat("/f").st_gid) == (4000, 3000)

    def test_a_new_owner_ends_set_id_bits(self, fs: FileSystem) -> None:
        fs.write_bytes("/f", b"")
        fs.chmod("/f", 0o6755)
        fs.chown("/f", 1000, 1000)
        assert stat.S_IMODE(fs.stat("/f").st_mode) == 0o755

    def test_what_is_made_belongs_to_this_process(self, fs: FileSystem) -> None:
        fs.write_bytes("/f", b"")
        fs.mkdir("/d")
        fs.symlink("x", "/s")
        for path in ("/f", "/d", "/s"):
            status = fs.lstat(path)
            assert (status.st_uid, status.st_gid) == (os.geteuid(), os.getegid())

    @pytest.mark.parametrize(
        "times", [(0, 0), (1, 2), (-1, -2), (1_700_000_000_123_456_789, 4_000_000_000_000_000_001)]
    )
    def test_times_in_nanoseconds(self, fs: FileSystem, times: tuple[int, int]) -> None:
        fs.write_bytes("/f", b"")
        fs.mkdir("/d")
        fs.symlink("f", "/s")
        for path in ("/f", "/d", "/s"):
            fs.utime(path, ns=times, follow_symlinks=False)
            status = fs.lstat(path)
            assert (status.st_atime_ns, status.st_mtime_ns) == times
            assert status.st_mtime == pytest.approx(times[1] / 1e9)
            assert status[stat.ST_MTIME] == times[1] // 1_000_000_000

    def test_times_in_seconds_and_now(self, fs: FileSystem) -> None:
        fs.write_bytes("/f", b"")
        fs.utime("/f", (1.5, 2.25))
        assert (fs.stat("/f").st_atime_ns, fs.stat("/f").st_mtime_ns) == (1_500_000_000, 2_250_000_000)
        fs.utime("/f", (3, 4))
        assert fs.stat("/f").st_mtime_ns == 4_000_000_000
        fs.utime("/f")
        assert fs.stat("/f").st_mtime_ns > 1_600_000_000_000_000_000
        with pytest.raises(ValueError):
            fs.utime("/f", (1, 2), ns=(1, 2))

    def test_entries_change_the_time_of_their_directory(self, fs: FileSystem) -> None:
        def set_back() -> None:
            fs.utime("/d", ns=(5, 5))

        def moved() -> bool:
            return fs.stat("/d").st_mtime_ns != 5

        fs.mkdir("/d")
        fs.write_bytes("/o", b"")
        for change in (
            lambda: fs.write_bytes("/d/f", b""),
            lambda: fs.link("/o", "/d/l"),
            lambda: fs.symlink("x", "/d/s"),
            lambda: fs.mkdir("/d/e"),
            lambda: fs.rename("/d/f", "/d/g"),
            lambda: fs.unlink("/d/g"),
            lambda: fs.rmdir("/d/e"),
        ):
            set_back()
            change()
            assert moved()
        set_back()
        fs.chmod("/d/l", 0o600)
        with fs.open("/d/l", "w") as file:
            file.write("x")
        assert not moved()

    def test_special_files(self, fs: FileSystem) -> None:
        fs.mkfifo("/fifo", 0o620)
        fs.mknod("/socket", stat.S_IFSOCK | 0o600)
        fs.mknod("/char", stat.S_IFCHR | 0o660, os.makedev(1, 3))
        fs.mknod("/block", stat.S_IFBLK | 0o660, os.makedev(259, 70_000))
        fs.mknod("/plain", stat.S_IFREG | 0o600)
        assert stat.S_ISFIFO(fs.stat("/fifo").st_mode) and stat.S_ISSOCK(fs.stat("/socket").st_mode)
        assert stat.S_ISCHR(fs.stat("/char").st_mode) and fs.stat("/char").st_rdev == os.makedev(1, 3)
        assert stat.S_ISBLK(fs.stat("/block").st_mode) and fs.stat("/block").st_rdev == os.makedev(259, 70_000)
        assert fs.is_file("/plain") and fs.stat("/plain").st_size == 0
        with fails(errno.EEXIST, "/fifo"):
            fs.mkfifo("/fifo")
        with fails(errno.EPERM):
            fs.mknod("/d", stat.S_IFDIR | 0o700)
        fs.unlink("/char")
        assert fs.listdir("/") == ["block", "fifo", "plain", "socket"]

    def test_the_host_can_be_asked_for_room(self, fs: FileSystem) -> None:
        room = fs.statvfs("/")
        assert 0 < room.f_bavail <= room.f_blocks and room.f_namemax == 255 and room.f_frsize > 0


class Xattrs:
    def test_setting_listing_removing(self, fs: FileSystem) -> None:
        fs.mkdir("/d")
        fs.write_bytes("/f", b"")
        for path in ("/d", "/f"):
            fs.setxattr(path, "user.b", b"2")
            fs.setxattr(path, b"user.a", b"")
            fs.setxattr(path, "user.b", b"\0three\xff")
            assert fs.listxattr(path) == ["user.a", "user.b"]
            assert (fs.getxattr(path, "user.a"), fs.getxattr(path, b"user.b")) == (b"", b"\0three\xff")
            fs.removexattr(path, "user.a")
            assert fs.listxattr(path) == ["user.b"]
            with fails(errno.ENODATA, path):
                fs.getxattr(path, "user.a")
            with fails(errno.ENODATA, path):
                fs.removexattr(path, "user.a")

    def test_flags(self, fs: FileSystem) -> None:
        fs.write_bytes("/f", b"")
        with fails(errno.ENODATA):
            fs.setxattr("/f", "user.a", b"1", os.XATTR_REPLACE)
        fs.setxattr("/f", "user.a", b"1", os.XATTR_CREATE)
        with fails(errno.EEXIST):
            fs.setxattr("/f", "user.a", b"2", os.XATTR_CREATE)
        fs.setxattr("/f", "user.a", b"3", os.XATTR_REPLACE)
        assert fs.getxattr("/f", "user.a") == b"3"

    def test_links_have_their_own(self, fs: FileSystem) -> None:
        fs.write_bytes("/f", b"")
        fs.symlink("f", "/s")
        fs.setxattr("/s", "trusted.a", b"of the file")
        fs.setxattr("/s", "trusted.a", b"of the link", follow_symlinks=False)
        assert fs.getxattr("/f", "trusted.a") == fs.getxattr("/s", "trusted.a") == b"of the file"
        assert fs.getxattr("/s", "trusted.a", follow_symlinks=False) == b"of the link"
        fs.removexattr("/s", "trusted.a", follow_symlinks=False)
        assert fs.listxattr("/s", follow_symlinks=False) == [] and fs.listxattr("/f") == ["trusted.a"]

    def test_names_have_255_bytes_at_most(self, fs: FileSystem) -> None:
        fs.write_bytes("/f", b"")
        longest = "user." + "x" * 250
        fs.setxattr("/f", longest, b"1")
        assert fs.listxattr("/f") == [longest]
        for call in (
            lambda: fs.setxattr("/f", longest + "x", b""),
            lambda: fs.getxattr("/f", longest + "x"),
            lambda: fs.removexattr("/f", longest + "x"),
        ):
            with fails(errno.ERANGE):
                call()


class OwnXattrs:
    """Limits that host file systems do not reach."""

    def test_values_have_64_kib_at_most(self, fs: FileSystem) -> None:
        fs.write_bytes("/f", b"")
        fs.setxattr("/f", "user.a", b"x" * 65536)
        assert fs.getxattr("/f", "user.a") == b"x" * 65536
        with fails(errno.E2BIG):
            fs.setxattr("/f", "user.b", b"x" * 65537)
        with fails(errno.EINVAL):
            fs.setxattr("/f", "", b"")

    def test_any_bytes_make_a_name(self, fs: FileSystem) -> None:
        fs.write_bytes("/f", b"")
        names = [b"\xff\xfe", b"a", b"user.\n"]
        for name in names:
            fs.setxattr("/f", name, name)
        assert [os.fsencode(name) for name in fs.listxattr("/f")] == sorted(names)
        assert all(fs.getxattr("/f", name) == name for name in names)

    def test_thousands(self, fs: FileSystem) -> None:
        fs.write_bytes("/f", b"")
        for index in range(2500):
            fs.setxattr("/f", f"user.{index:04}", str(index).encode())
        assert fs.listxattr("/f") == [f"user.{index:04}" for index in range(2500)]
        fs.unlink("/f")


class OwnAttributes:
    """What differs from host to host."""

    def test_times_outside_64_bits(self, fs: FileSystem) -> None:
        fs.write_bytes("/f", b"")
        with fails(errno.EOVERFLOW):
            fs.utime("/f", ns=(0, 1 << 63))
        with fails(errno.EINVAL):
            fs.chown("/f", 1 << 32, 0)
        with fails(errno.EOPNOTSUPP):
            fs.symlink("f", "/s")
            fs.chmod("/s", 0o600, follow_symlinks=False)

    def test_the_umask(self, fs: FileSystem) -> None:
        fs.umask = 0o027
        fs.write_bytes("/f", b"")
        fs.mkdir("/d")
        fs.mkfifo("/p")
        with fs.open("/g", "w"):
            assert fs.stat("/g").st_mode == stat.S_IFREG | 0o640
        modes = [stat.S_IMODE(fs.stat(path).st_mode) for path in ("/f", "/d", "/p")]
        assert modes == [0o640, 0o750, 0o640]

    def test_reading_moves_the_access_time_as_relatime_does(self, fs: FileSystem) -> None:
        fs.write_bytes("/f", b"1")
        fs.utime("/f", ns=(5, 5))
        fs.read_bytes("/f")
        first = fs.stat("/f").st_atime_ns
        assert first > 5
        with fs.open("/f") as file:
            file.read()
        assert fs.stat("/f").st_atime_ns == first

    def test_status_knows_the_block_size(self, fs: FileSystem) -> None:
        status = fs.stat("/")
        assert status.st_blksize == fs.tree.store.block_size and status.st_ino == fs.tree.root
        fs.write_bytes("/f", b"x" * status.st_blksize)
        assert fs.stat("/f").st_blocks * 512 == status.st_blksize
