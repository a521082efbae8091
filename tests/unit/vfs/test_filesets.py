"""Filesets: where they appear, what leads through their junctions, and what does not."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

import pytest

from idemfs import FileSystem
from idemfs.errors import BadFilesetName, FilesetError, FilesetExists, FilesetMissing
from idemfs.ids import ROOT_NUMBER, FilesetId, Ino, fileset_of, make_ino
from idemfs.limits import FILESET_COUNT_MAX
from idemfs.testing.builders import assert_clean, memory_store, reopened
from idemfs.vfs.tree import Tree


@pytest.fixture
def fs() -> Iterator[FileSystem]:
    """Fileset ``home`` at /srv/home, and in it ``deep`` at /srv/home/d/deep."""
    with FileSystem(Tree(memory_store())) as fs:
        fs.mkdir("/srv")
        fs.filesets.create("/srv/home")
        fs.mkdir("/srv/home/d")
        fs.filesets.create("/srv/home/d/deep")
        yield fs
        fs.sync()
        assert_clean(fs.tree)


def refused(number: int, call: object, *arguments: object) -> OSError:
    assert callable(call)
    with pytest.raises(OSError) as caught:
        call(*arguments)
    assert caught.value.errno == number, caught.value
    return caught.value


def test_paths_lead_through_junctions_and_back(fs: FileSystem) -> None:
    fs.write_bytes("/srv/home/f", b"1")
    fs.write_bytes("/srv/home/d/deep/g", b"2" * 9000)
    assert fs.read_bytes("/srv/home/d/deep/../../f") == b"1"
    assert fs.read_bytes("/srv/home/d/deep/g") == b"2" * 9000
    assert fs.listdir("/srv") == ["home"] and fs.listdir("/srv/home") == ["d", "f"]
    assert [where for where, _, _ in fs.walk("/")] == ["/", "/srv", "/srv/home", "/srv/home/d", "/srv/home/d/deep"]
    fs.symlink("/srv/home/d/deep/g", "/srv/home/d/deep/absolute")
    fs.symlink("../../f", "/srv/home/d/deep/relative")
    assert fs.read_bytes("/srv/home/d/deep/absolute") == b"2" * 9000
    assert fs.read_bytes("/srv/home/d/deep/relative") == b"1"
    reader = fs.tree.reader
    assert reader.path(Ino(fs.stat("/srv/home/d/deep/g").st_ino)) == b"/srv/home/d/deep/g"
    assert reader.path(Ino(fs.stat("/srv/home/d/deep").st_ino)) == b"/srv/home/d/deep"
    assert reader.path(make_ino(FilesetId(0), ROOT_NUMBER)) == b"/"


def test_each_fileset_has_its_own_inode_numbers(fs: FileSystem) -> None:
    inos = [Ino(fs.stat(path).st_ino) for path in ("/", "/srv/home", "/srv/home/d/deep")]
    assert inos == [make_ino(FilesetId(number), ROOT_NUMBER) for number in range(3)]
    assert {entry.name: entry.inode() for entry in fs.scandir("/srv")} == {"home": inos[1]}
    fs.write_bytes("/srv/home/f", b"")
    assert fileset_of(Ino(fs.stat("/srv/home/f").st_ino)) == 1


def test_what_is_told_of_filesets(fs: FileSystem) -> None:
    fs.write_bytes("/srv/home/f", b"x" * 9000)
    root, home, deep = fs.filesets
    assert [info.name for info in fs.filesets] == ["root", "home", "deep"] and len(fs.filesets) == 3
    assert [info.path for info in (root, home, deep)] == ["/", "/srv/home", "/srv/home/d/deep"]
    assert (root.inode_count, home.inode_count, deep.inode_count) == (3, 4, 1)
    assert 3 * 4096 < home.active_bytes < 3 * 4096 + 2000 and deep.active_bytes < 200
    assert (
        "home" in fs.filesets
        and "gone" not in fs.filesets
        and "home" in repr(home)
        and "home" in repr(fs.filesets["home"])
    )
    assert fs.filesets["deep"].info().path == "/srv/home/d/deep"
    assert fs.filesets.at("/srv/home/d/deep").name == "deep" and fs.filesets.at("/srv/home/d").name == "home"
    with pytest.raises(FilesetMissing):
        fs.filesets["gone"]


def test_they_are_there_when_the_store_is_opened_again(fs: FileSystem) -> None:
    fs.write_bytes("/srv/home/d/deep/g", b"2" * 9000)
    before = [(info.name, info.path, info.active_bytes, info.guid) for info in fs.filesets]
    again = FileSystem(reopened(fs.tree))
    assert [(info.name, info.path, info.active_bytes, info.guid) for info in again.filesets] == before
    assert again.read_bytes("/srv/home/d/deep/g") == b"2" * 9000
    assert_clean(again.tree)


def test_a_directory_that_is_there_gives_owner_and_permissions(fs: FileSystem) -> None:
    fs.mkdir("/there")
    fs.chown("/there", 12, 34)
    fs.chmod("/there", 0o1750)
    junction = fs.stat("/there").st_ino
    fs.filesets.create("/there", "other")
    status = fs.stat("/there")
    assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o1750, 12, 34)
    assert status.st_ino != junction and status.st_nlink == 2


def test_where_no_fileset_can_be_made(fs: FileSystem) -> None:
    fs.makedirs("/full/of")
    fs.write_bytes("/file", b"")
    refused(errno.ENOTEMPTY, fs.filesets.create, "/full")
    refused(errno.ENOTDIR, fs.filesets.create, "/file")
    refused(errno.ENOENT, fs.filesets.create, "/no/such")
    error = refused(errno.EBUSY, fs.filesets.create, "/srv/home", "again")
    assert error.filename == "/srv/home"
    fs.snapshots.create("s")
    fs.makedirs("/d/.snapshots")
    for path, why in (("/", "below the root"), ("/d/..", "below the root"), ("/d/.snapshots", "where a mount shows")):
        with pytest.raises(FilesetError, match=why):
            fs.filesets.create(path, "new")
        with pytest.raises(FilesetError, match=why):
            fs.filesets.clone("s", path, "new")
        with pytest.raises(FilesetError, match=why):
            fs.filesets["home"].attach(path)
    with pytest.raises(FilesetExists):
        fs.filesets.create("/full/home")
    for name in ("", "a/b", "a@b", "*", "a?", "[a]", "x" * 201, "a\n", ".", "\udcff"):
        with pytest.raises(BadFilesetName):
            fs.filesets.create("/new", name)
    with pytest.raises(ValueError, match="compression"):
        fs.filesets.create("/new", compression="gzip")
    assert len(fs.filesets) == 3 and not fs.exists("/new")


def test_names_and_links_stay_in_their_fileset(fs: FileSystem) -> None:
    fs.write_bytes("/f", b"1")
    fs.write_bytes("/srv/home/g", b"2")
    refused(errno.EXDEV, fs.rename, "/f", "/srv/home/f")
    refused(errno.EXDEV, fs.rename, "/srv/home/g", "/f")
    refused(errno.EXDEV, fs.link, "/f", "/srv/home/f")
    refused(errno.EXDEV, fs.dynamic_link, "/f", "/srv/home/f")
    refused(errno.EXDEV, fs.rename, "/srv", "/srv/home/d/srv")
    assert fs.read_bytes("/f") == b"1" and fs.read_bytes("/srv/home/g") == b"2"


def test_a_junction_is_neither_removed_nor_replaced(fs: FileSystem) -> None:
    error = refused(errno.EBUSY, fs.rmdir, "/srv/home")
    assert "idemfs fileset delete" in str(error)
    fs.mkdir("/empty")
    refused(errno.EBUSY, fs.rename, "/empty", "/srv/home")
    fs.write_bytes("/srv/home/d/deep/kept", b"")
    refused(errno.EBUSY, fs.rmtree, "/srv")
    refused(errno.EBUSY, fs.rmtree, "/srv/home")
    assert fs.exists("/srv/home/d/deep/kept")


def test_a_junction_is_renamed_in_its_own_fileset(fs: FileSystem) -> None:
    fs.write_bytes("/srv/home/f", b"1")
    fs.mkdir("/other")
    fs.rename("/srv/home", "/other/house")
    assert fs.read_bytes("/other/house/f") == b"1" and not fs.exists("/srv/home")
    assert fs.filesets["home"].path == "/other/house" and fs.filesets["deep"].path == "/other/house/d/deep"
    fs.rename("/other/house", "/srv", exchange=True)
    assert fs.filesets["home"].path == "/srv" and fs.listdir("/other") == ["house"]
    refused(errno.EXDEV, fs.rename, "/srv/d/deep", "/deep")
    fs.rename("/srv/d", "/srv/e")
    assert fs.filesets["deep"].path == "/srv/e/deep"


def test_nothing_is_made_behind_a_junction(fs: FileSystem) -> None:
    junction = fs.tree.reader.named(Ino(fs.stat("/srv").st_ino), b"home")
    refused(errno.EBUSY, fs.tree.create, junction, b"hidden", 0o100644, 0, 0)
    fs.write_bytes("/srv/f", b"")
    refused(errno.EBUSY, fs.tree.link, Ino(fs.stat("/srv/f").st_ino), junction, b"hidden")


def test_names_of_filesets(fs: FileSystem) -> None:
    fs.filesets["home"].rename("people – 1")
    assert "home" not in fs.filesets and fs.filesets["people – 1"].path == "/srv/home"
    with pytest.raises(FilesetExists):
        fs.filesets["deep"].rename("people – 1")
    with pytest.raises(BadFilesetName):
        fs.filesets["deep"].rename("a/b")
    fs.filesets.create("/home")
    assert fs.filesets["home"].path == "/home"


def test_a_fileset_is_attached_elsewhere(fs: FileSystem) -> None:
    fs.write_bytes("/srv/home/f", b"1")
    fs.mkdir("/new")
    fs.filesets["home"].attach("/new")
    assert fs.read_bytes("/new/f") == b"1" and fs.listdir("/srv/home") == []
    fs.rmdir("/srv/home")
    fs.mkdir("/new/d/deep/inside")
    with pytest.raises(FilesetError):
        fs.filesets["home"].attach("/new/d/deep/inside")
    with pytest.raises(FilesetError):
        fs.filesets["root"].attach("/new/d/deep/inside")
    refused(errno.EBUSY, fs.filesets["deep"].attach, "/new/d/deep")
    refused(errno.ENOENT, fs.filesets["deep"].attach, "/nothing")


def test_a_change_in_one_fileset_copies_nothing_in_another(fs: FileSystem) -> None:
    for place in ("", "/srv/home", "/srv/home/d/deep"):
        fs.write_bytes(f"{place}/f", os.urandom(20_000))
    fs.snapshots.create_all("s", "home@s", "deep@s")
    fs.write_bytes("/srv/home/f", b"new" * 5000)
    fs.unlink("/srv/home/f")
    fs.mkdir("/srv/home/more")
    fs.sync()
    owned = {name: fs.snapshots.info(name).owned_bytes for name in ("s", "home@s", "deep@s")}
    assert owned["s"] == owned["deep@s"] == 0 and owned["home@s"] > 5 * 4096


def test_a_snapshot_shows_junctions_as_empty_directories(fs: FileSystem) -> None:
    fs.write_bytes("/srv/home/f", b"1")
    fs.snapshots.create_all("s", "home@s")
    root, home = fs.snapshots["s"], fs.snapshots["home@s"]
    assert [where for where, _, _ in root.walk("/")] == ["/", "/srv", "/srv/home"]
    assert root.listdir("/srv/home") == [] and home.read_bytes("/f") == b"1"
    assert home.listdir("/d/deep") == [] and home.stat("/..").st_ino == home.stat("/").st_ino


def test_a_dynamic_link_leads_to_the_newest_snapshot_of_its_own_fileset(fs: FileSystem) -> None:
    fs.write_bytes("/srv/home/f", b"old")
    fs.dynamic_link("/srv/home/f", "/srv/home/d/link")
    assert fs.read_bytes("/srv/home/d/link") == b"old"
    fs.snapshots.create_all("home@s", "root")
    fs.write_bytes("/srv/home/f", b"new")
    assert fs.read_bytes("/srv/home/d/link") == b"old" and fs.readlink("/srv/home/d/link") == "../.snapshots/latest/f"


def test_thousands_of_filesets() -> None:
    count = 3000
    fs = FileSystem(Tree(memory_store()))
    with fs.tree.store.lock:
        root = fs.tree.root
        for number in range(count):
            fs.tree.make_fileset(root, b"f%d" % number, f"f{number}", 0, 0)
    fs.snapshots.create_all(*(f"f{number}@s" for number in range(0, count, 10)))
    tree = reopened(fs.tree)
    # What opening has read of the snapshots: those of the root fileset alone.
    assert set(tree.store.catalog._sequences) <= {FilesetId(0)}
    again = FileSystem(tree)
    assert len(again.filesets) == count + 1 and again.filesets["f2999"].path == "/f2999"
    again.write_bytes("/f2999/f", b"1")
    changed = tree.store.catalog._changed_filesets
    again.sync()
    # A group writes the records of the filesets that it changed, and no others.
    again.write_bytes("/f17/f", b"1")
    tree.active.flush()
    assert changed is tree.store.catalog._changed_filesets and changed == {FilesetId(18)}
    assert FILESET_COUNT_MAX >= 10_000
    again.close()
