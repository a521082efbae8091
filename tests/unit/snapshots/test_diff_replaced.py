"""A file that is saved anew, as most programs do it, is one modified path, and no removal beside an addition."""

from __future__ import annotations

from pathlib import Path

import idemfs


def test_a_path_that_names_a_new_inode_is_modified(tmp_path: Path) -> None:
    with idemfs.create(tmp_path / "store") as fs:
        fs.write_bytes("/saved", b"old")
        fs.write_bytes("/log", b"old")
        fs.snapshots.create("base")
        fs.write_bytes("/saved.new", b"new")
        fs.rename("/saved.new", "/saved")
        fs.rename("/log", "/log.1")
        fs.write_bytes("/log", b"new")
        changes = {
            (change.kind.value, change.path, change.new_path, change.what) for change in fs.snapshots.diff("base")
        }
    assert changes == {
        ("modified", "/", None, ("entries",)),
        ("modified", "/saved", None, ("replaced",)),
        ("renamed", "/log", "/log.1", ()),
        ("added", "/log", None, ()),
    }
