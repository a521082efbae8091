"""Commands that bring programs to rest before snapshots are taken, and let them go on afterwards.

Whatever happens in between, what comes after is run: a hook that fails or takes too long, a snapshot that fails,
SIGINT, SIGTERM. A hook runs in a session of its own, and is killed with all its processes when its time is over.

Threads: hooks wait for their commands; signals are caught when this is the main thread.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from idemfs.errors import HookFailed

TIMEOUT_SECONDS = 60.0


class _Terminated(BaseException):
    """SIGTERM came."""


@contextmanager
def quiesced(
    before: Sequence[str],
    after: Sequence[str],
    environment: Mapping[str, str] | None = None,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> Iterator[None]:
    """Run the commands ``before`` in order, then the block, then all of ``after`` in reverse order.

    Each is a line for ``sh``; ``environment`` is added to its own, with ``IDEMFS_HOOK``, which is ``before`` or
    ``after``, and for the latter ``IDEMFS_RESULT``: ``taken`` or ``failed``. Raises ``HookFailed``: when one of
    ``before`` failed the block is not run, when one of ``after`` did it was.
    """
    given = dict(environment or {})
    with _signals() as caught:
        result = "failed"
        try:
            for command in before:
                _run(command, given | {"IDEMFS_HOOK": "before"}, timeout_seconds)
            yield
            result = "taken"
        finally:
            # From here on a signal waits until every program was let go.
            caught.is_deferred = True
            failed = None
            for command in reversed(after):
                try:
                    _run(command, given | {"IDEMFS_HOOK": "after", "IDEMFS_RESULT": result}, timeout_seconds)
                except HookFailed as failure:
                    failed = failed or failure
        if failed is not None:
            raise HookFailed(f"{failed}; the snapshots were taken all the same")


def _run(command: str, environment: Mapping[str, str], timeout_seconds: float) -> None:
    what = f"hook {environment['IDEMFS_HOOK']} ({command})"
    try:
        # What it prints is not what the command prints.
        process = subprocess.Popen(
            command,
            shell=True,
            stdin=subprocess.DEVNULL,
            stdout=2,
            env={**os.environ, **environment},
            start_new_session=True,
        )
    except OSError as error:
        raise HookFailed(f"{what} cannot be run: {error.strerror}") from error
    try:
        status = process.wait(timeout_seconds)
    except BaseException as ended:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if isinstance(ended, subprocess.TimeoutExpired):
            raise HookFailed(f"{what} was killed after {timeout_seconds:g} seconds") from None
        raise
    if status:
        raise HookFailed(f"{what} failed with status {status}")


class _Caught:
    """Signals while hooks are under way."""

    def __init__(self) -> None:
        self.is_deferred = False
        self.deferred: list[int] = []

    def handle(self, number: int, _frame: object) -> None:
        if self.is_deferred:
            self.deferred.append(number)
            return
        # Once: a second one must not cut short what the first one began.
        self.is_deferred = True
        raise KeyboardInterrupt if number == signal.SIGINT else _Terminated


@contextmanager
def _signals() -> Iterator[_Caught]:
    caught = _Caught()
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return
    kept = {number: signal.signal(number, caught.handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    except _Terminated as terminated:
        caught.deferred.append(signal.SIGTERM)
        raise SystemExit(128 + signal.SIGTERM) from terminated
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
        for deferred in caught.deferred:
            # Now for whoever would have got it.
            os.kill(os.getpid(), deferred)
