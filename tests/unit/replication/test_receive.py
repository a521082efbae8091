"""A standby gets what its primary has, once and whole, and nobody sees it before."""

from __future__ import annotations

import errno
from collections.abc import Callable
from random import Random

import pytest

from idemfs.engines.blocks.memory import MemoryBlocks
from idemfs.engines.kv.memory import MemoryKV
from idemfs.errors import NoSpace, StreamInterrupted
from idemfs.format import keys
from idemfs.format.inode import INLINE
from idemfs.format.role import Role, RoleRecord
from idemfs.format.tables import Snapshot
from idemfs.ids import ROOT_FILESET, Ino, number_of
from idemfs.limits import FILE_SIZE_MAX
from idemfs.replication import applier, codec
from idemfs.replication.apply import drop_partial, is_half_received, receive, resume_cursor
from idemfs.replication.link import replicate_into
from idemfs.replication.send import Frames
from idemfs.snapshots import bring_back, delete, manage, received
from idemfs.testing.blocks import FaultyBlocks
from idemfs.testing.builders import (
    assert_clean,
    content_of,
    make_directory,
    make_file,
    memory_tree,
    random_changes,
    reopened,
)
from idemfs.testing.clock import Simulated
from idemfs.testing.faults import Faults, Kind
from idemfs.testing.kv import FaultyKV
from idemfs.vfs.tree import Tree
from tests.unit.replication.pairs import (
    assert_same,
    listing,
    reading,
    set_role,
    snapshots,
    standby_of,
    stream_of,
    take,
    visible,
)

BLOCK = 4096


@pytest.fixture
def primary() -> Tree:
    """With snapshots ``one`` to ``three``, each with changes of every kind."""
    return worked(3)


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames of a few records, applied a few at a time."""
    monkeypatch.setattr(codec, "STREAM_BATCH_BYTES", 3000)
    monkeypatch.setattr(applier, "_STEP_RECORD_COUNT", 5)


def worked(seed: int, count: int = 120) -> Tree:
    tree = memory_tree(clock=Simulated(seed))
    rng = Random(seed)
    for name in ("one", "two", "three"):
        random_changes(tree, rng, count)
        take(tree, name)
    return tree


def pair(primary: Tree, target: str) -> tuple[Snapshot | None, Snapshot]:
    """A snapshot with the one before it."""
    found = snapshots(primary)
    at = [each.name for each in found].index(target)
    return (found[at - 1] if at else None), found[at]


def stream(primary: Tree, target: str) -> bytes:
    return stream_of(primary, *pair(primary, target))


def up_to(primary: Tree, last: str) -> Tree:
    """A standby that has every snapshot up to ``last``."""
    standby = standby_of(primary)
    for each in snapshots(primary):
        receive(standby, reading(stream(primary, each.name)))
        if each.name == last:
            break
    return standby


def active_digest(tree: Tree) -> int:
    tree.store.commit()
    return tree.store.catalog.filesets[ROOT_FILESET].digest


# -- the whole way -------------------------------------------------------------------------------------------


def test_every_snapshot_is_the_same_on_both_sides(primary: Tree) -> None:
    standby = standby_of(primary)
    for each in snapshots(primary):
        outcome = receive(standby, reading(stream(primary, each.name)))
        assert (outcome.resumed, outcome.was_held) == (False, False)
        assert outcome.records > 0
        assert_same(primary, standby, each.name)
    assert visible(standby) == visible(primary)
    assert [each.created_ns for each in snapshots(standby)] == [each.created_ns for each in snapshots(primary)]
    for each in snapshots(primary):
        assert_same(primary, standby, each.name)
    assert_clean(standby)
    next_numbers = [tree.store.catalog.filesets[ROOT_FILESET].next_number for tree in (primary, standby)]
    assert next_numbers[0] == next_numbers[1]


def test_snapshots_may_be_left_out_on_the_way(primary: Tree) -> None:
    standby = up_to(primary, "one")
    first, _, third = snapshots(primary)
    receive(standby, reading(stream_of(primary, first, third)))
    assert_same(primary, standby, "one")
    assert_same(primary, standby, "three")
    assert_clean(standby)


def test_compressed_is_received_all_the_same(primary: Tree) -> None:
    standby = up_to(primary, "two")
    plain, packed = (b"".join(Frames(primary, *pair(primary, "three"), compress=each)) for each in (False, True))
    assert len(packed) < len(plain)
    receive(standby, reading(packed))
    assert_same(primary, standby, "three")


def test_received_twice_is_received_once(primary: Tree) -> None:
    standby = up_to(primary, "three")
    before = visible(standby), active_digest(standby)
    for name in ("three", "one", "two"):
        outcome = receive(standby, reading(stream(primary, name)))
        assert outcome.was_held
        assert outcome.snapshot.name == name
        assert (visible(standby), active_digest(standby)) == before
    assert not is_half_received(standby.store)


def test_a_standby_passes_on_what_it_has(primary: Tree) -> None:
    standby = up_to(primary, "three")
    other = standby_of(primary, seed=5)
    replicate_into(standby, other)
    assert visible(other) == visible(primary)
    assert_same(primary, other, "three")
    assert_clean(other)


def test_older_snapshots_of_a_standby_may_be_deleted(primary: Tree) -> None:
    standby = up_to(primary, "two")
    delete.delete(standby.active, snapshots(standby)[0])
    receive(standby, reading(stream(primary, "three")))
    assert_same(primary, standby, "two")
    assert_same(primary, standby, "three")
    assert_clean(standby)


def test_a_name_that_is_taken_gets_a_number(primary: Tree) -> None:
    standby = up_to(primary, "two")
    manage.rename(standby.store, snapshots(standby)[0], "three")
    outcome = receive(standby, reading(stream(primary, "three")))
    assert outcome.snapshot.name == "three-2"
    assert outcome.snapshot.guid == snapshots(primary)[2].guid


def test_a_name_of_the_longest_size_that_is_taken_is_cut() -> None:
    primary = memory_tree()
    one, two = take(primary, "one"), take(primary, "ü" * 100)
    standby = standby_of(primary)
    receive(standby, reading(stream_of(primary, None, one)))
    manage.rename(standby.store, snapshots(standby)[0], "ü" * 100)
    name = receive(standby, reading(stream_of(primary, one, two))).snapshot.name
    assert name == "ü" * 90
    assert standby.store.catalog.by_name(ROOT_FILESET, name).guid == two.guid


def test_a_file_that_was_open_and_unlinked_is_reclaimed_by_whoever_becomes_primary() -> None:
    primary = memory_tree()
    ino = make_file(primary, primary.root, b"f", b"x" * 3 * BLOCK)
    primary.open(ino)
    primary.unlink(primary.root, b"f")
    take(primary, "one")
    standby = standby_of(primary)
    replicate_into(primary, standby)
    assert standby.active.inode(ino) is not None
    assert standby.store.small.get(keys.orphan(ino)) is not None
    assert_clean(standby)
    primary.release(ino)
    take(primary, "two")
    other = standby_of(primary, seed=5)
    replicate_into(primary, other)
    replicate_into(primary, standby)
    assert [tree.store.small.get(keys.orphan(ino)) for tree in (standby, other)] == [None, None]
    assert_clean(standby)
    assert_clean(other)


def test_an_append_on_the_primary_costs_a_standby_no_copy_of_the_tail_block() -> None:
    primary = memory_tree(block_size=64 << 10)
    ino = make_file(primary, primary.root, b"log", b"x" * 50_000)
    one = take(primary, "one")
    standby = standby_of(primary)
    replicate_into(primary, standby)
    primary.append(ino, b"y" * 1000)
    take(primary, "two")
    replicate_into(primary, standby)
    assert snapshots(standby)[0].data_bytes == one.data_bytes == 0
    assert_same(primary, standby, "one")
    primary.write(ino, 49_000, b"z" * 10)
    take(primary, "three")
    replicate_into(primary, standby)
    assert snapshots(standby)[1].data_bytes == 53_248
    for name in ("one", "two", "three"):
        assert_same(primary, standby, name)
    assert_clean(standby)


# -- unseen until complete -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize("target", ["one", "two"])
def test_a_half_received_change_set_is_invisible(primary: Tree, target: str) -> None:
    standby = standby_of(primary) if target == "one" else up_to(primary, "one")
    before = visible(standby)
    seen = listing(standby.newest_reader()) if before else None
    looks: list[int] = []

    def look(size: int) -> None:
        looks.append(size)
        assert visible(standby) == before
        if seen is not None:
            assert listing(standby.newest_reader()) == seen
            return
        with pytest.raises(FileNotFoundError):
            standby.newest_reader().inode(standby.root)

    receive(standby, reading(stream(primary, target)), progress=look)
    assert len(looks) > 5
    assert listing(standby.newest_reader()) != seen


class Killed(BaseException):
    """The end of a process."""


def killed_at(standby: Tree, data: bytes, frame: int, *, committed: int) -> Tree:
    """The standby as another process finds it: the receiver ended after ``frame`` frames, of which ``committed`` were
    durable."""
    count = [0]

    def end(size: int) -> None:
        count[0] += 1
        if count[0] == committed:
            standby.store.commit()
        if count[0] == frame:
            raise Killed

    with pytest.raises(Killed):
        receive(standby, reading(data), progress=end)
    return reopened(standby, committed=False)


def frame_count(primary: Tree, target: str) -> int:
    """Batches of the stream."""
    marks: list[int] = []
    base, _ = pair(primary, target)
    standby = up_to(primary, base.name) if base else standby_of(primary)
    receive(standby, reading(stream(primary, target)), progress=marks.append)
    return len(marks)


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize("target", ["one", "three"])
@pytest.mark.parametrize("from_cursor", [False, True])
def test_killed_after_any_frame_a_receiver_goes_on(target: str, from_cursor: bool) -> None:
    primary = worked(4, 40)
    base, snapshot = pair(primary, target)
    data = stream_of(primary, base, snapshot)
    frames = frame_count(primary, target)
    assert frames > 5
    for frame in range(1, frames + 1):
        standby = up_to(primary, base.name) if base else standby_of(primary)
        before = visible(standby)
        standby = killed_at(standby, data, frame, committed=frame - frame % 2)
        assert visible(standby) == before
        assert_clean(standby, read_data=False)
        cursor = resume_cursor(standby)
        assert (cursor is None) == (frame == 1)
        rest = data
        if from_cursor:
            rest = b"".join(Frames(primary, base, snapshot, after=cursor))
            assert frame < 4 or len(rest) < len(data)
        outcome = receive(standby, reading(rest))
        assert outcome.resumed == (cursor is not None)
        assert_same(primary, standby, target)
        assert_clean(standby)


@pytest.mark.usefixtures("small_steps")
def test_cut_after_any_frame_a_stream_goes_on() -> None:
    """The sender was killed."""
    primary = worked(4, 40)
    standby = up_to(primary, "two")
    before = visible(standby)
    marks: list[int] = []
    data = stream(primary, "three")
    receive(up_to(primary, "two"), reading(data), progress=marks.append)
    cursors = []
    for mark in marks:
        for cut in (mark - 1, mark, mark + 5):
            with pytest.raises(StreamInterrupted):
                receive(standby, reading(data[:cut]))
            assert visible(standby) == before
            cursors.append(resume_cursor(standby))
    assert cursors == sorted(cursors, key=lambda cursor: cursor or (0, -1)) and cursors[-1] is not None
    outcome = receive(standby, reading(data))
    assert outcome.resumed
    assert_same(primary, standby, "three")
    assert_clean(standby)


@pytest.mark.usefixtures("small_steps")
def test_interrupted_again_and_again_from_the_cursor() -> None:
    primary = worked(4, 40)
    standby = up_to(primary, "two")
    base, target = pair(primary, "three")
    for _ in range(200):
        rest = b"".join(Frames(primary, base, target, after=resume_cursor(standby)))
        try:
            receive(standby, reading(rest[:12_000]))
        except StreamInterrupted:
            standby = reopened(standby)
        else:
            break
    assert_same(primary, standby, "three")
    assert_clean(standby)


# -- another one, or none --------------------------------------------------------------------------------------


def half(standby: Tree, data: bytes, part: float = 0.6) -> None:
    with pytest.raises(StreamInterrupted):
        receive(standby, reading(data[: int(len(data) * part)]))
    assert is_half_received(standby.store)


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize("part", [0.3, 0.6, 0.95])
def test_another_change_set_takes_the_place_of_a_half_received_one(primary: Tree, part: float) -> None:
    standby = up_to(primary, "one")
    first, second, third = snapshots(primary)
    half(standby, stream_of(primary, first, third), part)
    outcome = receive(standby, reading(stream_of(primary, first, second)))
    assert not outcome.resumed
    for name in ("one", "two"):
        assert_same(primary, standby, name)
    assert_clean(standby)
    receive(standby, reading(stream_of(primary, second, third)))
    assert_same(primary, standby, "three")


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize("part", [0.3, 0.6, 0.95])
def test_dropped_it_was_never_there(primary: Tree, part: float) -> None:
    for target in ("one", "three"):
        standby = up_to(primary, "two") if target == "three" else standby_of(primary)
        before = visible(standby), active_digest(standby)
        half(standby, stream(primary, target), part)
        assert active_digest(standby) != before[1]
        assert drop_partial(standby)
        assert (visible(standby), active_digest(standby)) == before
        assert not is_half_received(standby.store)
        assert resume_cursor(standby) is None
        assert not drop_partial(standby)
        assert_clean(reopened(standby))


@pytest.mark.usefixtures("small_steps")
def test_a_former_primary_goes_back_to_its_base_not_to_what_it_kept(primary: Tree) -> None:
    """Its newest snapshot by number is its own; a half-received change set began at an older one."""
    old = up_to(primary, "two")
    base = snapshots(old)[1]
    make_file(old_primary := promoted(old), old.root, b"diverged", b"d" * 3 * BLOCK)
    take(old_primary, "diverged-1")
    with old.store.exclusive():
        bring_back.go_back(old.active, base)
        received.put_base(old.store, base.guid)
    set_role(old.store, RoleRecord(Role.STANDBY, 1, 1))
    old.reload_role()
    before = visible(old), active_digest(old)
    assert before[1] == base.digest
    half(old, stream(primary, "three"))
    assert drop_partial(old)
    assert (visible(old), active_digest(old)) == before
    assert_clean(old)
    receive(old, reading(stream(primary, "three")))
    assert [each.name for each in snapshots(old)] == ["one", "two", "diverged-1", "three"]
    assert_same(primary, old, "three")
    reader = old.snapshot_reader(snapshots(old)[2])
    assert content_of(reader, reader.lookup(old.root, b"diverged")) == b"d" * 3 * BLOCK
    assert_clean(old)


def promoted(standby: Tree) -> Tree:
    set_role(standby.store, RoleRecord(Role.PRIMARY, 1, 1))
    standby.reload_role()
    return standby


def test_inodes_of_two_primaries_may_have_one_number(primary: Tree) -> None:
    """What the former primary made is kept in its own snapshot, though the new one gives its numbers to others."""
    old = promoted(up_to(primary, "three"))
    base = snapshots(old)[2]
    directory = make_directory(old, old.root, b"mine")
    for number in range(5):
        ino = make_file(old, directory, b"f%d" % number, b"x" * number * BLOCK)
        old.set_xattr(ino, b"user.mine", b"1")
    take(old, "diverged-1")
    kept = listing(old.snapshot_reader(snapshots(old)[3]))
    with old.store.exclusive():
        bring_back.go_back(old.active, base)
        received.put_base(old.store, base.guid)
    set_role(old.store, RoleRecord(Role.STANDBY, 1, 1))
    old.reload_role()
    for number in range(5):
        ino = make_file(primary, primary.root, b"g%d" % number, b"y" * (6 - number) * BLOCK)
        primary.truncate(ino, 9 * BLOCK)
        primary.set_xattr(ino, b"user.theirs", b"2")
        make_file(primary, make_directory(primary, primary.root, b"d%d" % number), b"in", b"z")
    take(primary, "four")
    replicate_into(primary, old)
    assert listing(old.snapshot_reader(snapshots(old)[3])) == kept
    for name in ("one", "two", "three", "four"):
        assert_same(primary, old, name)
    assert_clean(old)


def test_numbers_that_were_seen_are_not_given_out_again() -> None:
    """Also when the change set that named them was dropped: its primary may still hold those inodes."""
    primary = memory_tree()
    take(primary, "one")
    standby = up_to(primary, "one")
    ino = [make_file(primary, primary.root, b"f%d" % number) for number in range(9)][-1]
    take(primary, "two")
    half(standby, stream(primary, "two"), 0.9999)
    assert standby.active.inode(ino) is not None
    drop_partial(standby)
    assert standby.active.inode(ino) is None
    assert number_of(ino) < reopened(standby).active.fileset(standby.root).next_number


def test_access_times_are_each_stores_own() -> None:
    """A new inode starts with the time of its content; one that is there keeps what it has."""
    primary = memory_tree()
    ino = make_file(primary, primary.root, b"f", b"x")
    primary.set_attributes(ino, atime_ns=1, mtime_ns=2)
    take(primary, "one")
    standby = standby_of(primary)
    replicate_into(primary, standby)
    assert (node := standby.active.inode(ino)) is not None and node.atime == 2
    primary.set_attributes(ino, atime_ns=3, mtime_ns=4)
    take(primary, "two")
    replicate_into(primary, standby)
    assert (node := standby.active.inode(ino)) is not None and (node.atime, node.mtime) == (2, 4)


# -- much at once ----------------------------------------------------------------------------------------------


def test_what_loses_much_loses_it_in_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    primary = memory_tree()
    directory = make_directory(primary, primary.root, b"d")
    for number in range(700):
        make_file(primary, directory, b"f%d" % number)
    long = make_file(primary, primary.root, b"long", b"x" * 900 * BLOCK)
    cut = make_file(primary, primary.root, b"cut", b"x" * 900 * BLOCK)
    for number in range(100):
        primary.set_xattr(long, b"user.%d" % number, b"v" * 100)
    take(primary, "one")
    standby = standby_of(primary)
    replicate_into(primary, standby)
    for number in range(700):
        primary.unlink(directory, b"f%d" % number)
    primary.rmdir(primary.root, b"d")
    primary.unlink(primary.root, b"long")
    primary.truncate(cut, BLOCK + 1)
    take(primary, "two")
    lost: list[Ino] = []

    def noted(tree: Tree, losses: applier.Losses, check: Callable[[], None]) -> None:
        lost.append(losses.ino)
        real_lose(tree, losses, check)

    real_lose = applier.lose
    monkeypatch.setattr(applier, "lose", noted)
    replicate_into(primary, standby)
    assert lost == [directory, long, cut]
    for name in ("one", "two"):
        assert_same(primary, standby, name)
    assert_clean(standby)


def test_the_largest_sparse_file_comes_shrinks_and_goes() -> None:
    """What it costs follows what is in it: room is not asked for every block that there could be."""
    primary = memory_tree()
    ino = make_file(primary, primary.root, b"f")
    for size in (FILE_SIZE_MAX, FILE_SIZE_MAX - 5 * BLOCK, 3 * BLOCK, FILE_SIZE_MAX):
        primary.truncate(ino, size)
        primary.write(ino, size - 7, b"the end")
        take(primary, f"of {size} {len(snapshots(primary))}")
    primary.unlink(primary.root, b"f")
    take(primary, "gone")
    standby = standby_of(primary, kv=MemoryKV(capacity_bytes=64 << 20))
    replicate_into(primary, standby)
    for each in snapshots(primary):
        assert_same(primary, standby, each.name)
    assert_clean(standby)


@pytest.mark.parametrize("kind", [Kind.RESERVE, Kind.WRITE])
@pytest.mark.usefixtures("small_steps")
def test_a_full_host_keeps_what_came(kind: Kind) -> None:
    primary = worked(4, 60)
    data = stream(primary, "one")
    stops = 0
    for after in (1, 2, 3, 9, 20, 40):
        faults = Faults()
        standby = standby_of(primary, kv=FaultyKV(MemoryKV(), faults), blocks=FaultyBlocks(MemoryBlocks(), faults))
        faults.add(kind, errno.ENOSPC, after=after, times=None)
        try:
            receive(standby, reading(data))
        except NoSpace:
            stops += 1
            assert visible(standby) == []
            faults.clear()
            receive(standby, reading(data))
        assert_same(primary, standby, "one")
        assert_clean(standby)
    assert stops > 1


def test_an_inline_file_has_no_blocks_left_when_it_had_some() -> None:
    primary = memory_tree()
    ino = make_file(primary, primary.root, b"f", b"x" * 5 * BLOCK)
    standby = standby_of(primary)
    take(primary, "one")
    primary.truncate(ino, 0)
    primary.write(ino, 0, b"small")
    take(primary, "two")
    replicate_into(primary, standby)
    node = standby.active.inode(ino)
    assert node is not None and node.flags & INLINE and node.sectors == 0
    assert_same(primary, standby, "one")
    assert_clean(standby)
