"""What keeps filesets apart and their quotas right, broken on purpose: random steps in many of them must notice."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from idemfs.errors import IdemfsError
from idemfs.format import keys
from idemfs.format.inode import Inode
from idemfs.format.tables import Fileset
from idemfs.ids import Address, FilesetId, Ino, fileset_of
from idemfs.snapshots import drop, quota
from idemfs.store.catalog import Catalog
from idemfs.versions.active import Active
from idemfs.vfs.junctions import Junctions
from tests.property.filesets import run

RUNS, STEP_COUNT = 40, 120


def first_failure(seed: int) -> Exception | None:
    for number in range(RUNS):
        try:
            run(seed * 1_000_000 + 500_000 + number, STEP_COUNT)
        except (AssertionError, ArithmeticError, LookupError, IdemfsError, OSError) as failure:
            return failure
    return None


def what_is_given_back_still_counts(patch: pytest.MonkeyPatch) -> None:
    set_block = Active.set_block

    def broken(
        self: Active, ino: Ino, node: Inode, number: int, address: Address, checksum: int, change_start: int
    ) -> None:
        fileset = self.store.catalog.filesets[fileset_of(ino)]
        before = fileset.sectors
        set_block(self, ino, node, number, address, checksum, change_start)
        fileset.sectors = max(before, fileset.sectors)

    patch.setattr(Active, "set_block", broken)


def removed_records_still_count(patch: pytest.MonkeyPatch) -> None:
    add = Catalog.add_to_sums
    patch.setattr(Catalog, "add_to_sums", lambda self, number, delta, size: add(self, number, delta, max(0, size)))


def nothing_is_refused(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(quota, "has_room", lambda store, fileset, size, inodes: True)


def a_deletion_takes_one_of_the_next_fileset(patch: pytest.MonkeyPatch) -> None:
    step = drop._step

    def broken(active: Active, fileset: Fileset) -> bool:
        following = FilesetId(fileset.number + 1)
        for key, _ in active.store.active.scan(*keys.fileset_range(following), 1):
            active.drop_record(key)
        return step(active, fileset)

    patch.setattr(drop, "_step", broken)


def a_deletion_leaves_the_snapshots(patch: pytest.MonkeyPatch) -> None:
    def broken(active: Active, fileset: Fileset) -> None:
        while drop._step(active, fileset):
            pass
        with active.store.lock:
            active.store.commit(wait=False)
            active.store.admit(4, 2000, frees=True)
            active.store.catalog.remove_fileset(fileset)

    patch.setattr(drop, "finish", broken)


def a_restore_may_lose_a_junction(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Junctions, "refuse_losing_junctions", lambda self, snapshot: None)


CANARIES: tuple[Callable[[pytest.MonkeyPatch], None], ...] = (
    what_is_given_back_still_counts,
    removed_records_still_count,
    nothing_is_refused,
    a_deletion_takes_one_of_the_next_fileset,
    a_deletion_leaves_the_snapshots,
    a_restore_may_lose_a_junction,
)


@pytest.mark.parametrize("canary", CANARIES, ids=lambda canary: canary.__name__)
def test_a_canary_dies(
    canary: Callable[[pytest.MonkeyPatch], None], seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary(monkeypatch)
    assert first_failure(seed) is not None, f"{canary.__name__} was not noticed"
