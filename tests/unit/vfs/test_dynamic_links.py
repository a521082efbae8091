"""Dynamic links through the Python interface: what they lead to, in which state, and what is refused."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from idemfs import FileSystem
from idemfs.ids import Number, number_of
from idemfs.limits import NAME_SIZE_MAX
from idemfs.testing.builders import assert_clean, memory_tree
from idemfs.vfs.copying_in import put
from idemfs.vfs.copying_out import get


@pytest.fixture
def fs() -> Iterator[FileSystem]:
    """``/d/e/link`` leads to ``/d/f``, in which is ``active``."""
    with FileSystem(memory_tree()) as fs:
        fs.makedirs("/d/e")
        fs.write_bytes("/d/f", b"active")
        fs.dynamic_link("/d/f", "/d/e/link")
        yield fs
        fs.sync()
        assert_clean(fs.tree)


def change_and_take(fs: FileSystem, name: str, path: str = "/d/f") -> None:
    """Snapshot ``name``, in which ``path`` holds its name."""
    fs.write_bytes(path, name.encode())
    fs.snapshots.create(name)


def refused(number: int, call: Callable[..., object], *args: object) -> OSError:
    with pytest.raises(OSError) as caught:
        call(*args)
    assert caught.value.errno == number, caught.value
    return caught.value


def test_without_a_snapshot_it_leads_to_the_active_file(fs: FileSystem) -> None:
    assert fs.read_bytes("/d/e/link") == b"active" and fs.readlink("/d/e/link") == "../../d/f"
    assert fs.stat("/d/e/link") == fs.stat("/d/f")
    with fs.open("/d/e/link", "ab") as file:
        file.write(b" file")
    fs.rename("/d", "/moved")
    assert fs.read_bytes("/moved/e/link") == b"active file" and fs.readlink("/moved/e/link") == "../../moved/f"
    fs.unlink("/moved/f")
    refused(errno.ENOENT, fs.read_bytes, "/moved/e/link")
    assert fs.readlink("/moved/e/link") == "../../.snapshots/@no-inode-4" and not fs.exists("/moved/e/link")


def test_own_version_ditto_and_active(fs: FileSystem) -> None:
    fs.write_bytes("/d/f", b"a" * 5000 + b"b" * 5000)
    fs.snapshots.create("one")
    with fs.open("/d/f", "r+b") as file:
        file.write(b"x" * 5000)
    assert fs.read_bytes("/d/e/link") == b"a" * 5000 + b"b" * 5000, "its own version, with a ditto"
    fs.snapshots.create("two")
    assert fs.read_bytes("/d/e/link") == b"x" * 5000 + b"b" * 5000, "nothing but dittos"
    fs.write_bytes("/d/f", b"short")
    assert fs.read_bytes("/d/e/link") == b"x" * 5000 + b"b" * 5000
    fs.snapshots.delete("two")
    assert fs.read_bytes("/d/e/link") == b"a" * 5000 + b"b" * 5000, "the newest one that is left"
    fs.snapshots.delete("one")
    assert fs.read_bytes("/d/e/link") == b"short", "none is left"


def test_it_follows_renames_and_stays_while_the_newest_snapshot_has_it(fs: FileSystem) -> None:
    change_and_take(fs, "one")
    fs.rename("/d/f", "/d/g")
    fs.rename("/d", "/moved")
    assert fs.readlink("/moved/e/link") == "../../.snapshots/latest/d/f", "as the snapshot names it"
    change_and_take(fs, "two", "/moved/g")
    assert fs.readlink("/moved/e/link") == "../../.snapshots/latest/moved/g"
    fs.unlink("/moved/g")
    fs.write_bytes("/moved/g", b"another file of this name")
    assert fs.read_bytes("/moved/e/link") == b"two"
    fs.snapshots.create("three")
    told = refused(errno.ENOENT, fs.read_bytes, "/moved/e/link")
    assert "snapshot three has no inode 4" in str(told) and told.filename == "/moved/e/link"
    assert fs.readlink("/moved/e/link") == "../../.snapshots/@no-inode-4-in-three"
    fs.snapshots.delete("three")
    assert fs.read_bytes("/moved/e/link") == b"two"


def test_a_restore_brings_the_file_back(fs: FileSystem) -> None:
    change_and_take(fs, "one")
    fs.unlink("/d/f")
    fs.snapshots.create("two")
    assert not fs.exists("/d/e/link")
    fs.snapshots.restore("one")
    assert not fs.exists("/d/e/link"), "the newest snapshot is the one that undoes the restore"
    fs.snapshots.create("three")
    assert fs.read_bytes("/d/e/link") == b"one"


def test_a_file_made_after_the_newest_snapshot(fs: FileSystem) -> None:
    fs.snapshots.create("one")
    fs.write_bytes("/late", b"late")
    fs.dynamic_link("/late", "/link")
    assert not fs.exists("/link") and fs.is_symlink("/link")
    fs.snapshots.create("two")
    assert fs.read_bytes("/link") == b"late"


def test_a_file_that_was_open_without_a_name(fs: FileSystem) -> None:
    with fs.open("/d/f", "rb"):
        fs.unlink("/d/f")
        fs.snapshots.create("one")
        assert not fs.exists("/d/e/link"), "no path leads to it in a mount either"


def test_in_a_snapshot_too_it_leads_to_the_newest(fs: FileSystem) -> None:
    change_and_take(fs, "one")
    change_and_take(fs, "two")
    view = fs.snapshots["one"]
    assert view.read_bytes("/d/f") == b"one" and view.read_bytes("/d/e/link") == b"two"
    assert view.readlink(b"/d/e/link") == b"../../.snapshots/latest/d/f"
    with view.open("/d/e/link", "rb") as file:
        change_and_take(fs, "three")
        assert file.read() == b"two", "who had it open reads what was opened"
    assert view.stat("/d/e/link") == fs.snapshots["three"].stat("/d/f")


def test_nothing_is_written_through_it(fs: FileSystem) -> None:
    change_and_take(fs, "one")
    fs.dynamic_link("/d", "/directory")
    link = "/d/e/link"
    for call, args in (
        (fs.open, (link, "r+b")),
        (fs.open, (link, "wb")),
        (fs.open, (link, "ab")),
        (fs.write_bytes, (link, b"x")),
        (fs.truncate, (link, 0)),
        (fs.punch_hole, (link, 0, 1)),
        (fs.chmod, (link, 0o600)),
        (fs.chown, (link, 1, 1)),
        (fs.utime, (link,)),
        (fs.setxattr, (link, "user.a", b"1")),
        (fs.mkdir, ("/directory/x",)),
        (fs.write_bytes, ("/directory/x", b"")),
        (fs.unlink, ("/directory/f",)),
        (fs.rmdir, ("/directory/e",)),
        (fs.rename, ("/directory/f", "/g")),
        (fs.rename, ("/d/f", "/directory/g")),
    ):
        refused(errno.EROFS, call, *args)
    refused(errno.EEXIST, fs.open, link, "xb")
    assert fs.read_bytes("/d/f") == b"one" and fs.listdir("/directory") == ["e", "f"]


def test_directories(fs: FileSystem) -> None:
    fs.dynamic_link("/d", "/d/e/up")
    fs.dynamic_link("/", "/root")
    assert fs.readlink("/root") == "." and fs.readlink("/d/e/up") == "../../d"
    assert fs.read_bytes("/d/e/up/e/up/f") == b"active" and fs.listdir("/root") == ["d", "root"]
    change_and_take(fs, "one")
    fs.write_bytes("/d/g", b"")
    assert fs.listdir("/d/e/up") == ["e", "f"] and fs.read_bytes("/root/d/e/up/f") == b"one"
    assert fs.readlink("/root") == ".snapshots/latest" and fs.is_dir("/root") and not fs.is_file("/root")
    assert [entry.name for entry in fs.scandir("/root/d") if entry.is_dir()] == ["e"]
    assert fs.stat("/root/d/../d/f").st_ino == fs.stat("/d/f").st_ino
    assert [path for path, _, _ in fs.walk("/")] == ["/", "/d", "/d/e"], "a walk does not follow it"
    refused(errno.ENOTDIR, fs.stat, "/d/e/link/x")
    refused(errno.ENOTDIR, fs.stat, "/d/e/link/")


def test_it_is_a_symlink_otherwise(fs: FileSystem) -> None:
    change_and_take(fs, "one")
    status = fs.lstat("/d/e/link")
    assert stat.S_ISLNK(status.st_mode) and status.st_size == len("../../.snapshots/latest/d/f")
    assert fs.is_symlink("/d/e/link") and fs.is_dynamic_link("/d/e/link")
    assert not fs.is_dynamic_link("/d/f") and not fs.is_dynamic_link("/none")
    fs.setxattr("/d/e/link", "user.a", b"1", follow_symlinks=False)
    assert fs.listxattr("/d/e/link") == [] and fs.listxattr("/d/e/link", follow_symlinks=False) == ["user.a"]
    fs.utime("/d/e/link", ns=(1, 2), follow_symlinks=False)
    refused(errno.EOPNOTSUPP, lambda: fs.chmod("/d/e/link", 0, follow_symlinks=False))
    refused(errno.EMLINK, fs.link, "/d/e/link", "/second")
    refused(errno.ENOTDIR, fs.rmtree, "/d/e/link")
    fs.symlink("d/e/link", "/plain")
    assert fs.read_bytes("/plain") == b"one"
    fs.rename("/d/e/link", "/link")
    assert fs.readlink("/link") == ".snapshots/latest/d/f" and fs.lstat("/link").st_mtime_ns == 2
    fs.unlink("/link")
    assert fs.read_bytes("/d/f") == b"one" and not fs.exists("/link", follow_symlinks=False)


def test_what_it_is_made_to(fs: FileSystem) -> None:
    refused(errno.ENOENT, fs.dynamic_link, "/none", "/link")
    refused(errno.EEXIST, fs.dynamic_link, "/d/f", "/d/e/link")
    refused(errno.EEXIST, fs.dynamic_link, "/d/f", "/d/")
    refused(errno.ENOENT, fs.dynamic_link, "/d/f", "/new/")
    refused(errno.EINVAL, fs.dynamic_link, "d/f", "/link")
    fs.symlink("d/f", "/plain")
    fs.dynamic_link("/plain", "/one")
    fs.dynamic_link("/one", "/two")
    change_and_take(fs, "monday")
    fs.dynamic_link("/two", "/three")
    fs.unlink("/plain")
    for name in ("/one", "/two", "/three"):
        assert fs.readlink(name) == ".snapshots/latest/d/f", "the file, not what led to it"


def test_a_file_of_several_names(fs: FileSystem) -> None:
    fs.link("/d/f", "/second")
    fs.unlink("/d/f")
    change_and_take(fs, "one", "/second")
    assert fs.readlink("/d/e/link") == "../../.snapshots/latest/second" and fs.read_bytes("/d/e/link") == b"one"


def test_a_target_that_lies_too_deep(fs: FileSystem) -> None:
    path = ""
    for _ in range(17):
        path += "/" + "x" * NAME_SIZE_MAX
        fs.mkdir(path)
    fs.write_bytes(path + "/f", b"deep")
    fs.dynamic_link(path + "/f", "/deep")
    refused(errno.ENAMETOOLONG, fs.readlink, "/deep")
    assert fs.read_bytes("/deep") == b"deep" and fs.lstat("/deep").st_size > 4095


def test_names_that_are_no_text(fs: FileSystem) -> None:
    fs.write_bytes(b"/\xff", b"1")
    fs.dynamic_link(b"/\xff", b"/\xfe")
    fs.snapshots.create("one")
    assert fs.readlink(b"/\xfe") == b".snapshots/latest/\xff"


def test_copied_to_the_host_and_back(fs: FileSystem, tmp_path: Path) -> None:
    change_and_take(fs, "one")
    out = os.fsencode(tmp_path / "out")
    get(fs.reader, b"/d", out)
    assert os.readlink(out + b"/e/link") == b"../../.snapshots/latest/d/f"
    get(fs.reader, b"/d/e/link", os.fsencode(tmp_path / "file"))
    assert (tmp_path / "file").read_bytes() == b"one" and not (tmp_path / "file").is_symlink()
    kept = put(fs.tree, out, b"/d", mirror=True).kept_count
    assert kept == 2 and fs.is_dynamic_link("/d/e/link"), "a mirror finds nothing to change"
    put(fs.tree, out, b"/copy")
    assert not fs.is_dynamic_link("/copy/e/link")
    assert fs.readlink("/copy/e/link") == fs.readlink("/d/e/link")
    refused(errno.EROFS, put, fs.tree, os.fsencode(tmp_path / "file"), b"/d/e/link")


def test_what_differs(fs: FileSystem) -> None:
    fs.snapshots.create("one")
    fs.dynamic_link("/d/f", "/second")
    fs.unlink("/d/e/link")
    found = {(change.kind.value, change.path) for change in fs.snapshots.diff("one")}
    assert {("added", "/second"), ("removed", "/d/e/link")} <= found
    assert fs.snapshots["one"].is_dynamic_link("/d/e/link")


def test_by_number(fs: FileSystem) -> None:
    tree = fs.tree
    link = tree.reader.lookup(tree.reader.lookup(tree.reader.lookup(tree.root, b"d"), b"e"), b"link")
    reader, named = tree.reader.follow(link, tree.reader.inode(link))
    assert reader is tree.reader and number_of(named) == Number(4)
    fs.snapshots.create("one")
    reader, _ = tree.reader.follow(link, tree.reader.inode(link))
    assert reader.what() == "snapshot one"
