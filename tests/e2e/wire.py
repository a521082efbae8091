"""Two nodes on the two machines of ``netns``: ``idemfs serve`` on each, paired, over HTTPS, with links each second.

Commands for a store are run on its machine and handed over to the process that serves it, as users do. A store may be
mounted by its node; only processes that ``Machine.beside`` starts see that mount.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import idemfs as package
from idemfs.format import role as roles
from idemfs.store.files import open_files
from tests.e2e.ending import wait_for_end
from tests.e2e.netns import WAIT_SECONDS, Machine, two_machines, wait_until
from tests.e2e.program import Ended

PORT = 7443
LINK_SECONDS = 1


class Node:
    """What ``idemfs serve`` runs on one machine, with one store, ``data``."""

    def __init__(self, machine: Machine, store: Path | None = None) -> None:
        self.machine = machine
        self.store = machine.path() if store is None else store
        self.state = machine.folder / "state"
        self.config = machine.folder / "idemfs.toml"
        self.log = machine.folder / "log"
        self.url = f"https://{machine.address}:{PORT}"
        self.address = f"{self.url}/data"
        self.place: Path | None = None
        self.link = self.extra = self.identity = ""
        self._process: subprocess.Popen[str] | None = None

    # -- the process -----------------------------------------------------------------------------------

    def configure(self, link_to: Node | None = None, *, extra: str = "", identity: str = "") -> None:
        """``extra``: further lines of the store's table; ``identity``: of the node's."""
        self.extra = extra or self.extra
        self.identity = identity or self.identity
        if link_to is not None:
            self.link = f'[[store.link]]\nto = "{link_to.address}"\nevery = "{LINK_SECONDS}s"\n'
        mount = "" if self.place is None else f'mount = "{self.place}"\n'
        self.config.write_text(
            f'[node]\nname = "{self.machine.name}"\nlisten = "{self.machine.address}:{PORT}"\nurl = "{self.url}"\n'
            f'state = "{self.state}"\n{self.identity}'
            f'[[store]]\nname = "data"\npath = "{self.store}"\n{mount}{self.extra}{self.link}'
        )

    def start(self, *before: str, **environment: str) -> None:
        """``before``: words of a program that starts it."""
        self.log.write_text("")
        words = [*before, sys.executable, "-m", "idemfs", "serve", "--config", str(self.config)]
        shell = ["sh", "-c", 'exec "$@" 2>> "$0"', str(self.log), *words]
        self._process = self.machine.start_program(*shell, **environment)
        self.wait_for("is ready")

    def wait_for(self, text: str) -> None:
        """A line of the log of the process that runs, or of the one that ran last."""
        wait_until(lambda: text in self.log.read_text() or not self._is_running(), text)
        assert text in self.log.read_text(), self.log.read_text()

    def _is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Of the process itself: ``sh`` and ``ip`` have become it."""
        assert self._process is not None
        return self._process.pid

    def reload(self) -> None:
        count = self.log.read_text().count("is reloaded")
        os.kill(self.pid, signal.SIGHUP)
        wait_until(lambda: self.log.read_text().count("is reloaded") > count, "a reload")

    def kill(self) -> None:
        """``kill -9``."""
        assert self._process is not None
        os.kill(self.pid, signal.SIGKILL)
        self._process.communicate(timeout=WAIT_SECONDS)

    def end(self) -> None:
        assert self._process is not None
        if self._is_running():
            os.kill(self.pid, signal.SIGTERM)
            wait_for_end(self.pid)
            self._process.communicate(timeout=WAIT_SECONDS)
            assert self._process.returncode == 0, self.log.read_text()

    # -- commands --------------------------------------------------------------------------------------

    def do(self, *words: str | os.PathLike[str]) -> str:
        """The output of a command that does what it is told, on this machine."""
        return self.machine.done(*words)

    def ended(self, *words: str | os.PathLike[str]) -> Ended:
        return self.machine.idemfs(*words)

    def rows(self, *words: str | os.PathLike[str]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.machine.done(*words, "--json"))
        return found

    def role(self) -> str:
        return self.standing()[0]

    def standing(self) -> tuple[str, int]:
        """Role and epoch as they are recorded here: 'status' would ask the other node, too."""
        store = open_files(os.fspath(self.store), readonly=True)
        try:
            found = roles.unpack(store.small.get(roles.KEY))
        finally:
            store.close()
        return found.role.name.lower(), found.epoch

    def put(self, path: str, content: bytes) -> None:
        file = self.machine.folder / "to-put"
        file.write_bytes(content)
        self.do("put", self.store, file, path)

    def get(self, path: str, snapshot: str = "") -> str:
        return self.do("cat", f"{self.store}{snapshot}", path)

    def has(self, path: str, content: str) -> bool:
        found = self.ended("cat", self.store, path)
        return found.status == 0 and found.out == content

    def link_status(self) -> dict[str, Any]:
        (found,) = self.rows("links", self.store)
        return found

    def digests(self) -> dict[str, str]:
        return {row["guid"]: row["digest"] for row in self.rows("snapshot", "list", self.store)}

    def snapshot_names(self) -> list[str]:
        return [row["name"] for row in self.rows("snapshot", "list", self.store)]


def pair(one: Node, other: Node) -> None:
    code = one.do("node", "pair", "--config", one.config, "--offer").strip()
    assert other.do("node", "pair", "--config", other.config, code).endswith("trust each other\n")


@contextmanager
def two_nodes(
    folder: Path, *, mounted: bool = False, extra: str = "", disk: Path | None = None
) -> Iterator[tuple[Node, Node]]:
    """A primary with ``/first`` on node a, and b, which follows it; each has a link to the other one. ``disk``: where b
    has its store. When it is over both nodes end as they are told, and ``check`` finds nothing in their stores."""
    with two_machines(folder, ssh=False) as (first, second):
        a, b = Node(first), Node(second, None if disk is None else disk / "data")
        a.do("init", a.store)
        for node in (a, b):
            if mounted:
                node.place = node.machine.folder / "mounted"
                node.place.mkdir()
            node.configure(extra=extra)
            node.start()
        pair(a, b)
        a.put("/first", b"1")
        a.do("standby", "add", a.store, b.address, "--own-address", a.address)
        a.do("replicate", a.store)
        for node, other in ((a, b), (b, a)):
            node.configure(other)
            node.reload()
        yield a, b
        for node in (a, b):
            node.end()
            assert node.do("check", node.store).startswith("clean")


def wait_until_equal(primary: Node, standby: Node) -> None:
    """The link has brought everything over: lag 0, and the newest snapshots are one."""
    wait_until(lambda: primary.link_status()["lag_seconds"] == 0, "no lag")
    assert_equal(primary, standby)


def assert_equal(a: Node, b: Node) -> None:
    """What both have by one guid is the same, and there is something."""
    one, other = a.digests(), b.digests()
    common = one.keys() & other.keys()
    assert common and all(one[guid] == other[guid] for guid in common)


def cut_both(a: Node, b: Node) -> None:
    a.machine.cut()
    b.machine.cut()


def mend_both(a: Node, b: Node) -> None:
    a.machine.mend()
    b.machine.mend()


# -- users -----------------------------------------------------------------------------------------------

_WRITER = """\
import errno, os, select, sys

folder, log, name, stops = sys.argv[1:]
number = 0
while True:
    made = f"{name}-{number}"
    try:
        fd = os.open(f"{folder}/{made}", os.O_CREAT | os.O_WRONLY, 0o644)
        try:
            os.write(fd, made.encode())
            os.fdatasync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        if stops == "stops":
            print(errno.errorcode[error.errno], flush=True)
            sys.exit()
        # Another node writes just now.
        select.select([], [], [], 0.01)
    else:
        with open(log, "a") as lines:
            lines.write(f"{made}\\n")
        if number % 10 == 9:
            # Load, and no race for the last page of the disk.
            select.select([], [], [], 0.01)
    number += 1
"""


class Writer:
    """A program that makes files with their names as content on a mounted node, syncs each, and writes down those that
    it was told are durable. ``stops``: at the first one that is refused, whose error it prints; else it tries again."""

    def __init__(self, node: Node, *, name: str = "", stops: bool = False) -> None:
        assert node.place is not None
        self._log = node.machine.folder / f"acknowledged-{name or node.machine.name}"
        self._log.touch()
        words = [str(node.place), str(self._log), name or node.machine.name, "stops" if stops else "goes on"]
        self._process = node.machine.beside(node.pid, sys.executable, "-c", _WRITER, *words)

    def acknowledged(self) -> set[str]:
        return set(self._log.read_text().split())

    def wait_for_more(self, count: int = 10) -> None:
        before = len(self.acknowledged())
        wait_until(lambda: len(self.acknowledged()) >= before + count, "users write")

    def wait_for_error(self) -> str:
        """The name of the error that ended it."""
        out, err = self._process.communicate(timeout=WAIT_SECONDS)
        assert self._process.returncode == 0, err
        return out.strip()

    def end(self) -> set[str]:
        """All that was acknowledged."""
        assert self._process.poll() is None, self._process.communicate()
        self._process.kill()
        self._process.communicate(timeout=WAIT_SECONDS)
        return self.acknowledged()


def written(nodes: tuple[Node, Node]) -> set[str]:
    """The names of all files of which some node has the whole content, in its active state or a snapshot. Nobody serves
    the stores meanwhile."""
    found = set()
    for node in nodes:
        with package.open(node.store, readonly=True) as fs:
            for view in (fs, *(fs.snapshots[each.name] for each in fs.snapshots)):
                names = [name for name in view.listdir("/") if name not in found and view.is_file(f"/{name}")]
                found |= {name for name in names if view.read_text(f"/{name}") == name}
    return found
