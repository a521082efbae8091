"""The Python interface on memory and on real files, compressed and not; after each test the store is checked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from idemfs import FileSystem
from idemfs.clock import System
from idemfs.testing.builders import assert_clean, file_store, memory_store
from idemfs.vfs.tree import Tree
from tests.conformance.filesystem import attributes, contents, names, renames


@pytest.fixture(params=["memory", "files", "compressed"])
def fs(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FileSystem]:
    if request.param == "memory":
        store = memory_store(clock=System())
    elif request.param == "files":
        store = file_store(str(tmp_path / "store"), block_size=128 << 10, clock=System())
    else:
        store = memory_store(compression="zstd", clock=System())
    with FileSystem(Tree(store)) as fs:
        fs.umask = 0o022
        yield fs
        fs.sync()
        assert_clean(fs.tree)


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
