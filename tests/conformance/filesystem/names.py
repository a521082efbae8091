"""What names, directories and links do: one suite for every way to a tree."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import PurePosixPath

import pytest

from idemfs import FileSystem
from tests.conformance.filesystem.subject import fails


class Directories:
    def test_a_new_tree_is_empty(self, fs: FileSystem) -> None:
        assert fs.listdir("/") == []
        assert fs.is_dir("/") and fs.exists("/") and not fs.is_file("/")

    def test_making_and_removing(self, fs: FileSystem) -> None:
        fs.mkdir("/d")
        fs.mkdir("/d/e/")
        assert fs.listdir("/d") == ["e"]
        fs.rmdir("/d/e/")
        fs.rmdir("/d")
        assert not fs.exists("/d")

    def test_refusals(self, fs: FileSystem) -> None:
        fs.mkdir("/d")
        fs.write_bytes("/f", b"")
        fs.write_bytes("/d/g", b"")
        with fails(errno.EEXIST, "/d"):
            fs.mkdir("/d")
        with fails(errno.EEXIST, "/f"):
            fs.mkdir("/f")
        with fails(errno.EEXIST):
            fs.mkdir("/")
        with fails(errno.EEXIST):
            fs.mkdir("/d/.")
        with fails(errno.ENOENT, "/no/e"):
            fs.mkdir("/no/e")
        with fails(errno.ENOTDIR, "/f/e"):
            fs.mkdir("/f/e")
        with fails(errno.ENOTEMPTY, "/d"):
            fs.rmdir("/d")
        with fails(errno.ENOTDIR, "/f"):
            fs.rmdir("/f")
        with fails(errno.ENOENT, "/no"):
            fs.rmdir("/no")
        with fails(errno.EISDIR, "/d"):
            fs.unlink("/d")
        with fails(errno.EINVAL):
            fs.rmdir("/d/.")
        with fails(errno.ENOTEMPTY):
            fs.rmdir("/d/..")

    def test_makedirs(self, fs: FileSystem) -> None:
        fs.makedirs("/a/b/c")
        fs.makedirs("/a/b/c", exist_ok=True)
        fs.makedirs("/a/b/d/", exist_ok=True)
        assert fs.listdir("/a/b") == ["c", "d"]
        with fails(errno.EEXIST):
            fs.makedirs("/a/b/c")
        fs.write_bytes("/a/f", b"")
        with fails(errno.EEXIST):
            fs.makedirs("/a/f", exist_ok=True)
        with fails(errno.ENOTDIR):
            fs.makedirs("/a/f/g")

    def test_entries_know_what_they_are(self, fs: FileSystem) -> None:
        fs.makedirs("/t/dir")
        fs.write_bytes("/t/file", b"123")
        fs.symlink("dir", "/t/to-dir")
        fs.symlink("nowhere", "/t/to-nothing")
        with fs.scandir("/t") as entries:
            found = {entry.name: entry for entry in entries}
        assert sorted(found) == ["dir", "file", "to-dir", "to-nothing"]
        assert found["dir"].is_dir() and not found["dir"].is_file() and not found["dir"].is_symlink()
        assert found["file"].is_file() and found["file"].stat().st_size == 3
        assert found["to-dir"].is_dir() and not found["to-dir"].is_dir(follow_symlinks=False)
        assert found["to-dir"].is_symlink() and found["to-nothing"].is_symlink()
        assert not found["to-nothing"].is_dir() and not found["to-nothing"].is_file()
        assert found["file"].inode() == fs.stat("/t/file").st_ino
        assert stat.S_ISLNK(found["to-dir"].stat(follow_symlinks=False).st_mode)
        with fails(errno.ENOTDIR, "/t/file"):
            fs.scandir("/t/file")

    def test_a_listing_goes_on_while_names_come_and_go(self, fs: FileSystem) -> None:
        fs.mkdir("/d")
        for index in range(2500):
            fs.write_bytes(f"/d/{index:04}", b"")
        seen = []
        for entry in fs.scandir("/d"):
            seen.append(entry.name)
            fs.unlink(f"/d/{entry.name}")
        assert len(seen) == len(set(seen)) == 2500
        assert fs.listdir("/d") == []

    def test_walking(self, fs: FileSystem) -> None:
        fs.makedirs("/w/b/c")
        fs.mkdir("/w/a")
        fs.write_bytes("/w/b/f", b"")
        fs.symlink("b", "/w/to-b")
        down = [(at, sorted(directories), sorted(files)) for at, directories, files in fs.walk("/w")]
        assert sorted(down) == [
            ("/w", ["a", "b", "to-b"], []),
            ("/w/a", [], []),
            ("/w/b", ["c"], ["f"]),
            ("/w/b/c", [], []),
        ]
        up = [at for at, _, _ in fs.walk("/w", topdown=False)]
        assert up.index("/w/b/c") < up.index("/w/b") < up.index("/w") == 3
        pruned = []
        for at, directories, _ in fs.walk("/w"):
            pruned.append(at)
            directories[:] = [name for name in directories if name == "b"]
        assert pruned == ["/w", "/w/b", "/w/b/c"] or pruned == ["/w", "/w/b"]
        assert "/w/to-b/c" in [at for at, _, _ in fs.walk("/w", followlinks=True)]
        errors: list[OSError] = []
        assert list(fs.walk("/none", onerror=errors.append)) == [] and errors[0].errno == errno.ENOENT

    def test_removing_a_tree(self, fs: FileSystem) -> None:
        fs.makedirs("/t/a/b")
        for index in range(1200):
            fs.mkdir(f"/t/a/d{index}")
            fs.write_bytes(f"/t/a/f{index}", b"")
        fs.mkdir("/kept")
        fs.symlink("/kept", "/t/link")
        with fails(errno.ENOENT):
            fs.rmtree("/no")
        with fails(errno.ENOTDIR):
            fs.rmtree("/t/a/f0")
        fs.rmtree("/t")
        assert fs.listdir("/") == ["kept"]

    def test_a_new_directory_has_the_group_of_a_set_group_id_one(self, fs: FileSystem) -> None:
        fs.mkdir("/d")
        fs.chown("/d", -1, 4321)
        fs.chmod("/d", 0o2775)
        fs.mkdir("/d/e")
        fs.write_bytes("/d/f", b"")
        assert fs.stat("/d/e").st_gid == fs.stat("/d/f").st_gid == 4321
        assert fs.stat("/d/e").st_mode & stat.S_ISGID and not fs.stat("/d/f").st_mode & stat.S_ISGID


class Names:
    @pytest.mark.parametrize(
        "name", [b"\xff\xfe", b"\x01\n\x7f", b" ", b"-", b"\\", "ä€𝄞".encode(), b"x" * 255, b"..."]
    )
    def test_any_bytes_make_a_name(self, fs: FileSystem, name: bytes) -> None:
        path = b"/" + name
        fs.write_bytes(path, name)
        assert fs.listdir(b"/") == [name]
        assert fs.listdir("/") == [os.fsdecode(name)]
        assert fs.read_bytes(os.fsdecode(path)) == name
        assert fs.read_bytes(PurePosixPath(os.fsdecode(path))) == name
        fs.unlink(path)
        assert not fs.exists(path)

    @pytest.mark.parametrize("path", ["/" + "x" * 256, "/d/" + "é" * 128])
    def test_names_have_255_bytes_at_most(self, fs: FileSystem, path: str) -> None:
        fs.mkdir("/d")
        for call in (fs.stat, fs.mkdir, fs.unlink, fs.rmdir, fs.read_bytes):
            with fails(errno.ENAMETOOLONG, path):
                call(path)
        with fails(errno.ENAMETOOLONG, path):
            fs.write_bytes(path, b"")
        with fails(errno.ENAMETOOLONG):
            fs.rename("/d", path)
        with fails(errno.ENAMETOOLONG):
            fs.link("/d", path)
        assert not fs.exists(path)

    def test_what_is_no_path(self, fs: FileSystem) -> None:
        with pytest.raises(ValueError, match="null"):
            fs.stat("/a\0b")
        with fails(errno.ENOENT):
            fs.stat("/a/../b")

    def test_dots_and_slashes(self, fs: FileSystem) -> None:
        fs.makedirs("/a/b")
        fs.write_bytes("/a/b/f", b"1")
        for path in ("//a/b/f", "/a//b///f", "/a/./b/./f", "/a/b/../b/f"):
            assert fs.read_bytes(path) == b"1", path
        assert fs.stat("/a/b/..").st_ino == fs.stat("/a").st_ino == fs.stat("/a/.").st_ino == fs.stat("/a/").st_ino

    def test_a_slash_at_the_end_means_a_directory(self, fs: FileSystem) -> None:
        fs.mkdir("/d")
        fs.write_bytes("/f", b"")
        for call in (fs.stat, fs.lstat, fs.unlink, fs.rmdir, fs.read_bytes):
            with fails(errno.ENOTDIR):
                call("/f/")
        with fails(errno.EISDIR):
            fs.open("/new/", "w")
        with fails(errno.ENOENT):
            fs.symlink("x", "/new/")
        with fails(errno.EISDIR):
            fs.unlink("/d/")
        assert fs.listdir("/") == ["d", "f"]

    def test_paths_through_what_is_no_directory(self, fs: FileSystem) -> None:
        fs.write_bytes("/f", b"")
        for path in ("/f/x", "/f/x/y", "/f/.", "/f/.."):
            with fails(errno.ENOTDIR, path):
                fs.stat(path)
            assert not fs.exists(path)

    def test_a_renamed_directory_is_not_found_by_its_old_path(self, fs: FileSystem) -> None:
        fs.makedirs("/a/b")
        fs.write_bytes("/a/b/f", b"old")
        fs.rename("/a", "/c")
        with fails(errno.ENOENT):
            fs.write_bytes("/a/b/f", b"lost")
        fs.makedirs("/a/b")
        fs.write_bytes("/a/b/f", b"new")
        assert (fs.read_bytes("/c/b/f"), fs.read_bytes("/a/b/f")) == (b"old", b"new")

    def test_a_removed_directory_takes_no_names(self, fs: FileSystem) -> None:
        fs.mkdir("/a")
        fs.write_bytes("/a/f", b"")
        fs.unlink("/a/f")
        fs.rmdir("/a")
        with fails(errno.ENOENT):
            fs.write_bytes("/a/f", b"")


class Links:
    def test_counts_and_content(self, fs: FileSystem) -> None:
        fs.mkdir("/d")
        fs.write_bytes("/a", b"1")
        fs.link("/a", "/b")
        fs.link("/b", "/d/c")
        assert [fs.stat(path).st_nlink for path in ("/a", "/b", "/d/c")] == [3, 3, 3]
        assert fs.stat("/a").st_ino == fs.stat("/d/c").st_ino
        with fs.open("/d/c", "ab") as file:
            file.write(b"2")
        assert fs.read_bytes("/a") == b"12"
        fs.unlink("/a")
        fs.unlink("/b")
        assert fs.read_bytes("/d/c") == b"12" and fs.stat("/d/c").st_nlink == 1

    def test_refusals(self, fs: FileSystem) -> None:
        fs.mkdir("/d")
        fs.write_bytes("/a", b"")
        with fails(errno.EPERM):
            fs.link("/d", "/e")
        with fails(errno.EEXIST) as error:
            fs.link("/a", "/d")
        assert (error.value.filename, error.value.filename2) == ("/a", "/d")
        with fails(errno.EEXIST):
            fs.link("/a", "/a")
        with fails(errno.ENOENT):
            fs.link("/no", "/b")
        with fails(errno.ENOENT):
            fs.link("/a", "/no/b")
        with fails(errno.ENOENT):
            fs.link("/a", "/b/")

    def test_a_link_to_a_symlink_names_the_symlink(self, fs: FileSystem) -> None:
        fs.write_bytes("/a", b"")
        fs.symlink("a", "/s")
        fs.link("/s", "/t")
        assert fs.readlink("/t") == "a" and fs.lstat("/s").st_nlink == 2 and fs.stat("/a").st_nlink == 1

    def test_every_kind_but_directories_can_be_linked(self, fs: FileSystem) -> None:
        fs.mkfifo("/fifo")
        fs.mknod("/socket", stat.S_IFSOCK | 0o600)
        for path in ("/fifo", "/socket"):
            fs.link(path, path + "2")
            assert fs.lstat(path).st_nlink == 2


class Symlinks:
    def test_following(self, fs: FileSystem) -> None:
        fs.makedirs("/a/b")
        fs.write_bytes("/a/f", b"1")
        fs.symlink("../f", "/a/b/up")
        fs.symlink("a/b", "/short")
        assert fs.read_bytes("/short/up") == fs.read_bytes("/a/b/up") == b"1"
        assert fs.readlink("/short") == "a/b" and fs.readlink(b"/short") == b"a/b"
        assert fs.stat("/short").st_ino == fs.stat("/a/b").st_ino != fs.lstat("/short").st_ino
        assert fs.is_symlink("/short") and fs.is_dir("/short")
        assert fs.lstat("/short").st_size == 3
        assert fs.lstat("/short/").st_ino == fs.stat("/a/b").st_ino
        with fails(errno.EINVAL, "/a/f"):
            fs.readlink("/a/f")

    def test_changes_reach_the_target_or_the_link(self, fs: FileSystem) -> None:
        fs.write_bytes("/f", b"12345")
        fs.symlink("f", "/s")
        fs.chmod("/s", 0o600)
        fs.utime("/s", ns=(1, 2))
        fs.utime("/s", ns=(3, 4), follow_symlinks=False)
        fs.chown("/s", 7, 8)
        fs.chown("/s", 9, 10, follow_symlinks=False)
        fs.truncate("/s", 2)
        target, link = fs.stat("/f"), fs.lstat("/s")
        assert (target.st_mode & 0o7777, target.st_size, target.st_uid, target.st_gid) == (0o600, 2, 7, 8)
        assert (link.st_mtime_ns, link.st_uid, link.st_gid) == (4, 9, 10)
        fs.unlink("/s")
        assert fs.exists("/f") and not fs.exists("/s", follow_symlinks=False)

    def test_a_symlink_to_nothing(self, fs: FileSystem) -> None:
        fs.mkdir("/d")
        fs.symlink("d/new", "/s")
        assert not fs.exists("/s") and fs.exists("/s", follow_symlinks=False)
        with fails(errno.ENOENT, "/s"):
            fs.read_bytes("/s")
        with fails(errno.EEXIST, "/s"):
            fs.open("/s", "x")
        with fails(errno.EEXIST):
            fs.mkdir("/s")
        fs.write_bytes("/s", b"made through the link")
        assert fs.read_bytes("/d/new") == b"made through the link" and fs.is_symlink("/s")
        fs.symlink("no/new", "/t")
        with fails(errno.ENOENT):
            fs.write_bytes("/t", b"")

    def test_removing_and_renaming_do_not_follow(self, fs: FileSystem) -> None:
        fs.mkdir("/d")
        fs.symlink("d", "/s")
        with fails(errno.ENOTDIR):
            fs.rmdir("/s")
        for path in ("/s/",):
            with fails(errno.ENOTDIR):
                fs.rmdir(path)
            with fails(errno.ENOTDIR):
                fs.unlink(path)
            with fails(errno.ENOTDIR):
                fs.rename(path, "/t")
        fs.rename("/s", "/t")
        assert fs.readlink("/t") == "d" and fs.is_dir("/d")

    def test_loops(self, fs: FileSystem) -> None:
        fs.symlink("b", "/a")
        fs.symlink("a", "/b")
        fs.symlink("self", "/self")
        for path in ("/a", "/a/x", "/self", "/self/self"):
            with fails(errno.ELOOP, path):
                fs.stat(path)
            assert not fs.exists(path)
        with fails(errno.ELOOP):
            fs.write_bytes("/a", b"")
        assert fs.readlink("/a") == "b"

    def test_forty_links_are_followed_and_no_more(self, fs: FileSystem) -> None:
        fs.write_bytes("/0", b"end")
        for index in range(1, 42):
            fs.symlink(str(index - 1), f"/{index}")
        assert fs.read_bytes("/40") == b"end"
        with fails(errno.ELOOP, "/41"):
            fs.read_bytes("/41")

    def test_targets(self, fs: FileSystem) -> None:
        fs.symlink("x" * 4095, "/long")
        assert fs.readlink("/long") == "x" * 4095
        with fails(errno.ENAMETOOLONG):
            fs.symlink("x" * 4096, "/longer")
        with fails(errno.ENOENT):
            fs.symlink("", "/empty")
        fs.symlink(b"\xff", b"/\xfe")
        assert fs.readlink(b"/\xfe") == b"\xff"
        with fails(errno.EEXIST) as error:
            fs.symlink("y", "/long")
        assert (error.value.filename, error.value.filename2) == ("y", "/long")


class OwnSymlinks:
    """What only a tree with a root of its own can show."""

    def test_absolute_targets_begin_at_the_root_of_the_store(self, fs: FileSystem) -> None:
        fs.makedirs("/a/b")
        fs.write_bytes("/a/f", b"1")
        fs.symlink("/a/f", "/a/b/absolute")
        fs.symlink("/", "/a/b/root")
        fs.symlink("/a/b/", "/slash")
        assert fs.read_bytes("/a/b/absolute") == fs.read_bytes("/a/b/root/a/f") == b"1"
        assert fs.listdir("/a/b/root") == fs.listdir("/") and fs.is_dir("/slash")
        fs.symlink("/a/f/", "/wrong")
        with fails(errno.ENOTDIR):
            fs.read_bytes("/wrong")

    def test_nothing_is_above_the_root(self, fs: FileSystem) -> None:
        fs.makedirs("/a/b")
        fs.symlink("../../../a", "/a/b/s")
        assert fs.stat("/..").st_ino == fs.stat("/").st_ino
        assert fs.listdir("/../../a/b/s") == ["b"]

    def test_relative_paths_mean_nothing(self, fs: FileSystem) -> None:
        with fails(errno.EINVAL, "a"):
            fs.stat("a")
        with fails(errno.EINVAL, "a/b"):
            fs.write_bytes("a/b", b"")
        with fails(errno.ENOENT, ""):
            fs.stat("")

    def test_the_root_stays(self, fs: FileSystem) -> None:
        for call in (fs.rmdir, fs.rmtree):
            with fails(errno.EBUSY, "/"):
                call("/")
        with fails(errno.EBUSY):
            fs.rename("/", "/a")
        with fails(errno.EISDIR):
            fs.unlink("/")
        with fails(errno.EISDIR):
            fs.write_bytes("/", b"")

    def test_directories_count_their_subdirectories(self, fs: FileSystem) -> None:
        fs.makedirs("/a/b")
        fs.mkdir("/a/c")
        fs.write_bytes("/a/f", b"")
        assert (fs.stat("/").st_nlink, fs.stat("/a").st_nlink, fs.stat("/a/b").st_nlink) == (3, 4, 2)
        assert fs.stat("/a").st_size == 3
        fs.rename("/a/b", "/b")
        assert (fs.stat("/").st_nlink, fs.stat("/a").st_nlink) == (4, 3)
        fs.rename("/b", "/a/c")
        assert (fs.stat("/").st_nlink, fs.stat("/a").st_nlink, fs.stat("/a/c").st_nlink) == (3, 3, 2)
        fs.rename("/a/c", "/a/f", exchange=True)
        fs.rename("/a/c", "/g")
        fs.rename("/a/f", "/g", exchange=True)
        assert (fs.stat("/").st_nlink, fs.stat("/a").st_nlink) == (4, 2)

    def test_deep_directories(self, fs: FileSystem) -> None:
        path = ""
        for _ in range(1500):
            path += "/d"
            fs.mkdir(path)
        fs.write_bytes(path + "/f", b"deep")
        assert fs.read_bytes(path + "/f") == b"deep"
        with fails(errno.EINVAL):
            fs.rename("/d", path + "/x")
        fs.rmtree("/d")
        assert fs.listdir("/") == []
