"""Processes that go on by themselves, and who is told when they are ready: the caller, or the service manager."""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Callable
from logging.handlers import RotatingFileHandler

from idemfs.cli import failures

_LOG_BYTES_MAX = 1 << 20
_TEXT_SIZE_MAX = 4096


def detached(serve: Callable[[Callable[[], None]], None], log_path: str) -> int:
    """Run ``serve`` in a process of its own; 0 once it has called back, else the status of its failure."""
    reading, writing = os.pipe()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    child = os.fork()
    if child == 0:
        os.close(reading)
        os.setsid()
        # A second child is nobody's: no zombie stays, and no terminal can become its own.
        if os.fork():
            os._exit(0)
        os._exit(_serve(serve, writing, log_path))
    os.close(writing)
    os.waitpid(child, 0)
    with open(reading, "rb") as pipe:
        said = pipe.read(_TEXT_SIZE_MAX)
    if said[:1] == b"+":
        return 0
    text = said[2:].decode(errors="replace") or "idemfs: the mount ended before it was ready"
    print(text, file=sys.stderr)
    return said[1] if len(said) > 1 else 1


def _serve(serve: Callable[[Callable[[], None]], None], writing: int, log_path: str) -> int:
    def ready() -> None:
        # Before it is told: from then on what is logged must not be lost with the caller.
        _leave_terminal(log_path)
        is_ready.append(True)
        os.write(writing, b"+")
        os.close(writing)

    is_ready: list[bool] = []
    try:
        serve(ready)
        return 0
    except Exception as error:
        status = failures.exit_status(error) or 1
        if is_ready:
            logging.getLogger("idemfs.mount").exception("the mount failed")
        else:
            text = failures.message(error) or f"idemfs: {type(error).__name__}"
            os.write(writing, b"-" + bytes([status]) + text.encode(errors="replace")[: _TEXT_SIZE_MAX - 2])
        return status


def _leave_terminal(log_path: str) -> None:
    os.chdir("/")
    nothing = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(nothing, fd)
    os.close(nothing)
    try:
        handler = RotatingFileHandler(log_path, maxBytes=_LOG_BYTES_MAX, backupCount=1, delay=True)
    except OSError:
        return
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.getLogger("idemfs").addHandler(handler)


def tell_service_manager(text: str) -> None:
    """As ``sd_notify(3)``: if systemd started this process, tell it so."""
    name = os.environ.get("NOTIFY_SOCKET", "")
    if not name.startswith(("/", "@")):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices:
        try:
            notices.connect("\0" + name[1:] if name.startswith("@") else name)
            notices.send(text.encode())
        except OSError as error:
            print(f"idemfs: the service manager cannot be told: {error.strerror}", file=sys.stderr)
