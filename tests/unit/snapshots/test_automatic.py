"""Schedules carried out on a store: taking, catching up, pruning, locks, crashes, roles."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from random import Random

import pytest

from idemfs import FileSystem
from idemfs.api.schedule import Policy
from idemfs.engines.blocks.memory import MemoryBlocks
from idemfs.engines.kv.api import Table
from idemfs.errors import BadPolicy, Damaged, FormatTooNew, NoSpace, SnapshotHeld, SnapshotLocked
from idemfs.format import keys, role
from idemfs.format.role import Role, RoleRecord
from idemfs.ids import ROOT_FILESET
from idemfs.snapshots import automatic, manage, policy, received
from idemfs.store.store import Store
from idemfs.testing.blocks import CrashingBlocks
from idemfs.testing.builders import assert_clean, memory_store, reopened
from idemfs.testing.clock import Simulated
from idemfs.testing.faults import Cut, PowerCut
from idemfs.testing.kv import CrashingKV
from idemfs.vfs.tree import Tree

HOUR, DAY = 3600, 86_400
HOURLY = Policy(every_seconds=HOUR)


@pytest.fixture
def clock() -> Simulated:
    return Simulated()


@pytest.fixture
def fs(clock: Simulated) -> Iterator[FileSystem]:
    with FileSystem(Tree(memory_store(clock=clock))) as fs:
        yield fs
        fs.sync()
        assert_clean(fs.tree)


def names(fs: FileSystem) -> list[str]:
    return [info.name for info in fs.snapshots]


def taken(fs: FileSystem) -> str | None:
    """One step of the schedule; the name of the snapshot that it took."""
    snapshot = fs.snapshots.schedule.run_due().taken
    return None if snapshot is None else snapshot.name


def test_nothing_is_due_when_a_policy_is_set_and_then_once_an_hour(fs: FileSystem, clock: Simulated) -> None:
    assert fs.snapshots.schedule.policy == Policy() and taken(fs) is None
    fs.snapshots.schedule.set(HOURLY)
    due = fs.snapshots.schedule.next_due()
    assert due is not None and taken(fs) is None
    clock.advance(due.timestamp() - clock.now_ns() / 1e9)
    assert taken(fs) == due.strftime("auto-%Y-%m-%dT%H-00-00Z")
    assert taken(fs) is None
    clock.advance(50 * HOUR + 10)
    assert taken(fs) == (due + timedelta(hours=50)).strftime("auto-%Y-%m-%dT%H-00-00Z")
    assert taken(fs) is None and len(names(fs)) == 2


def test_a_policy_outlives_a_crash_and_so_does_what_was_done(clock: Simulated) -> None:
    tree = Tree(memory_store(clock=clock))
    fs = FileSystem(tree)
    fs.snapshots.schedule.set(HOURLY)
    clock.advance(HOUR)
    assert taken(fs) is not None
    fs = FileSystem(reopened(tree, committed=False))
    assert fs.snapshots.schedule.policy == HOURLY
    assert taken(fs) is None and len(names(fs)) == 1
    fs.close()


def test_a_snapshot_and_that_it_was_taken_are_one_group(clock: Simulated) -> None:
    store = memory_store(clock=clock)
    fs = FileSystem(Tree(store))
    fs.snapshots.schedule.set(HOURLY._replace(lock_seconds=60))
    clock.advance(HOUR)
    batches = []
    commit = store.kv.commit

    def noted(batch: dict[Table, dict[bytes, bytes | None]], *others: object) -> None:
        batches.append(batch[Table.SMALL])
        commit(batch, *others)  # type: ignore[arg-type]

    store.kv.commit = noted  # type: ignore[method-assign, assignment]
    assert taken(fs) is not None
    with_snapshot = [batch for batch in batches if any(key[:1] == b"s" for key in batch)]
    assert len(with_snapshot) == 1 and keys.schedule_state(ROOT_FILESET) in with_snapshot[0]
    assert any(key[:1] == b"L" for key in with_snapshot[0])


def test_wherever_the_power_goes_each_due_time_has_one_snapshot() -> None:
    rules = Policy(every_seconds=HOUR, keep_last=2, lock_seconds=60)
    outcomes = set()
    count = 0
    while "done" not in outcomes:
        count += 1
        kv, blocks = CrashingKV(), CrashingBlocks()
        clock = Simulated()
        fs = FileSystem(Tree(memory_store(clock=clock, kv=kv, blocks=blocks)))
        fs.snapshots.schedule.set(rules)
        for turn in range(3):
            fs.write_bytes("/f", bytes([turn + 1]) * 20_000)
            clock.advance(HOUR)
            due = taken(fs)
        fs.write_bytes("/f", b"last" * 5000)
        fs.close()
        before = names(fs)
        clock.advance(HOUR)
        cut = Cut(count)
        crashing, sectors = kv.crash(Random(count), cut), blocks.crash(Random(count), cut)
        superblock = fs.tree.store.superblock
        fs = FileSystem(Tree(Store(superblock, crashing, sectors, clock)))
        try:
            due = taken(fs)
            fs.sync()
            outcomes.add("done")
        except PowerCut:
            fs.tree.store.abandon()
            fs = FileSystem(Tree(Store(superblock, crashing.crash(Random(3)), sectors.crash(Random(3)), clock)))
            is_there = names(fs) != before
            outcomes.add("taken" if is_there else "not taken")
            again = taken(fs)
            # What was taken is not taken again, and what was not is not forgotten.
            assert (again is None) == is_there
        assert len(names(fs)) == 2 and names(fs)[0] == before[-1] and due not in before[:-1]
        assert fs.snapshots.locked_until(names(fs)[-1]) is not None
        fs.sync()
        assert_clean(fs.tree)
        fs.close()
    assert outcomes == {"done", "taken", "not taken"}


def test_a_clock_that_was_ahead_does_not_stop_the_schedule(fs: FileSystem, clock: Simulated) -> None:
    fs.snapshots.schedule.set(HOURLY)
    clock.jump(10 * 365 * DAY)
    assert taken(fs) is not None
    clock.jump(-10 * 365 * DAY)
    assert taken(fs) is None
    clock.advance(HOUR)
    assert taken(fs) is not None


def test_a_time_that_comes_again_after_the_clock_was_set_back_gets_another_name(
    fs: FileSystem, clock: Simulated
) -> None:
    fs.snapshots.schedule.set(HOURLY)
    clock.advance(HOUR)
    first = taken(fs)
    clock.jump(-HOUR)
    assert taken(fs) is None
    clock.advance(HOUR)
    assert taken(fs) == f"{first}-2"
    assert [each.keeps for each in fs.snapshots.schedule.plan(Policy(keep_last=1))] == [False, True]


def test_bytes_that_changed_make_one_due(fs: FileSystem, clock: Simulated) -> None:
    fs.snapshots.schedule.set(Policy(after_bytes=10_000))
    assert fs.snapshots.schedule.next_due() is None
    fs.write_bytes("/a", b"1" * 9000)
    clock.advance(5)
    assert taken(fs) is None
    fs.write_bytes("/b", b"2" * 1500)
    assert taken(fs) is not None
    clock.advance(5)
    assert taken(fs) is None
    fs.write_bytes("/a", b"3" * 9000)
    fs.write_bytes("/b", b"4" * 1500)
    assert taken(fs) is not None


def test_pruning_keeps_by_rule_and_never_what_others_need(fs: FileSystem, clock: Simulated) -> None:
    fs.snapshots.create("by-hand")
    fs.snapshots.schedule.set(Policy(every_seconds=HOUR, keep_last=2))
    for turn in range(3):
        clock.advance(HOUR)
        assert taken(fs) is not None
        if turn == 0:
            held = names(fs)[-1]
            fs.snapshots.hold(held, "backup", 10 * HOUR)
    for _ in range(3):
        clock.advance(HOUR)
        fs.snapshots.schedule.run_due()
    assert names(fs)[:2] == ["by-hand", held] and len(names(fs)) == 4
    reasons = {each.snapshot.name: each.reason for each in fs.snapshots.schedule.plan()}
    assert reasons["by-hand"] == "not taken automatically" and "held by backup" in reasons[held]
    clock.advance(9 * HOUR)
    fs.snapshots.schedule.run_due()
    assert held not in names(fs)


def test_what_was_renamed_is_nobodys_but_the_users(fs: FileSystem, clock: Simulated) -> None:
    fs.snapshots.schedule.set(Policy(every_seconds=HOUR, keep_last=1))
    clock.advance(HOUR)
    name = taken(fs)
    assert name is not None
    fs.snapshots.rename(name, "wanted")
    for _ in range(3):
        clock.advance(HOUR)
        taken(fs)
    assert names(fs)[0] == "wanted" and len(names(fs)) == 2


def test_expired_holds_are_dropped(fs: FileSystem, clock: Simulated) -> None:
    fs.snapshots.create("a")
    fs.snapshots.hold("a", "short", 10)
    fs.snapshots.hold("a", "long")
    fs.snapshots.schedule.set(Policy(keep_last=1))
    clock.advance(11)
    fs.snapshots.schedule.prune()
    # Whoever sets the clock back now does not bring it back.
    clock.jump(-11)
    assert fs.snapshots.holders("a") == ["long"]


def test_what_is_said_to_come_back_comes_back(clock: Simulated) -> None:
    blocks = MemoryBlocks()
    with FileSystem(Tree(memory_store(clock=clock, blocks=blocks))) as fs:
        fs.snapshots.schedule.set(Policy(every_seconds=HOUR))
        for turn in range(6):
            fs.write_bytes("/a", bytes([turn + 1]) * 40_000)
            fs.write_bytes(f"/{turn}", bytes([turn + 10]) * 10_000)
            clock.advance(HOUR)
            fs.snapshots.schedule.run_due()
        fs.unlink("/3")
        rules = Policy(every_seconds=HOUR, keep_last=2)
        verdicts = fs.snapshots.schedule.plan(rules)
        said = fs.snapshots.schedule.bytes_freed(verdicts)
        assert said == 40_960 * 4
        fs.sync()
        space = fs.tree.store.space
        before = space.sector_count - space.free_sectors()
        fs.snapshots.schedule.set(rules)
        assert len(fs.snapshots.schedule.prune()) == 4
        fs.sync()
        assert (before - (space.sector_count - space.free_sectors())) * 4096 == said


class _Host(MemoryBlocks):
    """A host that says how much is free, and gets all back that is given back."""

    def __init__(self, free: int) -> None:
        super().__init__()
        self.free = free
        self.store: Store

    def free_bytes(self) -> int:
        return self.free + self.store.space.free_sectors() * 4096 if hasattr(self, "store") else self.free


def test_for_want_of_space_the_oldest_go_though_a_rule_keeps_them(clock: Simulated) -> None:
    host = _Host(0)
    store = memory_store(clock=clock, blocks=host)
    with FileSystem(Tree(store)) as fs:
        fs.snapshots.schedule.set(Policy(every_seconds=HOUR, keep_last=100))
        for turn in range(8):
            fs.write_bytes("/a", bytes([turn + 1]) * 40_000)
            clock.advance(HOUR)
            fs.snapshots.schedule.run_due()
        fs.sync()
        before = names(fs)
        host.store = store
        wanted = host.free_bytes() + 100_000
        fs.snapshots.schedule.set(Policy(every_seconds=HOUR, keep_last=100, keep_free_bytes=wanted))
        deleted = [each.snapshot.name for each in fs.snapshots.schedule.prune()]
        assert deleted == before[:3] and host.free_bytes() >= wanted
        # More than there is: the newest stays, and what is held.
        fs.snapshots.hold(before[4], "me")
        fs.snapshots.schedule.set(Policy(keep_free_bytes=1 << 60))
        fs.snapshots.schedule.prune()
        assert names(fs) == [before[4], before[7]]
        assert fs.snapshots.schedule.prune() == []


def test_nobody_deletes_what_is_locked(fs: FileSystem, clock: Simulated) -> None:
    fs.snapshots.create("a")
    until = datetime.fromtimestamp(clock.now_ns() // 10**9, UTC) + timedelta(days=30)
    fs.snapshots.lock("a", until)
    assert fs.snapshots.locked_until("a") == until
    clock.advance(29 * DAY)
    for call in (fs.snapshots.delete, fs.snapshots.check_deletable):
        with pytest.raises(SnapshotLocked, match=f"locked: nobody can delete it before {until:%Y-%m-%d}T"):
            call("a")
    clock.jump(-20 * DAY)
    clock.advance(19 * DAY)
    with pytest.raises(SnapshotHeld):
        fs.snapshots.delete("a")
    with pytest.raises(SnapshotLocked, match="never shorter"):
        fs.snapshots.lock("a", until - timedelta(days=1))
    fs.snapshots.lock("a", until + timedelta(days=1))
    clock.advance(2 * DAY)
    assert fs.snapshots.locked_until("a") is not None
    clock.advance(DAY)
    assert fs.snapshots.locked_until("a") is None
    fs.snapshots.delete("a")
    assert names(fs) == []


def test_locks_without_a_meaning(fs: FileSystem, clock: Simulated) -> None:
    fs.snapshots.create("a")
    now = datetime.fromtimestamp(clock.now_ns() // 10**9, UTC)
    for until in (now, now - timedelta(days=1), now + timedelta(days=365 * 200), datetime(2090, 1, 1)):
        with pytest.raises(ValueError, match="a lock"):
            fs.snapshots.lock("a", until)


def test_the_schedule_locks_what_it_takes(fs: FileSystem, clock: Simulated) -> None:
    fs.snapshots.schedule.set(Policy(every_seconds=HOUR, keep_last=1, lock_seconds=3 * HOUR))
    for _ in range(10):
        clock.advance(HOUR)
        fs.snapshots.schedule.run_due()
    assert len(names(fs)) == 3
    assert all(each.reason.startswith("locked until") for each in fs.snapshots.schedule.plan())


def test_a_standby_takes_none_and_prunes_by_its_own_rules(clock: Simulated) -> None:
    store = memory_store(clock=clock)
    tree = Tree(store)
    fs = FileSystem(tree)
    fs.snapshots.schedule.set(Policy(every_seconds=HOUR))
    for _ in range(4):
        clock.advance(HOUR)
        assert taken(fs) is not None
    _become(tree, Role.STANDBY)
    base = store.catalog.snapshots(ROOT_FILESET)[1]
    with store.lock:
        store.admit(1, 100)
        received.put_base(store, base.guid)
        store.commit()
    fs.snapshots.schedule.set(Policy(every_seconds=HOUR, keep_last=1))
    clock.advance(HOUR)
    assert fs.snapshots.schedule.next_due() is None and taken(fs) is None
    assert len(names(fs)) == 2 and names(fs)[0] == base.name
    _become(tree, Role.FENCED)
    assert fs.snapshots.schedule.prune() == []


def _become(tree: Tree, wanted: Role) -> None:
    with tree.store.lock:
        tree.store.admit(1, 100)
        tree.store.small.put(role.KEY, role.pack(RoleRecord(wanted, 2, 3)))
        tree.store.commit()
        tree.reload_role()


def test_without_room_it_prunes_first(fs: FileSystem, clock: Simulated, monkeypatch: pytest.MonkeyPatch) -> None:
    fs.snapshots.schedule.set(Policy(every_seconds=HOUR))
    for _ in range(3):
        clock.advance(HOUR)
        taken(fs)
    fs.snapshots.schedule.set(Policy(every_seconds=HOUR, keep_last=1))
    clock.advance(HOUR)
    create = manage.create

    def only_when_there_is_one(*given: object, **named: object) -> object:
        if len(names(fs)) > 1:
            raise NoSpace("full")
        return create(*given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(manage, "create", only_when_there_is_one)
    run = fs.snapshots.schedule.run_due()
    assert run.taken is not None and len(run.deleted) == 3 and names(fs) == [run.taken.name]


def test_clearing_ends_it(fs: FileSystem, clock: Simulated) -> None:
    fs.snapshots.schedule.set(HOURLY)
    fs.snapshots.schedule.clear()
    clock.advance(DAY)
    assert taken(fs) is None and fs.snapshots.schedule.next_due() is None
    assert automatic.planned_filesets(fs.tree.store) == []
    small = fs.tree.store.small
    assert small.get(keys.policy(ROOT_FILESET)) is small.get(keys.schedule_state(ROOT_FILESET)) is None
    fs.snapshots.schedule.set(HOURLY)
    assert taken(fs) is None


def test_other_times_begin_anew_and_the_same_do_not(fs: FileSystem, clock: Simulated) -> None:
    fs.snapshots.schedule.set(Policy(cron="0 0 1 1 *"))
    clock.advance(100 * DAY)
    fs.snapshots.schedule.run_due()
    fs.snapshots.schedule.set(HOURLY)
    assert taken(fs) is None
    clock.advance(HOUR)
    fs.snapshots.schedule.set(HOURLY._replace(keep_last=5))
    assert taken(fs) is not None


def test_what_cannot_be_read_can_be_replaced(fs: FileSystem) -> None:
    store = fs.tree.store
    fs.snapshots.schedule.set(HOURLY)
    with store.lock:
        store.admit(1, 100)
        store.small.put(keys.policy(ROOT_FILESET), b'{"keep_lunar": 3}')
        store.commit()
    with pytest.raises(FormatTooNew):
        fs.snapshots.schedule.run_due()
    fs.snapshots.schedule.clear()
    assert fs.snapshots.schedule.policy == Policy()


def test_bad_rules_change_nothing(fs: FileSystem) -> None:
    fs.snapshots.schedule.set(HOURLY)
    with pytest.raises(BadPolicy):
        fs.snapshots.schedule.set(Policy(cron="nonsense"))
    with pytest.raises(BadPolicy):
        fs.snapshots.schedule.plan(Policy(keep_matching="("))
    assert fs.snapshots.schedule.policy == HOURLY


def test_records_of_policies() -> None:
    some = Policy(every_seconds=5, cron="0 3 * * *", zone="Europe/Berlin", keep_matching="ä", keep_free_bytes=1 << 40)
    assert policy.unpack(policy.pack(some)) == some and policy.unpack(policy.pack(Policy())) == Policy()
    assert policy.unpack(None) == Policy()
    with pytest.raises(FormatTooNew, match="keep_lunar"):
        policy.unpack(b'{"keep_lunar": 3}')
    for bad in (
        b"",
        b"[]",
        b"\xff",
        b'{"keep_last": "3"}',
        b'{"keep_last": true}',
        b'{"cron": 3}',
        b'{"keep_last": -1}',
    ):
        with pytest.raises(Damaged):
            policy.unpack(bad)
    assert policy.unpack_done(policy.pack_done(-5)) == -5
