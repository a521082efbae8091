"""A mount shows at once what becomes of snapshots by other doors; the kernel's pages keep nothing of what is gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
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


def _opened(until: ExitStack, path: Path) -> int:
    fd = os.open(path, os.O_RDONLY)
    until.callback(os.close, fd)
    return fd


@pytest.mark.parametrize("ending", [["umount"], [sys.executable, "-m", "idemfs", "umount"]], ids=["umount", "idemfs"])
def test_a_snapshot_that_is_mounted_to_be_written_shows_each_change_at_once(
    at: Path, store: Path, tmp_path: Path, ending: list[str]
) -> None:
    """In the mount beside, and in one of this snapshot alone: names, attributes and content, and none of them old."""
    written, alone = tmp_path / "written", tmp_path / "alone"
    for directory in (written, alone):
        directory.mkdir()
    idemfs("mount", store, alone, "--snapshot", "one")
    shown = [at / ".snapshots/one", alone]
    for inside in shown:
        assert (inside / "d/secret").read_bytes() == SECRET and sorted(os.listdir(inside / "d")) == ["kept", "secret"]
    opened = ExitStack()
    opened.callback(idemfs, "umount", alone)
    with opened:
        before = [_opened(opened, inside / "d/secret") for inside in shown]
        assert all(os.pread(file, len(SECRET), 0) == SECRET for file in before)
        idemfs("mount", store, written, "--snapshot", "one", "--writable")
        opened.callback(idemfs, "umount", written, check=False)
        for content in (b"one " * 20_000, b"two " * 20_000, b"short"):
            (written / "d/secret").write_bytes(content)
            name = f"new-{content[:3].decode()}"
            (written / "d" / name).write_bytes(content)
            os.chmod(written, 0o700 | len(content) % 8)
            for inside, file in zip(shown, before, strict=True):
                assert (inside / "d/secret").read_bytes() == content == (inside / "d" / name).read_bytes()
                assert os.stat(inside / "d/secret").st_size == len(content) == os.fstat(file).st_size
                assert os.stat(inside).st_mode & 0o777 == 0o700 | len(content) % 8
                assert name in os.listdir(inside / "d")
        (written / "d/kept").unlink()
        os.rename(written / "d/secret", written / "d/moved")
        for inside in shown:
            assert sorted(os.listdir(inside / "d")) == ["moved", "new-one", "new-sho", "new-two"]
            assert (inside / "d/moved").read_bytes() == b"short"
            for gone in ("kept", "secret"):
                with pytest.raises(FileNotFoundError):
                    os.stat(inside / "d" / gone)
        # Through descriptors that are open the kernel may still show what it read there; not to whoever opens it next.
        during = [_opened(opened, inside / "d/moved") for inside in shown]
        assert all(os.pread(file, 100, 0) == b"short" for file in during)
        (written / "d/moved").write_bytes(b"other")
        subprocess.run([*ending, written], check=True, stdout=subprocess.DEVNULL)
        for inside in shown:
            assert (inside / "d/moved").read_bytes() == b"other"
            assert sorted(os.listdir(inside / "d")) == ["moved", "new-one", "new-sho", "new-two"]
    assert (at / ".snapshots/two/d/secret").read_bytes() == SECRET == (at / "d/secret").read_bytes()
    assert (at / ".snapshots/one/d/moved").read_bytes() == b"other"


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
