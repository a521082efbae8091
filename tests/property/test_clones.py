"""A clone does what the model does, with all that one fileset can do, while its origin's fileset changes under it.

First the root fileset is given a past: random steps, in many states. Then it is cloned, and random steps go on in the
clone, compared with the model as ever. Between them the origin's fileset changes at random, takes snapshots, and loses
them, the origin too. At last the clone is promoted, and goes on by itself.
"""

from __future__ import annotations

import copy
from random import Random

import pytest

from idemfs.check import find
from idemfs.check.findings import Finding
from idemfs.format.tables import PINNED
from idemfs.ids import ROOT_FILESET, FilesetId, make_ino
from idemfs.ids import Number as NumberType
from idemfs.snapshots import bring_back, delete, manage, promote
from idemfs.testing.builders import random_changes
from idemfs.vfs.tree import Tree
from tests.property import compare, driver, machine
from tests.property.driver import Driver, Options
from tests.property.model import ROOT, Model
from tests.property.path_driver import PathDriver
from tests.property.steps import random_steps

CLONE = FilesetId(1)
PAST, STEPS, NOISE_EVERY = 40, 90, 6
KINDS = {
    "plain": Options(),
    "compressed": Options(compression="zstd"),
    "small groups": Options(group_record_count=60),
    "not compared in between": Options(compare_each=False),
}


class Beside:
    """The origin's fileset, which nobody compares with anything."""

    def __init__(self, run: Driver, rng: Random) -> None:
        self.run = run
        self.rng = rng
        self.count = 0

    def step(self) -> None:
        tree = self.run.tree
        self.count += 1
        random_changes(seen_as(tree, ROOT_FILESET), self.rng, self.rng.randrange(6))
        snapshots = tree.store.catalog.snapshots(ROOT_FILESET)
        turn = self.rng.random()
        if turn < 0.3:
            manage.create(tree.store, ROOT_FILESET, f"beside-{self.count}")
        elif turn < 0.6 and snapshots:
            delete.delete(tree.active, self.rng.choice(snapshots))
        elif turn < 0.7 and snapshots:
            bring_back.restore(tree.active, self.rng.choice(snapshots), f"beside-undo-{self.count}")
        elif turn < 0.8 and snapshots:
            bring_back.rollback(tree.active, ROOT_FILESET)
        tree.sync()
        self.run.model.commit()


def seen_as(tree: Tree, fileset: FilesetId) -> Tree:
    """The same tree, for who works in another fileset of it."""
    other = copy.copy(tree)
    other.fileset, other.root = fileset, make_ino(fileset, NumberType(1))
    return other


def placed_anywhere(tree: Tree, *, read_data: bool) -> list[Finding]:
    """What ``find`` says, but for the directory where the clone appears, which a rollback may have taken."""
    return [each for each in find(tree, read_data=read_data) if "fileset attach" not in each.what]


def clone_of(run: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the driver has in the root fileset is cloned, and it goes on in the clone."""
    for number in list(run.model.handles):
        for _ in range(run.model.handles[number]):
            run.tree.release(run.ino(number))
            run.model.release(number)
    origin = manage.create(run.tree.store, ROOT_FILESET, "the origin")
    state = dict(run.model.active)
    clone = run.tree.clone_snapshot(origin, run.tree.root, b"the clone", "clone", 0, 0)
    assert clone.number == CLONE
    run.tree.sync()
    for module in (compare, driver, machine):
        monkeypatch.setattr(module, "ROOT_FILESET", CLONE)
    monkeypatch.setattr(compare, "find", placed_anywhere)
    run.machine.reopen()
    root = state[ROOT]
    run.model = Model(root.mtime, root.uid, root.gid)
    run.model.active, run.model.next_number = state, clone.next_number
    run.model.commit()
    run._seen = {}
    compare.check_store(run.tree)
    run.compare_all()


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS.keys())
@pytest.mark.parametrize("number", [0, 1, *(pytest.param(n, marks=pytest.mark.long) for n in range(2, 200))])
def test_random_steps_in_a_clone(number: int, options: Options, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seed = seed * 1_000_000 + 2000 + number
    monkeypatch.setattr(promote, "_STEP_RECORD_COUNT", 16)
    run = PathDriver(options)
    try:
        for name, numbers in random_steps(seed, PAST, options):
            run.step(name, *numbers)
        clone_of(run, monkeypatch)
        beside = Beside(run, Random(seed))
        for turn, (name, numbers) in enumerate(random_steps(seed + 500, STEPS, options)):
            if turn % NOISE_EVERY == 0:
                beside.step()
                run.compare_all()
            run.step(name, *numbers)
        run.step("check")
        run.tree.promote_fileset(run.tree.store.catalog.filesets[CLONE])
        run.model.commit()
        assert all(each.state != PINNED for each in run.tree.store.catalog.all_snapshots(ROOT_FILESET))
        run.compare_all()
        for name, numbers in random_steps(seed + 900, PAST, options):
            run.step(name, *numbers)
        run.step("check")
    except BaseException as failure:
        failure.add_note(f"seed {seed}, after {run.steps[-3:]}")
        raise
    finally:
        run.end()
