"""What keeps operations right that meet each other, broken on purpose: lives in which all of them occur must notice."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest

from idemfs.errors import IdemfsError
from idemfs.format import keys
from idemfs.format.inode import Inode
from idemfs.format.tables import Fileset, Snapshot
from idemfs.ids import FilesetId, Ino
from idemfs.replication import follow, holds
from idemfs.snapshots import clones, delete, lines, purge, refresh, write
from idemfs.snapshots.subtree import Fate, Plan
from idemfs.versions import origin, through, writing_blocks
from idemfs.versions.active import Active
from idemfs.vfs import tree
from tests.property.world import World
from tests.property.world_drills import WorldDrills
from tests.property.world_open import WorldOpen
from tests.property.world_pair import WorldPair

RUNS, STEP_COUNT = 60, 120


class Look(NamedTuple):
    """Who notices, and what is done more often than other things."""

    kind: type[World]
    often: tuple[str, ...] = ()


def first_failure(look: Look, seed: int) -> BaseException | None:
    for number in range(RUNS):
        life = look.kind(seed * 1_000_000 + 500_000 + number)
        life.often = look.often
        try:
            life.live(STEP_COUNT)
        except (AssertionError, ArithmeticError, LookupError, IdemfsError, OSError, pytest.fail.Exception) as failure:
            return failure
    return None


def origins_are_written_to(patch: pytest.MonkeyPatch) -> None:
    """Nobody insulates a clone from what is written to its origin."""
    patch.setattr(write, "refuse_if_clones_rest", lambda store, snapshot: None)


def origins_are_written_to_unasked(patch: pytest.MonkeyPatch) -> None:
    """The same, where nobody asks whether clones rest there: what the clone reads must tell."""
    origins_are_written_to(patch)
    patch.setattr(clones, "clones_of", lambda store, snapshot: [])
    patch.setattr(World, "may_change", lambda self, twin, name: True)


def a_purge_forgets_pinned_snapshots(patch: pytest.MonkeyPatch) -> None:
    seen_by = purge.seen_by

    def broken(active: Active, fileset: FilesetId, path: bytes) -> list[Snapshot]:
        return [each for each in seen_by(active, fileset, path) if each in active.store.catalog.snapshots(fileset)]

    patch.setattr(purge, "seen_by", broken)


def taken_numbers_are_kept(patch: pytest.MonkeyPatch) -> None:
    """By what is restored into another fileset."""
    patch.setattr(Plan, "_fate_aside", lambda self, active, ino: Fate.SAME)


def what_is_cut_is_not_kept(patch: pytest.MonkeyPatch) -> None:
    """By the snapshots of a clone, when the block that waits to be written has become the last one."""
    own_tail = origin.own_tail

    def broken(active: Active, ino: Ino, node: Inode, *, frees: bool = False) -> None:
        source = active.records.beneath.get(keys.inode(ino)[:2])
        with pytest.MonkeyPatch.context() as inner:
            if isinstance(source, origin.Source):
                inner.setattr(origin.Source, "file_size", lambda self, number: node.size)
            own_tail(active, ino, node, frees=frees)

    patch.setattr(tree, "own_tail", broken)


def a_refresh_asks_nobody(patch: pytest.MonkeyPatch) -> None:
    """Whether somebody holds the snapshot, or a standby goes on from it."""
    patch.setattr(refresh, "refuse_changing", lambda active, snapshot: None)


def a_standby_leaves_names_and_places(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(follow, "differs", lambda tree, wanted: False)


def a_standby_does_not_hold(patch: pytest.MonkeyPatch) -> None:
    """What users of the primary hold."""
    patch.setattr(holds, "follow", lambda store, filesets, kept: [])


def a_quota_forgets_what_is_shared(patch: pytest.MonkeyPatch) -> None:
    """Blocks that a clone takes over count for nobody."""
    real = through.own_block

    def broken(active: Active, block: object, ino: Ino, place: tuple[int, int], pair: tuple[int, int]) -> None:
        fileset: Fileset = active.fileset(ino)
        before = fileset.sectors
        real(active, block, ino, place, pair)  # type: ignore[arg-type]
        fileset.sectors = min(before, fileset.sectors)

    patch.setattr(through, "own_block", broken)


def drills_are_of_the_line(patch: pytest.MonkeyPatch) -> None:
    """Filesets of a standby's own are compared, named and sent like its primary's."""
    patch.setattr(lines, "is_own", lambda store, fileset: lines.line_of(store, fileset) is None)


def snapshots_go_from_under_drills(patch: pytest.MonkeyPatch) -> None:
    """What a drill rests on is deleted as if nobody did."""
    patch.setattr(delete, "clones_of", lambda store, snapshot: [])


def ends_of_origins_are_left_to_them(patch: pytest.MonkeyPatch) -> None:
    """By a file that grows in a snapshot of a clone."""
    patch.setattr(writing_blocks.BlockWriting, "_own_end_of_origin", lambda self, ino, size, end: None)


def what_is_kept_is_tidied(patch: pytest.MonkeyPatch) -> None:
    """Of files that were open in it without a name, when the store is opened."""
    patch.setattr(write, "_may_change", lambda store, snapshot: True)


CANARIES: dict[Callable[[pytest.MonkeyPatch], None], Look] = {
    origins_are_written_to: Look(World, ("clone", "write_inside")),
    origins_are_written_to_unasked: Look(World, ("clone", "write_inside")),
    a_purge_forgets_pinned_snapshots: Look(World, ("clone", "purge", "drop")),
    taken_numbers_are_kept: Look(World, ("restore_elsewhere",)),
    what_is_cut_is_not_kept: Look(World, ("clone", "edit")),
    a_refresh_asks_nobody: Look(World, ("refresh", "hold")),
    a_standby_leaves_names_and_places: Look(WorldPair, ("rename", "replicate")),
    a_standby_does_not_hold: Look(WorldPair, ("hold", "replicate")),
    a_quota_forgets_what_is_shared: Look(World, ("clone", "edit")),
    ends_of_origins_are_left_to_them: Look(WorldOpen, ("open_clone",)),
    what_is_kept_is_tidied: Look(WorldOpen, ("open_clone", "unlink_open")),
    drills_are_of_the_line: Look(WorldDrills, ("drill", "fail_over")),
    snapshots_go_from_under_drills: Look(WorldDrills, ("drill", "drop_there")),
}
"""What is broken, and who looks for it."""
SLOW = {what_is_kept_is_tidied}
"""Noticed after many lives only."""


@pytest.mark.parametrize(
    "breaks",
    [pytest.param(each, marks=pytest.mark.long if each in SLOW else ()) for each in CANARIES],
    ids=lambda breaks: breaks.__name__,
)
def test_a_canary_dies(
    breaks: Callable[[pytest.MonkeyPatch], None], seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    breaks(monkeypatch)
    failure = first_failure(CANARIES[breaks], seed)
    assert failure is not None, f"{breaks.__name__} was not noticed"
    print(f"noticed: {failure!s:.300}")


@pytest.mark.long
@pytest.mark.parametrize("look", sorted(set(CANARIES.values()), key=str), ids=str)
def test_the_same_lives_pass_on_the_code_as_it_is(look: Look, seed: int) -> None:
    assert first_failure(look, seed) is None
