"""The stores that take part in one command, open: the one that it was called for, and its peers.

Threads: one. Whoever opened the stores closes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from idemfs.failover import records
from idemfs.failover.facts import Peer, Side, Unreachable
from idemfs.failover.observe import observe
from idemfs.ids import Guid
from idemfs.vfs.tree import Tree


def guid_of(tree: Tree) -> Guid:
    return tree.store.superblock.guid


@dataclass(slots=True)
class Stage:
    """``me``, and by guid its path and the peers that could be opened; those that could not are ``missing``."""

    me: Tree
    peers: Mapping[Guid, Tree]
    paths: Mapping[Guid, str]
    missing: Sequence[Unreachable] = field(default=())

    def tree(self, guid: Guid) -> Tree:
        return self.me if guid == guid_of(self.me) else self.peers[guid]

    def facts(self) -> tuple[Side, list[Peer]]:
        """What there is now; peers in the order in which the store remembers them."""
        found: dict[Guid, Peer] = {peer.guid: peer for peer in self.missing}
        for guid, tree in self.peers.items():
            found[guid] = observe(tree, self.paths[guid])
        me = observe(self.me, self.paths[guid_of(self.me)])
        return me, [found[record.guid] for record in records.get_peers(self.me.store)]

    def find(self, wanted: str) -> Guid:
        """The peer of this name or path. Raises ``PeerError``."""
        return records.find_peer(records.get_peers(self.me.store), wanted).guid

    def close(self) -> None:
        for tree in (self.me, *self.peers.values()):
            tree.store.close()
