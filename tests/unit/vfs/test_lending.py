"""A store that its owner lends is opened by others in the process, and closed by the owner alone."""

from __future__ import annotations

from pathlib import Path

import pytest

import idemfs
from idemfs.errors import StoreInUse
from idemfs.store.files import create_files, open_files, refuse_if_in_use
from idemfs.vfs.lending import lending
from idemfs.vfs.tree import Tree


def test_lending(tmp_path: Path) -> None:
    path = str(tmp_path / "store")
    create_files(path)
    owner = Tree(open_files(path))
    with pytest.raises(StoreInUse):
        idemfs.open(path)
    with lending(path, owner):
        refuse_if_in_use(path)
        with idemfs.open(path) as fs, idemfs.open(path, readonly=True) as other:
            fs.write_bytes("/f", b"1")
            assert other.read_bytes("/f") == b"1"
            assert fs.tree.active is owner.active
        assert owner.reader.read(owner.reader.lookup(owner.root, b"f"), 0, 10) == b"1"
    with pytest.raises(StoreInUse):
        refuse_if_in_use(path)
    owner.store.close()
    with idemfs.open(path) as fs:
        assert fs.read_bytes("/f") == b"1"
