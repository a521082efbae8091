"""The suites on a mount, through the kernel. After them the store is checked, and nothing was logged."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.filesystem import attributes, contents, names, renames
from tests.conformance.mounted import MountedFileSystem, idemfs, mounted


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    base = tmp_path_factory.mktemp("mount")
    idemfs("init", base / "store")
    with mounted(base / "store", base / "mount") as directory:
        yield directory


@pytest.fixture
def fs(root: Path) -> Iterator[MountedFileSystem]:
    old = os.umask(0o022)
    yield MountedFileSystem(root)
    os.umask(old)
    for name in os.listdir(root):
        path = root / name
        if not path.is_symlink() and path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


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
    pass
