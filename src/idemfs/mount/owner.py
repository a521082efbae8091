"""The process that has a store mounted: it opens the store, mounts it, serves other commands, runs its schedules,
and closes it.

Threads: see ``session``, ``node.local_socket`` and ``node.scheduler``.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import ExitStack

from idemfs.engines import lock
from idemfs.errors import StoreInUse
from idemfs.mount import channel
from idemfs.mount.channel import mounts
from idemfs.mount.session import Session, make_mount_point_usable
from idemfs.node.local_socket import LocalSocket, Run
from idemfs.node.peer import end_sessions
from idemfs.node.scheduler import Scheduler
from idemfs.store.files import open_files
from idemfs.store.store import Store
from idemfs.vfs.lending import lending
from idemfs.vfs.snapshot_tree import SnapshotTree
from idemfs.vfs.tree import Tree

log = logging.getLogger("idemfs.mount")

_CLOSING_SECONDS_MAX = 30.0
_WAIT_SECONDS = 0.02


def serve_store(
    path: str,
    directory: str,
    options: list[str],
    snapshot: str | None,
    ready: Callable[[], None],
    *,
    run: Run,
    stales: Callable[[list[str]], bool],
    writable: bool = False,
) -> None:
    """Mount the store at ``path`` on ``directory``, and serve until it is unmounted.

    ``snapshot``: show this one alone, to be read, or if ``writable``, to be changed in place.
    ``run`` carries out the command lines of others; ``stales`` tells after which of them the kernel must forget.
    Raises as ``open_files``, ``SnapshotMissing``, ``OSError``, and if ``writable`` as ``SnapshotTree``.
    """
    make_mount_point_usable(directory)
    store = _open(path)
    try:
        for source, where in mounts():
            if (source, where) == (path, directory):
                # The store is ours, so whoever mounted it there is gone; the kernel may still answer from its cache.
                channel.unmount(where, detach=True)
        tree = Tree(store)
        shown = None if snapshot is None else store.catalog.by_name(*store.catalog.snapshot_place(snapshot))
        with lending(path, tree), ExitStack() as written:
            if shown is not None and writable:
                changing = SnapshotTree(tree, shown)
                written.callback(changing.close)
                session = Session(changing, path, directory, options)
            else:
                session = Session(tree, path, directory, options, shown)
            scheduler = Scheduler(tree, session.forget_snapshots)

            told_count = tree.active.rewritten_count

            def done(arguments: list[str]) -> None:
                nonlocal told_count
                count = tree.active.rewritten_count
                if stales(arguments) or count != told_count:
                    told_count = count
                    session.forget_all()
                # It may have been a change of the schedule, or of who is primary.
                scheduler.wake()

            def changed() -> None:
                session.forget_all()
                scheduler.wake()

            tree.watchers.append(changed)
            local = LocalSocket(path, run, done, lambda: end_sessions(path))
            scheduler.start()
            try:
                session.run(ready)
            finally:
                local.close()
                scheduler.close()
    finally:
        store.close()


def _open(path: str) -> Store:
    """The store, also if the process that had it mounted is just closing it."""
    until = time.monotonic() + _CLOSING_SECONDS_MAX
    while True:
        try:
            return open_files(path)
        except StoreInUse:
            if time.monotonic() > until or any(source == path for source, _ in mounts()) or not lock.owner(path):
                raise
        time.sleep(_WAIT_SECONDS)
