"""Each rule of the design's section on records, broken on purpose: the model test must notice.

A canary takes one rule out. The same runs that pass on the code as it is must then fail; a canary that
lives says that the model test no longer looks there. A canary dies within seconds; that all runs pass takes
longer, and is left to ``make test-all``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest

from idemfs.errors import IdemfsError
from idemfs.format import address as addresses
from idemfs.format import indirect
from idemfs.format.address import HOLE
from idemfs.format.indirect import IndirectBlock, ShadowBlock
from idemfs.format.inode import Inode
from idemfs.format.tables import Snapshot
from idemfs.ids import Address, FilesetId, Ino, SnapshotId
from idemfs.replication import difference
from idemfs.snapshots import delete
from idemfs.store.catalog import Catalog
from idemfs.store.space import Space
from idemfs.versions import rule
from idemfs.versions.active import Active
from idemfs.versions.insulating import Insulating
from idemfs.versions.resolve import View
from idemfs.versions.shadows import Shadows
from idemfs.versions.writing import Writing
from tests.property.driver import PLAIN, Options
from tests.property.machine import BLOCK
from tests.property.steps import random_steps, run

RUNS, STEP_COUNT = 25, 80


class Look(NamedTuple):
    """How the model test looks: what it does more often than other things."""

    often: tuple[str, ...] = ()
    options: Options = PLAIN


LOOKS = {
    "everywhere": Look(),
    "content": Look(("write", "append_alone", "truncate", "take", "delete")),
    "what comes back": Look(("unlink", "restore", "undo", "set_xattr", "create", "take", "delete")),
    "what comes back without its records": Look(
        ("unlink", "rmdir", "restore", "undo", "set_xattr", "rename", "take", "delete")
    ),
    "crashes": Look(("write", "commit", "torn_commit", "crash"), Options(window_sector_count=2)),
    "written snapshots": Look(("write_inside", "write_more_inside", "write", "truncate", "take", "delete")),
    "tails of written snapshots": Look(
        ("write_inside", "write_more_inside", "write", "truncate", "append", "take", "delete")
    ),
    "a standby": Look(("write", "append", "truncate", "punch"), Options(standby="none")),
}


def first_failure(look: Look, seed: int) -> Exception | None:
    """What the model test says of the code as it is now."""
    for number in range(RUNS):
        steps = random_steps(seed * 1_000_000 + 500_000 + number, STEP_COUNT, look.options, look.often)
        try:
            run(steps, look.options)
        except (AssertionError, ArithmeticError, LookupError, IdemfsError, OSError) as failure:
            return failure
    return None


# -- what is broken ---------------------------------------------------------------------------------------


def ditto_for_hole(patch: pytest.MonkeyPatch) -> None:
    """Resolving looks for a hole in the next newer snapshot."""
    fold = indirect.fold

    def broken(versions: list[ShadowBlock], last: IndirectBlock) -> IndirectBlock:
        kept = [{at: pair for at, pair in each.entries.items() if pair[0] != HOLE} for each in versions]
        return fold(map(ShadowBlock, kept), last)

    patch.setattr(indirect, "fold", broken)


def hole_that_is_filled_is_not_kept(patch: pytest.MonkeyPatch) -> None:
    take_block = Shadows.take_block

    def broken(
        self: Shadows, ino: Ino, node: Inode, index: int, entry: int, pair: rule.Pair, change_start: int
    ) -> bool:
        return pair[0] != HOLE and take_block(self, ino, node, index, entry, pair, change_start)

    patch.setattr(Shadows, "take_block", broken)


def tail_is_not_kept_on_truncate(patch: pytest.MonkeyPatch) -> None:
    """A change inside a block counts from the next block on."""
    patch.setattr(rule, "keeps_block", lambda change_start, kept_size: -(-change_start // BLOCK) * BLOCK < kept_size)


def overwritten_block_is_not_kept(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(rule, "keeps_block", lambda change_start, kept_size: False)


def kept_size_is_ignored(patch: pytest.MonkeyPatch) -> None:
    """What is appended is preserved, too."""
    patch.setattr(rule, "keeps_block", lambda change_start, kept_size: True)


def longer_snapshots_are_forgotten(patch: pytest.MonkeyPatch) -> None:
    """What is past the newest snapshot's end is nobody's."""
    patch.setattr(rule, "keeps_block_for_older", lambda *block_and_sizes: False)


def no_absent_inode_on_create(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Shadows, "mark_absent", lambda self, ino: None)


def no_absent_entry_on_create(patch: pytest.MonkeyPatch) -> None:
    preserve = Shadows.preserve

    def broken(self: Shadows, key: bytes, birth: SnapshotId, old: bytes | None) -> None:
        if old is not None:
            preserve(self, key, birth, old)

    patch.setattr(Shadows, "preserve", broken)


def entries_are_not_preserved(patch: pytest.MonkeyPatch) -> None:
    """Renaming and unlinking change entries, links and extended attributes without preserving them."""
    preserve = Shadows.preserve

    def broken(self: Shadows, key: bytes, birth: SnapshotId, old: bytes | None) -> None:
        if old is None:
            preserve(self, key, birth, old)

    patch.setattr(Shadows, "preserve", broken)


def inodes_are_not_preserved(patch: pytest.MonkeyPatch) -> None:
    """Attributes change without a shadow; where content needs one to look at, it is there."""
    preserve_inode = Shadows.preserve_inode

    def broken(self: Shadows, ino: Ino, node: Inode) -> None:
        if node.is_file:
            preserve_inode(self, ino, node)

    patch.setattr(Shadows, "preserve_inode", broken)


def seen_is_not_updated(patch: pytest.MonkeyPatch) -> None:
    """The second change after a snapshot is preserved as well as the first."""
    preserve_inode = Shadows.preserve_inode

    def broken(self: Shadows, ino: Ino, node: Inode) -> None:
        seen = node.seen
        preserve_inode(self, ino, node)
        node.seen = seen

    patch.setattr(Shadows, "preserve_inode", broken)


def access_time_is_preserved(patch: pytest.MonkeyPatch) -> None:
    touch_atime = Active.touch_atime

    def broken(self: Active, ino: Ino, atime: int) -> None:
        if self.inode(ino) is not None:
            self.change_inode(ino)
        touch_atime(self, ino, atime)

    patch.setattr(Active, "touch_atime", broken)


def younger_inodes_are_seen(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(View, "_is_younger", lambda self, value: False)
    patch.setattr(Shadows, "mark_absent", lambda self, ino: None)


def records_are_not_handed_down(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(delete._HandDown, "_is_wanted", lambda self, key, value, older: False)


def blocks_are_not_handed_down(patch: pytest.MonkeyPatch) -> None:
    def broken(entries: dict[int, rule.Pair], *rest: object) -> rule.HandDown:
        return rule.HandDown({}, [pair[0] for pair in entries.values()])

    patch.setattr(rule, "hand_down", broken)


def holes_are_not_handed_down(patch: pytest.MonkeyPatch) -> None:
    hand_down = rule.hand_down

    def broken(entries: dict[int, rule.Pair], older: dict[int, rule.Pair], *counts: int) -> rule.HandDown:
        real = {entry: pair for entry, pair in entries.items() if pair[0] != HOLE}
        return hand_down(real, older, *counts)

    patch.setattr(rule, "hand_down", broken)


def blocks_past_the_end_are_handed_down(patch: pytest.MonkeyPatch) -> None:
    """The next older snapshot gets what lies past its size, too."""
    hand_down = rule.hand_down
    patch.setattr(rule, "hand_down", lambda entries, older, count, holes: hand_down(entries, older, 512, 512))


def handed_down_to_the_wrong_neighbour(patch: pytest.MonkeyPatch) -> None:
    """To the oldest one, where there are several."""

    def broken(self: Catalog, fileset: FilesetId, snapshot_id: SnapshotId) -> Snapshot | None:
        older = [snapshot for snapshot in self.all_snapshots(fileset) if snapshot.id < snapshot_id]
        return older[0] if older else None

    patch.setattr(Catalog, "next_older", broken)


def what_comes_back_is_young(patch: pytest.MonkeyPatch) -> None:
    """A restored inode counts as created now, and older snapshots see through it what it gets."""
    patch.setattr(Shadows, "birth", Shadows.newest)


def absent_is_handed_down_only_to_who_sees_the_inode(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Shadows, "is_seen", lambda self, ino, older_than: False)


def freed_space_is_reused_at_once(patch: pytest.MonkeyPatch) -> None:
    """Before the group that freed it is durable."""

    def broken(self: Space, address: Address) -> None:
        count, sector = addresses.sector_count_of(address), addresses.sector_of(address)
        if count and not self._unshare(sector):
            self._fresh.pop(sector, None)
            self._insert(sector, count)

    patch.setattr(Space, "free", broken)


def restored_extents_are_not_counted(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Space, "share", lambda self, address: None)


def tail_block_is_missing_from_a_difference(patch: pytest.MonkeyPatch) -> None:
    """What was appended in the partly filled last block."""
    changed_numbers = difference._Difference._changed_numbers

    def broken(self: difference._Difference, base: View, ino: Ino, ends: tuple[Inode, Inode], index: int) -> list[int]:
        tail = ends[0].size // BLOCK if ends[0].size % BLOCK else -1
        return [number for number in changed_numbers(self, base, ino, ends, index) if number != tail]

    patch.setattr(difference._Difference, "_changed_numbers", broken)


def holes_are_missing_from_a_difference(patch: pytest.MonkeyPatch) -> None:
    changed_numbers = difference._Difference._changed_numbers

    def broken(self: difference._Difference, base: View, ino: Ino, ends: tuple[Inode, Inode], index: int) -> list[int]:
        numbers = changed_numbers(self, base, ino, ends, index)
        return [number for number in numbers if self._target.block(ino, number)[0] != HOLE]

    patch.setattr(difference._Difference, "_changed_numbers", broken)


def blocks_past_the_old_end_are_missing_from_a_difference(patch: pytest.MonkeyPatch) -> None:
    changed_numbers = difference._Difference._changed_numbers

    def broken(self: difference._Difference, base: View, ino: Ino, ends: tuple[Inode, Inode], index: int) -> list[int]:
        end = -(-ends[0].size // BLOCK)
        return [number for number in changed_numbers(self, base, ino, ends, index) if number < end]

    patch.setattr(difference._Difference, "_changed_numbers", broken)


def snapshots_are_not_insulated(patch: pytest.MonkeyPatch) -> None:
    """The next older snapshot sees what is written to this one."""
    patch.setattr(Insulating, "record", lambda self, key: None)


def blocks_are_not_insulated(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Insulating, "block", lambda self, *block: False)


def absence_is_not_insulated(patch: pytest.MonkeyPatch) -> None:
    """What is made in a snapshot shows in older ones."""
    insulate = Insulating.record

    def broken(self: Insulating, key: bytes) -> None:
        if View(self._active, self.snapshot.id).version(key) is not None:
            insulate(self, key)

    patch.setattr(Insulating, "record", broken)


def insulated_into_the_wrong_neighbour(patch: pytest.MonkeyPatch) -> None:
    """Into the oldest one, where there are several."""

    def broken(self: Insulating) -> Snapshot | None:
        older = [each for each in self.store.catalog.all_snapshots(self.snapshot.fileset) if each.id < self.snapshot.id]
        return older[0] if older else None

    patch.setattr(Insulating, "older", broken)


def extents_passed_on_are_not_counted(patch: pytest.MonkeyPatch) -> None:
    """The next older snapshot names what somebody newer owns."""
    pass_on = Insulating.block

    def broken(
        self: Insulating, ino: Ino, index: int, entry: int, pair: rule.Pair, is_owned: bool, change_start: int
    ) -> bool:
        return pass_on(self, ino, index, entry, pair, True, change_start)

    patch.setattr(Insulating, "block", broken)


def longer_snapshots_are_forgotten_by_writers(patch: pytest.MonkeyPatch) -> None:
    """What is past the end of the next older snapshot's file is nobody's."""
    older_sizes = Insulating._older_sizes
    patch.setattr(Insulating, "_older_sizes", lambda self, ino, older: older_sizes(self, ino, older)[:1] * 2)


def tails_of_newer_ones_are_written_over_the_end(patch: pytest.MonkeyPatch) -> None:
    """Bytes past the end of the snapshot's file show when it grows."""
    patch.setattr(Writing, "_trim_tail", lambda self, ino, node, size: None)


def blocks_of_newer_ones_are_not_hidden(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Writing, "uncover", lambda self, ino, node, end: None)


def written_inodes_are_preserved_again(patch: pytest.MonkeyPatch) -> None:
    """The active file system does not know that the newest snapshot has its own version."""
    patch.setattr(Insulating, "note_seen", lambda self, ino, birth=None: None)


def a_written_snapshot_keeps_its_guid(patch: pytest.MonkeyPatch) -> None:
    flush = Writing.flush

    def broken(self: Writing) -> None:
        guid = self.snapshot.guid
        flush(self)
        self.snapshot.guid = guid

    patch.setattr(Writing, "flush", broken)


CANARIES: dict[Callable[[pytest.MonkeyPatch], None], str] = {
    ditto_for_hole: "content",
    hole_that_is_filled_is_not_kept: "content",
    tail_is_not_kept_on_truncate: "content",
    overwritten_block_is_not_kept: "everywhere",
    kept_size_is_ignored: "content",
    longer_snapshots_are_forgotten: "content",
    no_absent_inode_on_create: "everywhere",
    no_absent_entry_on_create: "everywhere",
    entries_are_not_preserved: "everywhere",
    inodes_are_not_preserved: "everywhere",
    seen_is_not_updated: "everywhere",
    access_time_is_preserved: "everywhere",
    younger_inodes_are_seen: "everywhere",
    records_are_not_handed_down: "what comes back",
    blocks_are_not_handed_down: "content",
    holes_are_not_handed_down: "content",
    blocks_past_the_end_are_handed_down: "content",
    handed_down_to_the_wrong_neighbour: "content",
    what_comes_back_is_young: "what comes back",
    absent_is_handed_down_only_to_who_sees_the_inode: "what comes back without its records",
    freed_space_is_reused_at_once: "crashes",
    restored_extents_are_not_counted: "what comes back",
    snapshots_are_not_insulated: "written snapshots",
    blocks_are_not_insulated: "written snapshots",
    absence_is_not_insulated: "written snapshots",
    insulated_into_the_wrong_neighbour: "written snapshots",
    extents_passed_on_are_not_counted: "written snapshots",
    longer_snapshots_are_forgotten_by_writers: "written snapshots",
    tails_of_newer_ones_are_written_over_the_end: "tails of written snapshots",
    blocks_of_newer_ones_are_not_hidden: "written snapshots",
    written_inodes_are_preserved_again: "written snapshots",
    a_written_snapshot_keeps_its_guid: "written snapshots",
    tail_block_is_missing_from_a_difference: "a standby",
    holes_are_missing_from_a_difference: "a standby",
    blocks_past_the_old_end_are_missing_from_a_difference: "a standby",
}
"""What is broken, and where to look for it."""
SLOW = {
    freed_space_is_reused_at_once,
    longer_snapshots_are_forgotten,
    longer_snapshots_are_forgotten_by_writers,
    access_time_is_preserved,
    absent_is_handed_down_only_to_who_sees_the_inode,
}
"""Noticed after many runs only; the first is looked for with power cuts by default too."""


@pytest.mark.parametrize(
    "breaks",
    [pytest.param(each, marks=pytest.mark.long if each in SLOW else ()) for each in CANARIES],
    ids=lambda breaks: breaks.__name__,
)
def test_the_model_test_notices(
    breaks: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    breaks(monkeypatch)
    failure = first_failure(LOOKS[CANARIES[breaks]], seed)
    assert failure is not None, "the rule is broken, and the model test passes"
    print(f"noticed: {failure!s:.300}")


@pytest.mark.long
@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS.keys())
def test_the_same_runs_pass_on_the_code_as_it_is(look: Look, seed: int) -> None:
    assert first_failure(look, seed) is None
