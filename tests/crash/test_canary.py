"""Each rule that keeps data through a crash, broken on purpose: the power cuts have to find it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from idemfs.errors import IdemfsError
from idemfs.format import keys
from idemfs.format.intent import Intent
from idemfs.ids import Address, Ino
from idemfs.snapshots import bring_back, delete
from idemfs.store import intents
from idemfs.store.intents import Intents
from idemfs.store.space import Space
from idemfs.store.store import Store
from idemfs.testing.blocks import CrashingBlocks
from idemfs.versions.active import Active
from idemfs.vfs.fileset_state import FilesetState
from idemfs.vfs.tree import Tree
from tests.crash import test_synced_files
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

    def commit_later(
        store: Store, wait: bool = True, last: Callable[[], None] | None = None, *, until_freed: bool = True
    ) -> None:
        if last is None:
            commit(store, wait)
        else:
            for hook in store.before_seal:
                hook()
            last()

    patch.setattr(Store, "commit", commit_later)


def committed_generations_are_replayed(patch: Patch) -> None:
    seal = Intents.seal

    def seal_without_mark(intents: Intents) -> None:
        seal(intents)
        intents._small.put(keys.LOG_MARK, None)

    patch.setattr(Intents, "seal", seal_without_mark)


def the_log_is_not_synced(patch: Patch) -> None:
    patch.setattr(Intents, "sync", lambda intents, ticket: True)


def the_log_is_not_replayed(patch: Patch) -> None:
    patch.setattr(Tree, "_replay", lambda tree, record: None)


def what_an_older_opening_left_is_taken_for_the_next_record(patch: Patch) -> None:
    read = Intents._read

    def read_any(intents: Intents, generation: int, at: int) -> tuple[Intent, int] | None:
        found = read(intents, generation, at)
        if found is None or found[0].place.generation != generation:
            return None
        record, size = found
        return record._replace(place=record.place._replace(previous=checksums[-1])), size

    pending = Intents._pending
    checksums: list[int] = []

    def pending_unchained(intents: Intents) -> Iterator[Intent]:
        checksums[:] = [intents._mark().checksum]
        for record in pending(intents):
            checksums.append(record.checksum)
            yield record

    patch.setattr(Intents, "_read", read_any)
    patch.setattr(Intents, "_pending", pending_unchained)


def other_changes_are_not_committed(patch: Patch) -> None:
    append = Intents.append

    def append_at_any_rate(intents: Intents, ino: Ino, mtime: int, ctime: int) -> int | None:
        intents.otherwise.discard(ino)
        return append(intents, ino, mtime, ctime)

    patch.setattr(Intents, "append", append_at_any_rate)


def what_is_being_committed_is_not_waited_for(patch: Patch) -> None:
    seal = Intents.seal

    def seal_and_forget(intents: Intents) -> None:
        seal(intents)
        intents._sealed_undurable.clear()

    patch.setattr(Intents, "seal", seal_and_forget)


def half_a_log_is_written_anew_too_early(patch: Patch) -> None:
    patch.setattr(intents, "_first_sector", lambda generation: 1)


@pytest.mark.parametrize(
    "break_it",
    [
        committed_generations_are_replayed,
        the_log_is_not_synced,
        the_log_is_not_replayed,
        what_an_older_opening_left_is_taken_for_the_next_record,
        other_changes_are_not_committed,
        what_is_being_committed_is_not_waited_for,
        half_a_log_is_written_anew_too_early,
    ],
)
def test_a_broken_rule_of_the_log_is_found(break_it: Callable[[Patch], None], monkeypatch: Patch) -> None:
    tighten(monkeypatch)
    break_it(monkeypatch)
    with pytest.raises((AssertionError, IdemfsError, pytest.fail.Exception)):
        for seed in range(20):
            test_synced_files.run(seed, 150)


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
