"""Facts about an open store.

What is in the open group is committed first, so that the digest is that of the active state; a store that is
open for reading only shows its last committed group, brought to where its next opening will bring it.

Threads: takes the store's lock.
"""

from __future__ import annotations

from idemfs.failover import records
from idemfs.failover.facts import Held, Side
from idemfs.format.tables import Snapshot
from idemfs.replication import partial
from idemfs.snapshots import bring_back, received
from idemfs.vfs.tree import Tree


def observe(tree: Tree, path: str) -> Side:
    """What decisions need to know of this store."""
    store = tree.store
    with store.lock:
        if not store.readonly:
            store.commit()
        fileset = store.catalog.filesets[tree.fileset]
        base = received.base(store, tree.fileset)
        pending = bring_back.pending(store)
        return Side(
            guid=store.superblock.guid,
            path=path,
            fileset=fileset.guid,
            role=tree.role,
            members=records.order(store),
            snapshots=tuple(held(snapshot) for snapshot in store.catalog.snapshots(tree.fileset)),
            digest=pending.digest if pending and pending.fileset == tree.fileset else fileset.digest,
            base=base.guid if base else None,
            half_received=partial.get(store) is not None,
            frozen=records.unpack_frozen(store.small.get(records.FROZEN)),
        )


def held(snapshot: Snapshot) -> Held:
    return Held(
        guid=snapshot.guid,
        name=snapshot.name,
        digest=snapshot.digest,
        created_ns=snapshot.created_ns,
        owned_bytes=snapshot.owned_bytes,
    )
