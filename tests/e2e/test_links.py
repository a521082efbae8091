"""Dynamic links as users meet them: made by the command, followed by programs on a mount and by other commands.

Every situation on a mount is seen from the active file system, and with ``cat`` of the command line.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import idemfs as library
from tests.conformance.mounted import idemfs, missing, mounted
from tests.docs.test_sessions import ROOT, commands, run, same
from tests.e2e.program import done, refused, rows

mounts = pytest.mark.skipif(missing() is not None, reason=missing() or "")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """``/d/f`` holds ``active``."""
    done("init", tmp_path / "store")
    with library.open(tmp_path / "store") as fs:
        fs.makedirs("/d/e")
        fs.write_text("/d/f", "active")
    return tmp_path / "store"


@pytest.fixture
def at(store: Path, tmp_path: Path) -> Iterator[Path]:
    """The store mounted, with ``/d/e/link``."""
    with mounted(store, tmp_path / "mount") as directory:
        idemfs("link", "create", store, "/d/f", "/d/e/link")
        yield directory


def take(at: Path, name: str, path: str = "d/f") -> None:
    """Snapshot ``name``, in which the file holds its name."""
    (at / path).write_text(name)
    os.mkdir(at / ".snapshots" / name)


def leads_to(link: Path, text: str, target: str) -> None:
    """Content, target and size, as programs see them."""
    assert link.read_text() == text
    assert os.readlink(link) == target and os.lstat(link).st_size == len(target)
    assert subprocess.run(["cat", link], check=True, capture_output=True, text=True).stdout == text
    assert link.samefile(os.path.join(link.parent, target)) and os.path.realpath(link).endswith("/f")


def is_dangling(link: Path, target: str) -> None:
    assert os.readlink(link) == target and link.is_symlink()
    for call in (os.stat, os.listdir, lambda path: os.open(path, os.O_RDONLY)):
        with pytest.raises(FileNotFoundError):
            call(link)


class TestCommand:
    def test_made_listed_read_and_got(self, store: Path, tmp_path: Path) -> None:
        assert done("link", "create", store, "/d/f", "/link") == "/link -> d/f\n"
        assert done("cat", store, "/link") == "active"
        done("snapshot", "create", store, "one")
        with library.open(store) as fs:
            fs.write_text("/d/f", "newer")
        assert done("cat", store, "/link") == done("cat", f"{store}@one", "/link") == "active"
        (row,) = rows("ls", store, "/link")
        assert (row["type"], row["target"]) == ("dynamic link", ".snapshots/latest/d/f")
        assert "/link -> .snapshots/latest/d/f" in done("ls", "-l", store, "/link")
        assert done("get", store, "/link", tmp_path / "file").startswith("1 copied")
        assert (tmp_path / "file").read_text() == "active"
        done("get", store, "/", tmp_path / "tree")
        assert os.readlink(tmp_path / "tree/link") == ".snapshots/latest/d/f"
        assert done("check", store, "--data").startswith("clean: 5 files")

    def test_a_directory(self, store: Path, tmp_path: Path) -> None:
        assert done("link", "create", store, "/d/", "/e") == "/e -> d\n"
        done("snapshot", "create", store, "one")
        with library.open(store) as fs:
            fs.write_text("/d/late", "1")
        assert done("ls", store, "/e") == "e\nf\n" and done("cat", store, "/e/f") == "active"
        done("get", store, "/e", tmp_path / "out")
        assert sorted(os.listdir(tmp_path / "out")) == ["e", "f"]

    def test_into_a_directory_and_before_the_next_snapshot(self, store: Path) -> None:
        done("snapshot", "create", store, "one")
        with library.open(store) as fs:
            fs.write_text("/late", "1")
        told = done("link", "create", store, "/late", "/d")
        assert told.startswith("/d/late -> ../.snapshots/@no-inode-") and "once the next one is taken" in told
        assert "No such file" in refused("cat", store, "/d/late")
        done("snapshot", "create", store, "two")
        assert done("cat", store, "/d/late") == "1"

    def test_what_is_refused(self, store: Path) -> None:
        done("link", "create", store, "/d/f", "/link")
        assert "exists" in refused("link", "create", store, "/d/f", "/link")
        assert "No such file" in refused("link", "create", store, "/none", "/other")
        assert "No such file" in refused("link", "create", store, "/d/f", "/none/other")
        assert "LINK" in refused("link", "create", store, "/d/f", status=2)
        done("snapshot", "create", store, "one")
        assert "Read-only file system" in refused("put", store, "/etc/hostname", "/link")
        assert done("cat", store, "/d/f") == "active"


@mounts
class TestMounted:
    def test_no_snapshot_then_one_then_none(self, at: Path, store: Path) -> None:
        link = at / "d/e/link"
        leads_to(link, "active", "../../d/f")
        take(at, "one")
        (at / "d/f").write_text("changed")
        leads_to(link, "one", "../../.snapshots/latest/d/f")
        assert idemfs("cat", store, "/d/e/link").stdout == "one"
        os.mkdir(at / ".snapshots/two")
        leads_to(link, "changed", "../../.snapshots/latest/d/f")
        os.rmdir(at / ".snapshots/two")
        leads_to(link, "one", "../../.snapshots/latest/d/f")
        idemfs("snapshot", "delete", store, "one", "--yes")
        leads_to(link, "changed", "../../d/f")

    def test_own_version_and_ditto(self, at: Path, store: Path) -> None:
        block = 128 << 10
        (at / "d/f").write_bytes(b"a" * block + b"b" * block)
        os.mkdir(at / ".snapshots/one")
        assert (at / "d/e/link").read_bytes() == b"a" * block + b"b" * block, "dittos of the active file"
        with open(at / "d/f", "r+b") as file:
            file.write(b"x" * block)
        assert (at / "d/e/link").read_bytes() == b"a" * block + b"b" * block, "a block of its own, and a ditto"
        os.unlink(at / "d/f")
        assert (at / "d/e/link").read_bytes() == b"a" * block + b"b" * block, "all its own"

    def test_deleted(self, at: Path, store: Path) -> None:
        link = at / "d/e/link"
        take(at, "one")
        os.unlink(at / "d/f")
        leads_to(link, "one", "../../.snapshots/latest/d/f")
        os.mkdir(at / ".snapshots/two")
        is_dangling(link, "../../.snapshots/@no-inode-4-in-two")
        assert "No such file" in idemfs("cat", store, "/d/e/link", check=False).stderr
        os.rmdir(at / ".snapshots/two")
        leads_to(link, "one", "../../.snapshots/latest/d/f")
        os.rmdir(at / ".snapshots/one")
        is_dangling(link, "../../.snapshots/@no-inode-4")

    def test_renamed(self, at: Path, store: Path) -> None:
        link = at / "moved/deeper/e/link"
        take(at, "one")
        os.rename(at / "d/f", at / "d/renamed")
        (at / "d/f").write_text("another one of this name")
        os.mkdir(at / "moved")
        os.rename(at / "d", at / "moved/deeper")
        assert link.read_text() == "one" and os.readlink(link) == "../../../.snapshots/latest/d/f"
        os.mkdir(at / ".snapshots/two")
        assert link.read_text() == "one"
        assert os.readlink(link) == "../../../.snapshots/latest/moved/deeper/renamed"
        os.rename(link, at / "link")
        assert os.readlink(at / "link") == ".snapshots/latest/moved/deeper/renamed"
        assert (at / "link").read_text() == idemfs("cat", store, "/link").stdout == "one"

    def test_in_snapshots(self, at: Path) -> None:
        take(at, "one")
        take(at, "two")
        for name in ("one", "two", "latest"):
            link = at / ".snapshots" / name / "d/e/link"
            assert link.read_text() == "two" and os.readlink(link) == "../../.snapshots/latest/d/f"
        assert os.readlink(at / ".snapshots/one/.snapshots") == ".."
        assert os.listdir(at / ".snapshots/one") == ["d"], "it is not listed"

    def test_a_mount_of_one_snapshot(self, store: Path, tmp_path: Path) -> None:
        done("link", "create", store, "/d/f", "/d/e/link")
        done("snapshot", "create", store, "one")
        with library.open(store) as fs:
            fs.write_text("/d/f", "two")
            fs.snapshots.create("two")
        with mounted(store, tmp_path / "mount", "--snapshot", "one") as at:
            assert (at / "d/f").read_text() == "active" and (at / "d/e/link").read_text() == "two"

    def test_reading_only(self, at: Path) -> None:
        take(at, "one")
        link = at / "d/e/link"
        for flags in (os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC, os.O_WRONLY | os.O_CREAT | os.O_APPEND):
            with pytest.raises(OSError) as caught:
                os.open(link, flags)
            assert caught.value.errno == errno.EROFS
        with pytest.raises(OSError) as caught:
            os.truncate(link, 0)
        assert caught.value.errno == errno.EROFS and (at / "d/f").read_text() == "one"

    def test_open_files_read_what_they_opened(self, at: Path) -> None:
        take(at, "one")
        with open(at / "d/e/link") as file:
            take(at, "two")
            assert file.read() == "one" and (at / "d/e/link").read_text() == "two"

    def test_a_symlink_in_all_else(self, at: Path, tmp_path: Path) -> None:
        take(at, "one")
        link = at / "d/e/link"
        with pytest.raises(OSError) as caught:
            os.link(link, at / "hard", follow_symlinks=False)
        assert caught.value.errno == errno.EMLINK
        subprocess.run(["cp", "-a", link, at / "d/e/copy"], check=True)
        assert os.readlink(at / "d/e/copy") == os.readlink(link)
        subprocess.run(["tar", "-cf", tmp_path / "tar", "-C", at, "d"], check=True)
        listed = subprocess.run(["tar", "-tvf", tmp_path / "tar"], check=True, capture_output=True, text=True).stdout
        assert "d/e/link -> ../../.snapshots/latest/d/f" in listed
        os.chown(link, 1, 1, follow_symlinks=False)
        assert os.lstat(link).st_uid == 1 and os.stat(link).st_uid == 0
        subprocess.run(["rm", "-r", at / "d/e"], check=True)
        assert (at / "d/f").read_text() == "one", "only the link is gone"
        assert (at / ".snapshots/one/d/e/link").read_text() == "one"

    def test_directories(self, at: Path, store: Path) -> None:
        idemfs("link", "create", store, "/d", "/directory")
        idemfs("link", "create", store, "/", "/d/root")
        assert os.readlink(at / "directory") == "d" and os.readlink(at / "d/root") == ".."
        take(at, "one")
        (at / "d/late").touch()
        assert sorted(os.listdir(at / "directory")) == ["e", "f", "root"]
        assert (at / "d/root/d/f").read_text() == (at / "directory/root/directory/f").read_text() == "one"
        assert os.path.realpath(at / "directory") == str(at / ".snapshots/one/d")
        found = subprocess.run(["find", "-L", at / "directory", "-name", "f"], capture_output=True, text=True)
        assert found.stdout.startswith(str(at / "directory/f"))

    def test_after_a_remount(self, store: Path, tmp_path: Path) -> None:
        with mounted(store, tmp_path / "mount") as at:
            idemfs("link", "create", store, "/d/f", "/link")
            take(at, "one")
        with mounted(store, tmp_path / "mount") as at:
            assert os.readlink(at / "link") == ".snapshots/latest/d/f" and (at / "link").read_text() == "one"


@mounts
def test_what_the_document_shows(store: Path, tmp_path: Path) -> None:
    text = (ROOT / "docs/MOUNT.md").read_text().partition("## Dynamic links")[2]
    block = text.split("```\n")[1].replace("/srv/store", str(store)).replace("/mnt/data", str(tmp_path / "mount"))
    with mounted(store, tmp_path / "mount") as at:
        (at / "dir").mkdir()
        shown = list(commands(block))
        assert len(shown) == 11
        for command, lines in shown:
            assert same(lines, run(["bash", "-euo", "pipefail", "-c", command], tmp_path).splitlines()), command


class TestStandby:
    @pytest.fixture
    def standby(self, store: Path, tmp_path: Path) -> Path:
        """Has snapshot ``one``; the primary has ``two`` besides, with the file renamed and changed."""
        done("link", "create", store, "/d/f", "/d/e/link")
        done("standby", "add", store, tmp_path / "standby")
        done("snapshot", "create", store, "one")
        done("replicate", store)
        with library.open(store) as fs:
            fs.rename("/d/f", "/d/renamed")
            fs.write_text("/d/renamed", "two")
            fs.snapshots.create("two")
        return tmp_path / "standby"

    def test_transfer_failover_and_return(self, store: Path, standby: Path) -> None:
        assert done("cat", standby, "/d/e/link") == "active" and done("cat", store, "/d/e/link") == "two"
        done("replicate", store)
        assert done("cat", standby, "/d/e/link") == "two"
        digests = [[row["digest"] for row in rows("snapshot", "list", each)] for each in (store, standby)]
        assert digests[0] == digests[1]
        away = store.with_name("away")
        os.rename(store, away)
        done("failover", standby, "--yes")
        assert done("cat", standby, "/d/e/link") == "two"
        with library.open(standby) as fs:
            fs.write_text("/d/renamed", "three")
            assert fs.read_text("/d/e/link") == "two"
            fs.snapshots.create("three")
            assert fs.read_text("/d/e/link") == "three"
            fs.dynamic_link("/d/renamed", "/made-here")
        os.rename(away, store)
        done("failback", store, "--yes")
        done("replicate", standby)
        for link in ("/d/e/link", "/made-here"):
            assert done("cat", store, link) == "three"
        for each in (store, standby):
            assert done("check", each, "--data").startswith("clean")

    @mounts
    def test_a_mounted_standby_that_takes_over(self, store: Path, standby: Path, tmp_path: Path) -> None:
        with mounted(standby, tmp_path / "mount") as at:
            link = at / "d/e/link"
            leads_to(link, "active", "../../.snapshots/latest/d/f")
            assert (at / ".snapshots/one/d/e/link").read_text() == "active"
            assert link.read_text() == "active", "by this way after that one"
            subprocess.run(
                [
                    "sh",
                    "-c",
                    '"$0" -m idemfs send "$1" --base one two | "$0" -m idemfs receive "$2"',
                    *_words(store, standby),
                ],
                check=True,
                capture_output=True,
            )
            assert link.read_text() == (at / ".snapshots/one/d/e/link").read_text() == "two"
            assert os.readlink(link) == "../../.snapshots/latest/d/renamed"
            os.rename(store, store.with_name("lost"))
            idemfs("failover", standby, "--yes")
            assert link.read_text() == "two"
            (at / "d/renamed").write_text("three")
            assert link.read_text() == "two"
            os.mkdir(at / ".snapshots/three")
            assert link.read_text() == "three"
            idemfs("link", "create", standby, "/d/renamed", "/new")
            assert (at / "new").read_text() == "three"


def _words(*paths: Path) -> list[str]:
    return [sys.executable, *map(str, paths)]
