"""What readers of a standby see: of each fileset the snapshot that it received last, one file system through junctions.

Which snapshots these are is fixed when the reader is made, so that it never shows one fileset as it was before a group
of snapshots came, and another one as it is after it. A fileset of which nothing has come is an empty directory.

Threads: as in ``reader``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from idemfs.format import keys
from idemfs.format.indirect import IndirectBlock
from idemfs.format.inode import Inode
from idemfs.format.tables import Snapshot
from idemfs.ids import NO_SNAPSHOT, ROOT_FILESET, Address, FilesetId, Ino, SnapshotId, fileset_of
from idemfs.limits import SCAN_COUNT
from idemfs.snapshots import received
from idemfs.versions.active import Active
from idemfs.versions.resolve import Pair, View
from idemfs.vfs.reader import Reader


class ReceivedView:
    """The records of several filesets, each as one snapshot of it has them; of others there are none."""

    def __init__(self, active: Active, snapshots: dict[FilesetId, Snapshot]) -> None:
        self.store = active.store
        self._views = {fileset: View(active, snapshot.id) for fileset, snapshot in snapshots.items()}
        # Nothing is older than snapshot 0: what is half received stays unseen.
        self._nothing = View(active, NO_SNAPSHOT)

    def _of(self, fileset: FilesetId) -> View:
        return self._views.get(fileset, self._nothing)

    def inode(self, ino: Ino) -> Inode | None:
        return self._of(fileset_of(ino)).inode(ino)

    def version(self, key: bytes) -> bytes | None:
        return self._of(keys.fileset_of(key)).version(key)

    def records(self, start: bytes, end: bytes) -> Iterator[Pair]:
        return self._of(keys.fileset_of(start)).records(start, end)

    def page(self, start: bytes, end: bytes, limit: int = SCAN_COUNT) -> tuple[list[Pair], bytes | None]:
        return self._of(keys.fileset_of(start)).page(start, end, limit)

    def map_indexes(self, ino: Ino, size: int, first: int = 0) -> Iterator[int]:
        return self._of(fileset_of(ino)).map_indexes(ino, size, first)

    def file_map(self, ino: Ino, node: Inode, index: int) -> IndirectBlock:
        return self._of(fileset_of(ino)).file_map(ino, node, index)

    def block(self, ino: Ino, number: int) -> tuple[Address, int]:
        return self._of(fileset_of(ino)).block(ino, number)


class ReceivedReader(Reader):
    """``snapshot`` is that of ``fileset``, of which it shows the root, ``snapshots`` are all of them."""

    def __init__(
        self, active: Active, link_reader: Callable[[FilesetId], Reader], fileset: FilesetId = ROOT_FILESET
    ) -> None:
        store = active.store
        with store.lock:
            found = {each: received.base(store, each) for each in (fileset, *store.catalog.junctions.values())}
            self.snapshots = {each: base for each, base in found.items() if base is not None}
            super().__init__(
                ReceivedView(active, self.snapshots),
                fileset,
                snapshot=self.snapshots.get(fileset),
                link_reader=link_reader,
                crosses=True,
            )
            self._junctions = {ino: each for ino, each in store.catalog.junctions.items() if each in self.snapshots}
            self._of_snapshots = {snapshot.id: each for each, snapshot in self.snapshots.items()}

    def fileset_at(self, snapshot: SnapshotId) -> FilesetId | None:
        """The fileset that is shown as this snapshot has it."""
        return self._of_snapshots.get(snapshot)

    def snapshot_of(self, ino: Ino) -> Snapshot | None:
        return self.snapshots.get(fileset_of(ino))
