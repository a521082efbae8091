"""The *base record* of a standby: which snapshot its active state equals when no change set is half-received.

``P base``, and of other filesets than the root ``V fileset base``, holds the 16 bytes of its guid. It is
written in the group that completes a received snapshot, and by a failback when the store has gone back to the common
snapshot: newer ones by number (``diverged-…``) are then not what the standby has received. So every base check, every
reader of a standby and whoever drops a half-received change set ask ``base``, never for the newest number.
A snapshot that was purged since is the base still, under its new guid. Without the record the newest complete
snapshot is the base; a fileset without snapshots has received nothing, and neither has one of which the record holds
zeros: what it has was put aside, and a full stream is to come.
On a primary the record means nothing; becoming primary removes it.

Threads: under the store's lock; ``put_base`` is part of the open group.
"""

from __future__ import annotations

from idemfs.format import keys
from idemfs.format.tables import Snapshot
from idemfs.ids import ROOT_FILESET, FilesetId, Guid
from idemfs.snapshots import audit
from idemfs.store.store import Store

_BASE = "base"
_ANEW = Guid(bytes(16))


def base(store: Store, fileset: FilesetId) -> Snapshot | None:
    """The snapshot that was received last; None: none was, or it was deleted since."""
    value = store.small.get(keys.fileset_replication(fileset, _BASE))
    if value is not None:
        return store.catalog.by_guid(fileset, Guid(value)) or _purged(store, fileset, value)
    snapshots = store.catalog.snapshots(fileset)
    return snapshots[-1] if snapshots else None


def _purged(store: Store, fileset: FilesetId, guid: bytes) -> Snapshot | None:
    """The snapshot that had this guid before something was purged from it, and is the base still."""
    snapshot_id = audit.snapshot_before(store, guid)
    return next((each for each in store.catalog.snapshots(fileset) if each.id == snapshot_id), None)


def is_anew(store: Store, fileset: FilesetId) -> bool:
    """Whether it has snapshots, and none of them is what its primary has: it waits for a full stream."""
    return store.small.get(keys.fileset_replication(fileset, _BASE)) == _ANEW


def put_anew(store: Store, fileset: FilesetId) -> None:
    """Nothing was received of it, whatever snapshots it has. The caller has admitted one record of 100 bytes."""
    put_base(store, _ANEW, fileset)


def put_base(store: Store, guid: Guid | None, fileset: FilesetId = ROOT_FILESET) -> None:
    """Name the base, or with None forget it. The caller has admitted one record of 100 bytes."""
    store.small.put(keys.fileset_replication(fileset, _BASE), guid)
