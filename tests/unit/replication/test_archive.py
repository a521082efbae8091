"""Archives of streams: filled, listed, restored to any point, pruned, damaged, interrupted."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from idemfs.errors import ArchiveError, Fenced, NoSpace, PeerError, StreamDamaged
from idemfs.format.role import Role, RoleRecord
from idemfs.format.tables import Snapshot
from idemfs.ids import Guid
from idemfs.replication import archive as archives
from idemfs.replication import archiving, link, manifest, standby
from idemfs.replication.archive import Archive, create_archive, open_archive
from idemfs.replication.collapse import name_of
from idemfs.snapshots import delete, manage
from idemfs.snapshots.policy import Policy
from idemfs.store.files import open_files
from idemfs.testing.builders import assert_clean, make_file, memory_tree
from idemfs.testing.clock import Simulated
from idemfs.vfs.tree import Tree
from tests.unit.replication.pairs import fileset_guid, listing, set_role
from tests.unit.replication.test_link_filesets import nested, root_of, take_all, write

ARCHIVE = Guid(b"archive".ljust(16))


class Archiving:
    """A store in memory, and the archive of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tree = nested()
        self.path = str(folder / "archive")
        create_archive(self.path, ARCHIVE, fileset_guid(self.tree))
        self.count = 0

    def opened(self) -> Archive:
        return open_archive(self.path)

    def take(self, name: str, content: bytes | None = None) -> list[Snapshot]:
        if content is not None:
            write(self.tree, content)
        return take_all(self.tree, name)

    def take_own(self) -> str:
        """What a link would take, of new content."""
        self.count += 1
        self.tree.store.clock.advance(60)  # type: ignore[attr-defined]
        name = name_of(self.tree.store.clock.now_ns())
        self.take(name, os.urandom(3000 + self.count))
        return name

    def fill(self, keep: Policy | None = None) -> list[str]:
        report = archiving.archive_into(self.tree, self.opened(), keep=keep)
        return [f"{each.fileset}@{each.target}" for each in report.transfers]

    def restored(self, wanted: str | None = None, name: str = "restored") -> Tree:
        path = str(self.folder / name)
        archiving.restore(self.opened(), path, wanted, clock=Simulated(9))
        return Tree(open_files(path, background=False))

    def assert_restored(self, name: str) -> None:
        """Every fileset is as its snapshot ``name`` is."""
        tree = self.restored(name, f"restored-{name}")
        try:
            for fileset in self.tree.store.catalog.listed_filesets():
                there = tree.store.catalog.fileset_named(fileset.name)
                assert there.digest == self.tree.store.catalog.by_name(fileset.number, name).digest
                assert bool(there.junction) == bool(fileset.junction)
            assert tree.role.role is Role.STANDBY
            assert_clean(tree)
        finally:
            tree.store.close()

    def files(self) -> list[str]:
        return sorted(os.listdir(os.path.join(self.path, archives.STREAMS)))

    def file_of(self, operand: str) -> str:
        point = manifest.find(self.opened().manifest, operand)
        return os.path.join(self.path, archives.STREAMS, point.file)


@pytest.fixture
def archiving_pair(tmp_path: Path) -> Archiving:
    return Archiving(tmp_path)


def test_every_point_can_be_restored_with_all_filesets(archiving_pair: Archiving) -> None:
    pair = archiving_pair
    pair.take("one", b"1" * 20_000)
    pair.take("two", b"2" * 500)
    assert pair.fill() == [f"{fileset}@{name}" for name in ("one", "two") for fileset in ("root", "home", "deep")]
    pair.take("three", b"3" * 9_000)
    assert pair.fill() == ["root@three", "home@three", "deep@three"]
    assert pair.fill() == []
    for name in ("one", "two", "three"):
        pair.assert_restored(name)


def test_a_restored_store_shows_what_the_source_shows_and_has_the_snapshots_on_the_way(
    archiving_pair: Archiving,
) -> None:
    pair = archiving_pair
    for name in ("one", "two"):
        pair.take(name, name.encode() * 3000)
    pair.fill()
    tree = pair.restored()
    assert [each.name for each in tree.store.catalog.snapshots(tree.fileset)] == ["one", "two"]
    for name in ("one", "two"):
        here, there = (
            listing(each.snapshot_reader(each.store.catalog.by_name(each.fileset, name))) for each in (tree, pair.tree)
        )
        assert here == there
    tree.store.close()
    # Once more changes nothing; an earlier point is not to be had in the same store.
    tree = pair.restored()
    assert [each.name for each in tree.store.catalog.snapshots(tree.fileset)] == ["one", "two"]
    tree.store.close()


def test_restoring_needs_a_point_and_names_what_there_is(archiving_pair: Archiving) -> None:
    pair = archiving_pair
    with pytest.raises(ArchiveError, match="holds no snapshot yet"):
        pair.restored()
    pair.take("one")
    pair.fill()
    for wanted in ("two", "home@two", "nowhere@one"):
        with pytest.raises(ArchiveError, match="'idemfs archive list' shows"):
            pair.restored(wanted)
    assert not os.path.exists(pair.folder / "restored")


def test_an_interrupted_restore_goes_on(archiving_pair: Archiving, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = archiving_pair
    pair.take("one", b"1" * 9000)
    pair.take("two", b"2" * 9000)
    pair.fill()
    whole = standby.receive_into
    calls: list[int] = []

    def dying(*given: object) -> object:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return whole(*given)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(archiving, "receive_into", dying)
        with pytest.raises(KeyboardInterrupt):
            pair.restored("two", "restored-two")
    pair.assert_restored("two")


def test_the_newest_common_snapshot_is_held_on_the_source_alone(archiving_pair: Archiving) -> None:
    pair = archiving_pair
    store = pair.tree.store
    owner = link.hold_owner(ARCHIVE)
    for name in ("one", "two"):
        pair.take(name, name.encode() * 100)
        pair.fill()
        held = [
            each.name
            for fileset in store.catalog.listed_filesets()
            for each in store.catalog.snapshots(fileset.number)
            if owner in manage.holders(store, each)
        ]
        assert held == [name] * 3


def test_after_the_common_snapshot_is_gone_a_new_full_stream_begins_beside_the_old_chain(
    archiving_pair: Archiving,
) -> None:
    pair = archiving_pair
    store = pair.tree.store
    pair.take("one", b"1" * 9000)
    pair.fill()
    pair.take("two", b"2" * 9000)
    for fileset in store.catalog.listed_filesets():
        snapshot = store.catalog.by_name(fileset.number, "one")
        manage.release(store, snapshot, link.hold_owner(ARCHIVE))
        delete.delete(pair.tree.active, snapshot)
    pair.fill()
    assert [each.base for each in pair.opened().manifest.points] == [None] * 6
    pair.assert_restored("two")
    restored = pair.restored("one")
    assert [each.name for each in restored.store.catalog.snapshots(restored.fileset)] == ["one"]
    restored.store.close()


def test_links_own_snapshots_are_collapsed_and_pruned_and_worn_chains_begin_anew(archiving_pair: Archiving) -> None:
    pair = archiving_pair
    keep = Policy(keep_last=3)
    taken = []
    for _ in range(4):
        taken += [pair.take_own() for _ in range(5)]
        pair.fill(keep)
        archiving.prune(pair.opened(), keep, pair.tree.store.clock.now_ns())
    # Of each five the newest three were sent.
    own = [each for each in pair.opened().manifest.points if each.fileset == fileset_guid(pair.tree)]
    assert [each.name for each in own if each.is_kept] == taken[-3:]
    sent = [name for at, name in enumerate(taken) if at % 5 >= 2]
    assert {each.name for each in own} <= set(sent)
    for _ in range(20):
        taken.append(pair.take_own())
        pair.fill(keep)
        archiving.prune(pair.opened(), keep, pair.tree.store.clock.now_ns())
        points = pair.opened().manifest.points
        assert len(points) < 3 * 20
        assert pair.files() == sorted(each.file for each in points)
        assert pair.opened().standing() == list(points)
    for name in taken[-3:]:
        pair.assert_restored(name)
    # What only led there is not in the restored store.
    tree = pair.restored()
    assert {each.name for each in tree.store.catalog.snapshots(tree.fileset)} <= set(taken[-3:])
    tree.store.close()


def test_what_users_named_stays_in_an_archive(archiving_pair: Archiving) -> None:
    pair = archiving_pair
    keep = Policy(keep_last=1)
    pair.take("mine", b"mine" * 10)
    for _ in range(5):
        last = pair.take_own()
        pair.fill(keep)
        archiving.prune(pair.opened(), keep, pair.tree.store.clock.now_ns())
    kept = {each.name for each in pair.opened().manifest.points if each.is_kept}
    assert kept == {"mine", last}
    pair.assert_restored("mine")


def test_an_interrupted_write_leaves_no_half_point(archiving_pair: Archiving) -> None:
    pair = archiving_pair
    pair.take("one", b"1" * 9000)
    pair.fill()
    before, files = pair.opened().manifest, pair.files()
    pair.take("two", os.urandom(50_000))
    seen: list[Guid] = []

    def stop(guid: Guid, _: int) -> None:
        seen.append(guid)
        if len(set(seen)) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        archiving.archive_into(pair.tree, pair.opened(), stop)
    assert pair.opened().manifest == before
    # One stream of that instant was whole; it is in no point, and goes with the next prune.
    assert len(pair.files()) == len(files) + 1
    assert [finding.is_used for finding in pair.opened().check()] == [False]
    archiving.prune(pair.opened(), Policy(), pair.tree.store.clock.now_ns())
    assert pair.files() == files
    pair.fill()
    pair.assert_restored("two")


@pytest.mark.parametrize("cut", range(40))
def test_killed_at_any_system_call_the_archive_is_what_it_was_or_what_it_is_to_be(
    cut: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = Archiving(tmp_path)
    pair.take_own()
    pair.fill(Policy())
    pair.take_own()
    count = [0]

    def dying(call: Callable[..., object]) -> Callable[..., object]:
        def called(*given: object, **named: object) -> object:
            count[0] += 1
            if count[0] > cut:
                raise SystemExit("killed")
            return call(*given, **named)

        return called

    with monkeypatch.context() as patch:
        for name in ("fsync", "rename", "unlink"):
            patch.setattr(os, name, dying(getattr(os, name)))
        try:
            pair.fill(Policy())
            archiving.prune(pair.opened(), Policy(), pair.tree.store.clock.now_ns())
        except SystemExit:
            assert count[0] > cut
    assert pair.opened().standing() == list(pair.opened().manifest.points)
    assert [finding for finding in pair.opened().check() if finding.is_used] == []
    name = pair.take_own()
    pair.fill(Policy())
    archiving.prune(pair.opened(), Policy(), pair.tree.store.clock.now_ns())
    assert list(pair.opened().check()) == []
    pair.assert_restored(name)


def test_damage_is_named_with_what_can_be_restored_without_it(archiving_pair: Archiving) -> None:
    pair = archiving_pair
    for name in ("one", "two", "three"):
        pair.take(name, os.urandom(9000))
    pair.fill()
    path = pair.file_of("two")
    with open(path, "r+b") as file:
        file.seek(4000)
        byte = file.read(1)
        file.seek(4000)
        file.write(bytes([byte[0] ^ 1]))
    (finding,) = pair.opened().check()
    assert finding.file == path and finding.is_used and "damaged" in finding.problem
    with pytest.raises(ArchiveError, match=f"{path}: is damaged.*'--to one' can be restored"):
        pair.restored("three")
    pair.assert_restored("one")
    os.unlink(path)
    assert [(each.file, each.problem) for each in pair.opened().check()] == [(path, "is missing")]
    with pytest.raises(ArchiveError, match=f"{path}: is missing, or not whole; '--to one' can be restored"):
        pair.restored("two", "again")
    assert not os.path.exists(pair.folder / "again")


def test_what_is_missing_is_sent_again_and_what_began_from_it_stands_again(archiving_pair: Archiving) -> None:
    pair = archiving_pair
    for name in ("one", "two", "three"):
        pair.take(name, os.urandom(9000))
    pair.fill()
    os.unlink(pair.file_of("two"))
    assert pair.fill() == ["root@two", "root@three"]
    assert list(pair.opened().check()) == []
    for name in ("one", "two", "three"):
        pair.assert_restored(name)


def test_a_manifest_that_is_lost_or_damaged_is_made_again_from_the_streams(archiving_pair: Archiving) -> None:
    pair = archiving_pair
    for name in ("one", "two"):
        pair.take(name, os.urandom(9000))
    pair.fill()
    name = os.path.join(pair.path, manifest.NAME)
    before = pair.opened().manifest
    with open(name, "rb") as file:
        value = file.read()
    for broken in (b"", b"{}", value[:-9], value.replace(b'"two"', b'"six"'), b"[" * 10_000, b'{"format": 2}'):
        with open(name, "wb") as file:
            file.write(broken)
        with pytest.raises(ArchiveError, match=f"{name}: .*check --repair"):
            pair.opened()
    os.unlink(name)
    with pytest.raises(ArchiveError, match=f"{name}: is missing.*check --repair"):
        pair.opened()
    made = archives.rebuild(pair.path, Guid(b"n" * 16))
    assert made == pair.opened().manifest
    assert sorted(made.points) == sorted(before.points)
    assert (made.line, made.epoch) == (before.line, before.epoch) and made.guid != before.guid
    pair.assert_restored("two")


def test_no_name_in_a_manifest_leads_out_of_the_archive(archiving_pair: Archiving) -> None:
    pair = archiving_pair
    pair.take("one")
    pair.fill()
    held = pair.opened().manifest
    for name in ("../secret", "/etc/passwd", "x", "a/b.full.stream", ".full.stream"):
        changed = held._replace(points=(held.points[0]._replace(file=name),))
        with pytest.raises(ArchiveError, match="is damaged"):
            manifest.unpack(manifest.pack(changed))


def test_a_stream_under_another_ones_name_is_not_restored(archiving_pair: Archiving) -> None:
    pair = archiving_pair
    pair.take("one", b"1" * 9000)
    pair.take("two", b"2" * 9000)
    pair.fill()
    one, two = pair.file_of("one"), pair.file_of("two")
    os.rename(one, two)
    os.link(two, one)
    held = pair.opened()
    points = tuple(each._replace(bytes=os.stat(one).st_size) for each in held.manifest.points)
    held.manifest = held.manifest._replace(points=points)
    second = manifest.find(held.manifest, "two")
    with pytest.raises(ArchiveError, match="another stream"), held.stream(second):
        raise AssertionError("it was read")


def test_foreign_directories_and_foreign_stores_are_refused(archiving_pair: Archiving, tmp_path: Path) -> None:
    pair = archiving_pair
    os.mkdir(tmp_path / "photos")
    (tmp_path / "photos" / "cat.jpeg").write_bytes(b"meow")
    with pytest.raises(ArchiveError, match="has files, and is no archive"):
        create_archive(str(tmp_path / "photos"), ARCHIVE, fileset_guid(pair.tree))
    with pytest.raises(ArchiveError, match="no archive here"):
        open_archive(str(tmp_path / "photos"))
    other = memory_tree(clock=Simulated(99))
    with pytest.raises(PeerError, match="archive of another store"):
        archiving.archive_into(other, pair.opened())
    (tmp_path / "archive" / archives.STREAMS / "notes.txt").write_bytes(b"mine")
    archiving.prune(pair.opened(), Policy(), pair.tree.store.clock.now_ns())
    (finding,) = pair.opened().check()
    assert finding.file.endswith("notes.txt") and not finding.is_used


def test_an_ended_epoch_writes_no_more(archiving_pair: Archiving) -> None:
    pair = archiving_pair
    pair.take("one")
    set_role(pair.tree.store, RoleRecord(Role.PRIMARY, 5, 5))
    pair.tree.reload_role()
    pair.fill()
    set_role(pair.tree.store, RoleRecord(Role.PRIMARY, 4, 4))
    pair.tree.reload_role()
    with pytest.raises(Fenced, match="snapshots of epoch 5"):
        pair.fill()


def test_a_full_host_is_one_clear_error(archiving_pair: Archiving, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = archiving_pair
    pair.take("one")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(NoSpace, match="host file system is full"):
            pair.fill()
    assert pair.files() == []
    pair.fill()
    pair.assert_restored("one")


def test_a_deleted_fileset_is_in_the_points_that_had_it(archiving_pair: Archiving) -> None:
    pair = archiving_pair
    pair.take("one", b"1" * 9000)
    pair.fill()
    deep = pair.tree.store.catalog.fileset_named("deep")
    owner = link.hold_owner(ARCHIVE)
    for snapshot in list(pair.tree.store.catalog.snapshots(deep.number)):
        manage.release(pair.tree.store, snapshot, owner)
    pair.tree.delete_fileset(deep)
    pair.fill()
    pair.tree.store.clock.advance(5)  # type: ignore[attr-defined]
    pair.take("two", b"2" * 9000)
    pair.fill()
    tree = pair.restored("two", "later")
    assert {each.name for each in tree.store.catalog.listed_filesets()} == {"root", "home"}
    tree.store.close()
    tree = pair.restored("one", "earlier")
    assert {each.name for each in tree.store.catalog.listed_filesets()} == {"root", "home", "deep"}
    tree.store.close()


def test_a_clone_is_restored_by_itself(archiving_pair: Archiving) -> None:
    pair = archiving_pair
    tree = pair.tree
    pair.take("one", b"1" * 9000)
    origin = tree.store.catalog.by_name(tree.store.catalog.fileset_named("home").number, "one")
    clone = tree.clone_snapshot(origin, tree.root, b"copy", "copy", 0, 0)
    make_file(tree, root_of(clone), b"own", b"clone" * 100)
    tree.store.commit()
    pair.take("two")
    pair.fill()
    full = [each.fileset_name for each in pair.opened().manifest.points if each.base is None]
    assert sorted(full) == ["copy", "deep", "home", "root"]
    pair.assert_restored("two")


def test_streams_of_an_archive_are_streams(archiving_pair: Archiving) -> None:
    pair = archiving_pair
    pair.take("one")
    pair.fill()
    found = archives.read_stream(pair.file_of("one"))
    assert found.header.name == "one"
    with open(pair.file_of("one"), "ab") as file:
        file.write(b"x")
    with pytest.raises((ArchiveError, StreamDamaged)):
        archives.read_stream(pair.file_of("one"))
