"""Make the golden store of format 1 with several filesets, and the list of all that is in it.

Run from the project's root: ``.venv/bin/python -m tests.golden.make_filesets_1``. As with the other golden store, that
of a format that was released is never made again.
"""

from __future__ import annotations

from pathlib import Path

from idemfs.format.digest import to_text
from idemfs.snapshots import manage
from idemfs.testing.builders import file_store, make_directory, make_file
from idemfs.testing.clock import Simulated
from idemfs.vfs.tree import Tree
from tests.golden.make_format_1 import copy_small, listed, noise

HERE = Path(__file__).parent
STORE = HERE / "filesets_1"
LIST = HERE / "filesets_1.json"
BLOCK = 8 << 10


def build(path: str) -> Tree:
    """A fileset in the root fileset and one in that; one whose deletion was cut short; snapshots of two."""
    clock = Simulated(2)
    tree = Tree(file_store(path, block_size=BLOCK, clock=clock))
    tree.set_attributes(tree.root, mode=0o755, uid=0, gid=0)
    srv = make_directory(tree, tree.root, b"srv")
    home = tree.make_fileset(srv, b"home", "people – 1", 5, 6)
    gone = tree.make_fileset(srv, b"gone", "gone", 0, 0)
    at_home, at_gone = tree.reader.lookup(srv, b"home"), tree.reader.lookup(srv, b"gone")
    tree.make_fileset(at_home, b"deep", "deep", 0, 0, compression=2)
    deep = tree.reader.lookup(at_home, b"deep")
    make_file(tree, at_home, b"file", noise(BLOCK + 77, 1))
    make_file(tree, deep, b"text", b"a line that compresses well\n" * 500)
    make_file(tree, at_gone, b"rest", noise(BLOCK, 2))
    tree.set_quota(home, quota_bytes=1 << 20, quota_inodes=100, counts_snapshots=True)
    clock.advance(60)
    catalog = tree.store.catalog
    manage.create_all(tree.store, [(home.number, "monday"), (catalog.fileset_named("deep").number, "monday")])
    clock.advance(60)
    tree.write(tree.reader.lookup(at_home, b"file"), 0, b"overwritten")
    with tree.store.lock:
        # As when the power goes right after it has begun.
        tree.store.admit(10, 5000)
        tree._drop_junction(gone.junction)
        catalog.end_fileset(gone)
    tree.store.commit()
    return tree


def states(tree: Tree) -> dict[str, dict[str, object]]:
    """Every fileset as it is, and every snapshot of one."""
    found: dict[str, dict[str, object]] = {}
    for fileset in tree.store.catalog.listed_filesets():
        found[fileset.name] = {
            "number": fileset.number,
            "guid": fileset.guid.hex(),
            "digest": to_text(fileset.digest),
            "junction": int(fileset.junction),
            "quota": [fileset.quota_bytes, fileset.quota_inodes, fileset.flags, fileset.compression],
            "used": [fileset.sectors, fileset.record_bytes],
        }
        for snapshot in tree.store.catalog.snapshots(fileset.number):
            files = listed(tree.snapshot_reader(snapshot))
            found[f"{fileset.name}@{snapshot.name}"] = {"digest": to_text(snapshot.digest), "files": files}
    found[""] = {"files": listed(tree.reader)}
    return found


def main() -> None:
    copy_small(STORE, LIST, build, states)


if __name__ == "__main__":
    main()
