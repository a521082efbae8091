"""What happened to a store: transfers, changes of role, drills, and who ordered them.

``STORE/history``: one JSON object a line, oldest first; when it is full it becomes ``STORE/history.old``, in place of
the one before. A line that a crash cut short is passed over by who reads, and ended by who writes next. It is for
people: nothing else depends on it, and what cannot be written is logged and hinders nobody.

Threads: any; processes too, as each line is appended with one write.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from time import gmtime, strftime

import msgspec

from idemfs.clock import Clock, System
from idemfs.engines.host import sync_directory
from idemfs.limits import HISTORY_BYTES_MAX
from idemfs.node.local_socket import caller

NAME, OLD_NAME = "history", "history.old"

log = logging.getLogger("idemfs.node")
_writing = threading.Lock()


class _Actor(threading.local):
    by: str | None = None


_actor = _Actor()


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename={"source": "from", "target": "to"}):
    """One line. What is None is not known, or means nothing for this event. ``from`` and ``to`` are paths or addresses.

    ``outcome``: ``done``, or the message of the failure. ``by``: who ordered it; left empty, ``record`` fills it in.
    """

    time: str = ""
    what: str
    """``transfer``, ``failover``, ``failback``, ``switchover``, ``drill``; and ``primary``, ``standby`` or ``fenced``:
    what somebody at the end of a connection made of the store."""
    source: str | None = None
    target: str | None = None
    snapshot: str | None = None
    bytes: int | None = None
    seconds: float | None = None
    epoch: int | None = None
    """That of the role which began."""
    outcome: str = "done"
    by: str = ""


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Event).decode


def record(path: str, event: Event, clock: Clock | None = None) -> None:
    """Append to the history of the store at ``path``; durable on return. A failure is logged."""
    now_ns = (clock or System()).now_ns()
    at = strftime("%Y-%m-%dT%H:%M:%S", gmtime(now_ns // 1_000_000_000)) + f".{now_ns // 1_000_000 % 1000:03}Z"
    # A path need not be UTF-8, which JSON is.
    shown = msgspec.structs.replace(
        event,
        time=event.time or at,
        source=_shown(event.source),
        target=_shown(event.target),
        snapshot=_shown(event.snapshot),
        outcome=_shown(event.outcome),
        by=_shown(event.by or ordered_by()),
    )
    line = _encode(shown) + b"\n"
    try:
        with _writing:
            _append(path, line)
    except OSError as error:
        log.error("the history of %s cannot be written: %s: %s", path, error.strerror, line.decode().rstrip())


def events(path: str) -> list[Event]:
    """The history of the store at ``path``, oldest first. Raises ``OSError``."""
    found = []
    for name in (OLD_NAME, NAME):
        with suppress(FileNotFoundError), open(os.path.join(path, name), "rb") as file:
            for line in file:
                with suppress(msgspec.DecodeError):
                    found.append(_decode(line))
    return found


@contextmanager
def acting(by: str) -> Iterator[None]:
    """What this thread does meanwhile was ordered by this one, who is no user of this machine."""
    before, _actor.by = _actor.by, by
    try:
        yield
    finally:
        _actor.by = before


def ordered_by() -> str:
    """Who asked for what this thread does, or else this process's own user: name and number."""
    from pwd import getpwuid

    if _actor.by is not None:
        return _actor.by
    who = caller()
    uid = os.getuid() if who is None else who.uid
    try:
        return f"{getpwuid(uid).pw_name} ({uid})"
    except KeyError:
        return f"user {uid}"


def _shown(text: str | None) -> str | None:
    return None if text is None else text.encode(errors="surrogateescape").decode(errors="backslashreplace")


def _append(path: str, line: bytes) -> None:
    name = os.path.join(path, NAME)
    is_new = not os.path.exists(name)
    if not is_new and os.path.getsize(name) + len(line) > HISTORY_BYTES_MAX:
        os.replace(name, os.path.join(path, OLD_NAME))
        is_new = True
    fd = os.open(name, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        size = os.fstat(fd).st_size
        if size and os.pread(fd, 1, size - 1) != b"\n":
            line = b"\n" + line
        written = os.write(fd, line)
        while written < len(line):
            written += os.write(fd, line[written:])
        # crash: what is told here was done, so it must not be forgotten when the host fails a moment later.
        os.fsync(fd)
    finally:
        os.close(fd)
    if is_new:
        sync_directory(path)
