"""Nodes as real processes: they are paired, replicate over HTTPS, exchange roles, and are ended and killed."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from idemfs.errors import ConnectionLost
from idemfs.failover.remote import RemoteParty
from idemfs.ids import Guid
from idemfs.node import tls
from idemfs.node.connecting import connect
from idemfs.replication.session import Session
from tests.e2e.program import done, idemfs, refused, rows


class Process:
    """``idemfs serve`` of one node."""

    def __init__(self, directory: Path, name: str) -> None:
        self.state = directory / f"{name}-state"
        self.store = directory / f"{name}-store"
        self.config = directory / f"{name}.toml"
        self.configure()
        self.start()

    def configure(self, port: int = 0, link: str = "") -> None:
        self.config.write_text(
            f'[node]\nname = "{self.state.name[0]}"\nlisten = "127.0.0.1:{port}"\nurl = "https://127.0.0.1:{port}"\n'
            f'state = "{self.state}"\nmetrics = "open"\n[[store]]\nname = "data"\npath = "{self.store}"\n{link}'
        )

    def reload(self) -> None:
        self._process.send_signal(signal.SIGHUP)
        self._until("is reloaded")

    def start(self) -> None:
        command = [sys.executable, "-m", "idemfs", "serve", "--config", str(self.config)]
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE)
        self.log = self._until("is ready")

    def _until(self, said: str) -> str:
        """What it logs up to there."""
        log = b""
        assert self._process.stderr is not None
        fd = self._process.stderr.fileno()
        while said.encode() not in log:
            assert select.select([fd], [], [], 60)[0], log
            piece = os.read(fd, 65536)
            assert piece, log
            log += piece
        return log.decode()

    def end(self, number: int = signal.SIGTERM) -> str:
        """The rest of the log."""
        self._process.send_signal(number)
        _, said = self._process.communicate(timeout=60)
        return said.decode()

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate(timeout=60)

    @property
    def url(self) -> str:
        return "https://" + (self.state / "listening").read_text()

    @property
    def address(self) -> str:
        return f"{self.url}/data"

    def ask(self, path: str, method: str = "GET", token: str | None = None) -> tuple[int, Any]:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        request = urllib.request.Request(self.url + path, method=method, headers=headers)
        context = tls.only((self.state / "identity.pem").read_text())
        try:
            with urllib.request.urlopen(request, context=context, timeout=30) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)


@contextmanager
def nodes(directory: Path, *names: str) -> Iterator[list[Process]]:
    with ExitStack() as stack:
        started = []
        for name in names:
            started.append(Process(directory, name))
            stack.callback(started[-1].close)
        yield started


def pair(one: Process, other: Process) -> None:
    code = done("node", "pair", "--config", one.config, "--offer").strip()
    said = done("node", "pair", "--config", other.config, code)
    assert said.endswith("trust each other\n")


@pytest.fixture
def two(tmp_path: Path) -> Iterator[list[Process]]:
    """Two nodes that are paired, the first one with a store that has a file."""
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "paper").write_text("first draft")
    done("init", tmp_path / "a-store")
    with nodes(tmp_path, "a", "b") as started:
        pair(*started)
        done("put", started[0].store, tmp_path / "files", "/files")
        yield started


def roles(node: Process) -> dict[str, tuple[str, int]]:
    return {row["path"]: (row["role"], row["epoch"]) for row in rows("status", node.store)}


def test_a_life_of_two_nodes(two: list[Process], tmp_path: Path) -> None:
    a, b = two
    done("standby", "add", a.store, b.address)
    done("replicate", a.store)
    assert roles(a) == {str(a.store): ("primary", 1), b.address: ("standby", 1)}
    assert roles(b) == {str(b.store): ("standby", 1), a.address: ("primary", 1)}
    assert done("cat", b.store, "/files/paper") == "first draft"
    snapshots = [{(row["guid"], row["digest"]) for row in rows("snapshot", "list", node.store)} for node in two]
    assert snapshots[0] == snapshots[1] and len(snapshots[0]) == 1

    # Roles are exchanged by somebody with a token.
    token = done("node", "token", "create", "--config", a.config, "ops", "--scope", "admin").strip()
    status, plan = a.ask("/v1/stores/data/switchover?dry_run=true", "POST", token)
    assert (status, plan["done"], plan["risks"], plan["target"]) == (200, False, [], b.address)
    assert a.ask("/v1/stores/data/switchover", "POST", token)[0] == 200
    assert (a.ask("/standby")[0], b.ask("/v1/stores/data/primary")[0]) == (200, 200)
    assert roles(a) == {str(a.store): ("standby", 2), b.address: ("primary", 2)}
    by = {(event["what"], event["by"]) for event in a.ask("/v1/stores/data/history", token=token)[1]}
    assert ("switchover", "token ops") in by

    # The new primary is lost; the old one takes over, and goes on when it is back.
    (tmp_path / "files" / "paper").write_text("second draft")
    done("put", b.store, tmp_path / "files", "/files")
    b.end(signal.SIGKILL)
    status, plan = a.ask("/v1/stores/data/failover?dry_run=true", "POST", token)
    assert status == 200 and "is not reachable" in plan["risks"][0]["why"]
    assert a.ask("/v1/stores/data/failover", "POST", token)[0] == 200
    assert roles(a)[str(a.store)][0] == "primary"
    b.start()
    done("failback", "--yes", b.store)
    assert [role for role, _ in roles(b).values()] == ["standby", "primary"]
    assert done("cat", b.store, "/files/paper") == "first draft"


def test_a_standby_takes_over_by_the_api_while_a_lost_primary_still_holds_it(two: list[Process]) -> None:
    a, b = two
    done("standby", "add", a.store, b.address)
    done("replicate", a.store)
    token = done("node", "token", "create", "--config", b.config, "ops", "--scope", "admin").strip()
    a.end(signal.SIGKILL)
    with Session(connect(str(b.store)), Guid(b"?" * 16)) as session:
        party = RemoteParty(session)
        party.claim()
        assert b.ask("/v1/stores/data/failover", "POST", token)[0] == 200
        with pytest.raises(ConnectionLost):
            party.observe("")
    assert roles(b)[str(b.store)] == ("primary", 2)


def test_a_link_to_another_node(two: list[Process], tmp_path: Path) -> None:
    """What is written to one is on the other without a command, and the API tells of it."""
    a, b = two
    done("standby", "add", a.store, b.address, "--own-address", a.address)
    port = int(a.url.rpartition(":")[2])
    b.configure(int(b.url.rpartition(":")[2]))
    a.configure(port, f'[[store.link]]\nto = "{b.address}"\nevery = "1s"\n')
    a.reload()
    token = done("node", "token", "create", "--config", a.config, "ops").strip()

    def link() -> dict[str, Any]:
        (found,) = a.ask("/v1/stores/data/links", token=token)[1]
        return dict(found)

    def until(seen: Callable[[], bool]) -> None:
        end = time.monotonic() + 60
        while not seen():
            assert time.monotonic() < end, link()
            select.select([], [], [], 0.05)

    until(lambda: link()["lag_seconds"] == 0 and link()["sent_count"] > 0)
    until(lambda: idemfs("cat", b.store, "/files/paper").out == "first draft")
    (tmp_path / "files" / "paper").write_text("second draft")
    done("put", a.store, tmp_path / "files", "/files")
    until(lambda: idemfs("cat", b.store, "/files/paper").out == "second draft")
    with urllib.request.urlopen(
        a.url + "/metrics", context=tls.only((a.state / "identity.pem").read_text()), timeout=30
    ) as answer:
        figures = answer.read().decode()
    assert f'idemfs_link_sent_bytes_total{{link="{b.address}",store="data"}}' in figures
    assert f'idemfs_link_state{{link="{b.address}",state="failed",store="data"}} 0.0' in figures


def test_two_primaries_stand_side_by_side_at_a_third_node(tmp_path: Path) -> None:
    """Their links make the store there, whichever comes first."""
    (tmp_path / "files").mkdir()
    with nodes(tmp_path, "a", "b", "c") as (a, b, c):
        for name, node in (("a", a), ("b", b)):
            (tmp_path / "files" / "paper").write_text(f"of {name}")
            done("init", node.store)
            done("put", node.store, tmp_path / "files", "/files")
            pair(node, c)
            node.configure(
                int(node.url.rpartition(":")[2]), f'[[store.link]]\nto = "{c.address}"\nas = "{name}"\nevery = "1s"\n'
            )
            node.reload()
        end = time.monotonic() + 60
        for name in ("a", "b"):
            while (seen := idemfs("cat", c.store, f"/{name}/files/paper")).out != f"of {name}":
                assert time.monotonic() < end, seen.err
                select.select([], [], [], 0.05)
        assert done("ls", c.store, "/").split() == ["a", "b"]


def test_what_is_not_trusted_gets_one_clear_line(two: list[Process], tmp_path: Path) -> None:
    a, b = two
    code = done("node", "pair", "--config", a.config, "--offer").strip()
    url, fingerprint, secret = code.split(",")
    other = done("node", "pair", "--config", b.config, "--offer").strip().split(",")[1]
    assert "another certificate than the node that made this code" in refused(
        "node", "pair", "--config", b.config, f"{url},{other},{secret}"
    )
    wrong = secret[:-1] + ("A" if secret[-1] != "A" else "B")
    assert "this code is wrong or older" in refused(
        "node", "pair", "--config", b.config, f"{url},{fingerprint},{wrong}"
    )
    assert "it has the form URL,FINGERPRINT,SECRET" in refused("node", "pair", "--config", b.config, "x")
    assert "give --offer, or the CODE" in refused("node", "pair", "--config", b.config, status=2)

    done("node", "unpair", "--config", b.config, "a")
    assert "b at https://127.0.0.1" in refused("standby", "add", a.store, b.address, "--own-address", a.address)
    done("node", "unpair", "--config", a.config, "b")
    assert "this node is paired with none there" in refused(
        "standby", "add", a.store, b.address, "--own-address", a.address
    )
    pair(b, a)
    done("standby", "add", a.store, b.address, "--own-address", a.address)
    assert "is reached by 'idemfs serve' alone" in refused("standby", "add", tmp_path / "nothing", b.address)


def test_tokens_and_peers_on_the_command_line(two: list[Process]) -> None:
    a, _ = two
    token = done("node", "token", "create", "--config", a.config, "ops", "--expires", "1h").strip()
    assert a.ask("/v1/node", token=token)[1]["peers"] == ["b"]
    assert [(row["name"], row["scope"]) for row in rows("node", "token", "list", "--config", a.config)] == [
        ("ops", "read")
    ]
    assert [(row["name"], len(row["fingerprint"])) for row in rows("node", "peers", "--config", a.config)] == [
        ("b", 64)
    ]
    assert a.ask("/v1/node")[0] == 401
    assert a.ask("/v1/stores/data/failover", "POST", token) == (
        403,
        {"error": "token ops has not the scope 'admin', which this needs"},
    )
    done("node", "token", "revoke", "--config", a.config, "ops")
    assert a.ask("/v1/node", token=token)[0] == 401
    assert "no token has this name" in refused("node", "token", "revoke", "--config", a.config, "ops")
    assert "'create' and 'revoke' take a NAME" in refused("node", "token", "create", "--config", a.config, status=2)
    assert "--scope and --expires go with" in refused(
        "node", "token", "list", "--config", a.config, "--scope", "read", status=2
    )


def test_the_end_of_a_node(two: list[Process]) -> None:
    a, b = two
    done("standby", "add", a.store, b.address, "--own-address", a.address)
    said = b.end()
    assert "node b ends" in said and "Traceback" not in said
    assert not (b.state / "listening").exists()
    assert "cannot be reached" in idemfs("replicate", a.store).err


def test_a_node_without_a_network_imports_none_of_it(tmp_path: Path) -> None:
    config = tmp_path / "quiet.toml"
    config.write_text(f'[node]\nname = "quiet"\nstate = "{tmp_path}/state"\n')
    command = [sys.executable, "-X", "importtime", "-m", "idemfs", "serve", "--config", str(config)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        imported = set()
        for line in process.stderr:
            imported.add(line.rpartition("|")[2].strip())
            if "is ready" in line:
                process.terminate()
    assert process.returncode == 0 and "idemfs.node.node" in imported
    assert imported & {"fastapi", "starlette", "uvicorn", "uvloop", "websockets", "cryptography", "asyncio"} == set()
