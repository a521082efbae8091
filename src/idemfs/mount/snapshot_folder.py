"""``.snapshots`` at the root: a folder per snapshot, and ``latest``.

It is looked up by name and never listed in the root. Its owner is the owner of the root directory; who may
write in it takes snapshots with ``mkdir``, deletes them with ``rmdir`` and renames them with ``rename``. The
kernel asks again for each name in it, so that snapshots appear and vanish at once, whoever makes them.

Threads: any.
"""

from __future__ import annotations

import errno
from collections.abc import Callable

from idemfs.errors import BadSnapshotName, SnapshotError, SnapshotExists, SnapshotHeld, SnapshotMissing
from idemfs.format.role import Role
from idemfs.format.tables import Snapshot
from idemfs.mount import wire
from idemfs.mount.nodes import FOLDER, LATEST, ROOT, Nodes
from idemfs.snapshots import delete, manage, received
from idemfs.vfs.reader import posix
from idemfs.vfs.snapshot_tree import SnapshotTree

LATEST_NAME = b"latest"
_DIRECTORY, _SYMLINK = 4, 10
_ERRNO: tuple[tuple[type[SnapshotError], int], ...] = (
    (SnapshotExists, errno.EEXIST),
    (SnapshotMissing, errno.ENOENT),
    (BadSnapshotName, errno.EINVAL),
    (SnapshotHeld, errno.EBUSY),
)


def _as_posix(error: SnapshotError) -> OSError:
    for kind, number in _ERRNO:
        if isinstance(error, kind):
            return posix(number, str(error))
    return posix(errno.EIO, str(error))


class SnapshotFolder:
    """What is asked of the folder itself; what lies in a snapshot is a ``Reader``'s."""

    def __init__(self, nodes: Nodes, deleted: Callable[[], None]) -> None:
        """``deleted`` is called after a snapshot was."""
        self._deleted = deleted
        self._nodes = nodes
        # The active file system's, where snapshots are taken and deleted.
        self._tree = nodes.tree.base if isinstance(nodes.tree, SnapshotTree) else nodes.tree
        self._store = nodes.tree.store

    def entry(self, node: int) -> bytes:
        # The name .snapshots itself always leads here; what it holds is asked for each time.
        return wire.entry_out(node, self._nodes.seconds if node == FOLDER else 0, 0, self._nodes.attributes(node))

    def _find(self, name: bytes) -> Snapshot:
        try:
            return self._store.catalog.by_name(self._nodes.fileset, name.decode())
        except (SnapshotMissing, UnicodeDecodeError):
            raise posix(errno.ENOENT) from None

    def _newest(self) -> Snapshot:
        """Raises ``OSError`` (ENOENT)."""
        found = self._tree.newest_snapshot(self._nodes.fileset)
        if found is None:
            raise posix(errno.ENOENT)
        return found

    def lookup(self, name: bytes) -> bytes:
        with self._store.lock:
            if name == b".":
                return self.entry(FOLDER)
            if name == b"..":
                return wire.entry_out(ROOT, 0, 0, self._nodes.attributes(ROOT))
            if name == LATEST_NAME:
                self._newest()
                return self.entry(LATEST)
            return self._folder(self._find(name))

    def _folder(self, snapshot: Snapshot) -> bytes:
        reader = self._nodes.snapshot_reader(snapshot.id)
        node = self._nodes.number(reader, reader.root)
        return wire.entry_out(node, 0, self._nodes.seconds, self._nodes.pack(node, reader, reader.root))

    def latest(self) -> bytes:
        """Where the link leads."""
        with self._store.lock:
            return self._newest().name.encode()

    def entries(self) -> list[tuple[bytes, int, int]]:
        """Name, the kernel's number, type; in order of names."""
        with self._store.lock:
            snapshots = self._store.catalog.snapshots(self._nodes.fileset)
            found = [(each.name.encode(), self._number(each), _DIRECTORY) for each in snapshots]
            if snapshots:
                found.append((LATEST_NAME, LATEST, _SYMLINK))
        return sorted(found)

    def _number(self, snapshot: Snapshot) -> int:
        reader = self._nodes.snapshot_reader(snapshot.id)
        return self._nodes.number(reader, reader.root)

    def create(self, name: bytes) -> bytes:
        """Take a snapshot; durable on return."""
        self._tree.refuse_unless_primary()
        try:
            return self._folder(manage.create(self._store, self._nodes.fileset, name.decode()))
        except SnapshotError as error:
            raise _as_posix(error) from error
        except UnicodeDecodeError:
            raise posix(errno.EINVAL) from None

    def delete(self, name: bytes) -> None:
        """Delete a snapshot; durable on return. ``latest`` is none."""
        try:
            with self._store.lock:
                snapshot = self._find(name)
                if self._tree.role.role is not Role.PRIMARY:
                    self._refuse(snapshot)
            delete.delete(self._tree.active, snapshot)
            self._deleted()
        except SnapshotError as error:
            raise _as_posix(error) from error

    def _refuse(self, snapshot: Snapshot) -> None:
        if self._tree.role.role is Role.FENCED:
            self._tree.refuse_unless_primary()
        if received.base(self._store, snapshot.fileset) is snapshot:
            raise SnapshotHeld("this is what the standby received last, and what it shows")

    def rename(self, name: bytes, new_name: bytes) -> None:
        try:
            with self._store.lock:
                self._tree.refuse_unless_primary()
                if name != new_name:
                    manage.rename(self._store, self._find(name), new_name.decode())
        except SnapshotError as error:
            raise _as_posix(error) from error
        except UnicodeDecodeError:
            raise posix(errno.EINVAL) from None
