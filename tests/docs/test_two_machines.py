"""Two machines: the how-to is typed, line by line, into two real ones as far as one host can be two.

Each has namespaces of its own for network, mounts, host name and processes, and its own ``/etc``, ``/srv``, ``/mnt``
and ``/var/lib``; a pair of virtual devices is the cable. The part of systemd is played by a few lines of shell, since a
container has none. A command reads, as standard input, what the command before it printed: people carry a code so.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.conformance.mounted import missing
from tests.docs.test_sessions import ROOT, same

DOCUMENT = ROOT / "docs/TWO_MACHINES.md"
ADDRESSES = {"a": "10.0.0.1", "b": "10.0.0.2"}
_SYSTEMCTL = """#!/bin/bash
# As much of systemctl as the how-to uses.
case "$1" in
enable | start)
    setsid idemfs serve --config /etc/idemfs.toml > /srv/serve.log 2>&1 < /dev/null &
    echo $! > /srv/serve.pid
    until grep -q "is ready" /srv/serve.log; do kill -0 $! && sleep 0.05 || exit 1; done ;;
reload)
    count=$(grep -c "is reloaded" /srv/serve.log)
    kill -HUP $(cat /srv/serve.pid)
    until [ "$(grep -c 'is reloaded' /srv/serve.log)" -gt "$count" ]; do sleep 0.05; done ;;
kill) kill -KILL $(cat /srv/serve.pid) ;;
stop)
    kill $(cat /srv/serve.pid) 2> /dev/null
    while kill -0 $(cat /srv/serve.pid) 2> /dev/null; do sleep 0.05; done ;;
esac
exit 0
"""


_UNSHARE = ("unshare", "--net", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc")


class Machine:
    def __init__(self, name: str, place: Path) -> None:
        self.name, self._place = name, place
        binds = []
        shutil.copytree("/etc", place / "etc", symlinks=True, ignore_dangling_symlinks=True)
        with open(place / "etc/hosts", "a") as hosts:
            hosts.writelines(f"{address} {each}\n" for each, address in ADDRESSES.items())
        for directory in ("etc", "srv", "mnt", "var/lib"):
            (place / directory).mkdir(parents=True, exist_ok=True)
            binds.append(f"mount --bind {place / directory} /{directory}")
        (place / "bin").mkdir()
        (place / "bin/systemctl").write_text(_SYSTEMCTL)
        (place / "bin/systemctl").chmod(0o755)
        # The shell stays, since who has the number 1 has to reap what others leave.
        lines = ["set -e", f"hostname {name}", "ip link set lo up", *binds, "echo up", "sleep infinity & wait $!"]
        self._process = subprocess.Popen(
            [*_UNSHARE, "bash", "-c", "\n".join(lines)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "up\n"
        (child,) = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        self.pid = child

    def run(self, command: str, given: str) -> str:
        path = f"{self._place / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "HOME": "/srv", "TZ": "UTC", "COLUMNS": "160"}
        entering = ["nsenter", "--target", self.pid, "--net", "--mount", "--uts", "--pid", "--wd=/srv"]
        done = subprocess.run(
            [*entering, "timeout", "60", "bash", "-euo", "pipefail", "-c", command],
            env=environment,
            input=given,
            capture_output=True,
            text=True,
        )
        log = self._place / "srv/serve.log"
        told = log.read_text() if log.exists() else ""
        assert done.returncode == 0, f"{self.name}$ {command}\n{done.stdout}{done.stderr}\n{told}"
        return done.stdout

    def close(self) -> None:
        """Its first process takes all others with it."""
        with suppress(ProcessLookupError):
            os.kill(int(self.pid), signal.SIGKILL)
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process.wait(60)


def typed(text: str) -> Iterator[tuple[str, str, list[str]]]:
    """(where, command, lines that it prints) of all sessions."""
    for block in re.findall(r"^```sh-session\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        for where, rest in re.findall(r"^(a|b|both)\$ (.*\n(?:(?!(?:a|b|both)\$ ).*\n)*)", block, re.MULTILINE):
            lines = rest.splitlines()
            count = 1
            while count < len(lines) and lines[count].startswith(">"):
                count += 1
            yield where, "\n".join([lines[0], *(line[2:] for line in lines[1:count])]), lines[count:]


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[dict[str, Machine]]:
    if reason := missing():
        pytest.skip(reason)
    with ExitStack() as ending:
        both = {}
        for name in ADDRESSES:
            both[name] = Machine(name, tmp_path / name)
            ending.callback(both[name].close)
        cable = ["ip", "link", "add", "cable", "netns", both["a"].pid, "type", "veth"]
        subprocess.run([*cable, "peer", "name", "cable", "netns", both["b"].pid], check=True)
        for name, machine in both.items():
            machine.run(f"ip address add {ADDRESSES[name]}/24 dev cable && ip link set cable up", "")
        yield both


def test_every_line_of_the_how_to_does_what_it_shows(machines: dict[str, Machine]) -> None:
    printed = ""
    for where, command, shown in typed(DOCUMENT.read_text()):
        for name in machines if where == "both" else [where]:
            printed = machines[name].run(command, printed)
            if shown:
                assert same(shown, printed.splitlines()), f"{name}$ {command}\n{printed}"


def test_commands_and_what_they_print_are_told_apart() -> None:
    block = "```sh-session\na$ cat <<E\n> 1\n>\n> E\n1\n\nboth$ true\nb$ ls\nx\n```\n"
    assert list(typed(block)) == [("a", "cat <<E\n1\n\nE", ["1", ""]), ("both", "true", []), ("b", "ls", ["x"])]
