"""The host is full, at every allocation of a workload: one clear error, nothing lost, and a way out.

What cannot be done leaves everything as it was, snapshots above all. Deleting is always possible, and
what it frees can be used.
"""

from __future__ import annotations

import errno
import os
import stat
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random
from typing import NamedTuple

import pytest

from idemfs.engines.blocks.memory import MemoryBlocks
from idemfs.engines.kv.api import Table
from idemfs.engines.kv.memory import MemoryKV
from idemfs.errors import NoSpace
from idemfs.failover import actions
from idemfs.format import role
from idemfs.format.role import Role, RoleRecord
from idemfs.format.tables import Snapshot
from idemfs.limits import FREEING_BYTES, FREEING_RECORD_COUNT
from idemfs.replication.link import replicate_into
from idemfs.store import store as store_module
from idemfs.store.files import create_files, first_records, new_superblock, open_files
from idemfs.store.store import Store
from idemfs.testing.blocks import FaultyBlocks
from idemfs.testing.builders import assert_clean
from idemfs.testing.clock import Simulated
from idemfs.testing.faults import Faults, Kind
from idemfs.testing.kv import FaultyKV
from idemfs.vfs.tree import Tree
from tests.crash.audit import audit
from tests.crash.disk import BLOCK_SIZE, tighten
from tests.crash.dump import Dump, State, difference, dump_of, state_of
from tests.crash.workload import WORKLOADS, Hands, others

SAMPLE_COUNT = 8
"""Of all allocations of a workload, this many fail in a default run."""


class FullKV(FaultyKV):
    """When it is full, there is still the room that changes leave for those that free space."""

    def reserve(self, record_count: int, value_bytes: int) -> None:
        if record_count > FREEING_RECORD_COUNT or value_bytes > FREEING_BYTES:
            self.faults.check(Kind.RESERVE)


class FullBlocks(FaultyBlocks):
    """When it is full, what was claimed before and not given back is there all the same."""

    def __init__(self, engine: MemoryBlocks, faults: Faults) -> None:
        super().__init__(engine, faults)
        self._claimed: set[int] = set()

    def reserve(self, sector: int, count: int) -> None:
        wanted = set(range(sector, sector + count))
        if not wanted <= self._claimed:
            super().reserve(sector, count)
            self._claimed |= wanted

    def discard(self, runs: Sequence[tuple[int, int]]) -> None:
        super().discard(runs)
        for sector, count in runs:
            self._claimed.difference_update(range(sector, sector + count))


class Host(NamedTuple):
    clock: Simulated
    records: Faults
    sectors: Faults
    tree: Tree


def new_host() -> Host:
    clock, records, sectors = Simulated(), Faults(), Faults()
    kv = FullKV(MemoryKV(), records)
    superblock = new_superblock(clock, BLOCK_SIZE, "none")
    first_records(kv, superblock.guid)
    tree = Tree(Store(superblock, kv, FullBlocks(MemoryBlocks(), sectors), clock))
    return Host(clock, records, sectors, tree)


def carry_out(workload: str) -> tuple[list[State], Host]:
    """The states when nothing fails, and a host that has counted its allocations."""
    host = new_host()
    states = [state_of(host.tree)]
    for step in WORKLOADS[workload](Hands(host.tree)):
        step.run()
        host.clock.advance(1)
        states.append(state_of(host.tree))
    return states, host


def carry_out_with_a_full_host(workload: str, kind: str, number: int, states: list[State]) -> None:
    """The host is full from its ``number``-th allocation until a step says so; then there is room again."""
    host = new_host()
    faults: Faults = getattr(host, kind)
    faults.add(Kind.RESERVE, errno.ENOSPC, after=number - faults.counts[Kind.RESERVE], times=None)
    failed = ""
    hands = Hands(host.tree)
    for count, step in enumerate(WORKLOADS[workload](hands), 1):
        try:
            step.run()
        except NoSpace as error:
            assert error.errno == errno.ENOSPC
            assert not failed, f"{step.name} fails though there is room"
            failed = step.name
            assert_unharmed(step.name, states[count - 1], state_of(host.tree))
            faults.clear()
            if step.name.startswith("append"):
                # What was appended before there was no more room is not to be there twice.
                path = written_by(step.name)
                hands.truncate(path, states[count - 1].active[f"/{path}"].size)
            step.run()
        host.clock.advance(1)
        if failed == step.name:
            assert state_of(host.tree) == states[count], difference(states[count], state_of(host.tree))
    assert state_of(host.tree) == states[-1], difference(states[-1], state_of(host.tree))
    host.tree.sync()
    audit(host.tree)
    assert_clean(host.tree)


def assert_unharmed(step: str, before: State, after: State) -> None:
    """Nothing has changed. Of a write, a first part may have been done: then the file that it was for has, and
    the directory that it was made in."""
    assert others(after.snapshots, step) == others(before.snapshots, step), difference(before, after)
    if not step.startswith(("write", "append")):
        assert after.active == before.active, difference(before, after)
        return
    written = after.active.get(f"/{written_by(step)}")
    for other, thing in before.active.items():
        found = after.active[other]
        if not stat.S_ISDIR(thing.mode) and (written is None or found.ino != written.ino):
            assert (found.content, found.size, found.xattrs) == (thing.content, thing.size, thing.xattrs), other


def written_by(step: str) -> str:
    return step.split("'")[1] if "'" in step else "what has no name"


@pytest.fixture
def every_operation_reserves(monkeypatch: pytest.MonkeyPatch) -> None:
    tighten(monkeypatch)
    monkeypatch.setattr(store_module, "_RESERVE_RECORD_STEP", FREEING_RECORD_COUNT)
    monkeypatch.setattr(store_module, "_RESERVE_BYTES_STEP", FREEING_BYTES)


@pytest.mark.usefixtures("every_operation_reserves")
@pytest.mark.parametrize("kind", ["records", "sectors"])
@pytest.mark.parametrize("workload", WORKLOADS)
def test_an_allocation_that_fails_harms_nothing(workload: str, kind: str, seed: int) -> None:
    states, host = carry_out(workload)
    faults: Faults = getattr(host, kind)
    numbers = range(1, faults.counts[Kind.RESERVE] + 1)
    assert len(numbers) > 8
    for number in sorted(Random(seed).sample(numbers, min(SAMPLE_COUNT, len(numbers)))):
        carry_out_with_a_full_host(workload, kind, number, states)


@pytest.mark.long
@pytest.mark.usefixtures("every_operation_reserves")
@pytest.mark.parametrize("kind", ["records", "sectors"])
@pytest.mark.parametrize("workload", WORKLOADS)
def test_every_allocation_fails_once(workload: str, kind: str) -> None:
    states, host = carry_out(workload)
    faults: Faults = getattr(host, kind)
    for number in range(1, faults.counts[Kind.RESERVE] + 1):
        carry_out_with_a_full_host(workload, kind, number, states)


# -- stores that are filled up -----------------------------------------------------------------------------------


def small_tree(record_bytes: int | None, sectors: int | None) -> Tree:
    clock = Simulated()
    kv, blocks = MemoryKV(record_bytes), MemoryBlocks(sectors)
    superblock = new_superblock(clock, BLOCK_SIZE, "none")
    first_records(kv, superblock.guid)
    return Tree(Store(superblock, kv, blocks, clock))


def fill(hands: Hands, prefix: str, size: int) -> int:
    """Make files of this size until there is no more room; how many there are."""
    count = 0
    while True:
        try:
            hands.write(f"{prefix}{count}", 0, size)
        except NoSpace:
            return count
        count += 1


def fill_sectors(hands: Hands) -> None:
    """Use up what is too short for a block."""
    ino = hands.make("sectors")
    number = 0
    with suppress(NoSpace):
        while True:
            hands.tree.write(ino, number * BLOCK_SIZE, b"some" + bytes(BLOCK_SIZE - 4))
            number += 1


def assert_can_be_emptied(hands: Hands, count: int, size: int) -> None:
    """A full store with a snapshot: unlinking works, deleting the snapshot works, and then there is room again."""
    tree = hands.tree
    snapshots = {snapshot.name: dump_of(tree.snapshot_reader(snapshot)) for snapshot in snapshots_of(tree)}
    for number in range(count):
        hands.unlink(f"full{number}")
    tree.sync()
    for snapshot in snapshots_of(tree):
        assert dump_of(tree.snapshot_reader(snapshot)) == snapshots[snapshot.name]
    assert_clean(tree)
    for name in snapshots:
        hands.drop(name)
    assert_clean(tree)
    again = fill(hands, "again", size)
    assert again >= count * 9 // 10


def snapshots_of(tree: Tree) -> list[Snapshot]:
    return tree.store.catalog.snapshots(tree.fileset)


@pytest.mark.parametrize(
    ("record_bytes", "sectors", "size"),
    [(4 << 20, None, 900), (None, 800, 5 * BLOCK_SIZE), (None, 800, BLOCK_SIZE - 5000), (None, 403, 2000)],
    ids=["records", "sectors, large files", "sectors, one block", "sectors, parts of blocks"],
)
def test_a_full_store_can_be_emptied_and_filled_again(record_bytes: int | None, sectors: int | None, size: int) -> None:
    tree = small_tree(record_bytes, sectors)
    hands = Hands(tree)
    hands.write("kept", 0, size)
    hands.take("early")
    count = fill(hands, "full", size)
    assert count > 10
    before = dump_of(tree.reader)
    with pytest.raises(NoSpace, match=r"delete|remove"):
        hands.write("more", 0, 4 * BLOCK_SIZE)
    with pytest.raises(NoSpace, match=r"delete|remove"):
        hands.append("kept", 4 * BLOCK_SIZE)
    after = dump_of(tree.reader)
    assert unchanged(before, after)
    tree.sync()
    assert_clean(tree)
    try:
        hands.take("late")
    except NoSpace:
        assert record_bytes
    assert_can_be_emptied(hands, count, size)


def unchanged(before: Dump, after: Dump) -> bool:
    """But for the file that could be made, and not be written; and its directory, which has it."""
    return {path: thing for path, thing in before.items() if path != "/"} == {
        path: thing for path, thing in after.items() if path not in ("/", "/more")
    }


def test_what_was_deleted_can_be_used_at_once() -> None:
    """Though it is free only when its group is durable: whoever needs it waits for that."""
    tree = small_tree(None, 400)
    hands = Hands(tree)
    count = fill(hands, "full", 3 * BLOCK_SIZE)
    for turn in range(10):
        for number in range(count):
            hands.unlink(f"full{number}")
        assert fill(hands, "full", 3 * BLOCK_SIZE) == count, turn
    tree.sync()
    assert_clean(tree)


def test_a_restore_that_finds_no_room_leaves_all_as_it_was() -> None:
    """Its only block to be written is the tail of a file that somebody appended to."""
    tree = small_tree(None, 400)
    hands = Hands(tree)
    for name in ("a", "b", "c"):
        hands.write(name, 0, BLOCK_SIZE // 2)
    hands.take("early")
    for name in ("a", "b", "c"):
        hands.append(name, BLOCK_SIZE // 4)
    hands.unlink("b")
    hands.mkdir("made")
    tree.sync()
    fill(hands, "full", BLOCK_SIZE)
    fill_sectors(hands)
    before = state_of(tree)
    with pytest.raises(NoSpace):
        hands.restore("early", "undo")
    assert state_of(tree) == before, difference(before, state_of(tree))
    assert_clean(tree)
    hands.unlink("full0")
    hands.restore("early", "undo")
    assert state_of(tree).active == before.snapshots["early"]
    assert_clean(tree)


def test_a_rollback_needs_no_more_than_it_frees() -> None:
    tree = small_tree(None, 400)
    hands = Hands(tree)
    for name in ("a", "b", "c"):
        hands.write(name, 0, BLOCK_SIZE // 2)
    hands.take("early")
    before = state_of(tree)
    for name in ("a", "b", "c"):
        hands.append(name, BLOCK_SIZE // 4)
    tree.sync()
    fill(hands, "full", BLOCK_SIZE)
    fill_sectors(hands)
    hands.rollback()
    assert state_of(tree) == before, difference(before, state_of(tree))
    assert_clean(tree)


def test_a_punch_of_two_edges_is_done_in_both_or_in_none() -> None:
    tree = small_tree(None, 2 * 12 + 2 * 4)
    hands = Hands(tree)
    hands.write("a", 0, 6 * BLOCK_SIZE)
    tree.sync()
    before = dump_of(tree.reader)
    hands.write("filler", 0, BLOCK_SIZE)
    tree.sync()
    ino = hands.at("a")
    content = tree.reader.read(ino, 0, 6 * BLOCK_SIZE)
    with pytest.raises(NoSpace):
        tree.punch(ino, BLOCK_SIZE // 2, 4 * BLOCK_SIZE)
    assert tree.reader.read(ino, 0, 6 * BLOCK_SIZE) == content
    assert dump_of(tree.reader)["/a"] == before["/a"]
    tree.sync()
    assert_clean(tree)


def test_reading_goes_on_when_the_time_of_access_finds_no_room() -> None:
    host = new_host()
    hands = Hands(host.tree)
    hands.write("file", 0, 100)
    host.tree.sync()
    host.records.add(Kind.RESERVE, errno.ENOSPC, times=None)
    host.tree.touch_atime(hands.at("file"))
    with pytest.raises(NoSpace):
        hands.write("file", 0, 10)


def small_standby(primary: Tree, sectors: int) -> Tree:
    kv, clock = MemoryKV(), Simulated(9)
    superblock = new_superblock(clock, BLOCK_SIZE, "none")
    first_records(kv, primary.store.catalog.filesets[primary.fileset].guid)
    kv.commit({Table.SMALL: {role.KEY: role.pack(RoleRecord(Role.STANDBY, 1, 1))}})
    return Tree(Store(superblock, kv, MemoryBlocks(sectors), clock))


def test_a_standby_without_room_for_a_change_set_shows_what_it_had_and_can_take_over() -> None:
    """Going back to what it had needs a block for each tail that was appended to, one after the other."""
    hands = Hands(small_tree(None, None))
    primary = hands.tree
    for number in range(6):
        hands.write(f"log {number}", 0, BLOCK_SIZE // 2)
    hands.take("first")
    standby = small_standby(primary, 60)
    replicate_into(primary, standby)
    before = dump_of(standby.newest_reader())
    for number in range(6):
        hands.append(f"log {number}", BLOCK_SIZE // 4)
    hands.write("much", 0, 30 * BLOCK_SIZE)
    hands.take("second")
    with pytest.raises(NoSpace):
        replicate_into(primary, standby)
    assert dump_of(standby.newest_reader()) == before
    actions.promote(standby, 2, None)
    assert dump_of(standby.reader) == before
    assert_clean(standby)
    Hands(standby).write("log 0", 100, 100)
    standby.sync()
    assert_clean(standby)


# -- a real disk ---------------------------------------------------------------------------------------------------


@contextmanager
def ext4_disk(directory: Path, size: int) -> Iterator[Path]:
    """A real file system of this size. Skips the test where this process may not mount one."""
    if os.getuid():
        pytest.skip("only root may mount a disk")
    image, place = directory / "image", directory / "disk"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(size)
    try:
        subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", str(image)], check=True, capture_output=True)
        subprocess.run(["mount", "-o", "loop", str(image), str(place)], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no loop device to mount a disk on: {error}")
    try:
        yield place
    finally:
        # Lazily: a test that failed may have left a store open.
        subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.parametrize(
    ("disk_size", "file_size", "count_min", "again_min"),
    [(64 << 20, 1 << 20, 20, 20), (20 << 20, 1000, 500, 300)],
    ids=["data", "records"],
)
def test_a_real_disk_that_is_full(
    tmp_path: Path, disk_size: int, file_size: int, count_min: int, again_min: int
) -> None:
    """Of records fewer fit again: of the pages that the metadata file has free, it promises none beforehand."""
    with ext4_disk(tmp_path, disk_size) as disk:
        path = str(disk / "store")
        create_files(path)
        tree = Tree(open_files(path))
        hands = Hands(tree)
        hands.write("kept", 0, 300_000)
        hands.take("early")
        count = fill(hands, "full", file_size)
        assert count >= count_min
        with pytest.raises(NoSpace):
            hands.write("more", 0, 8 << 20)
        tree.sync()
        before = state_of(tree)
        tree.store.close()
        tree = Tree(open_files(path))
        assert state_of(tree) == before
        hands = Hands(tree)
        for number in range(count):
            hands.unlink(f"full{number}")
        hands.drop("early")
        tree.sync()
        assert_clean(tree)
        assert fill(hands, "again", file_size) >= again_min
        tree.store.close()
