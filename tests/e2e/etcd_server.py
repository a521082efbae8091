"""An etcd of one member, as a real process at a port that the kernel chose."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

START_SECONDS_MAX = 30.0


class EtcdServer:
    """Started by ``start``; its data outlives ``kill``. ``pause`` and ``go_on`` stop its process and let it run."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        peer = f"http://127.0.0.1:{_free_port()}"
        arguments = ["--data-dir", str(self._directory), "--name", "one", "--initial-cluster", f"one={peer}"]
        arguments += ["--listen-client-urls", self.url, "--advertise-client-urls", self.url]
        arguments += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--logger", "zap"]
        self._process = subprocess.Popen(
            ["etcd", *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._wait_until_healthy()

    def _wait_until_healthy(self) -> None:
        assert self._process is not None
        with httpx.Client(transport=httpx.HTTPTransport(retries=8), trust_env=False) as client:
            while self._process.poll() is None:
                try:
                    if client.get(f"{self.url}/health", timeout=START_SECONDS_MAX).json().get("health") == "true":
                        return
                except httpx.TransportError:
                    continue
        raise AssertionError(f"etcd ended with status {self._process.returncode}")

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED)

    def go_on(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


@contextmanager
def running(directory: Path) -> Iterator[EtcdServer]:
    server = EtcdServer(directory)
    server.start()
    try:
        yield server
    finally:
        server.kill()


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port
