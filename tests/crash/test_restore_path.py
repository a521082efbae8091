"""The power goes at every write point of restores of a directory, and once more while the store is opened after that.

Afterwards the restore was done or was not, whatever number of groups it takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random

import pytest

from idemfs import FileSystem
from idemfs.check import find
from idemfs.engines.kv.api import Table
from idemfs.format import keys
from idemfs.store.store import Store
from idemfs.testing.builders import assert_clean
from idemfs.testing.faults import Cut, PowerCut
from tests.crash.disk import Disk, Witness, new_disk, tighten

State = dict[str, object]


def state_of(fs: FileSystem) -> State:
    """All paths with what they hold; inode numbers, link counts and times of all that has them."""
    found: State = {}
    for where, directories, names in fs.walk("/"):
        for name in (*directories, *names):
            path = f"{where.rstrip('/')}/{name}"
            status = fs.lstat(path)
            content = fs.read_bytes(path) if name in names else None
            found[path] = status.st_ino, status.st_mode, status.st_nlink, status.st_mtime_ns, content
    return found


def steps(fs: FileSystem, rng: Random) -> Iterator[Callable[[], object]]:
    """Each is durable on return, and happens whole or not at all."""
    fs.makedirs("/d/in")
    for number in range(8):
        fs.write_bytes(f"/d/in/f{number}", rng.randbytes(number * 9000))
        fs.setxattr(f"/d/in/f{number}", "user.x", rng.randbytes(2000))
    fs.link("/d/in/f3", "/d/also")
    fs.link("/d/in/f5", "/outside")
    fs.filesets.create("/home")
    fs.write_bytes("/home/stranger", rng.randbytes(30_000))
    fs.snapshots.create("s")
    for number in range(0, 8, 2):
        fs.write_bytes(f"/d/in/f{number}", rng.randbytes(40_000))
    fs.unlink("/d/in/f7")
    fs.write_bytes("/d/since", rng.randbytes(100_000))
    yield lambda: fs.snapshots.restore("s", path="/d")
    yield lambda: fs.snapshots.restore("s", path="/d", to="/d.then")
    yield lambda: fs.snapshots.restore("s", path="/d", to="/home/d")
    yield lambda: fs.snapshots.restore("before-restore-s", path="/d")


def looked_at(disk: Disk) -> list[object]:
    """What is found by who only looks: what is under way is no finding."""
    return list(find(Store(disk.superblock, disk.kv, disk.blocks, disk.clock, readonly=True)))


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_each_restore_is_done_or_not(compression: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    tighten(monkeypatch)
    witness, rng = Witness(), Random(seed)
    disk = new_disk(witness, compression=compression, seed=seed)
    fs = FileSystem(disk.open())
    states: list[State] = []
    images: list[tuple[int, Disk]] = []
    for number, step in enumerate(steps(fs, rng)):
        fs.sync()
        states.append(state_of(fs))
        fs.sync()
        witness.seen = lambda number=number: images.append((number, disk.crash(rng)))
        step()
        witness.seen = None
    states.append(state_of(fs))
    begun = [number for number, image in images if image.kv.get(Table.SMALL, keys.UNDOING) is not None]
    assert len(begun) > 20 and set(begun) == set(range(4)), "every restore takes several groups"
    for number, image in images:
        assert looked_at(image) == [], number
        after_cut = image.crash(rng, Cut(after=rng.randint(1, 12)))
        try:
            after_cut.open().store.close()
        except PowerCut:
            # The second one came while the first was being seen to.
            after_cut = after_cut.crash(rng, Cut())
        for each in (image, after_cut.crash(rng, Cut())):
            tree = each.open()
            assert state_of(FileSystem(tree)) in states[number : number + 2], number
            tree.sync()
            assert each.kv.get(Table.SMALL, keys.UNDOING) is None
            assert_clean(tree)
