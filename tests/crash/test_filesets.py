"""The power goes at every write point while filesets are made, changed, taken snapshots of and deleted.

Afterwards each step was done or was not, whatever it takes to do it; and what was left of a deletion is gone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from random import Random

import pytest

from idemfs import FileSystem
from idemfs.check import find
from idemfs.engines.kv.api import Table
from idemfs.snapshots import drop
from idemfs.store.store import Store
from idemfs.testing.builders import assert_clean
from tests.crash.disk import Disk, Witness, new_disk, tighten

State = dict[str, object]


def state_of(fs: FileSystem) -> State:
    """All paths with what they hold, and of each fileset where it is and its snapshots."""
    found: State = {
        info.name: (info.path, info.quota_bytes, [each.name for each in fs.filesets[info.name].snapshots])
        for info in fs.filesets
    }
    for where, _, names in fs.walk("/"):
        found[where] = {name: fs.read_bytes(os.path.join(where, name)) for name in names}
    return found


def only_filesets(state: State) -> State:
    return {name: state[name] for name in ("root", "home")}


def steps(fs: FileSystem, rng: Random) -> Iterator[Callable[[], object]]:
    """Each is durable on return."""

    def fill() -> None:
        for number in range(12):
            fs.write_bytes(f"/a/home/f{number}", rng.randbytes(number * 3000))
        fs.sync()

    def shrink() -> None:
        for number in range(0, 12, 2):
            fs.unlink(f"/a/home/f{number}")
        fs.sync()

    def delete(name: str) -> None:
        fs.filesets[name].delete()
        # What it gave back too.
        fs.sync()

    fs.mkdir("/a")
    fs.sync()
    yield lambda: fs.filesets.create("/a/home")
    yield fill
    yield lambda: fs.snapshots.create_all("home@one", "one")
    yield shrink
    yield lambda: fs.filesets.create("/a/home/inner")
    yield lambda: fs.snapshots.create_all("*@two")
    yield lambda: fs.filesets["inner"].rename("other")
    yield lambda: delete("other")
    yield lambda: delete("home")


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_each_step_is_done_or_not(compression: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    tighten(monkeypatch)
    monkeypatch.setattr(drop, "_STEP_RECORD_COUNT", 4)
    monkeypatch.setattr(drop, "_STEP_BLOCK_COUNT", 1)
    witness, rng = Witness(), Random(seed)
    disk = new_disk(witness, compression=compression, seed=seed)
    fs = FileSystem(disk.open())
    states = []
    images: list[tuple[int, Disk]] = []
    for number, step in enumerate(steps(fs, rng)):
        states.append(state_of(fs))
        # Looking at it settles what is open; what comes now is the step's.
        fs.sync()
        witness.seen = lambda number=number: images.extend((number, disk.crash(rng)) for _ in range(2))
        step()
        witness.seen = None
    fs.sync()
    states.append(state_of(fs))
    assert len(images) > 60 and set(states[-1]) == {"root", "/", "/a"}
    for number, image in images:
        # What is under way is no finding, also for who only looks.
        looked = list(find(Store(image.superblock, image.kv, image.blocks, image.clock, readonly=True)))
        assert looked == [], (number, looked)
        tree = image.open()
        again = FileSystem(tree)
        found = state_of(again)
        before, after = states[number : number + 2]
        if number in (1, 3):
            # These are many changes; of filesets there is nothing in them.
            found, before, after = (only_filesets(state) for state in (found, before, after))
        assert found in (before, after), number
        tree.sync()
        assert all(fileset.state == 0 for fileset in tree.store.catalog.filesets.values())
        known = {number.to_bytes(2, "big") for number in tree.store.catalog.filesets}
        assert {key[:2] for key, _ in image.kv.scan(Table.ACTIVE, b"", b"\xff" * 300, 1 << 20)} == known
        assert_clean(tree)
