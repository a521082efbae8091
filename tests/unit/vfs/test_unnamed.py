"""Files that are made without a name, in the active files, in one fileset shown alone, and in a written snapshot."""

from __future__ import annotations

import errno
import stat
from collections.abc import Iterator

import pytest

from idemfs import FileSystem
from idemfs.testing.builders import assert_clean, memory_tree
from idemfs.vfs.fileset_tree import FilesetTree
from idemfs.vfs.snapshot_tree import SnapshotTree
from idemfs.vfs.tree import Tree

CONTENT = b"content" * 5_000


@pytest.fixture(params=["active", "fileset", "snapshot"])
def tree(request: pytest.FixtureRequest) -> Iterator[Tree]:
    fs = FileSystem(memory_tree())
    fs.filesets.create("/home")
    fs.snapshots.create("s")
    match request.param:
        case "active":
            yield fs.tree
        case "fileset":
            yield FilesetTree(fs.tree, fs.tree.store.catalog.fileset_named("home").number)
        case _:
            with_snapshot = SnapshotTree(fs.tree, fs.tree.store.catalog.by_name(fs.tree.fileset, "s"))
            yield with_snapshot
            with_snapshot.close()
    assert_clean(fs.tree)


def test_one_that_gets_a_name_stays(tree: Tree) -> None:
    names = tree.reader.entries(tree.root)
    ino = tree.create(tree.root, None, stat.S_IFREG | 0o640, 0, 0)
    tree.write(ino, 0, CONTENT)
    assert (tree.reader.entries(tree.root), tree.reader.inode(ino).nlink) == (names, 0)
    tree.link(ino, tree.root, b"f")
    tree.release(ino)
    assert tree.reader.read(tree.reader.lookup(tree.root, b"f"), 0, 1 << 20) == CONTENT
    assert tree.reader.inode(ino).nlink == 1


def test_one_that_gets_none_goes_when_it_is_closed(tree: Tree) -> None:
    ino = tree.create(tree.root, None, stat.S_IFREG | 0o640, 0, 0)
    tree.write(ino, 0, CONTENT)
    tree.store.commit()
    tree.release(ino)
    with pytest.raises(FileNotFoundError):
        tree.reader.inode(ino)


def test_one_that_lost_its_name_gets_none_again(tree: Tree) -> None:
    ino = tree.create(tree.root, None, stat.S_IFREG | 0o640, 0, 0)
    tree.link(ino, tree.root, b"f")
    tree.unlink(tree.root, b"f")
    with pytest.raises(OSError) as refused:
        tree.link(ino, tree.root, b"g")
    assert refused.value.errno == errno.ENOENT
    tree.release(ino)


def test_a_snapshot_takes_one_for_what_it_is() -> None:
    with FileSystem(memory_tree()) as fs:
        ino = fs.tree.create(fs.tree.root, None, stat.S_IFREG | 0o640, 0, 0)
        fs.tree.write(ino, 0, CONTENT)
        fs.snapshots.create("s")
        assert fs.snapshots["s"].listdir("/") == []
        fs.tree.link(ino, fs.tree.root, b"f")
        fs.tree.release(ino)
        assert (fs.snapshots["s"].listdir("/"), fs.read_bytes("/f")) == ([], CONTENT)
        fs.snapshots.delete("s")
        assert_clean(fs.tree)
