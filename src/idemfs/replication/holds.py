"""Holds and locks of users follow their snapshots to the standby; what stores hold for each other does not.

``Q snapshot owner`` marks a hold that both stores know of, on each of them: whichever is the standby lets it go when
the primary has it no more. What somebody held on one store alone has no mark, and stays. A lock is never made shorter.

Threads: each store's lock is taken for its own part, never both.
"""

from __future__ import annotations

from typing import NamedTuple

from idemfs.format import keys
from idemfs.format.tables import Snapshot
from idemfs.ids import FilesetId, Guid, SnapshotId
from idemfs.limits import SCAN_COUNT
from idemfs.snapshots import manage
from idemfs.store.store import Store


class Protection(NamedTuple):
    """What keeps one snapshot: owners of holds and when these end, and until when it is locked."""

    holds: tuple[tuple[str, int], ...] = ()
    locked_until_ns: int = 0


NOTHING = Protection()


def protections(store: Store, filesets: list[FilesetId]) -> dict[Guid, Protection]:
    """Of the snapshots of these filesets that users hold or have locked."""
    with store.lock:
        now_ns = store.clock.now_ns()
        holds: dict[SnapshotId, list[tuple[str, int]]] = {}
        for key, value in _pairs(store, b"H"):
            owner, expires_ns = key[9:].decode(), int.from_bytes(value, "little")
            if expires_ns > now_ns and not owner.startswith(manage.STANDBY_PREFIX):
                holds.setdefault(SnapshotId(int.from_bytes(key[1:9], "big")), []).append((owner, expires_ns))
        locks = {SnapshotId(int.from_bytes(k[1:], "big")): int.from_bytes(v, "little") for k, v in _pairs(store, b"L")}
        if not holds and not locks:
            return {}
        return {
            each.guid: Protection(tuple(holds.get(each.id, ())), locks.get(each.id, 0))
            for fileset in filesets
            for each in store.catalog.snapshots(fileset)
            if each.id in holds or each.id in locks
        }


def follow(store: Store, filesets: list[FilesetId], wanted: dict[Guid, Protection]) -> dict[Guid, Protection]:
    """Let the snapshots of these filesets be kept as ``wanted`` says; what of it there is. Part of the open group."""
    with store.lock:
        marked = {SnapshotId(int.from_bytes(key[1:9], "big")) for key, _ in _pairs(store, b"Q")}
        there: dict[Guid, Protection] = {}
        if not wanted and not marked:
            return there
        for fileset in filesets:
            for snapshot in store.catalog.snapshots(fileset):
                if snapshot.guid in wanted or snapshot.id in marked:
                    protect(store, snapshot, wanted.get(snapshot.guid, NOTHING))
                if snapshot.guid in wanted:
                    there[snapshot.guid] = wanted[snapshot.guid]
        return there


def note_told(store: Store, filesets: list[FilesetId], told: dict[Guid, Protection]) -> bool:
    """The primary remembers of which holds its standby knows; whether that is new. Part of the open group."""
    with store.lock:
        marked = {key for key, _ in _pairs(store, b"Q")}
        if not told and not marked:
            return False
        wanted = {
            keys.came_hold(snapshot.id, owner.encode())
            for fileset in filesets
            for snapshot in store.catalog.snapshots(fileset)
            for owner, _ in told.get(snapshot.guid, NOTHING).holds
        }
        for key in marked - wanted:
            store.admit(1, 300, frees=True)
            store.small.put(key, None)
        for key in wanted - marked:
            store.admit(1, 300)
            store.small.put(key, b"")
        return wanted != marked


def protect(store: Store, snapshot: Snapshot, wanted: Protection) -> None:
    """Part of the open group."""
    with store.lock:
        came = [key[9:].decode() for key, _ in store.small.scan(*keys.came_hold_range(snapshot.id), SCAN_COUNT)]
        present = {
            key[9:].decode(): value for key, value in store.small.scan(*keys.hold_range(snapshot.id), SCAN_COUNT)
        }
        for owner in set(came) - dict(wanted.holds).keys():
            manage.release(store, snapshot, owner)
            store.admit(1, 300, frees=True)
            store.small.put(keys.came_hold(snapshot.id, owner.encode()), None)
        for owner, expires_ns in wanted.holds:
            if owner in came or owner not in present:
                if present.get(owner) != expires_ns.to_bytes(8, "little"):
                    manage.hold(store, snapshot, owner, expires_ns)
                if owner not in came:
                    store.admit(1, 300)
                    store.small.put(keys.came_hold(snapshot.id, owner.encode()), b"")
        if wanted.locked_until_ns > manage.locked_until(store, snapshot):
            manage.lock(store, snapshot, wanted.locked_until_ns)


def _pairs(store: Store, prefix: bytes) -> list[tuple[bytes, bytes]]:
    found: list[tuple[bytes, bytes]] = []
    start, end = keys.prefix_range(prefix)
    while pairs := store.small.scan(start, end, SCAN_COUNT):
        found += pairs
        start = pairs[-1][0] + b"\0"
    return found
