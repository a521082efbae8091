"""Short turns at the interpreter lock while a group is committed.

The metadata engine gives the interpreter lock up at records that it writes, and a thread that
computes then keeps it for a whole turn, 5 ms by default. While commits run, turns are 0.5 ms, which
halves the time of a commit beside such a thread and takes a quarter of its speed meanwhile.

Threads: any; the last commit to end puts back what was there before the first.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_SECONDS = 0.0005

_lock = threading.Lock()
_count = 0
_before = 0.0


@contextmanager
def short() -> Iterator[None]:
    """The interpreter's switch interval is short until this is left."""
    global _count, _before
    with _lock:
        if not _count:
            _before = sys.getswitchinterval()
            sys.setswitchinterval(min(_before, _SECONDS))
        _count += 1
    try:
        yield
    finally:
        with _lock:
            _count -= 1
            if not _count:
                sys.setswitchinterval(_before)
