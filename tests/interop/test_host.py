"""A local file system as referee: what the suites say of idemfs is what the host does."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from idemfs import FileSystem
from tests.conformance.filesystem import attributes, contents, names, renames
from tests.interop.host_tree import HostTree
from tests.interop.trees import has_xattrs

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="owners and devices need root")


@pytest.fixture
def fs(tmp_path: Path) -> Iterator[FileSystem]:
    root = tmp_path / "tree"
    root.mkdir()
    old = os.umask(0o022)
    try:
        yield cast(FileSystem, HostTree(root))
    finally:
        os.umask(old)


class TestDirectories(names.Directories):
    pass


class TestNames(names.Names):
    pass


class TestLinks(names.Links):
    pass


class TestSymlinks(names.Symlinks):
    pass


class TestRenames(renames.Renames):
    pass


class TestContents(contents.Contents):
    pass


class TestHandles(contents.Handles):
    pass


class TestAttributes(attributes.Attributes):
    pass


class TestXattrs(attributes.Xattrs):
    @pytest.fixture(autouse=True)
    def _on_a_host_that_has_them(self, tmp_path: Path) -> None:
        if not has_xattrs(tmp_path):
            pytest.skip("the host keeps no extended attributes here")
