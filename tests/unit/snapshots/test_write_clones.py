"""Snapshots of clones that are written to: what happens in the origin's fileset afterwards does not show there."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from idemfs import FileSystem
from idemfs.ids import Ino
from idemfs.testing.builders import assert_clean, memory_store
from idemfs.vfs.sharing import copy_range
from idemfs.vfs.tree import Tree

BLOCK = 4096
SIZE = 2 * BLOCK + 100
TAILS = {
    "data": b"a" * SIZE,
    "a hole": b"a" * 2 * BLOCK + bytes(100),
}
GROWN = 4 * BLOCK


def truncate(inside: Tree, ino: Ino) -> None:
    inside.truncate(ino, GROWN)


def write_past_the_end(inside: Tree, ino: Ino) -> None:
    inside.write(ino, GROWN, b"x")


def allocate(inside: Tree, ino: Ino) -> None:
    inside.allocate(ino, 0, GROWN)


def share(inside: Tree, ino: Ino) -> None:
    source = inside.reader.lookup(inside.root, b"g")
    assert copy_range(inside, inside.reader, source, 0, ino, GROWN, BLOCK) == BLOCK


def cut_and_grow(inside: Tree, ino: Ino) -> None:
    inside.truncate(ino, SIZE - 50)
    inside.truncate(ino, GROWN)


def cut_a_block_and_grow(inside: Tree, ino: Ino) -> None:
    inside.truncate(ino, BLOCK)
    inside.truncate(ino, GROWN)


def grow_twice(inside: Tree, ino: Ino) -> None:
    truncate(inside, ino)
    inside.truncate(ino, SIZE - 10)
    inside.truncate(ino, 2 * GROWN)


WAYS = (truncate, write_past_the_end, allocate, share, cut_and_grow, cut_a_block_and_grow, grow_twice)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("tail", TAILS)
def test_what_is_appended_in_the_origins_fileset_does_not_show_in_a_file_that_grew(
    tail: str, way: Callable[[Tree, Ino], None]
) -> None:
    with FileSystem(Tree(memory_store())) as fs:
        fs.write_bytes("/f", TAILS[tail].rstrip(b"\0"))
        fs.truncate("/f", SIZE)
        fs.write_bytes("/g", b"g" * BLOCK)
        fs.snapshots.create("s")
        clone = fs.filesets.clone("s", "/c")
        for name in ("older", "t", "newer"):
            clone.snapshots.create(name)
        written = {"older": TAILS[tail], "newer": TAILS[tail]}
        with clone.snapshots.write("t") as opened:
            way(opened.tree, Ino(opened.stat("/f").st_ino))
        written["t"] = clone.snapshots["t"].read_bytes("/f")
        assert written["t"][SIZE:GROWN] == bytes(GROWN - SIZE)
        digests = {name: clone.snapshots.info(name).digest for name in written}
        with fs.open("/f", "ab") as file:
            file.write(b"later" * 10)
        fs.sync()
        fs.tree.active.resolved.clear()
        assert {name: clone.snapshots[name].read_bytes("/f") for name in written} == written
        assert fs.read_bytes("/c/f") == TAILS[tail]
        assert {name: clone.snapshots.info(name).digest for name in written} == digests
        assert_clean(fs.tree)


def test_growing_up_to_the_origins_end_takes_nothing_over() -> None:
    with FileSystem(Tree(memory_store())) as fs:
        fs.write_bytes("/f", b"a" * 2 * BLOCK)
        fs.truncate("/f", SIZE)
        fs.snapshots.create("s")
        clone = fs.filesets.clone("s", "/c")
        clone.snapshots.create("t")
        with clone.snapshots.write("t") as opened:
            ino = Ino(opened.stat("/f").st_ino)
            opened.tree.truncate(ino, BLOCK)
            opened.tree.truncate(ino, SIZE)
        fs.sync()
        assert clone.snapshots["t"].read_bytes("/f") == b"a" * BLOCK + bytes(SIZE - BLOCK)
        assert clone.info().snapshot_bytes < BLOCK
        assert_clean(fs.tree)
