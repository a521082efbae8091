"""The power goes at every write point of a pair with filesets in filesets, whose snapshots are taken at one instant.

Who reads the standby sees all filesets as they were before a group of snapshots, or as they are after it, and never
some of both; and the command that was cut leads to where it would have led.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from random import Random

import pytest

from idemfs.errors import RoleError
from idemfs.format.role import Role
from idemfs.ids import ROOT_NUMBER, Ino, make_ino
from idemfs.replication import applier, codec, link
from idemfs.snapshots import manage
from idemfs.testing.builders import assert_clean
from idemfs.vfs.tree import Tree
from tests.crash.disk import BLOCK_SIZE, Witness, tighten
from tests.crash.dump import Dump, dump_of
from tests.crash.test_power_cut_pair import (
    Image,
    Pair,
    Phase,
    fail_back,
    fail_over,
    new_pair,
    replicate_a,
    switch_over,
)
from tests.crash.workload import Hands


@pytest.fixture(autouse=True)
def tight(monkeypatch: pytest.MonkeyPatch) -> None:
    tighten(monkeypatch)
    monkeypatch.setattr(codec, "STREAM_BATCH_BYTES", 3000)
    monkeypatch.setattr(applier, "_STEP_RECORD_COUNT", 7)


def life(seed: int) -> Iterator[Phase]:
    def user(store: str, turn: int, name: str | None) -> Phase:
        def run(pair: Pair) -> None:
            hands = Hands(pair.trees[store], seed + turn)
            write(hands, turn)
            hands.tree.store.commit()
            if name is not None:
                filesets = hands.tree.store.catalog.listed_filesets()
                manage.create_all(hands.tree.store, [(each.number, name) for each in filesets])

        return Phase(f"user of {store}, turn {turn}", run, is_command=False)

    yield user("A", 0, "first")
    yield Phase("replicate for the first time", replicate_a)
    yield user("A", 1, "second")
    yield Phase("replicate", replicate_a)
    yield user("A", 2, None)
    yield Phase("failover", fail_over)
    yield user("B", 3, "third")
    yield Phase("failback", fail_back)
    yield Phase("reversion", switch_over)
    yield user("A", 4, "fourth")
    yield Phase("replicate again", replicate_a)


def root_of(tree: Tree, name: str) -> Ino:
    return make_ino(tree.store.catalog.fileset_named(name).number, ROOT_NUMBER)


def write(hands: Hands, turn: int) -> None:
    """Something in each fileset; turn 1 makes one more, turn 3 lets one appear elsewhere."""
    tree = hands.tree
    if not turn:
        tree.make_fileset(tree.root, b"home", "home", 0, 0)
        tree.make_fileset(root_of(tree, "home"), b"deep", "deep", 0, 0)
    if turn == 1:
        tree.make_fileset(tree.root, b"late", "late", 0, 0)
    if turn == 3:
        hands.mkdir("place")
        tree.attach_fileset(tree.store.catalog.fileset_named("late"), tree.root, b"place")
        tree.rename_fileset(tree.store.catalog.fileset_named("late"), "moved")
    for path in ("", "home/", "home/deep/"):
        hands.write(f"{path}file", turn * 500, 2 * BLOCK_SIZE)
        hands.write(f"{path}small{turn}", 0, 200)


def views_of(pair: Pair) -> dict[str, tuple[Dump, bool]]:
    """What users of each store see, and whether it is a standby."""
    found = {}
    for name, tree in pair.trees.items():
        seen: Dump = {}
        with suppress(FileNotFoundError):
            seen = dump_of(tree.newest_reader())
        found[name] = seen, tree.role.role is Role.STANDBY
    return found


def digests_of(pair: Pair) -> dict[str, set[tuple[str, str, int]]]:
    return {
        name: {
            (fileset.name, each.name, each.digest)
            for fileset in tree.store.catalog.listed_filesets()
            for each in tree.store.catalog.snapshots(fileset.number)
        }
        for name, tree in pair.trees.items()
    }


def keep(images: list[Image], witness: Witness, phase: int, pair: Pair, rng: Random) -> None:
    images.append(Image(witness.count, phase, pair.crash(rng)))


def run(seed: int, life: Callable[[int], Iterator[Phase]] = life, *, is_whole: bool = True) -> Pair:
    """The pair at the end. ``is_whole``: users of a standby see what was before a command, or what is after it."""
    witness = Witness()
    pair = new_pair(witness, seed)
    rng = Random(seed)
    phases: list[Phase] = []
    views = [views_of(pair)]
    digests = [digests_of(pair)]
    images: list[Image] = []
    for phase in life(seed):
        phases.append(phase)
        witness.seen = partial(keep, images, witness, len(phases), pair, rng)
        phase.run(pair)
        witness.seen = None
        views.append(views_of(pair))
        digests.append(digests_of(pair))
        for tree in pair.trees.values():
            assert_clean(tree)
        for disk in pair.disks.values():
            disk.clock.advance(5)
    assert len(images) > 100
    assert views[-1]["A"][0].keys() == views[-1]["B"][0].keys()
    for image in images:
        phase = phases[image.phase - 1]
        if not phase.is_command:
            continue
        again = Pair(image.disks)
        for name, (seen, is_standby) in views_of(again).items():
            if is_whole and is_standby and views[image.phase - 1][name][1] and views[image.phase][name][1]:
                known = [views[at][name][0] for at in (image.phase - 1, image.phase)]
                assert seen in known, f"{phase.name}, {image.point}: users of {name} see some of both"
        for tree in again.trees.values():
            assert_clean(tree)
        with suppress(RoleError):
            # Who is already where the command leads, refuses it.
            phase.run(again)
        assert digests_of(again) == digests[image.phase], f"{phase.name}, {image.point}"
        for name, (seen, _) in views_of(again).items():
            assert seen == views[image.phase][name][0], f"{phase.name}, {image.point}: {name} got elsewhere"
            assert_clean(again.trees[name])
    return pair


def test_a_pair_of_stores_with_filesets_survives_power_cuts(seed: int) -> None:
    pair = run(seed)
    assert "/home/deep/small4" in {f"/{path.lstrip('/')}" for path in views_of(pair)["B"][0]}


def test_a_link_that_completes_each_fileset_by_itself_is_noticed(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    units = link.units
    monkeypatch.setattr(link, "units", lambda *plans: ([step] for unit in units(*plans) for step in unit))
    with pytest.raises(AssertionError, match="see some of both"):
        run(seed)
