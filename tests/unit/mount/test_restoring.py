"""What a restore through a mount copies and removes: deep trees, and when the owner of what goes plays tricks.

A directory of any file system stands for the mount, and ``.snapshots`` in it is made by hand.
"""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from idemfs.mount import restoring
from idemfs.mount.descending import Descent

DEPTH = 1200
"""More than Python calls functions from within each other, and with ``NAME`` more than a path may be long."""
NAME = "directory"


@contextmanager
def opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY)
    try:
        yield fd
    finally:
        os.close(fd)


def remove(path: Path) -> None:
    with opened(path.parent) as above:
        restoring.remove(path.name, above)


def make_deep(top: Path) -> None:
    """Directories in each other, the last one with two names of a file, of which the first has the other."""
    top.mkdir()
    (top / "file").write_text("content")
    with opened(top) as first:
        tree = Descent(first)
        for number in range(DEPTH):
            os.mkdir(NAME, 0o700 | number % 8, dir_fd=tree.fd)
            tree.down(NAME)
        os.link("file", "again", src_dir_fd=first, dst_dir_fd=tree.fd)
        tree.close()


def seen_deep(top: Path) -> tuple[list[int], list[str], int]:
    """Modes of the directories, what is in the last one, and how many names its file has."""
    modes = []
    with opened(top) as first:
        tree = Descent(first)
        while NAME in os.listdir(tree.fd):
            tree.down(NAME)
            modes.append(os.fstat(tree.fd).st_mode & 0o777)
        names = os.listdir(tree.fd)
        link_count = os.stat("again", dir_fd=tree.fd).st_nlink
        tree.close()
    return modes, names, link_count


@pytest.fixture
def few_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 20, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("few_descriptors")
def test_a_tree_of_any_depth(tmp_path: Path) -> None:
    (tmp_path / ".snapshots/one").mkdir(parents=True)
    make_deep(tmp_path / ".snapshots/one/deep")
    try:
        assert restoring.count(str(tmp_path), "one", "deep") == DEPTH + 3
        expected = seen_deep(tmp_path / ".snapshots/one/deep")
        assert len(expected[0]) == DEPTH and len(set(expected[0])) > 1 and expected[1:] == (["again"], 2)
        for to in ("deep2", None, None):
            # To a new name, to where nothing is, and over what was just restored.
            done = restoring.restore(str(tmp_path), "one", "deep", to)
            assert (done.count, done.left) == (DEPTH + 3, None)
            assert seen_deep(tmp_path / (to or "deep")) == expected
        assert sorted(os.listdir(tmp_path)) == [".snapshots", "deep", "deep2"]
    finally:
        # Nobody else gets rid of them.
        for path in (tmp_path / ".snapshots", tmp_path / "deep", tmp_path / "deep2"):
            if path.exists():
                remove(path)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """With a directory that has changed since the snapshot ``one``."""
    for top, content in ((tmp_path / ".snapshots/one", "old"), (tmp_path, "new")):
        (top / "d").mkdir(parents=True)
        (top / "d/f").write_text(content)
    return tmp_path


def test_what_fails_before_anything_is_changed_leaves_nothing(place: Path) -> None:
    (place / ".snapshots/one/d/big").write_text("b" * 100_000)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(OSError, match=r"File too large: '.*/d/big'$") as failed:
            restoring.restore(str(place), "one", "d", None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert failed.value.filename == str(place / "d/big")
    assert os.listdir(place / ".snapshots") == ["one"] and sorted(os.listdir(place)) == [".snapshots", "d"]
    assert (place / "d/f").read_text() == "new"


def test_what_is_interrupted_after_it_was_restored_names_the_state_before(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(name: str, directory: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(restoring, "remove", interrupted)
    with pytest.raises(OSError, match=r"; it is restored; what was there is .*; 'before-restore-one' is the"):
        restoring.restore(str(place), "one", "d", None)
    assert sorted(os.listdir(place / ".snapshots")) == ["before-restore-one", "one"]
    assert (place / "d/f").read_text() == "old"


def test_a_part_of_the_copy_that_cannot_be_removed_is_named_with_the_state_before(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(errno.EACCES, "no")

    monkeypatch.setattr(restoring, "remove", refused)
    monkeypatch.setattr(restoring, "_exchange", refused)
    with pytest.raises(
        PermissionError, match=r"no; a part of the copy is .*; 'before-restore-one' is the state before"
    ):
        restoring.restore(str(place), "one", "d", None)
    assert sorted(os.listdir(place / ".snapshots")) == ["before-restore-one", "one"]
    assert (place / "d/f").read_text() == "new"


def test_a_link_that_takes_the_place_of_a_directory_leads_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root restores over somebody's directory, who has it lead to somebody else's files just then."""
    victim, top = tmp_path / "victim", tmp_path / "top"
    victim.mkdir()
    (victim / "f").write_text("precious")
    (top / "inner").mkdir(parents=True)
    (top / "inner/f").write_text("goes")
    fileset, number = restoring._fileset, (top / "inner").stat().st_ino

    def swap(status: os.stat_result) -> int:
        if status.st_ino == number and not (top / "inner").is_symlink():
            os.rename(top / "inner", tmp_path / "moved")
            os.symlink(victim, top / "inner")
        return fileset(status)

    monkeypatch.setattr(restoring, "_fileset", swap)
    with pytest.raises(OSError, match="moved meanwhile"):
        remove(top)
    assert (victim / "f").read_text() == "precious"
    assert os.listdir(top) == ["inner"] and os.listdir(tmp_path / "moved") == []
    remove(top)
    assert (victim / "f").read_text() == "precious" and not top.exists()
