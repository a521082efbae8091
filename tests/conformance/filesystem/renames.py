"""Every case of rename(2) and renameat2(2): one suite for every way to a tree."""

from __future__ import annotations

import errno

import pytest

from idemfs import FileSystem
from tests.conformance.filesystem.subject import fails


class Renames:
    def test_to_a_free_name(self, fs: FileSystem) -> None:
        fs.makedirs("/d/e")
        fs.write_bytes("/f", b"1")
        before = fs.stat("/f")
        fs.rename("/f", "/d/e/g")
        after = fs.stat("/d/e/g")
        assert not fs.exists("/f") and fs.read_bytes("/d/e/g") == b"1"
        assert (after.st_ino, after.st_mtime_ns, after.st_nlink) == (before.st_ino, before.st_mtime_ns, 1)

    def test_onto_itself(self, fs: FileSystem) -> None:
        fs.mkdir("/d")
        fs.write_bytes("/f", b"1")
        fs.rename("/f", "/f")
        fs.rename("/d", "/d")
        fs.rename("/d/", "/./d/")
        assert fs.listdir("/") == ["d", "f"] and fs.read_bytes("/f") == b"1"

    def test_onto_a_file(self, fs: FileSystem) -> None:
        fs.write_bytes("/f", b"new")
        fs.write_bytes("/g", b"old")
        fs.link("/g", "/h")
        fs.rename("/f", "/g")
        assert fs.listdir("/") == ["g", "h"]
        assert (fs.read_bytes("/g"), fs.read_bytes("/h"), fs.stat("/h").st_nlink) == (b"new", b"old", 1)

    def test_onto_another_name_of_the_same_file_does_nothing(self, fs: FileSystem) -> None:
        fs.write_bytes("/f", b"1")
        fs.link("/f", "/g")
        fs.rename("/f", "/g")
        assert fs.listdir("/") == ["f", "g"] and fs.stat("/f").st_nlink == 2

    def test_one_name_of_a_file_of_several(self, fs: FileSystem) -> None:
        fs.mkdir("/d")
        fs.write_bytes("/a", b"1")
        fs.link("/a", "/b")
        fs.link("/a", "/c")
        fs.rename("/b", "/d/b")
        fs.rename("/a", "/d/a")
        assert fs.listdir("/") == ["c", "d"] and fs.listdir("/d") == ["a", "b"]
        fs.unlink("/c")
        fs.unlink("/d/a")
        assert fs.stat("/d/b").st_nlink == 1

    def test_a_directory(self, fs: FileSystem) -> None:
        fs.makedirs("/a/b/c")
        fs.mkdir("/z")
        fs.write_bytes("/a/b/c/f", b"1")
        fs.rename("/a/b", "/z/b/")
        assert fs.read_bytes("/z/b/c/f") == b"1" and fs.listdir("/a") == []
        assert fs.stat("/z/b/..").st_ino == fs.stat("/z").st_ino

    def test_a_directory_onto_a_directory(self, fs: FileSystem) -> None:
        fs.makedirs("/a/x")
        fs.mkdir("/empty")
        fs.makedirs("/full/y")
        with fails(errno.ENOTEMPTY) as error:
            fs.rename("/a", "/full")
        assert (error.value.filename, error.value.filename2) == ("/a", "/full")
        fs.rename("/a", "/empty")
        assert fs.listdir("/") == ["empty", "full"] and fs.listdir("/empty") == ["x"]

    def test_between_kinds(self, fs: FileSystem) -> None:
        fs.mkdir("/d")
        fs.write_bytes("/f", b"")
        fs.symlink("d", "/s")
        with fails(errno.EISDIR):
            fs.rename("/f", "/d")
        with fails(errno.EISDIR):
            fs.rename("/s", "/d")
        for path in ("/f", "/s"):
            with fails(errno.ENOTDIR):
                fs.rename("/d", path)
        fs.rename("/f", "/s")
        assert fs.listdir("/") == ["d", "s"] and fs.is_file("/s") and not fs.is_symlink("/s")

    def test_into_itself(self, fs: FileSystem) -> None:
        fs.makedirs("/a/b/c")
        for target in ("/a/x", "/a/b", "/a/b/x", "/a/b/c", "/a/b/c/x"):
            with fails(errno.EINVAL):
                fs.rename("/a", target)
        for source, target in (("/a/b", "/a"), ("/a/b/c", "/a"), ("/a/b/c", "/a/b")):
            with fails(errno.ENOTEMPTY):
                fs.rename(source, target)
        assert [at for at, _, _ in fs.walk("/")] == ["/", "/a", "/a/b", "/a/b/c"]

    def test_what_is_not_there(self, fs: FileSystem) -> None:
        fs.mkdir("/d")
        fs.write_bytes("/f", b"")
        with fails(errno.ENOENT):
            fs.rename("/no", "/x")
        with fails(errno.ENOENT):
            fs.rename("/f", "/no/x")
        with fails(errno.ENOENT):
            fs.rename("/no/x", "/y")
        with fails(errno.ENOTDIR):
            fs.rename("/f/x", "/y")
        with fails(errno.ENOTDIR):
            fs.rename("/d", "/f/x")

    def test_a_slash_at_the_end_and_dots(self, fs: FileSystem) -> None:
        fs.mkdir("/d")
        fs.write_bytes("/f", b"")
        for source, target in (("/f/", "/g"), ("/f", "/g/")):
            with fails(errno.ENOTDIR):
                fs.rename(source, target)
        for source, target in (("/d/.", "/e"), ("/d/..", "/e"), ("/d", "/d/.")):
            with fails(errno.EBUSY):
                fs.rename(source, target)
        fs.rename("/d/", "/e/")
        assert fs.listdir("/") == ["e", "f"]

    def test_times(self, fs: FileSystem) -> None:
        fs.mkdir("/a")
        fs.mkdir("/b")
        fs.write_bytes("/a/f", b"")
        for path in ("/a/f", "/a", "/b"):
            fs.utime(path, ns=(5, 5))
        before = fs.stat("/a/f")
        fs.rename("/a/f", "/b/f")
        assert fs.stat("/a").st_mtime_ns != 5 and fs.stat("/b").st_mtime_ns != 5
        after = fs.stat("/b/f")
        assert after.st_mtime_ns == 5 and after.st_ctime_ns >= before.st_ctime_ns

    def test_replacing_an_open_file(self, fs: FileSystem) -> None:
        fs.write_bytes("/f", b"new")
        fs.write_bytes("/g", b"old")
        with fs.open("/g", "r+b", buffering=0) as file:
            fs.rename("/f", "/g")
            assert file.read() == b"old"
            file.write(b" still")
            file.seek(0)
            assert file.read() == b"old still"
        assert fs.read_bytes("/g") == b"new"

    def test_noreplace(self, fs: FileSystem) -> None:
        fs.mkdir("/d")
        fs.write_bytes("/f", b"1")
        fs.write_bytes("/g", b"2")
        fs.link("/f", "/same")
        for target in ("/g", "/d", "/f", "/same"):
            with fails(errno.EEXIST):
                fs.rename("/f", target, noreplace=True)
        fs.rename("/f", "/d/f", noreplace=True)
        assert fs.read_bytes("/d/f") == b"1" and fs.read_bytes("/g") == b"2"
        with fails(errno.EINVAL):
            fs.rename("/g", "/same", noreplace=True, exchange=True)

    def test_exchange(self, fs: FileSystem) -> None:
        fs.makedirs("/a/dir/x")
        fs.mkdir("/b")
        fs.write_bytes("/b/file", b"1")
        fs.write_bytes("/other", b"2")
        fs.rename("/b/file", "/other", exchange=True)
        assert (fs.read_bytes("/b/file"), fs.read_bytes("/other")) == (b"2", b"1")
        fs.rename("/a/dir", "/b/file", exchange=True)
        assert fs.read_bytes("/a/dir") == b"2" and fs.listdir("/b/file") == ["x"]
        assert fs.stat("/b/file/..").st_ino == fs.stat("/b").st_ino
        fs.rename("/b/file", "/a", exchange=True)
        assert fs.listdir("/a") == ["x"] and fs.listdir("/b/file") == ["dir"]
        fs.rename("/a", "/a", exchange=True)

    def test_exchange_of_what_cannot_be(self, fs: FileSystem) -> None:
        fs.makedirs("/a/b/c")
        fs.write_bytes("/f", b"")
        for source, target in (("/f", "/no"), ("/no", "/f")):
            with fails(errno.ENOENT):
                fs.rename(source, target, exchange=True)
        for source, target in (("/a", "/a/b"), ("/a/b", "/a"), ("/a/b/c", "/a"), ("/a", "/a/b/c")):
            with fails(errno.EINVAL):
                fs.rename(source, target, exchange=True)

    def test_exchange_of_two_names_of_one_file(self, fs: FileSystem) -> None:
        fs.write_bytes("/f", b"1")
        fs.link("/f", "/g")
        fs.rename("/f", "/g", exchange=True)
        assert fs.listdir("/") == ["f", "g"] and fs.stat("/f").st_nlink == 2

    @pytest.mark.parametrize("exchange", [False, True])
    def test_links_keep_their_names_apart(self, fs: FileSystem, exchange: bool) -> None:
        fs.makedirs("/d")
        fs.write_bytes("/a1", b"a")
        fs.link("/a1", "/d/a2")
        fs.write_bytes("/b1", b"b")
        fs.link("/b1", "/d/b2")
        fs.rename("/a1", "/d/b2", exchange=exchange)
        found = {at: fs.read_bytes(at) for at in ("/a1", "/b1", "/d/a2", "/d/b2") if fs.exists(at)}
        wanted = {"/b1": b"b", "/d/a2": b"a", "/d/b2": b"a"}
        assert found == wanted | ({"/a1": b"b"} if exchange else {})
        assert [fs.stat(path).st_nlink for path in ("/d/a2", "/b1")] == [2, 2 if exchange else 1]
