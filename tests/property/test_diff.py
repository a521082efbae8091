"""A difference says what a comparison of both trees, name by name and byte by byte, finds: no less, and no more."""

from __future__ import annotations

from itertools import combinations
from random import Random

import pytest

from idemfs import Change, ChangeKind, FileSystem
from idemfs.snapshots import diff as diff_module
from idemfs.testing.builders import assert_clean, memory_tree, random_changes
from tests.property.walked import Place, Seen, Walked, walk

BLOCK = 4096


@pytest.mark.parametrize("number", range(6))
def test_against_walked_trees(number: int, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diff_module, "_PAGE_INODE_COUNT", 11)
    rng = Random(seed * 1000 + number)
    fs = FileSystem(memory_tree(compression="zstd" if number % 2 else "none"))
    states: dict[str | None, Walked] = {}
    for index in range(5):
        random_changes(fs.tree, rng, 150 if index == 0 else rng.choice((5, 40, 120)))
        if index == 3 and number % 3 == 0:
            fs.snapshots.restore("s1")
        fs.snapshots.create(f"s{index}")
        states[f"s{index}"] = walk(fs.snapshots[f"s{index}"])
    random_changes(fs.tree, rng, 60)
    states[None] = walk(fs)
    fs.snapshots.delete("s2")
    del states["s2"]
    count = 0
    for base, target in combinations(states, 2):
        assert base is not None
        told = list(fs.snapshots.diff(base, target))
        compare(told, states[base], states[target])
        count += len(told)
    assert count > 100
    assert_clean(fs.tree)


def compare(told: list[Change], old: Walked, new: Walked) -> None:
    _compare_names(told, old, new)
    said = {}
    for change in told:
        if change.kind in (ChangeKind.MODIFIED, ChangeKind.METADATA, ChangeKind.RENAMED) and change.what:
            if change.what != ("replaced",):
                number = new.paths[change.new_path or change.path]
                assert number not in said, change
                said[number] = change
    for number in old.inodes.keys() & new.inodes.keys():
        what = differing(old.inodes[number], new.inodes[number], _entries(old, number) != _entries(new, number))
        change_of = said.pop(number, None)
        assert (change_of.what if change_of else ()) == what, (number, change_of)
        if change_of is not None:
            compare_content(change_of, old.inodes[number].content, new.inodes[number].content)
            assert change_of.kind is not ChangeKind.MODIFIED or {"content", "entries"} & set(what), change_of
            assert change_of.kind is not ChangeKind.METADATA or not {"content", "entries"} & set(what), change_of
    assert not said


def _entries(state: Walked, number: int) -> dict[Place, int]:
    if not state.inodes[number].is_dir:
        return {}
    return {place: child for place, (child, _) in state.places.items() if place[0] == number}


def _compare_names(told: list[Change], old: Walked, new: Walked) -> None:
    """Each entry that went or came is told once; those below a directory that was renamed stayed where they were."""
    gone = {path: number for place, (number, path) in old.places.items() if new.places.get(place, (0,))[0] != number}
    come = {path: number for place, (number, path) in new.places.items() if old.places.get(place, (0,))[0] != number}
    for change in told:
        match change.kind:
            case ChangeKind.RENAMED:
                assert gone.pop(change.path) == come.pop(change.new_path or ""), change
            case ChangeKind.REMOVED:
                number = gone.pop(change.path)
                assert number not in new.inodes or change.what == ("link",), change
                assert change.size is None
            case ChangeKind.ADDED:
                number = come.pop(change.path)
                assert number not in old.inodes or change.what == ("link",), change
            case ChangeKind.MODIFIED if change.what == ("replaced",):
                number = come.pop(change.path)
                assert number not in old.inodes, change
                gone = {path: each for path, each in gone.items() if not _is_same_place(path, change.path, old, new)}
            case _:
                assert old.inodes.get(new.paths[change.path]), change
    assert (gone, come) == ({}, {})


def _is_same_place(old_path: str, new_path: str, old: Walked, new: Walked) -> bool:
    """Whether two paths are one name in one directory, which may have been renamed."""
    (one,) = [place for place, (_, path) in old.places.items() if path == old_path]
    (other,) = [place for place, (_, path) in new.places.items() if path == new_path]
    return one == other


def differing(old: Seen, new: Seen, entries: bool) -> tuple[str, ...]:
    found = []
    if not old.is_dir and old.content != new.content:
        found.append("content")
    if entries:
        found.append("entries")
    is_told = bool(found)
    found += [name for name in ("mode", "owner", "device") if getattr(old, name) != getattr(new, name)]
    if not is_told and old.mtime != new.mtime:
        found.append("times")
    if old.xattrs != new.xattrs:
        found.append("xattrs")
    return tuple(found)


def compare_content(change: Change, old: object, new: object) -> None:
    """Every byte that differs lies in a range; in every block of a range some byte differs."""
    if not (isinstance(old, bytes) and isinstance(new, bytes)):
        assert change.ranges == ()
        return
    assert (change.old_size, change.size) == (len(old), len(new))
    end, patched = -1, bytearray(old[: len(new)].ljust(len(new), b"\0"))
    common = min(len(old), len(new))
    for first, last in change.ranges:
        assert end < first < last <= len(new), change
        end = last
        patched[first:last] = new[first:last]
        for start in range(first, min(last, common), BLOCK):
            assert start % BLOCK == 0 and old[start:common][:BLOCK] != new[start:common][:BLOCK], (change, start)
    assert bytes(patched) == new
    assert change.changed_bytes == sum(last - first for first, last in change.ranges)
    assert len(new) <= len(old) or change.ranges[-1][1] == len(new)
