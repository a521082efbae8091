"""What a restore of a file or subtree makes of the model. It is said here by names and sets, not by records."""

from __future__ import annotations

import errno
from dataclasses import replace

from tests.property.model import ROOT, Model, Node, State, back_references, refuse

Refs = set[tuple[int, bytes]]


def below(state: State, root: int) -> set[int]:
    """The inodes of a subtree."""
    found, waiting = {root}, [root]
    while waiting:
        for child in state[waiting.pop()].entries.values():
            if child not in found:
                found.add(child)
                waiting.append(child)
    return found


def directory_of(model: Model, then: State, parent: int) -> int:
    """The directory that now has the path that ``parent`` had. Raises ``OSError``."""
    path: list[bytes] = []
    while parent != ROOT:
        above = then[parent].parent
        path.append(next(name for name, child in then[above].entries.items() if child == parent))
        parent = above
    at = ROOT
    for name in reversed(path):
        child = model.active[at].entries.get(name)
        if child is None or not model.active[child].is_dir:
            raise refuse(errno.ENOENT)
        at = child
    return at


def is_same(node: Node, other: Node) -> bool:
    fields = ("mode", "uid", "gid", "rdev", "mtime", "content", "xattrs")
    return all(getattr(node, field) == getattr(other, field) for field in fields)


def restore(model: Model, then: State, meant: tuple[int, bytes], to: tuple[int, bytes], aside: bool, now: int) -> None:
    """What has the name ``meant`` in state ``then`` gets the name ``to``, where with ``aside`` nothing is."""
    active = model.active
    place, label = to
    existing = active[place].entries.get(label)
    root = then[meant[0]].entries[meant[1]]
    inside = below(then, root)
    present = set() if existing is None else below(active, existing)
    inner = _inner(then, inside, root, meant)
    inner_now = _inner(active, present, existing, to)
    refs_then, refs_now = back_references(then), back_references(active)
    same: set[int] = set()
    linked: set[int] = set()
    for number in inside:
        node = active.get(number)
        if node is None or (not node.nlink and not aside):
            same.add(number)
        elif aside:
            continue
        elif number in present and not refs_now[number] - inner_now[number]:
            same.add(number)
        elif not node.is_dir and is_same(node, then[number]):
            outside = refs_now[number] - inner_now.get(number, set())
            if outside & (refs_then[number] - inner[number]):
                linked.add(number)
    numbers = {number: number for number in same | linked}
    for number in sorted(inside - same - linked):
        numbers[number] = model.next_number
        model.next_number += 1
    was_dir = existing is not None and active[existing].is_dir
    for number in sorted(inside):
        refs = {to if number == root else (numbers[directory], name) for directory, name in inner[number]}
        if number in linked:
            refs |= refs_now[number] - inner_now.get(number, set())
            if refs != refs_now[number]:
                model.change(number, nlink=len(refs), ctime=now)
        else:
            active[numbers[number]] = _grafted(then[number], numbers, refs)
    for number in present - same - linked:
        _leave(model, number, refs_now[number] - inner_now[number], now)
    if numbers[root] != existing:
        directory = active[place]
        nlink = directory.nlink + then[root].is_dir - was_dir
        entries = {**directory.entries, label: numbers[root]}
        model.change(place, entries=entries, nlink=nlink, mtime=now, ctime=now)


def _inner(state: State, inside: set[int], root: int | None, name: tuple[int, bytes]) -> dict[int, Refs]:
    """The names that a subtree's inodes have in it; its root has one."""
    refs = back_references(state)
    found = {number: {ref for ref in refs[number] if ref[0] in inside} for number in inside}
    if root is not None:
        found[root] = {name}
    return found


def _grafted(node: Node, numbers: dict[int, int], refs: Refs) -> Node:
    if node.is_dir:
        entries = {name: numbers[child] for name, child in node.entries.items()}
        return replace(node, entries=entries, parent=next(iter(refs))[0])
    return replace(node, nlink=len(refs))


def _leave(model: Model, number: int, outside: Refs, now: int) -> None:
    """The inode loses its names in the subtree."""
    if outside and not model.active[number].is_dir:
        model.change(number, nlink=len(outside), ctime=now)
    elif number in model.handles:
        model.change(number, nlink=0, entries={}, ctime=now)
    else:
        del model.active[number]
