"""The stores that take part in one command, open: the one that it was called for, and its peers.

Threads: one. Whoever opened the stores closes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from idemfs.failover import records
from idemfs.failover.facts import Peer, Side, Unreachable
from idemfs.failover.observe import guid_of, observe
from idemfs.failover.party import LocalParty, Party
from idemfs.ids import Guid
from idemfs.vfs.tree import Tree


@dataclass(slots=True)
class Stage:
    """``me``, and by guid its path and its peers, opened or reached; those that were not are ``missing``."""

    me: Tree
    peers: Mapping[Guid, Tree | Party]
    paths: Mapping[Guid, str]
    missing: Sequence[Unreachable] = field(default=())

    def party(self, guid: Guid) -> Party:
        found = self.me if guid == guid_of(self.me) else self.peers[guid]
        return LocalParty(found) if isinstance(found, Tree) else found

    def facts(self) -> tuple[Side, list[Peer]]:
        """What there is now; peers in the order in which the store remembers them."""
        found: dict[Guid, Peer] = {peer.guid: peer for peer in self.missing}
        for guid in self.peers:
            found[guid] = self.party(guid).observe(self.paths[guid])
        me = observe(self.me, self.paths[guid_of(self.me)])
        return me, [found[record.guid] for record in records.get_peers(self.me.store)]

    def find(self, wanted: str) -> Guid:
        """The peer of this name or path. Raises ``PeerError``."""
        return records.find_peer(records.get_peers(self.me.store), wanted).guid

    def snapshot_name(self, store: Guid, snapshot: Guid) -> str:
        """``NAME``, or ``FILESET@NAME``."""
        for part in self.party(store).observe(self.paths[store]).parts:
            for held in part.snapshots:
                if held.guid == snapshot:
                    return f"{part.name}@{held.name}" if part.name else held.name
        return snapshot.hex()
