"""A mount shows at once what becomes of snapshots by other doors; the kernel's pages keep nothing of what is gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.mounted import idemfs, missing, mounted

pytestmark = pytest.mark.skipif(missing() is not None, reason=missing() or "")

SECRET = b"hunter2 " * 20_000
_MAPPER = """
import mmap, sys
with open(sys.argv[1], "rb") as file:
    seen = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
assert seen[:7] == b"hunter2"
print("mapped", flush=True)
sys.stdin.readline()
print(seen[:7])
"""


@pytest.fixture
def store(tmp_path: Path) -> Path:
    idemfs("init", tmp_path / "store")
    return tmp_path / "store"


@pytest.fixture
def at(store: Path, tmp_path: Path) -> Iterator[Path]:
    """A mount with snapshots ``one`` and ``two`` that have a secret, and all of it in the kernel's cache."""
    with mounted(store, tmp_path / "mount") as at:
        (at / "d").mkdir()
        (at / "d/secret").write_bytes(SECRET)
        (at / "d/kept").write_bytes(b"kept")
        os.mkdir(at / ".snapshots/one")
        (at / "f").write_bytes(b"2" * 150_000)
        os.mkdir(at / ".snapshots/two")
        for name in ("one", "two"):
            assert (at / ".snapshots" / name / "d/secret").read_bytes() == SECRET
            assert sorted(os.listdir(at / ".snapshots" / name / "d")) == ["kept", "secret"]
            assert os.stat(at / ".snapshots" / name / "d").st_size == 2
        yield at


def test_a_purged_secret_is_gone_from_the_kernel(at: Path, store: Path) -> None:
    inside = at / ".snapshots/one/d"
    directory = os.open(inside, os.O_RDONLY)
    found = os.open("secret", os.O_RDONLY, dir_fd=directory)
    mapper = subprocess.Popen(
        [sys.executable, "-c", _MAPPER, inside / "secret"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert mapper.stdout and mapper.stdout.readline() == b"mapped\n"
    try:
        assert os.pread(found, len(SECRET), 0) == SECRET
        idemfs("snapshot", "purge", store, "/d/secret", "--yes", "--active")
        for name in ("", ".snapshots/one", ".snapshots/two", ".snapshots/latest"):
            assert os.listdir(at / name / "d") == ["kept"]
            assert os.stat(at / name / "d").st_size == 1
            with pytest.raises(FileNotFoundError):
                os.stat(at / name / "d/secret")
        assert os.listdir(directory) == ["kept"]
        with pytest.raises(FileNotFoundError):
            os.stat("secret", dir_fd=directory)
        for offset in (0, 4096, len(SECRET) - 100):
            with pytest.raises(OSError, match=r"Errno"):
                os.pread(found, 100, offset)
        said, _ = mapper.communicate(b"\n")
        assert mapper.returncode == -signal.SIGBUS and said == b""
    finally:
        os.close(found)
        os.close(directory)
        mapper.kill()
        mapper.wait()
    assert (inside / "kept").read_bytes() == b"kept"


def test_a_purged_fileset_is_seen_at_once(at: Path, store: Path) -> None:
    idemfs("fileset", "create", store, "/home")
    (at / "home/key").write_bytes(SECRET)
    os.mkdir(at / "home/.snapshots/one")
    assert (at / "home/.snapshots/one/key").read_bytes() == SECRET
    idemfs("snapshot", "purge", store, "/key", "--fileset", "home", "--yes")
    assert os.listdir(at / "home/.snapshots/one") == []
    with pytest.raises(FileNotFoundError):
        (at / "home/.snapshots/one/key").read_bytes()
    assert (at / "home/key").read_bytes() == SECRET


def test_what_is_written_to_a_snapshot_is_seen_at_once(at: Path, store: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"*" * 100)
    inside = at / ".snapshots/one"
    with open(inside / "d/secret", "rb", buffering=0) as file:
        assert file.read() == SECRET
        idemfs(
            "snapshot",
            "write",
            store,
            "one",
            "--put",
            tmp_path / "secret",
            "/d/",
            "--remove",
            "/d/kept",
            "--mkdir",
            "/n",
        )
        assert (inside / "d/secret").read_bytes() == b"*" * 100 and os.stat(inside / "d/secret").st_size == 100
        assert os.listdir(inside / "d") == ["secret"] and sorted(os.listdir(inside)) == ["d", "n"]
        file.seek(0)
        with pytest.raises(OSError, match="Errno"):
            file.read()
    assert (at / ".snapshots/two/d/secret").read_bytes() == SECRET == (at / "d/secret").read_bytes()


def test_a_refreshed_snapshot_is_seen_at_once(at: Path, store: Path) -> None:
    inside = at / ".snapshots/one"
    assert not (inside / "f").exists()
    idemfs("snapshot", "refresh", store, "one", "--to", "two", "--yes")
    assert (inside / "f").read_bytes() == b"2" * 150_000
    (at / "d/secret").write_bytes(b"no more")
    (at / "f").unlink()
    idemfs("snapshot", "refresh", store, "one", "--yes")
    assert (inside / "d/secret").read_bytes() == b"no more" and not (inside / "f").exists()
    assert (at / ".snapshots/two/d/secret").read_bytes() == SECRET


def test_a_promoted_clone_and_a_restore_are_seen_at_once(at: Path, store: Path) -> None:
    idemfs("snapshot", "clone", store, "one", "/try")
    assert (at / "try/d/secret").read_bytes() == SECRET
    (at / "try/d/secret").write_bytes(b"of the clone")
    os.mkdir(at / "try/.snapshots/mine")
    assert (at / "try/.snapshots/mine/d/secret").read_bytes() == b"of the clone"
    idemfs("fileset", "promote", store, "try")
    assert (at / "try/d/secret").read_bytes() == b"of the clone" == (at / "try/.snapshots/mine/d/secret").read_bytes()
    assert (at / "try/d/kept").read_bytes() == b"kept"
    (at / "d/secret").write_bytes(b"short")
    assert (at / "d/secret").read_bytes() == b"short"
    idemfs("snapshot", "restore", store, "one", "/d/secret", "--yes")
    assert (at / "d/secret").read_bytes() == SECRET
    idemfs("snapshot", "purge", store, "/d/secret", "--fileset", "try", "--yes")
    assert os.listdir(at / "try/.snapshots/mine/d") == ["kept"]
    assert (at / ".snapshots/one/d/secret").read_bytes() == SECRET
