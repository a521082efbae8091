"""A directory that was removed while somebody has it open takes no entries any more."""

from __future__ import annotations

import errno
import stat

import pytest

from idemfs.testing.builders import memory_tree
from idemfs.vfs.tree import RenameFlag


def test_nothing_is_created_in_linked_into_or_moved_into_a_removed_directory() -> None:
    tree = memory_tree()
    folder = tree.create(tree.root, b"d", stat.S_IFDIR | 0o755, 0, 0)
    file = tree.create(tree.root, b"f", stat.S_IFREG | 0o644, 0, 0)
    tree.open(folder)
    tree.rmdir(tree.root, b"d")
    with pytest.raises(OSError) as created:
        tree.create(folder, b"n", stat.S_IFREG, 0, 0)
    with pytest.raises(OSError) as linked:
        tree.link(file, folder, b"n")
    with pytest.raises(OSError) as moved:
        tree.rename(tree.root, b"f", folder, b"n", RenameFlag.NONE)
    assert [failure.value.errno for failure in (created, linked, moved)] == [errno.ENOENT] * 3
    tree.release(folder)
    assert [name for name, _, _ in tree.reader.entries(tree.root)] == [b"f"]
