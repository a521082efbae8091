"""A purge takes a path out of every snapshot, and nothing else; what nobody sees any more is freed."""

from __future__ import annotations

from contextlib import suppress
from random import Random

import pytest

from idemfs import FileSystem
from idemfs.errors import CommitFailed
from idemfs.format import keys
from idemfs.ids import ROOT_FILESET, Number, make_ino
from idemfs.snapshots import audit, purge
from idemfs.snapshots.audit import Purge
from idemfs.store import store as store_module
from idemfs.store.store import Store
from idemfs.testing.blocks import CrashingBlocks
from idemfs.testing.builders import assert_clean, memory_store, memory_tree, random_changes
from idemfs.testing.faults import PowerCut
from idemfs.testing.kv import CrashingKV
from idemfs.vfs.tree import Tree
from tests.property.machine import Fuse
from tests.property.walked import Walked, walk

States = dict[str | None, Walked]


def wanted(path: str) -> Purge:
    return Purge(7, 0, "root", path, 0, "root", "a test", False, (), 0, (), 0)


def without(state: Walked, path: str) -> Walked:
    """The state as it is when ``path`` is gone."""
    if path not in state.paths:
        return state
    paths = {each: number for each, number in state.paths.items() if each != path and not each.startswith(path + "/")}
    places = {place: named for place, named in state.places.items() if named[1] in paths}
    inodes = {}
    for number in set(paths.values()):
        seen = state.inodes[number]
        if seen.is_dir:
            names = tuple(sorted(name for at, name in places if at == number))
            children = [child for (at, _), (child, _) in places.items() if at == number]
            nlink = 2 + sum(state.inodes[child].is_dir for child in children)
            seen = seen._replace(content=names, nlink=nlink)
        else:
            seen = seen._replace(nlink=list(paths.values()).count(number))
        inodes[number] = seen
    return Walked(inodes, paths, places)


def states_of(fs: FileSystem) -> States:
    found: States = {info.name: walk(fs.snapshots[info.name]) for info in fs.snapshots}
    found[None] = walk(fs)
    return found


def build(fs: FileSystem, rng: Random, number: int) -> None:
    for index in range(6):
        random_changes(fs.tree, rng, 120 if index == 0 else rng.choice((4, 30, 90)))
        if index == 4 and number % 3 == 0:
            fs.snapshots.restore("s1")
        fs.snapshots.create(f"s{index}")
        if index == 3 and number % 2:
            fs.snapshots.delete("s2")
    if number % 4:
        random_changes(fs.tree, rng, 40)


def pick(states: States, rng: Random) -> str:
    paths = sorted({path for name, state in states.items() if name for path in state.paths if path != "/"})
    return rng.choice(paths)


def _below(state: Walked, path: str) -> set[int]:
    return {number for each, number in state.paths.items() if each == path or each.startswith(path + "/")}


def assert_purged(fs: FileSystem, before: States, path: str) -> None:
    after = states_of(fs)
    for name, state in before.items():
        assert after[name] == (without(state, path) if name else state), (name, path)
    seen = {number for name, state in after.items() if name for number in state.inodes}
    purged = {number for name, state in before.items() if name for number in _below(state, path)}
    for number in purged - seen:
        ino = make_ino(ROOT_FILESET, Number(number))
        left = [key for key, value in fs.tree.store.shadow.scan(*keys.ino_range(ino), 1000) if value]
        assert not left, f"snapshots own records of inode {number}, which none of them sees"
    assert_clean(fs.tree)


@pytest.mark.parametrize(
    "number", [pytest.param(number, marks=pytest.mark.long if number > 7 else ()) for number in range(16)]
)
def test_against_walked_trees(number: int, seed: int) -> None:
    rng = Random(seed * 1000 + number)
    fs = FileSystem(memory_tree(compression="zstd" if number % 2 else "none"))
    build(fs, rng, number)
    for _ in range(4):
        before = states_of(fs)
        path = pick(before, rng)
        guids = {info.name: info.guid for info in fs.snapshots}
        record = purge.purge(fs.tree.active, wanted(path), path.encode(errors="surrogateescape"))
        assert_purged(fs, before, path)
        touched = [name for name, state in before.items() if name and path in state.paths]
        assert list(record.snapshots) == touched and record.snapshot_count == len(touched)
        assert {info.name for info in fs.snapshots if info.guid != guids[info.name]} == set(touched)
        assert record in audit.purges(fs.tree.store) and audit.under_way(fs.tree.store) is None
        after = states_of(fs)
        random_changes(fs.tree, rng, 60)
        assert {name: state for name, state in states_of(fs).items() if name} == {n: s for n, s in after.items() if n}
        assert_clean(fs.tree)
    for info in rng.sample(fs.snapshots.list(), len(fs.snapshots)):
        fs.snapshots.delete(info.name)
        assert_clean(fs.tree)


def test_a_power_cut_at_any_write(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """After it, the purge has not begun, or is carried to its end by the next opening."""
    monkeypatch.setattr(store_module, "GROUP_RECORD_COUNT_MAX", 60)
    rng = Random(seed)
    path, at, finished = "/d", 1, False
    outcomes = set()
    while not finished:
        cut = Fuse()
        kv, blocks = CrashingKV(cut), CrashingBlocks(cut)
        store = memory_store(kv=kv, blocks=blocks)
        fs = FileSystem(Tree(store))
        _build_small(fs, Random(seed))
        before = states_of(fs)
        guids = {info.guid for info in fs.snapshots}
        cut.arm(at)
        with suppress(PowerCut, CommitFailed):
            purge.purge(fs.tree.active, wanted(path), path.encode())
            finished = True
        store.abandon()
        again = FileSystem(Tree(Store(store.superblock, kv.crash(rng), blocks.crash(rng), store.clock)))
        assert audit.under_way(again.tree.store) is None
        if audit.purges(again.tree.store):
            assert_purged(again, before, path)
            assert len(guids & {info.guid for info in again.snapshots}) == 1
        else:
            assert states_of(again) == before and {info.guid for info in again.snapshots} == guids
            assert_clean(again.tree)
        outcomes.add(bool(audit.purges(again.tree.store)))
        at += 1
    assert outcomes == {True, False} and at > 5


def _build_small(fs: FileSystem, rng: Random) -> None:
    fs.write_bytes("/before", b"1")
    fs.snapshots.create("empty")
    fs.makedirs("/d/e")
    for index in range(4):
        fs.write_bytes(f"/d/e/{index}", rng.randbytes(9000))
    fs.link("/d/e/0", "/kept")
    fs.snapshots.create("a")
    fs.write_bytes("/d/e/1", rng.randbytes(20_000))
    fs.snapshots.create("b")
    fs.rename("/d/e/2", "/moved")
    fs.snapshots.create("c")
    fs.rmtree("/d")
    fs.sync()
