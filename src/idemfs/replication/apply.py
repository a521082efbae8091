"""Receive: a stream into a standby, as a new snapshot of it or not at all.

The header is judged before anything changes. Then records are applied, which nobody sees; at the end the digest of the
active state must be the one that the primary's snapshot has, and only then the snapshot is made. A stream
that ends early leaves what came: the same change set, sent again or from ``resume_cursor`` on, goes on from there.
Received twice is received once.

Threads: takes the store's lock step by step, never while it reads from the stream.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from idemfs.errors import BadSnapshotName, NotStandby, StreamDamaged, StreamRefused
from idemfs.format import role
from idemfs.format.role import Role
from idemfs.format.tables import COMPLETE, PINNED, Snapshot
from idemfs.ids import ROOT_FILESET, FilesetId, Guid
from idemfs.limits import SNAPSHOT_COUNT_MAX, SNAPSHOT_NAME_SIZE_MAX
from idemfs.replication import partial
from idemfs.replication.applier import OVERTAKEN, Applier, empty
from idemfs.replication.codec import Header, StreamReader
from idemfs.replication.description import Origin
from idemfs.replication.partial import Partial
from idemfs.replication.records import START, Cursor
from idemfs.snapshots import bring_back, clones, delete, drop, lines, manage, received
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


class Reception:
    """One change set on its way into a fileset: begun, then applied, and complete together with others, or alone."""

    def __init__(self, tree: Tree, stream: StreamReader, fileset: FilesetId = ROOT_FILESET) -> None:
        """Judges the header, and begins. Raises as ``receive``."""
        self._tree = tree
        self._stream = stream
        self.fileset = fileset
        self.header = stream.header
        store = tree.store
        with store.exclusive():
            base = _judge(tree, fileset, self.header)
            self.held = store.catalog.by_guid(fileset, self.header.target.guid)
            """The target, if it is there already: then there is nothing to apply."""
            self._begun = None if self.held is not None else _begin(tree, fileset, self.header, base)

    def apply(self, progress: Callable[[int], object] | None = None) -> None:
        """Read the stream to its end. What came is kept, and nobody sees it."""
        if self._begun is None:
            return
        applier = Applier(self._tree, self.header, self._begun, self.fileset)
        for batch in self._stream.batches():
            applier.apply(batch.changes)
            if progress is not None:
                progress(self._stream.size)
        assert self._stream.end is not None

    def refuse_if_overtaken(self) -> None:
        """Raises ``StreamRefused`` when what is half received is not this change set any more.

        One that was sent again, since its connection seemed lost, may have been completed by then.
        """
        half = partial.get(self._tree.store, self.fileset)
        begun = self._begun
        if half is None or begun is None or half.is_dropping or (half.target, half.base) != (begun.target, begun.base):
            raise StreamRefused(OVERTAKEN)

    @property
    def is_resumed(self) -> bool:
        """Whether a part of it had come before."""
        return self._begun is not None and self._begun.cursor > START

    def outcome(self, snapshot: Snapshot) -> Received:
        """``snapshot``: the target, as it is there now."""
        if self._begun is None:
            return Received(snapshot, self._stream.size, 0, resumed=False, was_held=True)
        end = self._stream.end
        assert end is not None
        return Received(snapshot, self._stream.size, end.records, resumed=self.is_resumed)


def receive(tree: Tree, read: Callable[[int], bytes], *, progress: Callable[[int], object] | None = None) -> Received:
    """Take the change set of the root fileset that ``read`` gives; the new snapshot is durable on return.

    ``read(size)`` returns up to ``size`` bytes, none at the end. ``progress`` is told the bytes so far.
    Raises ``NotStandby``, ``StreamRefused`` (nothing has changed), ``StreamDamaged``, ``StreamTooNew``,
    ``StreamInterrupted`` (what came is kept), ``NoSpace`` (likewise), ``CommitFailed``.
    """
    return receive_stream(tree, StreamReader(read), progress=progress)


def receive_stream(
    tree: Tree,
    stream: StreamReader,
    *,
    fileset: FilesetId = ROOT_FILESET,
    progress: Callable[[int], object] | None = None,
    also: Callable[[], None] | None = None,
) -> Received:
    """As ``receive``, when the header was read before, into any ``fileset``. ``also``: as for ``complete``."""
    reception = Reception(tree, stream, fileset)
    reception.apply(progress)
    if reception.held is not None:
        return reception.outcome(reception.held)
    return reception.outcome(complete(tree, [reception], also)[0])


def complete(tree: Tree, receptions: Sequence[Reception], also: Callable[[], None] | None = None) -> list[Snapshot]:
    """Make snapshots of what was applied, all of them in one group: readers see all, or none.

    ``also`` puts what else belongs to that group, and has admitted nothing: a few records of each fileset.
    Raises ``StreamRefused`` when one of them is not what was sent: that one is dropped, the others wait; and, with
    nothing changed, when one was overtaken by another reception, or by a later epoch.
    """
    store, count = tree.store, len(receptions)
    wrong: list[Reception] = []

    def choose() -> set[FilesetId]:
        wrong.extend(each for each in receptions if not _is_as_sent(tree, each))
        return set() if wrong else {each.fileset for each in receptions}

    def joined(snapshot: Snapshot) -> bool:
        if snapshot.fileset == receptions[0].fileset:
            # The end of the receiving records is in no other group than the snapshots.
            for each in receptions:
                _end(tree, each)
            if also is not None:
                also()
        return True

    with store.exclusive():
        # A command may have made it a primary since the streams began, or somebody else one of another epoch.
        refuse_unless_standby(tree)
        for reception in receptions:
            refuse_past(_seen_epoch(tree, reception.fileset), reception.header.epoch)
            reception.refuse_if_overtaken()
        room = 4 * count + _room(store, also)
        made = manage.create_all(
            store,
            [(each.fileset, _free_name(tree, each.fileset, each.header.name)) for each in receptions],
            guids=tuple(each.header.target.guid for each in receptions),
            created_ns=receptions[0].header.created_ns,
            joined=joined,
            chosen=manage.Choice(choose, room, 500 * room),
        )
        if wrong:
            drop_partial(tree, wrong[0].fileset)
            raise StreamRefused(
                "what came does not make the snapshot that was sent: the digests differ; nothing was kept. "
                "Send it again; if that does not help, run 'idemfs check' on both stores"
            )
        # Whoever looked meanwhile found no snapshot yet.
        tree.moves += 1
        return made


def _room(store: Store, also: Callable[[], None] | None) -> int:
    return 0 if also is None else 4 * len(store.catalog.filesets)


def _is_as_sent(tree: Tree, reception: Reception) -> bool:
    fileset = tree.store.catalog.filesets[reception.fileset]
    header = reception.header
    return (fileset.digest, fileset.inode_count) == (header.target.digest, header.inode_count)


def _end(tree: Tree, reception: Reception) -> None:
    """Nothing is under way any more, and the target is the base of what comes next."""
    store, header = tree.store, reception.header
    partial.put(store, None, reception.fileset)
    received.put_base(store, header.target.guid, reception.fileset)
    fileset = store.catalog.filesets[reception.fileset]
    fileset.next_number = max(fileset.next_number, header.next_number)
    store.catalog.changed_fileset(reception.fileset)
    tree.moves += 1


def is_half_received(store: Store) -> bool:
    return any(partial.get(store, number) is not None for number in store.catalog.filesets)


def resume_cursor(tree: Tree, fileset: FilesetId = ROOT_FILESET) -> Cursor | None:
    """Where the sender of the half-received change set may go on; None: there is none."""
    with tree.store.lock:
        half = partial.get(tree.store, fileset)
    return None if half is None or half.is_dropping else half.cursor


def drop_partials(tree: Tree) -> bool:
    """Undo every half-received change set; durable on return. Whether there was one. Raises as ``drop_partial``."""
    numbers = [each.number for each in tree.store.catalog.listed_filesets()]
    return sum(drop_partial(tree, number) for number in numbers) > 0


def drop_partial(tree: Tree, fileset: FilesetId = ROOT_FILESET) -> bool:
    """Undo a half-received change set; durable on return. Whether there was one.

    Raises ``NoSpace``, ``CommitFailed``; what was begun goes on when this is called again.
    """
    store = tree.store
    with store.exclusive():
        half = partial.get(store, fileset)
        if half is None:
            return False
        store.admit(1, partial.RECORD_SIZE_MAX)
        partial.put(store, half._replace(is_dropping=True), fileset)
        snapshots = store.catalog.snapshots(fileset)
        base = received.base(store, fileset) or (snapshots[-1] if snapshots else None)
        if base is None:
            _drop_all(tree, fileset)
            return True
        if received.is_anew(store, fileset):
            # There was nothing before it; the snapshots that were put aside keep what they see.
            empty(tree, fileset)
        elif base.id == store.catalog.filesets[fileset].newest:
            bring_back.rollback(tree.active, fileset)
        else:
            bring_back.go_back(tree.active, base)
        store.admit(1, partial.RECORD_SIZE_MAX)
        partial.put(store, None, fileset)
        tree.moves += 1
        # crash: the record goes last, so that until then the next opening knows that something is to be undone.
        store.commit()
        return True


def _drop_all(tree: Tree, number: FilesetId) -> None:
    """A fileset that never had a snapshot holds nothing again, and is a clone of nothing."""
    store, active = tree.store, tree.active
    fileset = store.catalog.filesets[number]
    # What is in the open group was summed up as that of a clone.
    store.commit(wait=False)
    store.admit(4, 1000, frees=True)
    active.settle(forgets=True)
    gone = clones.forsake(active, fileset)
    # crash: the record that says that all is dropped is there; what stands there belongs to no clone from here on.
    store.commit()
    drop.empty(active, fileset)
    store.admit(4, partial.RECORD_SIZE_MAX)
    partial.put(store, None, number)
    tree.moves += 1
    # crash: the record goes last, as below.
    store.commit()
    if gone is not None:
        delete.finish(active, gone)


# -- steps ---------------------------------------------------------------------------------------------


def _judge(tree: Tree, fileset: FilesetId, header: Header) -> Snapshot | None:
    """The base here; None for a full stream. Raises ``StreamRefused``, ``StreamDamaged``, ``NotStandby``."""
    store = tree.store
    refuse_unless_standby(tree)
    if header.fileset != store.catalog.filesets[fileset].guid:
        raise StreamRefused("the stream is of another store, not of the one that this is a standby of")
    judge_format(tree, header)
    judge_name(header)
    refuse_past(_seen_epoch(tree, fileset), header.epoch)
    if store.catalog.by_guid(fileset, header.target.guid) is not None:
        return None
    snapshots = store.catalog.snapshots(fileset)
    if len(snapshots) >= SNAPSHOT_COUNT_MAX:
        raise StreamRefused(f"this standby has {SNAPSHOT_COUNT_MAX} snapshots already; delete some first")
    base = received.base(store, fileset)
    if header.base is None:
        if snapshots and not received.is_anew(store, fileset):
            raise StreamRefused(
                "the stream is a full one, and this standby has snapshots already: send with --base "
                f"{base.name if base else 'and a snapshot that both have'}"
            )
        return None
    if base is None and header.description is not None and header.description.origin is not None:
        base = _origin(store, header, header.description.origin)
    if base is None or base.guid != header.base.guid:
        here = f"is at snapshot {base.name}" if base else "has received nothing yet"
        raise StreamRefused(f"the stream starts from another snapshot; this standby {here}: {_what_to_send(base)}")
    if base.digest != header.base.digest:
        raise StreamRefused(
            f"snapshot {base.name} has another digest here than where the stream comes from: "
            "run 'idemfs check' on both stores"
        )
    return base


def find_origin(store: Store, fileset: Guid, snapshot: Guid) -> Snapshot | None:
    """The snapshot of a fileset that clones may rest on here: complete, or deleted but for the clones it has."""
    for each in lines.own_filesets(store):
        if each.guid == fileset:
            known = store.catalog.all_snapshots(each.number)
            return next((it for it in known if it.guid == snapshot and it.state in (COMPLETE, PINNED)), None)
    return None


def _origin(store: Store, header: Header, origin: Origin) -> Snapshot:
    """The snapshot here that the stream's clone was made from. Raises ``StreamRefused``, ``StreamDamaged``."""
    found = find_origin(store, origin.fileset, origin.snapshot)
    if found is None:
        raise StreamRefused(
            "the stream is of a clone, and the snapshot that it was made from is not here: send it in full"
        )
    if origin.fileset == header.fileset or origin.next_number > header.next_number:
        raise StreamDamaged("the stream is damaged: what it says of its clone makes no sense")
    return found


def refuse_unless_standby(tree: Tree) -> None:
    """Raises ``NotStandby``."""
    if tree.role.role is not Role.STANDBY:
        raise NotStandby("this store is no standby, so it receives nothing; 'idemfs failback' makes an old primary one")


def refuse_past(seen_epoch: int, epoch: int) -> None:
    """Raises ``StreamRefused`` for a sender of an ``epoch`` that another one has ended."""
    if epoch < seen_epoch:
        raise StreamRefused(
            f"the stream is of epoch {epoch}, and epoch {seen_epoch} has begun: send from the store that is primary now"
        )


def judge_format(tree: Tree, header: Header) -> None:
    """Raises ``StreamRefused`` for blocks of other sizes than this store has."""
    block = tree.store.superblock
    ours = block.block_size, block.inline_size, block.entry_count
    theirs = header.block_size, header.inline_size, header.entry_count
    if ours != theirs:
        raise StreamRefused(
            f"the stream has blocks of {header.block_size} bytes (inline up to {header.inline_size}), this store of "
            f"{block.block_size} ({block.inline_size}): make a standby with the block size of its primary"
        )


def judge_name(header: Header) -> None:
    """Raises ``StreamDamaged`` for a name that no snapshot can have."""
    try:
        manage.check_name(header.name)
    except BadSnapshotName as bad:
        raise StreamDamaged(f"the stream is damaged: {bad}") from bad


def _seen_epoch(tree: Tree, fileset: FilesetId) -> int:
    """The highest epoch that was heard of: of the store's own line, or of the one that this fileset comes from."""
    line = lines.line_of(tree.store, fileset)
    return tree.role.seen_epoch if line is None else line.seen_epoch


def _put_seen_epoch(tree: Tree, fileset: FilesetId, epoch: int) -> None:
    line = lines.line_of(tree.store, fileset)
    if line is not None:
        lines.put_line(tree.store, fileset, line._replace(seen_epoch=epoch))
        return
    tree.store.small.put(role.KEY, role.pack(tree.role._replace(seen_epoch=epoch)))
    tree.reload_role()


def _what_to_send(base: Snapshot | None) -> str:
    return f"send with --base {base.name}" if base else "send without --base"


def _begin(tree: Tree, fileset: FilesetId, header: Header, base: Snapshot | None) -> Partial:
    """What was received of this change set, or the record that it has begun. Another one is dropped."""
    store = tree.store
    wanted = Partial(header.target.guid, None if base is None else Guid(base.guid), START, header.name)
    half = partial.get(store, fileset)
    goes_on = half is not None and not half.is_dropping and (half.target, half.base) == (wanted.target, wanted.base)
    begun = half if goes_on and half is not None else wanted
    if header.after > begun.cursor:
        raise StreamRefused(
            f"the stream begins at {header.after.to_text()}, and what came before it is missing: "
            + (f"send with --resume {begun.cursor.to_text()}" if goes_on else "send it without --resume")
        )
    if not goes_on:
        drop_partial(tree, fileset)
        # crash: nothing relies on it; sealing brings the digest up to date.
        store.commit(wait=False)
        is_clone = base is not None and base.fileset != fileset
        if store.catalog.filesets[fileset].digest != (base.digest if base and not is_clone else 0):
            raise StreamRefused(
                f"the active state of this standby is not that of snapshot {base.name}"
                if base
                else "this standby holds files, but no snapshot: nothing can be received into it"
            )
    store.admit(5, partial.RECORD_SIZE_MAX + 1000)
    partial.put(store, begun, fileset)
    if not goes_on and base is not None and base.fileset != fileset:
        assert header.description is not None and header.description.origin is not None
        clones.rest(tree.active, store.catalog.filesets[fileset], base, header.description.origin.next_number)
    if header.epoch > _seen_epoch(tree, fileset):
        _put_seen_epoch(tree, fileset, header.epoch)
    return begun


def _free_name(tree: Tree, fileset: FilesetId, wanted: str) -> str:
    """The name as sent; when a snapshot of this store has it already, another one that begins so."""
    name = manage.unique_name(tree.store, fileset, wanted)
    if len(name.encode()) <= SNAPSHOT_NAME_SIZE_MAX:
        return name
    short = wanted.encode()[: SNAPSHOT_NAME_SIZE_MAX - _SUFFIX_SIZE_MAX].decode(errors="ignore")
    return manage.unique_name(tree.store, fileset, short)
