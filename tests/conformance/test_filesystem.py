"""The Python interface on memory and on real files, compressed and not, in the root fileset and in another one.

After each test the store is checked.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from idemfs import FileSystem
from idemfs.clock import System
from idemfs.ids import ROOT_NUMBER, make_ino
from idemfs.testing.builders import assert_clean, file_store, memory_store
from idemfs.vfs.tree import Tree
from tests.conformance.filesystem import attributes, contents, names, renames


@pytest.fixture(params=["memory", "files", "compressed", "fileset"])
def fs(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FileSystem]:
    if request.param in ("memory", "fileset"):
        store = memory_store(clock=System())
    elif request.param == "files":
        store = file_store(str(tmp_path / "store"), block_size=128 << 10, clock=System())
    else:
        store = memory_store(compression="zstd", clock=System())
    with FileSystem(Tree(store)) as fs:
        fs.umask = 0o022
        if request.param == "fileset":
            enter(fs, fs.filesets.create("/inner").name)
        yield fs
        fs.sync()
        assert_clean(fs.tree)


def enter(fs: FileSystem, name: str) -> None:
    """As if the root of this fileset were the root of all."""
    fileset = fs.tree.store.catalog.fileset_named(name)
    fs.tree.root = fs.tree.reader.root = make_ino(fileset.number, ROOT_NUMBER)
    fs.tree.reader._crosses = False


class TestDirectories(names.Directories):
    pass


class TestNames(names.Names):
    pass


class TestLinks(names.Links):
    pass


class TestSymlinks(names.Symlinks):
    pass


class TestOwnSymlinks(names.OwnSymlinks):
    pass


class TestRenames(renames.Renames):
    pass


class TestContents(contents.Contents):
    pass


class TestHandles(contents.Handles):
    pass


class TestOwnContents(contents.OwnContents):
    pass


class TestAttributes(attributes.Attributes):
    pass


class TestXattrs(attributes.Xattrs):
    pass


class TestOwnXattrs(attributes.OwnXattrs):
    pass


class TestOwnAttributes(attributes.OwnAttributes):
    pass
