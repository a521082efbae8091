"""Filesets in a real mount: what leads through junctions, what does not, and what commands change meanwhile."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conformance.mounted import idemfs, missing, mounted

pytestmark = pytest.mark.skipif(missing() is not None, reason=missing() or "")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    idemfs("init", tmp_path / "store")
    return tmp_path / "store"


@pytest.fixture
def at(store: Path, tmp_path: Path) -> Iterator[Path]:
    """A mount with fileset ``home`` at /srv/home and in it ``deep`` at /srv/home/d/deep; clean afterwards."""
    with mounted(store, tmp_path / "mount") as at:
        (at / "srv").mkdir()
        idemfs("fileset", "create", store, "/srv/home")
        (at / "srv/home/d/deep").mkdir(parents=True)
        idemfs("fileset", "create", store, "/srv/home/d/deep")
        yield at
    assert "clean" in idemfs("check", store).stdout


def refused(number: int, call: Callable[[], object]) -> None:
    with pytest.raises(OSError) as caught:
        call()
    assert caught.value.errno == number


def test_names_lead_through_junctions(at: Path) -> None:
    (at / "srv/home/f").write_text("1")
    (at / "srv/home/d/deep/g").write_text("2")
    assert (at / "srv/home/d/deep/../../f").read_text() == "1"
    assert sorted(str(path.relative_to(at)) for path in at.rglob("*")) == [
        "srv",
        "srv/home",
        "srv/home/d",
        "srv/home/d/deep",
        "srv/home/d/deep/g",
        "srv/home/f",
    ]
    inos = [os.stat(at / path).st_ino for path in ("srv/home", "srv/home/d/deep")]
    assert [ino >> 48 for ino in inos] == [1, 2] and [ino & (1 << 48) - 1 for ino in inos] == [1, 1]
    (at / "srv/home/d/deep/link").symlink_to("../../f")
    assert (at / "srv/home/d/deep/link").read_text() == "1"


def test_what_was_looked_at_before_becomes_a_fileset_and_back(at: Path, store: Path) -> None:
    (at / "plain").mkdir()
    before = os.stat(at / "plain").st_ino
    assert os.listdir(at / "plain") == []
    idemfs("fileset", "create", store, "/plain")
    assert os.stat(at / "plain").st_ino != before
    (at / "plain/f").write_text("1")
    idemfs("fileset", "delete", store, "plain", "--yes")
    assert not (at / "plain").exists()
    (at / "plain").mkdir()
    assert os.listdir(at / "plain") == []


def test_moving_between_filesets(at: Path) -> None:
    (at / "f").write_text("moved")
    refused(errno.EXDEV, lambda: os.rename(at / "f", at / "srv/home/f"))
    refused(errno.EXDEV, lambda: os.link(at / "f", at / "srv/home/f"))
    subprocess.run(["mv", at / "f", at / "srv/home/f"], check=True)
    assert not (at / "f").exists() and (at / "srv/home/f").read_text() == "moved"
    refused(errno.EBUSY, lambda: os.rmdir(at / "srv/home"))
    os.rename(at / "srv/home", at / "house")
    assert (at / "house/f").read_text() == "moved" and os.listdir(at / "srv") == []


def test_a_quota(at: Path, store: Path) -> None:
    idemfs("fileset", "quota", store, "home", "--bytes", "4MiB")
    whole = os.statvfs(at / "srv/home")
    assert whole.f_blocks * whole.f_frsize == 4 << 20 and os.statvfs(at).f_blocks > whole.f_blocks
    data = os.urandom(1 << 20)

    def fill() -> None:
        with open(at / "srv/home/large", "wb", buffering=0) as file:
            for _ in range(8):
                file.write(data)
                os.fsync(file.fileno())

    refused(errno.EDQUOT, fill)
    (at / "elsewhere").write_bytes(data * 8)
    (at / "srv/home/large").unlink()
    (at / "srv/home/small").write_bytes(data)


def test_snapshots_of_filesets(at: Path, store: Path, tmp_path: Path) -> None:
    (at / "srv/home/f").write_text("old")
    idemfs("snapshot", "create", store, "*@one")
    (at / "srv/home/f").write_text("new")
    assert sorted(os.listdir(at / ".snapshots")) == ["latest", "one"]
    assert os.listdir(at / ".snapshots/one/srv/home") == []
    assert idemfs("cat", f"{store}@home@one", "/f").stdout == "old"
    idemfs("snapshot", "restore", store, "home@one", "--yes")
    assert (at / "srv/home/f").read_text() == "old"


def test_a_snapshot_of_a_fileset_is_mounted(store: Path, tmp_path: Path) -> None:
    with mounted(store, tmp_path / "mount") as at:
        idemfs("fileset", "create", store, "/home")
        (at / "home/d").mkdir()
        (at / "home/d/f").write_text("old")
        idemfs("snapshot", "create", store, "home@one")
        (at / "home/d/f").write_text("new")
    with mounted(store, tmp_path / "mount", "--snapshot", "home@one") as at:
        assert (at / "d/f").read_text() == "old" and os.listdir(at) == ["d"]
        refused(errno.EROFS, lambda: (at / "d/g").write_text("1"))


def test_a_long_listing_with_junctions(store: Path, tmp_path: Path) -> None:
    with mounted(store, tmp_path / "mount") as at:
        expected = {f"file {number:04}" for number in range(600)} | {
            f"file {number:04} fileset" for number in range(0, 600, 60)
        }
        for name in expected:
            if "fileset" in name:
                idemfs("fileset", "create", store, f"/{name}")
            else:
                (at / name).touch()
        assert set(os.listdir(at)) == expected
        assert {entry.inode() >> 48 for entry in os.scandir(at)} == set(range(11))


def test_a_mount_of_a_standby_leads_through_junctions_and_moves_on(tmp_path: Path) -> None:
    import idemfs as library

    primary, standby = tmp_path / "primary", tmp_path / "standby"
    with library.create(primary) as fs:
        fs.filesets.create("/home")
        fs.filesets.create("/home/deep")
        for where in ("", "/home", "/home/deep"):
            fs.write_text(f"{where}/f", where or "root")
    idemfs("standby", "add", primary, standby)
    idemfs("replicate", primary)
    with mounted(standby, tmp_path / "mount") as at:
        assert sorted(str(path.relative_to(at)) for path in at.rglob("*")) == [
            "f",
            "home",
            "home/deep",
            "home/deep/f",
            "home/f",
        ]
        assert (at / "home/deep/f").read_text() == "/home/deep"
        assert (at / "home/deep/../f").read_text() == "/home"
        assert (at / "home/deep/../../f").read_text() == "root"
        refused(errno.EROFS, lambda: (at / "home/deep/g").write_text("1"))
        with pytest.raises(OSError):
            (at / "home/deep/f").unlink()
    assert "clean" in idemfs("check", standby).stdout
