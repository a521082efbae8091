"""Receive: a stream into a standby, as a new snapshot of it or not at all.

The header is judged before anything changes. Then records are applied, which nobody sees; at the end the digest of the
active state must be the one that the primary's snapshot has, and only then the snapshot is made. A stream
that ends early leaves what came: the same change set, sent again or from ``resume_cursor`` on, goes on from there.
Received twice is received once.

Threads: takes the store's lock step by step, never while it reads from the stream.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from idemfs.errors import BadSnapshotName, NotStandby, StreamDamaged, StreamRefused
from idemfs.format import role
from idemfs.format.role import Role
from idemfs.format.tables import Snapshot
from idemfs.ids import Guid
from idemfs.limits import SNAPSHOT_COUNT_MAX, SNAPSHOT_NAME_SIZE_MAX
from idemfs.replication import partial
from idemfs.replication.applier import Applier, remove_all
from idemfs.replication.codec import Header, StreamReader
from idemfs.replication.partial import Partial
from idemfs.replication.records import START, Cursor
from idemfs.snapshots import bring_back, manage, received
from idemfs.store.store import Store
from idemfs.vfs.tree import Tree

_SUFFIX_SIZE_MAX = 20


class Received(NamedTuple):
    """The snapshot that is there now, ``bytes`` of the stream that were read, and records in it.

    ``resumed``: a part of it had come before. ``was_held``: the snapshot was there; nothing was read but the header.
    """

    snapshot: Snapshot
    bytes: int
    records: int
    resumed: bool
    was_held: bool = False


def receive(tree: Tree, read: Callable[[int], bytes], *, progress: Callable[[int], object] | None = None) -> Received:
    """Take the change set that ``read`` gives; the new snapshot is durable on return.

    ``read(size)`` returns up to ``size`` bytes, none at the end. ``progress`` is told the bytes so far.
    Raises ``NotStandby``, ``StreamRefused`` (nothing has changed), ``StreamDamaged``, ``StreamTooNew``,
    ``StreamInterrupted`` (what came is kept), ``NoSpace`` (likewise), ``CommitFailed``.
    """
    return receive_stream(tree, StreamReader(read), progress=progress)


def receive_stream(tree: Tree, stream: StreamReader, *, progress: Callable[[int], object] | None = None) -> Received:
    """As ``receive``, when the header was read before."""
    store, header = tree.store, stream.header
    with store.exclusive():
        base = _judge(tree, header)
        held = store.catalog.by_guid(tree.fileset, header.target.guid)
        if held is not None:
            return Received(held, stream.size, 0, resumed=False, was_held=True)
        begun = _begin(tree, header, base)
    applier = Applier(tree, header, begun)
    for batch in stream.batches():
        applier.apply(batch.changes)
        if progress is not None:
            progress(stream.size)
    assert stream.end is not None
    snapshot = _complete(tree, header)
    return Received(snapshot, stream.size, stream.end.records, resumed=begun.cursor > START)


def is_half_received(store: Store) -> bool:
    return partial.get(store) is not None


def resume_cursor(tree: Tree) -> Cursor | None:
    """Where the sender of the half-received change set may go on; None: there is none."""
    with tree.store.lock:
        half = partial.get(tree.store)
    return None if half is None or half.is_dropping else half.cursor


def drop_partial(tree: Tree) -> bool:
    """Undo a half-received change set; durable on return. Whether there was one.

    Raises ``NoSpace``, ``CommitFailed``; what was begun goes on when this is called again.
    """
    store = tree.store
    with store.exclusive():
        half = partial.get(store)
        if half is None:
            return False
        store.admit(1, partial.RECORD_SIZE_MAX)
        partial.put(store, half._replace(is_dropping=True))
        snapshots = store.catalog.snapshots(tree.fileset)
        base = received.base(store, tree.fileset) or (snapshots[-1] if snapshots else None)
        if base is None:
            remove_all(tree)
        elif base.id == store.catalog.filesets[tree.fileset].newest:
            bring_back.rollback(tree.active, tree.fileset)
        else:
            bring_back.go_back(tree.active, base)
        store.admit(1, partial.RECORD_SIZE_MAX)
        partial.put(store, None)
        tree.moves += 1
        # crash: the record goes last, so that until then the next opening knows that something is to be undone.
        store.commit()
        return True


# -- steps ---------------------------------------------------------------------------------------------


def _judge(tree: Tree, header: Header) -> Snapshot | None:
    """The base here; None for a full stream. Raises ``StreamRefused``, ``StreamDamaged``, ``NotStandby``."""
    store = tree.store
    if tree.role.role is not Role.STANDBY:
        raise NotStandby("this store is no standby, so it receives nothing; 'idemfs failback' makes an old primary one")
    _judge_format(tree, header)
    if header.epoch < tree.role.seen_epoch:
        raise StreamRefused(
            f"the stream is of epoch {header.epoch}, and epoch {tree.role.seen_epoch} has begun: "
            "send from the store that is primary now"
        )
    if store.catalog.by_guid(tree.fileset, header.target.guid) is not None:
        return None
    snapshots = store.catalog.snapshots(tree.fileset)
    if len(snapshots) >= SNAPSHOT_COUNT_MAX:
        raise StreamRefused(f"this standby has {SNAPSHOT_COUNT_MAX} snapshots already; delete some first")
    base = received.base(store, tree.fileset)
    if header.base is None:
        if snapshots:
            raise StreamRefused(
                "the stream is a full one, and this standby has snapshots already: send with --base "
                f"{base.name if base else 'and a snapshot that both have'}"
            )
        return None
    if base is None or base.guid != header.base.guid:
        here = f"is at snapshot {base.name}" if base else "has received nothing yet"
        raise StreamRefused(f"the stream starts from another snapshot; this standby {here}: {_what_to_send(base)}")
    if base.digest != header.base.digest:
        raise StreamRefused(
            f"snapshot {base.name} has another digest here than where the stream comes from: "
            "run 'idemfs check' on both stores"
        )
    return base


def _judge_format(tree: Tree, header: Header) -> None:
    block = tree.store.superblock
    if header.fileset != tree.active.fileset(tree.root).guid:
        raise StreamRefused("the stream is of another store, not of the one that this is a standby of")
    ours = block.block_size, block.inline_size, block.entry_count
    theirs = header.block_size, header.inline_size, header.entry_count
    if ours != theirs:
        raise StreamRefused(
            f"the stream has blocks of {header.block_size} bytes (inline up to {header.inline_size}), this store of "
            f"{block.block_size} ({block.inline_size}): make a standby with the block size of its primary"
        )
    judge_name(header)


def judge_name(header: Header) -> None:
    """Raises ``StreamDamaged`` for a name that no snapshot can have."""
    try:
        manage.check_name(header.name)
    except BadSnapshotName as bad:
        raise StreamDamaged(f"the stream is damaged: {bad}") from bad


def _what_to_send(base: Snapshot | None) -> str:
    return f"send with --base {base.name}" if base else "send without --base"


def _begin(tree: Tree, header: Header, base: Snapshot | None) -> Partial:
    """What was received of this change set, or the record that it has begun. Another one is dropped."""
    store = tree.store
    wanted = Partial(header.target.guid, None if base is None else Guid(base.guid), START, header.name)
    half = partial.get(store)
    goes_on = half is not None and not half.is_dropping and (half.target, half.base) == (wanted.target, wanted.base)
    begun = half if goes_on and half is not None else wanted
    if header.after > begun.cursor:
        raise StreamRefused(
            f"the stream begins at {header.after.to_text()}, and what came before it is missing: "
            + (f"send with --resume {begun.cursor.to_text()}" if goes_on else "send it without --resume")
        )
    if not goes_on:
        drop_partial(tree)
        # crash: nothing relies on it; it brings the digest up to date.
        store.commit()
        if store.catalog.filesets[tree.fileset].digest != (base.digest if base else 0):
            raise StreamRefused(
                f"the active state of this standby is not that of snapshot {base.name}"
                if base
                else "this standby holds files, but no snapshot: nothing can be received into it"
            )
    store.admit(2, partial.RECORD_SIZE_MAX + 100)
    partial.put(store, begun)
    if header.epoch > tree.role.seen_epoch:
        store.small.put(role.KEY, role.pack(tree.role._replace(seen_epoch=header.epoch)))
        tree.reload_role()
    return begun


def _complete(tree: Tree, header: Header) -> Snapshot:
    store = tree.store
    with store.exclusive():
        # crash: the digest below is that of all that was received; and the group that makes the snapshot is empty,
        # so that the end of the receiving record is in no other one.
        store.commit()
        fileset = store.catalog.filesets[tree.fileset]
        if (fileset.digest, fileset.inode_count) != (header.target.digest, header.inode_count):
            drop_partial(tree)
            raise StreamRefused(
                "what came does not make the snapshot that was sent: the digests differ; nothing was kept. "
                "Send it again; if that does not help, run 'idemfs check' on both stores"
            )
        store.admit(4, 2000)
        partial.put(store, None)
        received.put_base(store, header.target.guid)
        fileset.next_number = max(fileset.next_number, header.next_number)
        store.catalog.changed_fileset(tree.fileset)
        tree.moves += 1
        return manage.create(
            store, tree.fileset, _free_name(tree, header.name), guid=header.target.guid, created_ns=header.created_ns
        )


def _free_name(tree: Tree, wanted: str) -> str:
    """The name as sent; when a snapshot of this store has it already, another one that begins so."""
    name = manage.unique_name(tree.store, tree.fileset, wanted)
    if len(name.encode()) <= SNAPSHOT_NAME_SIZE_MAX:
        return name
    short = wanted.encode()[: SNAPSHOT_NAME_SIZE_MAX - _SUFFIX_SIZE_MAX].decode(errors="ignore")
    return manage.unique_name(tree.store, tree.fileset, short)
