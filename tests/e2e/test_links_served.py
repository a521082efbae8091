"""Links between real processes: what users see of them, what is left when one is killed, and who may take over."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conformance.mounted import idemfs, missing
from tests.e2e.serving import Served, served

pytestmark = pytest.mark.skipif(missing() is not None, reason=missing() or "")

PATIENCE_SECONDS = 90.0


def until(condition: Callable[[], bool]) -> None:
    waiting, end = threading.Event(), time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        waiting.wait(0.05)


class Place:
    """Stores in one folder, and a configuration for each process that serves one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.source = path / "source"
        self.source.mkdir()
        idemfs("init", path / "A")

    def config(self, name: str, *links: str) -> Path:
        file = self.path / f"{name}.toml"
        tables = "".join(f"[[store.link]]\n{each}\n" for each in links)
        store = f'[[store]]\nname = "{name}"\npath = "{self.path / name}"\n'
        file.write_text(f'[node]\nname = "{name}"\n{store}{tables}')
        return file

    def link(self, to: str, rest: str = 'every = "1s"') -> str:
        address = to if ":" in to else str(self.path / to)
        return f'to = "{address}"\n{rest}'

    def put(self, content: bytes) -> None:
        (self.source / "f").write_bytes(content)
        idemfs("put", self.path / "A", self.source, "/")

    def links(self, name: str = "A") -> list[dict[str, object]]:
        rows: list[dict[str, object]] = json.loads(idemfs("links", self.path / name, "--json").stdout)
        return rows

    def is_current(self) -> bool:
        return all(each["state"] == "idle" and each["lag_seconds"] == 0.0 for each in self.links())


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_a_standby_that_another_process_serves(place: Place) -> None:
    with served(place.config("A", place.link("B"))):
        place.put(b"one")
        until(place.is_current)
    with served(place.config("B", place.link("A"))), served(place.config("A", place.link("B"))):
        place.put(b"two" * 1000)
        until(place.is_current)
        assert idemfs("cat", place.path / "B", "/f").stdout == "two" * 1000
        (back,) = place.links("B")
        assert (back["state"], back["reason"]) == ("resting", "is the primary")
        out = idemfs("links", place.path / "A").stdout.splitlines()
        assert out[0].split() == ["TO", "STATE", "LAG", "BEHIND", "COMMON", "NOW"]
        assert " idle " in out[1] and " 0.0 s " in out[1]
        # Roles go over while both serve, and the link the other way begins its work.
        idemfs("switchover", place.path / "A", "--yes")
        until(lambda: place.links("B")[0]["state"] == "idle" and place.links("A")[0]["state"] == "resting")
        (place.source / "f").write_bytes(b"three")
        idemfs("put", place.path / "B", place.source, "/")
        until(lambda: idemfs("cat", place.path / "A", "/f").stdout == "three")


def test_the_process_that_serves_the_standby_comes_and_goes(place: Place) -> None:
    with served(place.config("A", place.link("B"))):
        place.put(b"0")
        until(place.is_current)
        config = place.config("B")
        for content in (b"1", b"22"):
            with served(config) as other:
                until(lambda: idemfs("node", "status", "--config", config).stdout.count(" yes ") == 1)
                place.put(content)
                until(place.is_current)
                assert idemfs("cat", place.path / "B", "/f").stdout == content.decode()
                assert not any("error" in line for line in other.log)
        place.put(b"333")
        until(place.is_current)
    assert idemfs("cat", place.path / "B", "/f").stdout == "333"


def test_killed_in_the_midst_of_a_transfer_it_goes_on(place: Place) -> None:
    config = place.config("A", place.link("B", 'every = "1s"\nbandwidth = "2MB/s"'))
    with served(config):
        until(place.is_current)
    node = Served(config)
    try:
        node.wait_for("is ready")
        place.put(os.urandom(40_000_000))
        until(lambda: (found := place.links()[0]["transfer"]) is not None and found["bytes_sent"] > 16_000_000)  # type: ignore[index]
        node.end(signal.SIGKILL)
    finally:
        node.close()
    with served(place.config("A", place.link("B"))):
        until(place.is_current)
        assert 0 < int(str(place.links()[0]["sent_bytes"])) < 40_000_000
    idemfs("check", place.path / "B")
    one, other = (idemfs("get", place.path / name, "/", place.path / f"of-{name}") for name in "AB")
    assert one.returncode == other.returncode == 0
    assert (place.path / "of-A" / "f").read_bytes() == (place.path / "of-B" / "f").read_bytes()


def test_an_archive_and_a_standby_over_ssh(place: Place) -> None:
    """What stands for ssh runs the command here."""
    stand_in = place.path / "ssh"
    stand_in.write_text(
        f'#!/bin/sh\nfor last; do :; done\nPATH={Path(sys.executable).parent}:$PATH exec sh -c "$last"\n'
    )
    stand_in.chmod(0o755)
    config = place.config(
        "A", place.link(f"ssh://elsewhere{place.path}/B"), place.link(f"archive:{place.path}/streams")
    )
    with served(config, {"IDEMFS_SSH": str(stand_in)}):
        for content in (b"one", b"two"):
            place.put(content)
            until(place.is_current)
    assert idemfs("cat", place.path / "B", "/f").stdout == "two"
    idemfs("archive", "check", place.path / "streams")
    idemfs("archive", "restore", place.path / "streams", place.path / "R")
    assert idemfs("cat", place.path / "R", "/f").stdout == "two"


def test_without_a_process_that_serves_the_store_nobody_runs_its_links(place: Place) -> None:
    done = idemfs("links", place.path / "A", check=False)
    assert done.returncode == 1 and "'idemfs serve' does" in done.stderr
