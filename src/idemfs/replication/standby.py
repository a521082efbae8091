"""The store at a path that a stream is for: opened, or made as a standby when there is none.

A store that is made here belongs to no user yet: it gets no root directory of its own, and it is a standby before
anything can be written to it.

Threads: one.
"""

from __future__ import annotations

import os

from idemfs.clock import Clock
from idemfs.errors import StreamRefused
from idemfs.format import role
from idemfs.format.role import Role, RoleRecord
from idemfs.ids import ROOT_FILESET
from idemfs.limits import INLINE_SIZE_MAX
from idemfs.replication.apply import judge_name
from idemfs.replication.codec import Header
from idemfs.replication.records import START
from idemfs.store.files import create_files, open_files
from idemfs.store.store import Store
from idemfs.vfs.tree import Tree


def open_standby(path: str, header: Header, *, clock: Clock | None = None) -> Tree:
    """The store at ``path``; when there is nothing, a new standby of the stream's source. The caller closes it.

    Raises ``StreamRefused`` when there is nothing and the stream is no full one, and as the functions that do it.
    """
    if _is_free(path):
        judge_name(header)
        _refuse_unless_full(path, header)
        create_files(path, block_size=header.block_size, fileset_guid=header.fileset, clock=clock)
    # Committing in the background, since a slow stream is to be durable as it comes.
    store = open_files(path, clock=clock)
    try:
        if _is_new(store, header):
            _make_standby(store, header.epoch)
        return Tree(store)
    except BaseException:
        store.abandon()
        raise


def _is_free(path: str) -> bool:
    try:
        return not os.listdir(path)
    except FileNotFoundError:
        return True
    except NotADirectoryError:
        return False


def _refuse_unless_full(path: str, header: Header) -> None:
    if header.base is not None or header.after != START:
        raise StreamRefused(
            f"{path}: no store here, and the stream starts from a snapshot: send without --base to make a standby"
        )
    if header.inline_size != INLINE_SIZE_MAX:
        raise StreamRefused(
            f"{path}: the stream comes from a store with inline files up to {header.inline_size} bytes, "
            f"and this idemfs makes stores with {INLINE_SIZE_MAX}"
        )


def _is_new(store: Store, header: Header) -> bool:
    """Whether the store was made for this stream's source, and nothing ever came into it: not even a role, since
    whoever made it was interrupted."""
    fileset = store.catalog.filesets[ROOT_FILESET]
    is_empty = fileset.next_number == 1 and not store.catalog.all_snapshots(ROOT_FILESET)
    return is_empty and store.small.get(role.KEY) is None and fileset.guid == header.fileset


def _make_standby(store: Store, epoch: int) -> None:
    with store.lock:
        store.admit(1, 100)
        store.small.put(role.KEY, role.pack(RoleRecord(Role.STANDBY, epoch, epoch)))
        # crash: a store with no role is a primary, so this one has its own before anybody can use it.
        store.commit()
