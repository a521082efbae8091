"""A mount as a part of an owned store; and the process that has one store mounted, which ends with its last mount.

A store may be mounted several times by its process, each time showing something else: what two mounts show of the same
active files, the kernel would keep twice, and one of them would be old.

Threads: see ``session`` and ``node.owner``; and one for each mount that waits for its end.
"""

from __future__ import annotations

import errno
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from idemfs.engines import lock
from idemfs.errors import IdemfsError, NotPermitted, StoreInUse
from idemfs.ids import ROOT_FILESET, FilesetId, fileset_of
from idemfs.mount import channel
from idemfs.mount.channel import mounts
from idemfs.mount.session import Session, make_mount_point_usable
from idemfs.node import local_socket
from idemfs.node.config import StoreConfig
from idemfs.node.log import about
from idemfs.node.owner import Commands, OwnedStore, Shown
from idemfs.node.signals import Signals
from idemfs.store.files import open_files
from idemfs.store.store import Store
from idemfs.vfs.fileset_tree import FilesetTree
from idemfs.vfs.snapshot_tree import SnapshotTree
from idemfs.vfs.tree import Tree

log = logging.getLogger("idemfs.mount")

_CLOSING_SECONDS_MAX = 30.0
_WAIT_SECONDS = 0.02


def kernel_options(given: Sequence[str]) -> list[str]:
    """What the kernel is told: the options given, without repeats, and those that a mount has anyway."""
    wanted = ["default_permissions"]
    if os.geteuid() == 0 and "allow_root" not in given:
        wanted.append("allow_other")
    return list(dict.fromkeys([*wanted, *given]))


class Mount:
    """A part: a store on the directory of its configuration. ``unmounted`` is set at its end, whoever unmounts.

    ``snapshot``: show this one alone, to be read, or if ``writable``, to be changed in place. ``fileset``: show this
    one and what appears in it. A mount of a fileset ends when that is deleted, as when a drill ends.
    ``more``: one besides, on this directory with these options; it is dropped at its end.
    """

    def __init__(
        self,
        owner: OwnedStore,
        *,
        snapshot: str | None = None,
        writable: bool = False,
        fileset: str | None = None,
        more: tuple[str, Sequence[str]] | None = None,
    ) -> None:
        directory, options = more or (owner.config.mount, owner.config.mount_options)
        assert directory is not None
        self.unmounted = threading.Event()
        self._owner = owner
        self._is_more = more is not None
        self._directory = os.path.realpath(directory)
        self._options = kernel_options(options)
        self._snapshot = snapshot
        self._writable = writable
        self._fileset = fileset
        self._shown = ExitStack()
        self._session: Session | None = None
        self._is_closing = False
        self._watcher = threading.Thread(target=self._watch, name="idemfs-unmounted", daemon=True)

    def start(self) -> None:
        """Raises ``SnapshotMissing``, ``FilesetMissing``, ``OSError``, and if ``writable`` as ``SnapshotTree``."""
        make_mount_point_usable(self._directory)
        owner, tree = self._owner, self._owner.tree
        catalog = tree.store.catalog
        shown = None if self._snapshot is None else catalog.by_name(*catalog.snapshot_place(self._snapshot))
        if self._fileset is not None:
            tree = FilesetTree(tree, catalog.fileset_named(self._fileset).number)
        if self._is_more:
            self._refuse_twice(None if shown is not None else tree.fileset)
        for source, where in mounts():
            if (source, where) == (owner.path, self._directory):
                # The store is ours, so whoever mounted it there is gone; the kernel may still answer from its cache.
                channel.unmount(where, detach=True)
        with ExitStack() as failing:
            if shown is not None and self._writable:
                changing = SnapshotTree(tree, shown)
                self._shown.callback(changing.close)
                failing.push(self._shown)
                tree, shown = changing, None
            self._session = Session(tree, owner.path, self._directory, self._options, shown, owner.name)
            failing.pop_all()
        self._session.start()
        owner.caches.append(self._session)
        if not self._is_more:
            owner.mount = self._directory
        with about(store=owner.name):
            log.info("mounted %son %s", f"{self._what} " if self._what else "", self._directory)
        self._watcher.start()

    @property
    def _what(self) -> str:
        if self._snapshot is not None:
            return f"snapshot {self._snapshot}"
        return "" if self._fileset is None else f"fileset {self._fileset}"

    def shown(self) -> Shown | None:
        is_there = not self.unmounted.is_set() and (self._owner.path, self._directory) in mounts()
        return Shown(self._directory, self._what) if is_there else None

    @property
    def active_fileset(self) -> FilesetId | None:
        """The fileset whose active files are shown at the root; None: a snapshot is, or nothing any more."""
        if self._session is None or self._snapshot is not None or self.shown() is None:
            return None
        return self._session.tree.fileset

    def _refuse_twice(self, fileset: FilesetId | None) -> None:
        """Raises ``OSError`` where something is mounted already, and for a fileset that is shown elsewhere."""
        other = self._others_with(fileset)
        if other is not None:
            raise OSError(
                errno.EBUSY,
                f"the fileset is in the mount on {other} already; 'mount --bind' shows a directory of that elsewhere",
                self._directory,
            )
        if any(each.shown() and each._directory == self._directory for each in _mounts_of(self._owner)):
            raise OSError(errno.EBUSY, "something of this store is mounted there already", self._directory)

    def _others_with(self, fileset: FilesetId | None) -> str | None:
        """Where another mount shows active files of ``fileset``, or is of a fileset that is shown here."""
        if fileset is None:
            return None
        store = self._owner.tree.store
        for other in _mounts_of(self._owner):
            number = other.active_fileset if other is not self else None
            if number is not None and (_appears_in(store, fileset, number) or _appears_in(store, number, fileset)):
                return other._directory
        return None

    def wake(self) -> None:
        """What others change is told by ``Cache``; all but that what is shown is gone, or is shown elsewhere, too."""
        if self._session is None:
            return
        other = self._others_with(self.active_fileset) if self._is_more else None
        if other is not None:
            log.info("%s is unmounted, since the mount on %s shows the same from now on", self._directory, other)
        if other is not None or not self._session.is_there():
            self.end()

    def configure(self, config: StoreConfig) -> bool:
        """One that was unmounted by somebody is to be mounted again, but for one besides."""
        if self._is_more:
            return True
        if config.mount is None or self.unmounted.is_set():
            return False
        return (os.path.realpath(config.mount), kernel_options(config.mount_options)) == (
            self._directory,
            self._options,
        )

    def end(self) -> None:
        """Unmount, or detach; ``close`` waits for it."""
        if self._session is not None:
            self._session.end()

    def close(self) -> None:
        self._is_closing = True
        self.end()
        self._watcher.join()
        self._shown.close()

    def _watch(self) -> None:
        session = self._session
        assert session is not None
        session.ended.wait()
        with about(store=self._owner.name):
            self._owner.caches.remove(session)
            if not self._is_more:
                self._owner.mount = None
            session.close()
            if (self._owner.outlives_mount or self._is_more) and not self._is_closing:
                self._tell_end()
            if self._is_more:
                self._shown.close()
            self.unmounted.set()
            if self._is_more:
                self._owner.drop(self)

    def _tell_end(self) -> None:
        if self._is_more:
            log.info("%s is unmounted, which showed %s", self._directory, self._what)
        else:
            log.warning("%s was unmounted by somebody; the store is served on", self._directory)
        try:
            self._owner.tree.store.commit()
        except (IdemfsError, OSError) as error:
            log.error("what was written cannot be made durable: %s", error)


def _mounts_of(owner: OwnedStore) -> list[Mount]:
    return [part for part in list(owner.parts.values()) if isinstance(part, Mount)]


def _appears_in(store: Store, fileset: FilesetId, root: FilesetId) -> bool:
    """Whether a path leads from the root directory of ``root`` to ``fileset``."""
    with store.lock:
        while fileset != root:
            found = store.catalog.filesets.get(fileset)
            if found is None or fileset == ROOT_FILESET or not found.junction:
                return False
            fileset = fileset_of(found.junction)
    return True


def mount_besides(
    owner: OwnedStore,
    directory: str,
    options: Sequence[str],
    *,
    snapshot: str | None = None,
    writable: bool = False,
    fileset: str | None = None,
) -> None:
    """Mount one thing more of a store that this process has open, with this process's rights.

    Raises as ``Mount.start``, ``NotPermitted``, and ``OSError`` where that is mounted already, or the store is being
    closed. A restart does not bring it back.
    """
    who = local_socket.caller()
    if who is not None and who.uid not in (0, os.geteuid()):
        # The kernel asks for this process's rights to the directory, not for theirs.
        raise NotPermitted("only root, and the user whose process has the store open, may have it mount something")
    # Not under the owner's lock: a host that does not answer may be below this path.
    make_mount_point_usable(directory)
    name = f"mount on {directory}"
    ended = owner.parts.get(name)
    if isinstance(ended, Mount) and ended.shown() is None:
        # Unmounted just now.
        ended.close()
    more = directory, options
    owner.add(name, Mount(owner, snapshot=snapshot, writable=writable, fileset=fileset, more=more))


def mounting(owner: OwnedStore) -> Mount | None:
    """A part factory: the mount that the store's configuration asks for, if it does."""
    return None if owner.config.mount is None else Mount(owner)


def serve_store(
    path: str,
    directory: str,
    options: Sequence[str],
    snapshot: str | None,
    ready: Callable[[], None],
    *,
    commands: Commands,
    writable: bool = False,
    fileset: str | None = None,
) -> None:
    """Mount the store at ``path`` on ``directory``, and serve until nothing of it is mounted any more. ``ready`` is
    called as soon as requests are taken.

    ``snapshot``, ``writable``, ``fileset``: as for ``Mount``.
    Raises as ``open_files``, ``Mount.start``, ``CommitFailed``. Its caller's thread is the main one.
    """
    make_mount_point_usable(directory)
    config = StoreConfig(
        name=os.path.basename(path) or "store", path=path, mount=directory, mount_options=tuple(options)
    )
    made: list[Mount] = []

    def factory(owner: OwnedStore) -> Mount:
        made.append(Mount(owner, snapshot=snapshot, writable=writable, fileset=fileset))
        return made[-1]

    store = _open(path)
    try:
        owner = OwnedStore(config, Tree(store), commands, {"mount": factory}, outlives_mount=False)
    except BaseException:
        store.close()
        raise
    try:
        owner.start()
        owner.complete(strict=True)
        signals = Signals((signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
        threading.Thread(target=_end_when_told, args=(owner, signals), name="idemfs-signals", daemon=True).start()
        ready()
        while not made[0].unmounted.is_set() or not owner.retire():
            for mount in _mounts_of(owner):
                mount.unmounted.wait()
    finally:
        owner.close()


def _end_when_told(owner: OwnedStore, signals: Signals) -> None:
    while True:
        signals.wait()
        owner.refuse_more()
        for mount in _mounts_of(owner):
            mount.end()


def _open(path: str) -> Store:
    """The store, also if the process that had it mounted is just closing it."""
    until = time.monotonic() + _CLOSING_SECONDS_MAX
    while True:
        try:
            return open_files(path)
        except StoreInUse:
            is_mounted = any(source == path for source, _ in mounts())
            if time.monotonic() > until or is_mounted or not lock.owner(path) or local_socket.stays(path):
                raise
        time.sleep(_WAIT_SECONDS)
