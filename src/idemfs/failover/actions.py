"""What a step of a plan does to one open store.

Each is durable when it returns, and is one transaction group where it changes a role: so a store is never found
between two roles. One that is repeated after a crash changes nothing more than the first time.

Threads: any; while it runs, the store takes no other changes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from idemfs.errors import Damaged, RoleError
from idemfs.failover import records
from idemfs.failover.facts import (
    Frozen,
)
from idemfs.failover.observe import guid_of
from idemfs.format import role
from idemfs.format.role import Role, RoleRecord
from idemfs.format.tables import Fileset, Snapshot
from idemfs.ids import FilesetId, Guid, Ino
from idemfs.replication import link
from idemfs.replication.apply import drop_partials, is_half_received
from idemfs.snapshots import automatic, bring_back, diverged, drop, lines, manage, received
from idemfs.store.store import Store
from idemfs.vfs.tree import Tree

NUMBER_RANGE = 1 << 32
"""Inode numbers left out at a failover: more than a lost primary can have given out unseen. There are 65,536 ranges."""


@contextmanager
def _group(tree: Tree) -> Iterator[None]:
    """What is put inside is one group together with nothing else, durable at the end; no writer gets in between."""
    store = tree.store
    with store.exclusive():
        # crash: what was written before is durable by itself, so that the group below holds the step alone.
        store.commit()
        store.admit(*_room(store))
        yield
        # crash: the step is done when this returns; the next one relies on it.
        store.commit()
        tree.reload_role()


def _room(store: Store) -> tuple[int, int]:
    """What a change of role may change: some records of each fileset."""
    filesets = lines.own_filesets(store)
    records_count = 100 + 10 * len(filesets) + sum(len(store.catalog.snapshots(each.number)) for each in filesets)
    policies = sum(len(lines.policy_of(store, each.number) or b"") for each in filesets)
    return records_count, 300 * records_count + policies


def tell(tree: Tree, epoch: int) -> None:
    """``epoch`` was seen. A primary has thereby lost its right to write."""
    now = tree.role
    lost = Role.FENCED if now.role is Role.PRIMARY else now.role
    wanted = RoleRecord(lost, now.epoch, max(now.seen_epoch, epoch))
    if wanted != now:
        with _group(tree):
            tree.store.small.put(role.KEY, role.pack(wanted))


def take_snapshot(tree: Tree, name: str | None = None) -> Snapshot | None:
    """Take snapshots, at one instant, of the filesets whose active state differs from the newest one, or with ``name``
    from all of them; the first one taken, None: there is none."""
    store = tree.store
    with store.exclusive():
        # crash: nothing relies on it; the digest is that of the active state only when all is committed.
        store.commit()
        wanted = name or time_name(store.clock.now_ns())
        places: list[tuple[FilesetId, str]] = []
        for fileset in lines.own_filesets(store):
            known = store.catalog.snapshots(fileset.number)
            if all(snapshot.digest != fileset.digest for snapshot in (known if name else known[-1:])):
                places.append((fileset.number, manage.unique_name(store, fileset.number, wanted)))
        return manage.create_all(store, places)[0] if places else None


def time_name(now_ns: int) -> str:
    """``auto-2026-01-31T23-59-59Z``."""
    from time import gmtime, strftime

    return strftime("auto-%Y-%m-%dT%H-%M-%SZ", gmtime(now_ns // 1_000_000_000))


def go_back(tree: Tree, guid: Guid) -> None:
    """The active state of a fileset becomes that of a snapshot; addresses are shared, no data is copied."""
    store = tree.store
    with store.exclusive():
        snapshot = _snapshot(tree, guid)
        # crash: the base and the order to go back to it stand in one group, with which the step is as good as done.
        store.commit()
        lost = diverged.newer(store, snapshot.fileset, snapshot) if tree.role.role is Role.STANDBY else []
        store.admit(1 + len(lost), 100 + 100 * len(lost))
        if lost:
            # What followed a primary that was passed over; an old primary's is noted with the end of its role.
            diverged.put_newer(store, snapshot.fileset, snapshot, tree.role.epoch)
        received.put_base(store, guid, snapshot.fileset)
        bring_back.go_back(tree.active, snapshot)
        tree.moves += 1


def refuse_without_room(tree: Tree) -> None:
    """Raises ``NoSpace`` for a store that could not take a role over: before nobody else has it any more."""
    with tree.store.lock:
        count, size = _room(tree.store)
        tree.store.admit(100 + count, 10_000 + size)


def freeze(tree: Tree, frozen: Frozen) -> None:
    """No more writes; what was written is durable. The record of the switchover lets nobody but its peer follow."""
    if tree.role.role is Role.STANDBY:
        raise RoleError("a standby cannot be frozen for a switchover")
    with _group(tree):
        tree.store.small.put(records.FROZEN, records.pack_frozen(frozen))
        tree.store.small.put(role.KEY, role.pack(RoleRecord(Role.FENCED, tree.role.epoch, frozen.epoch)))


def promote(tree: Tree, epoch: int, after: Mapping[Guid, int] | None) -> None:
    """Become primary, with inode numbers that no other primary has given out.

    A standby becomes primary as it was at the snapshot that it received last. ``after``: what ``next_numbers`` says of
    the old primary, which stands still; without it, nothing that this store granted must be left.
    """
    if epoch <= tree.role.epoch:
        raise RoleError(f"epoch {epoch} is not above this store's, {tree.role.epoch}")
    was_taking_over = tree.is_taking_over
    try:
        if after is None:
            _stop_granting(tree)
        _promote(tree, epoch, after)
    finally:
        tree.is_taking_over = was_taking_over


def _stop_granting(tree: Tree) -> None:
    """Raises ``RoleError`` while somebody may still be writing by what this store granted."""
    with tree.store.lock:
        left_ns = tree.granted_until_ns - tree.store.clock.since_boot_ns()
        if tree.role.role is Role.STANDBY and left_ns > 0:
            raise RoleError(
                f"this store granted its primary a write lease, which runs out in {left_ns / 1e9:.1f} s: "
                "repeat the command then"
            )
        tree.is_taking_over = True


def _promote(tree: Tree, epoch: int, after: Mapping[Guid, int] | None) -> None:
    if tree.role.role is Role.STANDBY:
        # Nothing in a plan may let a half-received state become what users see.
        drop_partials(tree)
    was_standby = tree.role.role is Role.STANDBY
    with _group(tree):
        store = tree.store
        if was_standby:
            _require_received(tree)
        for fileset in lines.own_filesets(store):
            _take_over(tree, fileset, after, was_standby)
        store.small.put(records.FROZEN, None)
        store.small.put(role.KEY, role.pack(RoleRecord(Role.PRIMARY, epoch, max(epoch, tree.role.seen_epoch))))
    tree.moves += 1
    # What the old primary's processes had open and unlinked is nobody's now.
    tree.recover()


def _require_received(tree: Tree) -> None:
    """Each fileset of which anything came is as the snapshot that it received last, and stays so: nobody else changes
    anything until the role is another one. Raises as ``_require_state``."""
    if is_half_received(tree.store):
        raise RoleError("another store has begun to send to this one just now: repeat the command")
    for fileset in lines.own_filesets(tree.store):
        base = received.base(tree.store, fileset.number)
        if received.is_anew(tree.store, fileset.number):
            raise RoleError(
                f"fileset {fileset.name!r} was begun anew, and nothing of it has come yet: 'idemfs replicate' on the "
                "primary sends it; what it was before is in its snapshots"
            )
        if base is not None or fileset.number == tree.fileset:
            _require_state(tree, fileset, base)


def _take_over(tree: Tree, fileset: Fileset, after: Mapping[Guid, int] | None, was_standby: bool) -> None:
    """One fileset of a store that becomes primary. Part of the open group."""
    store = tree.store
    base = received.base(store, fileset.number) if was_standby else None
    if base is None and was_standby and fileset.number != tree.fileset:
        # Nothing was ever received of it: it has no root directory, and nobody misses it.
        drop.begin(tree.active, fileset)
        return
    if base is not None:
        hold_for_peers(tree, base)
    given_out = after.get(Guid(fileset.guid), 0) if after is not None else 0
    if given_out >= fileset.next_number:
        fileset.next_number = given_out
    else:
        # The old primary is not here to be asked, or a third one, which gave out more, is not.
        fileset.next_number = _own_numbers(tree, fileset.next_number)
    store.catalog.changed_fileset(fileset.number)
    received.put_base(store, None, fileset.number)
    lines.put_kept(store, fileset.number, False)
    policy = lines.policy_of(store, fileset.number)
    if policy is not None:
        lines.put_policy(store, fileset.number, None)
        automatic.take_over_policy(store, fileset.number, policy)


def next_numbers(tree: Tree) -> dict[Guid, int]:
    """By filesets: from which on inode numbers were never given out here."""
    with tree.store.lock:
        return {Guid(each.guid): each.next_number for each in tree.store.catalog.listed_filesets()}


def demote(tree: Tree, epoch: int, base: Guid | None, others: tuple[Guid, ...] = ()) -> None:
    """Become a standby whose active state is that of snapshot ``base``, or of the newest; ``others``: the same for the
    filesets beside the root. Without its own, one of them is what no primary knows: it is kept, and appears nowhere."""
    store = tree.store
    with _group(tree):
        for fileset in lines.own_filesets(store):
            known = store.catalog.snapshots(fileset.number)
            if base is None:
                snapshot = known[-1]
            else:
                wanted = (base,) if fileset.number == tree.fileset else others
                found = [each for each in known if each.guid in wanted]
                if not found and fileset.number != tree.fileset:
                    _put_aside(tree, fileset)
                    continue
                snapshot = found[-1] if found else _snapshot(tree, base)
            _require_state(tree, fileset, snapshot)
            if snapshot is not known[-1]:
                lines.put_kept(store, fileset.number, True)
                diverged.put_newer(store, fileset.number, snapshot, tree.role.epoch)
            received.put_base(store, snapshot.guid, fileset.number)
        for record in records.get_peers(store):
            release_holds(tree, record.guid)
        store.small.put(records.FROZEN, None)
        store.small.put(role.KEY, role.pack(RoleRecord(Role.STANDBY, epoch, max(epoch, tree.role.seen_epoch))))


def _put_aside(tree: Tree, fileset: Fileset) -> None:
    """The primary has no such fileset. Part of the open group."""
    if fileset.junction:
        tree.store.catalog.change_fileset(fileset, junction=Ino(0))
    same = [each for each in tree.store.catalog.snapshots(fileset.number) if each.digest == fileset.digest]
    _require_state(tree, fileset, same[-1] if same else None)
    received.put_base(tree.store, same[-1].guid, fileset.number)
    lines.put_kept(tree.store, fileset.number, True)
    diverged.put_newer(tree.store, fileset.number, None, tree.role.epoch)
    tree.moves += 1


def _own_numbers(tree: Tree, next_number: int) -> int:
    """The first number of a range above ``next_number`` in which no other store begins.

    Stores that know each other deal the ranges out among them in turn, since two may take over unseen by each other.
    """
    members = records.order(tree.store)
    first = next_number // NUMBER_RANGE + 1
    return (first + (members.index(guid_of(tree)) - first) % len(members)) * NUMBER_RANGE


def hold_for_peers(tree: Tree, base: Snapshot) -> None:
    """Whoever comes back, or follows from now on, has this snapshot at best. Part of the open group."""
    for record in records.get_peers(tree.store):
        manage.hold(tree.store, base, link.hold_owner(record.guid))


def release_holds(tree: Tree, peer: Guid) -> None:
    """What was held for this peer need not be kept for it any more. Part of the open group."""
    owner = link.hold_owner(peer)
    for fileset in tree.store.catalog.listed_filesets():
        for snapshot in tree.store.catalog.all_snapshots(fileset.number):
            if owner in manage.holders(tree.store, snapshot):
                manage.release(tree.store, snapshot, owner)


def _require_state(tree: Tree, fileset: Fileset, snapshot: Snapshot | None) -> None:
    """Raises ``RoleError``, ``Damaged``."""
    if snapshot is None:
        raise RoleError("the store never received a complete snapshot, so there is nothing to continue from")
    if snapshot.digest != fileset.digest:
        raise Damaged(f"the active state is not that of snapshot {snapshot.name}; run 'idemfs check'")


def _snapshot(tree: Tree, guid: Guid) -> Snapshot:
    for fileset in tree.store.catalog.listed_filesets():
        snapshot = tree.store.catalog.by_guid(fileset.number, guid)
        if snapshot is not None:
            return snapshot
    raise RoleError("a snapshot that the plan needs was deleted meanwhile; repeat the command")
