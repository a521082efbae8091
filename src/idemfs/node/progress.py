"""What each link is doing: values that JSON can hold, for the API, the command line and metrics.

Threads: ``Meter`` is written by the thread of its link, and read by any.
"""

from __future__ import annotations

import threading
from collections import deque

import msgspec

from idemfs.ids import Guid

IDLE, CONNECTING, SENDING, WINDOW, FAILED, RESTING, PAUSED = (
    "idle",
    "connecting",
    "sending",
    "waiting for its window",
    "failed",
    "resting",
    "paused",
)
STATES = (IDLE, CONNECTING, SENDING, WINDOW, FAILED, RESTING, PAUSED)
"""Of a link. *Resting*: the other store is not to be sent to; *paused*: a command has the store for itself."""
_RATE_SECONDS = 10.0
"""The rate is that of the last so many seconds."""


class TransferStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The change set under way. ``bytes_total`` is an estimate; it is not known at once."""

    fileset: str
    snapshot: str
    base: str | None
    bytes_sent: int
    bytes_total: int | None
    seconds: float
    bytes_per_second: float
    remaining_seconds: float | None


class LinkStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One link. Times are ns since 1970. ``lag_seconds``: how old the newest state is that the other store has and that
    is not the present one; 0 when nothing has changed since, None before the first transfer."""

    to: str
    state: str
    reason: str | None = None
    """Of what failed, or of what it waits for."""
    failure_count: int = 0
    next_ns: int | None = None
    """When it goes on by itself."""
    common: str | None = None
    """The newest snapshot of the root fileset of both."""
    common_ns: int | None = None
    lag_seconds: float | None = None
    lag_bytes: int | None = None
    transfer: TransferStatus | None = None
    sent_bytes: int = 0
    """Since the process began, as are all counts."""
    sent_count: int = 0
    round_count: int = 0


class Meter:
    """The change set that a link sends just now."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._of: Guid | None = None
        self._bytes = 0
        self._began = 0.0
        self._points: deque[tuple[float, int]] = deque()
        self.total: int | None = None
        """Estimated by whoever asks first."""

    def moved(self, snapshot: Guid, size: int, now: float) -> int:
        """``size`` bytes of the stream of ``snapshot`` were sent so far; how many more than before."""
        with self._lock:
            if snapshot != self._of:
                self._of, self._bytes, self._began, self.total = snapshot, 0, now, None
                self._points.clear()
            added, self._bytes = size - self._bytes, size
            self._points.append((now, size))
            while self._points and self._points[0][0] < now - _RATE_SECONDS:
                self._points.popleft()
            return max(0, added)

    def ended(self) -> None:
        with self._lock:
            self._of = None

    @property
    def snapshot(self) -> Guid | None:
        """What is under way; None: nothing."""
        return self._of

    def status(self, fileset: str, snapshot: str, base: str | None, now: float) -> TransferStatus:
        with self._lock:
            seconds = max(0.0, now - self._began)
            rate = self._rate(now)
            total = None if self.total is None else max(self.total, self._bytes)
            left = None if total is None or not rate else (total - self._bytes) / rate
            return TransferStatus(
                fileset=fileset,
                snapshot=snapshot,
                base=base,
                bytes_sent=self._bytes,
                bytes_total=total,
                seconds=seconds,
                bytes_per_second=rate,
                remaining_seconds=left,
            )

    def _rate(self, now: float) -> float:
        if not self._points:
            return 0.0
        at, size = self._points[0]
        if at <= self._began + _RATE_SECONDS and now - self._began <= _RATE_SECONDS:
            at, size = self._began, 0
        return (self._bytes - size) / (now - at) if now > at else 0.0
