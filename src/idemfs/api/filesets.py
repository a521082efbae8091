"""Filesets of an open store, by name or by path.

Threads: any.
"""

from __future__ import annotations

import builtins
import os
from collections.abc import Iterator
from functools import cached_property

from idemfs.api.names import AnyPath, encode, named
from idemfs.api.snapshots import Snapshots
from idemfs.errors import BadFilesetName
from idemfs.format import tables
from idemfs.ids import ROOT_FILESET, ROOT_NUMBER, fileset_of, make_ino
from idemfs.snapshots import clones
from idemfs.snapshots.info import SnapshotInfo
from idemfs.snapshots.usage import COMPRESSIONS, FilesetInfo, shared_bytes
from idemfs.vfs.paths import Paths
from idemfs.vfs.tree import Tree


def _info(tree: Tree, record: tables.Fileset, path: str | None, *, shared: bool) -> FilesetInfo:
    info = FilesetInfo(tree.store, record, path)
    if shared:
        info.shared_bytes = shared_bytes(tree.store, record)
    return info


class Fileset:
    """One fileset of an open store. Its files are those of the file system below ``path``."""

    def __init__(self, tree: Tree, record: tables.Fileset, paths: Paths) -> None:
        self._tree = tree
        self._record = record
        self._paths = paths

    @property
    def name(self) -> str:
        return self._record.name

    @property
    def path(self) -> str | None:
        """Where it appears now; None when no directory leads to it."""
        return path_of(self._tree, self._record)

    @cached_property
    def snapshots(self) -> Snapshots:
        """Its own snapshots."""
        return Snapshots(self._tree, self._record.number)

    def info(self, *, shared: bool = False) -> FilesetInfo:
        """``shared``: with ``shared_bytes``, which takes a pass over all its maps."""
        with self._tree.store.lock:
            if not self._tree.store.readonly:
                # What the open group changes is counted when it is sealed.
                self._tree.active.settle()
            return _info(self._tree, self._record, self.path, shared=shared)

    def last_origin(self) -> SnapshotInfo | None:
        """The deleted snapshot that stays for this clone alone, and goes with it; None if there is none."""
        store = self._tree.store
        with store.lock:
            if not store.readonly:
                self._tree.active.settle()
            snapshot = clones.last_origin(store, self._record.number)
            return None if snapshot is None else SnapshotInfo(snapshot, store.catalog.filesets[snapshot.fileset])

    def rename(self, name: str) -> None:
        """Durable on return. Raises ``BadFilesetName``, ``FilesetExists``."""
        self._tree.rename_fileset(self._record, name)
        self._tree.store.commit()

    def set_quota(
        self, size: int | None = None, inodes: int | None = None, *, counts_snapshots: bool | None = None
    ) -> None:
        """Limit the bytes and the inodes that it holds; 0 is no limit, None leaves what is there. Durable on return.

        ``counts_snapshots``: whether the bytes are those of its active state and of its snapshots, or of the active
        state alone. What would exceed a quota fails with ``QuotaExceeded``, an ``OSError`` with EDQUOT.
        """
        self._tree.set_quota(self._record, quota_bytes=size, quota_inodes=inodes, counts_snapshots=counts_snapshots)
        self._tree.store.commit()

    def attach(self, path: AnyPath) -> None:
        """Let it appear at an empty directory, and no longer where it was; durable on return."""
        try:
            parent, last, _ = self._paths.entry(encode(path))
            self._tree.attach_fileset(self._record, parent, last)
        except OSError as error:
            named(error, path)
            raise
        self._tree.store.commit()

    def promote(self) -> None:
        """Make a clone independent of its origin, which may go then; durable on return. No data is copied.

        Raises ``FilesetError`` for what is no clone, ``NoSpace``, ``CommitFailed``; it goes on when the store is
        opened again.
        """
        self._tree.promote_fileset(self._record)

    def delete(self, *, held: bool = False) -> None:
        """Delete it with its snapshots, and the directory where it appears; durable on return.

        ``held``: also when somebody holds a snapshot of it. Raises ``FilesetInUse``, ``NoSpace``, ``CommitFailed``.
        """
        self._tree.refuse_changing(self._record.number)
        self._tree.delete_fileset(self._record, held=held)

    def check_deletable(self, *, held: bool = False) -> None:
        """Raises what ``delete`` would raise."""
        self._tree.refuse_deleting(self._record, held=held)

    def __repr__(self) -> str:
        return f"<Fileset {self.name!r}>"


class Filesets:
    """The filesets of a store; iterating gives a ``FilesetInfo`` each, the root fileset first.

    What raises ``FilesetMissing`` does so for a name that no fileset has.
    """

    def __init__(self, tree: Tree, paths: Paths) -> None:
        self._tree = tree
        self._store = tree.store
        self._paths = paths

    def create(self, path: AnyPath, name: str | None = None, *, compression: str = "store") -> Fileset:
        """A new fileset that appears at ``path``: an empty directory, or one that is made; durable on return.

        ``name``: the last name of the path unless given. ``compression`` of what is written there: ``none``,
        ``zstd``, or as the ``store`` says. Raises ``BadFilesetName``, ``FilesetExists``, ``OSError``, ``ValueError``,
        and ``FilesetError`` for the root and for ``.snapshots``, by which a mount shows snapshots.
        """
        raw = encode(path)
        if compression not in COMPRESSIONS:
            raise ValueError(f"compression {compression!r} is none of: {', '.join(COMPRESSIONS)}")
        try:
            self._tree.refuse_unless_primary()
            with self._store.lock:
                parent, last, _ = self._paths.entry(raw)
                record = self._tree.make_fileset(
                    parent,
                    last,
                    _default_name(last) if name is None else name,
                    os.geteuid(),
                    os.getegid(),
                    compression=COMPRESSIONS[compression],
                )
        except OSError as error:
            named(error, path)
            raise
        self._tree.store.commit()
        return Fileset(self._tree, record, self._paths)

    def clone(self, snapshot: str, path: AnyPath, name: str | None = None) -> Fileset:
        """A new writable fileset with all that a snapshot has, and one record to make; durable on return.

        ``snapshot``: ``NAME`` of the root fileset, or ``FILESET@NAME``; ``path`` and ``name`` as for ``create``. It
        counts as its own what it changes. Raises ``SnapshotMissing``, and as ``create``.
        """
        raw = encode(path)
        try:
            self._tree.refuse_unless_primary()
            with self._store.lock:
                origin = self._store.catalog.by_name(*self._store.catalog.snapshot_place(snapshot))
                parent, last, _ = self._paths.entry(raw)
                fileset_name = _default_name(last) if name is None else name
                record = self._tree.clone_snapshot(origin, parent, last, fileset_name, os.geteuid(), os.getegid())
        except OSError as error:
            named(error, path)
            raise
        self._tree.store.commit()
        return Fileset(self._tree, record, self._paths)

    def list(self, *, shared: bool = False) -> builtins.list[FilesetInfo]:
        """All of them, with exactly what each takes now; ``shared`` as for ``Fileset.info``."""
        with self._store.lock:
            if not self._store.readonly:
                self._tree.active.settle()
            return [
                _info(self._tree, record, path_of(self._tree, record), shared=shared)
                for record in self._store.catalog.listed_filesets()
            ]

    def __iter__(self) -> Iterator[FilesetInfo]:
        return iter(self.list())

    def __len__(self) -> int:
        with self._store.lock:
            return len(self._store.catalog.listed_filesets())

    def __contains__(self, name: object) -> bool:
        with self._store.lock:
            return isinstance(name, str) and self._store.catalog.has_fileset(name)

    def __getitem__(self, name: str) -> Fileset:
        with self._store.lock:
            return Fileset(self._tree, self._store.catalog.fileset_named(name), self._paths)

    def at(self, path: AnyPath) -> Fileset:
        """The fileset that holds what has this path. Raises ``OSError``."""
        try:
            with self._store.lock:
                ino = self._paths.find(encode(path))
                return Fileset(self._tree, self._store.catalog.filesets[fileset_of(ino)], self._paths)
        except OSError as error:
            named(error, path)
            raise


def path_of(tree: Tree, record: tables.Fileset) -> str | None:
    """Where a fileset appears; None when no directory leads to it."""
    with tree.store.lock:
        at = record
        while at.number != ROOT_FILESET:
            junction = tree.reader.view.inode(at.junction) if at.junction else None
            if junction is None or not junction.nlink:
                return None
            at = tree.store.catalog.filesets[fileset_of(at.junction)]
        return os.fsdecode(tree.reader.path(make_ino(record.number, ROOT_NUMBER)))


def _default_name(last: bytes) -> str:
    try:
        return last.decode()
    except UnicodeDecodeError:
        raise BadFilesetName(f"{os.fsdecode(last)!r} is not valid Unicode; choose a name for the fileset") from None
