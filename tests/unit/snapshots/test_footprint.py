"""The parts of a store add up to the sizes of its files, and each of them is what the records say."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random

import pytest

import idemfs
from idemfs.format import indirect, keys
from idemfs.format.address import sector_count_of, sector_of
from idemfs.limits import SECTOR_SIZE
from idemfs.snapshots.footprint import PARTS, footprint
from idemfs.store.store import Store
from idemfs.testing.builders import file_tree, random_changes
from idemfs.vfs.tree import Tree


def sizes_of_files(path: Path) -> int:
    return sum(os.lstat(os.path.join(at, name)).st_size for at, _, names in os.walk(path) for name in names)


def named_extents(store: Store) -> tuple[int, int, int]:
    """Bytes that active records name, that shadows name, and that both name together, each extent once."""
    extents: dict[int, int] = {}
    sums = [0, 0]
    for which, table in enumerate((store.active, store.shadow)):
        for key, value in table.scan(b"", b"\xff" * 16, 1 << 30):
            if key[8:9] == keys.BLOCK:
                block = indirect.unpack_shadow(value) if which else indirect.unpack(value)
                for _, address, _ in block.real_entries():
                    sums[which] += sector_count_of(address) * SECTOR_SIZE
                    extents[sector_of(address)] = sector_count_of(address) * SECTOR_SIZE
    return sums[0], sums[1], sum(extents.values())


def compare(store: Store, path: Path) -> dict[str, int]:
    with store.lock:
        found = footprint(store, str(path))
        active, owned, together = named_extents(store)
    assert sum(found[name] for name in PARTS) == found["total"] == sizes_of_files(path)
    assert (found["active_data"], found["snapshot_data"]) == (active, owned)
    assert found["active_data"] + found["snapshot_data"] + found["shared_data"] == together
    assert found["shared_data"] <= 0 and all(found[name] >= 0 for name in PARTS if name != "shared_data")
    return found


@pytest.mark.parametrize("seed", range(4))
def test_after_many_operations(tmp_path: Path, seed: int) -> None:
    rng = Random(seed)
    path = tmp_path / "store"
    tree: Tree = file_tree(str(path), compression="zstd" if seed % 2 else "none")
    fs = idemfs.FileSystem(tree)
    fs.makedirs("/inner")
    fs.filesets.create("/inner/more", "more")
    seen = set()
    for turn in range(6):
        random_changes(tree, rng, 80)
        fs.write_bytes(f"{fs.filesets['more'].path}/f", rng.randbytes(50_000))
        fs.snapshots.create_all(f"s{turn}", f"more@s{turn}")
        if turn == 3:
            fs.snapshots.restore("more@s1")
        if turn == 4:
            fs.snapshots.delete("s2", "more@s1")
        fs.sync()
        found = compare(tree.store, path)
        seen |= {name for name in PARTS if found[name]}
    assert seen >= {"active_data", "snapshot_data", "shared_data", "free_data", "metadata_used", "superblock"}
    fs.filesets["more"].delete()
    fs.sync()
    compare(tree.store, path)
    fs.close()
    with idemfs.open(path, readonly=True) as closed:
        compare(closed.tree.store, path)


def test_what_a_set_of_snapshots_gives_back(tmp_path: Path) -> None:
    with idemfs.create(tmp_path / "store", block_size=4096) as fs:
        fs.write_bytes("/f", b"1" * 40_960)
        fs.snapshots.create("one")
        fs.snapshots.create("two")
        fs.write_bytes("/f", b"2" * 40_960)
        assert (fs.snapshots.freed("one"), fs.snapshots.freed("two")) == (0, 0)
        assert fs.snapshots.freed("one", "two") == fs.snapshots.freed("two", "one", "two") == 40_960
        free = fs.tree.store.space.free_sectors()
        fs.snapshots.delete("one", "two")
        fs.sync()
        fs.sync()
        assert (fs.tree.store.space.free_sectors() - free) * SECTOR_SIZE == 40_960
