"""``make demo`` on a small tree with everything in it that a real one has; and on one where something goes wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from demo.__main__ import main
from demo.ledger import Ledger
from demo.manifest import Host, first_difference, make
from idemfs.check import find
from idemfs.store.files import open_files
from idemfs.vfs.tree import Tree

ROOT = Path(__file__).parents[2]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Files of many sizes, hard links, symlinks, holes, modes, odd names, empty directories."""
    top = tmp_path / "source"
    for number in range(60):
        directory = top / f"d{number % 7}"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"f{number}").write_bytes(bytes(range(256)) * (number * number // 4 + 1))
    (top / "large").write_bytes(os.urandom(3 << 20))
    with open(top / "holes", "wb") as file:
        file.truncate(5 << 20)
        file.seek(1 << 20)
        file.write(b"x" * 1000)
    os.link(top / "large", top / "d1" / "again")
    os.symlink("../large", top / "d2" / "symlink")
    os.symlink("/nowhere", top / "broken")
    (top / "d3" / "f3").chmod(0o400)
    (top / "empty").mkdir()
    (top / os.fsdecode(b"odd \xff name")).write_bytes(b"1" * 300)
    (top / "__pycache__").mkdir()
    (top / "__pycache__" / "left out").write_bytes(b"1")
    return top


def test_the_demo_ends_well_and_leaves_clean_stores(source: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    command = [sys.executable, "-m", "demo", "--small", "--source", str(source), "--keep", str(kept)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stdout
    for number in range(1, 8):
        assert f"\n│ {number}    │" in ended.stdout
    assert "everything was as it must be" in ended.stdout
    for name in "AB":
        tree = Tree(open_files(str(kept / name), background=False))
        assert list(find(tree, read_data=True)) == []
        tree.store.close()


def test_the_demo_works_in_a_temporary_directory_that_it_removes(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    assert main(["--small", "--source", str(source)]) == 0
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_content_that_no_snapshot_has_ends_the_demo_with_its_path(
    source: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write = Ledger.write
    monkeypatch.setattr(Ledger, "write", lambda ledger, path, content: write(ledger, path, content + b"?"))
    assert main(["--small", "--source", str(source)]) == 1
    out = capsys.readouterr().out
    assert "failed: /tree/" in out and "is in no snapshot of A" in out


def test_two_trees_are_told_apart_by_their_first_different_path(source: Path) -> None:
    before = make(Host(str(source)))
    assert first_difference(before, make(Host(str(source)))) is None
    (source / "d4" / "f4").chmod(0o751)
    assert "/d4/f4: mode is " in str(first_difference(before, make(Host(str(source)))))
    (source / "d0" / "f0").write_bytes(b"other")
    os.utime(source / "d0" / "f0", ns=(0, before["/d0/f0"].mtime_ns))
    assert "/d0/f0: size is " in str(first_difference(before, make(Host(str(source)))))
    os.unlink(source / "broken")
    assert "/broken: only in the first one" in str(first_difference(before, make(Host(str(source)))))
