"""Transaction groups: when they become durable, what goes on meanwhile, and what follows when they cannot."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from random import Random

import pytest

from idemfs.engines.blocks.memory import MemoryBlocks
from idemfs.engines.kv.api import Batch, Precondition, Table
from idemfs.engines.kv.memory import MemoryKV
from idemfs.errors import CommitFailed, NoSpace, SnapshotExists, SnapshotMissing
from idemfs.format import keys
from idemfs.format.tables import DELETING, unpack_snapshot
from idemfs.ids import Ino, SnapshotId
from idemfs.limits import GROUP_SECONDS
from idemfs.snapshots import delete, manage
from idemfs.store import store as store_module
from idemfs.store.files import first_records, new_superblock
from idemfs.store.store import Store
from idemfs.testing.blocks import FaultyBlocks
from idemfs.testing.clock import Simulated
from idemfs.testing.faults import Faults, Kind
from idemfs.testing.kv import FaultyKV
from idemfs.vfs.tree import Tree

PATIENCE_SECONDS = 60
BLOCK_SIZE = 4096


class GatedKV(MemoryKV):
    """Commits wait at a gate, which stands open at first."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.gate.set()
        self.arrived = threading.Semaphore(0)
        self.commit_count = 0

    def commit(
        self, batch: Batch, precondition: Precondition | None = None, on_written: Callable[[], None] | None = None
    ) -> None:
        if on_written is not None:
            on_written()
        self.arrived.release()
        assert self.gate.wait(PATIENCE_SECONDS)
        super().commit(batch, precondition)
        self.commit_count += 1

    @contextmanager
    def closed(self) -> Iterator[None]:
        """The gate is closed; what comes to it stays there."""
        while self.arrived.acquire(blocking=False):
            pass
        self.gate.clear()
        try:
            yield
        finally:
            self.gate.set()

    def wait_for_arrival(self) -> None:
        assert self.arrived.acquire(timeout=PATIENCE_SECONDS)


def new_tree(kv: MemoryKV | FaultyKV, blocks: MemoryBlocks | FaultyBlocks, clock: Simulated) -> Tree:
    """A tree whose groups a thread commits."""
    superblock = new_superblock(clock, BLOCK_SIZE, "none")
    first_records(kv, superblock.guid)
    return Tree(Store(superblock, kv, blocks, clock, background=True))


@pytest.fixture
def clock() -> Simulated:
    return Simulated()


@pytest.fixture
def kv() -> GatedKV:
    return GatedKV()


@pytest.fixture
def tree(kv: GatedKV, clock: Simulated) -> Iterator[Tree]:
    tree = new_tree(kv, MemoryBlocks(), clock)
    yield tree
    tree.store.close()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


def make(tree: Tree, name: bytes, content: bytes = b"") -> Ino:
    ino = tree.create(tree.root, name, 0o100644, 0, 0)
    if content:
        tree.write(ino, 0, content)
    return ino


def reopened(tree: Tree) -> Tree:
    """What another process would find now."""
    store = tree.store
    return Tree(Store(store.superblock, store.kv, store.blocks, store.clock, readonly=True))


def names(tree: Tree) -> list[bytes]:
    return [name for name, _, _ in tree.reader.all_entries(tree.root)]


def test_changes_go_on_while_a_group_is_being_committed(tree: Tree, kv: GatedKV, pool: ThreadPoolExecutor) -> None:
    content = Random(1).randbytes(3 * BLOCK_SIZE)
    with kv.closed():
        first = make(tree, b"first", content)
        synced = pool.submit(tree.sync)
        kv.wait_for_arrival()
        second = make(tree, b"second", content[::-1])
        tree.write(first, BLOCK_SIZE, b"changed")
        tree.rename(tree.root, b"first", tree.root, b"renamed")
        assert names(tree) == [b"renamed", b"second"]
        assert tree.reader.read(first, BLOCK_SIZE, 7) == b"changed"
        assert tree.reader.read(second, 0, len(content)) == content[::-1]
        assert not synced.done()
    synced.result(PATIENCE_SECONDS)
    durable = reopened(tree)
    assert names(durable) == [b"first"]
    assert durable.reader.read(durable.reader.lookup(tree.root, b"first"), 0, len(content)) == content
    tree.sync()
    assert names(reopened(tree)) == [b"renamed", b"second"]


def test_room_for_the_next_group_leaves_what_the_one_under_way_needs_and_not_what_it_might_have(
    tree: Tree, kv: GatedKV, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(kv, "reserve", lambda records, size: asked.append((records, size)))

    def change(name: bytes) -> tuple[int, int]:
        """What the engine is asked for, by an operation that might change much."""
        with tree.store.lock:
            tree.store.admit(5_000, 10_000_000)
            make(tree, name)
        return asked[-1]

    alone = change(b"first")
    with kv.closed():
        syncing = pool.submit(tree.sync)
        kv.wait_for_arrival()
        beside = change(b"second")
    syncing.result(PATIENCE_SECONDS)
    more = beside[0] - alone[0], beside[1] - alone[1]
    # An inode, an entry, and what every group changes.
    assert 3 <= more[0] < 50 and 100 <= more[1] < 5_000


def test_a_second_group_waits_for_the_first_and_both_are_durable_in_order(
    tree: Tree, kv: GatedKV, pool: ThreadPoolExecutor
) -> None:
    with kv.closed():
        make(tree, b"first")
        first = pool.submit(tree.sync)
        kv.wait_for_arrival()
        make(tree, b"second")
        second = pool.submit(tree.sync)
        assert not first.done()
        assert not second.done()
        assert names(reopened(tree)) == []
    first.result(PATIENCE_SECONDS)
    second.result(PATIENCE_SECONDS)
    assert names(reopened(tree)) == [b"first", b"second"]


def test_a_sync_with_nothing_to_commit_waits_for_the_group_under_way(
    tree: Tree, kv: GatedKV, pool: ThreadPoolExecutor
) -> None:
    with kv.closed():
        make(tree, b"file")
        tree.store.commit(wait=False)
        kv.wait_for_arrival()
        synced = pool.submit(tree.sync)
        assert names(reopened(tree)) == []
        assert not synced.done()
    synced.result(PATIENCE_SECONDS)
    assert names(reopened(tree)) == [b"file"]


def test_a_group_is_committed_when_its_time_has_come(tree: Tree, kv: GatedKV, clock: Simulated) -> None:
    with kv.closed():
        make(tree, b"file")
        clock.advance(GROUP_SECONDS)
        kv.wait_for_arrival()


def test_a_group_is_committed_when_it_is_large(tree: Tree, kv: GatedKV, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "GROUP_RECORD_COUNT_MAX", 100)
    with kv.closed():
        for number in range(20):
            make(tree, b"%d" % number)
        kv.wait_for_arrival()


def test_the_time_of_a_group_begins_with_its_first_change(
    tree: Tree, kv: GatedKV, clock: Simulated, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not with that of the group before it, which was sealed because it was large."""
    monkeypatch.setattr(store_module, "GROUP_RECORD_COUNT_MAX", 100)
    make(tree, b"file")
    clock.advance(GROUP_SECONDS - 1)
    sequence = tree.store._sealed_sequence
    number = 0
    while tree.store._sealed_sequence == sequence:
        make(tree, b"%d" % number)
        number += 1
    clock.advance(2)
    with tree.store.lock:
        assert tree.store.dirty
        assert not tree.store._is_due()


def test_a_commit_that_fails_in_the_background_is_told_to_whoever_waits_and_whoever_comes_later(
    clock: Simulated, pool: ThreadPoolExecutor
) -> None:
    records, faults = MemoryKV(), Faults()
    tree = new_tree(FaultyKV(records, faults), MemoryBlocks(), clock)
    make(tree, b"kept")
    tree.sync()
    faults.add(Kind.COMMIT, errno.EIO)
    ino = make(tree, b"lost", b"some content")
    with pytest.raises(CommitFailed, match="open it again"):
        tree.sync()
    for change in (lambda: make(tree, b"later"), tree.sync, lambda: tree.write(ino, 0, b"x")):
        with pytest.raises(CommitFailed, match="Input/output error"):
            change()
    assert tree.reader.read(ino, 0, 100) == b"some content"
    tree.touch_atime(ino)
    tree.store.close()
    assert names(reopened(tree)) == [b"kept"]


def test_a_commit_that_fails_by_time_is_told_to_the_next_change(clock: Simulated) -> None:
    faults = Faults()
    tree = new_tree(FaultyKV(MemoryKV(), faults), MemoryBlocks(), clock)
    faults.add(Kind.COMMIT, errno.EIO)
    make(tree, b"lost")
    clock.advance(GROUP_SECONDS)
    with tree.store.lock:
        assert tree.store._done.wait_for(lambda: tree.store._failure is not None, PATIENCE_SECONDS)
    with pytest.raises(CommitFailed):
        make(tree, b"later")
    tree.store.close()


@pytest.mark.parametrize("failure", [OSError(errno.EIO, "lost"), ValueError("our own mistake"), NoSpace("full")])
@pytest.mark.parametrize("by_time", [False, True])
def test_a_group_that_cannot_be_sealed_ends_the_changes(tree: Tree, failure: Exception, by_time: bool) -> None:
    def fail() -> None:
        raise failure

    make(tree, b"durable")
    tree.sync()
    tree.store.before_seal.append(fail)
    make(tree, b"lost")
    if by_time:
        clock = tree.store.clock
        assert isinstance(clock, Simulated)
        clock.advance(GROUP_SECONDS)
        with tree.store.lock:
            assert tree.store._done.wait_for(lambda: tree.store._failure is not None, PATIENCE_SECONDS)
    for _ in range(2):
        with pytest.raises(CommitFailed, match=str(failure.args[-1])):
            tree.sync()
    tree.store.before_seal.remove(fail)
    with pytest.raises(CommitFailed):
        make(tree, b"later")
    assert names(reopened(tree)) == [b"durable"]


def test_a_block_that_cannot_be_written_is_not_forgotten(clock: Simulated) -> None:
    """It waits in memory, so that the group that needs it fails, instead of being committed without it."""
    faults = Faults()
    tree = new_tree(MemoryKV(), FaultyBlocks(MemoryBlocks(), faults), clock)
    ino = make(tree, b"file", b"old" * 1000)
    tree.sync()
    tree.write(ino, 0, b"new")
    faults.add(Kind.WRITE, errno.EIO)
    with pytest.raises(CommitFailed):
        tree.sync()
    with pytest.raises(CommitFailed):
        tree.sync()
    tree.store.close()
    durable = reopened(tree)
    assert durable.reader.read(durable.reader.lookup(tree.root, b"file"), 0, 6) == b"oldold"


def test_a_process_that_is_interrupted_in_a_commit_can_still_close() -> None:
    """An interrupt is no error of the store, but what it was doing is unknown: nothing more is committed."""

    class InterruptedKV(MemoryKV):
        is_interrupted = False

        def commit(
            self,
            batch: Batch,
            precondition: Precondition | None = None,
            on_written: Callable[[], None] | None = None,
        ) -> None:
            if self.is_interrupted:
                raise KeyboardInterrupt
            super().commit(batch, precondition, on_written)

    kv, clock = InterruptedKV(), Simulated()
    superblock = new_superblock(clock, BLOCK_SIZE, "none")
    first_records(kv, superblock.guid)
    tree = Tree(Store(superblock, kv, MemoryBlocks(), clock))
    make(tree, b"first")
    kv.is_interrupted = True
    with pytest.raises(KeyboardInterrupt):
        tree.sync()
    kv.is_interrupted = False
    with pytest.raises(CommitFailed, match="KeyboardInterrupt"):
        make(tree, b"second")
    tree.store.close()
    assert names(reopened(tree)) == []


def test_an_operation_that_is_interrupted_halfway_is_never_committed() -> None:
    """Not when the store is closed either, which the interrupt leads to."""

    class InterruptingClock(Simulated):
        def __init__(self) -> None:
            super().__init__()
            self.countdown = 1 << 30

        def now_ns(self) -> int:
            self.countdown -= 1
            if not self.countdown:
                raise KeyboardInterrupt
            return super().now_ns()

    clock, kv = InterruptingClock(), MemoryKV()
    superblock = new_superblock(clock, BLOCK_SIZE, "none")
    first_records(kv, superblock.guid)
    tree = Tree(Store(superblock, kv, MemoryBlocks(), clock))
    make(tree, b"durable")
    tree.sync()
    make(tree, b"not durable")
    clock.countdown = 1
    with pytest.raises(KeyboardInterrupt):
        make(tree, b"halfway")
    with pytest.raises(CommitFailed, match="KeyboardInterrupt"):
        tree.sync()
    tree.store.close()
    assert names(reopened(tree)) == [b"durable"]


def test_an_interrupt_elsewhere_takes_nothing_back(tree: Tree) -> None:
    make(tree, b"file")
    with pytest.raises(KeyboardInterrupt):
        raise KeyboardInterrupt
    tree.store.close()
    assert names(reopened(tree)) == [b"file"]


def test_a_store_that_was_let_go_refuses_instead_of_waiting_for_ever(tree: Tree) -> None:
    make(tree, b"file")
    tree.store.abandon()
    for change in (tree.sync, lambda: make(tree, b"other")):
        with pytest.raises(CommitFailed, match="closed"):
            change()


def test_space_that_the_host_does_not_take_back_is_no_failure(clock: Simulated) -> None:
    faults = Faults()
    tree = new_tree(MemoryKV(), FaultyBlocks(MemoryBlocks(), faults), clock)
    make(tree, b"file", bytes(range(256)) * 4096)
    tree.sync()
    faults.add(Kind.DISCARD, errno.EIO)
    tree.unlink(tree.root, b"file")
    tree.sync()
    assert faults.counts[Kind.DISCARD] == 1
    make(tree, b"next")
    tree.store.close()
    assert names(reopened(tree)) == [b"next"]


def test_one_of_several_threads_gets_a_snapshot_of_one_name(
    tree: Tree, kv: GatedKV, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = threading.Semaphore(0)
    wait = tree.store._done.wait

    def wait_and_tell(timeout: float | None = None) -> bool:
        waiting.release()
        return wait(timeout)

    def take() -> bool:
        try:
            manage.create(tree.store, tree.fileset, "monday")
        except SnapshotExists:
            return False
        return True

    with kv.closed():
        make(tree, b"file")
        tree.store.commit(wait=False)
        kv.wait_for_arrival()
        monkeypatch.setattr(tree.store._done, "wait", wait_and_tell)
        taken = [pool.submit(take) for _ in range(3)]
        for _ in taken:
            assert waiting.acquire(timeout=PATIENCE_SECONDS)
    assert sorted(each.result(PATIENCE_SECONDS) for each in taken) == [False, False, True]
    assert [snapshot.name for snapshot in tree.store.catalog.snapshots(tree.fileset)] == ["monday"]


def test_a_snapshot_is_deleted_once(tree: Tree) -> None:
    snapshot = manage.create(tree.store, tree.fileset, "monday")
    delete.delete(tree.active, snapshot)
    with pytest.raises(SnapshotMissing):
        delete.delete(tree.active, snapshot)


def test_what_is_changed_between_two_steps_of_a_deletion_is_durable_with_it(tree: Tree) -> None:
    """The step that seals the open group admits its own changes to the next one."""
    ino = make(tree, b"file", bytes(range(256)) * 64)
    snapshot = manage.create(tree.store, tree.fileset, "monday")
    tree.write(ino, 0, b"changed")
    step = delete._step
    calls: list[int] = []

    def step_with_company(*arguments: object) -> bool:
        assert tree.store.dirty
        went_on = step(*arguments)  # type: ignore[arg-type]
        if not calls:
            # As another thread does, when the lock is free between two steps.
            calls.append(tree.write(ino, 0, b"again"))
        return went_on

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(delete, "_step", step_with_company)
        delete.delete(tree.active, snapshot)
    tree.sync()
    tree.store.abandon()
    assert tree.store.kv.get(Table.SMALL, keys.snapshot(tree.fileset, snapshot.id)) is None


def test_a_deletion_is_durable_before_what_it_frees_is(tree: Tree) -> None:
    make(tree, b"file")
    snapshot = manage.create(tree.store, tree.fileset, "monday")
    tree.unlink(tree.root, b"file")
    delete.delete(tree.active, snapshot)
    tree.store.abandon()
    durable = tree.store.kv.get(Table.SMALL, keys.snapshot(tree.fileset, snapshot.id))
    assert durable is not None
    assert unpack_snapshot(tree.fileset, snapshot.id, durable).state == DELETING
    assert names(reopened(tree)) == []
    assert not reopened(tree).store.catalog.snapshots(tree.fileset)


def test_who_has_the_store_alone_keeps_others_out_of_a_group_that_has_room(
    tree: Tree, pool: ThreadPoolExecutor
) -> None:
    make(tree, b"a")
    with tree.store.exclusive():
        make(tree, b"b")
        other = pool.submit(make, tree, b"c")
        # The thread that commits waits as well.
        while not other.done() and len(tree.store._done._waiters) < 2:  # type: ignore[attr-defined]
            # Lets the other in, as waiting for a commit would.
            tree.store._done.wait(0.01)
        assert not other.done()
        assert names(tree) == [b"a", b"b"]
    other.result(PATIENCE_SECONDS)
    assert names(tree) == [b"a", b"b", b"c"]


def test_who_needs_only_durability_does_not_wait_for_the_host(clock: Simulated, pool: ThreadPoolExecutor) -> None:
    """What a group gave up goes back to the host after its commit, and is handed out only then."""

    class SlowBlocks(MemoryBlocks):
        def __init__(self) -> None:
            super().__init__()
            self.arrived, self.gate = threading.Event(), threading.Event()

        def discard(self, runs: Sequence[tuple[int, int]]) -> None:
            self.arrived.set()
            assert self.gate.wait(PATIENCE_SECONDS)
            super().discard(runs)

    blocks = SlowBlocks()
    tree = new_tree(MemoryKV(), blocks, clock)
    ino = make(tree, b"file", Random(1).randbytes(64 * BLOCK_SIZE))
    tree.sync()
    free_before = tree.store.space.free_sectors()
    tree.truncate(ino, 0)
    try:
        snapshot = pool.submit(manage.create, tree.store, tree.fileset, "taken").result(PATIENCE_SECONDS)
        assert blocks.arrived.wait(PATIENCE_SECONDS)
        assert unpack_snapshot(tree.fileset, snapshot.id, durable_snapshot(tree, snapshot.id)).name == "taken"
        sync = pool.submit(tree.sync)
        make(tree, b"meanwhile", Random(2).randbytes(BLOCK_SIZE))
        assert tree.store.space.free_sectors() <= free_before and not sync.done()
    finally:
        blocks.gate.set()
    sync.result(PATIENCE_SECONDS)
    assert tree.store.space.free_sectors() >= free_before + 60
    tree.store.close()


def durable_snapshot(tree: Tree, snapshot: SnapshotId) -> bytes:
    value = tree.store.kv.get(Table.SMALL, keys.snapshot(tree.fileset, snapshot))
    assert value is not None
    return value
