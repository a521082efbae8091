"""The active file system of an open store: its snapshots, its filesets, and the end.

Threads: any.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from idemfs.api.contents import Writable
from idemfs.api.filesets import Filesets
from idemfs.api.snapshots import Snapshots
from idemfs.format.role import Role
from idemfs.vfs.paths import Paths
from idemfs.vfs.tree import Tree

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from idemfs.api.diverged import DivergedSnapshots
    from idemfs.api.drills import Drills

_STANDBY = Role.STANDBY


class FileSystem(Writable):
    """A store as its users see it: on a primary the active file system, on a standby what it received last.

    ``idemfs.open`` and ``idemfs.create`` make it. Leaving its ``with`` closes the store, which makes durable what was
    done; ``sync`` does so at once, and what is neither synced nor closed is durable after a few seconds.
    """

    def __init__(self, tree: Tree) -> None:
        super().__init__(tree)
        self._standby = self._paths

    def _reading(self) -> Paths:
        if self.tree.role.role is not _STANDBY:
            return self._paths
        reader = self.tree.newest_reader()
        if self._standby.reader is not reader:
            self._standby = Paths(reader)
        return self._standby

    # -- the store -----------------------------------------------------------------------------------

    @cached_property
    def snapshots(self) -> Snapshots:
        return Snapshots(self.tree)

    @cached_property
    def filesets(self) -> Filesets:
        return Filesets(self.tree, self._paths)

    @cached_property
    def drills(self) -> Drills:
        from idemfs.api.drills import Drills

        return Drills(self.tree)

    @cached_property
    def diverged(self) -> DivergedSnapshots:
        from idemfs.api.diverged import DivergedSnapshots

        return DivergedSnapshots(self.tree)

    def sync(self) -> None:
        """Everything that was changed before is durable on return. Raises ``CommitFailed``."""
        # crash: the one open group holds all of it.
        self.tree.sync()

    def close(self) -> None:
        """Make durable what was done, and release the store. Raises ``CommitFailed``; the store is released even so."""
        self.tree.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<FileSystem of store {self.tree.store.superblock.guid.hex()}, {self.tree.role.role.name.lower()}>"
