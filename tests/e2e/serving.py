"""``idemfs serve`` as a process of its own, whose log is read as it comes."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from idemfs.engines.lock import owner


class Served:
    """A running process. ``log``: the lines that were read so far."""

    def __init__(self, config: Path, environment: dict[str, str] | None = None) -> None:
        self.log: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "idemfs", "serve", "--config", str(config)],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **(environment or {})},
        )

    def wait_for(self, text: str) -> str:
        """The next line of the log that has this in it."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line.rstrip("\n"))
            if text in line:
                return line
        raise AssertionError(f"the process ended without a word of {text!r}:\n" + "\n".join(self.log))

    def reload(self) -> None:
        self.process.send_signal(signal.SIGHUP)
        self.wait_for("reloaded")

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Its exit status; the rest of the log is read."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        assert self.process.stderr is not None
        self.log += self.process.stderr.read().splitlines()
        return self.process.wait(60)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if self.process.stderr is not None:
            self.process.stderr.close()


@contextmanager
def served(config: Path, environment: dict[str, str] | None = None) -> Iterator[Served]:
    """It is ready; in the end it is told to end, which it does well."""
    node = Served(config, environment)
    try:
        node.wait_for("is ready")
        yield node
        if node.process.poll() is None:
            gc.collect()
            assert node.end() == 0, node.log
    finally:
        node.close()
        clear(config.parent)


def clear(place: Path) -> None:
    """What a killed process left mounted below ``place`` goes."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, directory, kind, *_ = line.split(" ")
        if kind == "fuse.idemfs" and directory.startswith(f"{place}/"):
            subprocess.run(["umount", "-l", directory], check=True)


def is_mounted(directory: Path) -> bool:
    return f" {directory} fuse.idemfs " in Path("/proc/self/mounts").read_text()


def is_free(store: Path) -> bool:
    """Nobody owns it, and nobody listens."""
    return owner(str(store)) is None and not (store / "socket").exists()


def table(store: Path, mount: Path | None = None, more: str = "") -> str:
    """Of a configuration; the store is named after its path."""
    where = f'mount = "{mount}"\n' if mount else ""
    return f'[[store]]\nname = "{store.name}"\npath = "{store}"\n{where}{more}\n'
