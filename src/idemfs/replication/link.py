"""Two open stores in one process: carry out the plan that brings the second up to the first.

Frames are made when the receiver asks for them, so that one frame at a time is under way. The newest common snapshot is
held on the source for this standby; that hold moves on with each change set that is complete, never before.

Threads: as in ``send`` and ``apply``; the two stores' locks are never held together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeAlias

from idemfs.errors import PeerError, SnapshotMissing
from idemfs.format.tables import Snapshot
from idemfs.ids import Guid
from idemfs.replication import partial, plan
from idemfs.replication.apply import receive
from idemfs.replication.plan import Held, Plan, Side
from idemfs.replication.records import Cursor
from idemfs.replication.send import Frames
from idemfs.snapshots import manage, received
from idemfs.vfs.tree import Tree

Progress: TypeAlias = Callable[[Guid, int], object]
"""Told the guid of the snapshot that is under way, and the bytes of its stream so far."""


class Transfer(NamedTuple):
    """One change set that came through; ``base`` and ``target`` are names of the source's snapshots."""

    base: str | None
    target: str
    bytes: int
    records: int
    block_bytes: int
    resumed: bool


class Report(NamedTuple):
    """``common``: the newest snapshot of both before, None if there was none."""

    common: Held | None
    transfers: tuple[Transfer, ...]

    @property
    def bytes(self) -> int:
        return sum(transfer.bytes for transfer in self.transfers)

    @property
    def records(self) -> int:
        return sum(transfer.records for transfer in self.transfers)

    @property
    def block_bytes(self) -> int:
        return sum(transfer.block_bytes for transfer in self.transfers)


def hold_owner(store_guid: Guid) -> str:
    """Who holds snapshots of a primary for the standby whose store has this guid."""
    return f"standby:{store_guid.hex()}"


def side_of(tree: Tree) -> Side:
    """What the plan needs to know of an open store."""
    store = tree.store
    with store.lock:
        base = received.base(store, tree.fileset)
        return Side(
            store.catalog.filesets[tree.fileset].guid,
            [Held(snapshot.guid, snapshot.name) for snapshot in store.catalog.snapshots(tree.fileset)],
            None if base is None else base.guid,
        )


def replicate_into(source: Tree, target: Tree, progress: Progress | None = None) -> Report:
    """Bring ``target`` to the newest snapshot of ``source``; durable on return, snapshot by snapshot.

    Raises ``PeerError`` when there is no way from one to the other, and what sending and receiving raise.
    """
    made = plan.make_plan(side_of(source), side_of(target))
    if not isinstance(made, Plan):
        raise PeerError(plan.explain(made))
    owner = hold_owner(target.store.superblock.guid)
    if made.common is not None:
        _hold_only(source, owner, _snapshot(source, made.common))
    transfers = []
    for step in made.steps:
        base = None if step.base is None else _snapshot(source, step.base)
        transfers.append(_transfer(source, target, base, _snapshot(source, step.target), owner, progress))
    return Report(made.common, tuple(transfers))


def _transfer(
    source: Tree, target: Tree, base: Snapshot | None, snapshot: Snapshot, owner: str, progress: Progress | None
) -> Transfer:
    # Held while it is under way, too: who prunes meanwhile leaves it alone.
    manage.hold(source.store, snapshot, owner)
    frames = Frames(source, base, snapshot, after=_cursor(target, base, snapshot))
    told = None if progress is None else lambda size: progress(snapshot.guid, size)
    outcome = receive(target, _Pipe(iter(frames)).read, progress=told)
    _hold_only(source, owner, snapshot)
    sent = frames.sent
    base_name = None if base is None else base.name
    return Transfer(base_name, snapshot.name, sent.bytes, sent.records, sent.block_bytes, outcome.resumed)


def _cursor(target: Tree, base: Snapshot | None, snapshot: Snapshot) -> Cursor | None:
    """Where this change set goes on, if the receiver has a part of it."""
    with target.store.lock:
        half = partial.get(target.store)
    if half is None or half.is_dropping or half.target != snapshot.guid:
        return None
    return half.cursor if half.base == (None if base is None else base.guid) else None


def _hold_only(source: Tree, owner: str, snapshot: Snapshot) -> None:
    """``snapshot`` is the one that ``owner`` holds."""
    store = source.store
    with store.lock:
        manage.hold(store, snapshot, owner)
        for other in store.catalog.all_snapshots(source.fileset):
            if other.id != snapshot.id and owner in manage.holders(store, other):
                manage.release(store, other, owner)
        # crash: the next change set may be refused without this snapshot, so its hold is durable before that begins.
        store.commit()


def _snapshot(tree: Tree, held: Held) -> Snapshot:
    with tree.store.lock:
        snapshot = tree.store.catalog.by_guid(tree.fileset, held.guid)
    if snapshot is None:
        raise SnapshotMissing(f"snapshot {held.name} was deleted meanwhile; repeat the command")
    return snapshot


class _Pipe:
    """Chunks of bytes as something to read from."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._chunk = memoryview(b"")

    def read(self, size: int) -> bytes:
        while not self._chunk:
            chunk = next(self._chunks, None)
            if chunk is None:
                return b""
            self._chunk = memoryview(chunk)
        data, self._chunk = bytes(self._chunk[:size]), self._chunk[size:]
        return data
