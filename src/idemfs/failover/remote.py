"""A party at the other end of a connection, and what answers for it there.

A store that is to send to the one that asks does so over the same connection: while it sends, the one that asked
answers the questions of a receiver.

Threads: those of the session.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import msgspec

from idemfs.errors import PeerError
from idemfs.failover import grants, records
from idemfs.failover.facts import Frozen, Side
from idemfs.failover.lease import Ask
from idemfs.failover.party import LocalParty, Party
from idemfs.failover.records import PeerRecord
from idemfs.ids import Guid
from idemfs.replication import link, remote
from idemfs.replication.purges import Told
from idemfs.replication.receiver import Receiver
from idemfs.replication.remote import RemoteReceiver, WireTold, from_wire, to_wire
from idemfs.replication.session import Handler, Session
from idemfs.vfs.tree import Tree


class _Name(NamedTuple):
    name: str | None


class _Promotion(NamedTuple):
    epoch: int
    after: tuple[tuple[Guid, int], ...] | None


class _Demotion(NamedTuple):
    epoch: int
    base: Guid | None
    others: tuple[Guid, ...]


class _Since(NamedTuple):
    snapshot: Guid | None
    fileset: Guid | None


_NOTHING = type(None)


class RemoteParty:
    """The store at the other end of ``session``; ``own`` is the tree of this end, if it may be sent to."""

    def __init__(self, session: Session, own: Tree | None = None) -> None:
        self._session = session
        self._own = own
        self.guid = Guid(session.peer.store)

    def observe(self, path: str) -> Side:
        return replace(self._session.call("observe", None, Side), path=path)

    def claim(self) -> None:
        """Nobody else moves roles there until the session ends. Raises ``RoleError``."""
        self._session.call("claim", None, _NOTHING)

    def tell(self, epoch: int) -> None:
        self._session.call("tell", epoch, _NOTHING)

    def commit_members(self, members: list[PeerRecord]) -> None:
        self._session.call("commit_members", records.pack_members(members), _NOTHING)

    def take_snapshot(self, name: str | None) -> str | None:
        return self._session.call("take_snapshot", _Name(name), _Name).name

    def drop_partials(self) -> None:
        self._session.call("drop_partials", None, _NOTHING)

    def go_back(self, snapshot: Guid) -> None:
        self._session.call("go_back", snapshot, _NOTHING)

    def refuse_without_room(self) -> None:
        self._session.call("refuse_without_room", None, _NOTHING)

    def freeze(self, frozen: Frozen) -> None:
        self._session.call("freeze", frozen, _NOTHING)

    def next_numbers(self) -> dict[Guid, int]:
        return dict(self._session.call("next_numbers", None, list[tuple[Guid, int]]))

    def promote(self, epoch: int, after: Mapping[Guid, int] | None) -> None:
        given_out = None if after is None else tuple(after.items())
        self._session.call("promote", _Promotion(epoch, given_out), _NOTHING)

    def demote(self, epoch: int, base: Guid | None, others: tuple[Guid, ...]) -> None:
        self._session.call("demote", _Demotion(epoch, base, others), _NOTHING)

    def release_holds(self, peer: Guid) -> None:
        self._session.call("release_holds", peer, _NOTHING)

    def purges(self) -> list[Told]:
        return [from_wire(each) for each in self._session.call("purges", None, list[WireTold])]

    def purge(self, told: Sequence[Told]) -> None:
        self._session.call("purge", [to_wire(each) for each in told], _NOTHING)

    def bytes_since(self, snapshot: Guid | None, fileset: Guid | None) -> int:
        return self._session.call("bytes_since", _Since(snapshot, fileset), int)

    def receiver(self) -> Receiver:
        return RemoteReceiver(self._session)

    def send_to(self, other: Party, progress: link.Progress | None = None) -> link.Report:
        if self._own is None or other.guid != self._own.store.superblock.guid:
            raise PeerError("neither of the two stores is here: run the command where one of them is")
        mine = remote.handlers(self._own)
        self._session.handlers.update(mine)
        try:
            return self._session.call("send_to_me", None, link.Report)
        finally:
            for name in mine:
                del self._session.handlers[name]


def handlers(tree: Tree) -> dict[str, Handler]:
    """Answers for an open store of which the other end may do everything."""
    party = LocalParty(tree)
    decode = msgspec.json.decode

    def demote(raw: msgspec.Raw, _: Session) -> None:
        party.demote(*decode(raw, type=_Demotion))

    def promote(raw: msgspec.Raw, _: Session) -> None:
        epoch, after = decode(raw, type=_Promotion)
        party.promote(epoch, None if after is None else dict(after))

    def send_to_me(_raw: msgspec.Raw, session: Session) -> link.Report:
        return party.send(RemoteReceiver(session))

    return remote.handlers(tree) | {
        "ask_lease": lambda raw, _: grants.answer(tree, decode(raw, type=Ask)),
        "observe": lambda _raw, _: party.observe(""),
        "tell": lambda raw, _: party.tell(decode(raw, type=int)),
        "commit_members": lambda raw, _: party.commit_members(records.unpack_members(decode(raw, type=bytes))),
        "take_snapshot": lambda raw, _: _Name(party.take_snapshot(decode(raw, type=_Name).name)),
        "drop_partials": lambda _raw, _: party.drop_partials(),
        "go_back": lambda raw, _: party.go_back(decode(raw, type=Guid)),
        "refuse_without_room": lambda _raw, _: party.refuse_without_room(),
        "freeze": lambda raw, _: party.freeze(decode(raw, type=Frozen)),
        "next_numbers": lambda _raw, _: list(party.next_numbers().items()),
        "promote": promote,
        "demote": demote,
        "release_holds": lambda raw, _: party.release_holds(decode(raw, type=Guid)),
        "purges": lambda _raw, _: [to_wire(each) for each in party.purges()],
        "purge": lambda raw, _: party.purge([from_wire(each) for each in decode(raw, type=list[WireTold])]),
        "bytes_since": lambda raw, _: party.bytes_since(*decode(raw, type=_Since)),
        "send_to_me": send_to_me,
    }
