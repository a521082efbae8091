"""Disks that return errors, or other bytes than were written: told at once, never committed, never read as data."""

from __future__ import annotations

import errno
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import pytest

from idemfs.errors import CommitFailed, DamagedBlock
from idemfs.format import address as addresses
from idemfs.format.inode import LOCAL_SIZE
from idemfs.format.superblock import Superblock
from idemfs.limits import SECTOR_SIZE
from idemfs.snapshots import bring_back
from idemfs.store.files import create_files, open_files
from idemfs.store.store import Store
from idemfs.testing.blocks import CrashingBlocks, FaultyBlocks
from idemfs.testing.builders import assert_clean
from idemfs.testing.clock import Simulated
from idemfs.testing.faults import Cut, Faults, Kind
from idemfs.testing.kv import CrashingKV, FaultyKV
from idemfs.vfs.tree import Tree
from tests.crash.audit import assert_finished, audit
from tests.crash.disk import BLOCK_SIZE, Disk, new_disk, tighten
from tests.crash.dump import State, difference, dump_of, state_of
from tests.crash.workload import WORKLOADS, Hands, others

KINDS = (Kind.WRITE, Kind.SYNC, Kind.DISCARD, Kind.COMMIT)
SAMPLE_COUNT = 12
"""Of all calls of a kind, this many fail in a default run."""


class Host(NamedTuple):
    """Engines that lose what was not synced, with errors in front."""

    superblock: Superblock
    kv: CrashingKV
    blocks: CrashingBlocks
    clock: Simulated
    faults: Faults
    tree: Tree


def new_host() -> Host:
    disk, faults = new_disk(Cut()), Faults()
    kv, blocks = FaultyKV(disk.kv, faults), FaultyBlocks(disk.blocks, faults)
    tree = Tree(Store(disk.superblock, kv, blocks, disk.clock))
    tree.sync()
    return Host(disk.superblock, disk.kv, disk.blocks, disk.clock, faults, tree)


def carry_out(workload: str) -> tuple[list[State], list[int], Host]:
    """The states when nothing fails; for each step the last durable one before it; a host that has counted calls."""
    host = new_host()
    states, durable, last_durable = [state_of(host.tree)], [0], 0
    for step in WORKLOADS[workload](Hands(host.tree)):
        step.run()
        host.clock.advance(1)
        durable.append(last_durable)
        states.append(state_of(host.tree))
        if step.durable:
            last_durable = len(states) - 1
    return states, durable, host


def carry_out_with_an_error(workload: str, kind: Kind, number: int, states: list[State], durable: list[int]) -> None:
    """One call fails. Either the operation says so, and does nothing; or the store takes no more changes."""
    host = new_host()
    host.faults.add(kind, errno.EIO, after=number - host.faults.counts[kind])
    for count, step in enumerate(WORKLOADS[workload](Hands(host.tree)), 1):
        try:
            step.run()
        except CommitFailed as error:
            assert "Input/output error" in str(error)
            assert_closed(host, states[durable[count] : count + 1], states[count - 1], step.name)
            return
        except OSError as error:
            assert error.errno == errno.EIO
            assert kind is Kind.WRITE, "only the group as a whole can notice this"
            if step.name.startswith("rollback"):
                # It has begun, and goes on when the store is opened.
                assert_closed(host, [states[count]], states[count - 1], step.name)
                return
            now = state_of(host.tree)
            before = states[count - 1]
            assert others(now.snapshots, step.name) == others(before.snapshots, step.name), difference(before, now)
            step.run()
        host.clock.advance(1)
    assert kind in (Kind.WRITE, Kind.DISCARD), "nobody was told"
    assert state_of(host.tree) == states[-1], difference(states[-1], state_of(host.tree))
    host.tree.sync()
    audit(host.tree)


def assert_closed(host: Host, allowed: list[State], before: State, step: str) -> None:
    """No change is taken any more, reading goes on, and the next opening finds the last committed group."""
    hands = Hands(host.tree)
    for change in (lambda: hands.mkdir("x"), lambda: hands.unlink("a/large"), hands.sync, lambda: hands.take("x")):
        with pytest.raises(CommitFailed, match="open it again"):
            change()
    for snapshot in host.tree.store.catalog.snapshots(host.tree.fileset):
        if snapshot.name in others(before.snapshots, step):
            assert dump_of(host.tree.snapshot_reader(snapshot)) == before.snapshots[snapshot.name]
    host.tree.store.close()
    rng = Random(1)
    tree = Disk(host.superblock, host.kv.crash(rng), host.blocks.crash(rng), CrashingBlocks(), host.clock).open()
    found = state_of(tree)
    if found not in allowed and not is_between(found, allowed):
        pytest.fail("\n".join(difference(state, found) for state in allowed))
    tree.sync()
    assert_finished(tree)
    audit(tree)


def is_between(found: State, allowed: list[State]) -> bool:
    """A restore takes its snapshot first."""
    return len(allowed) > 1 and found == State(allowed[-2].active, allowed[-1].snapshots)


@pytest.fixture(autouse=True)
def tight(monkeypatch: pytest.MonkeyPatch) -> None:
    tighten(monkeypatch)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.value)
@pytest.mark.parametrize("workload", WORKLOADS)
def test_an_error_of_the_disk_is_told_and_loses_nothing_that_was_durable(workload: str, kind: Kind, seed: int) -> None:
    states, durable, host = carry_out(workload)
    numbers = range(new_host().faults.counts[kind] + 1, host.faults.counts[kind] + 1)
    for number in sorted(Random(seed).sample(numbers, min(SAMPLE_COUNT, len(numbers)))):
        carry_out_with_an_error(workload, kind, number, states, durable)


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.value)
@pytest.mark.parametrize("workload", WORKLOADS)
def test_every_call_fails_once(workload: str, kind: Kind) -> None:
    states, durable, host = carry_out(workload)
    for number in range(new_host().faults.counts[kind] + 1, host.faults.counts[kind] + 1):
        carry_out_with_an_error(workload, kind, number, states, durable)


# -- other bytes than were written -----------------------------------------------------------------------------------


def damage(disk: Disk | Store, address: int) -> None:
    """Flip one bit of the stored block, in the engine itself."""
    blocks = disk.blocks
    sector, size = addresses.sector_of(address), addresses.stored_size_of(address)
    stored = bytearray(blocks.read(sector, size))
    stored[size // 2] ^= 4
    blocks.write(sector, stored)


def damaged_file(compression: str) -> tuple[Hands, bytes]:
    """``dir/file`` of three blocks, the second of which is damaged; a snapshot has it, too."""
    disk = new_disk(Cut(), compression=compression)
    hands = Hands(disk.open())
    hands.mkdir("dir")
    hands.write("dir/file", 0, 3 * BLOCK_SIZE - 100)
    ino = hands.at("dir/file")
    content = hands.tree.reader.read(ino, 0, 3 * BLOCK_SIZE)
    hands.take("before")
    damage(disk, hands.tree.active.block(ino, 1)[0])
    tree = Tree(Store(disk.superblock, disk.kv, disk.blocks, disk.clock))
    return Hands(tree), content


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_a_damaged_block_is_never_data(compression: str) -> None:
    hands, content = damaged_file(compression)
    tree = hands.tree
    ino = hands.at("dir/file")
    for reader in (tree.reader, tree.snapshot_reader(tree.store.catalog.by_name(tree.fileset, "before"))):
        for offset, size in ((0, 3 * BLOCK_SIZE), (BLOCK_SIZE, 1), (2 * BLOCK_SIZE - 1, 1), (BLOCK_SIZE - 1, 2)):
            with pytest.raises(DamagedBlock, match=r"/dir/file: block 1 is damaged") as caught:
                reader.read(ino, offset, size)
            assert caught.value.errno == errno.EIO
        assert reader.read(ino, 0, BLOCK_SIZE) == content[:BLOCK_SIZE]
        assert reader.read(ino, 2 * BLOCK_SIZE, BLOCK_SIZE) == content[2 * BLOCK_SIZE :]


def test_a_change_of_a_part_of_a_damaged_block_is_refused_and_changes_nothing() -> None:
    hands, _ = damaged_file("none")
    tree, ino = hands.tree, hands.at("dir/file")
    node = tree.reader.inode(ino).pack()
    for change in (
        lambda: tree.write(ino, BLOCK_SIZE + 5, b"part"),
        lambda: tree.truncate(ino, BLOCK_SIZE + 5),
        lambda: tree.punch(ino, BLOCK_SIZE + 5, 10),
        lambda: tree.punch(ino, 100, BLOCK_SIZE),
    ):
        with pytest.raises(DamagedBlock, match="/dir/file"):
            change()
        with pytest.raises(DamagedBlock):
            tree.reader.read(ino, BLOCK_SIZE, 1)
    assert tree.reader.inode(ino).pack()[LOCAL_SIZE:] == node[LOCAL_SIZE:]
    tree.sync()
    audit(tree)


def test_a_damaged_block_can_be_overwritten_cut_off_and_removed() -> None:
    for change in ("write", "truncate", "punch", "unlink"):
        hands, content = damaged_file("none")
        tree, ino = hands.tree, hands.at("dir/file")
        expected: bytes | None = None
        match change:
            case "write":
                tree.write(ino, BLOCK_SIZE, b"n" * BLOCK_SIZE)
                expected = content[:BLOCK_SIZE] + b"n" * BLOCK_SIZE + content[2 * BLOCK_SIZE :]
            case "truncate":
                tree.truncate(ino, BLOCK_SIZE)
                expected = content[:BLOCK_SIZE]
            case "punch":
                tree.punch(ino, BLOCK_SIZE, BLOCK_SIZE)
                expected = content[:BLOCK_SIZE] + bytes(BLOCK_SIZE) + content[2 * BLOCK_SIZE :]
            case _:
                hands.unlink("dir/file")
        tree.sync()
        if expected is not None:
            assert tree.reader.read(ino, 0, 3 * BLOCK_SIZE) == expected
        with pytest.raises(DamagedBlock):
            dump_of(tree.snapshot_reader(tree.store.catalog.by_name(tree.fileset, "before")))
        hands.drop("before")
        assert_clean(tree)


@pytest.mark.parametrize("way", ["restore", "rollback"])
def test_a_store_that_goes_back_to_a_damaged_tail_block_still_opens(way: str) -> None:
    """The block cannot be cut to the size that it had, and need not be: nobody reads it."""
    disk = new_disk(Cut())
    hands = Hands(disk.open())
    hands.write("file", 0, 100 + SECTOR_SIZE)
    hands.write("other", 0, BLOCK_SIZE)
    hands.take("before")
    other = hands.tree.reader.read(hands.at("other"), 0, BLOCK_SIZE)
    hands.append("file", 2000)
    hands.write("other", 0, BLOCK_SIZE)
    hands.sync()
    damage(disk, hands.tree.active.block(hands.at("file"), 0)[0])
    tree = Tree(Store(disk.superblock, disk.kv, disk.blocks, disk.clock))
    hands = Hands(tree)
    if way == "restore":
        hands.restore("before", "undo")
    else:
        hands.rollback()
    tree = Tree(Store(disk.superblock, disk.kv, disk.blocks, disk.clock))
    hands = Hands(tree)
    assert tree.reader.read(hands.at("other"), 0, BLOCK_SIZE) == other
    assert tree.reader.inode(hands.at("file")).size == 100 + SECTOR_SIZE
    with pytest.raises(DamagedBlock, match="/file"):
        tree.reader.read(hands.at("file"), 0, 10)
    hands.unlink("file")
    hands.sync()


def test_the_snapshot_is_whole_for_its_readers_while_a_rollback_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    hands = Hands(new_disk(Cut()).open())
    hands.mkdir("dir")
    hands.write("dir/file", 0, 2 * BLOCK_SIZE)
    hands.write("tail", 0, 5000)
    hands.take("before")
    tree = hands.tree
    reader = tree.snapshot_reader(tree.store.catalog.by_name(tree.fileset, "before"))
    before = dump_of(reader)
    hands.append("tail", 3000)
    hands.write("dir/file", 100, 300)
    hands.rename("dir/file", "dir/other")
    hands.write("dir/new", 0, 100)
    roll_back_inode = bring_back._roll_back_inode
    turns: list[int] = []

    def roll_back_and_look(*arguments: Any) -> None:
        roll_back_inode(*arguments)
        turns.append(1)
        assert dump_of(reader) == before

    monkeypatch.setattr(bring_back, "_roll_back_inode", roll_back_and_look)
    hands.rollback()
    assert len(turns) == 4
    assert dump_of(tree.reader) == before


def test_a_flipped_bit_in_a_file_of_the_host_is_found(tmp_path: Path) -> None:
    path = str(tmp_path / "store")
    create_files(path, block_size=BLOCK_SIZE)
    tree = Tree(open_files(path, background=False))
    hands = Hands(tree)
    hands.write("file", 0, 20 * BLOCK_SIZE)
    ino = hands.at("file")
    content = tree.reader.read(ino, 0, 20 * BLOCK_SIZE)
    blocks = [tree.active.block(ino, number)[0] for number in range(20)]
    tree.store.close()
    segment = tmp_path / "store" / "blocks" / "00000000.seg"
    stored = bytearray(segment.read_bytes())
    for number in Random(3).sample(range(20), 5):
        place = addresses.sector_of(blocks[number]) * SECTOR_SIZE + 77 * number
        stored[place] ^= 1 << number % 8
        segment.write_bytes(stored)
        tree = Tree(open_files(path, background=False))
        with pytest.raises(DamagedBlock, match=f"/file: block {number} "):
            tree.reader.read(ino, 0, 20 * BLOCK_SIZE)
        tree.store.close()
        stored[place] ^= 1 << number % 8
        segment.write_bytes(stored)
    tree = Tree(open_files(path, background=False))
    assert tree.reader.read(ino, 0, 20 * BLOCK_SIZE) == content
    tree.store.close()
