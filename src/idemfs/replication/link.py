"""From an open store to one that follows, here or elsewhere: bring all filesets of the second up to the first.

Snapshots come in the order in which they were taken. Those that were taken at one instant have one time, and are
complete together, in one transaction group; so are the names and places of filesets as they are then.

Frames are made when the receiver asks for them, so that one frame at a time is under way. The newest common snapshot is
held on the source for this standby; that hold moves on with each change set that is complete, never before.

Threads: as in ``send`` and ``receiver``; no lock is held while the other store is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeAlias

from idemfs.errors import PeerError, SnapshotMissing
from idemfs.format.tables import Snapshot
from idemfs.ids import ROOT_FILESET, FilesetId, Guid
from idemfs.replication import follow, guests, holds, lanes, plan, purges
from idemfs.replication.describe import description_of
from idemfs.replication.description import Description
from idemfs.replication.plan import Held, Plan, Side
from idemfs.replication.receiver import Following, Half, Line, LocalReceiver, NewFileset, Present, Receiver
from idemfs.replication.records import Cursor
from idemfs.replication.send import Frames, epoch_of
from idemfs.snapshots import clones, lines, manage, received
from idemfs.snapshots.info import NEVER_NS
from idemfs.snapshots.policy import Policy
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


def replicate_into(
    source: Tree,
    target: Tree | Receiver,
    progress: Progress | None = None,
    *,
    keep: Policy | None = None,
    holds_until_ns: int = NEVER_NS,
    guest_name: str | None = None,
) -> Report:
    """Bring ``target`` to the newest snapshots of all filesets of ``source``; durable on return, unit by unit.

    ``keep``: of a backlog, send only what these rules of the other side keep, and the newest; None: each snapshot.
    ``holds_until_ns``: when what is held on ``source`` for the other store may go all the same.
    ``guest_name``: in a store of another line, the filesets stand beside what is there, and this is what the root is
    called; without it, only those come that are there, and that are new.
    Raises ``PeerError`` when there is no way from one to the other, and what sending and receiving raise.
    """
    receiver = LocalReceiver(target) if isinstance(target, Tree) else target
    store = source.store
    with store.lock:
        wanted = {Guid(each.guid): description_of(store, each) for each in lines.own_filesets(store)}
        numbers = follow.numbers_of(store, wanted)
        gone = lines.gone(store)
        line = _line(source, numbers)
    there = {each.fileset: each for each in receiver.agree(line)}
    is_guest = next(iter(there), line.root) != line.root
    if is_guest and guest_name is not None:
        wanted = guests.told(guest_name, wanted, line.root)
        _make_missing(source, receiver, wanted, numbers, there, root_too=True)
    root = _plan(source, ROOT_FILESET, _root_there(line, there))
    _make_missing(source, receiver, wanted, numbers, there)
    if is_guest and guest_name is None:
        # Each has the name that somebody gave it there.
        wanted, gone = {}, set()
    plans = [(ROOT_FILESET, root)]
    for guid, number in numbers.items():
        if number != ROOT_FILESET and guid in there:
            plans.append((number, _plan(source, number, there[guid])))
    plans = _from_origins(source, receiver, plans, there)
    if keep is not None:
        plans = lanes.collapsed(store, plans, _begun(source, plans, there), keep)
    link = _Link(source, receiver, wanted, there, progress, holds_until_ns)
    for number, made in plans:
        if made.common is not None:
            coming = [step.target.guid for step in made.steps]
            link.hold_only([_snapshot(source, number, made.common)], coming=coming)
    transfers = [each for unit in units(source, plans) for each in link.bring(unit)]
    link.follow_others(gone - wanted.keys(), [number for number, _ in plans])
    return Report(root.common, tuple(transfers))


def _begun(
    source: Tree, plans: Sequence[tuple[FilesetId, Plan]], there: Mapping[Guid, Present]
) -> dict[FilesetId, Guid]:
    """Targets of which the other store has a part that begins where the plan does."""
    found = {}
    for number, made in plans:
        half = there[Guid(source.store.catalog.filesets[number].guid)].half
        base = made.steps[0].base if made.steps else made.common
        if half is not None and half.base == (None if base is None else base.guid):
            found[number] = half.target
    return found


def _line(source: Tree, numbers: Mapping[Guid, FilesetId]) -> Line:
    store = source.store
    independent = tuple(guid for guid, number in numbers.items() if clones.origin_snapshot(store, number) is None)
    root = Guid(store.catalog.filesets[ROOT_FILESET].guid)
    return Line(root, epoch_of(source), independent, tuple(purges.told_by(store)))


def _root_there(line: Line, there: Mapping[Guid, Present]) -> Present:
    """Its root fileset, which is ours, or another one's."""
    return there.get(line.root) or next(iter(there.values()))


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


def side_there(present: Present) -> Side:
    """The same of one of the other store's."""
    known = [] if present.is_anew else [Held(*each) for each in present.snapshots]
    return Side(present.fileset, known, present.base)


def _from_origins(
    source: Tree,
    receiver: Receiver,
    plans: list[tuple[FilesetId, Plan]],
    there: Mapping[Guid, Present],
) -> list[tuple[FilesetId, Plan]]:
    """``plans``, in which clones of which nothing is there begin from their origins if these are there, or will be."""
    coming = {step.target.guid for _, made in plans for step in made.steps}
    found = []
    for number, made in plans:
        origin = None
        if made.common is None and made.steps:
            origin = _origin_there(source, receiver, number, coming)
        guid = Guid(source.store.catalog.filesets[number].guid)
        found.append((number, made if origin is None else _plan(source, number, there[guid], origin)))
    return found


def _origin_there(source: Tree, receiver: Receiver, number: FilesetId, coming: set[Guid]) -> Held | None:
    """The origin of a clone, if the other store has it, or will have it when the clone's first snapshot comes."""
    with source.store.lock:
        origin = clones.origin_snapshot(source.store, number)
        if origin is None:
            return None
        above = Guid(source.store.catalog.filesets[origin.fileset].guid)
    if origin.guid not in coming and receiver.origin_digest(above, Guid(origin.guid)) != origin.digest:
        return None
    return Held(origin.guid, origin.name)


def _plan(source: Tree, number: FilesetId, present: Present, origin: Held | None = None) -> Plan:
    """Raises ``PeerError``."""
    made = plan.make_plan(side_of(source, number)._replace(origin=origin), side_there(present))
    if isinstance(made, Plan):
        return made
    where = "" if number == ROOT_FILESET else f"fileset {source.store.catalog.filesets[number].name!r}: "
    raise PeerError(where + plan.explain(made))


def _make_missing(
    source: Tree,
    receiver: Receiver,
    wanted: Mapping[Guid, Description],
    numbers: Mapping[Guid, FilesetId],
    there: dict[Guid, Present],
    *,
    root_too: bool = False,
) -> None:
    """Filesets that have something to send are there, too."""
    with source.store.lock:
        sent = [guid for guid, number in numbers.items() if source.store.catalog.snapshots(number)]
    missing = [guid for guid in sent if guid not in there and (root_too or numbers[guid] != ROOT_FILESET)]
    if missing:
        line = Guid(source.store.catalog.filesets[ROOT_FILESET].guid)
        receiver.make(
            [
                NewFileset(guid, wanted[guid].name, wanted[guid].compression, line, numbers[guid] == ROOT_FILESET)
                for guid in missing
            ]
        )
        there.update((guid, Present(guid, ())) for guid in missing)


class Step(NamedTuple):
    """One change set: from where to where."""

    base: Snapshot | None
    target: Snapshot


def units(source: Tree, plans: Sequence[tuple[FilesetId, Plan]]) -> Iterator[list[Step]]:
    """Change sets in the order in which their targets were taken; those taken at one instant together."""
    steps = []
    for number, made in plans:
        for step in made.steps:
            base = None if step.base is None else _base(source, number, step.base)
            steps.append(Step(base, _snapshot(source, number, step.target)))
    unit: list[Step] = []
    for next_step in sorted(steps, key=lambda step: step.target.id):
        if unit and (
            unit[-1].target.created_ns != next_step.target.created_ns
            or any(each.target.fileset == next_step.target.fileset for each in unit)
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
        self,
        source: Tree,
        receiver: Receiver,
        wanted: Mapping[Guid, Description],
        there: Mapping[Guid, Present],
        progress: Progress | None,
        holds_until_ns: int,
    ) -> None:
        self._source = source
        self._receiver = receiver
        self._wanted = wanted
        self._there = there
        self._progress = progress
        self._owner = hold_owner(receiver.guid)
        self._holds_until_ns = holds_until_ns

    def bring(self, unit: Sequence[Step]) -> list[Transfer]:
        """Transfer the change sets of one instant; the other store's readers see all of them, or none."""
        sent = []
        streams = []
        targets = [step.target for step in unit]
        # Held while it is under way, too: who prunes meanwhile leaves it alone.
        is_new = lanes.hold(self._source.store, self._owner, targets, self._holds_until_ns)
        for step in unit:
            guid = self._guid(step.target)
            frames = Frames(self._source, step.base, step.target, after=_cursor(self._there[guid].half, step))
            sent.append(frames)
            streams.append((guid, self._told(frames, step.target)))
        resumed = self._receiver.receive(streams, self._wanted)
        self.hold_only(targets, is_new=is_new)
        return [
            Transfer(
                None if step.base is None else step.base.name,
                step.target.name,
                frames.sent.bytes,
                frames.sent.records,
                frames.sent.block_bytes,
                is_resumed,
                self._source.store.catalog.filesets[step.target.fileset].name,
            )
            for step, frames, is_resumed in zip(unit, sent, resumed, strict=True)
        ]

    def _guid(self, snapshot: Snapshot) -> Guid:
        return Guid(self._source.store.catalog.filesets[snapshot.fileset].guid)

    def _told(self, frames: Frames, snapshot: Snapshot) -> Iterator[bytes]:
        for frame in frames:
            yield frame
            if self._progress is not None:
                self._progress(Guid(snapshot.guid), frames.sent.bytes)

    def hold_only(self, snapshots: Sequence[Snapshot], *, is_new: bool = False, coming: Collection[Guid] = ()) -> None:
        """Each is the one of its fileset that the standby holds. ``is_new``, ``coming``: as for ``lanes``."""
        store, until_ns = self._source.store, self._holds_until_ns
        lanes.hold_only(store, self._owner, snapshots, until_ns, is_new=is_new, coming=coming)

    def follow_others(self, gone: set[Guid], numbers: Sequence[FilesetId]) -> None:
        """What is no content: what the filesets are, which are gone, which snapshots users hold."""
        store = self._source.store
        kept = holds.protections(store, list(numbers))
        filesets = tuple(Guid(store.catalog.filesets[number].guid) for number in numbers)
        root, wanted = Guid(store.catalog.filesets[ROOT_FILESET].guid), tuple(self._wanted.items())
        following = Following(root, epoch_of(self._source), wanted, filesets, tuple(kept.items()), tuple(gone))
        told = self._receiver.follow(following)
        if holds.note_told(store, list(numbers), told):
            # crash: nothing relies on it; what is not durable is found to be different the next time.
            store.commit()


def _cursor(half: Half | None, step: Step) -> Cursor | None:
    """Where this change set goes on, if the receiver has a part of it."""
    if half is None or half.target != step.target.guid:
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
