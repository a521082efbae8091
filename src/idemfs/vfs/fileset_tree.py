"""One fileset of an open store, with those that appear in it, as a file system of its own: its root is the root.

All but that is the store's: what is cached, open or under way is so once.

Threads: as in ``namespace``.
"""

from __future__ import annotations

from idemfs.ids import ROOT_NUMBER, FilesetId, Ino, fileset_of, make_ino
from idemfs.snapshots import drills
from idemfs.versions.state import ActiveView
from idemfs.vfs.beside import Beside
from idemfs.vfs.reader import Reader
from idemfs.vfs.tree import Tree


class FilesetTree(Beside):
    """``fileset`` of the store of ``base``. It needs no closing."""

    def __init__(self, base: Tree, fileset: FilesetId) -> None:
        # Not by Tree's: this one is no owner of the store, and has nothing to recover.
        with base.store.lock:
            self.base = base
            """The file system of the same store that is seen from its root."""
            self.store = base.store
            self.fileset = fileset
            self.root = make_ino(fileset, ROOT_NUMBER)
            self.is_drill = drills.is_drill(base.store, fileset)
            self.active = base.active
            self.contents = base.contents
            self.names = base.names
            self.reader = Reader(
                ActiveView(self.active),
                fileset,
                dirty=self.contents.waiting,
                dirty_numbers=self.contents.waiting_numbers,
                link_reader=self.link_reader,
                crosses=True,
            )
            self._received = None
            self._limited = base._limited
            self._junctions = base._junctions
            self._clones = base._clones
            self._open_counts = base._open_counts
            self._unnamed = base._unnamed

    def shows(self, ino: Ino) -> bool:
        """Whether a path leads from the root to the fileset of this inode."""
        number = fileset_of(ino)
        catalog = self.store.catalog
        with self.store.lock:
            while number != self.fileset:
                found = catalog.filesets.get(number)
                if found is None or not found.junction:
                    return False
                number = fileset_of(found.junction)
        return True
