"""A store and an archive: bring the archive up to the store, and a store back from the archive.

An archive is like a standby in that the newest common snapshot is held on the source for it. Unlike a standby it has no
state of its own: a chain may begin from any snapshot that it has and the source still has; and where there is none, or
its chain is not whole any more, from nothing, with a full stream. What it had before stays restorable beside it.

A clone comes in full: each chain is of one fileset, so that each can be restored, and pruned, by itself.

Threads: as in ``send`` and ``apply``; nobody else writes to the archive meanwhile: who calls has its lock.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from idemfs.clock import Clock
from idemfs.errors import ArchiveError, Fenced, PeerError
from idemfs.format.role import Role
from idemfs.format.tables import Fileset, Snapshot
from idemfs.ids import ROOT_FILESET, FilesetId, Guid
from idemfs.replication import follow, lanes, link, manifest, plan
from idemfs.replication.archive import Archive, create_archive, is_archive
from idemfs.replication.description import Description
from idemfs.replication.link import Progress, Report, Transfer
from idemfs.replication.manifest import Point, Pruning
from idemfs.replication.plan import Plan, Side
from idemfs.replication.send import Frames
from idemfs.replication.standby import open_standby, receive_into
from idemfs.snapshots import audit, delete, lines, received
from idemfs.snapshots.info import NEVER_NS
from idemfs.snapshots.policy import Policy, zone_of
from idemfs.vfs.tree import Tree


def archive_into(
    source: Tree,
    archive: Archive,
    progress: Progress | None = None,
    *,
    keep: Policy | None = None,
    holds_until_ns: int = NEVER_NS,
) -> Report:
    """Bring ``archive`` to the newest snapshots of all filesets of ``source``; durable on return, unit by unit.

    ``keep``: send only what these rules keep, and the newest; None: each snapshot. Raises ``PeerError`` for an archive
    of another store, ``Fenced`` when it has heard of a later epoch, ``NoSpace``, and what sending raises.
    """
    store = source.store
    _refuse_foreign(source, archive)
    with store.lock:
        own = lines.own_filesets(store)
        numbers = {Guid(each.guid): each.number for each in own}
    _note_purged(source, archive)
    standing = archive.standing()
    plans = [(number, _plan(source, archive, standing, guid, number)) for guid, number in numbers.items()]
    root = plans[0][1]
    if keep is not None:
        plans = lanes.collapsed(store, plans, {}, keep)
    owner = link.hold_owner(archive.manifest.guid)
    for number, made in plans:
        if made.common is not None:
            with store.lock:
                common = store.catalog.by_guid(number, made.common.guid)
            lanes.hold_only(store, owner, [] if common is None else [common], holds_until_ns)
    transfers: list[Transfer] = []
    for unit in link.units(source, plans):
        # Held while it is under way, too: who prunes meanwhile leaves it alone.
        targets = [step.target for step in unit]
        is_new = lanes.hold(store, owner, targets, holds_until_ns)
        transfers += _bring(source, archive, unit, progress)
        lanes.hold_only(store, owner, targets, holds_until_ns, is_new=is_new)
    _note_gone(archive, numbers.keys())
    return Report(root.common, tuple(transfers))


def make_if_missing(source: Tree, path: str) -> None:
    """An empty archive of this store, where there is none. Raises ``ArchiveError``, ``InsideStore``."""
    store = source.store
    if not is_archive(path):
        line = Guid(store.catalog.filesets[ROOT_FILESET].guid)
        create_archive(path, Guid(store.clock.random_bytes(16)), line)


def _refuse_foreign(source: Tree, archive: Archive) -> None:
    store, role = source.store, source.role
    if store.catalog.filesets[ROOT_FILESET].guid != archive.manifest.line:
        raise PeerError(f"{archive.path}: is the archive of another store; name another directory")
    epoch = role.seen_epoch if role.role is Role.STANDBY else role.epoch
    if epoch < archive.manifest.epoch:
        raise Fenced(
            f"{archive.path}: has snapshots of epoch {archive.manifest.epoch}, and this store is of epoch {epoch}: "
            "another one is primary by now; run 'idemfs failback' here"
        )


def _plan(source: Tree, archive: Archive, standing: Sequence[Point], guid: Guid, number: FilesetId) -> Plan:
    """From the newest snapshot that both have and that can be restored there; from nothing where it is to be so."""
    side = link.side_of(source, number)
    there = {each.snapshot for each in standing if each.fileset == guid}
    common = next((held for held in reversed(side.snapshots) if held.guid in there), None)
    made = plan.make_plan(side, Side(guid, [] if common is None else [common], common.guid if common else None))
    assert isinstance(made, Plan)
    if made.steps and guid in archive.manifest.full_next:
        first = made.steps[0]
        return Plan(common, (first._replace(base=None), *made.steps[1:]))
    return made


def _bring(source: Tree, archive: Archive, unit: Sequence[link.Step], progress: Progress | None) -> list[Transfer]:
    written, sent = [], []
    for base, target in unit:
        frames = Frames(source, base, target, compress=True)
        told = None if progress is None else partial(progress, Guid(target.guid))
        written.append(archive.write(frames.header, frames, told))
        sent.append(frames.sent)
    archive.add(written)
    return [
        Transfer(
            None if base is None else base.name,
            target.name,
            amount.bytes,
            amount.records,
            amount.block_bytes,
            False,
            source.store.catalog.filesets[target.fileset].name,
        )
        for (base, target), amount in zip(unit, sent, strict=True)
    ]


def _note_gone(archive: Archive, own: Collection[Guid]) -> None:
    """Filesets that were deleted are in no point from now on."""
    made = archive.manifest
    gone = {each.fileset: made.gone.get(each.fileset, made.next_instant - 1) for each in made.points}
    archive.put(made._replace(gone={guid: instant for guid, instant in gone.items() if guid not in own}))


def _note_purged(source: Tree, archive: Archive) -> None:
    with source.store.lock:
        old = {bytes.fromhex(each.old_guid) for purge in audit.purges(source.store) for each in purge.replaced}
    archive.put(manifest.with_purged(archive.manifest, old))


def purged_since(archive: Archive) -> list[Point]:
    """Points that show what was purged from these snapshots on the source since. An archive is never changed inside."""
    return [each for each in archive.manifest.points if each.is_purged]


def plan_pruning(archive: Archive, keep: Policy, now_ns: int) -> Pruning:
    """What ``keep`` does not keep, but for what others begin from."""
    return manifest.prune(archive.manifest, keep, now_ns, zone_of(keep.zone))


def carry_out(archive: Archive, pruning: Pruning) -> None:
    """Durable on return; the lock is the caller's."""
    archive.put(pruning.manifest)
    archive.clear()


def prune(archive: Archive, keep: Policy, now_ns: int) -> Pruning:
    """Both."""
    found = plan_pruning(archive, keep, now_ns)
    carry_out(archive, found)
    return found


# -- back ----------------------------------------------------------------------------------------------


class Restored(NamedTuple):
    """The point that the new standby is at, and how many streams led there."""

    point: Point
    stream_count: int
    bytes: int


def restore(archive: Archive, path: str, wanted: str | None = None, *, clock: Clock | None = None) -> Restored:
    """Make a standby at ``path`` that has all filesets as they were at the snapshot ``wanted``, or at the newest.

    One that was interrupted goes on. Raises ``ArchiveError``, which names a file that is missing or damaged, and what
    can be restored without it; and what receiving raises.
    """
    point = manifest.find(archive.manifest, wanted)
    ends = [point, *(it for it in manifest.ends_at(archive.manifest, point.instant) if it.fileset != point.fileset)]
    chains = {(each.fileset, each.snapshot) for end in ends for each in manifest.chain_of(archive.manifest.points, end)}
    streams = [each for each in archive.manifest.points if (each.fileset, each.snapshot) in chains]
    for each in streams:
        if not archive.is_present(each):
            raise ArchiveError(archive.lost(each, "is missing, or not whole"))
    # The root fileset first: in it the others appear.
    streams.sort(key=lambda each: each.fileset != archive.manifest.line)
    tree: Tree | None = None
    size = 0
    described: dict[Guid, Description] = {}
    past: set[Point] = set()
    try:
        for each in streams:
            with archive.stream(each) as stream:
                if tree is None:
                    tree = open_standby(path, stream.header, clock=clock)
                    past = _past(tree, streams)
                if stream.header.description is not None:
                    described[each.fileset] = stream.header.description
                if each not in past:
                    size += receive_into(tree, stream).bytes
        assert tree is not None
        _finish(tree, described, streams)
    finally:
        if tree is not None:
            tree.store.close()
    return Restored(point, len(streams), size)


def _past(tree: Tree, streams: Sequence[Point]) -> set[Point]:
    """Those that lead to a snapshot that the new standby has: of these not all may be there any more."""
    there = {snapshot.guid for each in tree.store.catalog.listed_filesets() for snapshot in _snapshots(tree, each)}
    newest = {each.fileset: each.instant for each in streams if each.snapshot in there}
    return {each for each in streams if each.instant <= newest.get(each.fileset, 0)}


def _snapshots(tree: Tree, fileset: Fileset) -> list[Snapshot]:
    return tree.store.catalog.snapshots(fileset.number)


def _finish(tree: Tree, described: Mapping[Guid, Description], streams: Sequence[Point]) -> None:
    """Filesets appear where they did, now that all are there; what only led to a point goes."""
    store = tree.store
    with store.exclusive():
        if described and follow.differs(tree, described):
            policies = sum(len(each.policy) for each in described.values())
            store.admit(4 * len(described), follow.RECORD_BYTES * len(described) + policies)
            follow.reconcile(tree, described)
            # crash: the standby is complete when this returns.
            store.commit()
    leading = {each.snapshot for each in streams if not each.is_kept}
    for fileset in store.catalog.listed_filesets():
        base = received.base(store, fileset.number)
        for snapshot in store.catalog.snapshots(fileset.number):
            if snapshot.guid in leading and snapshot is not base:
                delete.delete(tree.active, snapshot)
