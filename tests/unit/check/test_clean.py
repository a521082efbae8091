"""Stores that nothing is wrong with, whatever was done to them, and while something is under way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from idemfs.check import find
from idemfs.errors import StreamInterrupted
from idemfs.format import keys
from idemfs.ids import ROOT_FILESET
from idemfs.replication import apply
from idemfs.snapshots import bring_back, delete, manage
from idemfs.store.files import open_files
from idemfs.store.store import Store
from idemfs.testing.builders import assert_clean, file_tree, make_file, memory_store, random_changes, reopened
from idemfs.testing.faults import Cut, PowerCut
from idemfs.testing.kv import CrashingKV
from idemfs.vfs.tree import Tree
from tests.unit.check.stores import aged, fresh, shared
from tests.unit.replication.pairs import reading, standby_of, stream_of


@pytest.mark.parametrize("build", [fresh, aged, shared])
@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_the_stores_that_other_tests_damage(build: Callable[[Tree], None], compression: str) -> None:
    tree = Tree(memory_store(compression=compression))
    build(tree)
    assert_clean(tree)


def test_a_store_that_was_just_made() -> None:
    store = memory_store()
    assert list(find(store, read_data=True)) == []
    assert_clean(Tree(store))


def one_step(tree: Tree, rng: Random, count: int) -> Tree:
    """Something that an owner of a store does."""
    snapshots = tree.store.catalog.snapshots(ROOT_FILESET)
    match rng.randrange(16):
        case 0 | 1 | 2:
            manage.create(tree.store, ROOT_FILESET, f"s{count}")
        case 3 | 4 if snapshots:
            delete.delete(tree.active, rng.choice(snapshots))
        case 5 if snapshots:
            bring_back.restore(tree.active, rng.choice(snapshots))
        case 6 if snapshots:
            bring_back.rollback(tree.active, ROOT_FILESET)
        case 7:
            return reopened(tree)
        case 8:
            return reopened(tree, committed=False)
        case _:
            random_changes(tree, rng, rng.randint(1, 50))
    return tree


@pytest.mark.parametrize("case", range(6))
def test_random_changes_snapshots_and_restores(case: int, seed: int) -> None:
    rng = Random(seed * 1000 + case)
    tree = Tree(memory_store(block_size=rng.choice((4096, 8192)), compression=rng.choice(("none", "zstd"))))
    for count in range(40):
        tree = one_step(tree, rng, count)
        assert_clean(tree)


@pytest.mark.long
@pytest.mark.parametrize("case", range(300))
def test_many_random_changes_snapshots_and_restores(case: int, seed: int) -> None:
    test_random_changes_snapshots_and_restores(case + 100, seed)


def test_random_changes_in_files(tmp_path: Path, seed: int) -> None:
    rng = Random(seed)
    tree = file_tree(str(tmp_path / "store"))
    for count in range(5):
        random_changes(tree, rng, 100)
        manage.create(tree.store, ROOT_FILESET, f"s{count}")
    assert_clean(tree)
    tree.store.close()
    store = open_files(str(tmp_path / "store"), readonly=True)
    assert list(find(store, read_data=True)) == []
    store.close()


def test_the_same_seed_makes_the_same_store() -> None:
    digests = set()
    for _ in range(2):
        tree = Tree(memory_store())
        random_changes(tree, Random(7), 300)
        tree.store.commit()
        digests.add(tree.store.catalog.filesets[ROOT_FILESET].digest)
    assert len(digests) == 1


def test_random_changes_make_every_kind_of_record() -> None:
    tree = Tree(memory_store())
    random_changes(tree, Random(1), 1500)
    tree.store.commit()
    kinds = {key[8:9] for key, _ in tree.store.active.scan(b"\0", b"\xff" * 9, 100_000)}
    assert kinds == {keys.INODE, keys.BLOCK, keys.ENTRY, keys.LINK, keys.XATTR}
    types = {node.mode >> 12 for ino in range(1, 3000) if (node := tree.active.inode(ino)) is not None}  # type: ignore[arg-type]
    assert types == {1, 2, 4, 6, 8, 10, 12}


def test_an_open_file_without_a_name_is_no_finding() -> None:
    tree = Tree(memory_store())
    ino = make_file(tree, tree.root, b"f", b"x" * 9000)
    tree.open(ino)
    tree.unlink(tree.root, b"f")
    assert_clean(tree)
    tree.release(ino)
    assert_clean(tree)


WORK: dict[str, Callable[[Tree], object]] = {
    "delete": lambda tree: delete.delete(tree.active, tree.store.catalog.by_name(ROOT_FILESET, "second")),
    "delete newest": lambda tree: delete.delete(tree.active, tree.store.catalog.by_name(ROOT_FILESET, "third")),
    "restore": lambda tree: bring_back.restore(tree.active, tree.store.catalog.by_name(ROOT_FILESET, "first")),
    "rollback": lambda tree: bring_back.rollback(tree.active, ROOT_FILESET),
}


@pytest.mark.parametrize("work", sorted(WORK))
@pytest.mark.parametrize("effective", [False, True])
def test_what_a_crash_interrupted_is_no_finding_before_and_after_recovery(
    work: str, effective: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Steps of one record, so that there is something between the first and the last.
    monkeypatch.setattr(delete, "_STEP_RECORD_COUNT", 1)
    monkeypatch.setattr("idemfs.store.store.GROUP_RECORD_COUNT_MAX", 1)
    cuts = 0
    for after in range(1, 200):
        tree = Tree(memory_store(kv=CrashingKV()))
        shared(tree)
        manage.create(tree.store, ROOT_FILESET, "third")
        random_changes(tree, Random(1), 20)
        tree.store.commit()
        kv = tree.store.kv
        assert isinstance(kv, CrashingKV)
        cut = kv.crash(Random(0), Cut(after, effective=effective))
        store = tree.store
        tree = Tree(Store(store.superblock, cut, store.blocks, store.clock))
        try:
            WORK[work](tree)
        except PowerCut:
            cuts += 1
        else:
            break
        left = Store(store.superblock, cut.crash(Random(0)), store.blocks, store.clock)
        assert list(find(left, read_data=True)) == []
        assert_clean(Tree(left))
    else:
        pytest.fail("the work has no end")
    assert cuts >= 3


def test_what_a_standby_has_half_received_is_no_finding(seed: int) -> None:
    rng = Random(seed)
    primary = Tree(memory_store())
    random_changes(primary, rng, 400)
    first = manage.create(primary.store, ROOT_FILESET, "first")
    random_changes(primary, rng, 400)
    second = manage.create(primary.store, ROOT_FILESET, "second")
    standby = standby_of(primary)
    for base, target in ((None, first), (first, second)):
        stream = stream_of(primary, base, target)
        for size in range(0, len(stream), max(1, len(stream) // 30)):
            try:
                apply.receive(standby, reading(stream[:size]))
            except StreamInterrupted:
                assert_clean(standby)
        apply.receive(standby, reading(stream))
        assert_clean(standby)
    assert standby.store.catalog.filesets[ROOT_FILESET].digest == second.digest
