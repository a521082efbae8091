"""What is no path in a store is refused by every method in the same words."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from idemfs import FileSystem
from idemfs.testing.builders import memory_store
from idemfs.vfs.tree import Tree

CALLS: dict[str, Callable[[FileSystem, str], object]] = {
    "write": lambda fs, path: fs.write_bytes(path, b"1"),
    "mkdir": lambda fs, path: fs.mkdir(path),
    "unlink": lambda fs, path: fs.unlink(path),
    "rename from": lambda fs, path: fs.rename(path, "/other"),
    "rename to": lambda fs, path: fs.rename("/there", path),
    "symlink": lambda fs, path: fs.symlink("x", path),
    "fileset": lambda fs, path: fs.filesets.create(path, "f"),
    "clone": lambda fs, path: fs.filesets.clone("s", path, "f"),
    "attach": lambda fs, path: fs.filesets["home"].attach(path),
    "restore": lambda fs, path: fs.snapshots.restore("s", path="/there", to=path),
}


@pytest.mark.parametrize("path", ["name", "there", "two/names"])
@pytest.mark.parametrize("call", CALLS)
def test_a_path_begins_with_a_slash(call: str, path: str) -> None:
    with FileSystem(Tree(memory_store())) as fs:
        fs.write_bytes("/there", b"1")
        fs.filesets.create("/home")
        fs.snapshots.create("s")
        with pytest.raises(OSError, match="begins with '/'") as error:
            CALLS[call](fs, path)
        assert error.value.errno == errno.EINVAL
        assert sorted(fs.listdir("/")) == ["home", "there"]
