"""What an open store tells ``collapse`` of the snapshots that are to be sent, and what a peer's hold keeps on it.

A hold for a peer may expire: then nobody has to end it when the peer, or the link to it, is no more. As long as there
is a link, it says again that the newest common snapshot is needed.

Threads: the store's lock is taken for each part.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from idemfs.format.tables import Snapshot
from idemfs.ids import FilesetId, Guid
from idemfs.replication import collapse
from idemfs.replication.collapse import Lane
from idemfs.replication.plan import Plan
from idemfs.snapshots import manage
from idemfs.snapshots.info import NEVER_NS
from idemfs.snapshots.policy import Policy, zone_of
from idemfs.snapshots.retention import Candidate
from idemfs.store.store import Store

_SLACK_NS = 3600 * 1_000_000_000
"""A hold that ends at almost the same time is left as it is."""


def collapsed(
    store: Store, plans: Sequence[tuple[FilesetId, Plan]], begun: Mapping[FilesetId, Guid], keep: Policy
) -> list[tuple[FilesetId, Plan]]:
    """``plans`` without the steps that the other side need not make. ``begun``: targets that it has a part of."""
    if all(len(made.steps) <= 1 for _, made in plans):
        return list(plans)
    lanes = [Lane(made, _candidates(store, number, made), begun.get(number)) for number, made in plans]
    chosen = collapse.collapse(lanes, keep, store.clock.now_ns(), zone_of(keep.zone))
    return [(number, made) for (number, _), made in zip(plans, chosen, strict=True)]


def _candidates(store: Store, fileset: FilesetId, made: Plan) -> list[Candidate]:
    wanted = {step.target.guid: at for at, step in enumerate(made.steps)}
    found: dict[int, Candidate] = {}
    with store.lock:
        for each in store.catalog.snapshots(fileset):
            at = wanted.get(Guid(each.guid))
            if at is not None:
                owners = [name for name in manage.holders(store, each) if not name.startswith(manage.STANDBY_PREFIX)]
                until_ns = manage.locked_until(store, each)
                found[at] = Candidate(at, each.name, each.created_ns, 0, 0, tuple(owners), until_ns)
    # One that was deleted meanwhile is missed when it is to be sent.
    return [found.get(at) or Candidate(at, step.target.name, 0) for at, step in enumerate(made.steps)]


def hold(store: Store, owner: str, snapshots: Sequence[Snapshot], expires_ns: int = NEVER_NS) -> bool:
    """Hold them for a peer, before they are sent; whether that is new. Sealed on return. Raises ``SnapshotMissing``."""
    is_new = False
    with store.lock:
        for snapshot in snapshots:
            until_ns = dict(manage.keep_of(store, snapshot).holds).get(owner, 0)
            if abs(until_ns - expires_ns) > _SLACK_NS:
                manage.hold(store, snapshot, owner, expires_ns)
                is_new = True
        if is_new:
            # crash: a stream waits before its end until all that is sealed is durable. So who has the snapshot there
            # finds it held here, also when this store fails next and it is all that both have.
            store.commit(wait=False)
    return is_new


def hold_only(
    store: Store,
    owner: str,
    snapshots: Sequence[Snapshot],
    expires_ns: int = NEVER_NS,
    *,
    is_new: bool = False,
    coming: Collection[Guid] = (),
) -> None:
    """Each is the one of its fileset that the peer whose hold this is needs; durable on return.

    ``is_new``: such a hold was put before, and may only be sealed. Those on snapshots that are ``coming`` stay; that
    others are let go is not waited for.
    """
    with store.lock:
        is_new |= hold(store, owner, snapshots, expires_ns)
        for snapshot in snapshots:
            for other in store.catalog.all_snapshots(snapshot.fileset):
                is_other = other.id != snapshot.id and other.guid not in coming
                if is_other and owner in manage.holders(store, other):
                    manage.release(store, other, owner)
        if is_new:
            # crash: the next change set may be refused without these, so the holds are durable before that begins.
            store.wait_durable()


def renew(store: Store, owner: str, expires_ns: int) -> None:
    """What is held for this peer is held until then; durable on return."""
    with store.lock:
        for fileset in store.catalog.listed_filesets():
            for snapshot in store.catalog.all_snapshots(fileset.number):
                if owner in manage.holders(store, snapshot):
                    manage.hold(store, snapshot, owner, expires_ns)
        # crash: nothing relies on it; a hold that lapsed costs a longer transfer.
        store.commit()
