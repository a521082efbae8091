"""Records: what was packed is unpacked, known bytes stay what they are, and any other bytes are Damaged."""

from __future__ import annotations

import stat
from array import array
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xxhash import xxh3_64_intdigest

from idemfs.errors import Damaged, FormatTooNew
from idemfs.format import address, digest, entry, indirect, inode, keys, role, superblock, tables
from idemfs.format.address import DITTO, HOLE
from idemfs.format.indirect import IndirectBlock, ShadowBlock
from idemfs.format.inode import INLINE, Inode
from idemfs.format.role import Role, RoleRecord
from idemfs.format.superblock import Superblock
from idemfs.ids import Address, FilesetId, Guid, Number, SnapshotId, make_ino
from idemfs.limits import BLOCK_SIZE_MAX, INDIRECT_ENTRY_COUNT, SECTOR_SIZE

u32, u64 = st.integers(0, (1 << 32) - 1), st.integers(0, (1 << 64) - 1)
i64 = st.integers(-(1 << 63), (1 << 63) - 1)
addresses = st.builds(address.make, st.integers(1, address.SECTOR_MASK), st.integers(1, BLOCK_SIZE_MAX), st.booleans())
entries = st.dictionaries(
    st.integers(0, INDIRECT_ENTRY_COUNT - 1), st.tuples(addresses | st.just(HOLE), u64), max_size=20
)


@st.composite
def nodes(draw: st.DrawFn) -> Inode:
    return Inode(
        birth=SnapshotId(draw(u64)),
        seen=SnapshotId(draw(u64)),
        atime=draw(i64),
        sectors=draw(u64),
        mode=draw(u32),
        uid=draw(u32),
        gid=draw(u32),
        nlink=draw(u32),
        rdev=draw(u64),
        size=draw(u64),
        mtime=draw(i64),
        ctime=draw(i64),
        btime=draw(i64),
        flags=draw(st.integers(0, 255)),
        parent=Number(draw(u64)),
        name=draw(st.binary(max_size=255)),
        data=draw(st.binary(max_size=3000)),
    )


def fields(node: Inode) -> list[object]:
    return [getattr(node, name) for name in Inode.__slots__]


# -- inodes ----------------------------------------------------------------------------------------------


@given(nodes())
def test_inodes(node: Inode) -> None:
    value = node.pack()
    again = inode.unpack(value)
    assert fields(again) == fields(node) and again.pack() == value
    moved = inode.with_local(inode.portable(value), birth=SnapshotId(1), seen=SnapshotId(2), atime=3, sectors=4)
    assert (moved.birth, moved.seen, moved.atime, moved.sectors) == (1, 2, 3, 4)
    assert inode.portable(moved.pack()) == inode.portable(value)


def test_an_inode_byte_by_byte() -> None:
    rest = bytes(range(40, 105)) + b"\3" + b"abc" + b"data"
    value = bytes(range(32)) + xxh3_64_intdigest(rest).to_bytes(8, "little") + rest
    node = inode.unpack(value)
    assert node.pack() == value
    assert (node.birth, node.seen, node.atime, node.sectors) == tuple(
        int.from_bytes(bytes(range(start, start + 8)), "little") for start in (0, 8, 16, 24)
    )
    assert (node.mode, node.uid, node.gid, node.nlink) == tuple(
        int.from_bytes(bytes(range(start, start + 4)), "little") for start in (40, 44, 48, 52)
    )
    assert node.size == int.from_bytes(bytes(range(64, 72)), "little")
    assert (node.flags, node.name, node.data) == (96, b"abc", b"data")
    assert node.parent == int.from_bytes(bytes(range(97, 105)), "little")


@pytest.mark.parametrize("rest", [b"", bytes(64), bytes(65) + b"\4" + b"abc"])
def test_an_inode_that_is_cut_is_damaged(rest: bytes) -> None:
    with pytest.raises(Damaged, match=r"short|inside"):
        inode.unpack(bytes(32) + xxh3_64_intdigest(rest).to_bytes(8, "little") + rest)


@given(nodes(), st.integers(0, 1 << 20), st.integers(0, 7))
def test_whatever_of_an_inode_is_not_as_it_was_written_is_noticed(node: Inode, at: int, bit: int) -> None:
    value = bytearray(node.pack())
    at = 32 + at % (len(value) - 32)
    value[at] ^= 1 << bit
    with pytest.raises(Damaged, match="checksum"):
        inode.unpack(bytes(value))


def test_types_of_inodes() -> None:
    node = inode.with_local(
        bytes(inode.LAYOUT.size - inode.LOCAL_SIZE), birth=SnapshotId(0), seen=SnapshotId(0), atime=0, sectors=0
    )
    for mode, is_dir, is_file in (
        (stat.S_IFDIR, True, False),
        (stat.S_IFREG, False, True),
        (stat.S_IFLNK, False, False),
    ):
        node.mode = mode | 0o7777
        assert (node.is_dir, node.is_file) == (is_dir, is_file)
    assert not node.is_inline
    node.flags = INLINE
    assert node.is_inline


# -- indirect blocks -------------------------------------------------------------------------------------


def active_block(pairs: dict[int, tuple[Address, int]]) -> IndirectBlock:
    block = IndirectBlock()
    for at, (place, check) in pairs.items():
        block.set(at, place, check if place != HOLE else 0)
    return block


@given(entries)
def test_active_indirect_blocks(pairs: dict[int, tuple[Address, int]]) -> None:
    block = active_block(pairs)
    value = block.pack()
    real = {at: pair for at, pair in pairs.items() if pair[0] != HOLE}
    if not real:
        assert value == b""
        return
    again = indirect.unpack(value)
    assert again.pack() == value and len(again.addresses) == max(real) + 1
    assert {at: (place, check) for at, place, check in again.real_entries()} == real
    for at in range(INDIRECT_ENTRY_COUNT):
        assert again.get(at) == real.get(at, (HOLE, 0))


@given(entries)
def test_shadows_of_indirect_blocks(pairs: dict[int, tuple[Address, int]]) -> None:
    value = ShadowBlock(pairs).pack()
    again = indirect.unpack_shadow(value)
    assert again.entries == pairs and again.pack() == value


def test_indirect_blocks_byte_by_byte() -> None:
    block = active_block({1: (Address(5), 6)})
    assert block.pack().hex() == "0200" + "0" * 16 + "0500000000000000" + "0" * 16 + "0600000000000000"
    shadow = ShadowBlock({3: (Address(5), 6), 1: (HOLE, 0)})
    assert shadow.pack().hex() == "0200" + "01000300" + "0" * 16 + "0500000000000000" + "0" * 16 + "0600000000000000"


@given(entries, st.lists(entries, max_size=4))
def test_the_oldest_version_that_has_an_entry_decides(
    last: dict[int, tuple[Address, int]], versions: list[dict[int, tuple[Address, int]]]
) -> None:
    block = active_block(last)
    before = block.copy()
    resolved = indirect.fold([ShadowBlock(each) for each in versions], block)
    assert (block.addresses, block.checksums) == (before.addresses, before.checksums)
    for at in range(INDIRECT_ENTRY_COUNT):
        expected = next((each[at] for each in versions if at in each), block.get(at))
        assert resolved.get(at)[0] == expected[0]


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\1",
        b"\1\0",
        b"\1\0" + bytes(15),
        b"\1\0" + bytes(17),
        (513).to_bytes(2, "little") + bytes(16 * 513),
        b"\1\0" + b"\xff" * 8 + bytes(8),
    ],
)
def test_an_active_indirect_block_that_cannot_be_is_damaged(value: bytes) -> None:
    if value == b"":
        # No entries and no value are the same: the record need not exist.
        assert indirect.unpack(b"\0\0").addresses == array("Q")
        return
    with pytest.raises(Damaged):
        indirect.unpack(value)


@pytest.mark.parametrize(
    "value",
    [
        b"\1\0",
        b"\1\0" + bytes(17),
        (513).to_bytes(2, "little") + bytes(18 * 513),
        b"\1\0" + (512).to_bytes(2, "little") + bytes(16),
        b"\1\0" + bytes(2) + b"\xff" * 8 + bytes(8),
    ],
)
def test_a_shadow_of_an_indirect_block_that_cannot_be_is_damaged(value: bytes) -> None:
    with pytest.raises(Damaged):
        indirect.unpack_shadow(value)


# -- addresses -------------------------------------------------------------------------------------------


@given(st.integers(1, address.SECTOR_MASK), st.integers(1, BLOCK_SIZE_MAX), st.booleans())
def test_addresses(sector: int, size: int, is_compressed: bool) -> None:
    made = address.make(sector, size, is_compressed)
    assert (address.sector_of(made), address.stored_size_of(made)) == (sector, size)
    assert address.is_compressed(made) == is_compressed and address.is_real(made)
    assert address.sector_count_of(made) == -(-size // SECTOR_SIZE)
    assert address.validate(made) == made
    assert made < 1 << 62


def test_the_two_that_are_no_places() -> None:
    for place in (HOLE, DITTO):
        assert not address.is_real(place) and address.sector_count_of(place) == 0
        assert address.validate(place) == place


@pytest.mark.parametrize("value", [1, 1 << 38, 1 << 62 | 1 << 38 | 1, (BLOCK_SIZE_MAX + 1) << 38 | 1, DITTO - 1])
def test_what_is_no_address_is_damaged(value: int) -> None:
    with pytest.raises(Damaged):
        address.validate(value)


# -- small records ---------------------------------------------------------------------------------------


@given(st.integers(1, (1 << 48) - 1), u32)
def test_entries(number: int, mode: int) -> None:
    assert entry.unpack(entry.pack(Number(number), mode)) == (number, mode >> 12 & 15)


@given(u64, u64, u64, st.binary(min_size=16, max_size=16), st.integers(0, digest.MASK), st.text(max_size=50))
def test_state_filesets_and_snapshots(one: int, two: int, three: int, guid: bytes, total: int, name: str) -> None:
    state = tables.StoreState(one, two, three)
    assert tables.unpack_state(state.pack()).pack() == state.pack()
    fileset = tables.Fileset(FilesetId(3), Guid(guid), name, one, SnapshotId(two), total, three)
    again = tables.unpack_fileset(FilesetId(3), fileset.pack())
    assert [getattr(again, field) for field in fileset.__slots__] == [
        getattr(fileset, field) for field in fileset.__slots__
    ]
    snapshot = tables.Snapshot(
        FilesetId(3),
        SnapshotId(7),
        Guid(guid),
        name,
        -5,
        total,
        one,
        two >> 1,
        three >> 1,
        tables.DELETING,
        SnapshotId(one % 7),
    )
    seen = tables.unpack_snapshot(FilesetId(3), SnapshotId(7), snapshot.pack())
    assert [getattr(seen, field) for field in seen.__slots__] == [getattr(snapshot, field) for field in seen.__slots__]
    assert snapshot.owned_bytes == (two >> 1) + (three >> 1)


@pytest.mark.parametrize("older", [7, 8])
def test_no_older_snapshot_is_newer(older: int) -> None:
    snapshot = tables.Snapshot(FilesetId(3), SnapshotId(7), Guid(bytes(16)), "x", 0, 0, 0, older=SnapshotId(older))
    with pytest.raises(Damaged, match=f"snapshot 7 is damaged: the next older one is said to be {older}"):
        tables.unpack_snapshot(FilesetId(3), SnapshotId(7), snapshot.pack())


@given(st.sampled_from(Role), u64, u64)
def test_roles(kind: Role, epoch: int, seen: int) -> None:
    record = RoleRecord(kind, epoch, seen)
    assert role.unpack(role.pack(record)) == record


def test_a_store_without_a_role_is_primary_of_the_first_epoch() -> None:
    assert role.unpack(None) == RoleRecord(Role.PRIMARY, 1, 1)


READERS: dict[str, Callable[[bytes], object]] = {
    "inode": inode.unpack,
    "active indirect block": indirect.unpack,
    "shadow indirect block": indirect.unpack_shadow,
    "entry": entry.unpack,
    "state": tables.unpack_state,
    "fileset": lambda value: tables.unpack_fileset(FilesetId(0), value),
    "snapshot": lambda value: tables.unpack_snapshot(FilesetId(0), SnapshotId(1), value),
    "role": role.unpack,
    "superblock": superblock.unpack,
}


@pytest.mark.parametrize("kind", sorted(READERS))
@given(value=st.binary(max_size=200))
def test_any_bytes_are_a_record_or_damaged(kind: str, value: bytes) -> None:
    try:
        READERS[kind](value)
    except (Damaged, FormatTooNew) as error:
        assert str(error)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("entry", bytes(9)),
        ("entry", bytes(8)),
        ("entry", b"\1" * 9),
        ("state", bytes(23)),
        ("fileset", bytes(55)),
        ("fileset", bytes(56) + b"\xff"),
        ("snapshot", bytes(64)),
        ("snapshot", bytes(65) + b"\xff"),
        ("role", bytes(17)),
        ("role", b"\1" + bytes(15)),
    ],
)
def test_small_records_that_cannot_be_are_damaged(kind: str, value: bytes) -> None:
    with pytest.raises(Damaged):
        READERS[kind](value)


# -- superblock ------------------------------------------------------------------------------------------


def test_the_superblock() -> None:
    block = Superblock(Guid(bytes(range(16))), 131072, 1536, 512, 1, 1_700_000_000_000_000_000, compatible=1 << 63)
    value = superblock.pack(block)
    again = superblock.unpack(value)
    assert len(value) == superblock.SIZE == 96
    assert [getattr(again, name) for name in Superblock.__slots__] == [
        getattr(block, name) for name in Superblock.__slots__
    ]
    for at in range(len(value)):
        changed = bytearray(value)
        changed[at] ^= 1
        with pytest.raises((Damaged, FormatTooNew)):
            superblock.unpack(bytes(changed))


# -- digest ----------------------------------------------------------------------------------------------


@given(nodes(), entries, st.binary(min_size=1, max_size=50))
def test_contributions_are_the_same_on_every_standby(
    node: Inode, pairs: dict[int, tuple[Address, int]], name: bytes
) -> None:
    """The fileset, the local head of an inode and the addresses of blocks are a store's own."""
    here, there = make_ino(FilesetId(0), Number(7)), make_ino(FilesetId(9), Number(7))
    one = digest.contribution(keys.inode(here), node.pack())
    node.birth, node.seen, node.atime, node.sectors = SnapshotId(1), SnapshotId(2), 3, 4
    assert digest.contribution(keys.inode(there), node.pack()) == one
    node.size ^= 1
    assert digest.contribution(keys.inode(here), node.pack()) != one
    value = active_block(pairs).pack()
    if value:
        moved = active_block({at: (Address(5) if place else HOLE, check) for at, (place, check) in pairs.items()})
        assert digest.contribution(keys.block(here, 1), value) == digest.contribution(
            keys.block(there, 1), moved.pack()
        )
        assert digest.contribution(keys.block(here, 1), value) != digest.contribution(keys.block(here, 2), value)
    assert digest.contribution(keys.entry(here, name), b"1") != digest.contribution(keys.xattr(here, name), b"1")
    assert digest.contribution(keys.entry(here, name), b"1") == digest.contribution(keys.entry(there, name), b"1")


def test_a_name_and_its_value_cannot_pass_for_each_other() -> None:
    ino = make_ino(FilesetId(0), Number(7))
    assert digest.contribution(keys.xattr(ino, b"a"), b"bc") != digest.contribution(keys.xattr(ino, b"ab"), b"c")
    assert digest.to_text(255) == "0" * 30 + "ff"
