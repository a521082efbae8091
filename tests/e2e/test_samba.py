"""Windows' *Previous Versions* of a mounted store, by Debian's Samba, with the lines of docs/MOUNT.md."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.mounted import idemfs, missing, mounted

DOCUMENT = Path(__file__).parents[2] / "docs/MOUNT.md"

GLOBAL = """\
[global]
  server role = standalone server
  smb ports = {port}
  interfaces = lo
  bind interfaces only = yes
  map to guest = bad user
  guest account = root
  load printers = no
  disable spoolss = yes
  log file = {var}/log
  private dir = {var}
  lock directory = {var}
  state directory = {var}
  cache directory = {var}
  pid directory = {var}
  ncalrpc dir = {var}/ncalrpc
"""
OLD, NEW = "GMT-2026.01.31-08.00.00", "GMT-2026.02.28-23.59.59"


def absent() -> str | None:
    if reason := missing():
        return reason
    programs = [each for each in ("smbd", "smbclient") if shutil.which(each) is None]
    return f"not installed here: {', '.join(programs)}" if programs else None


pytestmark = pytest.mark.skipif(absent() is not None, reason=absent() or "")


def documented(path: Path) -> str:
    """The share of the documents, on ``path`` and for guests."""
    found = re.search(r"```\n(\[data\]\n.*?)```", DOCUMENT.read_text(), re.S)
    assert found is not None
    return found[1].replace("path = /mnt/data", f"path = {path}") + "  guest ok = yes\n  read only = no\n"


@pytest.fixture
def at() -> Iterator[Path]:
    # What Samba binds sockets in has a short name.
    with tempfile.TemporaryDirectory(prefix="idemfs-") as name:
        idemfs("init", Path(name, "store"))
        with mounted(Path(name, "store"), Path(name, "mount")) as directory:
            (directory / "folder").mkdir()
            yield directory


@pytest.fixture
def configuration(at: Path) -> Iterator[Path]:
    """Of a server that runs."""
    place = at.parent
    (place / "var").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    folder = documented(at / "folder").replace("[data]", "[folder]")
    path = place / "smb.conf"
    path.write_text(GLOBAL.format(port=port, var=place / "var") + documented(at) + folder)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready, open(place / "var/out", "wb") as out:
        ready.bind(str(place / "ready"))
        ready.settimeout(60)
        command = ["smbd", "--foreground", "--no-process-group", "--debug-stdout", "-s", str(path)]
        environment = {**os.environ, "NOTIFY_SOCKET": str(place / "ready")}
        # It ends by ending its process group.

        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=environment, start_new_session=True
        ) as server:
            try:
                while b"READY=1" not in ready.recv(4096):
                    assert server.poll() is None
                yield path
            finally:
                server.terminate()


def client(configuration: Path, share: str, commands: str) -> str:
    port = re.search(r"smb ports = (\d+)", configuration.read_text())
    assert port is not None
    command = ["smbclient", "-s", str(configuration), "-p", port[1], "-N", f"//127.0.0.1/{share}", "-c", commands]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=configuration.parent)
    assert ended.returncode == 0 and "NT_STATUS" not in ended.stdout, ended.stdout + ended.stderr
    return ended.stdout


def versions(configuration: Path, share: str, name: str) -> list[tuple[str, int]]:
    """Previous versions as Windows lists them, the newest first, and their sizes."""
    said = client(configuration, share, f"allinfo {name}")
    return [(each, int(size)) for each, size in re.findall(r"^@(GMT-\S+)\n(?:.*\n){4}size: (\d+)", said, re.M)]


def test_previous_versions(at: Path, configuration: Path) -> None:
    (at / "file").write_text("old")
    (at / "folder/inner").write_text("inner")
    os.mkdir(at / ".snapshots" / OLD)
    (at / "file").write_text("newer")
    (at / "folder/inner").unlink()
    idemfs("snapshot", "create", at.parent / "store", NEW)
    idemfs("snapshot", "create", at.parent / "store", "of another kind")
    (at / "file").write_text("active")

    assert versions(configuration, "data", "file") == [(NEW, 5), (OLD, 3)]
    assert [each for each, _ in versions(configuration, "data", "folder")] == [NEW, OLD]
    client(configuration, "data", f"get @{OLD}/file first; get @{NEW}/file second; get file third")
    place = configuration.parent
    assert [(place / each).read_text() for each in ("first", "second", "third")] == ["old", "newer", "active"]
    assert "inner" in client(configuration, "data", f"ls @{OLD}/folder/*")
    client(configuration, "folder", f"get @{OLD}/inner inner")
    assert (place / "inner").read_text() == "inner"
    assert ".snapshots" not in client(configuration, "data", "ls")
    os.rmdir(at / ".snapshots" / NEW)
    assert versions(configuration, "data", "file") == [(OLD, 3)]


def test_a_file_is_brought_back(at: Path, configuration: Path) -> None:
    (at / "file").write_bytes(b"old" * 100_000)
    os.mkdir(at / ".snapshots" / OLD)
    client(configuration, "data", f"del file; get @{OLD}/file copy; put copy file")
    assert (at / "file").read_bytes() == b"old" * 100_000
