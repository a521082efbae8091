"""The power goes at every write point while clones are made, changed, promoted and deleted, and their origins too.

Afterwards each step was done or was not, whatever it takes to do it. What was under way has come to its end: no clone
is half promoted, and no snapshot stays for a clone that is gone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from random import Random

import pytest

from idemfs import FileSystem
from idemfs.check import find
from idemfs.engines.kv.api import Table
from idemfs.format import keys
from idemfs.format.tables import COMPLETE, PINNED, RESTING
from idemfs.snapshots import drop, promote
from idemfs.store.store import Store
from idemfs.testing.builders import assert_clean
from tests.crash.disk import Disk, Witness, new_disk, tighten

State = dict[str, object]


def state_of(fs: FileSystem) -> State:
    """All paths with what they hold, and of each fileset where it is, its origin and what its snapshots hold."""
    found: State = {}
    for info in fs.filesets:
        snapshots = {
            each.name: {
                name: view.read_bytes("/" + name)
                for name in view.listdir("/")
                if view.stat("/" + name).st_mode & 0o170000 == 0o100000
            }
            for each in fs.filesets[info.name].snapshots
            for view in [fs.snapshots[each.operand]]
        }
        found[info.name] = (info.path, info.origin, info.origin_deleted, info.inode_count, snapshots)
    for where, _, names in fs.walk("/"):
        found[where] = {name: fs.read_bytes(os.path.join(where, name)) for name in names}
    return found


def steps(fs: FileSystem, rng: Random) -> Iterator[tuple[Callable[[], object], bool]]:
    """Each is durable on return; whether it is done or not as a whole."""

    def change() -> None:
        with fs.open("/c/f3", "r+b") as file:
            file.seek(20_000)
            file.write(b"changed")
        fs.truncate("/c/f5", 70_000)
        fs.unlink("/c/f2")
        fs.write_bytes("/c/new", rng.randbytes(20_000))
        fs.sync()

    def change_origin() -> None:
        for number in range(1, 8):
            with fs.open(f"/f{number}", "ab") as file:
                file.write(b"more")
        fs.unlink("/f6")
        fs.sync()

    def delete(name: str) -> None:
        fs.filesets[name].delete()
        # What it gave back too.
        fs.sync()

    def drop_origin() -> None:
        fs.snapshots.delete("one")
        fs.sync()

    def promote_clone(name: str) -> None:
        fs.filesets[name].promote()
        fs.sync()

    for number in range(8):
        fs.write_bytes(f"/f{number}", rng.randbytes(number * 9000))
    fs.mkdir("/c")
    fs.snapshots.create("one")
    yield lambda: fs.filesets.clone("one", "/c"), True
    yield change, False
    yield change_origin, False
    yield lambda: fs.snapshots.create("c@two"), True
    yield lambda: fs.filesets.clone("c@two", "/d"), True
    yield drop_origin, True
    yield lambda: promote_clone("c"), True
    yield lambda: fs.filesets.clone("c@two", "/e"), True
    yield lambda: delete("d"), True
    yield lambda: fs.snapshots.delete("c@two"), True
    yield lambda: delete("e"), True


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_each_step_is_done_or_not(compression: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    tighten(monkeypatch)
    monkeypatch.setattr(drop, "_STEP_RECORD_COUNT", 4)
    monkeypatch.setattr(promote, "_STEP_RECORD_COUNT", 8)
    witness, rng = Witness(), Random(seed)
    disk = new_disk(witness, compression=compression, seed=seed)
    fs = FileSystem(disk.open())
    states = []
    wholes = []
    images: list[tuple[int, Disk]] = []
    for number, (step, is_whole) in enumerate(steps(fs, rng)):
        states.append(state_of(fs))
        wholes.append(is_whole)
        # Looking at it settles what is open; what comes now is the step's.
        fs.sync()
        witness.seen = lambda number=number: images.extend((number, disk.crash(rng)) for _ in range(2))
        step()
        witness.seen = None
    fs.sync()
    states.append(state_of(fs))
    assert len(images) > 100 and {name for name in states[-1] if not name.startswith("/")} == {"root", "c"}
    under_way = 0
    for number, image in images:
        under_way += promoting(image)
        # What is under way is no finding, also for who only looks.
        looked = list(find(Store(image.superblock, image.kv, image.blocks, image.clock, readonly=True)))
        assert looked == [], (number, looked)
        tree = image.open()
        found = state_of(FileSystem(tree))
        before, after = states[number : number + 2]
        if wholes[number]:
            # A promotion that has begun goes on, and so does the deletion of an origin without clones.
            assert found in (before, after), number
        else:
            assert {name for name in found if found[name] != before.get(name)} <= {"/", "/c", "root", "c"}
        tree.sync()
        assert_settled(tree.store)
        assert_clean(tree)
    assert under_way, "no promotion was interrupted"


def promoting(image: Disk) -> bool:
    return any(value[-1] != RESTING for _, value in image.kv.scan(Table.SMALL, *keys.prefix_range(b"G"), 100))


def assert_settled(store: Store) -> None:
    """Nothing is under way, and what stays without a name is needed."""
    origins = {
        (fileset.origin.fileset, fileset.origin.snapshot)
        for fileset in store.catalog.filesets.values()
        if fileset.origin is not None
    }
    for number, fileset in store.catalog.filesets.items():
        assert fileset.state == COMPLETE
        assert fileset.origin is None or fileset.origin.state == RESTING
        for snapshot in store.catalog.all_snapshots(number):
            assert snapshot.state == COMPLETE or (snapshot.state == PINNED and (number, snapshot.id) in origins)
