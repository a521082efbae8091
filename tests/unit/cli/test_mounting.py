"""Processes that go on by themselves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_PROGRAM = """
import logging, os, sys
from idemfs.cli import mounting

told = os.write

def telling(fd, data):
    logging.getLogger("idemfs.mount").error("what came with the first request")
    return told(fd, data)

os.write = telling
sys.exit(mounting.detached(lambda ready: ready(), sys.argv[1]))
"""


def test_what_is_logged_when_it_is_ready_is_in_its_log_already(tmp_path: Path) -> None:
    log = tmp_path / "mount.log"
    ended = subprocess.run([sys.executable, "-c", _PROGRAM, str(log)], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "what came with the first request" in log.read_text()
