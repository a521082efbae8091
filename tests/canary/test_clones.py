"""What keeps clones and their origins right, broken on purpose: random steps in many filesets must notice."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from idemfs.format.indirect import PartialBlock
from idemfs.format.inode import Inode
from idemfs.format.tables import COMPLETE, Fileset, Snapshot
from idemfs.ids import Address, Ino
from idemfs.snapshots import clones, delete, promote
from idemfs.store.space import Space
from idemfs.store.store import Store
from idemfs.versions import origin, rule, through
from idemfs.versions.active import Active
from idemfs.versions.origin import Source
from idemfs.vfs import tree
from tests.canary.test_filesets import first_failure


def no_origin_is_pinned(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(delete, "clones_of", lambda store, snapshot: [])


def a_pinned_origin_stays(patch: pytest.MonkeyPatch) -> None:
    def broken(active: Active, clone: Fileset) -> None:
        origin.end(active, clone)
        origin.begin(active, clone)

    for module in (clones, promote):
        patch.setattr(module, "let_go", broken)


def the_first_clone_takes_the_origin_with_it(patch: pytest.MonkeyPatch) -> None:
    """Though others rest on it."""
    real = clones.clones_of

    def broken(store: Store, snapshot: Snapshot) -> list[Fileset]:
        return real(store, snapshot) if snapshot.state == COMPLETE else []

    patch.setattr(clones, "clones_of", broken)


def what_is_seen_through_is_not_shared(patch: pytest.MonkeyPatch) -> None:
    """When a snapshot of the clone takes it over."""

    real = through.set_block

    def broken(
        active: Active,
        block: PartialBlock,
        ino: Ino,
        node: Inode,
        place: tuple[int, int],
        pair: rule.Pair,
        change_start: int,
    ) -> None:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(Space, "share", lambda self, address: None)
            real(active, block, ino, node, place, pair, change_start)

    patch.setattr(through, "set_block", broken)


def what_is_seen_through_counts_as_its_own(patch: pytest.MonkeyPatch) -> None:
    """A block that the clone overwrites is taken off what it holds, though it never held it."""
    real = through.own_block

    def broken(active: Active, block: PartialBlock, ino: Ino, place: tuple[int, int], pair: rule.Pair) -> None:
        if place[1] not in block.entries:
            seen = through.origin_map(active, ino, place[0])
            block.entries[place[1]] = (Address(0), 0) if seen is None else seen.get(place[1])
        real(active, block, ino, place, pair)

    patch.setattr(through, "own_block", broken)


def the_last_block_is_left_to_the_origin(patch: pytest.MonkeyPatch) -> None:
    for module in (tree, promote):
        patch.setattr(module, "own_tail", lambda active, ino, node, frees=False: None)
    patch.setattr(origin, "own_tail", lambda active, ino, node, frees=False: None)


def nothing_is_marked_absent(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Source, "absence", lambda self, key: None)


def what_is_past_the_end_is_seen(patch: pytest.MonkeyPatch) -> None:
    """Of the file as the origin has it."""
    patch.setattr(Source, "map", lambda self, ino, index: self._view.map(self._theirs(ino), index))


def an_inode_keeps_the_birth_of_its_origin(patch: pytest.MonkeyPatch) -> None:
    """It may be greater than the ids of the clone's snapshots: what they see is not preserved."""

    def broken(self: Source, key: bytes) -> bytes | None:
        value = None if key[8:9] == b"b" or not self._is_beneath(key) else self._view.version(self._prefix + key[2:])
        return value if value is None or key[8:9] != b"i" else b"\xff" * 7 + b"\0" + value[8:]

    patch.setattr(Source, "get", broken)


def a_promotion_leaves_blocks(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(promote, "_take_over_map", lambda active, ino, index: None)


def a_promotion_does_not_share(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Space, "share", lambda self, address: None)


def a_promotion_leaves_marks(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(promote, "_sweep", lambda active, clone, at: None)


CANARIES: tuple[Callable[[pytest.MonkeyPatch], None], ...] = (
    no_origin_is_pinned,
    a_pinned_origin_stays,
    the_first_clone_takes_the_origin_with_it,
    what_is_seen_through_is_not_shared,
    what_is_seen_through_counts_as_its_own,
    the_last_block_is_left_to_the_origin,
    nothing_is_marked_absent,
    what_is_past_the_end_is_seen,
    an_inode_keeps_the_birth_of_its_origin,
    a_promotion_leaves_blocks,
    a_promotion_does_not_share,
    a_promotion_leaves_marks,
)


@pytest.mark.parametrize("canary", CANARIES, ids=lambda canary: canary.__name__)
def test_a_canary_dies(
    canary: Callable[[pytest.MonkeyPatch], None], seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary(monkeypatch)
    assert first_failure(seed) is not None, f"{canary.__name__} was not noticed"
