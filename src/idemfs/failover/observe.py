"""Facts about an open store.

What is in the open group is committed first, so that the digest is that of the active state; a store that is
open for reading only shows its last committed group, brought to where its next opening will bring it.

Threads: takes the store's lock.
"""

from __future__ import annotations

from idemfs.failover import records
from idemfs.failover.facts import Held, Part, Purged, Side
from idemfs.format import lease
from idemfs.format.tables import Fileset, Snapshot
from idemfs.ids import Guid
from idemfs.replication import partial
from idemfs.replication.apply import is_half_received
from idemfs.replication.purges import purges_of
from idemfs.snapshots import bring_back, diverged, lines, received
from idemfs.store.store import Store
from idemfs.vfs.tree import Tree


def guid_of(tree: Tree) -> Guid:
    return Guid(tree.store.superblock.guid)


def observe(tree: Tree, path: str) -> Side:
    """What decisions need to know of this store."""
    store = tree.store
    with store.lock:
        if not store.readonly:
            store.commit()
        left = diverged.unreleased(store)
        granted = lease.unpack_granted(store.small.get(lease.GRANTED))
        root, *others = [_part(store, fileset) for fileset in lines.own_filesets(store)]
        return Side(
            guid=store.superblock.guid,
            path=path,
            fileset=root.fileset,
            role=tree.role,
            members=records.order(store),
            snapshots=root.snapshots,
            digest=root.digest,
            base=root.base,
            purged=root.purged,
            half_received=is_half_received(store),
            frozen=records.unpack_frozen(store.small.get(records.FROZEN)),
            others=tuple(others),
            diverged_count=len(left),
            diverged_bytes=sum(snapshot.owned_bytes for snapshot, _ in left),
            granted_ns=None if granted is None else max(0, tree.granted_until_ns - store.clock.since_boot_ns()),
            granted_epoch=None if granted is None else granted.epoch,
            needs_lease=tree.write_lease is not None,
        )


def _part(store: Store, fileset: Fileset) -> Part:
    base = received.base(store, fileset.number)
    pending = bring_back.pending(store)
    half = partial.get(store, fileset.number)
    # What was put aside is none of what this store and its primary know of each other.
    known = [] if received.is_anew(store, fileset.number) else store.catalog.snapshots(fileset.number)
    if half is not None and half.is_dropping and base is not None:
        # What is being undone is as good as undone.
        pending = base
    return Part(
        fileset=fileset.guid,
        name=fileset.name if fileset.number else "",
        snapshots=tuple(held(snapshot) for snapshot in known),
        digest=pending.digest if pending and pending.fileset == fileset.number else fileset.digest,
        base=base.guid if base else None,
        purged=tuple(
            Purged(
                old=Guid(bytes.fromhex(each.old_guid)),
                new=Guid(bytes.fromhex(each.new_guid)),
                digest=int(each.digest, 16),
            )
            for purge in purges_of(store, fileset.number)
            for each in purge.replaced
        ),
    )


def held(snapshot: Snapshot) -> Held:
    return Held(
        guid=snapshot.guid,
        name=snapshot.name,
        digest=snapshot.digest,
        created_ns=snapshot.created_ns,
        owned_bytes=snapshot.owned_bytes,
    )
