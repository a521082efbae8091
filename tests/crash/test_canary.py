"""Each rule that keeps data through a crash, broken on purpose: the power cuts have to find it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from idemfs.errors import IdemfsError
from idemfs.format import keys
from idemfs.ids import Address, Ino
from idemfs.snapshots import bring_back, delete
from idemfs.store.space import Space
from idemfs.store.store import Store
from idemfs.testing.blocks import CrashingBlocks
from idemfs.versions.active import Active
from idemfs.vfs.fileset_state import FilesetState
from tests.crash.disk import tighten
from tests.crash.test_power_cut import run

Patch = pytest.MonkeyPatch


def blocks_are_not_synced(patch: Patch) -> None:
    patch.setattr(CrashingBlocks, "sync", lambda engine: None)


def freed_space_is_handed_out_at_once(patch: Patch) -> None:
    free = Space.free

    def free_at_once(space: Space, address: Address) -> None:
        free(space, address)
        while space._freed:
            space._insert(*space._freed.pop())

    patch.setattr(Space, "free", free_at_once)


def freed_space_is_discarded_before_the_commit(patch: Patch) -> None:
    seal = Space.seal

    def seal_and_discard(space: Space) -> None:
        seal(space)
        space.discard()

    patch.setattr(Space, "seal", seal_and_discard)


def joined_runs_keep_their_records(patch: Patch) -> None:
    def release(space: Space) -> None:
        released, space._releasing = space._releasing, []
        for start, count in released:
            space._insert(start, count)

    patch.setattr(Space, "release", release)


def a_sync_is_acknowledged_too_early(patch: Patch) -> None:
    patch.setattr(FilesetState, "sync", lambda tree: None)


def restores_are_not_resumed(patch: Patch) -> None:
    def resume(active: Active) -> None:
        """Nothing."""

    patch.setattr(bring_back, "resume", resume)


def deletions_are_not_resumed(patch: Patch) -> None:
    def resume(active: Active) -> None:
        """Nothing."""

    patch.setattr(delete, "resume", resume)


def orphans_are_not_recorded(patch: Patch) -> None:
    gone = FilesetState._gone

    def forget(tree: FilesetState, ino: Ino) -> None:
        gone(tree, ino)
        tree.store.small.put(keys.orphan(ino), None)

    patch.setattr(FilesetState, "_gone", forget)


def snapshots_are_acknowledged_before_the_commit(patch: Patch) -> None:
    commit = Store.commit

    def commit_later(store: Store, wait: bool = True, last: Callable[[], None] | None = None) -> None:
        if last is None:
            commit(store, wait)
        else:
            for hook in store.before_seal:
                hook()
            last()

    patch.setattr(Store, "commit", commit_later)


@pytest.mark.parametrize(
    ("break_it", "workload"),
    [
        (blocks_are_not_synced, "files"),
        (freed_space_is_handed_out_at_once, "files"),
        (freed_space_is_discarded_before_the_commit, "files"),
        (joined_runs_keep_their_records, "snapshots"),
        (a_sync_is_acknowledged_too_early, "files"),
        (snapshots_are_acknowledged_before_the_commit, "snapshots"),
        (restores_are_not_resumed, "returns"),
        (deletions_are_not_resumed, "snapshots"),
        (orphans_are_not_recorded, "files"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_a_broken_rule_is_found(break_it: Callable[[Patch], None], workload: str, monkeypatch: Patch) -> None:
    tighten(monkeypatch)
    break_it(monkeypatch)
    with pytest.raises((AssertionError, IdemfsError, pytest.fail.Exception)):
        run(workload, 1, "none", 1000)
