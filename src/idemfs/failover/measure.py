"""How much content a store has that a snapshot of it has not: what is at risk, or still to be sent, in bytes.

Threads: under the store's lock, all the while.
"""

from __future__ import annotations

from idemfs.ids import Guid
from idemfs.snapshots import measure
from idemfs.vfs.tree import Tree


def bytes_since(tree: Tree, guid: Guid | None) -> int:
    """Bytes of content in the active state that the snapshot ``guid`` has not; all of them without one."""
    with tree.store.lock:
        base = tree.store.catalog.by_guid(tree.fileset, guid) if guid else None
        return measure.bytes_since(tree.active, tree.fileset, base.id if base else None)
