"""The power goes at every write point of a workload; what was acknowledged is there, and nothing needs repair.

After a cut the store opens as it is: its state is one that the workload passed through, not older than the
last durable step; every snapshot reads as it did when it was taken; what was interrupted
is finished; each sector has one owner. Then work goes on, and the power goes again.
"""

from __future__ import annotations

import stat
from collections.abc import Callable
from functools import partial
from random import Random
from typing import NamedTuple

import pytest

from idemfs.engines.kv.api import Table
from idemfs.testing.builders import assert_clean
from idemfs.testing.faults import Cut, PowerCut
from idemfs.vfs.tree import Tree
from tests.crash.audit import RETURNING, assert_finished, audit
from tests.crash.disk import BLOCK_SIZE, Disk, Witness, new_disk, tighten
from tests.crash.dump import State, difference, state_of
from tests.crash.workload import WORKLOADS, Hands

IMAGE_COUNT = 2
"""What the host may have kept at one cut is drawn this many times."""
CHECK_EVERY = 20
"""Of this many cuts one is followed by a check of everything."""
AGAIN_EVERY = 47
"""Of this many cuts one is followed by cuts at every write point of the recovery and of the work after it."""


class Image(NamedTuple):
    """What the host kept at one cut."""

    point: int
    step: int
    disk: Disk


class Course(NamedTuple):
    """A workload that was carried out in full: the state after each step, and the images."""

    names: list[str]
    states: list[State]
    durable: list[int]
    """For each step, the number of the last durable step before it."""
    images: list[Image]


def carry_out(workload: str, seed: int, compression: str) -> Course:
    witness = Witness()
    disk = new_disk(witness, compression=compression, seed=seed)
    tree = disk.open()
    tree.sync()
    course = Course(["begin"], [state_of(tree)], [0], [])
    rng = Random(seed)

    def seen() -> None:
        for _ in range(IMAGE_COUNT):
            course.images.append(Image(witness.count, len(course.states), disk.crash(rng)))

    last_durable = 0
    for step in WORKLOADS[workload](Hands(tree, seed)):
        course.names.append(step.name)
        course.durable.append(last_durable)
        witness.seen = seen
        step.run()
        witness.seen = None
        disk.clock.advance(1)
        course.states.append(state_of(tree))
        if step.durable:
            last_durable = len(course.states) - 1
            if tree.store.dirty:
                # What a deletion hands down is in the open group still; here it goes on as it was.
                tree_after_cut = disk.crash(Random(seed)).open()
                tree_after_cut.sync()
                assert_finished(tree_after_cut)
                audit(tree_after_cut)
            else:
                audit(tree)
    return course


def verify(course: Course, image: Image) -> State:
    """Open what is left, and find that it is what it has to be."""
    has_begun = any(image.disk.kv.get(Table.SMALL, key) is not None for key in RETURNING)
    tree = image.disk.open()
    found = state_of(tree)
    first, last = course.durable[image.step], image.step
    allowed = course.states[first : last + 1]
    if has_begun:
        allowed = [course.states[last]]
    elif course.names[last].startswith("restore"):
        # It takes a snapshot first.
        allowed.append(State(course.states[last - 1].active, course.states[last].snapshots))
    if found not in allowed:
        told = "\n".join(difference(state, found) for state in allowed)
        pytest.fail(
            f"write point {image.point}, {course.names[image.step]}: the state is none of those allowed\n{told}"
        )
    tree.sync()
    assert_finished(tree)
    audit(tree)
    if image.point % CHECK_EVERY == 0:
        assert_clean(tree)
    go_on(tree, found)
    return found


def go_on(tree: Tree, found: State) -> None:
    """Space is handed out correctly: whatever is written now, the snapshots stay what they are."""
    hands = Hands(tree, 77)
    hands.write("go on", 0, 6 * BLOCK_SIZE)
    tree.sync()
    for path in files_of(found):
        hands.write(path, 0, 2 * BLOCK_SIZE)
    hands.take("go on")
    if found.snapshots:
        hands.drop(min(found.snapshots))
    hands.write("go on", BLOCK_SIZE, 2 * BLOCK_SIZE)
    tree.sync()
    hands.write("go on", 3 * BLOCK_SIZE, BLOCK_SIZE)
    tree.sync()
    now = state_of(tree)
    for name, dump in found.snapshots.items():
        assert name == min(found.snapshots) or now.snapshots[name] == dump, f"snapshot {name} has changed"
    audit(tree)


def verify_again(image: Image, found: State, rng: Random) -> None:
    """The power goes a second time, at every write point of the recovery and of the work after it."""
    witness = Witness()
    disk = image.disk.crash(rng, witness)
    seconds: list[tuple[int, Disk]] = []
    states = [found]
    witness.seen = lambda: seconds.append((len(states), disk.crash(rng)))
    tree = disk.open()
    tree.sync()
    hands = Hands(tree, 5)
    work: list[Callable[[], None]] = [lambda: hands.write("again", 0, 5 * BLOCK_SIZE)]
    work += [partial(hands.truncate, path, 0) for path in files_of(found)]
    for change in work:
        change()
        states.append(state_of(tree))
    tree.sync()
    for reached, second in seconds:
        tree = second.open()
        now = state_of(tree)
        if now not in states[: reached + 1]:
            pytest.fail("the second cut took what the first had left\n" + difference(found, now))
        tree.sync()
        assert_finished(tree)
        audit(tree)


def files_of(state: State) -> list[str]:
    return [path for path, thing in sorted(state.active.items()) if stat.S_ISREG(thing.mode)]


def run(workload: str, seed: int, compression: str, again_every: int) -> int:
    """How many images there were."""
    course = carry_out(workload, seed, compression)
    rng = Random(seed)
    for number, image in enumerate(course.images, seed):
        kept = image.disk.crash(rng)
        found = verify(course, image)
        if number % again_every == 0:
            verify_again(image._replace(disk=kept), found, rng)
    return len(course.images)


@pytest.fixture(autouse=True)
def tight(monkeypatch: pytest.MonkeyPatch) -> None:
    tighten(monkeypatch)


@pytest.mark.parametrize("workload", WORKLOADS)
def test_nothing_acknowledged_is_lost(workload: str, seed: int) -> None:
    assert run(workload, seed, "none", AGAIN_EVERY) > 100


@pytest.mark.long
@pytest.mark.parametrize("compression", ["none", "zstd"])
@pytest.mark.parametrize("offset", range(5))
@pytest.mark.parametrize("workload", WORKLOADS)
def test_nothing_acknowledged_is_lost_whatever_the_host_keeps(
    workload: str, offset: int, compression: str, seed: int
) -> None:
    run(workload, 1000 * seed + offset, compression, 3)


@pytest.mark.parametrize("effective", [False, True])
@pytest.mark.parametrize("workload", WORKLOADS)
def test_a_cut_ends_all_work_at_once(workload: str, effective: bool, seed: int) -> None:
    """No code on the way handles the end of the world: after it nothing is written, and the store lets go."""
    rng = Random(seed)
    witness = Witness()
    for step in WORKLOADS[workload](Hands(new_disk(witness).open())):
        step.run()
    for after in sorted(rng.sample(range(1, witness.count), 12)):
        cut = Cut(after, effective=effective)
        disk = new_disk(cut)
        tree = None
        with pytest.raises(PowerCut):
            tree = disk.open()
            for step in WORKLOADS[workload](Hands(tree)):
                step.run()
        assert cut.count == after
        if tree is not None:
            tree.store.abandon()
        again = disk.crash(rng).open()
        state_of(again)
        again.sync()
        audit(again)
