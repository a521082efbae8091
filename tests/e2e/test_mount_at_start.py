"""Mounting at the start of a machine: mount(8) with /etc/fstab, and the systemd unit of docs/MOUNT.md."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from idemfs.engines.lock import owner
from tests.conformance.mounted import idemfs, missing

pytestmark = pytest.mark.skipif(missing() is not None, reason=missing() or "")

DOCUMENT = Path(__file__).parents[2] / "docs/MOUNT.md"
BIN = Path(sys.executable).parent
HELPER = "mount.fuse.idemfs"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    idemfs("init", tmp_path / "store")
    return tmp_path / "store"


@pytest.fixture
def at(tmp_path: Path) -> Path:
    directory = tmp_path / "mount point"
    directory.mkdir()
    return directory


@pytest.fixture
def helper() -> Iterator[None]:
    """Where mount(8) looks for it, and nowhere else."""
    path = Path("/sbin", HELPER)
    if path.exists():
        yield
        return
    path.unlink(missing_ok=True)
    path.symlink_to(BIN / HELPER)
    yield
    path.unlink()


def run(*command: str | Path, status: int = 0) -> str:
    ended = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    assert ended.returncode == status, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr


def options(at: Path) -> set[str]:
    """Those of the mount at ``at``, none if nothing is mounted there."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, directory, kind, text, *_ = line.split(" ")
        if directory.replace("\\040", " ") == str(at):
            assert kind == "fuse.idemfs"
            return set(text.split(","))
    return set()


def escaped(path: Path) -> str:
    return str(path).replace(" ", "\\040")


@pytest.mark.skipif(not (BIN / HELPER).exists(), reason="the script is not installed")
def test_mount_and_fstab(store: Path, at: Path, tmp_path: Path, helper: None) -> None:
    fstab = tmp_path / "fstab"
    line = re.search(r"^/srv/store .*$", DOCUMENT.read_text(), re.M)
    assert line is not None
    fstab.write_text(line[0].replace("/srv/store", escaped(store)).replace("/mnt/data", escaped(at)) + "\n")

    run("mount", "-t", "fuse.idemfs", store, at)
    (at / "f").write_text("1")
    run("umount", at)
    assert not options(at)

    run("mount", "-T", fstab, at)
    assert (at / "f").read_text() == "1" and {"rw", "allow_other", "default_permissions"} <= options(at)
    run("umount", at)
    run("mount", "-T", fstab, "-a")
    assert "rw" in options(at)
    run("mount", "-o", "remount,ro", at)
    with pytest.raises(OSError, match="Read-only"):
        (at / "f").write_text("2")
    run("mount", "-o", "remount,rw", at)
    (at / "f").write_text("2")
    os.mkdir(at / ".snapshots/monday")
    run("umount", at)

    run("mount", "-t", "fuse.idemfs", "-o", "ro,nosuid,nodev,noexec,noatime", store, at)
    assert {"ro", "nosuid", "nodev", "noexec", "noatime"} <= options(at)
    run("umount", at)
    (tmp_path / "unused").mkdir()
    run("mount", "-t", "fuse.idemfs", "-o", "snapshot=monday", store, at)
    assert "ro" in options(at) and "in use" in run("mount", "-t", "fuse.idemfs", store, tmp_path / "unused", status=1)
    run("umount", at)
    assert "cannot mount" in run("mount", "-t", "fuse.idemfs", "-o", "nonsense", store, at, status=1)
    run("mount", "-t", "fuse.idemfs", store, at)
    with open(at / "f") as file:
        assert "busy" in run("umount", at, status=32)
        run("umount", "-l", at)
        assert not options(at) and file.read() == "2", "who has it open goes on"
    run("mount", "-t", "fuse.idemfs", store, at)
    idemfs("umount", at)
    assert owner(str(store)) is None


def unit(store: Path, at: Path) -> str:
    found = re.search(r"```\n(\[Unit\]\n.*?)```", DOCUMENT.read_text(), re.S)
    assert found is not None
    text = found[1].replace("/usr/local/bin/idemfs", str(BIN / "idemfs"))
    return text.replace("/srv/store", str(store)).replace("/mnt/data", f'"{at}"')


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="not installed here: systemd")
def test_systemd_takes_the_unit(store: Path, at: Path, tmp_path: Path) -> None:
    path = tmp_path / "idemfs-data.service"
    path.write_text(unit(store, at))
    assert run("systemd-analyze", "verify", path) == ""


def test_the_service_manager_is_told(store: Path, at: Path, tmp_path: Path) -> None:
    """What ``Type=notify`` of the unit waits for; its ``ExecStart`` and ``ExecStop`` are run as they stand."""
    start, stop = re.findall(r"^ExecSt(?:art|op)=/usr/local/bin/idemfs (.*)$", DOCUMENT.read_text(), re.M)
    assert "Type=notify" in DOCUMENT.read_text()

    def words(text: str) -> list[str]:
        return [{"/srv/store": str(store), "/mnt/data": str(at)}.get(each, each) for each in text.split()]

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices:
        notices.bind(str(tmp_path / "notices"))
        notices.settimeout(60)
        environment = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notices")}
        command = [sys.executable, "-m", "idemfs", *words(start)]
        with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as running:
            assert notices.recv(100) == b"READY=1"
            (at / "f").write_text("1")
            idemfs(*words(stop))
            assert running.wait(60) == 0
    assert idemfs("cat", store, "/f").stdout == "1"
