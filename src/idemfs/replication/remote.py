"""A receiver at the other end of a connection, and what answers for it there.

Threads: those of the session.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from idemfs.ids import Guid
from idemfs.replication.description import Description
from idemfs.replication.holds import Protection
from idemfs.replication.purges import Told
from idemfs.replication.receiver import Following, Line, LocalReceiver, NewFileset, Present, Standing
from idemfs.replication.session import Handler, Session
from idemfs.snapshots import audit
from idemfs.snapshots import policy as policies
from idemfs.snapshots.audit import Replaced
from idemfs.snapshots.policy import Policy
from idemfs.vfs.tree import Tree


class WireTold(NamedTuple):
    """A ``Told`` whose path may be any bytes."""

    fileset: Guid
    purge: bytes
    replaced: tuple[Replaced, ...]
    present: tuple[bytes, ...]


class _WireLine(NamedTuple):
    root: Guid
    epoch: int
    independent: tuple[Guid, ...]
    purges: tuple[WireTold, ...]


class _Origin(NamedTuple):
    fileset: Guid
    snapshot: Guid


class _Digest(NamedTuple):
    digest: int | None


class _Current(NamedTuple):
    root: Guid
    age_seconds: float


class _Receive(NamedTuple):
    filesets: tuple[Guid, ...]
    wanted: tuple[tuple[Guid, Description], ...]


class _Prune(NamedTuple):
    """``keep``: as in the record of a policy."""

    filesets: tuple[Guid, ...]
    keep: bytes


class RemoteReceiver:
    """The store at the other end of ``session``."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.guid = Guid(session.peer.store)

    def agree(self, line: Line) -> list[Present]:
        purges = tuple(to_wire(each) for each in line.purges)
        return self._session.call("agree", _WireLine(line.root, line.epoch, line.independent, purges), list[Present])

    def stand(self) -> Standing:
        return self._session.call("stand", None, Standing)

    def look(self) -> list[Present]:
        return self._session.call("look", None, list[Present])

    def make(self, missing: Sequence[NewFileset]) -> None:
        self._session.call("make", missing, type(None))

    def origin_digest(self, fileset: Guid, snapshot: Guid) -> int | None:
        return self._session.call("origin_digest", _Origin(fileset, snapshot), _Digest).digest

    def receive(
        self, streams: Sequence[tuple[Guid, Iterable[bytes | memoryview]]], wanted: Mapping[Guid, Description]
    ) -> list[bool]:
        asked = _Receive(tuple(guid for guid, _ in streams), tuple(wanted.items()))
        return self._session.call("receive", asked, list[bool], [chunks for _, chunks in streams])

    def follow(self, following: Following) -> dict[Guid, Protection]:
        return dict(self._session.call("follow", following, list[tuple[Guid, Protection]]))

    def note_current(self, root: Guid, age_seconds: float) -> None:
        self._session.call("note_current", _Current(root, age_seconds), type(None))

    def begin_anew(self, filesets: Sequence[Guid]) -> None:
        self._session.call("begin_anew", filesets, type(None))

    def prune(self, filesets: Sequence[Guid], keep: Policy) -> int:
        return self._session.call("prune", _Prune(tuple(filesets), policies.pack(keep)), int)


def handlers(tree: Tree) -> dict[str, Handler]:
    """Answers for an open store that is to receive."""
    receiver = LocalReceiver(tree)
    decode = msgspec.json.decode

    def agree(raw: msgspec.Raw, _: Session) -> list[Present]:
        line = decode(raw, type=_WireLine)
        purges = tuple(from_wire(each) for each in line.purges)
        return receiver.agree(Line(line.root, line.epoch, line.independent, purges))

    def stand(_raw: msgspec.Raw, _: Session) -> Standing:
        return receiver.stand()

    def look(_raw: msgspec.Raw, _: Session) -> list[Present]:
        return receiver.look()

    def make(raw: msgspec.Raw, _: Session) -> None:
        receiver.make(decode(raw, type=list[NewFileset]))

    def origin_digest(raw: msgspec.Raw, _: Session) -> _Digest:
        return _Digest(receiver.origin_digest(*decode(raw, type=_Origin)))

    def receive(raw: msgspec.Raw, session: Session) -> list[bool]:
        asked = decode(raw, type=_Receive)
        return receiver.receive([(guid, session.data()) for guid in asked.filesets], dict(asked.wanted))

    def follow(raw: msgspec.Raw, _: Session) -> list[tuple[Guid, Protection]]:
        return list(receiver.follow(decode(raw, type=Following)).items())

    def prune(raw: msgspec.Raw, _: Session) -> int:
        filesets, keep = decode(raw, type=_Prune)
        return receiver.prune(filesets, policies.unpack(keep))

    def note_current(raw: msgspec.Raw, _: Session) -> None:
        receiver.note_current(*decode(raw, type=_Current))

    def begin_anew(raw: msgspec.Raw, _: Session) -> None:
        receiver.begin_anew(decode(raw, type=list[Guid]))

    return {
        "note_current": note_current,
        "begin_anew": begin_anew,
        "agree": agree,
        "stand": stand,
        "look": look,
        "make": make,
        "origin_digest": origin_digest,
        "receive": receive,
        "follow": follow,
        "prune": prune,
    }


def to_wire(told: Told) -> WireTold:
    return WireTold(told.fileset, audit.pack(told.purge), told.purge.replaced, tuple(told.present))


def from_wire(told: WireTold) -> Told:
    """Raises ``Damaged``."""
    return Told(told.fileset, audit.unpack(told.purge)._replace(replaced=told.replaced), set(told.present))
