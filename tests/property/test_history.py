"""The versions of a file are those that reading every state finds, each once."""

from __future__ import annotations

from random import Random

import pytest

from idemfs import FileSystem, Version
from idemfs.testing.builders import memory_tree, random_changes
from tests.property.walked import Seen, Walked, walk


@pytest.mark.parametrize("number", range(4))
def test_against_walked_trees(number: int, seed: int) -> None:
    rng = Random(seed * 1000 + number)
    fs = FileSystem(memory_tree())
    states: dict[str | None, Walked] = {}
    for index in range(7):
        random_changes(fs.tree, rng, rng.choice((3, 30, 100)))
        if index == 4 and number % 2:
            fs.snapshots.restore("s1")
            states["before-restore-s1"] = walk(fs.snapshots["before-restore-s1"])
        fs.snapshots.create(f"s{index}")
        states[f"s{index}"] = walk(fs.snapshots[f"s{index}"])
    random_changes(fs.tree, rng, 30)
    states[None] = walk(fs)
    fs.snapshots.delete("s3")
    del states["s3"]
    paths = sorted({path for state in states.values() for path in state.paths})
    for path in [*rng.sample(paths, min(len(paths), 60)), "/"]:
        compare(fs.snapshots.find(path), path, states)
    with pytest.raises(FileNotFoundError):
        fs.snapshots.find("/nobody/ever/made/this")


def compare(found: list[Version], path: str, states: dict[str | None, Walked]) -> None:
    numbers = {state.paths[path] for state in states.values() if path in state.paths}
    wanted: dict[tuple[int, Seen], list[str | None]] = {}
    for name, state in states.items():
        for number in numbers & state.inodes.keys():
            wanted.setdefault((number, state.inodes[number]), []).append(name)
    order = [name for name in states if name is not None]
    told = []
    for version in found:
        names: list[str | None] = []
        for first, last in version.seen_by:
            names += order[order.index(first) : order.index(last) + 1]
        assert version.snapshot_count == len(names)
        if version.is_active:
            names.append(None)
        newest = states[names[-1]]
        assert newest.paths[version.path] == version.number
        seen = newest.inodes[version.number]
        assert (version.mode, version.mtime_ns) == (seen.mode, seen.mtime)
        told.append(((version.number, seen), names))
    assert len(found) == len(wanted) and dict(told) == wanted


def test_a_file_that_is_saved_anew_and_one_that_is_renamed() -> None:
    fs = FileSystem(memory_tree())
    fs.write_bytes("/log", b"1")
    fs.snapshots.create("a")
    fs.snapshots.create("b")
    fs.rename("/log", "/log.1")
    fs.write_bytes("/log", b"22")
    fs.snapshots.create("c")
    fs.unlink("/log")
    told = [(each.path, each.size, each.seen_by, each.is_active) for each in fs.snapshots.find("/log")]
    assert told == [
        ("/log", 1, (("a", "b"),), False),
        ("/log.1", 1, (("c", "c"),), True),
        ("/log", 2, (("c", "c"),), False),
    ]
    assert {each.path for each in fs.snapshots.find("/log.1")} == {"/log", "/log.1"}


def test_in_a_fileset() -> None:
    fs = FileSystem(memory_tree())
    fs.makedirs("/home")
    inner = fs.filesets.create("/home/ada", "ada")
    fs.write_bytes("/home/ada/f", b"1")
    fs.snapshots.create("ada@x")
    fs.write_bytes("/home/ada/f", b"22")
    for found in (fs.snapshots.find("/home/ada/f"), inner.snapshots.find("f")):
        assert [(each.path, each.size, each.seen_by) for each in found] == [("/f", 1, (("x", "x"),)), ("/f", 2, ())]
