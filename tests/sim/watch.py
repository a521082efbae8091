"""What was true of the stores once, and must not be otherwise later: who wrote in which epoch, what reached a standby.

One ``Watch`` goes along with a world, and is told after every step what each store is like.
"""

from __future__ import annotations

from collections.abc import Mapping

from idemfs.failover.facts import Side
from idemfs.ids import Guid
from idemfs.snapshots import manage
from idemfs.vfs.tree import Tree

UNDER_WAY_COUNT = 2
"""Snapshots of a fileset held for one standby: the one that it has, and the one that is being sent."""


class Watch:
    """Everything here only grows, but for snapshots that somebody discards by name."""

    def __init__(self) -> None:
        self.primaries: dict[int, Guid] = {}
        self.digests: dict[Guid, int] = {}
        self.reached: dict[Guid, str] = {}
        """Snapshots that two stores have had, and their names."""

    def copy(self) -> Watch:
        twin = Watch()
        twin.primaries, twin.digests = self.primaries.copy(), self.digests.copy()
        twin.reached = self.reached.copy()
        return twin

    def discard(self, guid: Guid) -> None:
        """Somebody deletes this snapshot, and means it."""
        self.reached.pop(guid, None)

    def look(self, sides: Mapping[str, Side]) -> None:
        """Raises ``AssertionError`` for what must not be."""
        for name, side in sides.items():
            if side.is_primary:
                owner = self.primaries.setdefault(side.role.epoch, side.guid)
                assert owner == side.guid, f"{name} writes in epoch {side.role.epoch}, in which another store wrote"
            if side.is_standby and not side.half_received:
                assert_as_received(name, side)
        self._snapshots(sides)

    def _snapshots(self, sides: Mapping[str, Side]) -> None:
        holders: dict[Guid, int] = {}
        for name, side in sides.items():
            for held in (held for part in side.parts for held in part.snapshots):
                digest = self.digests.setdefault(held.guid, held.digest)
                assert digest == held.digest, f"snapshot {held.name} of {name} is another one than elsewhere"
                holders[held.guid] = holders.get(held.guid, 0) + 1
                if holders[held.guid] > 1:
                    self.reached[held.guid] = held.name
        for guid in _purged(sides):
            self.discard(guid)
        # Stores that purged the same apart from each other agree on one guid when they meet, if the digest is the same.
        agreed = {self.digests[guid] for guid in holders} if _purged(sides) else set()
        lost = [name for guid, name in self.reached.items() if guid not in holders and self.digests[guid] not in agreed]
        assert not lost, f"snapshots that had reached a standby, and are nowhere any more: {lost}"


def _purged(sides: Mapping[str, Side]) -> set[Guid]:
    """What snapshots were called before something was purged from them."""
    return {purged.old for side in sides.values() for part in side.parts for purged in part.purged}


def assert_as_received(name: str, side: Side) -> None:
    """What a standby's users see is what it received last."""
    for part in side.parts:
        base = next((held for held in part.snapshots if held.guid == part.base), None)
        assert base is None or base.digest == part.digest, f"{name} is not what it received last"


def assert_holds_have_owners(name: str, tree: Tree, side: Side, count_max: int = UNDER_WAY_COUNT) -> None:
    """Holds for other stores are only for those that this one knows, and no more than the transfers need."""
    held: dict[tuple[str, int], int] = {}
    for fileset in tree.store.catalog.listed_filesets():
        for snapshot in tree.store.catalog.all_snapshots(fileset.number):
            for owner in manage.holders(tree.store, snapshot):
                if owner.startswith(manage.STANDBY_PREFIX):
                    guid = bytes.fromhex(owner.removeprefix(manage.STANDBY_PREFIX))
                    assert guid in side.members and guid != side.guid, f"{name} holds {snapshot.name} for a stranger"
                    assert not side.is_standby, f"{name} is a standby, and holds {snapshot.name} for another one"
                    key = owner, int(fileset.number)
                    held[key] = held.get(key, 0) + 1
    assert all(count <= count_max for count in held.values()), f"{name} holds more than it needs: {held}"
