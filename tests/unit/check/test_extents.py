"""One thing is wrong on purpose, and exactly that is found: extents, free space, what snapshots own, data."""

from __future__ import annotations

from array import array
from collections import Counter
from random import Random

import pytest

from idemfs.check import Finding, Kind
from idemfs.check.context import Context
from idemfs.check.extents import Extents
from idemfs.engines.kv.api import Table
from idemfs.format import address as addresses
from idemfs.format import keys
from idemfs.format.indirect import ShadowBlock
from idemfs.ids import Number, SnapshotId
from idemfs.store.store import Store
from idemfs.testing.builders import memory_store
from tests.unit.check.patient import Patient
from tests.unit.check.stores import BLOCK, aged, content, fresh, shared


@pytest.fixture
def new() -> Patient:
    return Patient(fresh)


@pytest.fixture
def old() -> Patient:
    """Snapshots 1 ``first`` and 2 ``second``."""
    return Patient(aged)


def only(patient: Patient, kind: Kind, *words: str) -> None:
    findings = patient.find()
    assert [finding.kind for finding in findings] == [kind], findings
    for word in words:
        assert word in str(findings[0])


def readdress(patient: Patient, path: bytes, entry: int, address: int) -> int:
    """Give one block of a file another address; the sector of the old one."""
    block = patient.map(path)
    old = block.addresses[entry]
    block.addresses[entry] = address
    patient.put_map(path, block)
    return addresses.sector_of(old)


# -- sectors -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        addresses.make(1 << 30, BLOCK, False),
        1 << 62 | addresses.make(3, BLOCK, False),
        addresses.make(3, 2 * BLOCK, False) & ~addresses.SECTOR_MASK,
        addresses.make(3, BLOCK + 1, False),
        5,
    ],
)
def test_addresses_outside_the_store(new: Patient, address: int) -> None:
    sector = readdress(new, b"file", 1, address)
    findings = [finding for finding in new.find() if finding.kind is not Kind.SECTORS]
    assert [finding.kind for finding in findings] == [Kind.LEAK, Kind.ADDRESS]
    assert findings[0].where == f"sectors {sector} to {sector}"
    assert findings[1].where == "/file, block 1"


def test_more_of_one_kind_than_anybody_wants_to_read(new: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("idemfs.check.owners.QUESTION_COUNT_MAX", 1)
    for entry in range(3):
        readdress(new, b"file", entry, 5 + entry)
    told = [str(finding) for finding in new.find() if finding.kind is Kind.ADDRESS]
    assert len(told) == 2 and told[0].startswith("/file, block 0: ") and "and 2 more" in told[1]


def test_two_files_with_one_extent(new: Patient) -> None:
    block = new.map(b"other")
    readdress(new, b"file", 1, block.addresses[0])
    findings = new.find()
    assert Counter(finding.kind for finding in findings) == Counter({Kind.LEAK: 1, Kind.SHARED: 1, Kind.CHECKSUM: 1})
    assert any(
        "/file, block 1 and /other, block 0: is named by 2 records, and counted as 1" in str(f) for f in findings
    )


def test_two_extents_with_a_sector_in_common(new: Patient) -> None:
    sector = addresses.sector_of(new.map(b"other").addresses[1])
    readdress(new, b"file", 1, addresses.make(sector, BLOCK - 1, False))
    findings = new.find()
    assert Counter(finding.kind for finding in findings) == Counter({Kind.LEAK: 1, Kind.OVERLAP: 1})
    assert f"/other, block 1: both have sectors {sector} to {sector}" in str(findings[1])


def test_sectors_that_are_owned_and_free(new: Patient) -> None:
    sector, count = new.free_runs()[-1]
    new.put_free(sector, None)
    new.put_free(sector - 2, count + 2)
    findings = new.find()
    assert {finding.kind for finding in findings} == {Kind.OVERLAP}
    assert all("are free as well" in finding.what and finding.where.startswith("/") for finding in findings)


def test_sectors_that_nobody_has(new: Patient) -> None:
    sector, count = new.free_runs()[-1]
    new.put_free(sector, count - 3)
    only(new, Kind.LEAK, f"sectors {sector + count - 3} to {sector + count - 1}")


def test_sectors_between_extents_that_nobody_has(new: Patient) -> None:
    state = new.state()
    state.sector_count += 10
    new.put_state(state)
    only(new, Kind.LEAK, f"sectors {state.sector_count - 10} to {state.sector_count - 1}")


def test_free_runs_that_overlap(new: Patient) -> None:
    sector, count = new.free_runs()[-1]
    new.put_free(sector + 4, 3)
    only(new, Kind.FREE, f"sectors {sector + 4} to {sector + 6}", "free twice")
    assert count > 7


@pytest.mark.parametrize(("sector", "count"), [(1 << 30, 5), (0, 1)])
def test_free_runs_outside_the_store(new: Patient, sector: int, count: int) -> None:
    new.put_free(sector, count)
    only(new, Kind.FREE, f"sectors {sector} to {sector + count - 1}", "outside the store")


def test_an_empty_free_run(new: Patient) -> None:
    new.put_free(new.free_runs()[-1][0] + 1, 0)
    only(new, Kind.FREE)


# -- shared extents ------------------------------------------------------------------------------------------


def test_a_shared_count_of_what_is_not_shared(new: Patient) -> None:
    address = new.map(b"other").addresses[0]
    new.put(Table.SMALL, keys.shared_extent(addresses.sector_of(address)), (2).to_bytes(8, "little"))
    only(new, Kind.SHARED, "/other, block 0", "named by 1 records, and counted as 2")


def test_a_shared_count_of_nothing(new: Patient) -> None:
    new.put(Table.SMALL, keys.shared_extent(new.free_runs()[-1][0]), (2).to_bytes(8, "little"))
    only(new, Kind.SHARED, "none names it")


def test_a_shared_extent_that_is_not_counted() -> None:
    patient = Patient(shared)
    address = patient.shadow_map(b"file", 1).entries[0][0]
    assert patient.map(b"file").addresses[0] == address
    patient.put(Table.SMALL, keys.shared_extent(addresses.sector_of(address)), None)
    only(patient, Kind.SHARED, "/file, block 0 and /file, block 0 in snapshot first", "by 2 records, and counted as 1")


def test_records_that_disagree_about_a_checksum() -> None:
    patient = Patient(shared)
    block = patient.map(b"file")
    block.checksums[0] ^= 1
    patient.put_map(b"file", block)
    only(patient, Kind.CHECKSUM, "/file, block 0 and /file, block 0 in snapshot first", "different checksums")


# -- what snapshots own --------------------------------------------------------------------------------------


def test_a_version_that_is_not_in_the_index(old: Patient) -> None:
    old.put(Table.OWNED, keys.owned(SnapshotId(2), keys.inode(old.ino(b"pipe"))), None)
    only(old, Kind.OWNED, "/pipe in snapshot second", "is missing in the index")


def test_a_record_of_the_index_without_its_version(old: Patient) -> None:
    old.put(Table.OWNED, keys.owned(SnapshotId(1), keys.inode(old.ino(b"pipe"))), b"")
    only(old, Kind.OWNED, "/pipe in snapshot first", "does not own it")


@pytest.mark.parametrize(("key", "value"), [(bytes(10), b""), (keys.owned(SnapshotId(1), bytes(9)), b"1")])
def test_a_record_of_the_index_that_does_not_decode(old: Patient, key: bytes, value: bytes) -> None:
    old.put(Table.OWNED, key, value)
    only(old, Kind.RECORD, "no record of the index")


@pytest.mark.parametrize("field", ["data_bytes", "record_bytes"])
def test_what_a_snapshot_says_that_it_owns(old: Patient, field: str) -> None:
    snapshot = old.snapshot(1)
    setattr(snapshot, field, getattr(snapshot, field) + 4096)
    old.put_snapshot(snapshot)
    only(old, Kind.USAGE, "snapshot first", f"it owns {getattr(snapshot, field) - 4096}")


def test_a_version_that_does_not_decode(old: Patient) -> None:
    key = keys.xattr(old.ino(b"file"), b"user.note")
    old.put(Table.SHADOW, keys.shadow(key, SnapshotId(1)), b"\2text")
    findings = old.find()
    assert Counter(finding.kind for finding in findings) == Counter({Kind.RECORD: 1, Kind.DIGEST: 1})
    assert "/file, attribute 'user.note' in snapshot first" in findings[0].where


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (bytes(2), "has no entries"),
        (b"\1\0" + bytes(2) + bytes(8) + b"\1" * 8, "a hole has a checksum"),
        (b"\2\0" + bytes(4) + bytes(32), "twice, or not in order"),
    ],
)
def test_a_shadow_of_an_indirect_block_that_makes_no_sense(old: Patient, value: bytes, words: str) -> None:
    old.add_shadow(keys.block(old.ino(b"one"), 0), 2, value)
    findings = old.find()
    assert [finding.kind for finding in findings] == [Kind.RECORD] and words in findings[0].what


def test_a_key_in_the_shadow_table_that_the_format_does_not_know(old: Patient) -> None:
    key = old.ino(b"one").to_bytes(8, "big") + b"q"
    old.put(Table.SHADOW, keys.shadow(key, SnapshotId(2)), b"")
    old.put(Table.OWNED, keys.owned(SnapshotId(2), key), b"")
    only(old, Kind.RECORD, "no known kind, in the shadow table")


def test_a_version_of_an_inode_that_is_younger_than_the_snapshot(old: Patient) -> None:
    old.add_shadow(keys.xattr(old.ino(b"youngest"), b"user.a"), 2, b"\1")
    only(old, Kind.SHADOW, "/youngest, attribute 'user.a' in snapshot second", "is younger")


def test_a_version_without_the_inode(old: Patient) -> None:
    old.add_shadow(keys.xattr(old.ino(b"one"), b"user.a"), 2, b"\1")
    findings = old.find()
    assert Counter(finding.kind for finding in findings) == Counter({Kind.SHADOW: 1, Kind.DIGEST: 2})
    assert "owns it without the inode" in findings[0].what


def test_absence_without_the_inode_is_no_finding(old: Patient) -> None:
    old.add_shadow(keys.xattr(old.ino(b"one"), b"user.a"), 2, b"")
    old.add_shadow(keys.block(old.ino(b"youngest"), 0), 2, ShadowBlock({0: (addresses.HOLE, 0)}).pack())
    assert old.find() == []


def test_a_block_of_what_is_no_file(old: Patient) -> None:
    sector, count = old.free_runs()[-1]
    old.put_free(sector, None)
    old.put_free(sector + 1, count - 1)
    entries = {0: (addresses.make(sector, BLOCK, False), 1)}
    old.add_shadow(keys.block(old.ino(b"pipe"), 0), 2, ShadowBlock(entries).pack())
    only(old, Kind.SHADOW, "/pipe, indirect block 0 in snapshot second", "only regular files")


def test_a_block_past_the_end_of_a_file_is_no_finding(old: Patient) -> None:
    """An older snapshot that had the file longer may have looked through this one, and be gone."""
    sector, count = old.free_runs()[-1]
    old.put_free(sector, None)
    old.put_free(sector + 1, count - 1)
    shadow = old.shadow_map(b"file", 2)
    shadow.entries[9] = (addresses.make(sector, BLOCK, False), 1)
    snapshot = old.snapshot(2)
    snapshot.data_bytes += BLOCK
    snapshot.record_bytes += 18
    old.put_snapshot(snapshot)
    old.put(Table.SHADOW, keys.shadow(keys.block(old.ino(b"file"), 0), SnapshotId(2)), shadow.pack())
    assert old.find() == []


def test_an_inode_that_was_born_after_its_snapshot(old: Patient) -> None:
    key = keys.shadow(keys.inode(old.ino(b"pipe")), SnapshotId(2))
    value = old.get(Table.SHADOW, key)
    old.put(Table.SHADOW, key, (2).to_bytes(8, "little") + value[8:])
    only(old, Kind.SHADOW, "/pipe in snapshot second", "born or seen after the snapshot")


# -- data ------------------------------------------------------------------------------------------------------


def damage(patient: Patient, address: int) -> None:
    sector = addresses.sector_of(address)
    data = bytearray(patient.blocks.read(sector, BLOCK))
    data[100] ^= 1
    patient.blocks.write(sector, data)


def test_a_damaged_block_is_found_when_data_is_read(old: Patient) -> None:
    damage(old, old.shadow_map(b"file", 2).entries[1][0])
    assert old.find() == []
    findings = old.find(read_data=True)
    assert [finding.kind for finding in findings] == [Kind.DATA]
    assert findings[0].where == "/file, block 1 in snapshot second"
    assert findings[0].what.endswith("checksum is wrong; seen by first, second")


def test_a_damaged_block_of_the_active_file_system(old: Patient) -> None:
    damage(old, old.map(b"file").addresses[2])
    assert "seen by first, second, the active file system" in old.find(read_data=True)[0].what
    damage(old, old.map(b"youngest").addresses[0])
    assert old.find(read_data=True)[1].what.endswith("seen by the active file system")


def test_a_damaged_tail_block_is_found_without_reading_the_rest(old: Patient) -> None:
    """The older snapshot sees the block into which somebody has appended, cut at its own size."""
    damage(old, old.map(b"file").addresses[3])
    findings = old.find()
    assert [finding.kind for finding in findings] == [Kind.DATA]
    assert findings[0].where == "/file, the tail block at 12788 bytes"


def test_a_payload_with_zeros_at_its_end(new: Patient) -> None:
    from xxhash import xxh3_64_intdigest

    block = new.map(b"other")
    data = content(BLOCK - 1, 2) + b"\0"
    new.blocks.write(addresses.sector_of(block.addresses[0]), data)
    block.checksums[0] = xxh3_64_intdigest(data)
    new.put_map(b"other", block)
    findings = new.find(read_data=True)
    assert [finding.kind for finding in findings] == [Kind.DATA] and "without zeros at its end" in findings[0].what


# -- many extents ------------------------------------------------------------------------------------------------


def walk(store: Store, found: list[int], run_count: int) -> list[Finding]:
    context = Context(store, store.catalog.state)
    extents = Extents(context, run_count=run_count)
    for start in range(0, len(found), 7):
        part = array("Q", found[start : start + 7])
        extents.add(part, array("Q", [address % 1000 for address in part]))
    return list(extents.check(read_data=False))


@pytest.mark.parametrize("run_count", [64, 100, 1 << 20])
def test_extents_that_do_not_fit_memory_are_merged_from_files(run_count: int, seed: int) -> None:
    rng = Random(seed)
    store = memory_store()
    found: list[int] = []
    sector = 1
    lost: list[str] = []
    while len(found) < 2000:
        kind = rng.randrange(20)
        if kind == 0:
            store.small.put(keys.free_extent(sector), (3).to_bytes(8, "little"))
            sector += 3
        elif kind == 1 and sector > 1:
            lost.append(f"sectors {sector} to {sector + 1}")
            sector += 2
        else:
            address = addresses.make(sector, rng.randint(1, BLOCK), rng.random() < 0.5)
            times = rng.choice((1, 1, 1, 2, 5))
            if times > 1:
                store.small.put(keys.shared_extent(sector), times.to_bytes(8, "little"))
            found += [address] * times
            sector += 1
    store.catalog.state.sector_count = sector
    rng.shuffle(found)
    # Two that follow each other would be one finding.
    assert len(lost) > 20 and lost == sorted(set(lost), key=lost.index)
    merged: list[str] = []
    for where in lost:
        first = int(where.split()[1])
        if merged and int(merged[-1].split()[3]) + 1 == first:
            merged[-1] = f"sectors {merged[-1].split()[1]} to {first + 1}"
        else:
            merged.append(where)
    assert [(finding.kind, finding.where) for finding in walk(store, found, run_count)] == [
        (Kind.LEAK, where) for where in merged
    ]
    twice = found[0]
    findings = [finding for finding in walk(store, [*found, twice], run_count) if finding.kind is not Kind.LEAK]
    assert [finding.kind for finding in findings] == [Kind.SHARED]
    missing = walk(store, [address for address in found if address != twice], run_count)
    assert {finding.kind for finding in missing} <= {Kind.LEAK, Kind.SHARED} and len(missing) >= len(merged)


def test_no_extents_at_all() -> None:
    assert walk(memory_store(), [], 10) == []
    assert Number(1) == 1
