"""Make the golden streams of version 1, and the list of all that is in them.

Run from the project's root: ``.venv/bin/python -m tests.golden.make_stream_1``. Streams of a version that was
released are never made again: that old ones can be read is what they are for.
"""

from __future__ import annotations

import json
import stat
from pathlib import Path
from random import Random

from idemfs.format import role
from idemfs.format.role import Role, RoleRecord
from idemfs.ids import ROOT_FILESET
from idemfs.replication.send import Frames
from idemfs.snapshots import manage
from idemfs.testing.builders import make_directory, make_file, memory_store
from idemfs.testing.clock import Simulated
from idemfs.vfs.tree import RenameFlag, Tree
from tests.golden.stream_reader import Row, rows

HERE = Path(__file__).parent
NAMES = ("stream_1_full", "stream_1_changes", "stream_1_compressed")
"""From nothing to ``monday``; from there to ``tuesday``, plain and compressed."""
BLOCK = 8 << 10


def build() -> Tree:
    """Two snapshots between which every kind of record changes; the same on every machine."""
    clock = Simulated(1)
    store = memory_store(block_size=BLOCK, clock=clock)
    store.admit(1, 100)
    store.small.put(role.KEY, role.pack(RoleRecord(Role.PRIMARY, 7, 7)))
    tree = Tree(store)
    root = tree.root
    tree.set_attributes(root, mode=0o755, uid=0, gid=0)
    docs = make_directory(tree, root, b"docs")
    log = make_file(tree, docs, b"log", b"line\n" * 4000)
    holes = make_file(tree, root, b"holes", Random(1).randbytes(3 * BLOCK))
    make_file(tree, root, b"small", b"inline")
    make_file(tree, root, b"goes", b"away " * 5000)
    tree.create(root, b"fifo", stat.S_IFIFO | 0o600, 1, 2)
    tree.create(root, b"null", stat.S_IFCHR | 0o666, 0, 0, rdev=0x103)
    tree.create(root, b"to docs", stat.S_IFLNK | 0o777, 0, 0, data=b"docs/log")
    tree.link(log, root, b"log too")
    tree.set_xattr(log, b"user.kind", b"text")
    tree.set_xattr(log, b"user.empty", b"")
    clock.advance(3600)
    manage.create(store, ROOT_FILESET, "monday")
    clock.advance(1.000000001)
    tree.append(log, b"last line\n" * 2000)
    tree.punch(holes, BLOCK, BLOCK)
    tree.truncate(holes, 600 * BLOCK)
    tree.write(holes, 599 * BLOCK, b"far")
    tree.unlink(root, b"goes")
    tree.unlink(root, b"log too")
    tree.link(holes, docs, b"\xff\n")
    tree.remove_xattr(log, b"user.kind")
    tree.set_xattr(docs, b"user.new", bytes(range(256)))
    tree.rename(root, b"small", root, b"fifo", RenameFlag.EXCHANGE)
    tree.set_attributes(docs, uid=1000, mtime_ns=-1)
    make_file(tree, make_directory(tree, docs, b"new"), b"in it", b"n" * BLOCK)
    clock.advance(60)
    manage.create(store, ROOT_FILESET, "tuesday: späť")
    make_file(tree, root, b"later", b"not in any stream")
    return tree


def streams(tree: Tree) -> dict[str, bytes]:
    monday, tuesday = tree.store.catalog.snapshots(ROOT_FILESET)
    made = (
        Frames(tree, None, monday),
        Frames(tree, monday, tuesday),
        Frames(tree, monday, tuesday, compress=True),
    )
    return {name: b"".join(frames) for name, frames in zip(NAMES, made, strict=True)}


def listed(stream: bytes) -> list[Row]:
    return list(rows(stream))


def main() -> None:
    made = streams(build())
    for name, stream in made.items():
        (HERE / name).write_bytes(stream)
    lists = [
        f'"{name}": [\n' + ",\n".join(json.dumps(row) for row in listed(stream)) + "\n]"
        for name, stream in made.items()
    ]
    (HERE / "stream_1.json").write_text("{\n" + ",\n".join(lists) + "\n}\n")


if __name__ == "__main__":
    main()
