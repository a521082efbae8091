"""A mount as a part of an owned store; and the process that has one store mounted, which ends with its mount.

Threads: see ``session`` and ``node.owner``; and one for each mount that waits for its end.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from types import FrameType

from idemfs.engines import lock
from idemfs.errors import IdemfsError, StoreInUse
from idemfs.mount import channel
from idemfs.mount.channel import mounts
from idemfs.mount.session import Session, make_mount_point_usable
from idemfs.node import local_socket
from idemfs.node.config import StoreConfig
from idemfs.node.log import about
from idemfs.node.owner import Commands, OwnedStore
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
    """

    def __init__(
        self, owner: OwnedStore, *, snapshot: str | None = None, writable: bool = False, fileset: str | None = None
    ) -> None:
        assert owner.config.mount is not None
        self.unmounted = threading.Event()
        self._owner = owner
        self._directory = os.path.realpath(owner.config.mount)
        self._options = kernel_options(owner.config.mount_options)
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
        for source, where in mounts():
            if (source, where) == (owner.path, self._directory):
                # The store is ours, so whoever mounted it there is gone; the kernel may still answer from its cache.
                channel.unmount(where, detach=True)
        catalog = tree.store.catalog
        shown = None if self._snapshot is None else catalog.by_name(*catalog.snapshot_place(self._snapshot))
        if self._fileset is not None:
            tree = FilesetTree(tree, catalog.fileset_named(self._fileset).number)
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
        owner.mount = self._directory
        with about(store=owner.name):
            log.info("mounted on %s", self._directory)
        self._watcher.start()

    def wake(self) -> None:
        """What others change is told by ``Cache``; all but that what is shown is gone."""
        if self._session is not None and not self._session.is_there():
            self.end()

    def configure(self, config: StoreConfig) -> bool:
        """One that was unmounted by somebody is to be mounted again."""
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
            self._owner.mount = None
            session.close()
            if self._owner.outlives_mount and not self._is_closing:
                log.warning("%s was unmounted by somebody; the store is served on", self._directory)
                try:
                    self._owner.tree.store.commit()
                except (IdemfsError, OSError) as error:
                    log.error("what was written cannot be made durable: %s", error)
            self.unmounted.set()


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
    """Mount the store at ``path`` on ``directory``, and serve until it is unmounted. ``ready`` is called as soon as
    requests are taken.

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

        def end(_number: int, _frame: FrameType | None) -> None:
            made[0].end()

        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, end)
        ready()
        made[0].unmounted.wait()
    finally:
        owner.close()


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
