"""The power goes while a standby receives, completes, or drops a change set: at every write, done or not."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

from idemfs.format.role import Role, RoleRecord
from idemfs.ids import ROOT_FILESET
from idemfs.replication import applier, codec
from idemfs.replication.apply import drop_partial, is_half_received, receive
from idemfs.snapshots import bring_back, received
from idemfs.store.store import Store
from idemfs.testing.blocks import CrashingBlocks
from idemfs.testing.builders import assert_clean, make_file, memory_tree, random_changes
from idemfs.testing.clock import Simulated
from idemfs.testing.faults import Cut, PowerCut
from idemfs.testing.kv import CrashingKV
from idemfs.vfs.tree import Tree
from tests.unit.replication.pairs import (
    assert_same,
    reading,
    set_role,
    snapshots,
    standby_of,
    stream_of,
    take,
    visible,
)

CUTS_MAX = 400


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "STREAM_BATCH_BYTES", 3000)
    monkeypatch.setattr(applier, "_STEP_RECORD_COUNT", 7)


class Machine:
    """A standby whose power can be cut."""

    def __init__(self, primary: Tree) -> None:
        self.kv, self.blocks = CrashingKV(), CrashingBlocks()
        self.tree = standby_of(primary, kv=self.kv, blocks=self.blocks)

    def restart(self, seed: int, cut: Cut | None = None) -> Tree:
        """The power is back; with ``cut`` it will go again."""
        rng = Random(seed)
        store = self.tree.store
        self.kv, self.blocks = self.kv.crash(rng, cut), self.blocks.crash(rng, cut)
        self.tree = Tree(Store(store.superblock, self.kv, self.blocks, Simulated(seed)))
        return self.tree

    def copy(self) -> Machine:
        twin = object.__new__(Machine)
        twin.kv, twin.blocks, twin.tree = self.kv, self.blocks, self.tree
        return twin


@pytest.fixture(scope="module")
def primary() -> Tree:
    tree = memory_tree(clock=Simulated(11))
    rng = Random(11)
    for name in ("one", "two"):
        random_changes(tree, rng, 50)
        take(tree, name)
    return tree


def cut_everywhere(prepared: Machine, work: Callable[[Tree], None], check: Callable[[Tree], None]) -> int:
    """Cut ``work`` at every write point, in both variants; ``check`` gets the store after the restart."""
    for effective in (False, True):
        for after in range(1, CUTS_MAX):
            machine = prepared.copy()
            cut = Cut(after, effective=effective)
            try:
                work(machine.restart(1, cut))
            except PowerCut:
                check(machine.restart(after))
            else:
                assert after > 5
                break
        else:
            raise AssertionError("the work never ended")
    return after


def committing(tree: Tree, data: bytes) -> None:
    """Receive ``data`` with a commit after every third frame."""
    count = [0]

    def commit(size: int) -> None:
        count[0] += 1
        if count[0] % 3 == 0:
            tree.store.commit()

    receive(tree, reading(data), progress=commit)


@pytest.mark.parametrize("target", ["one", "two"])
def test_while_a_change_set_comes_in(primary: Tree, target: str) -> None:
    one, two = snapshots(primary)
    machine = Machine(primary)
    data = stream_of(primary, None, one)
    if target == "two":
        receive(machine.tree, reading(data))
        data = stream_of(primary, one, two)
    before = visible(machine.tree)
    after = visible(primary)[: len(before) + 1]

    def check(tree: Tree) -> None:
        assert visible(tree) in (before, after)
        assert is_half_received(tree.store) or visible(tree) == after or tree.store.catalog.state.next_snapshot < 3
        for each in before:
            assert_same(primary, tree, each[0])
        assert_clean(tree)
        receive(tree, reading(data))
        assert_same(primary, tree, target)
        assert_clean(tree)

    assert cut_everywhere(machine, lambda tree: committing(tree, data), check) > 20


def half(machine: Machine, data: bytes) -> None:
    class Enough(Exception):
        pass

    def stop(size: int) -> None:
        if size > len(data) * 3 // 4:
            raise Enough

    with pytest.raises(Enough):
        receive(machine.tree, reading(data), progress=stop)
    # crash: the preparation of a test; what came is durable from here on.
    machine.tree.store.commit()


def dropped(machine: Machine, primary: Tree, data: bytes, digest: int) -> None:
    before = visible(machine.tree)

    def check_receiving(tree: Tree) -> None:
        receive(tree, reading(data))
        assert_same(primary, tree, snapshots(tree)[-1].name)
        assert_clean(tree)

    def check(tree: Tree) -> None:
        assert visible(tree) == before
        assert_clean(tree)
        drop_partial(tree)
        assert visible(tree) == before
        assert tree.store.catalog.filesets[ROOT_FILESET].digest == digest
        assert_clean(tree)
        receive(tree, reading(data))
        assert_same(primary, tree, snapshots(tree)[-1].name)

    def drop(tree: Tree) -> None:
        assert drop_partial(tree)
        random_commits(tree)

    assert cut_everywhere(machine, drop, check) > 5
    assert cut_everywhere(machine, drop, check_receiving) > 5


def random_commits(tree: Tree) -> None:
    """More write points, so that every one of the work proper is followed by some."""
    for _ in range(5):
        tree.store.admit(1, 100)
        tree.store.commit()


def test_while_one_is_dropped_by_an_empty_standby(primary: Tree) -> None:
    machine = Machine(primary)
    data = stream_of(primary, None, snapshots(primary)[0])
    half(machine, data)
    dropped(machine, primary, data, 0)


def test_while_one_is_dropped_and_rolled_back(primary: Tree) -> None:
    machine = Machine(primary)
    one, two = snapshots(primary)
    receive(machine.tree, reading(stream_of(primary, None, one)))
    data = stream_of(primary, one, two)
    half(machine, data)
    dropped(machine, primary, data, one.digest)


def test_while_one_is_dropped_by_a_former_primary(primary: Tree) -> None:
    machine = Machine(primary)
    one, two = snapshots(primary)
    receive(machine.tree, reading(stream_of(primary, None, one)))
    old = machine.tree
    set_role(old.store, RoleRecord(Role.PRIMARY, 1, 1))
    old.reload_role()
    random_changes(old, Random(3), 30)
    make_file(old, old.root, b"diverged", b"x" * 9000)
    take(old, "diverged-1")
    base = snapshots(old)[0]
    with old.store.exclusive():
        received.put_base(old.store, base.guid)
        bring_back.go_back(old.active, base)
    set_role(old.store, RoleRecord(Role.STANDBY, 1, 1))
    old.reload_role()
    data = stream_of(primary, one, two)
    half(machine, data)
    dropped(machine, primary, data, one.digest)
