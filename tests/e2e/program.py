"""The program as its users start it: a process of its own for each command."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from typing import Any, NamedTuple


class Ended(NamedTuple):
    """How a command ended."""

    status: int
    out: str
    err: str


def idemfs(*words: str | os.PathLike[str], stdin: str | None = None) -> Ended:
    """Run ``idemfs`` with these words; nobody is at the keyboard."""
    ended = subprocess.run(
        [sys.executable, "-m", "idemfs", *(os.fspath(word) for word in words)],
        input=stdin,
        stdin=None if stdin is not None else subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="surrogateescape",
        check=False,
    )
    return Ended(ended.returncode, ended.stdout, ended.stderr)


def done(*words: str | os.PathLike[str]) -> str:
    """The output of a command that does what it is told, without a word on standard error."""
    ended = idemfs(*words)
    assert (ended.status, ended.err) == (0, ""), words
    return ended.out


def rows(*words: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """What a command with ``--json`` lists."""
    found: list[dict[str, Any]] = json.loads(done(*words, "--json"))
    return found


def lines(*words: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """What a command with ``--json`` writes that writes an object a line."""
    return [json.loads(line) for line in done(*words, "--json").splitlines()]


def refused(*words: str | os.PathLike[str], status: int = 1) -> str:
    """The one line with which a command refuses."""
    ended = idemfs(*words)
    assert (ended.status, ended.out) == (status, ""), words
    assert ended.err.startswith("idemfs: ") and ended.err.count("\n") == 1, ended.err
    return ended.err.removeprefix("idemfs: ").rstrip("\n")


def on_terminal(*words: str | os.PathLike[str], answer: str = "") -> tuple[int, str]:
    """Status and all that is seen of a command on a terminal, where somebody types ``answer``."""
    pid, fd = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-m", "idemfs", *(os.fspath(word) for word in words)])
    os.write(fd, answer.encode())
    seen = b""
    try:
        while piece := os.read(fd, 65536):
            seen += piece
    except OSError:
        # The last process with this terminal has ended.
        seen += b""
    os.close(fd)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), seen.decode(errors="surrogateescape")
