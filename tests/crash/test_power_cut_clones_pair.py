"""The power goes at every write point of a pair whose primary makes clones, promotes them, and purges its snapshots."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import pytest

from idemfs.replication import applier, codec
from idemfs.snapshots import audit, clones, manage, purge
from idemfs.snapshots.audit import Purge
from tests.crash.disk import BLOCK_SIZE, tighten
from tests.crash.test_power_cut_filesets_pair import run
from tests.crash.test_power_cut_pair import Pair, Phase, fail_back, fail_over, replicate_a, switch_over
from tests.crash.workload import Hands


@pytest.fixture(autouse=True)
def tight(monkeypatch: pytest.MonkeyPatch) -> None:
    tighten(monkeypatch)
    monkeypatch.setattr(codec, "STREAM_BATCH_BYTES", 3000)
    monkeypatch.setattr(applier, "_STEP_RECORD_COUNT", 7)


def life(seed: int) -> Iterator[Phase]:
    def user(store: str, turn: int) -> Phase:
        def act(pair: Pair) -> None:
            write(Hands(pair.trees[store], seed + turn), turn)

        return Phase(f"user of {store}, turn {turn}", act, is_command=False)

    def purging(store: str, fileset: str, path: str) -> Phase:
        return Phase(f"purge {path} of {fileset} on {store}", lambda pair: purge_there(pair, store, fileset, path))

    yield user("A", 0)
    yield Phase("replicate for the first time", replicate_a)
    yield user("A", 1)
    yield Phase("replicate clones", replicate_a)
    yield purging("A", "root", "small1")
    yield user("A", 2)
    yield Phase("replicate after a purge", replicate_a)
    yield Phase("failover", fail_over)
    yield purging("B", "c", "small1")
    yield user("B", 3)
    yield Phase("failback", fail_back)
    yield Phase("reversion", switch_over)


def write(hands: Hands, turn: int) -> None:
    """Turn 0 takes the snapshot that is cloned twice in turn 1; turn 2 promotes one of the clones."""
    tree = hands.tree
    catalog = tree.store.catalog
    if not turn:
        hands.write("lost", 0, 3 * BLOCK_SIZE)
    if turn == 1:
        (snapshot,) = catalog.snapshots(catalog.fileset_named("root").number)
        tree.clone_snapshot(snapshot, tree.root, b"c", "c", 0, 0)
        tree.clone_snapshot(snapshot, tree.root, b"d", "d", 0, 0)
        tree.unlink(hands.at("c"), b"lost")
    if turn == 2:
        tree.promote_fileset(catalog.fileset_named("d"))
    for path in ("", "c/", "d/") if turn else ("",):
        hands.write(f"{path}file", turn * 500, 2 * BLOCK_SIZE)
        hands.write(f"{path}small{turn}", 0, 200)
    tree.store.commit()
    manage.create_all(tree.store, [(each.number, f"turn-{turn}") for each in catalog.listed_filesets()])


def purge_there(pair: Pair, store: str, fileset: str, path: str) -> None:
    tree = pair.trees[store]
    number = tree.store.catalog.fileset_named(fileset).number
    wanted = Purge(5, number, fileset, path, 0, "", "", False, (), 0, (), 0)
    with suppress(FileNotFoundError):
        # What was cut, and went on when the store was opened, is done.
        purge.purge(tree.active, wanted, path.encode())
        tree.moves += 1


def test_a_pair_of_stores_with_clones_and_purges_survives_power_cuts(seed: int) -> None:
    pair = run(seed, life, is_whole=False)
    for tree in pair.trees.values():
        origin = clones.origin_snapshot(tree.store, tree.store.catalog.fileset_named("c").number)
        assert origin is not None and origin.name == "turn-0"
        assert len(audit.purges(tree.store)) == 2
