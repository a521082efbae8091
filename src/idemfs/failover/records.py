"""What a store remembers of other stores: its peers, and a switchover that has begun.

::

    P peers    JSON: [{"guid": hex, "path": text, "name": text}, …]    all stores that know each other, this one too
    P frozen   peer guid(16) · epoch(8, little-endian)          there from freezing until the exchange is done

They stand in the order in which they joined, which is the same on all of them. A store's *peers* are the others: those
of a primary are its standbys. Paths are absolute, or addresses; which store is meant is said by the guid. A path that
is not UTF-8 has ``\\udcXX`` for each odd byte.

Threads: under the store's lock; what is put is part of the open group.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from idemfs.errors import Damaged, PeerError
from idemfs.failover import addresses
from idemfs.failover.facts import Frozen
from idemfs.format import keys, role
from idemfs.ids import Guid
from idemfs.limits import RECORD_SIZE_MAX
from idemfs.store.store import Store

FROZEN = role.FROZEN
PEERS = keys.replication("peers")


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerRecord:
    """One other store. ``name`` is unique among the peers of a store."""

    guid: Guid
    path: str
    name: str


def pack_members(members: Iterable[PeerRecord]) -> bytes:
    """Raises ``PeerError`` when there are more than a record can hold."""
    rows = [{"guid": member.guid.hex(), "path": member.path, "name": member.name} for member in members]
    value = json.dumps(rows).encode()
    if len(value) > RECORD_SIZE_MAX:
        raise PeerError(f"a store cannot remember {len(rows)} others; remove some standbys first")
    return value


def unpack_members(value: bytes | None) -> list[PeerRecord]:
    """Raises ``Damaged``."""
    if value is None:
        return []
    try:
        rows = json.loads(value)
        members = [
            PeerRecord(guid=Guid(bytes.fromhex(row["guid"])), path=str(row["path"]), name=str(row["name"]))
            for row in rows
        ]
    except (ValueError, KeyError, TypeError) as bad:
        raise Damaged("the record of other stores is damaged") from bad
    if any(len(member.guid) != 16 for member in members):
        raise Damaged("the record of other stores is damaged")
    return members


def get_members(store: Store) -> list[PeerRecord]:
    """All stores that know each other, this one too; nobody when it knows no other one."""
    return unpack_members(store.small.get(PEERS))


def get_peers(store: Store) -> list[PeerRecord]:
    """The others."""
    return [member for member in get_members(store) if member.guid != store.superblock.guid]


def order(store: Store) -> tuple[Guid, ...]:
    """All stores that know each other, in an order that is the same on each."""
    guids = [member.guid for member in get_members(store)]
    return tuple(guids) if store.superblock.guid in guids else tuple(sorted([*guids, store.superblock.guid]))


def commit_members(store: Store, members: Iterable[PeerRecord]) -> None:
    """Durable on return, with whatever else the open group holds. Raises ``PeerError``."""
    value = pack_members(members)
    with store.exclusive():
        if store.small.get(PEERS) != value:
            store.admit(1, RECORD_SIZE_MAX)
            store.small.put(PEERS, value)
        # crash: the caller tells the other store, or the user, next.
        store.commit()


def with_member(members: list[PeerRecord], guid: Guid, path: str) -> list[PeerRecord]:
    """One more at the end, or a new path of one that is there. A new one is named after its path."""
    for at, member in enumerate(members):
        if member.guid == guid:
            return [*members[:at], PeerRecord(guid=guid, path=path, name=member.name), *members[at + 1 :]]
    return [*members, PeerRecord(guid=guid, path=path, name=_free_name(members, path))]


def without_member(members: list[PeerRecord], guid: Guid) -> list[PeerRecord]:
    """As if it had never joined; nobody at all when only one would be left."""
    left = [member for member in members if member.guid != guid]
    return left if len(left) > 1 else []


def _free_name(peers: list[PeerRecord], path: str) -> str:
    taken = {peer.name for peer in peers}
    wanted = addresses.name_of(path)
    name, count = wanted, 1
    while name in taken:
        count += 1
        name = f"{wanted}-{count}"
    return name


def find_peer(peers: list[PeerRecord], wanted: str) -> PeerRecord:
    """The peer of this name or path. Raises ``PeerError``."""
    path = addresses.absolute(wanted)
    for peer in peers:
        if peer.name == wanted or peer.path == path:
            return peer
    names = ", ".join(peer.name for peer in peers) or "none"
    raise PeerError(f"{wanted}: is no standby or primary that this store knows (known: {names})")


def pack_frozen(frozen: Frozen) -> bytes:
    return frozen.peer + frozen.epoch.to_bytes(8, "little")


def unpack_frozen(value: bytes | None) -> Frozen | None:
    """Raises ``Damaged``."""
    if value is None:
        return None
    if len(value) != 24:
        raise Damaged("the record of a switchover is damaged")
    return Frozen(peer=Guid(value[:16]), epoch=int.from_bytes(value[16:], "little"))
