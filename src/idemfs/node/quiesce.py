"""Commands that bring programs to rest before snapshots are taken, and let them go on afterwards.

Whatever happens in between, what comes after is run: a hook that fails or takes too long, a snapshot that fails,
a signal that ends processes (``ENDING``). A hook runs in a session of its own, and is killed with all its processes
when its time is over.

Threads: hooks wait for their commands; signals are caught when this is the main thread.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

from idemfs.errors import HookFailed
from idemfs.snapshots.hooks import TIMEOUT_SECONDS, Hooks

if TYPE_CHECKING:
    from idemfs.snapshots.hooks import Quiesce
    from idemfs.store.store import Store


ENDING = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGALRM,
    signal.SIGVTALRM,
    signal.SIGPROF,
    signal.SIGXCPU,
    signal.SIGPWR,
    signal.SIGIO,
)
"""What people, terminals, service managers, timers and limits end a process by, if it says nothing else.

Not those by which a process fails itself (SIGSEGV, SIGABRT …), nor SIGPIPE and SIGXFSZ, which Python ignores.
"""


class User(NamedTuple):
    """Whose rights hooks have."""

    uid: int
    gid: int
    name: str
    home: str
    groups: tuple[int, ...]

    @property
    def is_other(self) -> bool:
        return self.uid != os.geteuid()

    def environment(self) -> dict[str, str]:
        return {"HOME": self.home, "USER": self.name, "LOGNAME": self.name} if self.is_other else {}


def scheduled(store: Store) -> Quiesce:
    """What runs the hooks of the store's schedules: with the rights of the owner of its directory, and of nobody else.

    Who may write to that directory may write what hooks it has, so a process of another user must not lend its rights.
    """

    def quiesce(hooks: Hooks, name: str) -> AbstractContextManager[object]:
        user = _owner(store.path) if store.path else None
        environment = {"IDEMFS_STORE": store.path, "IDEMFS_SNAPSHOTS": name}
        return quiesced(hooks.before, hooks.after, environment, hooks.timeout_seconds, user)

    return quiesce


def _owner(path: str) -> User:
    """Raises ``HookFailed``."""
    from pwd import getpwuid

    try:
        status = os.stat(path)
    except OSError as error:
        raise HookFailed(f"hooks are not run: {path}: {error.strerror}") from error
    if status.st_uid != os.geteuid() and os.geteuid():
        raise HookFailed(f"hooks are run by root or the owner of {path} (user {status.st_uid}), and by nobody else")
    if status.st_mode & 0o022:
        raise HookFailed(f"hooks are not run: others than the owner may write to {path}; 'chmod go-w' ends that")
    try:
        known = getpwuid(status.st_uid)
    except KeyError:
        return User(status.st_uid, status.st_gid, str(status.st_uid), "/", ())
    groups = tuple(os.getgrouplist(known.pw_name, known.pw_gid))
    return User(known.pw_uid, known.pw_gid, known.pw_name, known.pw_dir, groups)


class _Terminated(BaseException):
    """A signal came, and it is not SIGINT."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def quiesced(
    before: Sequence[str],
    after: Sequence[str],
    environment: Mapping[str, str] | None = None,
    timeout_seconds: float = TIMEOUT_SECONDS,
    user: User | None = None,
) -> Iterator[None]:
    """Run the commands ``before`` in order, then the block, then all of ``after`` in reverse order.

    Each is a line for ``sh``; ``environment`` is added to its own, with ``IDEMFS_HOOK``, which is ``before`` or
    ``after``, and for the latter ``IDEMFS_RESULT``: ``taken`` or ``failed``. ``user``: whose rights they have, which
    only root can give; they begin in ``/`` then. Raises ``HookFailed``: when one of
    ``before`` failed the block is not run, when one of ``after`` did it was.
    """
    given = dict(environment or {})
    with _signals() as caught:
        result = "failed"
        try:
            for command in before:
                _run(command, given | {"IDEMFS_HOOK": "before"}, timeout_seconds, user, caught)
            yield
            result = "taken"
        finally:
            # From here on a signal waits until every program was let go.
            caught.is_deferred = True
            failed = None
            for command in reversed(after):
                try:
                    told = given | {"IDEMFS_HOOK": "after", "IDEMFS_RESULT": result}
                    _run(command, told, timeout_seconds, user, caught)
                except HookFailed as failure:
                    failed = failed or failure
        if failed is not None:
            raise HookFailed(f"{failed}; the snapshots were taken all the same")


def _run(
    command: str, environment: Mapping[str, str], timeout_seconds: float, user: User | None, caught: _Caught
) -> None:
    what = f"hook {environment['IDEMFS_HOOK']} ({command})"
    # A signal must not come between the start of a process and the moment from which it would be killed.
    is_open = caught.defer()
    try:
        process = _started(command, environment, user)
    except (OSError, subprocess.SubprocessError) as error:
        if is_open:
            caught.deliver()
        raise HookFailed(f"{what} cannot be run: {getattr(error, 'strerror', None) or error}") from error
    try:
        if is_open:
            caught.deliver()
        status = process.wait(timeout_seconds)
    except BaseException as ended:
        is_open = caught.defer()
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if is_open:
            caught.deliver()
        if isinstance(ended, subprocess.TimeoutExpired):
            raise HookFailed(f"{what} was killed after {timeout_seconds:g} seconds") from None
        raise
    if status:
        raise HookFailed(f"{what} failed with status {status}")


def _started(command: str, environment: Mapping[str, str], user: User | None) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command,
        shell=True,
        stdin=subprocess.DEVNULL,
        # What it prints is not what the command prints.
        stdout=2,
        env={**os.environ, **environment} | ({} if user is None else user.environment()),
        start_new_session=True,
        cwd=None if user is None else "/",
        user=None if user is None or not user.is_other else user.uid,
        group=None if user is None or not user.is_other else user.gid,
        extra_groups=None if user is None or not user.is_other else user.groups,
    )


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
        raise KeyboardInterrupt if number == signal.SIGINT else _Terminated(number)

    def defer(self) -> bool:
        """From now on a signal waits; whether none did before."""
        was, self.is_deferred = self.is_deferred, True
        return not was

    def deliver(self) -> None:
        """After ``defer``: what came meanwhile comes now, and the next one at once."""
        self.is_deferred = False
        if self.deferred:
            self.handle(self.deferred.pop(0), None)


@contextmanager
def _signals() -> Iterator[_Caught]:
    caught = _Caught()
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return
    kept = {number: handler for number in ENDING if _is_caught(number, handler := signal.getsignal(number))}
    for number in kept:
        signal.signal(number, caught.handle)
    try:
        yield caught
    except _Terminated as terminated:
        caught.deferred.append(terminated.number)
        raise SystemExit(128 + terminated.number) from terminated
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
        for deferred in caught.deferred:
            # Now for whoever would have got it; if nobody does it ends the process here, which says so as for SIGINT.
            if kept[signal.Signals(deferred)] == signal.SIG_DFL:
                _say(f"idemfs: ended by {signal.Signals(deferred).name}")
            os.kill(os.getpid(), deferred)


def _is_caught(number: int, handler: object) -> bool:
    """Whether this signal would end the process now; a program's own SIGINT and SIGTERM are taken to mean that too.

    What is ignored stays so, as ``nohup`` wants it; what else a program itself handles is its own business.
    """
    if number in (signal.SIGINT, signal.SIGTERM):
        return handler not in (signal.SIG_IGN, None)
    return handler == signal.SIG_DFL


def _say(line: str) -> None:
    # After SIGHUP the terminal may be gone.
    with suppress(OSError, ValueError):
        print(line, file=sys.stderr, flush=True)
