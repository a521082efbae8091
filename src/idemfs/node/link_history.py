"""What links tell the history of their store: not each transfer of a link that makes one a second.

What is full, what ends a failure, and the first failure of several are a line at once; other transfers of some minutes
are one line together.

Threads: one, that of the link.
"""

from __future__ import annotations

from idemfs.node import history
from idemfs.node.history import Event

SUM_SECONDS = 600.0
"""Transfers are one line of the history for so long."""


class LinkHistory:
    """Of the link of the store at ``path`` to an address."""

    def __init__(self, path: str, to: str) -> None:
        self._path = path
        self._to = to
        self._snapshot: str | None = None
        self._bytes = 0
        self._seconds = 0.0
        self._since = float("-inf")

    def sent(self, snapshot: str, size: int, seconds: float, now: float, *, at_once: bool) -> None:
        """``snapshot`` is the newest of both now."""
        self._snapshot = snapshot
        self._bytes += size
        self._seconds += seconds
        if at_once or now - self._since >= SUM_SECONDS:
            self._since = now
            self.flush()

    def failed(self, reason: str) -> None:
        self.flush()
        history.record(
            self._path, Event(what="transfer", source=self._path, target=self._to, outcome=reason, by="link")
        )

    def flush(self) -> None:
        """What was summed up becomes a line."""
        if self._snapshot is None:
            return
        event = Event(
            what="transfer",
            source=self._path,
            target=self._to,
            snapshot=self._snapshot,
            bytes=self._bytes,
            seconds=round(self._seconds, 3),
            by="link",
        )
        self._snapshot, self._bytes, self._seconds = None, 0, 0.0
        history.record(self._path, event)
