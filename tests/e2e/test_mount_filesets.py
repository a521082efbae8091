"""Filesets in a real mount: what leads through junctions, what does not, and what commands change meanwhile."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
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


def test_each_fileset_root_has_its_own_snapshots(at: Path, store: Path) -> None:
    home, deep = at / "srv/home", at / "srv/home/d/deep"
    (home / "f").write_text("old")
    (deep / "g").write_text("old")
    for folder in (home / ".snapshots", deep / ".snapshots", at / ".snapshots"):
        assert os.listdir(folder) == []
        refused(errno.ENOENT, lambda folder=folder: os.stat(folder / "latest"))  # type: ignore[misc]
    os.mkdir(home / ".snapshots/one")
    (home / "f").write_text("new")
    os.mkdir(home / ".snapshots/two")
    os.mkdir(deep / ".snapshots/one")
    assert sorted(os.listdir(home / ".snapshots")) == ["latest", "one", "two"]
    assert sorted(os.listdir(deep / ".snapshots")) == ["latest", "one"]
    assert os.listdir(at / ".snapshots") == []
    assert os.readlink(home / ".snapshots/latest") == "two"
    assert (home / ".snapshots/one/f").read_text() == "old"
    assert (home / ".snapshots/latest/f").read_text() == "new"
    assert (deep / ".snapshots/latest/g").read_text() == "old"
    assert os.listdir(home / ".snapshots/one/d/deep") == []
    assert idemfs("snapshot", "list", store, "home").stdout.split().count("one") == 1
    shown = [at / ".snapshots", home / ".snapshots", deep / ".snapshots", home / ".snapshots/one"]
    shown += [home / ".snapshots/two", deep / ".snapshots/one", home / ".snapshots/one/f", home / ".snapshots/two/f"]
    inos = [os.stat(path).st_ino for path in shown]
    assert len(set(inos)) == len(inos) and min(inos) >> 63 == 1
    assert os.path.samefile(home / ".snapshots/..", home)
    assert os.path.samefile(home / ".snapshots/one/..", home / ".snapshots")
    assert os.path.samefile(home / ".snapshots/one/.snapshots", home / ".snapshots")
    assert sorted(os.listdir(home)) == ["d", "f"], "it is not listed"


def test_snapshots_of_filesets_are_renamed_and_deleted_at_once(at: Path, store: Path) -> None:
    folder = at / "srv/home/.snapshots"
    (at / "srv/home/f").write_text("1")
    os.mkdir(folder / "one")
    assert (folder / "one/f").read_text() == "1"
    os.rename(folder / "one", folder / "eins")
    assert sorted(os.listdir(folder)) == ["eins", "latest"] and not (folder / "one").exists()
    with open(folder / "eins/f") as file:
        idemfs("snapshot", "delete", store, "home@eins", "--yes")
        assert os.listdir(folder) == [] and not (folder / "eins").exists()
        refused(errno.ESTALE, lambda: os.pread(file.fileno(), 10, 0))
    idemfs("snapshot", "create", store, "home@two")
    assert (folder / "two/f").read_text() == "1"
    os.rmdir(folder / "two")
    assert idemfs("snapshot", "list", store, "home", "--json").stdout.strip() == "[]"
    refused(errno.EXDEV, lambda: os.rename(at / "srv/home/f", folder / "f"))
    refused(errno.EEXIST, lambda: os.mkdir(at / "srv/home/.snapshots"))
    refused(errno.EBUSY, lambda: os.rmdir(at / "srv/home/.snapshots"))
    refused(errno.EROFS, lambda: os.chmod(folder, 0o777))
    (at / "plain").mkdir()
    assert not (at / "plain/.snapshots").exists()
    (at / "plain/.snapshots").mkdir()
    idemfs("fileset", "create", store, "/made")
    assert os.listdir(at / "made/.snapshots") == []
    idemfs("fileset", "delete", store, "made", "--yes")
    assert not (at / "made/.snapshots").exists()


def test_who_owns_the_root_of_a_fileset_takes_its_snapshots(at: Path) -> None:
    os.chown(at / "srv/home", 65534, 65534)
    code = "import os, sys; os.setgid(65534); os.setuid(65534); os.mkdir(sys.argv[1])"
    for path, is_right in (("srv/home/.snapshots/own", True), ("srv/home/d/deep/.snapshots/no", False)):
        ended = subprocess.run([sys.executable, "-c", code, path], cwd=at, capture_output=True, text=True, check=False)
        assert (ended.returncode == 0) == is_right, ended.stderr
    assert sorted(os.listdir(at / "srv/home/.snapshots")) == ["latest", "own"]


def test_a_dynamic_link_in_a_fileset(at: Path, store: Path) -> None:
    (at / "srv/home/d/report").write_text("monday")
    idemfs("link", "create", store, "/srv/home/d/report", "/srv/home/d/current")
    assert (at / "srv/home/d/current").read_text() == "monday"
    os.mkdir(at / "srv/home/.snapshots/one")
    (at / "srv/home/d/report").write_text("tuesday")
    assert os.readlink(at / "srv/home/d/current") == "../.snapshots/latest/d/report"
    assert (at / "srv/home/d/current").read_text() == "monday"
    assert (at / "srv/home/.snapshots/one/d/current").read_text() == "monday"
    os.mkdir(at / "srv/home/.snapshots/two")
    assert (at / "srv/home/d/current").read_text() == "tuesday"


def test_a_snapshot_of_a_fileset_is_mounted(store: Path, tmp_path: Path) -> None:
    with mounted(store, tmp_path / "mount") as at:
        idemfs("fileset", "create", store, "/home")
        (at / "home/d").mkdir()
        (at / "home/d/f").write_text("old")
        idemfs("snapshot", "create", store, "home@one")
        (at / "home/d/f").write_text("new")
    with mounted(store, tmp_path / "mount", "--snapshot", "home@one") as at:
        assert (at / "d/f").read_text() == "old" and os.listdir(at) == ["d"]
        assert os.listdir(at / ".snapshots") == ["latest", "one"]
        assert (at / ".snapshots/one/d/f").read_text() == "old"
        assert os.path.samefile(at / ".snapshots/..", at)
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


def test_a_clone_is_there_at_once_and_is_written_to(at: Path, store: Path) -> None:
    (at / "srv/home/f").write_text("before")
    (at / "srv/home/d/big").write_bytes(b"big" * 100_000)
    idemfs("snapshot", "create", store, "home@monday")
    (at / "srv/home/f").write_text("after")
    assert "srv/try" in idemfs("snapshot", "clone", store, "home@monday", "/srv/try").stdout
    assert (at / "srv/try/f").read_text() == "before"
    assert sorted(os.listdir(at / "srv/try/d")) == ["big", "deep"] and os.listdir(at / "srv/try/d/deep") == []
    assert os.stat(at / "srv/try/d/big").st_blocks == os.stat(at / "srv/home/d/big").st_blocks
    with (at / "srv/try/d/big").open("r+b") as file:
        file.write(b"its own")
    (at / "srv/try/f").unlink()
    (at / "srv/try/new").write_text("new")
    assert sorted(os.listdir(at / "srv/try")) == ["d", "new"] and (at / "srv/home/f").read_text() == "after"
    assert (at / "srv/home/d/big").read_bytes() == b"big" * 100_000
    idemfs("snapshot", "create", store, "try@mine")
    idemfs("snapshot", "delete", store, "home@monday", "--yes")
    assert idemfs("cat", f"{store}@try@mine", "/d/big").stdout == "its own" + ("big" * 100_000)[7:]
    idemfs("fileset", "promote", store, "try")
    idemfs("snapshot", "delete", store, "try@mine", "--yes")
    assert (at / "srv/try/d/big").read_bytes() == b"its own" + (b"big" * 100_000)[7:]
    idemfs("fileset", "delete", store, "try", "--yes")
    refused(errno.ENOENT, lambda: os.stat(at / "srv/try"))


def used_bytes(at: Path) -> int:
    """What the store uses, whatever others do on its disk."""
    found = os.statvfs(at)
    return (found.f_blocks - found.f_bfree) * found.f_frsize


def test_copies_share_their_blocks(at: Path, store: Path) -> None:
    data = os.urandom(5 << 20) + b"tail"
    (at / "large").write_bytes(data)
    os.mkdir(at / ".snapshots/one")
    with open(at / "large", "r+b") as file:
        file.write(b"changed")
        os.fsync(file.fileno())
    before = used_bytes(at)
    for source, target in ((at / ".snapshots/one/large", at / "srv/home/copy"), (at / "large", at / "large2")):
        expected = source.read_bytes()
        with open(source, "rb") as reading, open(target, "wb") as writing:
            left = len(expected)
            while left:
                left -= os.copy_file_range(reading.fileno(), writing.fileno(), left)
            os.fsync(writing.fileno())
        assert target.read_bytes() == expected
    assert used_bytes(at) - before < 1 << 20, "the blocks of ten MiB are shared"
    with open(at / "large2", "r+b") as file:
        file.seek(1 << 20)
        file.write(b"mine")
    assert (at / "large").read_bytes() == b"changed" + data[7:]
    idemfs("snapshot", "delete", store, "one", "--yes")
    assert (at / "srv/home/copy").read_bytes() == data


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
