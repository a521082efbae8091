"""A mounted store exported over NFS 4 by Debian's nfs-ganesha, with the lines of docs/MOUNT.md."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conformance.mounted import idemfs, missing, mounted

DOCUMENT = Path(__file__).parents[2] / "docs/MOUNT.md"
SERVER = """\
NFS_CORE_PARAM {{ NFS_Port = {port}; Protocols = 4; Enable_NLM = false; Enable_RQUOTA = false; Bind_addr = 127.0.0.1; }}
NFSv4 {{ Graceless = true; RecoveryRoot = {var}; }}
"""


def absent() -> str | None:
    if reason := missing():
        return reason
    programs = [each for each in ("ganesha.nfsd", "nfs-cat", "nfs-cp", "nfs-ls") if shutil.which(each) is None]
    return f"not installed here: {', '.join(programs)}" if programs else None


pytestmark = pytest.mark.skipif(absent() is not None, reason=absent() or "")


@contextmanager
def exported(at: Path, var: Path) -> Iterator[str]:
    """The export's address, with ``{}`` where the path goes."""
    found = re.search(r"```\n(EXPORT \{.*?)```", DOCUMENT.read_text(), re.S)
    assert found is not None
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    var.mkdir(exist_ok=True)
    configuration = var / "ganesha.conf"
    configuration.write_text(SERVER.format(port=port, var=var) + found[1].replace("/mnt/data", str(at)))
    command = ["ganesha.nfsd", "-F", "-f", str(configuration), "-L", "STDOUT", "-p", str(var / "pid")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
        assert server.stdout is not None
        try:
            lines = iter(server.stdout.readline, "")
            said = []
            for line in lines:
                said.append(line)
                if "NFS SERVER INITIALIZED" in line:
                    break
            else:
                raise AssertionError("".join(said))
            yield f"nfs://127.0.0.1/data{{}}?version=4&nfsport={port}"
        finally:
            server.terminate()
            server.stdout.read()


def run(*command: str) -> str:
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_an_export(tmp_path: Path) -> None:
    store = tmp_path / "store"
    idemfs("init", store)
    (tmp_path / "outside").write_bytes(os.urandom(3_000_000))
    # nfs-cp writes little at once over NFS 4, whatever file system the server has.
    (tmp_path / "small").write_bytes(os.urandom(100))
    with mounted(store, tmp_path / "mount") as at, exported(at, tmp_path / "var") as address:
        (at / "d").mkdir()
        names = {f"file-{number}" for number in range(300)}
        for name in names:
            (at / "d" / name).write_text(name)
        os.mkdir(at / ".snapshots/one")
        (at / "d/file-7").write_text("changed")
        assert run("nfs-cat", address.format("/d/file-7")) == "changed"
        assert run("nfs-cat", address.format("/.snapshots/one/d/file-7")) == "file-7"
        assert {line.split()[-1] for line in run("nfs-ls", address.format("/d")).splitlines()} == names
        run("nfs-cp", str(tmp_path / "small"), address.format("/d/small"))
        assert (at / "d/small").read_bytes() == (tmp_path / "small").read_bytes()
        shutil.copy(tmp_path / "outside", at / "d/inside")
    with mounted(store, tmp_path / "mount") as at, exported(at, tmp_path / "var") as address:
        run("nfs-cp", address.format("/d/inside"), str(tmp_path / "back"))
        assert (tmp_path / "back").read_bytes() == (tmp_path / "outside").read_bytes()
        assert run("nfs-cat", address.format("/.snapshots/latest/d/file-7")) == "file-7"
