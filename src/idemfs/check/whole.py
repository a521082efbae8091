"""All checks of one store, one after the other.

Threads: the store is kept from changing until the iterator has ended.
"""

from __future__ import annotations

from collections.abc import Iterator

from idemfs.check import clones, filesets, names, shadows, small
from idemfs.check.active import ActiveRecords
from idemfs.check.context import Context
from idemfs.check.digests import Digests
from idemfs.check.extents import Extents
from idemfs.check.findings import Finding
from idemfs.errors import Damaged
from idemfs.format import keys, role
from idemfs.format.role import Role
from idemfs.format.tables import COMPLETE, Snapshot
from idemfs.ids import FilesetId
from idemfs.store.store import Store
from idemfs.vfs.tree import Tree

_UNDER_WAY = (keys.replication("restore"), keys.replication("rollback"), keys.UNDOING)


def find(store_or_tree: Store | Tree, *, read_data: bool = False) -> Iterator[Finding]:
    """What is wrong with a store; ``read_data`` reads every block too.

    The open group is committed first, so that the tables alone tell the state. What is under way, a deletion,
    a restore, a transfer, is no finding. Raises ``Damaged`` when the metadata cannot be read at all.
    """
    store = store_or_tree.store if isinstance(store_or_tree, Tree) else store_or_tree
    with store.exclusive():
        store.commit()
        active = clones.active_of(store, store_or_tree if isinstance(store_or_tree, Tree) else None)
        context = Context(store, store.catalog.state, active)
        yield from small.read(context)
        yield from clones.check(context)
        between = {number: base for number in context.filesets for base in _between(context, number)}
        yield from filesets.check(context, between.keys(), _is_standby(store))
        extents = Extents(context)
        yield from ActiveRecords(context, extents, frozenset(between), read_data).check()
        yield from shadows.ShadowRecords(context, extents).check()
        yield from shadows.check_owned(context)
        for number in context.filesets:
            if context.is_going(number):
                continue
            if number not in between:
                yield from names.Names(context, number, names.ActiveState(context, number)).check()
            elif (base := between[number]) is not None:
                yield from names.Names(context, number, names.SnapshotState(context, number, base.id)).check()
            yield from Digests(context, number).check()
        yield from names.check_orphans(context)
        yield from extents.check(read_data)


def _is_standby(store: Store) -> bool:
    try:
        return role.unpack(store.small.get(role.KEY)).role is Role.STANDBY
    except Damaged:
        return False


def _between(context: Context, number: FilesetId) -> Iterator[Snapshot | None]:
    """Once, when the active state is on the way to another one: the snapshot that it comes from, if there is one."""
    store = context.store
    snapshots = context.timelines[number].snapshots
    if any((store.small.get(key) or b"")[:2] == number.to_bytes(2, "big") for key in _UNDER_WAY):
        yield snapshots[-1] if snapshots else None
        return
    if not _is_standby(store) or number in context.drills:
        return
    guid = store.small.get(keys.fileset_replication(number, "base"))
    complete = [snapshot for snapshot in snapshots if snapshot.state == COMPLETE and guid in (None, snapshot.guid)]
    base = complete[-1] if complete else None
    if base is None or base.digest != context.filesets[number].digest:
        yield base
