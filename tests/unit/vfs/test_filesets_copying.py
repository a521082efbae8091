"""Copying into and out of a store with filesets."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import idemfs
from idemfs.cli.main import main


@pytest.fixture
def store(tmp_path: Path) -> str:
    """Fileset ``home`` at /home, with a file, and /plain."""
    path = tmp_path / "store"
    with idemfs.create(path) as fs:
        fs.filesets.create("/home")
        fs.write_bytes("/home/file", b"in home")
        fs.write_bytes("/plain", b"outside")
    return str(path)


def test_out_of_it_all_filesets_are_copied_and_of_a_snapshot_its_own(store: str, tmp_path: Path) -> None:
    with idemfs.open(store) as fs:
        fs.snapshots.create_all("*@one")
    assert main(["get", store, "/", str(tmp_path / "all")]) == 0
    assert (tmp_path / "all/home/file").read_bytes() == b"in home" and (tmp_path / "all/plain").exists()
    assert main(["get", f"{store}@one", "/", str(tmp_path / "root")]) == 0
    assert os.listdir(tmp_path / "root/home") == []
    assert main(["get", f"{store}@home@one", "/", str(tmp_path / "home")]) == 0
    assert (tmp_path / "home/file").read_bytes() == b"in home"


def test_a_mirror_does_not_remove_a_fileset(store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new/other").write_bytes(b"1")
    assert main(["put", "--mirror", store, str(tmp_path / "new"), "/"]) == 1
    assert "fileset 'home' appears here" in capsys.readouterr().err
    with idemfs.open(store) as fs:
        assert fs.read_bytes("/home/file") == b"in home" and fs.read_bytes("/other") == b"1"


def test_into_it_what_is_below_a_junction_goes_into_its_fileset(store: str, tmp_path: Path) -> None:
    (tmp_path / "new/home/d").mkdir(parents=True)
    (tmp_path / "new/home/d/more").write_bytes(b"2")
    (tmp_path / "new/home/file").write_bytes(b"new")
    for _ in range(2):
        assert main(["put", store, str(tmp_path / "new"), "/"]) == 0
    with idemfs.open(store) as fs:
        assert fs.read_bytes("/home/file") == b"new" and fs.filesets.at("/home/d/more").name == "home"
        assert fs.filesets["home"].info().inode_count == 4
    assert main(["put", store, str(tmp_path / "new/home/file"), "/home"]) == 0
    assert main(["check", store]) == 0


def test_a_hard_link_between_filesets_of_a_copy_is_a_copy(store: str, tmp_path: Path) -> None:
    """What was one file outside cannot be one in two filesets."""
    (tmp_path / "new/home").mkdir(parents=True)
    (tmp_path / "new/a").write_bytes(b"one file")
    os.link(tmp_path / "new/a", tmp_path / "new/home/b")
    assert main(["put", store, str(tmp_path / "new"), "/"]) == 0
    with idemfs.open(store) as fs:
        assert fs.read_bytes("/a") == fs.read_bytes("/home/b") == b"one file"
        assert fs.stat("/a").st_nlink == fs.stat("/home/b").st_nlink == 1
