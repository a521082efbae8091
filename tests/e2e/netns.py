"""Two machines and a cable between them: network namespaces, a pair of virtual devices, and a real ``sshd`` in each.

Both see the same files, and reach each other over the cable only, by addresses that nothing else has. What a machine
runs is a process in its namespace; what a test began is ended, and its namespaces are gone, when it is over. What a run
left behind that was killed itself is removed by the next one, which finds it by its process id.

Needs root, ``ip`` and ``sshd``; without them tests are skipped, and say why.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

import idemfs
from tests.e2e.program import Ended

PREFIX = "idemfs-test"
PORT = 22
"""In a namespace all ports are free."""
WAIT_SECONDS = 60
SSHD = "/usr/sbin/sshd"
ALIVE = "-o ServerAliveInterval=1 -o ServerAliveCountMax=2 -o ConnectTimeout=2"
"""How soon ssh notices that the cable is cut; its own defaults wait for hours."""


def reason_to_skip() -> str | None:
    if os.geteuid() != 0:
        return "network namespaces need root"
    for program, package in (("ip", "iproute2"), (SSHD, "openssh-server"), ("ssh-keygen", "openssh-client")):
        if shutil.which(program) is None:
            return f"{program} is not here (Debian: {package})"
    name = f"{PREFIX}-{os.getpid()}-try"
    if _ip("netns", "add", name, check=False).returncode != 0:
        return "this system lets nobody make network namespaces"
    found = _ip("-n", name, "link", "add", "try0", "type", "veth", "peer", "name", "try1", check=False)
    _ip("netns", "del", name)
    return "this system has no virtual network devices" if found.returncode != 0 else None


def _ip(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=check)


def wait_until(holds: Callable[[], object], what: str, seconds: float = WAIT_SECONDS) -> None:
    """Asks again and again; what is asked starts a process or reads a file of the system, and takes its time."""
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, f"it did not happen: {what}"


class Machine:
    """One of the two: a namespace, its address, a directory for stores, and the processes that run in it."""

    def __init__(self, name: str, namespace: str, address: str, folder: Path, stack: ExitStack) -> None:
        self.name = name
        self.namespace = namespace
        self.address = address
        self.folder = folder
        self.device = "wire"
        self._stack = stack
        self.environment: dict[str, str] = {}

    def path(self, store: str = "data") -> Path:
        return self.folder / store

    def url(self, store: str = "data") -> str:
        """Where the other machine finds a store of this one."""
        return f"ssh://root@{self.address}:{PORT}{self.path(store)}"

    # -- processes -----------------------------------------------------------------------------------

    def start(self, *words: str | os.PathLike[str], **more: str) -> subprocess.Popen[str]:
        """A command of idemfs that runs on; ended with the test if it has not ended before."""
        return self.start_program(sys.executable, "-m", "idemfs", *(os.fspath(word) for word in words), **more)

    def start_program(self, *words: str, **more: str) -> subprocess.Popen[str]:
        return self._start(["ip", "netns", "exec", self.namespace, *words], more)

    def _start(self, words: Sequence[str], more: Mapping[str, str]) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            words,
            env=self._environment(more),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="surrogateescape",
            start_new_session=True,
        )
        self._stack.callback(_end, process)
        return process

    def idemfs(self, *words: str | os.PathLike[str]) -> Ended:
        """A command, until it has ended."""
        process = self.start(*words)
        out, err = process.communicate(timeout=WAIT_SECONDS * 2)
        return Ended(process.returncode, out, err)

    def done(self, *words: str | os.PathLike[str]) -> str:
        """The output of a command that does what it is told."""
        ended = self.idemfs(*words)
        assert ended.status == 0, (words, ended)
        return ended.out

    def refused(self, *words: str | os.PathLike[str]) -> str:
        """What a command says that does not; it is one line."""
        ended = self.idemfs(*words)
        assert ended.status == 1, (words, ended)
        assert ended.err.startswith("idemfs: ") and ended.err.count("\n") == 1, ended.err
        return ended.err

    def rows(self, *words: str | os.PathLike[str]) -> list[dict[str, object]]:
        found: list[dict[str, object]] = json.loads(self.done(*words, "--json"))
        return found

    def mount(self, store: str = "data") -> tuple[Path, int]:
        """Show a store of this machine on a directory of it; and the process that does. Only processes that ``beside``
        starts see it: each command has mounts of its own."""
        place = self.folder / f"{store}-mounted"
        place.mkdir(exist_ok=True)
        process = self.start("mount", self.path(store), place, "--foreground")
        wait_until(lambda: process.poll() is not None or self._is_mounted(process.pid, place), "a mounted store")
        assert process.poll() is None, process.communicate()
        return place, process.pid

    def _is_mounted(self, pid: int, place: Path) -> bool:
        return f" {place} " in Path(f"/proc/{pid}/mounts").read_text()

    def beside(self, pid: int, *words: str) -> subprocess.Popen[str]:
        """A program that sees and hears what process ``pid`` does."""
        return self._start(["nsenter", "-t", str(pid), "-m", "-n", *words], {})

    def process_ids(self, *words: str) -> list[int]:
        """Processes of this machine with all of ``words`` in their command line, whoever started them."""
        return [pid for pid in self._all_ids() if all(word in _command_line(pid) for word in words)]

    def _all_ids(self) -> list[int]:
        found = _ip("netns", "pids", self.namespace, check=False).stdout.split()
        return [int(pid) for pid in found]

    def power_off(self) -> None:
        """``kill -9`` of everything that runs here, the ssh server too."""
        while pids := self._all_ids():
            for pid in pids:
                _kill(pid)

    def _environment(self, more: Mapping[str, str]) -> dict[str, str]:
        source = str(Path(idemfs.__file__).parents[1])
        return {**os.environ, "PYTHONPATH": source, **self.environment, **more}

    # -- the cable -------------------------------------------------------------------------------------

    def cut(self) -> None:
        """Pull this end of the cable out. The other end notices nothing but silence."""
        self._route("add")

    def mend(self) -> None:
        self._route("del")

    def _route(self, verb: str) -> None:
        """Packets to the other machine vanish: in this direction only, unless the other one does so, too."""
        _ip("-n", self.namespace, "route", verb, "blackhole", f"{self._other()}/32", "metric", "0")

    def _other(self) -> str:
        return self.address[:-1] + ("2" if self.address.endswith("1") else "1")

    def bytes_sent(self) -> int:
        """What has gone through the cable from here, headers included."""
        return self._count("tx")

    def bytes_received(self) -> int:
        return self._count("rx")

    def _count(self, direction: str) -> int:
        (link,) = json.loads(_ip("-n", self.namespace, "-s", "-j", "link", "show", self.device).stdout)
        return int(link["stats64"][direction]["bytes"])

    def limit(self, megabits: int | None) -> None:
        """How much goes through the cable from here in a second."""
        subprocess.run(["tc", "-n", self.namespace, "qdisc", "del", "dev", self.device, "root"], capture_output=True)
        if megabits is not None:
            rate = ["root", "tbf", "rate", f"{megabits}mbit", "burst", "64kb", "latency", "200ms"]
            subprocess.run(["tc", "-n", self.namespace, "qdisc", "add", "dev", self.device, *rate], check=True)

    # -- ssh -------------------------------------------------------------------------------------------

    def start_sshd(self, keys: Path) -> None:
        """An ssh server with keys and configuration of its own, that lets the holder of ``keys`` run idemfs."""
        folder = self.folder / "ssh"
        folder.mkdir(mode=0o700)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "host"], check=True)
        programs = os.path.dirname(sys.executable)
        environment = self._environment({"PATH": f"{programs}:/usr/sbin:/usr/bin:/sbin:/bin"})
        (folder / "config").write_text(
            f"ListenAddress {self.address}\n"
            f"Port {PORT}\n"
            f"HostKey {folder}/host\n"
            f"AuthorizedKeysFile {keys}/user.pub\n"
            f"PidFile {folder}/pid\n"
            "StrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\n"
            "UseDNS no\nPrintMotd no\nMaxStartups 100\n"
            "ClientAliveInterval 1\nClientAliveCountMax 2\n"
            f"SetEnv PATH={environment['PATH']} PYTHONPATH={environment['PYTHONPATH']}\n"
        )
        # Left there, as the service of the system leaves it: other tests may be using it.
        os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
        self.restart_sshd()

    def restart_sshd(self, *, asks_clients: bool = True) -> None:
        """After ``power_off``. ``asks_clients``: whether they are alive, and lets go of those that do not answer."""
        folder = self.folder / "ssh"
        if not asks_clients:
            text = (folder / "config").read_text()
            (folder / "config").write_text(text.replace("ClientAliveInterval 1\n", ""))
        (folder / "pid").unlink(missing_ok=True)
        server = self.start_program(SSHD, "-D", "-f", str(folder / "config"), "-E", str(folder / "log"))
        wait_until(lambda: server.poll() is None and (folder / "pid").exists(), "an ssh server")

    def use_keys(self, keys: Path) -> None:
        """Commands here log in at the other machine with ``keys``, and notice soon that it is silent."""
        program = self.folder / "ssh-to-peer"
        quiet = "-o UserKnownHostsFile=/dev/null -o StrictHostKeyChecking=no -o LogLevel=ERROR -o BatchMode=yes"
        program.write_text(f'#!/bin/sh\nexec ssh -F none -i {keys}/user {quiet} {ALIVE} "$@"\n')
        program.chmod(0o755)
        self.environment["IDEMFS_SSH"] = str(program)


def _end(process: subprocess.Popen[str]) -> None:
    """The process and all that it started in its session."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        assert process.poll() is not None
    process.communicate()


def _kill(pid: int) -> bool:
    """Whether it was there."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


@contextmanager
def two_machines(folder: Path, *, ssh: bool = True) -> Iterator[tuple[Machine, Machine]]:
    """Machines a and b, with a cable between them and, unless told otherwise, ssh in both directions."""
    reason = reason_to_skip()
    if reason is not None:
        pytest.skip(reason)
    _remove_left_behind()
    with ExitStack() as stack:
        machines = [_machine(name, number, folder, stack) for number, name in enumerate("ab", 1)]
        a, b = machines
        _ip(
            *("-n", a.namespace, "link", "add", "name", a.device, "type", "veth"),
            *("peer", "name", b.device, "netns", b.namespace),
        )
        for machine in machines:
            _ip("-n", machine.namespace, "addr", "add", f"{machine.address}/24", "dev", machine.device)
            _ip("-n", machine.namespace, "link", "set", "lo", "up")
            _ip("-n", machine.namespace, "link", "set", machine.device, "up")
        if ssh:
            _connect_by_ssh(machines, folder / "keys")
        yield a, b


def _connect_by_ssh(machines: Sequence[Machine], keys: Path) -> None:
    keys.mkdir(mode=0o700)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", keys / "user"], check=True)
    for machine in machines:
        machine.start_sshd(keys)
        machine.use_keys(keys)


def _machine(name: str, number: int, folder: Path, stack: ExitStack) -> Machine:
    namespace = f"{PREFIX}-{os.getpid()}-{name}"
    _ip("netns", "add", namespace)
    stack.callback(_ip, "netns", "del", namespace)
    (folder / name).mkdir()
    machine = Machine(name, namespace, f"10.231.0.{number}", folder / name, stack)
    # Before the namespace goes: what ssh servers started has sessions of its own.
    stack.callback(machine.power_off)
    return machine


def _remove_left_behind() -> None:
    """Namespaces of runs that are no more."""
    for line in _ip("netns", "list").stdout.splitlines():
        namespace = line.split()[0]
        parts = namespace.removeprefix(f"{PREFIX}-").split("-")
        if namespace.startswith(f"{PREFIX}-") and parts[0].isdecimal() and not Path(f"/proc/{parts[0]}").exists():
            for pid in _ip("netns", "pids", namespace, check=False).stdout.split():
                _kill(int(pid))
            _ip("netns", "del", namespace, check=False)
