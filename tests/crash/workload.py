"""What is done to a store while its power may go: named steps, each of which says whether it is durable on return.

The steps of a workload are the same in every run: content follows from a seed, time from the simulated clock.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from random import Random
from typing import NamedTuple

from idemfs.ids import Ino
from idemfs.snapshots import bring_back, delete, manage, refresh
from idemfs.vfs.snapshot_tree import SnapshotTree
from idemfs.vfs.tree import RenameFlag, Tree
from tests.crash.disk import BLOCK_SIZE
from tests.crash.dump import Dump


class Step(NamedTuple):
    """One operation. ``durable``: once it has returned, no cut takes it or what came before it back."""

    name: str
    run: Callable[[], object]
    durable: bool = False


def changed_snapshot(step: str) -> str | None:
    """The snapshot that a step of this name changes."""
    return step.split("'")[1] if step.startswith(("inside", "refresh")) else None


def others(dumps: dict[str, Dump], step: str) -> dict[str, Dump]:
    """Those of snapshots that a step of this name has nothing to do with."""
    return {name: dump for name, dump in dumps.items() if name != changed_snapshot(step)}


class Hands:
    """Operations by path on one tree, whatever tree that is at the moment."""

    def __init__(self, tree: Tree, seed: int = 0) -> None:
        self.tree = tree
        self.rng = Random(seed)
        self._seed = seed
        self._step_count = 0

    def at(self, path: str) -> Ino:
        ino = self.tree.root
        for name in path.split("/"):
            ino = self.tree.reader.lookup(ino, name.encode()) if name else ino
        return ino

    def place(self, path: str) -> tuple[Ino, bytes]:
        parent, _, name = path.rpartition("/")
        return self.at(parent), name.encode()

    def make(self, path: str, mode: int = stat.S_IFREG | 0o644, data: bytes = b"") -> Ino:
        return self.tree.create(*self.place(path), mode, 1000, 1000, data=data)

    def mkdir(self, path: str) -> Ino:
        return self.make(path, stat.S_IFDIR | 0o755)

    def symlink(self, path: str, target: bytes) -> Ino:
        return self.make(path, stat.S_IFLNK | 0o777, target)

    def data(self, size: int) -> bytes:
        """Half of it random, so that compression saves something."""
        return b"".join(self.rng.randbytes(min(512, size - at)) + bytes(512) for at in range(0, size, 1024))[:size]

    def write(self, path: str, offset: int, size: int) -> None:
        """Make the file if it is missing, and write random bytes to it."""
        parent, name = self.place(path)
        self.write_open(self.tree.names.find(parent, name) or self.make(path), offset, size)

    def write_open(self, ino: Ino, offset: int, size: int) -> None:
        data = self.data(size)
        done = 0
        while done < size:
            done += self.tree.write(ino, offset + done, data[done:])

    def append(self, path: str, size: int) -> None:
        ino = self.at(path)
        data = self.data(size)
        while data:
            data = data[self.tree.append(ino, data)[1] :]

    def truncate(self, path: str, size: int) -> None:
        self.tree.truncate(self.at(path), size)

    def punch(self, path: str, offset: int, size: int) -> None:
        self.tree.punch(self.at(path), offset, size)

    def rename(self, old: str, new: str, flags: RenameFlag = RenameFlag.NONE) -> None:
        self.tree.rename(*self.place(old), *self.place(new), flags)

    def link(self, old: str, new: str) -> None:
        self.tree.link(self.at(old), *self.place(new))

    def unlink(self, path: str) -> None:
        self.tree.unlink(*self.place(path))

    def rmdir(self, path: str) -> None:
        self.tree.rmdir(*self.place(path))

    def set_xattr(self, path: str, name: bytes, size: int) -> None:
        self.tree.set_xattr(self.at(path), name, self.data(size))

    def remove_xattr(self, path: str, name: bytes) -> None:
        self.tree.remove_xattr(self.at(path), name)

    def chmod(self, path: str, mode: int) -> None:
        self.tree.set_attributes(self.at(path), mode=mode)

    def take(self, name: str) -> None:
        manage.create(self.tree.store, self.tree.fileset, name)

    def drop(self, name: str) -> None:
        delete.delete(self.tree.active, self.tree.store.catalog.by_name(self.tree.fileset, name))

    def restore(self, name: str, undo: str) -> None:
        bring_back.restore(self.tree.active, self.tree.store.catalog.by_name(self.tree.fileset, name), undo)

    def inside(self, name: str, method: str, *arguments: object) -> None:
        """Do something in a snapshot, and to nothing else."""
        tree = self.tree
        self.tree = SnapshotTree(tree, tree.store.catalog.by_name(tree.fileset, name))
        try:
            getattr(self, method)(*arguments)
        finally:
            self.tree.close()
            self.tree = tree

    def refresh(self, name: str, newer: str | None) -> None:
        catalog, fileset = self.tree.store.catalog, self.tree.fileset
        to = None if newer is None else catalog.by_name(fileset, newer)
        refresh.refresh(self.tree.active, catalog.by_name(fileset, name), to)

    def rollback(self) -> None:
        bring_back.rollback(self.tree.active, self.tree.fileset)

    def step(self, method: str, *arguments: object) -> Step:
        call = getattr(self, method)
        durable = method in ("take", "drop", "restore", "rollback", "refresh", "sync")
        self._step_count += 1
        seed = self._seed << 20 | self._step_count

        def run() -> None:
            # The same content when a step is done again.
            self.rng.seed(seed)
            call(*arguments)

        return Step(f"{method}{arguments}", run, durable)

    def sync(self) -> None:
        self.tree.sync()


def _begin(hands: Hands) -> Iterator[Step]:
    """Files of every kind, and a snapshot of them."""
    step = hands.step
    for name in ("a", "b", "b/c"):
        yield step("mkdir", name)
    yield step("write", "a/inline", 0, 700)
    yield step("write", "a/large", 0, 5 * BLOCK_SIZE + 3000)
    yield step("write", "a/tail", 0, BLOCK_SIZE + 1000)
    yield step("write", "b/sparse", 9 * BLOCK_SIZE + 17, 5000)
    yield step("write", "b/c/gone", 0, 2 * BLOCK_SIZE)
    yield step("symlink", "b/symlink", b"../a/large")
    yield step("link", "a/large", "b/c/linked")
    yield step("set_xattr", "a/large", b"user.one", 300)
    yield step("sync")
    yield step("write", "a/large", 2 * BLOCK_SIZE + 100, 200)
    yield step("write", "a/small", 0, 200)
    yield step("take", "first")


def _change(hands: Hands, turn: int) -> Iterator[Step]:
    """Change what ``_begin`` made in every way that the ditto rule knows."""
    step = hands.step
    yield step("append", "a/tail", 900)
    yield step("write", "a/large", BLOCK_SIZE, 2 * BLOCK_SIZE)
    yield step("write", "a/large", 4 * BLOCK_SIZE - 50, 100)
    yield step("append", "a/inline", 2000 if turn % 2 else 10)
    yield step("sync")
    yield step("punch", "a/large", BLOCK_SIZE // 2, 2 * BLOCK_SIZE)
    yield step("truncate", "a/tail", BLOCK_SIZE // 2 + turn)
    yield step("write", "b/sparse", 3 * BLOCK_SIZE, 6000)
    yield step("rename", "a/small", f"b/small{turn}")
    yield step("write", "a/small", 0, 3000 * turn)
    yield step("set_xattr", "a/large", b"user.one", 40 * turn)
    yield step("chmod", "a/inline", 0o600 + turn)
    yield step("sync")


def files(hands: Hands) -> Iterator[Step]:
    """Operations on files, between syncs."""
    step = hands.step
    yield from _begin(hands)
    yield from _change(hands, 1)
    yield step("unlink", "b/c/gone")
    yield step("unlink", "b/c/linked")
    yield step("rmdir", "b/c")
    yield step("sync")
    opened = hands.at("a/tail")
    yield Step("open a/tail", lambda: hands.tree.open(opened))
    yield step("unlink", "a/tail")
    yield step("write_open", opened, 100, 2 * BLOCK_SIZE)
    yield step("sync")
    yield step("take", "with orphan")
    yield Step("release", lambda: hands.tree.release(opened))
    yield step("sync")
    yield step("rename", "b/sparse", "a/large", RenameFlag.EXCHANGE)
    yield step("rename", "b/small1", "a/inline")
    yield step("remove_xattr", "b/sparse", b"user.one")
    yield step("truncate", "a/large", 0)
    yield step("truncate", "a/large", 20 * BLOCK_SIZE)
    yield step("write", "a/large", 0, 100)
    yield step("sync")
    yield step("write", "again", 0, 12 * BLOCK_SIZE)
    yield step("unlink", "again")
    yield step("write", "again", 0, 12 * BLOCK_SIZE)
    yield step("sync")


def snapshots(hands: Hands) -> Iterator[Step]:
    """Snapshots come, and go in any order."""
    step = hands.step
    yield from _begin(hands)
    for turn, name in ((1, "second"), (2, "third"), (3, "fourth"), (4, "fifth")):
        yield from _change(hands, turn)
        yield step("take", name)
    yield step("unlink", "b/c/gone")
    yield step("drop", "third")
    yield from _change(hands, 5)
    yield step("drop", "first")
    yield step("write", "b/c/gone", 0, 3 * BLOCK_SIZE)
    yield step("drop", "fifth")
    yield step("take", "sixth")
    yield from _change(hands, 6)
    yield step("drop", "second")
    yield step("drop", "fourth")
    yield step("drop", "sixth")
    yield step("truncate", "a/large", 0)
    yield step("sync")


def returns(hands: Hands) -> Iterator[Step]:
    """Back to snapshots: restores, old and new, their undoing, rollbacks."""
    step = hands.step
    yield from _begin(hands)
    yield from _change(hands, 1)
    yield step("unlink", "b/c/gone")
    yield step("take", "second")
    yield from _change(hands, 2)
    yield step("restore", "first", "undo 1")
    yield step("write", "a/large", 0, 2 * BLOCK_SIZE)
    yield step("append", "a/tail", 500)
    yield step("sync")
    yield step("restore", "undo 1", "undo 2")
    yield step("drop", "first")
    yield from _change(hands, 3)
    yield step("restore", "undo 2", "undo 3")
    yield from _change(hands, 4)
    yield step("mkdir", "later")
    yield step("write", "later/new", 0, 3 * BLOCK_SIZE)
    yield step("unlink", "a/inline")
    yield step("sync")
    yield step("append", "a/large", BLOCK_SIZE)
    yield step("rollback")
    yield step("write", "a/large", 100, 3 * BLOCK_SIZE)
    yield step("drop", "undo 3")
    yield step("rollback")
    yield step("drop", "undo 1")
    yield step("write", "a/large", 100, 3 * BLOCK_SIZE)
    yield step("sync")


def written(hands: Hands) -> Iterator[Step]:
    """Snapshots are written to and refreshed, between changes of the active file system."""
    step = hands.step
    yield from _begin(hands)
    yield from _change(hands, 1)
    yield step("take", "second")
    yield step("write", "a/tail", BLOCK_SIZE, 2 * BLOCK_SIZE)
    yield step("inside", "second", "write", "a/large", 100, 2 * BLOCK_SIZE)
    yield step("inside", "second", "append", "a/tail", 900)
    yield step("inside", "second", "write", "a/tail", 2 * BLOCK_SIZE, 100)
    yield step("inside", "second", "truncate", "b/sparse", 4 * BLOCK_SIZE)
    yield step("inside", "second", "unlink", "b/c/gone")
    yield step("inside", "second", "make", "inside")
    yield step("inside", "second", "write", "inside", 0, 3 * BLOCK_SIZE)
    yield step("sync")
    yield from _change(hands, 2)
    yield step("take", "third")
    yield step("unlink", "b/symlink")
    yield step("inside", "first", "rename", "a/large", "b/renamed")
    yield step("inside", "first", "punch", "b/renamed", 0, BLOCK_SIZE)
    yield step("inside", "second", "truncate", "inside", 9 * BLOCK_SIZE)
    yield step("inside", "third", "set_xattr", "a/large", b"user.two", 100)
    yield step("sync")
    yield step("refresh", "first", "third")
    yield step("write", "a/large", 0, 3 * BLOCK_SIZE)
    yield step("take", "fourth")
    yield step("refresh", "second", "fourth")
    yield step("inside", "second", "write", "a/large", BLOCK_SIZE, 2 * BLOCK_SIZE)
    yield step("drop", "third")
    yield step("refresh", "fourth", None)
    yield from _change(hands, 3)
    yield step("drop", "fourth")
    yield step("restore", "second", "undo")
    yield step("drop", "first")
    yield step("sync")


WORKLOADS: dict[str, Callable[[Hands], Iterator[Step]]] = {
    "files": files,
    "snapshots": snapshots,
    "returns": returns,
    "written": written,
}
