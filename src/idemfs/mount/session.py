"""The life of one mount: from opening the store until it is closed again.

Who unmounts, be it ``umount``, a signal or the owner's shutdown, ends the threads that serve; then the store is
closed, its last group made durable, and unlocked. A mount that is still in use when a signal comes is detached:
its names vanish at once, and its open files fail from then on.

Threads: ``run`` waits in its caller's thread, which is the process's main one, since signals come there.
"""

from __future__ import annotations

import errno
import logging
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

from idemfs.format.tables import COMPLETE, Snapshot
from idemfs.mount import channel, wire
from idemfs.mount.attributes import AttributeRequests
from idemfs.mount.channel import Channel
from idemfs.mount.contents import ContentRequests, OpenInodes
from idemfs.mount.directories import DirectoryRequests
from idemfs.mount.names import NameRequests
from idemfs.mount.nodes import ROOT, SHORT_SECONDS, Nodes, is_in_snapshot
from idemfs.mount.server import Server
from idemfs.mount.snapshot_folder import SnapshotFolder
from idemfs.mount.wire import Notice, Opcode, Request
from idemfs.vfs.tree import Tree

log = logging.getLogger("idemfs.mount")

SWITCH_SECONDS = 0.0005
"""How long one thread may keep others from running: with Python's own 5 ms a commit waits for ever behind requests."""


class Session:
    """A tree that is mounted. ``snapshot``: the only one that the mount shows."""

    def __init__(
        self, tree: Tree, source: str, directory: str, options: list[str], snapshot: Snapshot | None = None
    ) -> None:
        """Raises ``OSError``."""
        self.tree = tree
        self.nodes = Nodes(tree, snapshot)
        self._opened = OpenInodes(self.nodes)
        self._channel: Channel = channel.mount(source, directory, options)
        folder = SnapshotFolder(self.nodes, self.forget_snapshots)
        handlers = {
            Opcode.FORGET: _no_reply,
            Opcode.BATCH_FORGET: _no_reply,
            Opcode.DESTROY: _done,
            **NameRequests(self.nodes, folder).handlers(),
            **AttributeRequests(self.nodes).handlers(),
            **DirectoryRequests(self.nodes, folder, self._opened).handlers(),
            **ContentRequests(self.nodes, self._opened, self._forget_content).handlers(),
        }
        self._server = Server(self._channel, handlers)
        try:
            self._server.greet()
        except BaseException:
            with suppress(OSError):
                channel.unmount(directory, detach=True)
            self._channel.close()
            raise
        if self._server.kernel_minor < wire.INC_EPOCH_MINOR:
            self.nodes.seconds = SHORT_SECONDS

    def run(self, ready: Callable[[], None]) -> None:
        """Serve until it is unmounted; ``ready`` is called as soon as requests are taken."""
        sys.setswitchinterval(SWITCH_SECONDS)
        self._server.start()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._end)
        ready()
        self._server.ended.wait()
        if self._server.join():
            self._channel.close()
        # Otherwise the device is in use, and is closed with the process: the kernel then answers for us.

    def is_there(self) -> bool:
        """Whether the fileset that is shown was not deleted."""
        found = self.tree.store.catalog.filesets.get(self.tree.fileset)
        return found is not None and found.state == COMPLETE

    def _end(self, number: int, frame: FrameType | None) -> None:
        """A signal came."""
        self.end()

    def end(self) -> None:
        """Unmount, or if somebody is in the way, detach."""
        try:
            channel.unmount(self._channel.directory)
        except OSError as error:
            if error.errno == errno.EBUSY:
                log.warning("%s is in use; its open files end with this process", self._channel.directory)
            with suppress(OSError):
                channel.unmount(self._channel.directory, detach=True)
            self._server.ended.set()

    # -- telling the kernel ----------------------------------------------------------------------------

    def forget_all(self) -> None:
        """The active file system became another one: names, attributes and content that the kernel keeps are old."""
        if self._server.kernel_minor >= wire.INC_EPOCH_MINOR:
            self._channel.notify(Notice.INC_EPOCH, b"")
        self._opened.distrust()
        for node in {ROOT, *self._opened.numbers()}:
            self._channel.notify(Notice.INVAL_INODE, wire.INVAL_INODE.pack(node, 0, 0))

    def _forget_content(self, node: int, offset: int, size: int) -> None:
        self._channel.notify(Notice.INVAL_INODE, wire.INVAL_INODE.pack(node, offset, size))

    def forget_snapshots(self) -> None:
        """A snapshot was deleted: what is open in it is asked for again, and fails."""
        for node in self._opened.numbers():
            if is_in_snapshot(node):
                self._channel.notify(Notice.INVAL_INODE, wire.INVAL_INODE.pack(node, 0, 0))


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
