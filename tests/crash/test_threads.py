"""Many threads on one store, whose groups are committed in the background all the time.

Writers change their own files, and know what is in them; others take snapshots, read them again and again while
everything around them changes, and delete them in any order.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from random import Random

import pytest

from idemfs.engines.blocks.memory import MemoryBlocks
from idemfs.engines.kv.memory import MemoryKV
from idemfs.format.tables import Snapshot
from idemfs.ids import Ino
from idemfs.snapshots import delete, manage
from idemfs.store import intents
from idemfs.store import store as store_module
from idemfs.store.files import first_records, new_superblock
from idemfs.store.store import Store
from idemfs.testing.builders import assert_clean
from idemfs.testing.clock import Simulated
from idemfs.vfs.tree import Tree
from tests.crash.audit import audit
from tests.crash.dump import Dump, dump_of

BLOCK_SIZE = 4096


class Writer:
    """Files in a directory of its own, and what they hold."""

    def __init__(self, tree: Tree, number: int, seed: int) -> None:
        self.tree = tree
        self.rng = Random(seed << 8 | number)
        self.directory = tree.create(tree.root, b"writer %d" % number, 0o40755, 0, 0)
        self.inos: dict[bytes, Ino] = {}
        self.contents: dict[bytes, bytearray] = {}

    def write_much(self, count: int) -> None:
        for turn in range(count):
            name = b"file %d" % self.rng.randrange(8)
            if name not in self.inos:
                self.inos[name] = self.tree.create(self.directory, name, 0o100644, 0, 0)
                self.contents[name] = bytearray()
            self.change(name, self.inos[name], self.contents[name])
            if turn % 50 == 0:
                self.tree.sync()
        for name, content in self.contents.items():
            assert self.tree.reader.read(self.inos[name], 0, 1 << 20) == content

    def change(self, name: bytes, ino: Ino, content: bytearray) -> None:
        kind = self.rng.randrange(10)
        if kind < 5:
            offset, data = self.rng.randint(0, len(content)), self.rng.randbytes(self.rng.randint(1, 2 * BLOCK_SIZE))
            assert self.tree.write(ino, offset, data) == len(data)
            content[offset : offset + len(data)] = data
        elif kind < 7:
            size = self.rng.randint(0, len(content) + 50)
            self.tree.truncate(ino, size)
            content[:] = content[:size].ljust(size, b"\0")
        elif kind < 9:
            assert self.tree.reader.read(ino, 0, 1 << 20) == content
        else:
            self.tree.unlink(self.directory, name)
            del self.inos[name], self.contents[name]


def take_and_delete(tree: Tree, number: int, seed: int, count: int) -> None:
    rng = Random(seed << 8 | number)
    held: dict[Snapshot, Dump] = {}
    for turn in range(count):
        taken = manage.create(tree.store, tree.fileset, f"snapshot {number}-{turn}")
        held[taken] = dump_of(tree.snapshot_reader(taken))
        for snapshot, dump in held.items():
            assert dump_of(tree.snapshot_reader(snapshot)) == dump
        if len(held) > 3:
            # Often the newest one, into which others preserve meanwhile.
            gone = rng.choice([taken, *held])
            del held[gone]
            delete.delete(tree.active, gone)


class Syncer:
    """Files that are written to and synced one by one, and what each held when it was synced last."""

    def __init__(self, tree: Tree, number: int, seed: int) -> None:
        self.tree = tree
        self.rng = Random(seed << 8 | number)
        self.inos = [tree.create(tree.root, b"synced %d %d" % (number, each), 0o100644, 0, 0) for each in range(3)]
        self.contents = {ino: bytearray(3 * BLOCK_SIZE) for ino in self.inos}
        self.synced: dict[Ino, bytes] = {}

    def write_much(self, count: int) -> None:
        for ino in self.inos:
            self.tree.write(ino, 0, self.contents[ino])
            self.synced[ino] = bytes(self.contents[ino])
        self.tree.sync()
        for turn in range(count):
            ino = self.rng.choice(self.inos)
            content = self.contents[ino]
            for _ in range(self.rng.randint(1, 3)):
                offset, data = self.rng.randrange(2 * BLOCK_SIZE), self.rng.randbytes(self.rng.randint(1, BLOCK_SIZE))
                self.tree.write(ino, offset, data)
                content[offset : offset + len(data)] = data
            if turn % 40 == 0:
                self.tree.truncate(ino, BLOCK_SIZE)
                content[BLOCK_SIZE:] = b""
                self.tree.truncate(ino, 3 * BLOCK_SIZE)
                content.extend(bytes(2 * BLOCK_SIZE))
            self.tree.sync_file(ino)
            self.synced[ino] = bytes(content)
        for ino in self.inos:
            # Never synced.
            self.tree.write(ino, 0, b"not durable")


@pytest.mark.parametrize("turns", [3, pytest.param(30, marks=pytest.mark.long)])
def test_what_many_threads_synced_is_there(turns: int, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "GROUP_RECORD_COUNT_MAX", 300)
    monkeypatch.setattr(intents, "LOG_HALF_SECTOR_COUNT", 40)
    clock, kv, blocks, log = Simulated(seed), MemoryKV(), MemoryBlocks(), MemoryBlocks()
    superblock = new_superblock(clock, BLOCK_SIZE, "none")
    first_records(kv, superblock.guid)
    tree = Tree(Store(superblock, kv, blocks, clock, log=log, background=True))
    syncers = [Syncer(tree, number, seed) for number in range(4)]
    with ThreadPoolExecutor(5) as pool:
        jobs = [pool.submit(syncer.write_much, 100 * turns) for syncer in syncers]
        jobs.append(pool.submit(take_and_delete, tree, 1, seed, turns))
        for job in jobs:
            job.result()
    tree.store.abandon()
    found = Tree(Store(superblock, kv, blocks, clock, log=log))
    for syncer in syncers:
        for ino, content in syncer.synced.items():
            # The group may have been sealed since: then what was never synced is there too.
            assert found.reader.read(ino, 0, 1 << 20) in (content, b"not durable" + content[11:])
    found.sync()
    audit(found)
    assert_clean(found)


@pytest.mark.parametrize("turns", [15, pytest.param(200, marks=pytest.mark.long)])
def test_nobody_sees_what_others_do(turns: int, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "GROUP_RECORD_COUNT_MAX", 300)
    monkeypatch.setattr(delete, "_STEP_RECORD_COUNT", 5)
    clock, kv = Simulated(seed), MemoryKV()
    superblock = new_superblock(clock, BLOCK_SIZE, "none")
    first_records(kv, superblock.guid)
    tree = Tree(Store(superblock, kv, MemoryBlocks(), clock, background=True))
    writers = [Writer(tree, number, seed) for number in range(3)]
    with ThreadPoolExecutor(5) as pool:
        jobs = [pool.submit(writer.write_much, 100 * turns) for writer in writers]
        jobs += [pool.submit(take_and_delete, tree, number, seed, turns) for number in range(2)]
        for job in jobs:
            job.result()
    tree.sync()
    audit(tree)
    assert_clean(tree)
    tree.store.close()
