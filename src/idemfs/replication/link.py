"""Two open stores in one process: carry out the plan that brings all filesets of the second up to the first.

Snapshots come in the order in which they were taken. Those that were taken at one instant have one time, and are
complete together, in one transaction group; so are the names and places of filesets as they are then.

Frames are made when the receiver asks for them, so that one frame at a time is under way. The newest common snapshot is
held on the source for this standby; that hold moves on with each change set that is complete, never before.

Threads: as in ``send`` and ``apply``; the two stores' locks are never held together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeAlias

from idemfs.errors import PeerError, SnapshotMissing
from idemfs.format.role import Role
from idemfs.format.tables import Snapshot
from idemfs.ids import ROOT_FILESET, FilesetId, Guid
from idemfs.replication import follow, holds, partial, plan, purges
from idemfs.replication.apply import Reception, complete, find_origin
from idemfs.replication.codec import StreamReader
from idemfs.replication.describe import description_of
from idemfs.replication.description import Description
from idemfs.replication.plan import Held, Plan, Side
from idemfs.replication.records import Cursor
from idemfs.replication.send import Frames, Sent
from idemfs.snapshots import clones, lines, manage, received
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
    fileset: str = "root"


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
    return f"{manage.STANDBY_PREFIX}{store_guid.hex()}"


def side_of(tree: Tree, fileset: FilesetId = ROOT_FILESET) -> Side:
    """What the plan needs to know of a fileset of an open store."""
    store = tree.store
    with store.lock:
        base = received.base(store, fileset)
        return Side(
            store.catalog.filesets[fileset].guid,
            [Held(snapshot.guid, snapshot.name) for snapshot in store.catalog.snapshots(fileset)],
            None if base is None else base.guid,
        )


def replicate_into(source: Tree, target: Tree, progress: Progress | None = None) -> Report:
    """Bring ``target`` to the newest snapshots of all filesets of ``source``; durable on return, unit by unit.

    Raises ``PeerError`` when there is no way from one to the other, and what sending and receiving raise.
    """
    _agree(source, target)
    root = _plan(source, target, ROOT_FILESET, ROOT_FILESET)
    with source.store.lock:
        wanted = {each.guid: description_of(source.store, each) for each in lines.own_filesets(source.store)}
        numbers = follow.numbers_of(source.store, wanted)
        gone = lines.gone(source.store)
    there = _make_missing(source, target, wanted, numbers)
    plans = [(ROOT_FILESET, ROOT_FILESET, root)]
    for guid, number in numbers.items():
        if number != ROOT_FILESET and guid in there:
            plans.append((number, there[guid], _plan(source, target, number, there[guid])))
    plans = _from_origins(source, target, plans)
    link = _Link(source, target, wanted, progress)
    for number, _, made in plans:
        if made.common is not None:
            link.hold_only([_snapshot(source, number, made.common)])
    transfers = [each for unit in _units(source, plans) for each in link.bring(unit)]
    link.follow_others(gone - wanted.keys(), [(number, there_number) for number, there_number, _ in plans])
    return Report(root.common, tuple(transfers))


def _agree(source: Tree, target: Tree) -> None:
    """Before it is asked what both have: clones that rest on nothing any more, and purges."""
    roots = {tree.store.catalog.filesets[ROOT_FILESET].guid for tree in (source, target)}
    if len(roots) == 1 and target.role.role is Role.STANDBY:
        follow.promote_clones(source, target)
        purges.tell(source, target)


def _from_origins(
    source: Tree, target: Tree, plans: list[tuple[FilesetId, FilesetId, Plan]]
) -> list[tuple[FilesetId, FilesetId, Plan]]:
    """``plans``, in which clones of which nothing is there begin from their origins if these are there, or will be."""
    coming = {step.target.guid for _, _, made in plans for step in made.steps}
    found = []
    for number, there, made in plans:
        origin = None
        if made.common is None and made.steps:
            origin = _origin_there(source, target, number, coming)
        found.append((number, there, made if origin is None else _plan(source, target, number, there, origin)))
    return found


def _origin_there(source: Tree, target: Tree, number: FilesetId, coming: set[Guid]) -> Held | None:
    """The origin of a clone, if the other store has it, or will have it when the clone's first snapshot comes."""
    with source.store.lock:
        origin = clones.origin_snapshot(source.store, number)
        if origin is None:
            return None
        above = source.store.catalog.filesets[origin.fileset].guid
    if origin.guid not in coming:
        with target.store.lock:
            found = find_origin(target.store, above, Guid(origin.guid))
            if found is None or found.digest != origin.digest:
                return None
    return Held(origin.guid, origin.name)


def _plan(source: Tree, target: Tree, number: FilesetId, there: FilesetId, origin: Held | None = None) -> Plan:
    """Raises ``PeerError``."""
    made = plan.make_plan(side_of(source, number)._replace(origin=origin), side_of(target, there))
    if isinstance(made, Plan):
        return made
    where = "" if number == ROOT_FILESET else f"fileset {source.store.catalog.filesets[number].name!r}: "
    raise PeerError(where + plan.explain(made))


def _make_missing(
    source: Tree, target: Tree, wanted: Mapping[Guid, Description], numbers: Mapping[Guid, FilesetId]
) -> dict[Guid, FilesetId]:
    """Numbers there of the filesets that have something to send, or are there."""
    store = target.store
    with source.store.lock:
        sent = [guid for guid, number in numbers.items() if source.store.catalog.snapshots(number)]
    with store.lock:
        there = follow.numbers_of(store, wanted)
        missing = [guid for guid in sent if guid not in there and numbers[guid] != ROOT_FILESET]
        for guid in missing:
            made = follow.make(store, guid, wanted[guid].name, wanted[guid].compression, None)
            there[guid] = made.number
        if missing:
            # crash: nothing relies on it; an empty fileset that appears nowhere is found here the next time.
            store.commit()
    return there


class _Step(NamedTuple):
    """One change set: of which fileset there, from where to where."""

    there: FilesetId
    base: Snapshot | None
    target: Snapshot


def _units(source: Tree, plans: Sequence[tuple[FilesetId, FilesetId, Plan]]) -> Iterator[list[_Step]]:
    """Change sets in the order in which their targets were taken; those taken at one instant together."""
    steps = []
    for number, there, made in plans:
        for step in made.steps:
            base = None if step.base is None else _base(source, number, step.base)
            steps.append(_Step(there, base, _snapshot(source, number, step.target)))
    unit: list[_Step] = []
    for next_step in sorted(steps, key=lambda step: step.target.id):
        if unit and (
            unit[-1].target.created_ns != next_step.target.created_ns
            or any(each.there == next_step.there for each in unit)
            # An origin is to be complete before its clone begins.
            or any(next_step.base is not None and each.target.id == next_step.base.id for each in unit)
        ):
            yield unit
            unit = []
        unit.append(next_step)
    if unit:
        yield unit


class _Link:
    """Two stores while the second is brought up to the first. ``wanted``: what the filesets of the first are."""

    def __init__(
        self, source: Tree, target: Tree, wanted: Mapping[Guid, Description], progress: Progress | None
    ) -> None:
        self._source = source
        self._target = target
        self._wanted = wanted
        self._progress = progress
        self._owner = hold_owner(target.store.superblock.guid)

    def bring(self, unit: Sequence[_Step]) -> list[Transfer]:
        """Transfer the change sets of one instant; the other store's readers see all of them, or none."""
        sent = []
        receptions = []
        for step in unit:
            # Held while it is under way, too: who prunes meanwhile leaves it alone.
            manage.hold(self._source.store, step.target, self._owner)
            frames = Frames(self._source, step.base, step.target, after=_cursor(self._target, step))
            reception = Reception(self._target, StreamReader(_Pipe(iter(frames)).read), step.there)
            reception.apply(self._told(step.target))
            sent.append(frames)
            receptions.append(reception)
        fresh = [reception for reception in receptions if reception.held is None]
        if fresh:
            complete(self._target, fresh, self._reconcile if self._is_several() else None)
        self.hold_only([step.target for step in unit])
        return [
            self._transfer(step, frames.sent, reception)
            for step, frames, reception in zip(unit, sent, receptions, strict=True)
        ]

    def _told(self, snapshot: Snapshot) -> Callable[[int], object] | None:
        progress = self._progress
        return None if progress is None else lambda size: progress(snapshot.guid, size)

    def _is_several(self) -> bool:
        return len(self._wanted) > 1 or len(self._target.store.catalog.filesets) > 1

    def _reconcile(self) -> None:
        follow.reconcile(self._target, self._wanted)

    def _transfer(self, step: _Step, sent: Sent, reception: Reception) -> Transfer:
        return Transfer(
            None if step.base is None else step.base.name,
            step.target.name,
            sent.bytes,
            sent.records,
            sent.block_bytes,
            reception.is_resumed,
            self._source.store.catalog.filesets[step.target.fileset].name,
        )

    def hold_only(self, snapshots: Sequence[Snapshot]) -> None:
        """Each is the one of its fileset that the standby holds."""
        store = self._source.store
        with store.lock:
            for snapshot in snapshots:
                manage.hold(store, snapshot, self._owner)
                for other in store.catalog.all_snapshots(snapshot.fileset):
                    if other.id != snapshot.id and self._owner in manage.holders(store, other):
                        manage.release(store, other, self._owner)
            # crash: the next change set may be refused without these, so the holds are durable before that begins.
            store.commit()

    def follow_others(self, gone: set[Guid], numbers: Sequence[tuple[FilesetId, FilesetId]]) -> None:
        """What is no content: what the filesets are, which are gone, which snapshots users hold."""
        store = self._target.store
        kept = holds.protections(self._source.store, [number for number, _ in numbers])
        with store.lock:
            if follow.differs(self._target, self._wanted):
                policies = sum(len(each.policy) for each in self._wanted.values())
                store.admit(4 * len(self._wanted), follow.RECORD_BYTES * len(self._wanted) + policies)
                follow.reconcile(self._target, self._wanted)
            told = holds.follow(store, [there for _, there in numbers], kept)
            if store.dirty:
                # crash: nothing relies on it; what is not durable is found to be different the next time.
                store.commit()
        if holds.note_told(self._source.store, [number for number, _ in numbers], told):
            # crash: likewise.
            self._source.store.commit()
        follow.delete_gone(self._target, gone)


def _cursor(target: Tree, step: _Step) -> Cursor | None:
    """Where this change set goes on, if the receiver has a part of it."""
    with target.store.lock:
        half = partial.get(target.store, step.there)
    if half is None or half.is_dropping or half.target != step.target.guid:
        return None
    return half.cursor if half.base == (None if step.base is None else step.base.guid) else None


def _base(tree: Tree, fileset: FilesetId, held: Held) -> Snapshot:
    """A snapshot of this fileset, or the one that it is a clone of."""
    with tree.store.lock:
        origin = clones.origin_snapshot(tree.store, fileset)
    return origin if origin is not None and origin.guid == held.guid else _snapshot(tree, fileset, held)


def _snapshot(tree: Tree, fileset: FilesetId, held: Held) -> Snapshot:
    with tree.store.lock:
        snapshot = tree.store.catalog.by_guid(fileset, held.guid)
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
