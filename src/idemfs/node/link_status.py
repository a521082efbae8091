"""What is known of a link beside what its thread is doing: the newest common snapshots, the lag, what is under way.

Threads: any; the store's lock is taken for each part.
"""

from __future__ import annotations

from typing import NamedTuple

from idemfs.format.tables import Snapshot
from idemfs.ids import ROOT_FILESET, FilesetId, Guid
from idemfs.node.progress import Meter, TransferStatus
from idemfs.replication.link import hold_owner
from idemfs.snapshots import lines, manage, measure
from idemfs.vfs.tree import Tree


def held_for(tree: Tree, peer: Guid) -> dict[FilesetId, Snapshot]:
    """The newest snapshot of each fileset that this store or archive has: it is held for it.

    What is being sent, or was when a transfer ended early, is held, too, and newer.
    """
    store, owner = tree.store, hold_owner(peer)
    found: dict[FilesetId, Snapshot] = {}
    with store.lock:
        for fileset in lines.own_filesets(store):
            known = store.catalog.snapshots(fileset.number)
            held = next((each for each in known if owner in manage.holders(store, each)), None)
            if held is not None:
                found[fileset.number] = held
    return found


def newest_of_all(tree: Tree) -> dict[FilesetId, Snapshot]:
    store = tree.store
    with store.lock:
        newest = {each.number: store.catalog.newest(each.number) for each in lines.own_filesets(store)}
    return {number: snapshot for number, snapshot in newest.items() if snapshot is not None}


class Lag(NamedTuple):
    """``seconds`` 0: nothing has changed since the common snapshots were taken."""

    seconds: float
    common: Snapshot


def lag(tree: Tree, common: dict[FilesetId, Snapshot], now_ns: int) -> Lag | None:
    """None: there is no common snapshot yet."""
    store = tree.store
    root = common.get(ROOT_FILESET)
    if root is None:
        return None
    with store.lock:
        behind = [
            each.number
            for each in lines.own_filesets(store)
            if each.number not in common or common[each.number].digest != each.digest
        ]
    if not behind:
        return Lag(0.0, root)
    since_ns = min(common[number].created_ns if number in common else 0 for number in behind)
    return Lag(max(0.0, (now_ns - (since_ns or root.created_ns)) / 1e9), root)


def lag_bytes(tree: Tree, common: dict[FilesetId, Snapshot]) -> int:
    """Content that the other side has not; measuring it takes time that follows what has changed."""
    store = tree.store
    with store.lock:
        numbers = [each.number for each in lines.own_filesets(store)]
    total = 0
    for number in numbers:
        base = common.get(number)
        total += measure.estimate(tree.active, number, None if base is None else base.id)
    return total


def transfer(tree: Tree, meter: Meter, common: dict[FilesetId, Snapshot], now: float) -> TransferStatus | None:
    """What is under way. The first one who asks has the whole of it estimated."""
    guid = meter.snapshot
    if guid is None:
        return None
    store = tree.store
    with store.lock:
        filesets = lines.own_filesets(store)
        target = next((it for each in filesets if (it := store.catalog.by_guid(each.number, guid)) is not None), None)
    if target is None:
        return None
    base = common.get(target.fileset)
    if base is target:
        # It is there, and only this is not told yet.
        return None
    if meter.total is None:
        meter.total = measure.estimate(tree.active, target.fileset, None if base is None else base.id)
    fileset = store.catalog.filesets.get(target.fileset)
    return meter.status("" if fileset is None else fileset.name, target.name, None if base is None else base.name, now)
