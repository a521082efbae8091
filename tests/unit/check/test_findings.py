"""One thing is wrong on purpose, and exactly that is found: records, inodes, names, counters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from idemfs.check import Kind
from idemfs.engines.kv.api import Table
from idemfs.errors import Damaged
from idemfs.format import entry, keys, role
from idemfs.format import inode as inodes
from idemfs.format.address import DITTO, HOLE
from idemfs.format.inode import DYNAMIC, INLINE, pack_named
from idemfs.format.tables import Fileset, Snapshot
from idemfs.ids import NO_SNAPSHOT, ROOT_FILESET, ROOT_INO, FilesetId, Guid, Ino, Number, SnapshotId, make_ino
from idemfs.limits import FILE_SIZE_MAX, SECTOR_COUNT_MAX
from idemfs.testing.builders import make_file
from idemfs.vfs.tree import Tree
from tests.unit.check.patient import Patient
from tests.unit.check.stores import BLOCK, aged, fresh

NOWHERE = make_ino(ROOT_FILESET, Number(9999))


@pytest.fixture
def new() -> Patient:
    return Patient(fresh)


@pytest.fixture
def old() -> Patient:
    """Snapshots 1 ``first`` and 2 ``second``."""
    return Patient(aged)


def only(patient: Patient, kind: Kind, *words: str) -> None:
    """The one finding is of this kind, and its text has these words."""
    findings = patient.find()
    assert [finding.kind for finding in findings] == [kind], findings
    for word in words:
        assert word in str(findings[0])


# -- records -------------------------------------------------------------------------------------------

RECORDS: dict[str, tuple[Callable[[Patient], tuple[bytes, bytes]], str]] = {
    "inode cut short": (lambda p: (keys.inode(p.ino(b"small")), bytes(40)), "too short"),
    "inode of no type": (lambda p: (keys.inode(p.ino(b"pipe")), _inode(p, b"pipe", mode=0o7000644)), "no type"),
    "inode with odd flags": (lambda p: (keys.inode(p.ino(b"small")), _inode(p, b"small", flags=5)), "flags 0x5"),
    "dynamic pipe": (lambda p: (keys.inode(p.ino(b"pipe")), _inode(p, b"pipe", flags=DYNAMIC)), "only symlinks"),
    "dynamic link to nothing": (lambda p: (keys.inode(p.ino(b"link")), _dynamic(p, 0)), "names inode 0"),
    "dynamic link to itself": (
        lambda p: (keys.inode(p.ino(b"link")), _dynamic(p, p.ino(b"link"))),
        "which was not there when it was made",
    ),
    "dynamic link cut short": (
        lambda p: (keys.inode(p.ino(b"link")), _inode(p, b"link", flags=DYNAMIC)),
        "which was not there",
    ),
    "dynamic link of two names": (lambda p: (keys.inode(p.ino(b"link")), _dynamic(p, 2, nlink=2)), "has one name"),
    "inline pipe": (lambda p: (keys.inode(p.ino(b"pipe")), _inode(p, b"pipe", flags=INLINE)), "only regular files"),
    "inline size": (lambda p: (keys.inode(p.ino(b"small")), _inode(p, b"small", size=7)), "holds 6 bytes"),
    "endless file": (lambda p: (keys.inode(p.ino(b"file")), _inode(p, b"file", size=FILE_SIZE_MAX + 1)), "too large"),
    "inode name": (lambda p: (keys.inode(p.ino(b"pipe")), _inode(p, b"pipe", name=b"a/b")), "name b'a/b'"),
    "long symlink": (
        lambda p: (keys.inode(p.ino(b"link")), _inode(p, b"link", size=5000, data=b"x" * 5000)),
        "5000 bytes, which is too many",
    ),
    "unknown kind": (lambda p: (p.ino(b"file").to_bytes(8, "big") + b"q", b"1"), "no known kind"),
    "number 0": (lambda p: (keys.xattr(Ino(0), b"user.a"), b"\1"), "no inode has number 0"),
    "long inode key": (lambda p: (keys.inode(p.ino(b"file")) + b"1", b"1"), "too long"),
    "block key": (lambda p: (keys.block(p.ino(b"file"), 1)[:-1], b""), "wrong size"),
    "block far away": (lambda p: (keys.block(p.ino(b"file"), FILE_SIZE_MAX // BLOCK), b""), "past the largest size"),
    "link to number 0": (lambda p: (keys.link(p.ino(b"one"), Number(0), b"x"), b"\1"), "directory that cannot exist"),
    "entry without a name": (lambda p: (keys.entry(ROOT_INO, b""), b""), "no entry can have the name b''"),
    "entry named ..": (lambda p: (keys.entry(ROOT_INO, b".."), b""), "no entry can have the name b'..'"),
    "attribute without a name": (lambda p: (keys.xattr(ROOT_INO, b""), b"\1"), "no attribute can have this name"),
    "attribute that is absent": (lambda p: (keys.xattr(ROOT_INO, b"user.a"), b""), "does not begin with 1"),
    "long attribute": (lambda p: (keys.xattr(ROOT_INO, b"user.a"), b"\1" * 65538), "65537 bytes is too long"),
}


KNOCK_ON: dict[str, set[Kind]] = {
    "inode of no type": {Kind.ENTRY},
    "inode name": {Kind.BACK_REFERENCE},
    "number 0": {Kind.INODE},
    "long inode key": {Kind.INODE_COUNT},
    "dynamic link of two names": {Kind.LINK_COUNT},
    "link to number 0": {Kind.BACK_REFERENCE, Kind.LINK_COUNT},
    "entry without a name": {Kind.DIRECTORY_SIZE},
    "entry named ..": {Kind.DIRECTORY_SIZE},
}


def _inode(patient: Patient, path: bytes, **fields: int | bytes) -> bytes:
    node = patient.inode(path)
    for name, value in fields.items():
        setattr(node, name, value)
    return node.pack()


def _dynamic(patient: Patient, number: int, nlink: int = 1) -> bytes:
    """``link`` as a dynamic link."""
    return _inode(patient, b"link", flags=DYNAMIC, size=8, data=pack_named(Number(number)), nlink=nlink)


@pytest.mark.parametrize("case", sorted(RECORDS))
def test_a_record_that_the_format_does_not_know(new: Patient, case: str) -> None:
    make, words = RECORDS[case]
    new.put_active(*make(new))
    damaged = [finding for finding in new.find() if finding.kind is Kind.RECORD]
    assert len(damaged) == 1 and words in damaged[0].what
    # What cannot be decoded cannot be counted or followed either; with most records nothing else is wrong.
    others = {finding.kind for finding in new.find()} - {Kind.RECORD}
    assert others == KNOCK_ON.get(case, set())


def test_a_record_without_a_place_is_named_by_its_key(new: Patient) -> None:
    key = new.ino(b"file").to_bytes(8, "big") + b"q"
    new.put_active(key, b"1")
    new.put(Table.SMALL, b"Y1", b"")
    assert [finding.where for finding in new.find()] == ["key 'Y' 31", f"key {key.hex()}"]


def test_an_entry_or_link_that_does_not_decode(new: Patient) -> None:
    new.put_active(keys.entry(ROOT_INO, b"pipe"), b"123")
    only(new, Kind.RECORD, "/, entry 'pipe'", "3 bytes")


def test_a_link_with_a_long_value(new: Patient) -> None:
    new.put_active(keys.link(new.ino(b"one"), Number(new.ino(b"outer")), b"two"), b"\1\1")
    only(new, Kind.RECORD, "/one, link 'two'", "1 bytes is too long")


def test_a_ditto_in_an_active_record(new: Patient) -> None:
    block = new.map(b"file")
    block.addresses[1] = DITTO
    new.put_map(b"file", block)
    # Without the record its extents have no owner.
    assert new.kinds() == Counter({Kind.RECORD: 1, Kind.SECTORS: 1, Kind.LEAK: 1})
    assert "/file, indirect block 0: an active indirect block holds a ditto" in str(new.find()[0])


@pytest.mark.parametrize("words", ["a hole has a checksum", "ends with a hole"])
def test_holes_in_an_active_record(new: Patient, words: str) -> None:
    block = new.map(b"outer/inner/sparse")
    if "checksum" in words:
        block.checksums[0] = 1
        value = block.pack()
    else:
        block.addresses.append(HOLE)
        block.checksums.append(0)
        count = len(block.addresses)
        value = count.to_bytes(2, "little") + block.addresses.tobytes() + block.checksums.tobytes()
    new.put_active(keys.block(new.ino(b"outer/inner/sparse"), 0), value)
    assert new.kinds() == Counter({Kind.RECORD: 1, Kind.SECTORS: 1, Kind.USAGE: 1, Kind.LEAK: 1})
    assert words in str(new.find()[0])


SMALL: dict[str, tuple[bytes, bytes, str]] = {
    "unknown table": (b"X1", b"", "in no table"),
    "long key": (b"R" + bytes(9), bytes(8), "10 bytes and not 9"),
    "short value": (keys.free_extent(1 << 30), b"1", "1 bytes and not 8"),
    "orphan with a value": (keys.orphan(NOWHERE), b"1", "not empty"),
    "hold of nothing": (b"H12", bytes(8), "names no snapshot"),
    "role": (role.KEY, b"123", "role record is damaged"),
    "restore of nothing": (keys.replication("restore"), b"1", "names no snapshot"),
    "undo of nothing": (keys.replication("undo"), b"1", "names no snapshot"),
    "base of nothing": (keys.replication("base"), b"1", "names no snapshot"),
    "snapshot": (keys.snapshot(ROOT_FILESET, SnapshotId(1)), b"1", "snapshot 1 is damaged"),
}


@pytest.mark.parametrize("case", sorted(SMALL))
def test_a_record_of_the_small_table_that_does_not_decode(new: Patient, case: str) -> None:
    key, value, words = SMALL[case]
    new.put(Table.SMALL, key, value)
    damaged = [finding for finding in new.find() if finding.kind is Kind.RECORD]
    assert len(damaged) == 1 and words in damaged[0].what


def test_a_fileset_or_the_state_of_the_store_that_does_not_decode_is_said_on_opening(new: Patient) -> None:
    new.put(Table.SMALL, keys.fileset(FilesetId(5)), b"1")
    with pytest.raises(Damaged, match="fileset 5 is damaged"):
        new.find()
    new.put(Table.SMALL, keys.STORE_STATE, b"1")
    with pytest.raises(Damaged, match="state record is damaged"):
        new.find()


# -- filesets and snapshots ------------------------------------------------------------------------------


def test_records_of_a_fileset_that_does_not_exist(new: Patient) -> None:
    node = new.inode(b"pipe")
    new.put(Table.ACTIVE, keys.inode(make_ino(FilesetId(7), Number(1))), node.pack())
    only(new, Kind.FILESET, "fileset 7: has records")


def test_a_snapshot_of_a_fileset_that_does_not_exist(new: Patient) -> None:
    new.put_snapshot(Snapshot(FilesetId(7), SnapshotId(1), Guid(bytes(16)), "x", 0, 0, 0))
    only(new, Kind.FILESET, "fileset 7: has snapshots")


def test_a_fileset_with_the_number_of_the_next_one(new: Patient) -> None:
    new.put_fileset(Fileset(FilesetId(1), Guid(bytes(16)), "x"))
    found = [str(finding) for finding in new.find()]
    assert len(found) == 2 and "fileset 1: has a number that is to be given next" in found[0]
    assert "fileset x: appears nowhere" in found[1]


def test_an_inode_with_the_number_of_the_next_one(new: Patient) -> None:
    fileset = new.fileset()
    fileset.next_number -= 1
    new.put_fileset(fileset)
    only(new, Kind.FILESET, "/outer/inner/sparse", f"the next one to be given is {fileset.next_number}")


def test_a_newest_snapshot_that_is_not_the_newest(old: Patient) -> None:
    fileset = old.fileset()
    fileset.newest = SnapshotId(1)
    old.put_fileset(fileset)
    only(old, Kind.FILESET, "newest snapshot is number 1; it is 2")


def test_a_next_older_snapshot_that_is_not_the_next_older(old: Patient) -> None:
    second = old.snapshot(2)
    second.older = NO_SNAPSHOT
    old.put_snapshot(second)
    only(old, Kind.SNAPSHOT, f"snapshot {second.name}", "the next older one is number 0; it is 1")


def test_a_snapshot_with_the_number_of_the_next_one(old: Patient) -> None:
    fileset = old.fileset()
    fileset.newest = SnapshotId(3)
    old.put_fileset(fileset)
    twin = old.snapshot(2)
    empty = Snapshot(ROOT_FILESET, SnapshotId(3), Guid(bytes(16)), "third", 0, fileset.digest, fileset.inode_count)
    assert twin.id == 2
    empty.older = twin.id
    old.put_snapshot(empty)
    only(old, Kind.SNAPSHOT, "third", "has number 3; the next one to be given is 3")


SNAPSHOTS: dict[str, tuple[str, object, str]] = {
    "state": ("state", 9, "is in state 9"),
    "guid": ("guid", None, "the guid of another snapshot"),
    "name taken": ("name", "first", "the name of another snapshot"),
    "name": ("name", "a/b", "'a/b' has '/'"),
}


@pytest.mark.parametrize("case", sorted(SNAPSHOTS))
def test_a_snapshot_record_that_makes_no_sense(old: Patient, case: str) -> None:
    field, value, words = SNAPSHOTS[case]
    snapshot = old.snapshot(2)
    setattr(snapshot, field, old.snapshot(1).guid if value is None else value)
    old.put_snapshot(snapshot)
    only(old, Kind.SNAPSHOT, words)


def test_more_sectors_than_there_can_be(new: Patient) -> None:
    state = new.state()
    state.sector_count = SECTOR_COUNT_MAX + 1
    new.put_state(state)
    assert [finding.kind for finding in new.find()] == [Kind.RECORD, Kind.LEAK]


def test_a_hold_of_a_snapshot_that_does_not_exist(old: Patient) -> None:
    old.put(Table.SMALL, keys.hold(SnapshotId(77), b"me"), bytes(8))
    only(old, Kind.SNAPSHOT, "snapshot number 77: is held")


def test_a_lock_of_a_snapshot_that_does_not_exist(old: Patient) -> None:
    old.put(Table.SMALL, keys.lock(SnapshotId(1)), bytes(8))
    assert old.find() == []
    old.put(Table.SMALL, keys.lock(SnapshotId(77)), bytes(8))
    only(old, Kind.SNAPSHOT, "snapshot number 77: is held or locked")


def test_policies(old: Patient) -> None:
    policy, state = keys.policy(ROOT_FILESET), keys.schedule_state(ROOT_FILESET)
    old.put(Table.SMALL, policy, b'{"every_seconds": 60}')
    old.put(Table.SMALL, state, bytes(8))
    assert old.find() == []
    old.put(Table.SMALL, policy, b'{"every_seconds": "often"}')
    only(old, Kind.RECORD, "schedule is damaged")
    old.put(Table.SMALL, policy, None)
    old.put(Table.SMALL, state, bytes(7))
    only(old, Kind.RECORD, "7 bytes and not 8")
    old.put(Table.SMALL, state, None)
    old.put(Table.SMALL, keys.policy(FilesetId(5)), b"{}")
    only(old, Kind.FILESET, "fileset 5: has a schedule and does not exist")


def test_records_that_a_snapshot_owns_that_does_not_exist(old: Patient) -> None:
    key = keys.inode(old.ino(b"pipe"))
    old.put(Table.SHADOW, keys.shadow(key, SnapshotId(77)), b"")
    old.put(Table.OWNED, keys.owned(SnapshotId(77), key), b"")
    only(old, Kind.SNAPSHOT, "snapshot number 77 of fileset 0: owns records")
    old.put(Table.OWNED, keys.owned(SnapshotId(78), key), b"")
    assert [finding.where for finding in old.find()][1:] == ["/pipe in snapshot number 78"]


def test_counts_of_inodes(old: Patient) -> None:
    fileset = old.fileset()
    fileset.inode_count += 1
    old.put_fileset(fileset)
    only(old, Kind.INODE_COUNT, "fileset root", f"says {fileset.inode_count} inodes")
    fileset.inode_count -= 1
    old.put_fileset(fileset)
    snapshot = old.snapshot(1)
    snapshot.inode_count -= 1
    old.put_snapshot(snapshot)
    only(old, Kind.INODE_COUNT, "snapshot first", f"says {snapshot.inode_count} inodes")


def test_digests(old: Patient) -> None:
    fileset = old.fileset()
    fileset.digest ^= 1
    old.put_fileset(fileset)
    only(old, Kind.DIGEST, "fileset root")
    fileset.digest ^= 1
    old.put_fileset(fileset)
    snapshot = old.snapshot(2)
    snapshot.digest ^= 1
    old.put_snapshot(snapshot)
    only(old, Kind.DIGEST, "snapshot second")


def test_a_version_that_says_something_else(old: Patient) -> None:
    key = keys.shadow(keys.inode(old.ino(b"pipe")), SnapshotId(2))
    node = inodes.unpack(old.get(Table.SHADOW, key))
    node.mode ^= 0o100
    old.put(Table.SHADOW, key, node.pack())
    # Both snapshots see this version, the older one as a ditto.
    assert [finding.where for finding in old.find()] == ["snapshot first", "snapshot second"]
    assert old.kinds() == Counter({Kind.DIGEST: 2})


# -- inodes ----------------------------------------------------------------------------------------------


def test_a_bit_of_a_small_file_that_is_not_as_it_was_written(new: Patient) -> None:
    key = keys.inode(new.ino(b"small"))
    value = bytearray(new.get(Table.ACTIVE, key))
    value[-1] ^= 1
    new.put(Table.ACTIVE, key, bytes(value))
    findings = [(finding.kind, finding.where) for finding in new.find()]
    assert (Kind.RECORD, f"inode {new.ino(b'small')}") in findings


def test_records_of_an_inode_that_is_missing(new: Patient) -> None:
    number = Number(new.ino(b"small"))
    fileset = new.fileset()
    fileset.next_number += 1
    new.put_fileset(fileset)
    missing = make_ino(ROOT_FILESET, Number(fileset.next_number - 1))
    new.put_active(keys.xattr(missing, b"user.a"), b"\1")
    new.put_active(keys.xattr(missing, b"user.b"), b"\1")
    assert number < missing
    only(new, Kind.INODE, f"inode {missing}: is missing")


def test_a_root_directory_that_is_missing() -> None:
    patient = Patient(lambda tree: None)
    patient.put_active(keys.inode(ROOT_INO), None)
    patient.put_active(keys.xattr(ROOT_INO, b"user.a"), b"\1")
    fileset = patient.fileset()
    fileset.inode_count = 0
    patient.put_fileset(fileset)
    assert patient.kinds() == Counter({Kind.INODE: 2})


@pytest.mark.parametrize(
    ("path", "birth", "seen", "words"),
    [
        (b"pipe", 0, 0, "snapshot second has a shadow"),
        (b"one", 0, 2, "snapshot second has no shadow"),
        (b"one", 99, 99, "no such snapshots"),
        (b"one", 1, 0, "no such snapshots"),
    ],
)
def test_an_inode_that_is_wrong_about_its_shadow(old: Patient, path: bytes, birth: int, seen: int, words: str) -> None:
    node = old.inode(path)
    node.birth, node.seen = SnapshotId(birth), SnapshotId(seen)
    old.put(Table.ACTIVE, keys.inode(old.ino(path)), node.pack())
    findings = [finding for finding in old.find() if finding.kind is Kind.SEEN]
    assert len(findings) == 1 and words in findings[0].what and findings[0].where == "/" + path.decode()
    # A wrong birth hides the inode from snapshots that have it.
    assert {finding.kind for finding in old.find()} - {Kind.SEEN} == (
        {Kind.DIGEST, Kind.INODE_COUNT} if birth else set()
    )


def test_sectors(new: Patient) -> None:
    node = new.inode(b"file")
    node.sectors += 1
    new.put_inode(b"file", node)
    only(new, Kind.SECTORS, "/file", "says that it has 5 sectors of data; it has 4")


@pytest.mark.parametrize(
    ("size", "words"),
    [(3 * BLOCK, "block 3, which lies past its end"), (3 * BLOCK + 499, "holds 500 bytes, of which 499")],
)
def test_blocks_past_the_end(new: Patient, size: int, words: str) -> None:
    node = new.inode(b"file")
    node.size = size
    new.put_inode(b"file", node)
    only(new, Kind.PAST_END, "/file", words)


def test_an_inline_file_with_blocks(new: Patient) -> None:
    node = new.inode(b"file")
    node.flags, node.size = INLINE, 0
    new.put_inode(b"file", node)
    only(new, Kind.PAST_END, "/file", "is inline")


def test_blocks_of_what_is_no_file(new: Patient) -> None:
    node = new.inode(b"pipe")
    node.sectors = new.inode(b"file").sectors
    new.put_inode(b"pipe", node)
    new.put_active(keys.block(new.ino(b"pipe"), 0), new.map(b"file").pack())
    findings = [finding for finding in new.find() if finding.kind is Kind.PAST_END]
    assert len(findings) == 1 and "no regular file" in findings[0].what
    assert set(new.kinds()) == {Kind.PAST_END, Kind.SHARED}


def _compressible(tree: Tree) -> None:
    make_file(tree, tree.root, b"file", b"x" * 8000)


def test_a_compressed_tail_block_that_holds_more_is_found_when_data_is_read() -> None:
    patient = Patient(_compressible, compression="zstd", block_size=4 * BLOCK)
    node = patient.inode(b"file")
    node.size = 7000
    patient.put_inode(b"file", node)
    assert patient.kinds() == Counter()
    assert patient.kinds(read_data=True) == Counter({Kind.PAST_END: 1})


# -- names -----------------------------------------------------------------------------------------------


def point(patient: Patient, directory: Ino, name: bytes, ino: Ino, kind: int) -> None:
    patient.put_active(keys.entry(directory, name), entry.pack(Number(ino), kind << 12))


def test_an_entry_of_the_wrong_type(new: Patient) -> None:
    point(new, ROOT_INO, b"pipe", new.ino(b"pipe"), 8)
    only(new, Kind.ENTRY, "/: entry 'pipe' says type 8", "has type 1")


def test_an_entry_that_names_nothing(new: Patient) -> None:
    point(new, ROOT_INO, b"pipe", NOWHERE, 1)
    assert new.kinds() == Counter({Kind.ENTRY: 1, Kind.BACK_REFERENCE: 1})
    assert "/: entry 'pipe' names inode 9999, which is missing" in str(new.find()[0])


def test_an_entry_of_a_file(new: Patient) -> None:
    point(new, new.ino(b"small"), b"x", new.ino(b"pipe"), 1)
    assert new.kinds() == Counter({Kind.ENTRY: 1, Kind.BACK_REFERENCE: 1})
    assert any("/small: has 1 entries and is no directory" in str(finding) for finding in new.find())


def test_a_back_reference_that_leads_elsewhere(new: Patient) -> None:
    node = new.inode(b"pipe")
    node.name = b"other"
    new.put_inode(b"pipe", node)
    found = "\n".join(map(str, new.find()))
    assert new.kinds() == Counter({Kind.BACK_REFERENCE: 2})
    assert (
        "entry 'pipe' names inode" in found and "a back-reference to 'other' in inode 1, where no entry names" in found
    )


def test_a_link_without_its_record(new: Patient) -> None:
    new.put_active(keys.link(new.ino(b"one"), Number(new.ino(b"outer")), b"two"), None)
    assert new.kinds() == Counter({Kind.BACK_REFERENCE: 1, Kind.LINK_COUNT: 1})


def test_a_back_reference_twice(new: Patient) -> None:
    new.put_active(keys.link(new.ino(b"one"), Number(1), b"one"), b"\1")
    only(new, Kind.BACK_REFERENCE, "/one", "the back-reference to 'one' twice")


def test_a_root_directory_with_a_name(new: Patient) -> None:
    node = new.inode(b"")
    node.parent = Number(2)
    new.put_inode(b"", node)
    only(new, Kind.BACK_REFERENCE, "the root directory has a name")


def test_a_directory_with_two_names(new: Patient) -> None:
    core = new.ino(b"outer/inner/core")
    point(new, ROOT_INO, b"core", core, 4)
    new.put_active(keys.link(core, Number(1), b"core"), b"\1")
    root = new.inode(b"")
    root.nlink += 1
    root.size += 1
    new.put_inode(b"", root)
    only(new, Kind.BACK_REFERENCE, "a directory with 2 back-references")


@pytest.mark.parametrize("path", [b"one", b"outer", b""])
def test_link_counts(new: Patient, path: bytes) -> None:
    node = new.inode(path)
    node.nlink += 1
    new.put_inode(path, node)
    only(new, Kind.LINK_COUNT, "/" + path.decode(), f"a link count of {node.nlink}")


def test_the_size_of_a_directory(new: Patient) -> None:
    node = new.inode(b"outer")
    node.size += 1
    new.put_inode(b"outer", node)
    only(new, Kind.DIRECTORY_SIZE, "/outer: says that it has 3 entries; it has 2")


def test_directories_in_a_circle(new: Patient) -> None:
    outer, core, root = new.ino(b"outer"), new.ino(b"outer/inner/core"), new.inode(b"")
    node, last = new.inode(b"outer"), new.inode(b"outer/inner/core")
    new.put_active(keys.entry(ROOT_INO, b"outer"), None)
    root.size, root.nlink = root.size - 1, root.nlink - 1
    new.put_active(keys.inode(ROOT_INO), root.pack())
    new.put_active(keys.entry(core, b"outer"), entry.pack(Number(outer), 4 << 12))
    last.size, last.nlink = last.size + 1, last.nlink + 1
    new.put_active(keys.inode(core), last.pack())
    node.parent = Number(core)
    new.put_active(keys.inode(outer), node.pack())
    assert new.kinds() == Counter({Kind.UNREACHABLE: 3})


def test_orphans(new: Patient) -> None:
    new.put(Table.SMALL, keys.orphan(new.ino(b"small")), b"")
    only(new, Kind.ORPHAN, "/small", "is an orphan and has links")
    new.put(Table.SMALL, keys.orphan(new.ino(b"small")), None)
    new.put(Table.SMALL, keys.orphan(NOWHERE), b"")
    only(new, Kind.ORPHAN, "inode 9999", "is missing")


def test_a_file_without_links_that_is_no_orphan() -> None:
    def unlinked(tree: Tree) -> None:
        ino = make_file(tree, tree.root, b"f", b"x")
        tree.open(ino)
        tree.unlink(tree.root, b"f")

    patient = Patient(unlinked)
    assert patient.find() == []
    patient.put(Table.SMALL, keys.orphan(make_ino(ROOT_FILESET, Number(2))), None)
    only(patient, Kind.ORPHAN, "inode 2", "has no links and is no orphan")


def test_every_kind_of_finding_is_tested() -> None:
    text = "".join(file.read_text() for file in Path(__file__).parent.glob("test_*.py"))
    assert [kind for kind in Kind if f"Kind.{kind.name}" not in text] == []
