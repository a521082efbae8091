"""What filesets share, counted from records; and what deleted snapshots keep for clones, in the sum of a store."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

import idemfs
from idemfs import FileSystem
from idemfs.ids import ROOT_FILESET
from idemfs.snapshots.footprint import footprint
from idemfs.testing.builders import assert_clean, memory_store, random_changes
from idemfs.vfs.tree import Tree

BLOCK = 4096


@pytest.fixture
def fs() -> FileSystem:
    return FileSystem(Tree(memory_store()))


def shared(fs: FileSystem) -> dict[str, int | None]:
    return {info.name: info.shared_bytes for info in fs.filesets.list(shared=True)}


def test_a_restore_into_another_fileset(fs: FileSystem) -> None:
    fs.filesets.create("/home")
    fs.write_bytes("/f", b"1" * 10 * BLOCK)
    fs.write_bytes("/alone", b"2" * 7 * BLOCK)
    fs.snapshots.create("s")
    assert shared(fs) == {"root": 0, "home": 0} and fs.filesets["home"].info().shared_bytes is None
    fs.snapshots.restore("s", path="/f", to="/home/f")
    assert shared(fs) == {"root": 10 * BLOCK, "home": 10 * BLOCK}
    fs.unlink("/f")
    fs.sync()
    # It is the snapshot's now.
    assert shared(fs) == {"root": 10 * BLOCK, "home": 10 * BLOCK}
    with fs.open("/home/f", "r+b") as file:
        file.write(b"3" * 4 * BLOCK)
    assert shared(fs) == {"root": 6 * BLOCK, "home": 6 * BLOCK}
    fs.snapshots.delete("s")
    assert shared(fs) == {"root": 0, "home": 0}
    assert_clean(fs.tree)


def test_a_clone_shares_when_it_is_promoted(fs: FileSystem) -> None:
    fs.write_bytes("/f", b"1" * 10 * BLOCK)
    fs.snapshots.create("s")
    clone = fs.filesets.clone("s", "/try")
    assert shared(fs) == {"root": 0, "try": 0}
    clone.promote()
    assert shared(fs) == {"root": 10 * BLOCK, "try": 10 * BLOCK}
    assert fs.filesets["try"].info(shared=True).shared_bytes == 10 * BLOCK


def test_against_the_whole_store(fs: FileSystem, seed: int) -> None:
    """What nobody shares, and each shared extent once, is what is in use."""
    rng = Random(seed)
    random_changes(fs.tree, rng, 150)
    fs.snapshots.create("a")
    random_changes(fs.tree, rng, 80)
    fs.snapshots.create("b")
    fs.snapshots.restore("a")
    fs.filesets.clone("a", "/the-clone").promote()
    random_changes(fs.tree, rng, 40)
    fs.sync()
    store = fs.tree.store
    sectors = sum(each.sectors for each in store.catalog.filesets.values())
    owned = sum(s.data_bytes for each in store.catalog.filesets for s in store.catalog.all_snapshots(each))
    named = sectors * BLOCK + owned
    in_use = (store.space.sector_count - store.space.free_sectors() - 1) * BLOCK
    assert in_use <= named
    total = sum(size or 0 for size in shared(fs).values())
    # Each shared extent is named twice or more.
    assert 2 * (named - in_use) >= total >= (named - in_use) > 0


def test_pinned_origins_stand_in_the_sum(tmp_path: Path) -> None:
    path = str(tmp_path / "store")
    with idemfs.create(path, block_size=BLOCK) as fs:
        fs.write_bytes("/f", bytes(range(256)) * 16 * 10)
        fs.snapshots.create("s")
        clone = fs.filesets.clone("s", "/try")
        fs.unlink("/f")
        fs.sync()
        before = footprint(fs.tree.store, path)
        assert before["snapshot_data"] > 0 and before["pinned_data"] == 0
        fs.snapshots.delete("s")
        fs.sync()
        after = footprint(fs.tree.store, path)
        assert (after["snapshot_data"], after["pinned_data"]) == (0, before["snapshot_data"])
        assert sum(size for name, size in after.items() if name not in ("total", "allocated")) == after["total"]
        clone.delete()
        fs.sync()
        assert footprint(fs.tree.store, path)["pinned_data"] == 0
        assert fs.tree.store.catalog.all_snapshots(ROOT_FILESET) == []


def test_what_snapshots_of_two_filesets_share_comes_back_when_both_go(fs: FileSystem) -> None:
    fs.filesets.create("/home")
    fs.write_bytes("/f", b"1" * 10 * BLOCK)
    fs.snapshots.create("s")
    fs.snapshots.restore("s", path="/f", to="/home/f")
    fs.snapshots.create("home@t")
    for path in ("/f", "/home/f"):
        fs.unlink(path)
    fs.sync()
    free = fs.tree.store.space.free_sectors()
    assert [fs.snapshots.freed(*names) for names in (["s"], ["home@t"], ["s", "home@t"])] == [0, 0, 10 * BLOCK]
    for name in ("s", "home@t"):
        fs.snapshots.delete(name)
    fs.sync()
    assert (fs.tree.store.space.free_sectors() - free) * BLOCK == 10 * BLOCK
    assert_clean(fs.tree)
