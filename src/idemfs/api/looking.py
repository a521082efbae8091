"""What can be asked of the snapshots of a fileset together: differences, versions of a file, what they take.

Threads: any.
"""

from __future__ import annotations

import builtins
import errno
import os
from collections.abc import Iterator

from idemfs.api.names import AnyPath, encode
from idemfs.errors import SnapshotError
from idemfs.format.role import Role
from idemfs.format.tables import Snapshot
from idemfs.ids import ROOT_FILESET, ROOT_NUMBER, FilesetId, SnapshotId, make_ino
from idemfs.snapshots import diff, freed, history, received
from idemfs.snapshots.diff import Change
from idemfs.snapshots.drills import is_drill
from idemfs.snapshots.history import Version
from idemfs.vfs.tree import Tree


class Looking:
    """The part of ``Snapshots`` that looks at several of them, and changes none."""

    def __init__(self, tree: Tree, fileset: FilesetId = ROOT_FILESET) -> None:
        self._tree = tree
        self._store = tree.store
        self._fileset = fileset

    def diff(self, base: str, target: str | None = None) -> Iterator[Change]:
        """What changed from ``base`` to the newer ``target``; None: to the active state. By inode number.

        Changes are found as they are asked for, and what is kept in memory does not grow with them.
        """
        with self._store.lock:
            older = self._find(base)
            newer = self._find(target) if target is not None else self._shown(older.fileset)
        if newer is not None and newer.fileset != older.fileset:
            raise SnapshotError(f"{base!r} and {target!r} are of two filesets, which have nothing in common")
        if newer is not None and newer.id < older.id:
            raise SnapshotError(f"snapshot {base!r} is newer than {newer.name!r}: name the older one first")
        return diff.diff(self._tree.active, older, newer)

    def find(self, path: AnyPath) -> builtins.list[Version]:
        """The versions of the file that has, or at some time had, this path: each once, oldest first.

        They go on under other names that the file had, by its inode. The path begins at the root of the fileset, and
        may lead on into filesets that appear in it. Symbolic links are not followed. Raises ``OSError``
        (ENOENT) for a path that no state has.
        """
        with self._store.lock:
            self._settle()
            fileset, names = self._inside(encode(path))
            shows_active = self._shown(fileset) is None
            found = history.versions(self._tree.active, fileset, names, with_active=shows_active)
        if not found:
            raise FileNotFoundError(errno.ENOENT, "neither the active state nor a snapshot has it", os.fspath(path))
        return found

    def freed(self, *names: str) -> int:
        """Bytes of data that come back if just these snapshots are deleted, together; records are not counted.

        It may be more than the sum for each alone: what only two of them have comes back when both go.
        """
        with self._store.lock:
            self._settle()
            gone: dict[FilesetId, set[SnapshotId]] = {}
            for name in names:
                snapshot = self._find(name)
                gone.setdefault(snapshot.fileset, set()).add(snapshot.id)
            return freed.bytes_freed(self._tree.active, gone)

    def _settle(self) -> None:
        if not self._store.readonly:
            # What moves into the newest snapshot is known when its group is sealed.
            self._tree.active.settle()

    def _inside(self, path: bytes) -> tuple[FilesetId, bytes]:
        """The fileset in which a path of this one ends now, and the path in it."""
        names = [name for name in path.split(b"/") if name not in (b"", b".")]
        fileset, start = self._fileset, 0
        at = make_ino(fileset, ROOT_NUMBER)
        for index, name in enumerate(names):
            try:
                at = self._tree.reader.named(at, name)
            except OSError:
                break
            inner = self._store.catalog.junctions.get(at)
            if inner is not None:
                fileset, start = inner, index + 1
                at = make_ino(fileset, ROOT_NUMBER)
        return fileset, b"/" + b"/".join(names[start:])

    def _shown(self, fileset: FilesetId) -> Snapshot | None:
        """What stands for the active state: on a standby, what it received last."""
        is_received = self._tree.role.role is Role.STANDBY and not is_drill(self._store, fileset)
        return received.base(self._store, fileset) if is_received else None

    def _find(self, name: str) -> Snapshot:
        return self._store.catalog.by_name(*self._place(name))

    def _place(self, name: str) -> tuple[FilesetId, str]:
        """The fileset, and the name of the snapshot there."""
        return self._store.catalog.snapshot_place(name, self._fileset)
