"""One open store of this process, and what runs on it beside it.

It is lent to the commands that run in this process (``vfs.lending``), listens on its local socket, and runs its
schedules. Everything else is a *part*: a mount, links, a guard. Parts are made by factories that whoever builds the
process hands in, so this module knows none of them. A part that cannot start is a *problem*, which is kept in words
and tried again by ``complete``; it keeps neither the store nor other parts from being served.

Order: the local socket and the scheduler begin first and end last; parts begin in the order of their factories, and
end in the reverse one. Then sessions of other stores end, and what they are in the midst of is waited for. What a
command asks for besides (``add``) begins later, and ends by itself or with the store.

Threads: ``start``, ``complete``, ``configure`` and ``close`` are called by one at a time; all else by any.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from typing import NamedTuple, Protocol, TypeAlias, runtime_checkable

import msgspec

from idemfs.errors import IdemfsError
from idemfs.node.config import StoreConfig
from idemfs.node.local_socket import LINKS, STAYS, TAKES_MOUNTS, LocalSocket, Run
from idemfs.node.log import about
from idemfs.node.peer import allow_sessions, end_sessions, finish_sessions
from idemfs.node.progress import LinkStatus
from idemfs.node.scheduler import Scheduler
from idemfs.vfs.lending import lending
from idemfs.vfs.tree import Tree

log = logging.getLogger("idemfs.node")


class Part(Protocol):
    """What runs on an owned store. It logs as ``node.log.about`` its store in its own threads."""

    def start(self) -> None:
        """Begin. Raises ``IdemfsError``, ``OSError``: then it is not started, and ``close`` is not called."""
        ...

    def wake(self) -> None:
        """Records, role or schedule may be others: a command, a link or a call of the API has ended. Returns soon."""
        ...

    def close(self) -> None:
        """End, and return when nothing of it runs any more."""
        ...

    def configure(self, config: StoreConfig) -> bool:
        """Go on with this configuration, mostly the same one; False: it wants to be closed and made anew."""
        ...


@runtime_checkable
class Linking(Part, Protocol):
    """A part that keeps other stores up to date."""

    def links(self) -> list[LinkStatus]: ...


class Shown(NamedTuple):
    """A mount. ``what`` it shows, in words: ``fileset drill``, ``snapshot home@monday``; empty for all of the store."""

    directory: str
    what: str


@runtime_checkable
class Showing(Part, Protocol):
    """A part that is a mount."""

    def shown(self) -> Shown | None:
        """None: it is not mounted any more."""
        ...


class Cache(Protocol):
    """Who keeps what the store's files are, outside of the store, and must be told to forget it."""

    def forget_all(self) -> None:
        """The active file system became another one."""
        ...

    def forget_snapshots(self) -> None:
        """Snapshots were deleted."""
        ...


PartFactory: TypeAlias = Callable[["OwnedStore"], Part | None]
"""Makes a part for a store as ``store.config`` wants it; None: that wants none."""


class Commands(NamedTuple):
    """How this process carries out the command lines of others."""

    run: Run
    """The exit status of a command line without its program's name; errors are reported on standard error."""
    stales: Callable[[list[str]], bool]
    """Whether files of the active file system may be others after such a command, whatever came of it."""
    stales_others: Callable[[list[str]], bool]
    """The same of the other stores of this process, which exchange roles with the one that is named."""


owned_here: dict[str, OwnedStore] = {}
"""The open stores of this process by their real paths, for the commands that it carries out."""


class OwnedStore:
    """An open store with its parts. Public, to be read by any thread: ``config``, ``tree``, ``scheduler``, ``parts``
    by the name of their factory, ``problems`` in words by the same name; ``mount``: where it is mounted now."""

    def __init__(
        self,
        config: StoreConfig,
        tree: Tree,
        commands: Commands,
        factories: Mapping[str, PartFactory],
        *,
        others: Callable[[], Iterable[OwnedStore]] = tuple,
        questions: Mapping[str, Callable[[], object]] | None = None,
        outlives_mount: bool = True,
    ) -> None:
        """From now on the store of ``tree`` is closed by ``close``. ``others``: all stores of this process that are
        open. ``questions``: that the local socket answers, too. ``outlives_mount``: unmounting it does not end this
        process."""
        self.config = config
        self.parts: dict[str, Part] = {}
        self.problems: dict[str, str] = {}
        self.mount: str | None = None
        self.caches: list[Cache] = []
        self._commands = commands
        self._factories = factories
        self._others = others
        self._questions = questions or {}
        self.outlives_mount = outlives_mount
        self._running = ExitStack()
        self._adding = threading.Lock()
        self._is_ending = False
        self.tree = tree
        self._told_count = tree.active.rewritten_count
        self.scheduler = Scheduler(tree, self.forget_snapshots, config.name)
        self._running.callback(tree.store.close)
        self._socket: LocalSocket | None = None

    @property
    def name(self) -> str:
        return self.config.name

    @property
    def path(self) -> str:
        return self.config.path

    @property
    def links(self) -> list[LinkStatus]:
        """What each link of the store is doing."""
        return [status for part in list(self.parts.values()) if isinstance(part, Linking) for status in part.links()]

    @property
    def more_mounts(self) -> dict[str, str]:
        """What a command had this process mount besides: what it shows, by its directory."""
        return {shown.directory: shown.what for shown in self._shown() if shown.directory != self.mount}

    def _shown(self) -> list[Shown]:
        mounts = [part.shown() for part in list(self.parts.values()) if isinstance(part, Showing)]
        return [shown for shown in mounts if shown is not None]

    def start(self) -> None:
        """Be lent, listen, run schedules. Raises ``OSError``; then call ``close``. Parts follow with ``complete``."""
        self._running.callback(allow_sessions, self.path)
        self._running.enter_context(lending(self.path, self.tree))
        owned_here[os.path.realpath(self.path)] = self
        self._running.callback(owned_here.pop, os.path.realpath(self.path))
        # Other nodes' come by ways that the socket knows nothing of, and use what is lent.
        self._running.callback(finish_sessions, self.path)
        self.tree.watchers.append(self._changed_elsewhere)
        self._socket = LocalSocket(
            self.path,
            self._commands.run,
            self.command_done,
            {
                **self._questions,
                STAYS: self._settle,
                TAKES_MOUNTS: lambda: not self._is_ending and self._is_kept(),
                LINKS: lambda: msgspec.to_builtins(self.links),
            },
            lambda: end_sessions(self.path),
            group=self.config.socket_group,
            store=self.name,
        )
        self._running.callback(self._socket.close)
        self.scheduler.start()
        self._running.callback(self.scheduler.close)

    def complete(self, *, strict: bool = False) -> None:
        """Start each part that the configuration wants and that does not run. A failure is a problem, or if
        ``strict`` it is raised."""
        for name, factory in self._factories.items():
            if name in self.parts:
                continue
            try:
                part = factory(self)
                if part is not None:
                    part.start()
                    self.parts[name] = part
            except Exception as error:
                if strict:
                    raise
                self.report(name, describe(error), error)
            else:
                self.report(name, None)

    def report(self, name: str, problem: str | None, error: Exception | None = None) -> None:
        """What keeps the part ``name`` from its work, in words; None: nothing any more. A new one is logged, with where
        an ``error`` comes from if it is none that is expected."""
        if problem is None:
            self.problems.pop(name, None)
        elif self.problems.get(name) != problem:
            self.problems[name] = problem
            with about(store=self.name):
                log.error("%s: %s", name, problem, exc_info=unexpected(error))

    def configure(self, config: StoreConfig) -> None:
        """Go on with this configuration, of the same path; what it changes is closed, and made by ``complete``."""
        assert config.path == self.path, "another path is another store"
        before, self.config = self.config, config
        if self._socket is not None and config.socket_group != before.socket_group:
            try:
                self._socket.admit(config.socket_group)
                self.report("socket", None)
            except OSError as error:
                self.report("socket", describe(error))
        for name, part in reversed(list(self.parts.items())):
            if not part.configure(config):
                self._close_part(name)

    def close(self) -> None:
        """End all parts, make everything durable, and unlock the store. Raises ``CommitFailed``."""
        with self._adding:
            self._is_ending = True
        for name in reversed(list(self.parts)):
            self._close_part(name)
        try:
            # crash: what follows waits for commands that run, and who loses patience may kill this process.
            self.tree.store.commit()
        finally:
            self._running.close()

    def _close_part(self, name: str) -> None:
        part = self.parts.pop(name, None)
        if part is None:
            # One of ``add``, which has ended by itself just now.
            return
        try:
            part.close()
        except Exception as error:
            with about(store=self.name):
                log.error("%s: %s", name, describe(error), exc_info=unexpected(error))

    # -- what commands ask for besides -------------------------------------------------------------

    def add(self, name: str, part: Part) -> None:
        """Start a part that no factory makes; it ends by itself, and says so by ``drop``, or with the store.

        Raises what its ``start`` raises, and ``OSError`` when the store is being closed, or has a part of this name.
        """
        with self._adding:
            if self._is_ending:
                raise OSError(errno.ESHUTDOWN, "the process that has the store open is ending; try again", self.path)
            if name in self.parts:
                raise OSError(errno.EBUSY, f"has a {name} already", self.path)
            part.start()
            self.parts[name] = part

    def drop(self, part: Part) -> None:
        """It has ended, and needs no closing."""
        with self._adding:
            for name, each in list(self.parts.items()):
                if each is part:
                    del self.parts[name]

    def retire(self) -> bool:
        """From now on nothing is added, unless something is mounted; whether that is so."""
        with self._adding:
            self._is_ending = self._is_ending or not self._shown()
            return self._is_ending

    def refuse_more(self) -> None:
        """From now on nothing is added. Takes no lock: also for the handler of a signal."""
        self._is_ending = True

    # -- what others did ---------------------------------------------------------------------------

    def wake(self) -> None:
        """Records, role or schedule may be others."""
        self.scheduler.wake()
        for part in list(self.parts.values()):
            part.wake()

    def files_changed(self) -> None:
        """The active file system became another one, by other ways than through a mount."""
        for cache in list(self.caches):
            cache.forget_all()

    def forget_snapshots(self) -> None:
        """Snapshots were deleted."""
        for cache in list(self.caches):
            cache.forget_snapshots()

    def command_done(self, arguments: list[str]) -> None:
        """A command of these words was carried out here."""
        self._used(is_stale=self._commands.stales(arguments))
        for other in self._others():
            if other is not self:
                other._used(is_stale=self._commands.stales_others(arguments))

    def _used(self, *, is_stale: bool) -> None:
        """By a command, after which the files of the active file system may be others."""
        count = self.tree.active.rewritten_count
        if is_stale or count != self._told_count:
            self._told_count = count
            self.files_changed()
        # It may have been a change of the schedule, or of who is primary.
        self.wake()

    def _changed_elsewhere(self) -> None:
        """Somebody at the end of a connection changed what there is to see, or the role."""
        self.files_changed()
        self.wake()

    def _settle(self) -> bool:
        # crash: whoever unmounted is told next that all is durable.
        self.tree.store.commit()
        return self._is_kept()

    def _is_kept(self) -> bool:
        return self.outlives_mount or bool(self._shown())


def unexpected(error: Exception | None) -> Exception | None:
    """The error, if where it comes from has to be logged too: a mistake of idemfs itself."""
    return None if isinstance(error, IdemfsError | OSError) else error


def describe(error: Exception) -> str:
    """What the error says, in one line."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
