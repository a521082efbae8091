"""The store that follows, as the sending side of a link sees it: open in this process, or at the end of a connection.

All that the two sides tell each other of their stores goes through here, as plain values. ``LocalReceiver`` does it;
``remote.RemoteReceiver`` asks another process to.

Threads: as told for what is called; the two stores' locks are never held together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from idemfs.errors import StreamRefused
from idemfs.format.role import Role, RoleRecord
from idemfs.ids import ROOT_FILESET, FilesetId, Guid
from idemfs.replication import anew, collapse, follow, guests, holds, partial, purges, via
from idemfs.replication.apply import Reception, complete, find_origin, refuse_past, refuse_unless_standby
from idemfs.replication.codec import StreamReader
from idemfs.replication.description import Description
from idemfs.replication.holds import Protection
from idemfs.replication.purges import Told
from idemfs.replication.records import Cursor
from idemfs.snapshots import automatic, lines, received
from idemfs.snapshots.policy import Policy, zone_of
from idemfs.vfs.tree import Tree


class Kept(NamedTuple):
    """One complete snapshot there."""

    guid: Guid
    name: str


class Half(NamedTuple):
    """A change set of which a part has come."""

    base: Guid | None
    target: Guid
    cursor: Cursor


class Present(NamedTuple):
    """One fileset there: its snapshots, oldest first, and which of them it received last."""

    fileset: Guid
    snapshots: tuple[Kept, ...]
    base: Guid | None = None
    half: Half | None = None
    is_anew: bool = False
    """What it has was put aside: a full stream is to come."""


class Standing(NamedTuple):
    """What a store is, in short: its role, the guid of its root fileset, and those of all its filesets.

    ``guests``: root and highest known epoch of each other line of which it has filesets; ``via``: the standby that it
    follows its primary through, None: it does not."""

    role: RoleRecord
    root: Guid
    filesets: tuple[Guid, ...]
    guests: tuple[tuple[Guid, int], ...] = ()
    via: Guid | None = None


class Line(NamedTuple):
    """What both are to agree on before it is asked what both have: filesets that rest on no other one, and purges.

    ``root``: guid of the root fileset of the store that sends; ``epoch``: the one that it sends in.
    """

    root: Guid
    epoch: int
    independent: tuple[Guid, ...]
    purges: tuple[Told, ...]


class NewFileset(NamedTuple):
    """``line``: guid of the root fileset of the store that sends. ``is_exact``: it has this name, or is not made."""

    guid: Guid
    name: str
    compression: int
    line: Guid
    is_exact: bool = False


class Following(NamedTuple):
    """What is no content: what the filesets are, who keeps which snapshots of ``filesets``, and which are gone.

    ``root``, ``epoch``: as of a ``Line``.
    """

    root: Guid
    epoch: int
    wanted: tuple[tuple[Guid, Description], ...]
    filesets: tuple[Guid, ...]
    kept: tuple[tuple[Guid, Protection], ...]
    gone: tuple[Guid, ...]


class Receiver(Protocol):
    """``guid``: of the store."""

    guid: Guid

    def agree(self, line: Line) -> list[Present]:
        """Let go of what is not so any more on the other side; then as ``look``. Raises ``PeerError``, ``NoSpace``,
        ``CommitFailed``, ``StreamRefused`` for a sender whose epoch has ended."""

    def stand(self) -> Standing: ...

    def look(self) -> list[Present]:
        """Its filesets, the root fileset first."""

    def make(self, missing: Sequence[NewFileset]) -> None:
        """Empty filesets that appear nowhere. Raises ``NotStandby``, ``StreamRefused``, ``StreamDamaged``,
        ``FilesetExists``."""

    def note_current(self, root: Guid, age_seconds: float) -> None:
        """The store of which ``root`` is the root fileset had nothing newer so many seconds ago."""

    def origin_digest(self, fileset: Guid, snapshot: Guid) -> int | None:
        """Of a snapshot that a clone may begin from there; None: there is none."""

    def receive(
        self, streams: Sequence[tuple[Guid, Iterable[bytes | memoryview]]], wanted: Mapping[Guid, Description]
    ) -> list[bool]:
        """Change sets of filesets, complete together or not at all; whether a part of each had come before.

        ``wanted``: what the filesets are at that instant. Raises as ``apply.receive``, and what a stream raises.
        """

    def follow(self, following: Following) -> dict[Guid, Protection]:
        """Durable on return; what now keeps which snapshots there. Raises as ``agree``, ``NotStandby``."""

    def begin_anew(self, filesets: Sequence[Guid]) -> None:
        """What these hold is put aside in snapshots that diverged; full streams fill them. Raises as ``anew.begin``."""

    def prune(self, filesets: Sequence[Guid], keep: Policy) -> int:
        """Delete of these filesets what a link took and needs no more, and what ``keep`` does not keep; how many."""


class LocalReceiver:
    """An open store of this process."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._store = tree.store
        self.guid = Guid(tree.store.superblock.guid)

    def agree(self, line: Line) -> list[Present]:
        if self._tree.role.role is Role.STANDBY:
            self._refuse_past(line.root, line.epoch)
            if self._store.catalog.filesets[ROOT_FILESET].guid == line.root:
                follow.promote_clones(self._tree, line.independent)
            purges.carry_out(self._tree, line.purges)
        return self.look()

    def stand(self) -> Standing:
        with self._store.lock:
            guids = tuple(Guid(each.guid) for each in self._store.catalog.listed_filesets())
            root = Guid(self._store.catalog.filesets[ROOT_FILESET].guid)
            others = tuple(guests.epochs(self._store).items())
            return Standing(self._tree.role, root, guids, others, via.get(self._store))

    def look(self) -> list[Present]:
        store = self._store
        with store.lock:
            return [self._present(each.number, Guid(each.guid)) for each in store.catalog.listed_filesets()]

    def _present(self, number: FilesetId, guid: Guid) -> Present:
        base = received.base(self._store, number)
        half = partial.get(self._store, number)
        return Present(
            guid,
            tuple(Kept(Guid(each.guid), each.name) for each in self._store.catalog.snapshots(number)),
            None if base is None else Guid(base.guid),
            None if half is None or half.is_dropping else Half(half.base, half.target, half.cursor),
            received.is_anew(self._store, number),
        )

    def make(self, missing: Sequence[NewFileset]) -> None:
        with self._store.lock:
            refuse_unless_standby(self._tree)
            root = self._store.catalog.filesets[ROOT_FILESET].guid
            for guid, name, compression, line, is_exact in missing:
                if is_exact:
                    guests.refuse_taken(self._store, guid, name)
                if follow.find(self._store, guid) is None:
                    follow.make(self._store, guid, name, compression, None if line == root else lines.Line(line, 0))
            # crash: nothing relies on it; an empty fileset that appears nowhere is found here the next time.
            self._store.commit()

    def origin_digest(self, fileset: Guid, snapshot: Guid) -> int | None:
        with self._store.lock:
            found = find_origin(self._store, fileset, snapshot)
        return None if found is None else found.digest

    def receive(
        self, streams: Sequence[tuple[Guid, Iterable[bytes | memoryview]]], wanted: Mapping[Guid, Description]
    ) -> list[bool]:
        receptions = []
        for guid, chunks in streams:
            reception = Reception(self._tree, StreamReader(_Pipe(iter(chunks)).read), self._number(guid))
            reception.apply()
            receptions.append(reception)
        fresh = [reception for reception in receptions if reception.held is None]
        if fresh:
            is_several = len(wanted) > 1 or len(self._store.catalog.filesets) > 1
            complete(self._tree, fresh, (lambda: self._reconcile(wanted)) if is_several else None)
        return [reception.is_resumed for reception in receptions]

    def note_current(self, root: Guid, age_seconds: float) -> None:
        # A guest's line says nothing of what this store shows.
        if self._tree.role.role is Role.STANDBY and root == self._store.catalog.filesets[ROOT_FILESET].guid:
            self._tree.note_current(age_seconds)

    def _number(self, guid: Guid) -> FilesetId:
        fileset = follow.find(self._store, guid)
        if fileset is None:
            raise StreamRefused("the fileset that the change set is of was deleted here meanwhile; send it again")
        return fileset.number

    def _reconcile(self, wanted: Mapping[Guid, Description]) -> None:
        follow.reconcile(self._tree, wanted)
        guests.reconcile(self._tree, wanted)

    def follow(self, following: Following) -> dict[Guid, Protection]:
        store, wanted = self._store, dict(following.wanted)
        numbers = list(follow.numbers_of(store, following.filesets).values())
        with store.lock:
            refuse_unless_standby(self._tree)
            self._refuse_past(following.root, following.epoch)
            if follow.differs(self._tree, wanted) or guests.epochs(store):
                policies = sum(len(each.policy) for each in wanted.values())
                store.admit(4 * len(wanted), follow.RECORD_BYTES * len(wanted) + policies)
                self._reconcile(wanted)
            told = holds.follow(store, numbers, dict(following.kept))
            if store.dirty:
                # crash: nothing relies on it; what is not durable is found to be different the next time.
                store.commit()
        follow.delete_gone(self._tree, following.gone)
        guests.settle(self._tree)
        return told

    def _refuse_past(self, root: Guid, epoch: int) -> None:
        """Raises ``StreamRefused``."""
        with self._store.lock:
            is_own = self._store.catalog.filesets[ROOT_FILESET].guid == root
            seen = self._tree.role.seen_epoch if is_own else guests.epochs(self._store).get(root, 0)
        refuse_past(seen, epoch)

    def begin_anew(self, filesets: Sequence[Guid]) -> None:
        refuse_unless_standby(self._tree)
        for number in follow.numbers_of(self._store, filesets).values():
            anew.begin(self._tree, number)

    def prune(self, filesets: Sequence[Guid], keep: Policy) -> int:
        refuse_unless_standby(self._tree)
        store, count = self._store, 0
        for number in follow.numbers_of(store, filesets).values():
            with store.lock:
                self._tree.active.settle()
                now_ns = store.clock.now_ns()
                known = automatic.candidates(store, number, now_ns)
            going = collapse.goes(keep, known, now_ns, zone_of(keep.zone), store.blocks.free_bytes())
            count += automatic.let_go(self._tree.active, number, going)
        return count


class _Pipe:
    """Chunks of bytes as something to read from: all of the next one at a time, however few are wanted."""

    def __init__(self, chunks: Iterator[bytes | memoryview]) -> None:
        self._chunks = chunks

    def read(self, _: int) -> bytes | memoryview:
        return next((chunk for chunk in self._chunks if chunk), b"")
