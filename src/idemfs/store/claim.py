"""Who moves data or roles of a store: one command at a time, for which work in the background gives way.

Threads: any.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from idemfs.errors import RoleError

CLAIM_SECONDS = 20.0
"""How long a command waits for another one."""


class Claim:
    """Held by one command, or by one transfer in the background, which looks at ``is_wanted`` now and then."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wanted = 0
        self._counting = threading.Lock()

    @property
    def is_wanted(self) -> bool:
        """Whether a command waits for whoever has it to end."""
        return self._wanted > 0

    def take(self, seconds: float = CLAIM_SECONDS, end_others: Callable[[], None] | None = None) -> None:
        """For a command; ``release`` ends it. ``end_others`` ends what may have it: called when nothing in the
        background can begin any more. Raises ``RoleError``."""
        with self._counting:
            self._wanted += 1
        try:
            if end_others is not None:
                end_others()
            if not self._lock.acquire(timeout=seconds):
                raise RoleError("another command moves data or roles of this store just now: wait until it is done")
        finally:
            with self._counting:
                self._wanted -= 1

    def release(self) -> None:
        self._lock.release()

    @contextmanager
    def background(self) -> Iterator[bool]:
        """Whether it is free for work that nobody waits for; it is then held until the end."""
        is_free = not self.is_wanted and self._lock.acquire(blocking=False)
        try:
            yield is_free
        finally:
            if is_free:
                self._lock.release()
