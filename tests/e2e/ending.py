"""The end of the process that has a store mounted."""

from __future__ import annotations

import os
import select
import signal
from pathlib import Path

from idemfs.engines.lock import owner


def wait_for_end(pid: int) -> None:
    """Until the process is gone, whoever's child it is."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    with open(fd, "rb", buffering=0):
        assert select.select([fd], [], [], 60)[0], f"process {pid} does not end"


def kill(store: Path) -> None:
    """``kill -9`` of the process that has ``store`` open."""
    pid = owner(str(store))
    assert pid
    os.kill(pid, signal.SIGKILL)
    wait_for_end(pid)
