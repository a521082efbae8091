"""Create, find, rename and hold snapshots.

A snapshot is one record, written with the group whose state it names; nothing is
copied, whatever the size of the fileset.

Threads: each call takes the store's lock for its time.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import iter_unpack
from typing import NamedTuple

from idemfs.errors import (
    BadSnapshotName,
    FilesetMissing,
    SnapshotExists,
    SnapshotHeld,
    SnapshotLocked,
    SnapshotMissing,
)
from idemfs.format import keys
from idemfs.format.tables import COMPLETE, DELETING, Snapshot
from idemfs.ids import ROOT_FILESET, FilesetId, Guid
from idemfs.limits import SCAN_COUNT, SNAPSHOT_COUNT_MAX, SNAPSHOT_NAME_SIZE_MAX
from idemfs.snapshots import diverged
from idemfs.snapshots.info import NEVER_NS
from idemfs.store.catalog import Catalog
from idemfs.store.keeps import Keep
from idemfs.store.store import Store

RESERVED_NAMES = ("latest", ".", "..")
STANDBY_PREFIX = "standby:"
"""How the owner of a hold begins that a store made for another one."""


def check_name(name: str) -> None:
    """Raises ``BadSnapshotName``: names become folders in ``.snapshots`` and stand after ``@``."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise BadSnapshotName(f"snapshot name {name!r} is not valid Unicode") from None
    if not 0 < size <= SNAPSHOT_NAME_SIZE_MAX:
        raise BadSnapshotName(f"a snapshot name has 1 to {SNAPSHOT_NAME_SIZE_MAX} bytes; this one has {size}")
    if any(c in "/@" or not c.isprintable() for c in name):
        raise BadSnapshotName(f"snapshot name {name!r} has '/', '@' or an unprintable character")
    if name in RESERVED_NAMES:
        raise BadSnapshotName(f"{name!r} is reserved; choose another snapshot name")


def create(
    store: Store,
    fileset: FilesetId,
    name: str,
    *,
    guid: Guid | None = None,
    created_ns: int | None = None,
    joined: Callable[[Snapshot], bool] | None = None,
) -> Snapshot:
    """Take snapshot ``name`` of the active state; durable on return.

    ``guid`` and ``created_ns`` are given when a standby completes a snapshot of its primary. ``joined`` is called
    just before the snapshot is added: records that it puts are of the same group; False: it is not wanted any more.
    Raises ``BadSnapshotName``, ``SnapshotExists``, ``NoSpace``, ``CommitFailed``.
    """
    guids = () if guid is None else (guid,)
    return create_all(store, [(fileset, name)], guids=guids, created_ns=created_ns, joined=joined)[0]


class Choice(NamedTuple):
    """``choose`` names the filesets that get a snapshot, when their digests are those of the state that it would name.

    ``records`` and ``size``: what is put with them (``joined``), in all.
    """

    choose: Callable[[], set[FilesetId]]
    records: int
    size: int


def create_all(
    store: Store,
    places: list[tuple[FilesetId, str]],
    *,
    guids: tuple[Guid, ...] = (),
    created_ns: int | None = None,
    joined: Callable[[Snapshot], bool] | None = None,
    chosen: Choice | None = None,
    wait: bool = True,
) -> list[Snapshot]:
    """Take snapshots of several filesets at one instant, each with its name there; all of them, or none.

    They stand in the one group whose state they name, and have the same time, by which a standby knows that they
    belong together. ``guids``: one for each place, or new ones. ``chosen``: of which of them there are to be snapshots
    after all. With ``wait`` they are durable on return. Raises as ``create``.
    """
    for name in {name for _, name in places}:
        check_name(name)
    with store.lock:
        records, size = (0, 0) if chosen is None else (chosen.records, chosen.size)
        store.admit(4 * len(places) + records, 4 * SNAPSHOT_NAME_SIZE_MAX * len(places) + size)
        if len(set(places)) < len(places):
            raise SnapshotExists("the same snapshot is named twice; name each once")
        catalog = store.catalog
        wanted = list(zip(places, guids or _new_guids(store, len(places)), strict=True))
        made: list[Snapshot] = []
        refusal: FilesetMissing | SnapshotExists | None = None

        def add() -> None:
            nonlocal refusal, wanted
            if chosen is not None:
                numbers = chosen.choose()
                wanted = [each for each in wanted if each[0][0] in numbers]
            # Not earlier: until the group before it was durable, others may have been let in.
            refusal = _refusal(catalog, [place for place, _ in wanted])
            if refusal is not None:
                return
            now = store.clock.now_ns() if created_ns is None else created_ns
            for (number, name), guid in wanted:
                fileset = catalog.filesets[number]
                snapshot = Snapshot(
                    number, catalog.new_snapshot_id(), guid, name, now, fileset.digest, fileset.inode_count
                )
                if joined is not None and not joined(snapshot):
                    return
                catalog.add_snapshot(snapshot)
                made.append(snapshot)

        store.commit(wait, last=add, until_freed=False)
        if refusal is not None:
            raise refusal
        if places and not made and chosen is None:
            raise SnapshotExists(f"snapshot {places[0][1]!r} was given up while it was taken; repeat the command")
        return made


def begin_group_with(store: Store, number: FilesetId, name: str) -> Snapshot:
    """Take snapshot ``name`` as the first thing of a group; it is durable with what the caller adds to that group.

    That may be two small records without being admitted. Whoever calls has the store to itself. Raises as ``create``.
    """
    check_name(name)
    catalog = store.catalog
    if (refusal := _refusal(catalog, [(number, name)])) is not None:
        raise refusal
    # The active state is that of the group before, which ends here; what this one adds comes after the snapshot.
    store.commit(wait=False)
    store.admit(6, 4 * SNAPSHOT_NAME_SIZE_MAX + 200)
    fileset = catalog.filesets[number]
    guid, now = _new_guids(store, 1)[0], store.clock.now_ns()
    snapshot = Snapshot(number, catalog.new_snapshot_id(), guid, name, now, fileset.digest, fileset.inode_count)
    catalog.add_snapshot(snapshot)
    return snapshot


def _new_guids(store: Store, count: int) -> list[Guid]:
    """At once: asking the kernel for each takes longer than all else that a snapshot takes."""
    random = store.clock.random_bytes(16 * count)
    return [guid for (guid,) in iter_unpack("16s", random)]


def _refusal(catalog: Catalog, places: list[tuple[FilesetId, str]]) -> FilesetMissing | SnapshotExists | None:
    """Why these snapshots cannot be taken now, if so."""
    filesets, named = catalog.filesets, catalog.named
    for number, name in places:
        fileset = filesets.get(number)
        if fileset is None or fileset.state != COMPLETE:
            return FilesetMissing("the fileset was deleted")
        names = named(number)
        if name in names:
            where = "" if number == ROOT_FILESET and len(places) == 1 else f" of fileset {fileset.name!r}"
            return SnapshotExists(f"a snapshot named {name!r}{where} exists; choose another name, or delete it first")
        if len(names) >= SNAPSHOT_COUNT_MAX:
            return SnapshotExists(
                f"fileset {fileset.name!r} has {SNAPSHOT_COUNT_MAX} snapshots already; delete some first"
            )
    return None


def rename(store: Store, snapshot: Snapshot, name: str) -> None:
    """Give a snapshot another name; its guid stays. Raises ``BadSnapshotName``, ``SnapshotExists``."""
    check_name(name)
    with store.lock:
        store.admit(2, 2 * SNAPSHOT_NAME_SIZE_MAX)
        if name in store.catalog.named(snapshot.fileset):
            raise SnapshotExists(f"a snapshot named {name!r} exists; choose another name")
        store.catalog.rename_snapshot(snapshot, name)
        store.commit()


def unique_name(store: Store, fileset: FilesetId, wanted: str) -> str:
    """``wanted``, or it with the first free ``-2``, ``-3`` … when it is taken."""
    taken = store.catalog.named(fileset)
    name, count = wanted, 1
    while name in taken:
        count += 1
        name = f"{wanted}-{count}"
    return name


def hold(store: Store, snapshot: Snapshot, owner: str, expires_ns: int = NEVER_NS) -> None:
    """Keep a snapshot from being deleted until ``expires_ns``, or until ``release``. Part of the open group.

    Raises ``SnapshotMissing`` for one that was deleted since the caller found it.
    """
    with store.lock:
        store.admit(1, 300)
        _refuse_if_gone(snapshot)
        store.small.put(keys.hold(snapshot.id, owner.encode()), expires_ns.to_bytes(8, "little"))


def _refuse_if_gone(snapshot: Snapshot) -> None:
    # Asked after admitting, which may have let others in: nothing would ever end what is put for it now.
    if snapshot.state == DELETING:
        raise SnapshotMissing(f"snapshot {snapshot.name!r} was deleted meanwhile; repeat the command")


def release(store: Store, snapshot: Snapshot, owner: str) -> None:
    """End the hold of ``owner``, if there is one. Part of the open group."""
    with store.lock:
        store.admit(1, 300, frees=True)
        store.small.put(keys.hold(snapshot.id, owner.encode()), None)


def drop_holds(store: Store, snapshot: Snapshot) -> None:
    """The snapshot goes, and with it holds and a lock that have expired. The caller has admitted a few records."""
    for key, _ in store.small.scan(*keys.hold_range(snapshot.id), SCAN_COUNT):
        store.small.put(key, None)
    for key, _ in store.small.scan(*keys.came_hold_range(snapshot.id), SCAN_COUNT):
        store.small.put(key, None)
    if store.small.get(keys.lock(snapshot.id)) is not None:
        store.small.put(keys.lock(snapshot.id), None)
    diverged.forget(store, snapshot)


def lock(store: Store, snapshot: Snapshot, until_ns: int) -> None:
    """Nobody may delete the snapshot before ``until_ns``, and nothing takes this back. Part of the open group.

    Raises ``SnapshotLocked`` for an earlier date than it is locked until already, ``SnapshotMissing`` as ``hold``.
    """
    with store.lock:
        store.admit(1, 100)
        _refuse_if_gone(snapshot)
        until_before_ns = locked_until(store, snapshot)
        if until_ns < until_before_ns:
            raise SnapshotLocked(
                f"snapshot {snapshot.name!r} is locked until {show_time(until_before_ns)}; "
                "a lock can be made longer, never shorter"
            )
        store.small.put(keys.lock(snapshot.id), until_ns.to_bytes(8, "little"))


def locked_until(store: Store, snapshot: Snapshot) -> int:
    """The time in ns before which nobody may delete the snapshot; 0 if it was never locked."""
    return int.from_bytes(store.small.get(keys.lock(snapshot.id)) or b"", "little")


def show_time(time_ns: int) -> str:
    """UTC as ISO 8601 in whole seconds."""
    from time import gmtime, strftime

    return strftime("%Y-%m-%dT%H:%M:%SZ", gmtime(time_ns // 1_000_000_000))


def keep_of(store: Store, snapshot: Snapshot) -> Keep:
    """Its lock and its holds, those that have expired included."""
    keep = Keep()
    keep.locked_until_ns = locked_until(store, snapshot)
    for key, value in store.small.scan(*keys.hold_range(snapshot.id), SCAN_COUNT):
        keep.holds.append((key[9:].decode(), int.from_bytes(value, "little")))
    return keep


def holders(store: Store, snapshot: Snapshot) -> list[str]:
    """Who holds the snapshot now."""
    now = store.clock.now_ns()
    pairs = store.small.scan(*keys.hold_range(snapshot.id), 1000)
    return [key[9:].decode() for key, value in pairs if int.from_bytes(value, "little") > now]


def refuse_if_held(store: Store, snapshot: Snapshot, *, by_stores: bool = True) -> None:
    """``by_stores``: also if another store holds it. Raises ``SnapshotHeld``, ``SnapshotLocked``."""
    until_ns = locked_until(store, snapshot)
    if until_ns > store.clock.now_ns():
        raise SnapshotLocked(f"snapshot {snapshot.name!r} is locked: nobody can delete it before {show_time(until_ns)}")
    owners = [each for each in holders(store, snapshot) if by_stores or not each.startswith(STANDBY_PREFIX)]
    if owners:
        raise SnapshotHeld(
            f"snapshot {snapshot.name!r} is held by {', '.join(owners)}; 'idemfs snapshot release' lets it go, "
            "'idemfs standby remove' for a standby; or delete it after a newer one has replaced it"
        )
