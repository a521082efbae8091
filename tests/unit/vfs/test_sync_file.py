"""Which changes a sync of one file finds a place for in the log, and which need a commit."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from idemfs.engines.blocks.memory import MemoryBlocks
from idemfs.engines.kv.memory import MemoryKV
from idemfs.errors import CommitFailed, QuotaExceeded
from idemfs.format import role
from idemfs.format.role import Role, RoleRecord
from idemfs.ids import ROOT_FILESET, Ino
from idemfs.limits import LOG_FILE_BYTES_MAX, LOG_HALF_SECTOR_COUNT, LOG_HOST_FACTOR
from idemfs.snapshots import manage
from idemfs.store.files import first_records, new_superblock
from idemfs.store.store import Store
from idemfs.testing.blocks import FaultyBlocks
from idemfs.testing.builders import assert_clean
from idemfs.testing.clock import Simulated
from idemfs.testing.faults import Faults, Kind
from idemfs.testing.kv import FaultyKV
from idemfs.vfs.tree import Tree

BLOCK_SIZE = 16384


class Host:
    """Engines in memory, which a store finds again as it left them; what they were asked is counted."""

    def __init__(self, log: MemoryBlocks | None = None) -> None:
        self.clock = Simulated()
        self.superblock = new_superblock(self.clock, BLOCK_SIZE, "none")
        records = MemoryKV()
        first_records(records, self.superblock.guid)
        self.of_kv, self.of_log = Faults(), Faults()
        self.kv = FaultyKV(records, self.of_kv)
        self.blocks = MemoryBlocks()
        self.log = FaultyBlocks(log or MemoryBlocks(), self.of_log)
        self.tree = self.open()
        self.ino = self.tree.create(self.tree.root, b"file", 0o100644, 0, 0)
        self.tree.write(self.ino, 0, b"x" * 5000)
        self.tree.sync()

    def open(self, *, readonly: bool = False) -> Tree:
        store = Store(self.superblock, self.kv, self.blocks, self.clock, log=self.log, readonly=readonly)
        return Tree(store)

    def crash(self) -> Tree:
        """The store as it is opened after its process was killed."""
        self.tree.store.abandon()
        self.clock.advance(60)
        self.tree = self.open()
        return self.tree

    @property
    def commit_count(self) -> int:
        return self.of_kv.counts[Kind.COMMIT]

    def content(self) -> bytes:
        return self.tree.reader.read(self.ino, 0, 1 << 23)

    def syncs_with(self, change: Callable[[], object]) -> int:
        """How many commits a sync of the file makes after this."""
        change()
        before = self.commit_count
        self.tree.sync_file(self.ino)
        made = self.commit_count - before
        wanted = self.content(), self.tree.reader.inode(self.ino).pack()[40:]
        self.crash()
        assert (self.content(), self.tree.reader.inode(self.ino).pack()[40:]) == wanted
        self.tree.sync()
        assert_clean(self.tree)
        return made


@pytest.fixture
def host() -> Host:
    return Host()


def clear_set_id(tree: Tree, ino: Ino) -> None:
    tree.set_attributes(ino, mode=0o4755)
    tree.sync()
    tree.clear_set_id(ino)


WRITES: dict[str, Callable[[Tree, Ino], object]] = {
    "overwriting": lambda tree, ino: tree.write(ino, 100, b"new"),
    "several writes": lambda tree, ino: [tree.write(ino, at, b"%d" % at) for at in (3, 6000, 4, 40_000)],
    "appending": lambda tree, ino: tree.append(ino, b"more"),
    "writing past the end": lambda tree, ino: tree.write(ino, 3 * BLOCK_SIZE, b"far"),
    "a whole block": lambda tree, ino: tree.write(ino, 0, b"b" * BLOCK_SIZE),
    "reading": lambda tree, ino: tree.touch_atime(ino),
    "nothing": lambda tree, ino: None,
    "another file": lambda tree, ino: tree.create(tree.root, b"other", 0o100644, 0, 0),
}
OTHERS: dict[str, Callable[[Tree, Ino], object]] = {
    "truncating": lambda tree, ino: tree.truncate(ino, 10),
    "lengthening": lambda tree, ino: tree.truncate(ino, 10_000),
    "punching": lambda tree, ino: tree.punch(ino, 10, 100),
    "chmod": lambda tree, ino: tree.set_attributes(ino, mode=0o600),
    "set-id bits": lambda tree, ino: clear_set_id(tree, ino),
    "utimens": lambda tree, ino: tree.set_attributes(ino, mtime_ns=5),
    "an extended attribute": lambda tree, ino: tree.set_xattr(ino, b"user.x", b"1"),
    "linking": lambda tree, ino: tree.link(ino, tree.root, b"link"),
    "renaming": lambda tree, ino: tree.rename(tree.root, b"file", tree.root, b"renamed"),
    "much": lambda tree, ino: tree.write(ino, 0, bytes(LOG_FILE_BYTES_MAX)),
    "much in parts": lambda tree, ino: [tree.write(ino, at << 10, b"m" * 1024) for at in range(128)],
}


@pytest.mark.parametrize("change", WRITES)
def test_what_is_only_written_is_logged(host: Host, change: str) -> None:
    assert host.syncs_with(lambda: WRITES[change](host.tree, host.ino)) == 0


@pytest.mark.parametrize("change", OTHERS)
def test_after_other_changes_a_sync_commits(host: Host, change: str) -> None:
    assert host.syncs_with(lambda: OTHERS[change](host.tree, host.ino)) == 1


@pytest.mark.parametrize("change", OTHERS)
def test_also_when_it_is_written_to_before_and_after(host: Host, change: str) -> None:
    def changes() -> None:
        host.tree.write(host.ino, 1, b"before")
        host.tree.sync_file(host.ino)
        OTHERS[change](host.tree, host.ino)
        host.tree.write(host.ino, 2, b"after")

    assert host.syncs_with(changes) == 1


def test_a_new_file_is_committed_and_then_logged(host: Host) -> None:
    host.ino = host.tree.create(host.tree.root, b"new", 0o100644, 0, 0)
    assert host.syncs_with(lambda: host.tree.write(host.ino, 0, b"1")) == 1
    assert host.syncs_with(lambda: host.tree.write(host.ino, 1, b"2")) == 0


def test_who_syncs_is_told_before_a_commit_and_only_then(host: Host) -> None:
    told: list[int] = []
    for change, wanted in ((WRITES["overwriting"], 0), (OTHERS["chmod"], 1), (WRITES["nothing"], 1)):
        change(host.tree, host.ino)
        host.tree.sync_file(host.ino, before_commit=lambda: told.append(host.commit_count))
        assert len(told) == wanted
    assert host.commit_count == told[0] + 1


def test_what_is_not_synced_is_not_logged(host: Host) -> None:
    other = host.tree.create(host.tree.root, b"other", 0o100644, 0, 0)
    host.tree.sync()
    host.tree.write(other, 0, b"lost")
    host.tree.write(host.ino, 0, b"kept")
    host.tree.sync_file(host.ino)
    host.tree.write(host.ino, 0, b"lost")
    host.crash()
    assert host.content() == b"kept" + b"x" * 4996
    assert host.tree.reader.read(other, 0, 10) == b""


def test_a_full_half_commits_and_the_next_one_goes_on(host: Host) -> None:
    before = host.commit_count
    data = [bytes([number % 256]) * 8192 for number in range(2 * LOG_HALF_SECTOR_COUNT // 3)]
    for number, each in enumerate(data):
        host.tree.write(host.ino, number * 8192, each)
        host.tree.sync_file(host.ino)
    assert 1 <= host.commit_count - before <= 3
    host.crash()
    assert host.content() == b"".join(data)


def test_a_snapshot_before_a_logged_write_does_not_see_it(host: Host) -> None:
    host.tree.write(host.ino, 0, b"1")
    host.tree.sync_file(host.ino)
    snapshot = manage.create(host.tree.store, host.tree.fileset, "one")
    host.tree.write(host.ino, 0, b"2")
    host.tree.sync_file(host.ino)
    tree = host.crash()
    assert host.content()[:2] == b"2x"
    found = tree.store.catalog.by_name(tree.fileset, snapshot.name)
    assert tree.snapshot_reader(found).read(host.ino, 0, 2) == b"1x"
    assert_clean(tree)


def test_a_failing_write_of_the_log_commits(host: Host) -> None:
    host.tree.write(host.ino, 0, b"1")
    host.tree.sync_file(host.ino)
    host.of_log.add(Kind.WRITE)
    assert host.syncs_with(lambda: host.tree.write(host.ino, 0, b"2")) == 1


def test_a_failing_sync_of_the_log_commits_and_the_log_is_used_no_more(host: Host) -> None:
    host.tree.write(host.ino, 0, b"1")
    host.tree.sync_file(host.ino)
    host.of_log.add(Kind.SYNC)
    for data in (b"2", b"3", b"4"):
        before = host.commit_count
        host.tree.write(host.ino, 0, data)
        host.tree.sync_file(host.ino)
        assert host.commit_count == before + 1
    assert host.syncs_with(lambda: None) == 0
    assert host.syncs_with(lambda: host.tree.write(host.ino, 0, b"5")) == 0


def test_a_host_with_little_room_gets_no_log() -> None:
    host = Host(MemoryBlocks(capacity_sectors=2 * LOG_HALF_SECTOR_COUNT * LOG_HOST_FACTOR - 1))
    assert host.syncs_with(lambda: host.tree.write(host.ino, 0, b"1")) == 1
    assert host.log.used_bytes() == 0


def test_a_store_without_a_log_commits(host: Host) -> None:
    host.tree.store.close()
    host.tree = Tree(Store(host.superblock, host.kv, host.blocks, host.clock))
    before = host.commit_count
    host.tree.sync_file(host.ino)
    assert host.commit_count == before
    host.tree.write(host.ino, 0, b"1")
    host.tree.sync_file(host.ino)
    assert host.commit_count == before + 1


def test_a_store_that_has_stopped_says_so(host: Host) -> None:
    host.of_kv.add(Kind.COMMIT, errno.EIO)
    host.tree.write(host.ino, 0, b"1")
    with pytest.raises(CommitFailed):
        host.tree.sync()
    with pytest.raises(CommitFailed):
        host.tree.sync_file(host.ino)


def test_reading_a_store_does_not_recover_it(host: Host) -> None:
    host.tree.write(host.ino, 0, b"new")
    host.tree.sync_file(host.ino)
    host.tree.store.abandon()
    reading = host.open(readonly=True)
    assert reading.reader.read(host.ino, 0, 3) == b"xxx"
    assert len(reading.store.intents.pending()) == 1
    host.tree = host.open()
    assert host.content()[:3] == b"new"
    assert host.tree.store.intents.pending() == []


def test_a_change_of_role_leaves_nothing_in_the_log(host: Host) -> None:
    host.tree.write(host.ino, 0, b"1")
    host.tree.sync_file(host.ino)
    with host.tree.store.lock:
        host.tree.store.admit(1, 100)
        host.tree.store.small.put(role.KEY, role.pack(RoleRecord(Role.FENCED, 1, 2)))
        host.tree.store.commit()
    before = host.commit_count
    tree = host.crash()
    assert tree.role.role is Role.FENCED
    assert host.commit_count == before
    assert host.content()[:2] == b"1x"


def test_a_damaged_block_does_not_keep_a_store_from_being_opened(host: Host) -> None:
    host.tree.write(host.ino, 10, b"new")
    host.tree.sync_file(host.ino)
    for sector in host.blocks._sectors:
        host.blocks._sectors[sector] = b"?" * 4096
    tree = host.crash()
    with pytest.raises(OSError, match="damaged"):
        tree.reader.read(host.ino, 0, 10)


def test_a_quota_does_not_keep_a_store_from_being_opened(host: Host) -> None:
    host.tree.write(host.ino, 0, b"synced")
    host.tree.sync_file(host.ino)
    host.tree.store.abandon()
    # What was removed to make room may be there again after a crash, and the quota with less room than it had.
    store = Store(host.superblock, host.kv, host.blocks, host.clock)
    store.admit(1, 100)
    store.catalog.filesets[ROOT_FILESET].quota_bytes = 1
    store.catalog.changed_fileset(ROOT_FILESET)
    store.catalog.limited.add(ROOT_FILESET)
    store.commit()
    store.abandon()
    host.tree = host.open()
    assert host.content()[:6] == b"synced" and host.tree.store.intents.pending() == []
    with pytest.raises(QuotaExceeded):
        host.tree.write(host.ino, 0, b"more")
    assert_clean(host.tree)
