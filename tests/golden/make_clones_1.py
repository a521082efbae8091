"""Make the golden store of format 1 with clones, and the list of all that is in it.

Run from the project's root: ``.venv/bin/python -m tests.golden.make_clones_1``. As with the other golden stores, that
of a format that was released is never made again.
"""

from __future__ import annotations

from pathlib import Path

from idemfs.format.tables import PROMOTING
from idemfs.ids import ROOT_FILESET
from idemfs.snapshots import delete, manage
from idemfs.testing.builders import file_store, make_directory, make_file
from idemfs.testing.clock import Simulated
from idemfs.vfs.tree import Tree
from tests.golden.make_filesets_1 import states as states_of_filesets
from tests.golden.make_format_1 import copy_small, noise

HERE = Path(__file__).parent
STORE = HERE / "clones_1"
LIST = HERE / "clones_1.json"
BLOCK = 4 << 10


def build(path: str) -> Tree:
    """A clone with changes and a snapshot, whose origin was deleted; a clone of that; one that is being promoted."""
    clock = Simulated(3)
    tree = Tree(file_store(path, block_size=BLOCK, clock=clock))
    tree.set_attributes(tree.root, mode=0o755, uid=0, gid=0)
    directory = make_directory(tree, tree.root, b"d")
    make_file(tree, directory, b"small", b"in the inode")
    make_file(tree, directory, b"gone", noise(BLOCK + 5, 1))
    long = make_file(tree, tree.root, b"long", noise(3 * BLOCK + 100, 2))
    clock.advance(60)
    origin = manage.create(tree.store, ROOT_FILESET, "monday")
    tree.append(long, noise(50, 3))
    tree.sync()
    clone = tree.clone_snapshot(origin, tree.root, b"try", "try", 0, 0)
    tree.clone_snapshot(origin, tree.root, b"half", "half", 0, 0)
    at = tree.reader.lookup(tree.root, b"try")
    tree.write(tree.reader.lookup(at, b"long"), BLOCK, b"changed")
    tree.unlink(tree.reader.lookup(at, b"d"), b"gone")
    tree.sync()
    clock.advance(60)
    mine = manage.create(tree.store, clone.number, "mine")
    tree.truncate(tree.reader.lookup(at, b"long"), 10)
    tree.clone_snapshot(mine, at, b"again", "again", 0, 0)
    tree.sync()
    delete.delete(tree.active, origin)
    with tree.store.lock:
        # As when the power goes right after it has begun.
        tree.store.admit(2, 500)
        half = tree.store.catalog.fileset_named("half")
        assert half.origin is not None
        half.origin.state = PROMOTING
        tree.store.catalog.changed_fileset(half.number)
    tree.store.commit()
    return tree


def states(tree: Tree) -> dict[str, dict[str, object]]:
    """Every fileset as it is, with its origin, and every snapshot of one."""
    found = states_of_filesets(tree)
    for fileset in tree.store.catalog.listed_filesets():
        at = fileset.origin
        found[fileset.name]["origin"] = None if at is None else [at.fileset, at.snapshot, at.next_number, at.state]
    return found


def main() -> None:
    copy_small(STORE, LIST, build, states)


if __name__ == "__main__":
    main()
