"""Logs of a process that owns stores: one line an event, as text or JSON, with the store and link that it is about.

A thread says once what it works on, with ``about``; every line that it logs then, from whatever layer, says so too.

Threads: any; what a line is about is each thread's own.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

_FIELDS = ("store", "link")


class _Subject(threading.local):
    store: str | None = None
    link: str | None = None


_subject = _Subject()


@contextmanager
def about(*, store: str | None = None, link: str | None = None) -> Iterator[None]:
    """What this thread logs meanwhile is about these. None: as it was before."""
    before = _subject.store, _subject.link
    _subject.store = before[0] if store is None else store
    _subject.link = before[1] if link is None else link
    try:
        yield
    finally:
        _subject.store, _subject.link = before


def configure(kind: str, stream: TextIO | None = None) -> None:
    """All that idemfs logs goes to ``stream`` (standard error) as ``text`` or ``json``, and nowhere else."""
    # Not sys.stderr, which in a thread that carries out a client's command is the client's.
    handler = logging.StreamHandler(stream or sys.__stderr__)
    handler.setFormatter(JsonLines() if kind == "json" else TextLines())
    logger = logging.getLogger("idemfs")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False


class TextLines(logging.Formatter):
    """``2026-01-31T23:59:59.123Z info took snapshot monday store=data``."""

    def format(self, record: logging.LogRecord) -> str:
        row = _row(record)
        tail = [f"{key}={value}" for key, value in row.items() if key in _FIELDS]
        if "error" in row:
            tail.append(f"error={json.dumps(row['error'])}")
        what = "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in row["what"])
        return " ".join([row["time"], row["level"], what, *tail])


class JsonLines(logging.Formatter):
    """One object a line: ``time``, ``level``, ``what``; ``store``, ``link`` and ``error`` where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(_row(record))


def _row(record: logging.LogRecord) -> dict[str, str]:
    at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    row = {
        "time": f"{at}.{int(record.msecs):03}Z",
        "level": record.levelname.lower(),
        "what": record.getMessage(),
    }
    row |= {field: value for field in _FIELDS if (value := getattr(_subject, field)) is not None}
    if record.exc_info and record.exc_info[0] is not None:
        row["error"] = "".join(traceback.format_exception(*record.exc_info)).rstrip()
    return row
