"""What a standby does not take, and that it is as it was afterwards."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

from idemfs.engines.kv.api import Table
from idemfs.engines.kv.memory import MemoryKV
from idemfs.errors import NotStandby, StreamDamaged, StreamRefused
from idemfs.failover import actions
from idemfs.format import entry
from idemfs.format.inode import DYNAMIC, INLINE, LOCAL_SIZE, Inode, pack_named
from idemfs.format.role import Role, RoleRecord
from idemfs.ids import NO_SNAPSHOT, ROOT_FILESET, ROOT_NUMBER, Guid, Number
from idemfs.replication.apply import Reception, complete, drop_partial, is_half_received, receive
from idemfs.replication.codec import Encoder, Header, Point, StreamReader, block_checksum
from idemfs.replication.link import replicate_into
from idemfs.replication.records import (
    BlockChange,
    Change,
    Cursor,
    EntryChange,
    InodeChange,
    InodeRemoved,
    LinkChange,
    XattrChange,
)
from idemfs.replication.send import make_header
from idemfs.snapshots import delete
from idemfs.testing.builders import assert_clean, make_file, memory_store, memory_tree, random_changes
from idemfs.testing.clock import Simulated
from idemfs.vfs.tree import Tree
from tests.unit.replication.pairs import (
    assert_same,
    fileset_guid,
    reading,
    set_role,
    snapshots,
    standby_of,
    stream_of,
    take,
    visible,
)


class Stores:
    """A primary with three snapshots, and a standby that has two of them."""

    def __init__(self) -> None:
        self.primary = memory_tree(clock=Simulated(1))
        rng = Random(1)
        for name in ("one", "two", "three"):
            random_changes(self.primary, rng, 60)
            take(self.primary, name)
        self.kv = MemoryKV()
        self.standby = standby_of(self.primary, epoch=3, kv=self.kv)
        set_role(self.primary.store, RoleRecord(Role.PRIMARY, 3, 3))
        self.primary.reload_role()
        one, two, _ = snapshots(self.primary)
        for base, target in ((None, one), (one, two)):
            receive(self.standby, reading(stream_of(self.primary, base, target)))

    def header(self) -> Header:
        """Of the change set that is due."""
        _, two, three = snapshots(self.primary)
        return make_header(self.primary, two, three)

    def records(self) -> dict[Table, list[tuple[bytes, bytes]]]:
        """Everything that the standby's metadata engine holds."""
        # crash: nothing relies on it; what is still in memory is to be seen.
        self.standby.store.commit()
        return {table: self.kv.scan(table, b"", b"\xff" * 400, 1 << 20) for table in Table}

    def receive_the_due_one(self) -> None:
        _, two, three = snapshots(self.primary)
        receive(self.standby, reading(stream_of(self.primary, two, three)))
        for name in ("one", "two", "three"):
            assert_same(self.primary, self.standby, name)
        assert_clean(self.standby)


@pytest.fixture
def stores() -> Stores:
    return Stores()


def stream(header: Header, *changes: Change) -> bytes:
    encoder = Encoder(header)
    return b"".join([encoder.start(), *[encoder.add(change) for change in changes], encoder.finish()])


SOMEBODY = Guid(b"?" * 16)
HEADERS: dict[str, tuple[Callable[[Header], Header], str]] = {
    "another fileset": (lambda header: header._replace(fileset=SOMEBODY), "of another store"),
    "another block size": (lambda header: header._replace(block_size=8192), "blocks of 8192 bytes"),
    "another inline size": (lambda header: header._replace(inline_size=100), "inline up to 100"),
    "an older epoch": (lambda header: header._replace(epoch=2), "of epoch 2, and epoch 3 has begun"),
    "a full one": (lambda header: header._replace(base=None), "a full one.* --base two"),
    "an unknown base": (lambda header: header._replace(base=Point(SOMEBODY, 1)), "is at snapshot two: .*--base two"),
    "a base with another digest": (
        lambda header: header._replace(base=header.base and header.base._replace(digest=1)),
        "another digest",
    ),
    "one that begins in the middle": (
        lambda header: header._replace(after=Cursor(Number(7), 3)),
        "begins at 7:3.* without --resume",
    ),
}


@pytest.mark.parametrize("what", HEADERS)
def test_a_stream_that_is_not_for_this_standby_changes_nothing(stores: Stores, what: str) -> None:
    change, reason = HEADERS[what]
    before = stores.records()
    with pytest.raises(StreamRefused, match=reason):
        receive(stores.standby, reading(stream(change(stores.header()))))
    assert stores.records() == before
    stores.receive_the_due_one()


@pytest.mark.parametrize("what", HEADERS)
def test_neither_does_it_when_another_one_is_half_received(stores: Stores, what: str) -> None:
    _, two, three = snapshots(stores.primary)
    data = stream_of(stores.primary, two, three)
    with pytest.raises(StreamDamaged):
        receive(stores.standby, reading(data[:-10] + bytes(10)))
    change, reason = HEADERS[what]
    header = change(stores.header())._replace(target=Point(SOMEBODY, 5))
    before = stores.records()
    with pytest.raises(StreamRefused, match=reason):
        receive(stores.standby, reading(stream(header)))
    assert stores.records() == before
    assert receive(stores.standby, reading(data)).resumed
    assert_same(stores.primary, stores.standby, "three")


def test_a_base_that_is_not_the_one_received_last(stores: Stores) -> None:
    one, _, three = snapshots(stores.primary)
    before = stores.records()
    with pytest.raises(StreamRefused, match="is at snapshot two"):
        receive(stores.standby, reading(stream_of(stores.primary, one, three)))
    assert stores.records() == before


def test_an_incremental_one_into_an_empty_standby(stores: Stores) -> None:
    empty = standby_of(stores.primary, epoch=3)
    with pytest.raises(StreamRefused, match="received nothing yet: send without --base"):
        receive(empty, reading(stream(stores.header())))
    assert (visible(empty), is_half_received(empty.store)) == ([], False)


def test_what_a_primary_and_a_fenced_store_say(stores: Stores) -> None:
    for role in (Role.PRIMARY, Role.FENCED):
        set_role(stores.standby.store, RoleRecord(role, 3, 3))
        stores.standby.reload_role()
        before = stores.records()
        with pytest.raises(NotStandby):
            receive(stores.standby, reading(stream(stores.header())))
        assert stores.records() == before


def test_a_name_that_no_snapshot_can_have(stores: Stores) -> None:
    for name in ("a/b", "latest", "a\n"):
        before = stores.records()
        with pytest.raises(StreamDamaged, match=r"name|reserved"):
            receive(stores.standby, reading(stream(stores.header()._replace(name=name))))
        assert stores.records() == before


def test_files_that_no_snapshot_has_are_not_overwritten(stores: Stores) -> None:
    header = stores.header()
    set_role(stores.standby.store, RoleRecord(Role.PRIMARY, 3, 3))
    stores.standby.reload_role()
    make_file(stores.standby, stores.standby.root, b"mine")
    set_role(stores.standby.store, RoleRecord(Role.STANDBY, 3, 3))
    stores.standby.reload_role()
    before = stores.records()
    with pytest.raises(StreamRefused, match="not that of snapshot two"):
        receive(stores.standby, reading(stream(header)))
    assert stores.records() == before


def test_a_store_with_files_and_no_snapshot_takes_no_full_one() -> None:
    primary = memory_tree()
    one = take(primary, "one")
    other = Tree(memory_store(fileset_guid=fileset_guid(primary)))
    make_file(other, other.root, b"mine")
    set_role(other.store, RoleRecord(Role.STANDBY, 1, 1))
    other.reload_role()
    with pytest.raises(StreamRefused, match="no snapshot"):
        receive(other, reading(stream_of(primary, None, one)))
    assert other.active.inode(other.root) is not None


def test_the_epoch_of_a_stream_is_remembered(stores: Stores) -> None:
    _, two, three = snapshots(stores.primary)
    set_role(stores.primary.store, RoleRecord(Role.PRIMARY, 5, 5))
    stores.primary.reload_role()
    data = stream_of(stores.primary, two, three)
    with pytest.raises(StreamDamaged):
        receive(stores.standby, reading(data[:-10] + bytes(10)))
    assert stores.standby.role == RoleRecord(Role.STANDBY, 3, 5)
    with pytest.raises(StreamRefused, match="epoch 4"):
        receive(stores.standby, reading(stream(stores.header()._replace(epoch=4))))
    receive(stores.standby, reading(data))
    assert_same(stores.primary, stores.standby, "three")


def test_a_base_that_was_deleted_here(stores: Stores) -> None:
    delete.delete(stores.standby.active, snapshots(stores.standby)[1])
    before = stores.records()
    with pytest.raises(StreamRefused, match="starts from another snapshot"):
        receive(stores.standby, reading(stream(stores.header())))
    assert stores.records() == before


# -- whole, and wrong --------------------------------------------------------------------------------------


def test_when_the_digests_differ_nothing_is_kept(stores: Stores) -> None:
    before = visible(stores.standby), stores.records()[Table.ACTIVE]
    header = stores.header()
    for wrong in (
        header._replace(target=Point(SOMEBODY, 1)),
        header._replace(target=header.target._replace(digest=header.target.digest ^ 1)),
        header._replace(target=header.target, inode_count=header.inode_count + 1),
    ):
        changes: list[Change] = [XattrChange(ROOT_NUMBER, b"user.x", b"1")]
        with pytest.raises(StreamRefused, match="digests differ"):
            receive(stores.standby, reading(stream(wrong, *changes)))
        assert (visible(stores.standby), stores.records()[Table.ACTIVE]) == before
        assert not is_half_received(stores.standby.store)
        assert_clean(stores.standby)
    stores.receive_the_due_one()


def test_a_full_stream_that_is_wrong_leaves_an_empty_standby(stores: Stores) -> None:
    from idemfs.replication.difference import difference

    one = snapshots(stores.primary)[0]
    header = make_header(stores.primary, None, one)
    changes = [change for group in difference(stores.primary, None, one) for change in group.changes]
    empty = standby_of(stores.primary, epoch=3)
    with pytest.raises(StreamRefused, match="digests differ"):
        receive(empty, reading(stream(header, *changes[:-3])))
    assert visible(empty) == []
    fileset = empty.store.catalog.filesets[ROOT_FILESET]
    assert (fileset.digest, fileset.inode_count, empty.active.inode(empty.root)) == (0, 0, None)
    assert_clean(empty)
    replicate_into(stores.primary, empty)
    assert_same(stores.primary, empty, "three")


def test_a_damaged_frame_keeps_what_came_before_it(stores: Stores) -> None:
    before = visible(stores.standby)
    _, two, three = snapshots(stores.primary)
    data = bytearray(stream_of(stores.primary, two, three))
    data[-200] ^= 1
    with pytest.raises(StreamDamaged):
        receive(stores.standby, reading(bytes(data)))
    assert visible(stores.standby) == before
    assert_clean(stores.standby)
    stores.receive_the_due_one()


def portable(**fields: int | bytes) -> bytes:
    values: dict[str, int | bytes] = {
        "atime": 0,
        "mode": 0o100644,
        "uid": 0,
        "gid": 0,
        "nlink": 1,
        "rdev": 0,
        "size": 0,
        "mtime": 0,
        "ctime": 0,
        "btime": 0,
        "flags": 0,
        "name": b"f",
        "data": b"",
    }
    node = Inode(birth=NO_SNAPSHOT, seen=NO_SNAPSHOT, parent=ROOT_NUMBER, **(values | fields))  # type: ignore[arg-type]
    return node.pack()[LOCAL_SIZE:]


A = Number(900)
"""The number of an inode that neither side has."""
FILE = InodeChange(A, portable(size=5000))
WRONG: dict[str, list[Change]] = {
    "entry of nobody": [EntryChange(A, b"x", entry.pack(A, 0o100644))],
    "link of nobody": [LinkChange(A, ROOT_NUMBER, b"x", True)],
    "xattr of nobody": [XattrChange(A, b"x", None)],
    "block of nobody": [BlockChange(A, 0, b"x", block_checksum(b"x"))],
    "block past the end": [FILE, BlockChange(A, 2, b"x", block_checksum(b"x"))],
    "hole past the end": [FILE, BlockChange(A, 1 << 40, b"", 0)],
    "tail block past the end": [FILE, BlockChange(A, 1, b"x" * 905, block_checksum(b"x" * 905))],
    "long block": [FILE, BlockChange(A, 0, b"x" * 4097, block_checksum(b"x" * 4097))],
    "block of a directory": [BlockChange(ROOT_NUMBER, 0, b"x", block_checksum(b"x"))],
    "block of an inline file": [
        InodeChange(A, portable(size=4, data=b"abcd", flags=INLINE)),
        BlockChange(A, 0, b"x", block_checksum(b"x")),
    ],
    "block with another checksum": [FILE, BlockChange(A, 0, b"x", 1)],
    "inode that cannot be read": [InodeChange(A, portable(name=b"f" * 200)[:-150])],
    "inode with unknown flags": [InodeChange(A, portable(flags=4))],
    "dynamic link to itself": [InodeChange(A, portable(mode=0o120777, size=8, data=pack_named(A), flags=DYNAMIC))],
    "dynamic link cut short": [InodeChange(A, portable(mode=0o120777, size=1, data=b"\2", flags=DYNAMIC))],
    "dynamic fifo": [InodeChange(A, portable(mode=0o010600, size=8, data=pack_named(Number(2)), flags=DYNAMIC))],
    "dynamic link of two names": [
        InodeChange(A, portable(mode=0o120777, nlink=2, size=8, data=pack_named(Number(2)), flags=DYNAMIC))
    ],
    "inline directory": [InodeChange(A, portable(mode=0o040755, flags=INLINE))],
    "inline content of another size": [InodeChange(A, portable(size=3, data=b"abcd", flags=INLINE))],
    "inline content and blocks": [InodeChange(A, portable(size=5000, data=b"abcd"))],
    "huge inline content": [InodeChange(A, portable(size=5000, data=b"a" * 5000, flags=INLINE))],
    "huge file": [InodeChange(A, portable(size=1 << 60))],
    "number past the last one": [InodeChange(Number(1 << 40), portable())],
    "numbers that go back": [InodeChange(A, portable()), InodeRemoved(Number(2))],
}


@pytest.mark.parametrize("what", WRONG)
def test_records_that_would_harm_the_store_are_damage(stores: Stores, what: str) -> None:
    before = visible(stores.standby), stores.records()[Table.ACTIVE]
    header = stores.header()._replace(next_number=1000, target=Point(SOMEBODY, 1))
    with pytest.raises(StreamDamaged):
        receive(stores.standby, reading(stream(header, *WRONG[what])))
    assert visible(stores.standby) == before[0]
    assert_clean(stores.standby, read_data=False)
    assert drop_partial(stores.standby)
    assert stores.records()[Table.ACTIVE] == before[1]
    assert_clean(stores.standby)
    stores.receive_the_due_one()


def test_another_receiver_is_noticed(stores: Stores) -> None:
    _, two, three = snapshots(stores.primary)
    data = stream_of(stores.primary, two, three)

    def interfere(size: int) -> bytes:
        drop_partial(stores.standby)
        return read(size)

    read = reading(data)
    with pytest.raises(StreamRefused, match="another change set came in, or this one was dropped"):
        receive(stores.standby, interfere)
    stores.receive_the_due_one()


def test_a_sender_that_comes_back_before_its_lost_connection_was_noticed_makes_no_second_snapshot(
    stores: Stores,
) -> None:
    """What it sent before lies read to its end, and only has to be made a snapshot."""
    _, two, three = snapshots(stores.primary)
    lost = reception(stores, stream_of(stores.primary, two, three))
    lost.apply()
    receive(stores.standby, reading(stream_of(stores.primary, two, three)))
    with pytest.raises(StreamRefused, match="another change set came in, or this one was dropped"):
        complete(stores.standby, [lost])
    assert [each.name for each in snapshots(stores.standby)] == ["one", "two", "three"]
    assert_clean(stores.standby)


def test_a_reception_that_was_overtaken_leaves_the_next_change_set_alone(stores: Stores) -> None:
    _, two, three = snapshots(stores.primary)
    lost = reception(stores, stream_of(stores.primary, two, three))
    lost.apply()
    stores.receive_the_due_one()
    random_changes(stores.primary, Random(9), 30)
    four = take(stores.primary, "four")
    due = reception(stores, stream_of(stores.primary, three, four))
    with pytest.raises(StreamRefused, match="another change set came in, or this one was dropped"):
        complete(stores.standby, [lost])
    due.apply()
    complete(stores.standby, [due])
    assert [each.name for each in snapshots(stores.standby)] == ["one", "two", "three", "four"]
    assert_same(stores.primary, stores.standby, "four")


def test_what_a_primary_sent_before_its_right_ended_makes_no_snapshot_after(stores: Stores) -> None:
    _, two, three = snapshots(stores.primary)
    late = reception(stores, stream_of(stores.primary, two, three))
    late.apply()
    actions.tell(stores.standby, 4)
    with pytest.raises(StreamRefused, match="of epoch 3, and epoch 4 has begun"):
        complete(stores.standby, [late])
    assert [each.name for each in snapshots(stores.standby)] == ["one", "two"]


def test_nothing_is_applied_to_a_store_that_became_primary_meanwhile(stores: Stores) -> None:
    _, two, three = snapshots(stores.primary)
    late = reception(stores, stream_of(stores.primary, two, three))
    set_role(stores.standby.store, RoleRecord(Role.PRIMARY, 4, 4))
    stores.standby.reload_role()
    before = stores.standby.store.catalog.filesets[ROOT_FILESET].digest
    with pytest.raises(NotStandby):
        late.apply()
    # crash: nothing relies on it; it brings the digest up to date.
    stores.standby.store.commit()
    assert stores.standby.store.catalog.filesets[ROOT_FILESET].digest == before


def reception(stores: Stores, data: bytes) -> Reception:
    return Reception(stores.standby, StreamReader(reading(data)))
