"""The life of one mount, of which a process may have several: from mounting a tree until nothing serves it any more.

Who unmounts, be it ``umount``, or ``end`` for a signal or the owner's shutdown, ends the threads that serve; then
``ended`` is set, and the owner may close the store. A mount that is still in use when its owner ends it is detached:
its names vanish at once, and its open files fail from then on.

Threads: ``end``, also in a signal's handler, and what tells the kernel may be called by any; ``close`` by one.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
import threading
from contextlib import suppress

from idemfs.format.tables import COMPLETE, Snapshot
from idemfs.mount import channel, wire
from idemfs.mount.attributes import AttributeRequests
from idemfs.mount.channel import Channel
from idemfs.mount.contents import ContentRequests, OpenInodes
from idemfs.mount.directories import DirectoryRequests
from idemfs.mount.gone import Gone
from idemfs.mount.names import NameRequests
from idemfs.mount.nodes import ROOT, SHORT_SECONDS, Nodes, is_in_snapshot
from idemfs.mount.server import UNMOUNTED, Server
from idemfs.mount.snapshot_folder import SnapshotFolder
from idemfs.mount.wire import Notice, Opcode, Request
from idemfs.vfs.tree import Tree

log = logging.getLogger("idemfs.mount")

SWITCH_SECONDS = 0.0005
"""How long one thread may keep others from running: with Python's own 5 ms a commit waits for ever behind requests."""


class Session:
    """A tree that is mounted. ``snapshot``: the only one that the mount shows. ``store``: its name in the log."""

    def __init__(
        self,
        tree: Tree,
        source: str,
        directory: str,
        options: list[str],
        snapshot: Snapshot | None = None,
        store: str | None = None,
    ) -> None:
        """Mounts it; requests wait for ``start``. Raises ``OSError``."""
        self.tree = tree
        self.nodes = Nodes(tree, snapshot)
        self._opened = OpenInodes(self.nodes)
        self._channel: Channel = channel.mount(source, directory, options)
        folder = SnapshotFolder(self.nodes, self.forget_snapshots)
        gone = Gone(self.nodes.block_size)
        handlers = {
            Opcode.FORGET: _no_reply,
            Opcode.BATCH_FORGET: _no_reply,
            Opcode.DESTROY: _done,
            **NameRequests(self.nodes, folder, gone).handlers(),
            **AttributeRequests(self.nodes, gone).handlers(),
            **DirectoryRequests(self.nodes, folder, self._opened).handlers(),
            **ContentRequests(self.nodes, self._opened, self._forget_content).handlers(),
        }
        self._server = Server(self._channel, handlers, store=store)
        try:
            self._server.greet()
        except BaseException:
            with suppress(OSError):
                channel.unmount(directory, detach=True)
            self._channel.close()
            raise
        if self._server.kernel_minor < wire.INC_EPOCH_MINOR:
            self.nodes.seconds = SHORT_SECONDS

    @property
    def directory(self) -> str:
        return self._channel.directory

    @property
    def ended(self) -> threading.Event:
        """Set when no more requests come: it was unmounted, or ``end`` was called."""
        return self._server.ended

    def start(self) -> None:
        """Serve from now on."""
        sys.setswitchinterval(SWITCH_SECONDS)
        self._server.start()

    def end(self) -> None:
        """Unmount, or if somebody is in the way, detach."""
        if self._server.ended.is_set():
            return
        try:
            channel.unmount(self.directory)
        except OSError as error:
            if error.errno == errno.EBUSY:
                log.warning("%s is in use; its open files end now", self.directory)
            with suppress(OSError):
                channel.unmount(self.directory, detach=True)
            self._channel.end()
            self._server.ended.set()

    def close(self) -> None:
        """After its end: wait for the threads, and let go of the kernel's device; open files of it fail."""
        if self._server.join():
            self._channel.close()
        # Otherwise the device is in use, and is closed with the process: the kernel then answers for us.

    def is_there(self) -> bool:
        """Whether the fileset that is shown was not deleted."""
        found = self.tree.store.catalog.filesets.get(self.tree.fileset)
        return found is not None and found.state == COMPLETE

    # -- telling the kernel ----------------------------------------------------------------------------

    def forget_all(self) -> None:
        """The active file system became another one: names, attributes and content that the kernel keeps are old."""
        if self._server.kernel_minor >= wire.INC_EPOCH_MINOR:
            self._notify(Notice.INC_EPOCH, b"")
        self._opened.distrust()
        for node in {ROOT, *self._opened.numbers()}:
            self._forget_content(node, 0, 0)

    def _forget_content(self, node: int, offset: int, size: int) -> None:
        self._notify(Notice.INVAL_INODE, wire.INVAL_INODE.pack(node, offset, size))

    def forget_snapshots(self) -> None:
        """A snapshot was deleted: what is open in it is asked for again, and fails."""
        for node in self._opened.numbers():
            if is_in_snapshot(node):
                self._forget_content(node, 0, 0)

    def _notify(self, code: int, body: bytes) -> None:
        try:
            self._channel.notify(code, body)
        except OSError as error:
            # Unmounted just now: the kernel has forgotten all.
            if error.errno not in UNMOUNTED:
                raise


def _no_reply(request: Request) -> None:
    return None


def _done(request: Request) -> bytes:
    return b""


def make_mount_point_usable(directory: str) -> None:
    """Detach what a mount left whose process died. Raises ``OSError`` for a directory that is none."""
    try:
        os.stat(directory)
    except OSError as error:
        if error.errno != errno.ENOTCONN:
            raise
        channel.unmount(directory, detach=True)
        os.stat(directory)
