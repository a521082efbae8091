"""Write leases of an open store: what it grants as a standby, what it requires as a primary, and what it knows.

What is granted is recorded before it is told, once for each holder and epoch; renewals are known to this process alone,
and after it ended the last one counts in full.

Threads: any.
"""

from __future__ import annotations

import time

from idemfs.failover import actions, lease, records
from idemfs.failover.automatic import Own
from idemfs.failover.lease import Answer, Ask, Grantor, Position
from idemfs.failover.observe import guid_of
from idemfs.format import lease as lease_records
from idemfs.format.lease import Asked, Granted
from idemfs.format.role import Role
from idemfs.ids import ROOT_FILESET
from idemfs.limits import RECORD_SIZE_MAX
from idemfs.snapshots import lines, received
from idemfs.vfs.tree import Tree
from idemfs.vfs.write_lease import lease_of

_RECENT_COUNT = 64
"""Snapshots by which it is told who is ahead; who lags further behind is told by times."""
_LOOK_SECONDS = 0.5


# -- granting ------------------------------------------------------------------------------------------


def answer(tree: Tree, ask: Ask) -> Answer:
    """Grant the lease that is asked for, or say why not; and hear of the other's epoch."""
    with tree.store.lock:
        granted = granted_by(tree)
        grantor = Grantor(store=guid_of(tree), role=tree.role, granted=granted, is_taking_over=tree.is_taking_over)
        ruling = lease.rule(grantor, ask)
        if ruling.granted is not None:
            # From here on this store does not take over before, whatever becomes of the answer.
            until_ns = tree.store.clock.since_boot_ns() + ruling.granted.duration_ns
            tree.granted_until_ns = max(tree.granted_until_ns, until_ns)
    if ruling.hear is not None:
        actions.tell(tree, ruling.hear)
    if ruling.granted is not None and ruling.granted != granted:
        _record(tree, lease_records.GRANTED, lease_records.pack_granted(ruling.granted))
    return Answer(
        store=guid_of(tree),
        role=tree.role,
        is_granted=ruling.granted is not None,
        position=position_of(tree),
        reason=ruling.reason,
    )


def granted_by(tree: Tree) -> Granted | None:
    """What this store granted last."""
    return lease_records.unpack_granted(tree.store.small.get(lease_records.GRANTED))


def granted_left_ns(tree: Tree) -> int:
    return lease.left_ns(tree.granted_until_ns, tree.store.clock.since_boot_ns())


def begin(tree: Tree) -> bool:
    """Grant nothing any more, unless something that was granted has not run out; whether that is so."""
    with tree.store.lock:
        if granted_left_ns(tree):
            return False
        tree.is_taking_over = True
        return True


def cease(tree: Tree) -> None:
    """Grant again."""
    tree.is_taking_over = False


def await_grants(tree: Tree) -> None:
    """Grant nothing any more, and return when what was granted has run out."""
    with tree.store.lock:
        tree.is_taking_over = True
    while left_ns := granted_left_ns(tree):
        time.sleep(min(left_ns / 1e9, _LOOK_SECONDS))


# -- requiring -----------------------------------------------------------------------------------------


def require(tree: Tree, duration_ns: int | None) -> None:
    """From now on the store takes changes only with a live lease so long; None: by its role. Durable on return."""
    known = tree.write_lease
    if duration_ns == (None if known is None else known.duration_ns):
        return
    value = None if duration_ns is None else lease_records.pack_required(duration_ns)
    _record(tree, lease_records.REQUIRED, value)
    with tree.store.lock:
        tree.write_lease = lease_of(tree.store)


def remember(tree: Tree, asked: Asked) -> None:
    """Whose grants it needs; durable on return."""
    _record(tree, lease_records.ASKED, lease_records.pack_asked(asked))


def _record(tree: Tree, key: bytes, value: bytes | None) -> None:
    with tree.store.exclusive():
        tree.store.admit(1, RECORD_SIZE_MAX if value is None else 100 + len(value))
        tree.store.small.put(key, value)
        # crash: the caller tells others what stands here, or relies on it itself.
        tree.store.commit()


# -- looking -------------------------------------------------------------------------------------------


def position_of(tree: Tree) -> Position | None:
    """How far it has come, by the snapshots of its root fileset; None: it has none."""
    store = tree.store
    with store.lock:
        known = store.catalog.snapshots(ROOT_FILESET)
        if tree.role.role is Role.STANDBY:
            base = received.base(store, ROOT_FILESET)
            known = [] if base is None else known[: known.index(base) + 1]
        if not known:
            return None
        recent = tuple(each.guid for each in known[-_RECENT_COUNT:])
        return Position(recent=recent, created_ns=known[-1].created_ns)


def complete_ns(tree: Tree) -> int:
    """Until when a primary's newest snapshots have everything."""
    store = tree.store
    with store.lock:
        times = []
        for fileset in lines.own_filesets(store):
            known = store.catalog.snapshots(fileset.number)
            # The digest is that of the last group; what is in the open one is not counted yet.
            is_same = bool(known) and known[-1].digest == fileset.digest and not store.dirty
            times.append(store.clock.now_ns() if is_same else known[-1].created_ns if known else 0)
        return min(times)


def own_of(tree: Tree, failure: str) -> Own:
    """What the store knows of itself; ``failure``: why it cannot be primary."""
    store = tree.store
    with store.lock:
        return Own(
            store=guid_of(tree),
            role=tree.role,
            now_ns=store.clock.since_boot_ns(),
            members=records.order(store),
            granted_until_ns=tree.granted_until_ns,
            asked=lease_records.unpack_asked(store.small.get(lease_records.ASKED)),
            position=position_of(tree),
            complete_ns=complete_ns(tree) if tree.role.role is Role.PRIMARY else 0,
            time_ns=store.clock.now_ns(),
            is_frozen=store.small.get(records.FROZEN) is not None,
            failure=failure,
        )
