"""``.snapshots`` at the root of each fileset: a folder per snapshot, and ``latest``.

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
from idemfs.ids import FilesetId
from idemfs.mount import wire
from idemfs.mount.nodes import FOLDER, LATEST, Nodes, fileset_of_made_up, kind_of, made_up
from idemfs.snapshots import delete, manage, received
from idemfs.snapshots.drills import is_drill
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
    """What is asked of the folders themselves; what lies in a snapshot is a ``Reader``'s.

    ``node`` is the kernel's number of a folder.
    """

    def __init__(self, nodes: Nodes, deleted: Callable[[], None]) -> None:
        """``deleted`` is called after a snapshot was."""
        self._deleted = deleted
        self._nodes = nodes
        # The active file system's, where snapshots are taken and deleted.
        self._tree = nodes.tree.base if isinstance(nodes.tree, SnapshotTree) else nodes.tree
        self._store = nodes.tree.store

    def entry(self, node: int) -> bytes:
        # The name .snapshots itself always leads here; what it holds is asked for each time.
        seconds = self._nodes.seconds if kind_of(node) == FOLDER else 0
        return wire.entry_out(node, seconds, 0, self._nodes.attributes(node))

    def _find(self, node: int, name: bytes) -> Snapshot:
        try:
            return self._store.catalog.by_name(self._fileset(node), name.decode())
        except (SnapshotMissing, UnicodeDecodeError):
            raise posix(errno.ENOENT) from None

    def _fileset(self, node: int) -> FilesetId:
        """Raises ``OSError`` (ESTALE)."""
        fileset = fileset_of_made_up(node)
        self._nodes.snapshots(fileset)
        return fileset

    def _newest(self, node: int) -> Snapshot:
        """Raises ``OSError`` (ENOENT)."""
        found = self._tree.newest_snapshot(self._fileset(node))
        if found is None:
            raise posix(errno.ENOENT)
        return found

    def lookup(self, node: int, name: bytes) -> bytes:
        with self._store.lock:
            if name == b".":
                return self.entry(node)
            if name == b"..":
                root = self._nodes.root_of(fileset_of_made_up(node))
                return wire.entry_out(root, 0, 0, self._nodes.attributes(root))
            if name == LATEST_NAME:
                self._newest(node)
                return self.entry(made_up(fileset_of_made_up(node), LATEST))
            return self._folder(self._find(node, name))

    def _folder(self, snapshot: Snapshot) -> bytes:
        reader = self._nodes.snapshot_reader(snapshot.id)
        node = self._nodes.number(reader, reader.root)
        return wire.entry_out(node, 0, *self._nodes.told(node, reader, reader.root))

    def latest(self, node: int) -> bytes:
        """Where the link with this number leads."""
        with self._store.lock:
            return self._newest(node).name.encode()

    def entries(self, node: int) -> list[tuple[bytes, int, int]]:
        """Name, the kernel's number, type; in order of names."""
        with self._store.lock:
            snapshots = self._nodes.snapshots(fileset_of_made_up(node))
            found = [(each.name.encode(), self._number(each), _DIRECTORY) for each in snapshots]
            if snapshots:
                found.append((LATEST_NAME, made_up(fileset_of_made_up(node), LATEST), _SYMLINK))
        return sorted(found)

    def _number(self, snapshot: Snapshot) -> int:
        reader = self._nodes.snapshot_reader(snapshot.id)
        return self._nodes.number(reader, reader.root)

    def create(self, node: int, name: bytes) -> bytes:
        """Take a snapshot; durable on return."""
        try:
            fileset = self._fileset(node)
            self._tree.refuse_changing(fileset)
            return self._folder(manage.create(self._store, fileset, name.decode()))
        except SnapshotError as error:
            raise _as_posix(error) from error
        except UnicodeDecodeError:
            raise posix(errno.EINVAL) from None

    def delete(self, node: int, name: bytes) -> None:
        """Delete a snapshot; durable on return. ``latest`` is none."""
        try:
            with self._store.lock:
                snapshot = self._find(node, name)
                if self._tree.role.role is not Role.PRIMARY and not is_drill(self._store, snapshot.fileset):
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

    def rename(self, node: int, name: bytes, new_name: bytes) -> None:
        try:
            with self._store.lock:
                self._tree.refuse_changing(self._fileset(node))
                if name != new_name:
                    manage.rename(self._store, self._find(node, name), new_name.decode())
        except SnapshotError as error:
            raise _as_posix(error) from error
        except UnicodeDecodeError:
            raise posix(errno.EINVAL) from None
