"""What a store will have when it was told what another one purged. Pure.

Snapshots are common by their guids, and a purge gives new ones. A plan is made of the facts as they will be; the step
that tells stands in front of those that rely on it.
"""

from __future__ import annotations

from dataclasses import replace

from idemfs.failover.facts import Held, Part, Purged, Side, Step, TellPurges
from idemfs.ids import Guid


def told(source: Side, target: Side, *, is_writing: bool = False) -> tuple[Side, list[Step]]:
    """``target`` as it will be after the steps, which are none when it stays as it is.

    ``is_writing``: it is primary then, so its active state is its users', and stays.
    """
    theirs = {part.fileset: part.purged for part in source.parts}
    parts = [_told(part, theirs.get(part.fileset, ()), is_writing=is_writing) for part in target.parts]
    if parts == list(target.parts):
        return target, []
    root = parts[0]
    made = replace(
        target,
        snapshots=root.snapshots,
        digest=root.digest,
        base=root.base,
        purged=root.purged,
        others=tuple(parts[1:]),
    )
    return made, [TellPurges(source=source.guid, target=target.guid)]


def _told(part: Part, purges: tuple[Purged, ...], *, is_writing: bool) -> Part:
    for purge in purges:
        held = next((each for each in part.snapshots if each.guid == purge.old), None)
        if held is not None:
            part = _renamed(part, held, purge, is_writing=is_writing)
            continue
        mine = {each.old: each for each in part.purged}.get(purge.old)
        if mine is not None and mine.new != purge.new and mine.digest == purge.digest:
            held = next((each for each in part.snapshots if each.guid == mine.new), None)
            if held is not None:
                part = _renamed(part, held, purge, is_writing=is_writing)
    return part


def _renamed(part: Part, held: Held, purge: Purged, *, is_writing: bool) -> Part:
    snapshots = tuple(
        replace(each, guid=purge.new, digest=purge.digest) if each.guid == held.guid else each
        for each in part.snapshots
    )
    base: Guid | None = purge.new if part.base == held.guid else part.base
    # The active state of a store that nobody works with goes along.
    goes_along = part.base == held.guid and part.digest == held.digest and not is_writing
    digest = purge.digest if goes_along else part.digest
    return replace(part, snapshots=snapshots, base=base, digest=digest, purged=(*part.purged, purge))
