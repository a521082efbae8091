"""What is wrong with clones is found: what they rest on, what stays for them, and what they are said to hold."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from idemfs import FileSystem
from idemfs.check import Kind, find
from idemfs.format import indirect, keys
from idemfs.format.indirect import PartialBlock
from idemfs.format.tables import DELETING, PINNED, Origin
from idemfs.ids import ROOT_FILESET, Address, FilesetId, Ino, SnapshotId
from idemfs.testing.builders import memory_store
from idemfs.versions import origin
from idemfs.vfs.tree import Tree

CLONE = FilesetId(1)


@pytest.fixture
def fs() -> FileSystem:
    """Clone ``c`` of snapshot ``s``; it has changed ``/long``, and removed ``/gone``."""
    fs = FileSystem(Tree(memory_store()))
    fs.write_bytes("/long", b"x" * 50_000)
    fs.write_bytes("/gone", b"y" * 10_000)
    fs.write_bytes("/both", b"z" * 10_000)
    fs.snapshots.create("s")
    fs.filesets.clone("s", "/c")
    with fs.open("/c/long", "r+b") as file:
        file.write(b"changed")
    fs.unlink("/c/gone")
    fs.snapshots.create("c@one")
    fs.write_bytes("/c/both", b"")
    fs.sync()
    assert list(find(fs.tree, read_data=True)) == []
    return fs


def set_origin(fs: FileSystem, **fields: int) -> None:
    at = fs.tree.store.catalog.filesets[CLONE].origin
    assert at is not None
    values = {name: fields.get(name, getattr(at, name)) for name in ("fileset", "snapshot", "next_number", "state")}
    changed = Origin(
        FilesetId(values["fileset"]), SnapshotId(values["snapshot"]), values["next_number"], values["state"]
    )
    fs.tree.store.catalog.set_origin(fs.tree.store.catalog.filesets[CLONE], changed)


def set_state(fs: FileSystem, state: int) -> None:
    snapshot = fs.tree.store.catalog.by_name(ROOT_FILESET, "s")
    snapshot.state = state
    fs.tree.store.catalog.changed(snapshot)


def forget_clone(fs: FileSystem) -> None:
    """The snapshot stays for nobody."""
    set_state(fs, PINNED)
    fs.tree.store.catalog.set_origin(fs.tree.store.catalog.filesets[CLONE], None)


def lose_a_mark(fs: FileSystem) -> None:
    key = keys.entry(Ino(1 << 48 | 1), b"gone")
    assert fs.tree.store.active.get_own(key) == b""
    fs.tree.store.active.values[key] = None
    fs.tree.store.active.pending.append(key)


def partial_in_no_clone(fs: FileSystem) -> None:
    ino = Ino(fs.stat("/both").st_ino)
    value = fs.tree.store.active.get_own(keys.block(ino, 0))
    assert value is not None
    entries = {entry: (address, check) for entry, address, check in indirect.unpack(value).real_entries()}
    fs.tree.store.active.put(keys.block(ino, 0), PartialBlock(entries).pack())


def partial_with_a_wrong_hole(fs: FileSystem) -> None:
    ino = Ino(fs.stat("/c/long").st_ino)
    fs.tree.store.active.put(keys.block(ino, 0), PartialBlock({0: (Address(0), 5)}).pack())


WRONG: dict[str, tuple[Callable[[FileSystem], None], Kind, str]] = {
    "no such snapshot": (lambda fs: set_origin(fs, snapshot=99), Kind.FILESET, "which does not exist"),
    "no such fileset": (lambda fs: set_origin(fs, fileset=9), Kind.FILESET, "of fileset 9, which does not exist"),
    "its own": (lambda fs: set_origin(fs, fileset=1, snapshot=2), Kind.FILESET, "of itself"),
    "state": (lambda fs: set_origin(fs, state=7), Kind.FILESET, "in state 7"),
    "numbers": (lambda fs: set_origin(fs, next_number=1000), Kind.FILESET, "own numbers begin with 1000"),
    "going": (lambda fs: set_state(fs, DELETING), Kind.FILESET, "which is being deleted"),
    "for nobody": (forget_clone, Kind.SNAPSHOT, "none rests on it"),
    "a mark is lost": (lose_a_mark, Kind.ENTRY, "names inode"),
    "partial in no clone": (partial_in_no_clone, Kind.RECORD, "there is none"),
    "a hole with a checksum": (partial_with_a_wrong_hole, Kind.RECORD, "a hole has a checksum"),
}


@pytest.mark.parametrize(("break_it", "kind", "what"), WRONG.values(), ids=WRONG.keys())
def test_it_is_found(
    fs: FileSystem, break_it: Callable[[FileSystem], None], kind: Kind, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        # What is broken here is not to be mended by the sums that are kept.
        patch.setattr(type(fs.tree.active), "_update_digests", lambda self, changes: None)
        fs.tree.store.admit(4, 1000)
        break_it(fs)
        fs.sync()
    findings = list(find(fs.tree))
    assert any(each.kind is kind and what in each.what for each in findings), findings


def test_damage_that_a_clone_sees_names_who_owns_it(fs: FileSystem) -> None:
    """The block is the origin's, and the clone has no record of it."""
    block = fs.tree.active.block(Ino(fs.stat("/c/long").st_ino), 5)
    assert block == fs.tree.active.block(Ino(fs.stat("/long").st_ino), 5)
    fs.tree.store.blocks.write(block[0] & (1 << 38) - 1, b"damaged")
    fs.tree.store.data.drop_cache()
    found = [each for each in find(fs.tree, read_data=True) if each.kind is Kind.DATA]
    assert [each.where for each in found] == ["/long, block 5"]
    with pytest.raises(OSError, match="long"):
        fs.read_bytes("/c/long")


def test_a_store_that_is_only_read_is_checked_with_its_clones(fs: FileSystem) -> None:
    store = fs.tree.store
    assert list(find(store)) == [] and len(store.before_seal) == 2
    store.active.beneath.clear()
    assert list(find(store)) == [] and store.active.beneath
    origin.learn(fs.tree.active)
    fs.write_bytes("/c/both", b"after")
    fs.sync()
    assert list(find(store)) == []
