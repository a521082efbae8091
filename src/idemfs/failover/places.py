"""Stores by their paths: a store together with its peers, opened.

A path is only where a store was seen last. What stands there is taken for the store only if its guid says so.
All stores of a command are opened at its start, each with its lock, so that nobody changes roles meanwhile.

Threads: one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from idemfs.clock import Clock
from idemfs.errors import IdemfsError, PeerError, StoreInUse, StoreMissing
from idemfs.failover import records
from idemfs.failover.facts import Unreachable
from idemfs.failover.records import PeerRecord
from idemfs.failover.stage import Stage, guid_of
from idemfs.ids import Guid
from idemfs.store.files import open_files
from idemfs.store.peek import read_superblock
from idemfs.store.store import Store
from idemfs.vfs.tree import Tree


@contextmanager
def open_stage(path: str, *, readonly: bool = False, clock: Clock | None = None) -> Iterator[Stage]:
    """The store at ``path`` and those of its peers that can be opened. ``readonly`` changes and locks nothing.

    Raises as ``open_files`` does for the store itself; a peer that cannot be opened is told in the facts.
    """
    with ExitStack() as stack:
        me = Tree(open_store(stack, path, readonly=readonly, clock=clock))
        peers: dict[Guid, Tree] = {}
        paths = {guid_of(me): path}
        missing: list[Unreachable] = []
        for record in records.get_peers(me.store):
            try:
                peers[record.guid] = _open_peer(stack, record, readonly, clock)
                paths[record.guid] = record.path
            except (IdemfsError, OSError) as error:
                missing.append(_unreachable(record, error))
        yield Stage(me=me, peers=peers, paths=paths, missing=missing)


def open_store(stack: ExitStack, path: str, *, readonly: bool = False, clock: Clock | None = None) -> Store:
    """The store at ``path``, closed with ``stack``. Raises as ``open_files`` does."""
    store = open_files(path, readonly=readonly, background=False, clock=clock)
    stack.callback(store.close)
    return store


def _open_peer(stack: ExitStack, record: PeerRecord, readonly: bool, clock: Clock | None) -> Tree:
    # Looked at before it is opened: opening makes changes to a store that was not closed well.
    if read_superblock(record.path).guid != record.guid:
        raise PeerError("another store stands there")
    return Tree(open_store(stack, record.path, readonly=readonly, clock=clock))


def _unreachable(record: PeerRecord, error: Exception) -> Unreachable:
    if isinstance(error, StoreInUse):
        reason = f"in use by process {error.pid}"
        return Unreachable(guid=record.guid, path=record.path, reason=reason, is_alive=True)
    if isinstance(error, StoreMissing):
        return Unreachable(guid=record.guid, path=record.path, reason="no store there")
    text = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
    return Unreachable(guid=record.guid, path=record.path, reason=text.removeprefix(f"{record.path}: "))
