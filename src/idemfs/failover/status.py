"""Who is what, and what is behind: one row for a store and one for each of its peers.

Threads: one; stores may be open for reading only.
"""

from __future__ import annotations

from dataclasses import dataclass

from idemfs.failover import decisions
from idemfs.failover.facts import Held, Side, Unreachable
from idemfs.failover.stage import Stage
from idemfs.format.role import Role


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreStatus:
    """One store. What is None is not known, or means nothing for this store.

    ``unreleased_…``: snapshots that only this store had when it came to follow another one, until a user releases them.
    ``common``: the newest snapshot that it has in common with the acting primary; ``behind_…``: what that
    has beyond it; ``diverged_…``: what this store has beyond it, which the acting primary has not.
    """

    path: str
    guid: str
    is_reachable: bool
    reason: str | None = None
    role: str | None = None
    epoch: int | None = None
    seen_epoch: int | None = None
    newest: str | None = None
    has_changed: bool | None = None
    half_received: bool | None = None
    switchover_begun: bool | None = None
    common: str | None = None
    behind_snapshots: int | None = None
    behind_bytes: int | None = None
    diverged_snapshots: int | None = None
    diverged_changes: bool | None = None
    fileset_count: int | None = None
    unreleased_snapshots: int | None = None
    unreleased_bytes: int | None = None


def status(stage: Stage) -> list[StoreStatus]:
    """The store first, then its peers in the order in which it remembers them."""
    me, peers = stage.facts()
    primary = _acting(me, decisions.sides(peers))
    return [_row(stage, peer, primary) for peer in [me, *peers]]


def _acting(me: Side, others: list[Side]) -> Side | None:
    best = me if me.is_primary else None
    for side in others:
        if side.is_primary and (best is None or side.outranks(best)):
            best = side
    return best


def _row(stage: Stage, peer: Side | Unreachable, primary: Side | None) -> StoreStatus:
    if isinstance(peer, Unreachable):
        return StoreStatus(path=peer.path, guid=peer.guid.hex(), is_reachable=False, reason=peer.reason)
    newest = peer.held(peer.base) if peer.is_standby else peer.newest
    common = decisions.common_snapshot(primary, peer) if primary and primary.guid != peer.guid else None
    row = StoreStatus(
        path=peer.path,
        guid=peer.guid.hex(),
        is_reachable=True,
        role=peer.role.role.name.lower(),
        epoch=peer.role.epoch,
        seen_epoch=peer.role.seen_epoch,
        newest=newest.name if newest else None,
        has_changed=None if peer.is_standby else peer.has_changed,
        half_received=peer.half_received,
        switchover_begun=peer.frozen is not None,
        fileset_count=len(peer.parts),
        unreleased_snapshots=peer.diverged_count,
        unreleased_bytes=peer.diverged_bytes,
    )
    if primary is None or primary.guid == peer.guid:
        return row
    return _against(stage, row, peer, primary, common)


def _against(stage: Stage, row: StoreStatus, peer: Side, primary: Side, common: Held | None) -> StoreStatus:
    from dataclasses import replace

    there = {part.fileset: part for part in peer.parts}
    missing = behind_bytes = 0
    source = stage.party(primary.guid)
    for part in primary.parts:
        held = decisions.common_snapshot(part, there[part.fileset]) if part.fileset in there else None
        missing += len(decisions.newer(part, held))
        if part.digest != (held.digest if held else 0):
            behind_bytes += source.bytes_since(held.guid if held else None, part.fileset)
    known = {part.fileset: part for part in primary.parts}
    diverged = 0
    for part in peer.parts:
        held = decisions.common_snapshot(known[part.fileset], part) if part.fileset in known else None
        diverged += len(decisions.newer(part, held))
    return replace(
        row,
        common=common.name if common else None,
        behind_snapshots=missing,
        behind_bytes=behind_bytes,
        diverged_snapshots=0 if peer.role.role is Role.STANDBY else diverged,
        diverged_changes=not peer.is_standby and not peer.is_kept,
    )
