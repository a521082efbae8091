"""The Python interface: a store opened as a file system, with the names and manners of ``os`` and ``open``.

``FileSystem`` is the active file system; ``fs.snapshots[name]`` is a ``SnapshotView`` with the
same reading methods. Paths are absolute inside the store: str, bytes or ``os.PathLike``; what is not UTF-8 is kept as
``os.fsencode`` does. POSIX failures are ``OSError`` with ``filename`` set; all others are ``idemfs.IdemfsError``.

Threads: any thread may use a ``FileSystem`` and its snapshots; one file object is for one thread at a time.
A process that forks must not use it in the child.
"""

from __future__ import annotations

import os

from idemfs.api.filesets import Fileset, Filesets
from idemfs.api.filesystem import FileSystem
from idemfs.api.restoring import RestoreInfo
from idemfs.api.snapshot_writing import WritableSnapshot
from idemfs.api.snapshots import Snapshots, SnapshotView
from idemfs.limits import BLOCK_SIZE_DEFAULT
from idemfs.snapshots.audit import Purge
from idemfs.snapshots.diff import Change, ChangeKind
from idemfs.snapshots.history import Version
from idemfs.snapshots.info import SnapshotInfo
from idemfs.snapshots.policy import Policy
from idemfs.snapshots.usage import FilesetInfo
from idemfs.store.files import create_files, discard_files, open_files
from idemfs.vfs.tree import Tree

__all__ = [
    "Change",
    "ChangeKind",
    "FileSystem",
    "Fileset",
    "FilesetInfo",
    "Filesets",
    "Policy",
    "Purge",
    "RestoreInfo",
    "SnapshotInfo",
    "SnapshotView",
    "Snapshots",
    "Version",
    "WritableSnapshot",
    "create",
    "open",
]


def open(path: str | os.PathLike[str], *, readonly: bool = False) -> FileSystem:
    """Open the store at ``path``; close it, or use it in a ``with``.

    ``readonly`` takes no lock, shows the last committed group, and refuses changes. It is for looking at a store that
    another process may be using: what that one changes meanwhile may be seen in part, or fail to be read.
    Raises ``StoreMissing``, ``StoreInUse``, ``FormatError``, ``OSError``.
    """
    store = open_files(os.fspath(path), readonly=readonly)
    try:
        return FileSystem(Tree(store))
    except BaseException:
        store.abandon()
        raise


def create(
    path: str | os.PathLike[str], *, block_size: int = BLOCK_SIZE_DEFAULT, compression: str = "none"
) -> FileSystem:
    """Make a store at ``path``, which does not exist or is an empty directory, and open it.

    ``block_size``: a power of two from 4 KiB to 4 MiB. ``compression``: ``none`` or ``zstd``.
    Raises ``StoreExists``, ``ValueError``, ``OSError``.
    """
    is_new = not os.path.isdir(path)
    create_files(os.fspath(path), block_size=block_size, compression=compression)
    try:
        return open(path)
    except BaseException:
        discard_files(os.fspath(path), directory=is_new)
        raise
