"""How much content a store has that a snapshot of it has not: what is at risk, or still to be sent, in bytes.

Threads: under the store's lock, all the while.
"""

from __future__ import annotations

from idemfs.ids import Guid
from idemfs.snapshots import measure
from idemfs.vfs.tree import Tree


def bytes_since(tree: Tree, guid: Guid | None, fileset: Guid | None = None) -> int:
    """Bytes of content in the active state of a fileset (None: of the root fileset) that the snapshot ``guid`` has not;
    all of them without one."""
    with tree.store.lock:
        catalog = tree.store.catalog
        number = next((each.number for each in catalog.listed_filesets() if each.guid == fileset), tree.fileset)
        base = catalog.by_guid(number, guid) if guid else None
        return measure.bytes_since(tree.active, number, base.id if base else None)
