"""Bounds that are far away: links to one file, subdirectories of one directory."""

from __future__ import annotations

import errno

import pytest

from idemfs import FileSystem
from idemfs.limits import LINK_COUNT_MAX
from idemfs.testing.builders import assert_clean, memory_store
from idemfs.vfs.tree import Tree


def test_links_to_one_file_have_an_end() -> None:
    with FileSystem(Tree(memory_store())) as fs:
        fs.write_bytes("/f", b"1")
        for index in range(LINK_COUNT_MAX - 1):
            fs.link("/f", f"/{index}")
        with pytest.raises(OSError) as error:
            fs.link("/f", "/one-more")
        assert error.value.errno == errno.EMLINK and fs.stat("/f").st_nlink == LINK_COUNT_MAX
        fs.unlink("/f")
        fs.link("/0", "/one-more")
        assert fs.read_bytes("/one-more") == b"1"
        fs.sync()
        assert_clean(fs.tree)


def test_subdirectories_have_an_end() -> None:
    with FileSystem(Tree(memory_store())) as fs:
        fs.mkdir("/other")
        fs.mkdir("/d")
        for index in range(LINK_COUNT_MAX - 2):
            fs.mkdir(f"/d/{index}")
        fs.write_bytes("/d/file", b"")
        for source, target, exchange in (
            ("/other", "/d/other", False),
            ("/other", "/d/file", True),
            ("/d/file", "/other", True),
        ):
            with pytest.raises(OSError) as error:
                fs.rename(source, target, exchange=exchange)
            assert error.value.errno == errno.EMLINK
        with pytest.raises(OSError) as error:
            fs.mkdir("/d/one-more")
        assert error.value.errno == errno.EMLINK
        fs.rename("/d/0", "/d/renamed")
        fs.rename("/other", "/d/1")
        assert fs.stat("/d").st_nlink == LINK_COUNT_MAX
        fs.write_bytes("/file", b"")
        fs.rename("/d/2", "/file", exchange=True)
        assert fs.stat("/d").st_nlink == LINK_COUNT_MAX - 1
        fs.sync()
        assert_clean(fs.tree)
