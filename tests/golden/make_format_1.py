"""Make the golden store of format 1, and the list of all that is in it.

Run from the project's root: ``.venv/bin/python -m tests.golden.make_format_1``. The store of a format that was
released is never made again: that old stores can be read is what it is for.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random

import lmdb

from idemfs.format import address as addresses
from idemfs.format import keys
from idemfs.format.digest import to_text
from idemfs.format.indirect import unpack, unpack_shadow
from idemfs.ids import ROOT_FILESET, Ino
from idemfs.limits import INDIRECT_ENTRY_COUNT, SECTOR_SIZE
from idemfs.snapshots import bring_back, delete, manage
from idemfs.store.store import Store
from idemfs.testing.builders import content_of, file_store, make_directory, make_file
from idemfs.testing.clock import Simulated
from idemfs.vfs.reader import Reader
from idemfs.vfs.tree import Tree

HERE = Path(__file__).parent
STORE = HERE / "format_1"
LIST = HERE / "format_1.json"
BLOCK = 8 << 10


def noise(size: int, seed: int) -> bytes:
    """Bytes that do not compress."""
    return Random(seed).randbytes(size)


def build(path: str) -> Tree:
    """Every kind of record, and every case of the ditto rule; the same on every machine."""
    clock = Simulated(1)
    tree = Tree(file_store(path, block_size=BLOCK, compression="zstd", clock=clock))
    root = tree.root
    tree.set_attributes(root, mode=0o755, uid=0, gid=0)
    first_files(tree)
    clock.advance(3600)
    manage.create(tree.store, ROOT_FILESET, "monday")
    clock.advance(1.000000001)
    changed(tree)
    manage.create(tree.store, ROOT_FILESET, "tuesday")
    clock.advance(60)
    docs = tree.reader.lookup(root, b"docs")
    tree.write(tree.reader.lookup(docs, b"log"), 0, b"L" * 10)
    tree.unlink(docs, b"hole")
    manage.create(tree.store, ROOT_FILESET, "wednesday: späť")
    # Addresses are shared from here on, and handed down by the deletion.
    bring_back.restore(tree.active, tree.store.catalog.by_name(ROOT_FILESET, "monday"), "undo")
    delete.delete(tree.active, tree.store.catalog.by_name(ROOT_FILESET, "tuesday"))
    clock.advance(60)
    make_file(tree, root, b"last", noise(100, 9))
    docs = tree.reader.lookup(root, b"docs")
    tree.create_dynamic_link(docs, b"current", tree.reader.lookup(docs, b"log"), 5, 6)
    manage.hold(tree.store, tree.store.catalog.by_name(ROOT_FILESET, "monday"), "golden")
    orphan = make_file(tree, root, b"open and gone", noise(3000, 10))
    tree.open(orphan)
    tree.unlink(root, b"open and gone")
    tree.store.commit()
    return tree


def first_files(tree: Tree) -> None:
    root = tree.root
    docs = make_directory(tree, root, b"docs")
    make_file(tree, root, b"empty")
    make_file(tree, root, b"inline", b"small content\n", 0o600)
    make_file(tree, root, b"noise", noise(2 * BLOCK + 77, 1))
    make_file(tree, root, b"text", b"a line that compresses well\n" * 500)
    make_file(tree, docs, b"log", b"first line\n" * 300)
    hole = make_file(tree, docs, b"hole")
    tree.write(hole, (INDIRECT_ENTRY_COUNT + 3) * BLOCK + 5, b"far away")
    tree.truncate(hole, (INDIRECT_ENTRY_COUNT + 9) * BLOCK)
    make_directory(tree, docs, b"sub")
    tree.create(root, b"link", stat.S_IFLNK | 0o777, 1000, 100, data=b"docs/log")
    tree.create(root, b"pipe", stat.S_IFIFO | 0o644, 0, 0)
    tree.create(root, b"null", stat.S_IFCHR | 0o666, 0, 0, rdev=os.makedev(1, 3))
    tree.create(root, b"socket", stat.S_IFSOCK | 0o700, 5, 6)
    tree.create(root, b"\xff not UTF-8 " + b"x" * 243, stat.S_IFREG | 0o4755, 1 << 31, 7, data=b"\0")
    named = make_file(tree, root, b"name 1", b"three names")
    tree.link(named, docs, b"name 2")
    tree.link(named, docs, b"name 3")
    tree.set_xattr(named, b"user.note", b"value")
    tree.set_xattr(docs, b"user.empty", b"")
    tree.set_attributes(docs, atime_ns=-1, mtime_ns=-123456789)


def changed(tree: Tree) -> None:
    root = tree.root
    docs = tree.reader.lookup(root, b"docs")
    noise_file = tree.reader.lookup(root, b"noise")
    tree.write(noise_file, BLOCK + 10, b"overwritten")
    tree.append(tree.reader.lookup(docs, b"log"), b"appended in the tail block\n" * 30)
    tree.truncate(tree.reader.lookup(root, b"text"), BLOCK + 100)
    tree.write(tree.reader.lookup(docs, b"hole"), 0, noise(BLOCK // 2, 2))
    tree.punch(noise_file, 0, BLOCK)
    tree.unlink(root, b"inline")
    tree.rename(root, b"name 1", docs, b"name 4")
    tree.remove_xattr(docs, b"user.empty")
    tree.rename(docs, b"sub", root, b"sub")
    make_file(tree, root, b"new", noise(5000, 3))
    tree.set_attributes(tree.reader.lookup(root, b"pipe"), mode=0o600)


def listed(reader: Reader) -> dict[str, dict[str, object]]:
    """Path to everything that a reader sees there; names as ``os.fsdecode`` gives them."""
    found: dict[str, dict[str, object]] = {}

    def add(path: bytes, ino: Ino) -> None:
        node = reader.inode(ino)
        row: dict[str, object] = {"number": int(ino)}
        for field in ("mode", "uid", "gid", "nlink", "rdev", "size", "mtime", "ctime", "btime"):
            row[field] = getattr(node, field)
        row["xattrs"] = {name.decode(): reader.xattr(ino, name).hex() for name in reader.xattr_names(ino)}
        if node.is_file:
            row["sha256"] = hashlib.sha256(content_of(reader, ino)).hexdigest()
        elif node.is_dynamic:
            row["names"] = int.from_bytes(node.data, "little")
        elif node.data:
            row["target"] = os.fsdecode(node.data)
        found[os.fsdecode(path)] = row
        if node.is_dir:
            for name, child, _ in reader.all_entries(ino):
                add(path.rstrip(b"/") + b"/" + name, child)

    add(b"/", reader.root)
    return found


def states(tree: Tree) -> dict[str, dict[str, object]]:
    """The active state and every snapshot, with their digests."""
    fileset = tree.store.catalog.filesets[ROOT_FILESET]
    found: dict[str, dict[str, object]] = {"": {"digest": to_text(fileset.digest), "files": listed(tree.reader)}}
    for snapshot in tree.store.catalog.snapshots(ROOT_FILESET):
        found[snapshot.name] = {
            "id": snapshot.id,
            "guid": snapshot.guid.hex(),
            "created_ns": snapshot.created_ns,
            "data_bytes": snapshot.data_bytes,
            "record_bytes": snapshot.record_bytes,
            "digest": to_text(snapshot.digest),
            "files": listed(tree.snapshot_reader(snapshot)),
        }
    return found


def last_sector(store: Store) -> int:
    """The end of what extents use of the segment."""
    ends = [0]
    for table, read in ((store.active, unpack), (store.shadow, unpack_shadow)):
        for key, value in table.scan(b"\0", b"\xff" * 9, 100_000):
            if key[8:9] == keys.BLOCK:
                for _, address, _ in read(value).real_entries():
                    ends.append(addresses.sector_of(address) + addresses.sector_count_of(address))
    return max(ends)


def copy_small(
    store: Path, listing: Path, make: Callable[[str], Tree], tell: Callable[[Tree], dict[str, dict[str, object]]]
) -> None:
    """The store that ``make`` makes, in as few bytes as it takes, and the list of what is in it."""
    shutil.rmtree(store, ignore_errors=True)
    with tempfile.TemporaryDirectory() as scratch:
        path = os.path.join(scratch, "store")
        tree = make(path)
        listing.write_text(json.dumps(tell(tree), indent=1) + "\n")
        end = last_sector(tree.store) * SECTOR_SIZE
        # Not closed in order: what is under way stays, as after a crash.
        tree.store.abandon()
        (store / "meta").mkdir(parents=True)
        (store / "blocks").mkdir()
        shutil.copy(os.path.join(path, "superblock"), store)
        with lmdb.open(os.path.join(path, "meta"), readonly=True, max_dbs=4) as env:
            env.copy(str(store / "meta"), compact=True)
        with open(os.path.join(path, "blocks", "00000000.seg"), "rb") as file:
            (store / "blocks" / "00000000.seg").write_bytes(file.read(end))


def main() -> None:
    copy_small(STORE, LIST, build, states)


if __name__ == "__main__":
    main()
