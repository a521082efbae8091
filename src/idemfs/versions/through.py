"""Indirect blocks of clones: an active record of a clone says what the clone has changed, its origin says the rest.

What the clone owns, it has written, or shares by count; what it sees through its origin, the origin owns. So before a
snapshot of the clone takes over a block that was seen through, the extent is shared.

Threads: under the store's lock.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from idemfs.format.address import HOLE, sector_count_of
from idemfs.format.indirect import IndirectBlock, PartialBlock
from idemfs.format.inode import Inode
from idemfs.ids import Ino, fileset_of
from idemfs.versions import rule

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from idemfs.format.tables import Fileset
    from idemfs.ids import SnapshotId
    from idemfs.store.active_records import ActiveRecords, Beneath
    from idemfs.store.store import Store
    from idemfs.versions.shadows import Shadows

    class Maps(Protocol):
        """What is needed of ``Active``."""

        store: Store
        records: ActiveRecords
        shadows: Shadows
        resolved: dict[Ino, dict[tuple[SnapshotId, int], IndirectBlock]]

        def change_map(self, ino: Ino, index: int) -> None: ...
        def fileset(self, ino: Ino) -> Fileset: ...


def beneath(active: Maps, ino: Ino) -> Beneath | None:
    """What the fileset of ``ino`` is a clone of, if it is one."""
    return active.records.beneath.get(fileset_of(ino).to_bytes(2, "big"))


def rests(active: Maps, ino: Ino) -> bool:
    """Whether records of the inode may be seen through an origin."""
    origin = beneath(active, ino)
    return origin is not None and origin.has_inode_number(ino)


def origin_map(active: Maps, ino: Ino, index: int) -> IndirectBlock | None:
    """Not to be changed; None when there is no origin."""
    origin = beneath(active, ino)
    return None if origin is None else origin.map(ino, index)


def origin_map_indexes(active: Maps, ino: Ino, first: int, limit: int) -> Iterable[int]:
    origin = beneath(active, ino)
    return () if origin is None else islice(origin.map_indexes(ino, first, limit), limit)


def completed(active: Maps, block: PartialBlock, ino: Ino, index: int) -> IndirectBlock | PartialBlock:
    """``block``, or when nothing is seen through it any more, the indirect block that it is."""
    origin = origin_map(active, ino, index)
    return block.over(origin) if block.covers(origin) else block


def record_size(key: bytes, own: bytes | None) -> int:
    return 0 if own is None else len(key) + len(own)


def set_block(
    active: Maps,
    block: PartialBlock,
    ino: Ino,
    node: Inode,
    place: tuple[int, int],
    pair: rule.Pair,
    change_start: int,
) -> None:
    """As ``Active.set_block``, for ``place``: an entry of an indirect block."""
    index, entry = place
    is_own = entry in block.entries
    origin = None if is_own else origin_map(active, ino, index)
    old = block.entries[entry] if is_own else (HOLE, 0) if origin is None else origin.get(entry)
    if old[0] == HOLE == pair[0]:
        return
    store = active.store
    if active.shadows.take_block(ino, node, index, entry, old, change_start):
        if not is_own:
            store.space.share(old[0])
    elif is_own:
        store.free(old[0])
    active.resolved.pop(ino, None)
    own_block(active, block, ino, place, pair)
    # Of what is seen through, the origin says how many sectors it has: not always those that are seen.
    node.sectors = max(0, node.sectors + sector_count_of(pair[0]) - sector_count_of(old[0]))


def own_block(active: Maps, block: PartialBlock, ino: Ino, place: tuple[int, int], pair: rule.Pair) -> None:
    """The clone owns an entry now; who had it before is the caller's care."""
    index, entry = place
    before = block.entries.get(entry, (HOLE, 0))
    block.entries[entry] = pair
    active.change_map(ino, index)
    active.fileset(ino).sectors += sector_count_of(pair[0]) - sector_count_of(before[0])
