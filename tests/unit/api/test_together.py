"""Clones, snapshots that are written to, and what else meets them: what one needs, another does not take."""

from __future__ import annotations

from pathlib import Path

import pytest

import idemfs
from idemfs.errors import SnapshotHeld


def test_a_snapshot_on_which_a_clone_rests_is_not_written_to(tmp_path: Path) -> None:
    with idemfs.create(tmp_path / "store") as fs:
        fs.write_bytes("/f", b"old")
        fs.snapshots.create("s")
        with fs.snapshots.write("s") as inside:
            fs.filesets.clone("s", "/clone")
            with pytest.raises(OSError, match="clones rest on snapshot 's'"):
                inside.write_bytes("/f", b"new")
        for change in (lambda: fs.snapshots.write("s"), lambda: fs.snapshots.refresh("s")):
            with pytest.raises(SnapshotHeld, match=r"clone.*promote"):
                change()
        assert fs.read_bytes("/clone/f") == b"old"
        fs.filesets["clone"].promote()
        with fs.snapshots.write("s") as inside:
            inside.write_bytes("/f", b"new")
        assert fs.read_bytes("/clone/f") == b"old" and fs.snapshots["s"].read_bytes("/f") == b"new"
