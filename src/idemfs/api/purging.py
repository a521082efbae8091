"""Removing a path from all snapshots, and the record of who did so.

Threads: any.
"""

from __future__ import annotations

import builtins
import os

from idemfs.api.looking import Looking
from idemfs.api.names import AnyPath, encode
from idemfs.ids import ROOT_NUMBER, FilesetId, make_ino
from idemfs.snapshots import audit, purge
from idemfs.snapshots.audit import Purge
from idemfs.vfs.removal import remove_tree


class Purging(Looking):
    """The part of ``Snapshots`` that takes something out of all of them."""

    def purge(self, path: AnyPath, *, active: bool = False, reason: str = "") -> Purge:
        """Remove what has this path, a file or a subtree, from all snapshots; durable on return, and on record.

        ``active``: from the active state, too, which is otherwise left as it is. The snapshots that had it are others
        from then on, with other guids. Hard links elsewhere stay, with their content. Raises ``SnapshotHeld``,
        ``SnapshotLocked``, ``NotPrimary``, ``OSError`` (ENOENT) for a path that no snapshot has, ``ValueError``.
        """
        if len(reason.encode(errors="surrogateescape")) > _REASON_SIZE_MAX or not reason.isprintable():
            raise ValueError(f"a reason has at most {_REASON_SIZE_MAX} bytes, all printable")
        with self._store.exclusive():
            self.check_purgeable(path)
            fileset, inside = self._inside(encode(path))
            wanted = Purge(
                at_ns=self._store.clock.now_ns(),
                fileset=int(fileset),
                fileset_name=self._store.catalog.filesets[fileset].name,
                path=os.fsdecode(b"/" + b"/".join(purge.split(inside))),
                uid=os.getuid(),
                user=_user_name(),
                reason=reason,
                is_active=active,
                inodes=(),
                inode_count=0,
                snapshots=(),
                snapshot_count=0,
            )
            if active:
                self._remove_active(fileset, inside)
            record = purge.purge(self._tree.active, wanted, inside)
            # What was looked up by its name before may lead elsewhere.
            self._tree.moves += 1
            return record

    def check_purgeable(self, path: AnyPath) -> builtins.list[str]:
        """The snapshots that ``purge`` would change. Raises what it would raise before it changes anything."""
        with self._store.lock:
            self._tree.refuse_unless_primary()
            self._settle()
            fileset, inside = self._inside(encode(path))
            snapshots = purge.seen_by(self._tree.active, fileset, inside)
            if not snapshots:
                purge.refuse_missing(inside)
            for snapshot in snapshots:
                purge.refuse_changing(self._tree.active, snapshot)
            return [snapshot.name for snapshot in snapshots]

    def purges(self) -> builtins.list[Purge]:
        """What was ever purged from snapshots of this store, oldest first."""
        with self._store.lock:
            return audit.purges(self._store)

    def _remove_active(self, fileset: FilesetId, path: bytes) -> None:
        parent = make_ino(fileset, ROOT_NUMBER)
        *above, name = purge.split(path)
        try:
            for each in above:
                parent = self._tree.reader.lookup(parent, each)
            self._tree.reader.named(parent, name)
        except FileNotFoundError:
            return
        remove_tree(self._tree, parent, name)
        self._store.commit()


_REASON_SIZE_MAX = 1000


def _user_name() -> str:
    from pwd import getpwuid

    try:
        return getpwuid(os.getuid()).pw_name
    except KeyError:
        return ""
