"""Two ``idemfs serve`` and an etcd, all real processes: who takes changes when one is killed, stopped, or cut off."""

from __future__ import annotations

import errno
import json
import mmap
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.mounted import missing
from tests.e2e import etcd_server
from tests.e2e.etcd_server import EtcdServer
from tests.e2e.program import done, idemfs, refused, rows
from tests.e2e.serving import Served, clear, table

pytestmark = pytest.mark.skipif(missing() is not None, reason=missing() or "")

LEASE_SECONDS = 3
PATIENCE_SECONDS = 60


class Line:
    """Store ``a`` with its standby ``b``, each with a node of its own that mounts and guards it."""

    def __init__(self, path: Path, etcd: EtcdServer | None, automatic: bool = True) -> None:
        self.path = path
        self.etcd = etcd
        self.a, self.b = path / "a", path / "b"
        self.nodes: dict[str, Served] = {}
        done("init", self.a)
        done("standby", "add", self.a, self.b)
        for store in (self.a, self.b):
            (path / f"{store.name}-files").mkdir()
            self.configure(store, automatic)
        (path / "first").mkdir()
        (path / "first" / "file").write_text("written before")
        done("put", self.a, path / "first", "/")
        done("replicate", self.a)

    def configure(self, store: Path, automatic: bool, more: str = "") -> None:
        more += f'write_lease = "{LEASE_SECONDS}s"\n' + ("automatic_failover = true\n" if automatic else "")
        head = "" if self.etcd is None else f'[etcd]\nendpoints = ["{self.etcd.url}"]\n'
        (self.path / f"{store.name}.toml").write_text(head + table(store, self.files(store), more))

    def files(self, store: Path) -> Path:
        return self.path / f"{store.name}-files"

    def start(self, store: Path) -> Served:
        node = self.nodes[store.name] = Served(self.path / f"{store.name}.toml")
        node.wait_for("is ready")
        return node

    def start_both(self) -> tuple[Served, Served]:
        """When ``b`` was asked for a lease, and may take over."""
        node = self.start(self.a)
        self.said(self.a, "takes changes in epoch 1")
        other = self.start(self.b)
        until = time.monotonic() + PATIENCE_SECONDS
        while self.status(self.a)["granted"] != ["b"]:
            assert time.monotonic() < until
        return node, other

    def said(self, store: Path, text: str) -> None:
        """Wait until the log has this, which may have been before."""
        node = self.nodes[store.name]
        if not any(text in line for line in node.log):
            node.wait_for(text)

    def status(self, store: Path) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(done("automatic", "status", store, "--json"))
        return found

    def kill(self, store: Path) -> None:
        node = self.nodes.pop(store.name)
        node.process.kill()
        node.close()
        # What it had mounted is nobody's, and the directory would answer with an error for ever.
        subprocess.run(["umount", "-l", self.files(store)], check=True)

    def write(self, store: Path, name: str) -> int:
        """0 when a file of this name is durable, or the errno with which it could not be made."""
        try:
            with (self.files(store) / name).open("w") as file:
                file.write(name)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            return error.errno or -1
        return 0

    def wait_for_writes(self, store: Path, wanted: int) -> None:
        """Until making a file ends with this errno, 0: until it is made."""
        until = time.monotonic() + PATIENCE_SECONDS
        while self.write(store, "waiting") != wanted:
            assert time.monotonic() < until

    def close(self) -> None:
        for node in self.nodes.values():
            node.process.send_signal(signal.SIGCONT)
            node.close()
        clear(self.path)


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[EtcdServer]:
    with etcd_server.running(tmp_path / "etcd") as server:
        yield server


@pytest.fixture
def line(tmp_path: Path, etcd: EtcdServer) -> Iterator[Line]:
    with ExitStack() as stack:
        line = Line(tmp_path, etcd)
        stack.callback(line.close)
        yield line


def names_of(store: Path, snapshot: str) -> set[str]:
    return {row["name"] for row in rows("ls", f"{store}@{snapshot}", "/")}


def test_a_killed_primary_is_replaced_and_comes_back_with_what_diverged(line: Line) -> None:
    line.start_both()
    assert line.write(line.a, "replicated") == 0
    done("replicate", line.a)
    assert line.write(line.a, "not-replicated") == 0
    line.kill(line.a)
    line.said(line.b, "takes changes in epoch 2")
    assert line.write(line.b, "after") == 0
    assert (line.files(line.b) / "replicated").read_text() == "replicated"
    line.start(line.a)
    line.said(line.a, "failback is done: standby of epoch 2")
    assert line.write(line.a, "refused") == errno.EROFS
    assert "not-replicated" in names_of(line.a, "diverged-1")
    assert line.write(line.b, "still") == 0
    done("replicate", line.b)
    newest = rows("snapshot", "list", line.a)[-1]["name"]
    assert {"after", "still"} <= names_of(line.a, newest)
    history = rows("history", line.b)
    taken = [row for row in history if row["what"] == "failover"]
    assert [(row["outcome"], row["by"]) for row in taken] == [("done", "automatic")]
    assert ("failback", "automatic") in [(row["what"], row["by"]) for row in rows("history", line.a)]


def test_a_primary_stopped_past_its_lease_takes_no_change_afterwards(line: Line) -> None:
    node, _ = line.start_both()
    node.process.send_signal(signal.SIGSTOP)
    line.said(line.b, "takes changes in epoch 2")
    assert line.write(line.b, "after") == 0
    node.process.send_signal(signal.SIGCONT)
    for number in range(50):
        assert line.write(line.a, f"refused-{number}") == errno.EROFS
    line.said(line.a, "failback is done: standby of epoch 2")
    assert line.write(line.a, "refused") == errno.EROFS
    assert line.write(line.b, "still") == 0


def test_without_etcd_writes_go_on_and_without_the_standby_too_they_stop(line: Line, etcd: EtcdServer) -> None:
    line.start_both()
    etcd.kill()
    until = time.monotonic() + 3 * LEASE_SECONDS
    count = 0
    while time.monotonic() < until:
        count += 1
        assert line.write(line.a, "again") == 0
    assert count > 1 and "no endpoint" in line.status(line.a)["etcd"]
    line.kill(line.b)
    with (line.files(line.a) / "mapped").open("w+b", buffering=0) as file:
        file.write(bytes(4096))
        os.fsync(file.fileno())
        with mmap.mmap(file.fileno(), 4096) as pages:
            line.wait_for_writes(line.a, errno.EROFS)
            pages[:4] = b"late"
            with pytest.raises(OSError):
                pages.flush()
    assert line.write(line.a, "refused") == errno.EROFS
    assert (line.files(line.a) / "again").read_text() == "again"
    assert line.status(line.a)["missing"].keys() == {"b"}
    etcd.start()
    line.wait_for_writes(line.a, 0)
    assert line.status(line.a)["epoch"] == 1
    assert (line.files(line.a) / "mapped").read_bytes() == bytes(4096)


def test_paused_nobody_takes_over_until_it_is_resumed(line: Line) -> None:
    line.start_both()
    done("automatic", "pause", line.b)
    line.kill(line.a)
    line.said(line.b, "automatic failover is paused")
    assert line.status(line.b)["is_paused"]
    assert line.write(line.b, "refused") == errno.EROFS
    done("automatic", "resume", line.b)
    line.said(line.b, "takes changes in epoch 2")


def test_by_command_a_failover_waits_for_the_lease_and_the_standby_alone_grants_it(tmp_path: Path) -> None:
    line = Line(tmp_path, None, automatic=False)
    with ExitStack() as stack:
        stack.callback(line.close)
        line.start_both()
        assert line.status(line.a)["etcd"] == "not used"
        line.kill(line.a)
        assert "granted its primary a write lease" in done("failover", line.b, "--dry-run")
        done("failover", line.b, "--yes")
        line.wait_for_writes(line.b, 0)
        line.start(line.a)
        line.said(line.a, "has ended this store's right to write")
        assert line.write(line.a, "refused") == errno.EROFS
        assert line.write(line.b, "after") == 0


def test_without_a_process_that_renews_it_a_store_takes_no_changes(line: Line) -> None:
    line.start_both()
    line.kill(line.a)
    assert "write lease" in refused("put", line.a, line.path / "first", "/again")
    assert "no guard runs" in refused("automatic", "status", line.a)
    assert idemfs("ls", line.a, "/").status == 0
