"""Keys: the order of bytes is the order of numbers, and ranges hold what they say."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from idemfs.format import keys
from idemfs.ids import FilesetId, Ino, Number, SnapshotId, fileset_of, make_ino, number_of
from idemfs.limits import KEY_SIZE_MAX, SNAPSHOT_ID_MAX

filesets = st.integers(0, (1 << 16) - 1).map(FilesetId)
numbers = st.integers(1, (1 << 48) - 1).map(Number)
inos = st.builds(make_ino, filesets, numbers)
names = st.binary(min_size=1, max_size=255).map(lambda name: name.replace(b"\0", b"0").replace(b"/", b"-"))
snapshots = st.integers(1, SNAPSHOT_ID_MAX).map(SnapshotId)
active = st.one_of(
    inos.map(keys.inode),
    st.builds(keys.block, inos, st.integers(0, 1 << 40)),
    st.builds(keys.entry, inos, names),
    st.builds(keys.link, inos, numbers, names),
    st.builds(keys.xattr, inos, names),
)


@given(filesets, numbers)
def test_an_inode_number_is_fileset_and_number(fileset: FilesetId, number: Number) -> None:
    ino = make_ino(fileset, number)
    assert (fileset_of(ino), number_of(ino)) == (fileset, number)
    start, end = keys.fileset_range(fileset)
    assert start <= keys.inode(ino) < end


@given(inos, st.integers(0, 1 << 40), names, numbers)
def test_the_keys_of_an_inode_lie_in_their_ranges(ino: Ino, index: int, name: bytes, parent: Number) -> None:
    made = {
        keys.INODE: keys.inode(ino),
        keys.BLOCK: keys.block(ino, index),
        keys.ENTRY: keys.entry(ino, name),
        keys.LINK: keys.link(ino, parent, name),
        keys.XATTR: keys.xattr(ino, name),
    }
    for kind, key in made.items():
        assert keys.ino_of(key) == ino and keys.kind_of(key) == kind
        for other in made:
            start, end = keys.kind_range(ino, other)
            assert (start <= key < end) == (other == kind)
        start, end = keys.ino_range(ino)
        assert start <= key < end and not start <= keys.inode(Ino(ino + 1)) < end
        assert len(keys.shadow(key, SnapshotId(1))) <= KEY_SIZE_MAX
    assert keys.index_of(made[keys.BLOCK]) == index


@given(active, snapshots)
def test_a_shadow_key_has_its_parts(key: bytes, snapshot: SnapshotId) -> None:
    assert keys.shadow_parts(keys.shadow(key, snapshot)) == (key, snapshot)
    start, end = keys.owned_range(snapshot)
    assert start <= keys.owned(snapshot, key) < end
    assert keys.owned(snapshot, key)[8:] == key


@given(active, active, snapshots, snapshots, snapshots)
def test_the_versions_of_a_record_and_no_others_lie_in_their_range(
    key: bytes, other: bytes, one: SnapshotId, two: SnapshotId, oldest: SnapshotId
) -> None:
    start, end = keys.shadow_range(key, oldest)
    assert (start <= keys.shadow(key, one) < end) == (one >= oldest)
    if other != key:
        assert not start <= keys.shadow(other, one) < end
        # Versions of two records never mix, so that all of one record lie side by side.
        assert (keys.shadow(key, one) < keys.shadow(other, two)) == (key < other)


@given(inos, names, names)
def test_a_longer_name_is_another_record(ino: Ino, name: bytes, more: bytes) -> None:
    start, end = keys.shadow_range(keys.entry(ino, name), SnapshotId(0))
    assert not start <= keys.shadow(keys.entry(ino, name + more), SnapshotId(5)) < end


@given(filesets, snapshots, filesets, snapshots)
def test_snapshots_lie_in_the_order_in_which_they_were_taken(
    fileset: FilesetId, snapshot: SnapshotId, other: FilesetId, later: SnapshotId
) -> None:
    key = keys.snapshot(fileset, snapshot)
    assert keys.snapshot_parts(key) == (fileset, snapshot)
    if snapshot != later:
        assert (key < keys.snapshot(other, later)) == (snapshot < later)


@given(filesets, snapshots)
def test_the_keys_of_the_small_table_lie_in_their_ranges(fileset: FilesetId, snapshot: SnapshotId) -> None:
    start, end = keys.hold_range(snapshot)
    assert start <= keys.hold(snapshot, b"owner") < end
    made = [
        keys.shared_extent(1),
        keys.free_extent(1),
        keys.fileset(fileset),
        keys.orphan(Ino(1)),
        keys.snapshot(fileset, snapshot),
        keys.hold(snapshot, b""),
        keys.replication("x"),
        keys.STORE_STATE,
    ]
    for key in made:
        start, end = keys.prefix_range(key[:1])
        assert [start <= other < end for other in made] == [other is key for other in made]
        assert key < keys.END
