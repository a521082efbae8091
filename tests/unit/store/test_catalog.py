"""Filesets and snapshots in memory, and what the next opening reads of them."""

from __future__ import annotations

import pytest

from idemfs.engines.kv.api import Table
from idemfs.engines.kv.memory import MemoryKV
from idemfs.errors import Damaged, SnapshotMissing
from idemfs.format import keys
from idemfs.format.tables import Snapshot
from idemfs.ids import NO_SNAPSHOT, ROOT_FILESET, Guid, Ino, SnapshotId
from idemfs.store.catalog import Catalog
from idemfs.store.files import first_records
from idemfs.store.records import Records


def new_kv() -> MemoryKV:
    kv = MemoryKV()
    first_records(kv, Guid(b"g" * 16))
    return kv


def opened(kv: MemoryKV) -> tuple[Catalog, Records]:
    small = Records(kv, Table.SMALL)
    return Catalog(small), small


def commit(catalog: Catalog, small: Records, kv: MemoryKV) -> None:
    catalog.seal()
    kv.commit({Table.SMALL: small.seal()})
    small.drop_sealed()


def add(catalog: Catalog, name: str) -> Snapshot:
    snapshot_id = catalog.new_snapshot_id()
    snapshot = Snapshot(ROOT_FILESET, snapshot_id, Guid(name.encode().ljust(16)), name, 5, 6, 7)
    catalog.add_snapshot(snapshot)
    return snapshot


def test_neighbours_follow_ids_and_survive_removal() -> None:
    catalog, _ = opened(new_kv())
    first, second, third = (add(catalog, name) for name in ("first", "second", "third"))
    assert catalog.next_older(ROOT_FILESET, third.id) is second
    assert catalog.next_newer(ROOT_FILESET, first.id) is second
    catalog.remove_snapshot(second)
    assert catalog.next_older(ROOT_FILESET, third.id) is first
    assert catalog.next_newer(ROOT_FILESET, first.id) is third
    assert catalog.next_older(ROOT_FILESET, second.id) is first
    assert catalog.next_older(ROOT_FILESET, first.id) is None
    assert catalog.next_newer(ROOT_FILESET, third.id) is None
    catalog.remove_snapshot(third)
    assert catalog.filesets[ROOT_FILESET].newest == first.id
    catalog.remove_snapshot(first)
    assert catalog.filesets[ROOT_FILESET].newest == NO_SNAPSHOT
    assert add(catalog, "fourth").id > third.id


def test_a_snapshot_that_is_being_deleted_has_no_name_but_takes_part() -> None:
    catalog, _ = opened(new_kv())
    first, second = add(catalog, "first"), add(catalog, "second")
    catalog.end_snapshot(first)
    assert catalog.snapshots(ROOT_FILESET) == [second]
    assert catalog.all_snapshots(ROOT_FILESET) == [first, second]
    assert catalog.next_older(ROOT_FILESET, second.id) is first
    with pytest.raises(SnapshotMissing):
        catalog.by_name(ROOT_FILESET, "first")
    assert catalog.by_guid(ROOT_FILESET, first.guid) is None


def test_the_next_opening_reads_what_was_sealed() -> None:
    kv = new_kv()
    catalog, small = opened(kv)
    snapshots = [add(catalog, f"snapshot {number}") for number in range(1500)]
    snapshots[3].data_bytes, snapshots[3].record_bytes = 4096, 77
    catalog.remove_snapshot(snapshots.pop(10))
    catalog.filesets[ROOT_FILESET].digest = 1 << 100
    catalog.new_ino(catalog.filesets[ROOT_FILESET])
    commit(catalog, small, kv)
    again, _ = opened(kv)
    assert [snapshot.pack() for snapshot in again.snapshots(ROOT_FILESET)] == [each.pack() for each in snapshots]
    assert again.filesets[ROOT_FILESET].pack() == catalog.filesets[ROOT_FILESET].pack()
    assert again.state.pack() == catalog.state.pack()
    assert again.new_snapshot_id() == SnapshotId(1501)
    assert again.by_name(ROOT_FILESET, "snapshot 3").owned_bytes == 4096 + 77


def test_one_that_goes_leaves_the_others_to_the_next_opening() -> None:
    for gone in range(4):
        kv = new_kv()
        catalog, small = opened(kv)
        made = [add(catalog, f"snapshot {number}") for number in range(4)]
        commit(catalog, small, kv)
        catalog.remove_snapshot(made.pop(gone))
        commit(catalog, small, kv)
        again, _ = opened(kv)
        assert [each.id for each in again.all_snapshots(ROOT_FILESET)] == [each.id for each in made]


def test_a_snapshot_without_its_record_is_damage() -> None:
    kv = new_kv()
    catalog, small = opened(kv)
    first = add(catalog, "first")
    add(catalog, "second")
    commit(catalog, small, kv)
    kv.commit({Table.SMALL: {keys.snapshot(ROOT_FILESET, first.id): None}})
    with pytest.raises(Damaged, match=f"snapshot {first.id} is missing; restore"):
        opened(kv)[0].snapshots(ROOT_FILESET)


@pytest.mark.parametrize("gone", range(3))
def test_who_reads_without_the_lock_sees_through_what_is_removed_meanwhile(gone: int) -> None:
    kv = new_kv()
    catalog, small = opened(kv)
    made = [add(catalog, name) for name in ("first", "second", "third")]
    commit(catalog, small, kv)
    reader, records = opened(kv)
    get = records.get

    def get_after_a_removal(key: bytes) -> bytes | None:
        if key == keys.snapshot(ROOT_FILESET, made[gone].id) and catalog.has_snapshot(made[gone]):
            catalog.remove_snapshot(made[gone])
            commit(catalog, small, kv)
        return get(key)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(records), "get", lambda _, key: get_after_a_removal(key))
        seen = reader.snapshots(ROOT_FILESET)
    assert [each.id for each in seen] == [each.id for each in made if each is not made[gone]]


def test_a_group_that_changes_nothing_writes_nothing() -> None:
    kv = new_kv()
    catalog, small = opened(kv)
    catalog.snapshots(ROOT_FILESET)
    catalog.seal()
    assert small.seal() == {}


def test_a_store_without_its_state_is_damaged() -> None:
    kv = new_kv()
    kv.commit({Table.SMALL: {keys.STORE_STATE: None}})
    with pytest.raises(Damaged, match="state record"):
        opened(kv)


def test_names_follow_what_becomes_of_snapshots() -> None:
    catalog, _ = opened(new_kv())
    first, second, third = (add(catalog, name) for name in ("first", "second", "third"))
    catalog.rename_snapshot(first, "other")
    catalog.end_snapshot(second)
    assert dict(catalog.named(ROOT_FILESET)) == {"other": first, "third": third}
    again = add(catalog, "second")
    catalog.remove_snapshot(second)
    catalog.pin_snapshot(third)
    assert dict(catalog.named(ROOT_FILESET)) == {"other": first, "second": again}


def test_a_snapshot_writes_its_record_and_its_filesets_and_no_more() -> None:
    kv = new_kv()
    catalog, small = opened(kv)
    made = [catalog.add_fileset(Guid(b"h" * 16), name, Ino(0), 0) for name in ("quiet", "busy")]
    commit(catalog, small, kv)
    for fileset in made:
        snapshot = Snapshot(fileset.number, catalog.new_snapshot_id(), Guid(b"s" * 16), "s", 5, 6, 7)
        catalog.add_snapshot(snapshot)
    busy = made[1]
    catalog.add_to_sums(busy.number.to_bytes(2, "big"), 3, 100)
    catalog.seal()
    changes = small.seal()
    expected = {keys.STORE_STATE, keys.usage(busy.number)}
    for number, fileset in enumerate(made, 1):
        expected |= {keys.fileset(fileset.number), keys.snapshot(fileset.number, SnapshotId(number))}
    assert changes.keys() == expected
    kv.commit({Table.SMALL: changes})
    again, _ = opened(kv)
    for fileset in made:
        stored = again.filesets[fileset.number]
        assert (stored.pack(), stored.pack_usage()) == (fileset.pack(), fileset.pack_usage())
        assert again.by_name(fileset.number, "s").id == stored.newest
