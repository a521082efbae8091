"""Compares a real store with the model: names, types, attributes, content, extended attributes, digests, ownership.

Threads: one.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator

from idemfs.check import find
from idemfs.format import indirect, keys
from idemfs.format.address import sector_count_of
from idemfs.ids import ROOT_FILESET, Ino, Number, make_ino, number_of
from idemfs.limits import SECTOR_SIZE
from idemfs.replication.apply import is_half_received
from idemfs.store.store import Store
from idemfs.versions.resolve import View
from idemfs.versions.state import ActiveView, digest_of
from idemfs.vfs.reader import Reader
from idemfs.vfs.tree import Tree
from tests.property.model import Node, State, back_references

BLOCK = 4096


def compare_nodes(reader: Reader, state: State, numbers: Iterable[int], where: str) -> None:
    """These inodes are as the model has them."""
    references = back_references(state)
    for number in numbers:
        ino, at = make_ino(ROOT_FILESET, Number(number)), f"{where}: inode {number}"
        _compare(reader, ino, state[number], at)
        assert set(reader.links(ino)) == references[number], f"{at}: back-references"


def compare_active(tree: Tree, state: State) -> None:
    """All of the active state."""
    assert tree.active.fileset(tree.root).inode_count == len(state), "the inode count is wrong"
    compare_nodes(tree.reader, state, state, "the active state")


def compare_snapshot(tree: Tree, name: str, state: State) -> None:
    """A snapshot is as the model has it, and has the digest that it was taken with."""
    taken = tree.store.catalog.by_name(ROOT_FILESET, name)
    view = View(tree.active, taken.id)
    where = f"snapshot {name}"
    assert [number_of(ino) for ino in view.inos(ROOT_FILESET)] == sorted(state), f"{where} has other inodes"
    assert taken.inode_count == len(state), f"{where}: the inode count is wrong"
    compare_nodes(tree.snapshot_reader(taken), state, state, where)
    assert digest_of(view, ROOT_FILESET) == taken.digest, f"{where}: the digest is wrong"
    pages = list(_by_small_pages(view))
    assert pages == list(view.records(*keys.fileset_range(ROOT_FILESET))), f"{where}: pages differ"


def compare_snapshots(tree: Tree, snapshots: dict[str, State]) -> None:
    """All snapshots, read anew from the engines; nothing that was resolved before is believed."""
    tree.store.data.drop_cache()
    tree.active.resolved.clear()
    assert [snapshot.name for snapshot in tree.store.catalog.snapshots(ROOT_FILESET)] == list(snapshots)
    for name, state in snapshots.items():
        compare_snapshot(tree, name, state)


def compare_digest(tree: Tree) -> None:
    """The digest that is kept as records change is the one of the records. Nothing may be uncommitted."""
    assert digest_of(ActiveView(tree.active), ROOT_FILESET) == tree.active.fileset(tree.root).digest, "active digest"


def _compare(reader: Reader, ino: Ino, node: Node, at: str) -> None:
    real = reader.inode(ino)
    got = (real.mode, real.uid, real.gid, real.rdev, real.nlink, real.size, real.mtime, real.ctime, real.btime)
    expected = (node.mode, node.uid, node.gid, node.rdev, node.nlink, node.size, node.mtime, node.ctime, node.btime)
    assert got == expected, f"{at}: (mode, uid, gid, rdev, nlink, size, mtime, ctime, btime)"
    names = reader.xattr_names(ino)
    assert {name: reader.xattr(ino, name) for name in names} == node.xattrs, f"{at}: extended attributes"
    if node.is_dir:
        listed = list(reader.all_entries(ino))
        assert {name: number_of(child) for name, child, _ in listed} == node.entries, f"{at}: entries"
        for name, child, kind in listed:
            assert reader.lookup(ino, name) == child, f"{at}: lookup of {name!r}"
            assert kind == reader.inode(child).mode >> 12, f"{at}: type of {name!r}"
    elif node.is_file:
        content = reader.read(ino, 0, node.size + 1)
        assert content == node.content, f"{at}: content: {_first_difference(content, node.content)}"
        _compare_parts(reader, ino, node, at)
        _compare_ranges(reader, ino, node, at)
    elif stat.S_ISLNK(node.mode):
        assert reader.readlink(ino) == node.content, f"{at}: target"


def _first_difference(got: bytes, expected: bytes) -> str:
    for index, (one, other) in enumerate(zip(got, expected, strict=False)):
        if one != other:
            return f"byte {index} (block {index // BLOCK}) is {one}, should be {other}"
    return f"{len(got)} bytes, should be {len(expected)}"


def _compare_parts(reader: Reader, ino: Ino, node: Node, at: str) -> None:
    """A read may begin anywhere, and be as long as what is stored of a block, which is all but the zeros at its end."""
    parts = [(1, node.size)]
    for start in range(0, min(node.size, 3 * BLOCK), BLOCK):
        size = len(node.content[start : start + BLOCK].rstrip(b"\0"))
        parts.append((start + BLOCK - size, size))
    for start, size in parts:
        assert reader.read(ino, start, size) == node.content[start : start + size], f"{at}: {size} bytes from {start}"


def _compare_ranges(reader: Reader, ino: Ino, node: Node, at: str) -> None:
    """Outside the ranges that hold data everything is zero."""
    end = 0
    for start, stop in [*reader.data_ranges(ino), (node.size, node.size)]:
        assert end <= start <= stop <= node.size, f"{at}: data ranges"
        assert node.content[end:start] == bytes(start - end), f"{at}: data outside the data ranges"
        end = stop


def _by_small_pages(view: View) -> Iterator[tuple[bytes, bytes]]:
    start, end = keys.fileset_range(ROOT_FILESET)
    at: bytes | None = start
    while at is not None:
        found, at = view.page(at, end, 3)
        yield from found


def check_store(tree: Tree) -> None:
    """Nothing is wrong with the store in itself. Commits what is open."""
    findings = list(find(tree, read_data=True))
    assert not findings, "check: " + "; ".join(map(str, findings))
    _check_ownership(tree.store)
    if not is_half_received(tree.store):
        # The last block of a file that became shorter may be still to come, so that of before holds more than the file.
        compare_digest(tree)


def _check_ownership(store: Store) -> None:
    """What snapshots say they own is what their records name; the index of it is complete."""
    start, end = keys.fileset_range(ROOT_FILESET)
    shadows = store.shadow.scan(start, end, 1 << 20)
    owned = {key for key, _ in store.owned.scan(b"", b"\xff" * 16, 1 << 20) if start <= key[8:] < end}
    data: dict[int, int] = {}
    records: dict[int, int] = {}
    for shadow_key, value in shadows:
        key, owner = keys.shadow_parts(shadow_key)
        owned.remove(keys.owned(owner, key))
        records[owner] = records.get(owner, 0) + len(shadow_key) + len(value)
        if key[8:9] == keys.BLOCK:
            entries = indirect.unpack_shadow(value).entries.values()
            data[owner] = data.get(owner, 0) + sum(sector_count_of(address) for address, _ in entries) * SECTOR_SIZE
    assert not owned, "the index names what no snapshot owns"
    snapshots = store.catalog.all_snapshots(ROOT_FILESET)
    assert set(records) <= {snapshot.id for snapshot in snapshots}, "records of a snapshot that is gone"
    for snapshot in snapshots:
        counted = records.get(snapshot.id, 0), data.get(snapshot.id, 0)
        assert (snapshot.record_bytes, snapshot.data_bytes) == counted, f"owned bytes of {snapshot.name}"
