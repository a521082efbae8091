"""A small tree of files as a plain dictionary, read from an idemfs tree or changed together with one.

A state maps a path without its first ``/`` to a node, or to None for a directory; directories stand at the top alone.
Hard links are paths whose nodes have one number, the inode's in its fileset. Where filesets appear is left out.

Threads: one.
"""

from __future__ import annotations

from random import Random
from typing import NamedTuple

from idemfs.api.contents import Writable
from idemfs.api.view import TreeView
from idemfs.errors import QuotaExceeded
from idemfs.ids import Ino

NUMBER_MASK = (1 << 48) - 1
JUNCTIONS = ("n", "c")
"""How the names begin under which filesets appear."""
SIZES = (0, 10, 1500, 2000, 4096, 4097, 9000, 30_000)
XATTRS = ("user.a", "user.b")


class Node(NamedTuple):
    """A file."""

    number: int
    content: bytes
    xattrs: frozenset[tuple[str, bytes]] = frozenset()


State = dict[str, Node | None]


def read(view: TreeView, base: str = "") -> State:
    """Everything below ``base``."""
    found: State = {}
    for entry in view.scandir(base or "/"):
        if entry.name.startswith(JUNCTIONS):
            continue
        if not entry.is_dir():
            found[entry.name] = read_node(view, f"{base}/{entry.name}")
            continue
        found[entry.name] = None
        for inner in view.scandir(f"{base}/{entry.name}"):
            path = f"{entry.name}/{inner.name}"
            found[path] = read_node(view, f"{base}/{path}")
    return found


def read_node(view: TreeView, path: str) -> Node:
    xattrs = frozenset((name, view.getxattr(path, name)) for name in view.listxattr(path))
    return Node(number_at(view, path), view.read_bytes(path), xattrs)


def number_at(view: TreeView, path: str) -> int:
    return view.stat(path).st_ino & NUMBER_MASK


def differences(found: State, wanted: State) -> str:
    """What is wrong, in a line."""
    wrong = []
    for path in sorted(found.keys() | wanted.keys()):
        if path not in found or path not in wanted:
            wrong.append(f"{path}: {'missing' if path in wanted else 'should not be there'}")
        elif found[path] != wanted[path]:
            wrong.append(f"{path}: {_node_difference(found[path], wanted[path])}")
    return "; ".join(wrong)


def _node_difference(found: Node | None, wanted: Node | None) -> str:
    if found is None or wanted is None:
        return "a directory is none"
    if found.number != wanted.number:
        return f"number {found.number}, should be {wanted.number}"
    if found.xattrs != wanted.xattrs:
        return "extended attributes"
    pairs = zip(found.content, wanted.content, strict=False)
    at = next((at for at, (one, other) in enumerate(pairs) if one != other), None)
    return f"{len(found.content)} bytes, should be {len(wanted.content)}; the first that differs is {at}"


def below(state: State, path: str) -> list[str]:
    """The path itself, and what is in it."""
    return [each for each in state if each == path or each.startswith(path + "/")]


def without(state: State, path: str) -> State:
    gone = set(below(state, path))
    return {each: node for each, node in state.items() if each not in gone}


def put(state: State, path: str, node: Node) -> None:
    """All names of the file show it."""
    state[path] = node
    for each, old in state.items():
        if old is not None and old.number == node.number:
            state[each] = node


class Editor:
    """Changes a tree and a state in one way. ``writable`` may be a snapshot that is open for writing."""

    def __init__(self, rng: Random, writable: Writable, base: str, state: State) -> None:
        self.rng = rng
        self.writable = writable
        self.base = base
        self.state = state

    def edit(self) -> None:
        """One random change. A quota may refuse it; what it did until then stays."""
        steps = {
            self.write: 14,
            self.overwrite: 12,
            self.truncate: 8,
            self.punch: 3,
            self.unlink: 7,
            self.rename: 5,
            self.link: 4,
            self.xattr: 4,
            self.mkdir: 3,
            self.rmdir: 1,
        }
        before = dict(self.state)
        step = self.rng.choices(list(steps), list(steps.values()))[0]
        try:
            step()
        except QuotaExceeded:
            found = read(self.writable, self.base)
            changed = {path for path in found.keys() | before.keys() if found.get(path) != before.get(path)}
            numbers = {node.number for path in changed for node in (found.get(path), before.get(path)) if node}
            assert len(numbers) <= 1, "what a quota refused changed several files"
            self.state.clear()
            self.state.update(found)

    def files(self) -> list[str]:
        return sorted(path for path, node in self.state.items() if node is not None)

    def directories(self) -> list[str]:
        return sorted(path for path, node in self.state.items() if node is None)

    def new_path(self) -> str:
        """Of a file that is there, or could be."""
        name = f"f{self.rng.randrange(5)}"
        return self.rng.choice([name, name, *(f"{each}/{name}" for each in self.directories())])

    def pick(self) -> tuple[str, Node, Ino] | None:
        files = self.files()
        if not files:
            return None
        path = self.rng.choice(files)
        node = self.state[path]
        assert node is not None
        return path, node, Ino(self.writable.stat(self.at(path)).st_ino)

    def at(self, path: str) -> str:
        return f"{self.base}/{path}"

    def write(self) -> None:
        """A whole file."""
        path, data = self.new_path(), self.rng.randbytes(self.rng.choice(SIZES))
        old = self.state.get(path)
        self.writable.write_bytes(self.at(path), data)
        number = number_at(self.writable, self.at(path))
        assert old is None or old.number == number
        put(self.state, path, Node(number, data, old.xattrs if old else frozenset()))

    def overwrite(self) -> None:
        """A part of a file, or past its end."""
        picked = self.pick()
        if picked is not None:
            path, node, ino = picked
            size = len(node.content)
            start = self.rng.choice((0, size, size, size // 2, 4096, 12_288, max(0, size - 1), size + 5000))
            if self.rng.random() < 0.02:
                # In the second indirect block.
                start = 512 * 4096 + 100
            data = self.rng.randbytes(self.rng.choice((1, 100, 4096, 5000)))
            self.writable.tree.write(ino, start, data)
            old = node.content + bytes(max(0, start - size))
            put(self.state, path, node._replace(content=old[:start] + data + old[start + len(data) :]))

    def truncate(self) -> None:
        picked = self.pick()
        if picked is not None:
            path, node, ino = picked
            size = len(node.content)
            size = self.rng.choice((0, size // 2, 4096, 8192, max(0, size - 1), size + 3000))
            self.writable.tree.truncate(ino, size)
            content = node.content[:size]
            put(self.state, path, node._replace(content=content + bytes(size - len(content))))

    def punch(self) -> None:
        picked = self.pick()
        if picked is not None:
            path, node, ino = picked
            start = self.rng.choice((0, 4096, 5000))
            end = min(len(node.content), start + self.rng.choice((700, 4096, 10_000)))
            if start < end:
                self.writable.tree.punch(ino, start, end - start)
                content = node.content[:start] + bytes(end - start) + node.content[end:]
                put(self.state, path, node._replace(content=content))

    def unlink(self) -> None:
        files = self.files()
        if files:
            path = self.rng.choice(files)
            self.writable.unlink(self.at(path))
            del self.state[path]

    def rename(self) -> None:
        paths = sorted(self.state)
        if not paths:
            return
        path = self.rng.choice(paths)
        node = self.state[path]
        if node is None:
            new = f"d{self.rng.randrange(3)}"
            if new not in self.state:
                self.writable.rename(self.at(path), self.at(new))
                for each in below(self.state, path):
                    self.state[new + each.removeprefix(path)] = self.state.pop(each)
            return
        new = self.new_path()
        there = self.state.get(new)
        self.writable.rename(self.at(path), self.at(new))
        if there is None or there.number != node.number:
            del self.state[path]
            self.state[new] = node

    def link(self) -> None:
        picked, new = self.pick(), self.new_path()
        if picked is not None and new not in self.state:
            path, node, _ = picked
            self.writable.link(self.at(path), self.at(new))
            self.state[new] = node

    def xattr(self) -> None:
        picked = self.pick()
        if picked is not None:
            path, node, _ = picked
            name, xattrs = self.rng.choice(XATTRS), dict(node.xattrs)
            if name in xattrs and self.rng.random() < 0.5:
                self.writable.removexattr(self.at(path), name)
                del xattrs[name]
            else:
                xattrs[name] = self.rng.randbytes(self.rng.choice((0, 5, 900)))
                self.writable.setxattr(self.at(path), name, xattrs[name])
            put(self.state, path, node._replace(xattrs=frozenset(xattrs.items())))

    def mkdir(self) -> None:
        path = f"d{self.rng.randrange(3)}"
        if path not in self.state:
            self.writable.mkdir(self.at(path))
            self.state[path] = None

    def rmdir(self) -> None:
        empty = [path for path in self.directories() if below(self.state, path) == [path]]
        if empty:
            path = self.rng.choice(empty)
            self.writable.rmdir(self.at(path))
            del self.state[path]
