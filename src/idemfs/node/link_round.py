"""One round of a link: take a snapshot, find out who is at the other end, bring it up to date, let go of what is old.

The newest common snapshot is held on the source until some time from now, and again with each round, so that no hold
outlives its link. Should one have lapsed, and the snapshot be gone, the other store goes back to the next newest one
that both have; it keeps its own.

Threads: one runs the rounds of a link. The store's claim is shared by the links of one store, and given up when a
command wants it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import NamedTuple, Protocol

from xxhash import xxh3_128_hexdigest

from idemfs.engines import lock
from idemfs.errors import ConnectionLost, Damaged, PeerError, SnapshotMissing, StoreMissing
from idemfs.failover import actions, addresses, records
from idemfs.failover.observe import guid_of
from idemfs.failover.party import LocalParty, Party
from idemfs.failover.remote import RemoteParty
from idemfs.failover.standbys import add_standby, lodge
from idemfs.format import keys
from idemfs.format.role import Role
from idemfs.format.tables import Snapshot
from idemfs.ids import ROOT_FILESET, FilesetId, Guid
from idemfs.node import history, joining, link_decisions
from idemfs.node.connecting import connect
from idemfs.node.history import Event
from idemfs.node.link_decisions import Decision, Here, Join, Learn, Refuse, Rest, Send, Tell, There
from idemfs.replication import archiving, collapse, guests, lanes, link, plan
from idemfs.replication.archive import locked, open_archive
from idemfs.replication.channel import Channel
from idemfs.replication.manifest import Point
from idemfs.replication.receiver import Receiver, Standing
from idemfs.replication.remote import RemoteReceiver
from idemfs.replication.session import Session
from idemfs.snapshots import automatic, lines, manage
from idemfs.snapshots.policy import Policy
from idemfs.store.files import open_files
from idemfs.store.peek import lent
from idemfs.store.store import Store
from idemfs.vfs.tree import Tree

HOLD_NS = 30 * 86_400 * 1_000_000_000
"""For how long a common snapshot is held for a peer that is not heard of any more."""
ARCHIVE = "archive:"
BY = "link"
"""Who ordered what links do."""
_NAMES_COUNT_MAX = 10
"""Of snapshots in one line of the log."""
_LINGERING = (addresses.HTTPS,)
"""Schemes of connections that stay open while nothing is sent: whoever serves them holds no lock of the store."""

log = logging.getLogger("idemfs.link")


class NotNow(Exception):
    """The round ended early, and nothing is wrong: a command has the store, a window closed, the process ends."""


class Outcome(NamedTuple):
    """``decision`` is ``Send`` or ``Rest``; the report of what was sent, None after ``Rest``."""

    decision: Decision
    report: link.Report | None = None
    pruned_count: int = 0


class Peer:
    """The other end: reached when a round begins. Any thread may ``interrupt``."""

    def __init__(self, tree: Tree, address: str) -> None:
        self._tree = tree
        self.address = address
        self._session: Session | None = None
        self._greeting: Channel | None = None
        """A connection at whose other end a store is being opened."""
        self._is_interrupted = False
        self._standing: Standing | None = None
        """What the other end said of itself when it was asked whether it is there."""

    @contextmanager
    def reached(self) -> Iterator[Party | None]:
        """None: there is no store. Raises ``PeerError``, ``OSError``, ``StoreInUse``, ``NotNow``."""
        if not addresses.is_remote(self.address) and not _is_elsewhere(self.address):
            self.close()
            with ExitStack() as stack:
                yield self._opened(stack)
            return
        session = self._lingering() or self._connected()
        try:
            yield RemoteParty(session, self._tree) if session.peer.store else None
        except BaseException:
            self.close()
            raise

    def stand(self, party: Party) -> Standing:
        """What the store is that was ``reached``."""
        standing, self._standing = self._standing, None
        return standing or party.receiver().stand()

    def rest(self) -> None:
        """Between rounds, for some time: nobody is kept from the other store by a connection that nobody needs."""
        if not self._lingers():
            self.close()

    def _lingering(self) -> Session | None:
        """The session of the round before, if the other end is still there."""
        session = self._session
        if session is not None:
            try:
                self._standing = RemoteReceiver(session).stand()
            except (PeerError, OSError):
                # It went meanwhile, or there was no store: nothing has failed yet.
                self.close()
                return None
        return session

    def _connected(self) -> Session:
        self._greeting = channel = connect(self.address, False)
        if self._is_interrupted:
            channel.close()
        try:
            # Before it is no greeting any more, so that at any moment one of the two can be interrupted.
            self._session = session = Session(channel, guid_of(self._tree))
            return session
        finally:
            self._greeting = None

    def _opened(self, stack: ExitStack) -> Party | None:
        try:
            # Committing in the background, so that of a large change set not all is lost when the host fails.
            store = open_files(self.address)
        except StoreMissing:
            return None
        stack.callback(store.close)
        if store is self._tree.store:
            raise PeerError("is the store itself; a standby is another one")
        # What another part of this process has open has links of its own, which hold its claim while they send.
        if store.lent_by is None and not stack.enter_context(store.claim.background()):
            raise NotNow("a command moves data or roles of the other store")
        tree = Tree(store)
        stack.callback(_tell_watchers, tree, (tree.moves, tree.active.rewritten_count))
        return LocalParty(tree)

    def _lingers(self) -> bool:
        if not addresses.is_remote(self.address):
            return True
        return addresses.parse(self.address).scheme in _LINGERING

    def begin(self) -> None:
        self._is_interrupted = False

    def interrupt(self) -> None:
        """What waits for the other end fails at once, until ``begin`` is called."""
        self._is_interrupted = True
        for waiting in (self._greeting, self._session):
            if waiting is not None:
                waiting.close()

    def close(self) -> None:
        session, self._session = self._session, None
        self._standing = None
        if session is not None:
            session.close()


def _tell_watchers(tree: Tree, before: tuple[int, int]) -> None:
    """Whoever shows the tree is told when there is another state to see."""
    if (tree.moves, tree.active.rewritten_count) != before:
        for told in tree.watchers:
            told()


def _is_elsewhere(path: str) -> bool:
    """Whether another process has the store at this path open."""
    return os.path.realpath(path) not in lent and bool(lock.owner(path))


# -- what this store is --------------------------------------------------------------------------------


def here(tree: Tree) -> Here:
    with tree.store.lock:
        members = [each.guid for each in records.get_peers(tree.store)]
        root = Guid(tree.store.catalog.filesets[ROOT_FILESET].guid)
        return Here(guid_of(tree), tree.role, root, members, guests.is_untouched(tree.active))


class Filled(NamedTuple):
    """What a link remembers of the store that it filled last: its guid, our epoch then, and the newest common snapshot
    of the root fileset at the end of the last round."""

    store: Guid
    epoch: int
    base: Guid


def filled(tree: Tree, address: str) -> Filled | None:
    """Raises ``Damaged``."""
    with tree.store.lock:
        value = tree.store.small.get(_key(address))
    if value is None:
        return None
    if len(value) != 40:
        raise Damaged("the record of what a link filled is damaged")
    return Filled(Guid(value[:16]), int.from_bytes(value[16:24], "little"), Guid(value[24:]))


def note_filled(tree: Tree, address: str, guid: Guid) -> None:
    """The link to this address filled the store, or archive, with this guid."""
    store = tree.store
    with store.lock:
        newest = store.catalog.newest(ROOT_FILESET)
        base = bytes(16) if newest is None else newest.guid
        value = guid + tree.role.epoch.to_bytes(8, "little") + base
        before = store.small.get(_key(address)) or b""
        if before != value:
            store.admit(1, 200)
            store.small.put(_key(address), value)
        if before[:16] != guid:
            # crash: from here on another store at this address is not filled by itself.
            store.commit()


def _key(address: str) -> bytes:
    return keys.replication(f"link {xxh3_128_hexdigest(address.encode(errors='surrogateescape'))}")


def take(tree: Tree, address: str | None = None, *, is_met: bool = False) -> None:
    """Snapshots, at one instant, of the filesets of a primary that have changed since their newest.

    They need not be durable on return: a stream of them does not end before they are. ``address``: they are held for
    the store that the link to it filled. ``is_met``: it is clear that the other store follows this one. Before that
    none is taken of a new store, which could not become a standby of the other one with it.
    """
    store = tree.store
    known = None if address is None else filled(tree, address)
    # Others change things while the group before goes out, and not only when it is out.
    store.wait_durable()
    with store.exclusive():
        if tree.role.role is not Role.PRIMARY or (not is_met and guests.is_untouched(tree.active)):
            return
        name = collapse.name_of(store.clock.now_ns())
        numbers = [fileset.number for fileset in lines.own_filesets(store)]
        if not store.dirty and not _changed(store, numbers):
            return

        def joined(snapshot: Snapshot) -> bool:
            if known is not None:
                expires_ns = store.clock.now_ns() + HOLD_NS
                owner = link.hold_owner(known.store).encode()
                store.small.put(keys.hold(snapshot.id, owner), expires_ns.to_bytes(8, "little"))
            return True

        places = [(number, manage.unique_name(store, number, name)) for number in numbers]
        choice = manage.Choice(lambda: _changed(store, numbers), len(numbers), 300 * len(numbers))
        # crash: nothing relies on it before the end of a stream is made, which waits for it.
        manage.create_all(store, places, joined=joined, chosen=choice, wait=False)


def _changed(store: Store, numbers: list[FilesetId]) -> set[FilesetId]:
    """Filesets that are not what their newest snapshot is, as of the last seal."""
    found = set()
    for number in numbers:
        digest = store.catalog.filesets[number].digest
        if all(snapshot.digest != digest for snapshot in store.catalog.snapshots(number)[-1:]):
            found.add(number)
    return found


def let_go(tree: Tree) -> int:
    """Delete the snapshots of links that nobody needs any more: not the newest, not held for a peer or by a user, and
    not what this store alone had when it came back from an earlier epoch."""
    store, count = tree.store, 0
    if tree.role.role is not Role.PRIMARY:
        return 0
    for fileset in lines.own_filesets(store):
        with store.lock:
            known = automatic.candidates(store, fileset.number, store.clock.now_ns())
        own = [each for each in known[:-1] if collapse.is_own(each.name) and not (each.holders or each.diverged)]
        count += automatic.let_go(tree.active, fileset.number, own)
    return count


# -- the round -----------------------------------------------------------------------------------------


class Target(Protocol):
    """Where a link leads. ``keep``: retention there."""

    keep: Policy

    def run(self, progress: link.Progress | None = None, *, as_of: float | None = None) -> Outcome:
        """One round. ``as_of``: when, by the store's clock, its snapshots had everything; None: nobody knows.

        Raises ``PeerError`` for what somebody has to settle, ``NotNow``, and what transfers raise.
        """

    def begin(self) -> None:
        """Before a round: what was interrupted is over."""

    def interrupt(self) -> None:
        """A round that waits, or begins to before ``begin`` is called again, fails at once. From any thread."""

    def rest(self) -> None:
        """Between rounds, when the next one is some time away."""

    def close(self) -> None:
        """Between rounds."""


class StoreTarget:
    """Another store. ``own_address``: how it finds this one, if not by its path; ``guest_name``: what the filesets of
    this one are called there, beside those of others."""

    def __init__(
        self,
        tree: Tree,
        path: str,
        address: str,
        keep: Policy,
        own_address: str | None = None,
        guest_name: str | None = None,
    ) -> None:
        self.tree = tree
        self.path = path
        self.peer = Peer(tree, address)
        self.keep = keep
        self.own_address = own_address
        self.guest_name = guest_name

    def begin(self) -> None:
        self.peer.begin()

    def interrupt(self) -> None:
        self.peer.interrupt()

    def rest(self) -> None:
        self.peer.rest()

    def close(self) -> None:
        self.peer.close()

    def run(self, progress: link.Progress | None = None, *, as_of: float | None = None) -> Outcome:
        """Raises ``PeerError`` for what somebody has to settle, ``NotNow``, and what transfers raise."""
        with self.peer.reached() as party:
            decision = self._decide(party)
            if isinstance(decision, Learn):
                log.warning("epoch %d has begun elsewhere, and ends this store's right to write", decision.epoch)
                before = self.tree.role
                actions.tell(self.tree, decision.epoch)
                history.record_fence(self.path, before, self.tree.role, source=self.peer.address, by=BY)
                decision = self._decide(party)
            if isinstance(decision, Tell):
                assert party is not None
                log.warning("tells that epoch %d has begun", decision.epoch)
                self._tell(party, decision.epoch)
                raise PeerError(decision.reason)
            if isinstance(decision, Refuse):
                raise PeerError(decision.reason)
            if isinstance(decision, Rest):
                return Outcome(decision)
            if isinstance(decision, Send):
                assert party is not None
                return self._send(party, decision, progress, as_of)
        self.peer.close()
        self._join(is_guest=isinstance(decision, Join) and decision.is_guest)
        with self.peer.reached() as party:
            decision = self._decide(party)
            if party is None or not isinstance(decision, Send):
                raise PeerError("has become a standby, and is not to be sent to: something else changed it meanwhile")
            return self._send(party, decision, progress, as_of)

    def _tell(self, party: Party, epoch: int) -> None:
        before = party.tree.role if isinstance(party, LocalParty) else None
        party.tell(epoch)
        if isinstance(party, LocalParty) and before is not None:
            history.record_fence(self.peer.address, before, party.tree.role, source=self.path, by=BY)

    def _decide(self, party: Party | None) -> Decision:
        found = None
        if party is not None:
            standing = self.peer.stand(party)
            guests = dict(standing.guests)
            found = There(party.guid, standing.role, standing.root, standing.filesets, guests, standing.via)
        address = self.peer.address
        before = filled(self.tree, address)
        mine = here(self.tree)
        known = None if before is None else before.store
        return link_decisions.decide(address, self.path, mine, found, known, self.guest_name)

    def _join(self, *, is_guest: bool) -> None:
        """The other store becomes a standby of this one. Raises ``PeerError`` for one that cannot."""
        address = self.peer.address
        with joining.place_at(self.path, address, self.own_address) as (place, own):
            if is_guest:
                lodge(self.path, place)
            else:
                add_standby(self.path, place, own_address=own)
            history.record(self.path, Event(what="standby add", source=self.path, target=place.address, by=BY))
        log.info("%s is a standby now", address)

    def _send(self, party: Party, decision: Send, progress: link.Progress | None, as_of: float | None) -> Outcome:
        receiver = party.receiver()
        if guests.is_untouched(self.tree.active):
            take(self.tree, is_met=True)
        try:
            report = self._replicate(receiver, progress)
        except PeerError as error:
            if isinstance(error, ConnectionLost) or not self._go_back(party, receiver, is_sole=decision.is_sole):
                raise
            report = self._replicate(receiver, progress)
        note_filled(self.tree, self.peer.address, party.guid)
        if as_of is not None:
            age = self.tree.store.clock.monotonic_seconds() - as_of
            receiver.note_current(Guid(self.tree.store.catalog.filesets[ROOT_FILESET].guid), age)
        pruned = receiver.prune(self._filesets(), self.keep) if report.transfers else 0
        return Outcome(decision, report, pruned)

    def _filesets(self) -> list[Guid]:
        with self.tree.store.lock:
            return [Guid(each.guid) for each in lines.own_filesets(self.tree.store)]

    def _replicate(self, receiver: Receiver, progress: link.Progress | None) -> link.Report:
        until_ns = self.tree.store.clock.now_ns() + HOLD_NS
        try:
            return self._replicate_once(receiver, progress, until_ns)
        except SnapshotMissing as gone:
            # Pruned between the plan and its turn: nothing was sent of it, and the next plan goes without it.
            log.info("plans again: %s", gone)
            return self._replicate_once(receiver, progress, until_ns)

    def _replicate_once(self, receiver: Receiver, progress: link.Progress | None, until_ns: int) -> link.Report:
        return link.replicate_into(
            self.tree, receiver, progress, keep=self.keep, holds_until_ns=until_ns, guest_name=self.guest_name
        )

    def _go_back(self, party: Party, receiver: Receiver, *, is_sole: bool) -> bool:
        """Where the other store is at a snapshot that came from here and is gone here, let it go back to one that both
        have; whether it did. ``is_sole``: whatever it is at, it came from here, or from who was primary before."""
        before = filled(self.tree, self.peer.address)
        presents = receiver.look()
        root = self.tree.store.catalog.filesets[ROOT_FILESET].guid
        base = next((each.base for each in presents if each.fileset == root), None)
        if not is_sole and (before is None or before != (party.guid, self.tree.role.epoch, base)):
            # Somebody else may have sent what is there.
            return False
        mine = {each.guid: each.number for each in lines.own_filesets(self.tree.store)}
        moved = False
        for present in presents:
            number = mine.get(present.fileset)
            if number is None:
                continue
            found = plan.make_plan(link.side_of(self.tree, number), link.side_there(present))
            if isinstance(found, plan.Ahead) or (is_sole and isinstance(found, plan.Apart)):
                log.warning(
                    "what both had since snapshot %s is gone here, %s: the other store goes back to it, and keeps what "
                    "it has",
                    found.common.name,
                    "or never was" if is_sole else "as the hold on it has lapsed",
                )
                party.drop_partials()
                party.go_back(found.common.guid)
                moved = True
        return moved


class ArchiveTarget:
    """A directory of streams."""

    def __init__(self, tree: Tree, address: str, keep: Policy) -> None:
        self._tree = tree
        self._address = address
        self._path = address.removeprefix(ARCHIVE)
        self.keep = keep

    def run(self, progress: link.Progress | None = None, *, as_of: float | None = None) -> Outcome:
        tree = self._tree
        if tree.role.role is Role.FENCED:
            return Outcome(Rest(f"epoch {tree.role.seen_epoch} has ended this store's right to write"))
        before = filled(tree, self._address)
        if before is None:
            archiving.make_if_missing(tree, self._path)
        with locked(self._path):
            archive = open_archive(self._path)
            if before is not None and before.store != archive.manifest.guid:
                log.warning("%s: is not the archive that this link filled before; goes on with this one", self._path)
            now_ns = tree.store.clock.now_ns()
            if guests.is_untouched(tree.active):
                take(tree, is_met=True)
            known = {each.snapshot for each in archiving.purged_since(archive)}
            report = archiving.archive_into(tree, archive, progress, keep=self.keep, holds_until_ns=now_ns + HOLD_NS)
            self._tell_purged([each for each in archiving.purged_since(archive) if each.snapshot not in known])
            note_filled(tree, self._address, archive.manifest.guid)
            pruned = archiving.prune(archive, self.keep, now_ns) if report.transfers else None
        return Outcome(Send(), report, 0 if pruned is None else len(pruned.gone))

    def _tell_purged(self, points: Sequence[Point]) -> None:
        if points:
            names = ", ".join(each.operand for each in points[:_NAMES_COUNT_MAX])
            log.warning(
                "%s: the archive still has what was purged here, in %s: 'idemfs archive purge %s' deletes it there",
                self._path,
                names if len(points) <= _NAMES_COUNT_MAX else f"{names}, …",
                self._path,
            )

    def begin(self) -> None:
        """Nothing was interrupted."""

    def interrupt(self) -> None:
        """A file is written to its end, or the host is at fault."""

    def rest(self) -> None:
        """Nothing stays open between rounds."""

    def close(self) -> None:
        """Likewise."""


def renew(tree: Tree, address: str) -> None:
    """What is held for the store, or archive, that the link to this address filled, is held for some more time."""
    known = filled(tree, address)
    if known is not None:
        lanes.renew(tree.store, link.hold_owner(known.store), tree.store.clock.now_ns() + HOLD_NS)
