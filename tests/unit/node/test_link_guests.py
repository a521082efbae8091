"""Several primaries with links into one standby store: lines of their own, readable there, and back again."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from idemfs import FileSystem
from idemfs.errors import FilesetExists, PeerError
from idemfs.failover import actions
from idemfs.failover.standbys import add_standby
from idemfs.format.role import Role
from idemfs.ids import Ino
from idemfs.node import link_round
from idemfs.node.beginning import add_host
from idemfs.node.link_decisions import Rest
from idemfs.node.link_round import Outcome, StoreTarget
from idemfs.replication import guests
from idemfs.replication.codec import StreamReader
from idemfs.replication.link import replicate_into
from idemfs.replication.send import Frames
from idemfs.replication.standby import open_standby, receive_into
from idemfs.snapshots import delete, diverged, lines, manage
from idemfs.snapshots.policy import Policy
from idemfs.testing.builders import assert_clean, content_of, make_directory, make_file
from idemfs.vfs.reader import Reader
from idemfs.vfs.tree import Tree
from tests.unit.node.link_place import Place

KEEP = Policy(keep_last=5)


class Machine(Place):
    """``backup`` is none at first."""

    def fill(self, source: str, keep: Policy | None = None, *, guest: str | None = None) -> Outcome:
        """A round of the link that leads from ``source`` into the backup."""
        self.clock.advance(1)
        tree = self.trees[source]
        link_round.take(tree)
        target = StoreTarget(
            tree, self.path(source), self.path("backup"), keep or Policy(), guest_name=guest or source.lower()
        )
        outcome = target.run()
        link_round.let_go(tree)
        return outcome

    def put(self, name: str, file: bytes, content: bytes) -> None:
        make_file(self.trees[name], self.trees[name].root, file, content)


def files(reader: Reader) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    waiting = [(b"", reader.root)]
    while waiting:
        path, ino = waiting.pop()
        for name, child, _ in reader.all_entries(ino):
            if reader.inode(child).is_dir:
                waiting.append((path + b"/" + name, child))
            else:
                found[path + b"/" + name] = content_of(reader, child)
    return found


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    with ExitStack() as stack:
        made = Machine(tmp_path, stack)
        for name in ("A", "B"):
            tree = made.make(name)
            tree.make_fileset(tree.root, b"home", "home", 0, 0)
            make_file(tree, Ino(1 << 48 | 1), b"plan", name.encode() * 5000)
            made.put(name, b"f", name.encode())
        yield made
        for tree in made.trees.values():
            assert_clean(tree)


def test_each_primary_fills_a_line_of_its_own_and_readers_find_all_of_them(machine: Machine) -> None:
    machine.fill("A")
    backup = machine.open("backup")
    machine.fill("B")
    assert backup.role.role is Role.STANDBY
    assert files(backup.newest_reader()) == {
        b"/a/f": b"A",
        b"/a/home/plan": b"A" * 5000,
        b"/b/f": b"B",
        b"/b/home/plan": b"B" * 5000,
    }
    machine.put("A", b"g", b"more")
    (sent,) = machine.fill("A").report.transfers  # type: ignore[union-attr]
    assert sent.base is not None, "changes alone travel"
    assert files(backup.newest_reader())[b"/a/g"] == b"more"
    assert sorted(each.name for each in backup.store.catalog.listed_filesets()) == [
        "a",
        "a-home",
        "b",
        "b-home",
        "root",
    ]


def test_each_has_its_own_base_holds_and_retention(machine: Machine) -> None:
    machine.fill("A")
    backup = machine.open("backup")
    machine.fill("B")
    for count in range(5):
        for name, keep in (("A", Policy(keep_last=2)), ("B", Policy(keep_last=4))):
            machine.put(name, b"n%d" % count, b"x")
            machine.fill(name, keep)
    catalog = backup.store.catalog
    counts = {name: len(catalog.snapshots(catalog.fileset_named(name).number)) for name in ("a", "b")}
    assert counts == {"a": 2, "b": 4}
    for name in ("A", "B"):
        known = link_round.filled(machine.trees[name], machine.path("backup"))
        assert known is not None and known.store == backup.store.superblock.guid


def test_a_name_that_is_taken_is_refused_and_nothing_is_mixed(machine: Machine) -> None:
    machine.fill("A")
    machine.open("backup")
    with pytest.raises(FilesetExists, match="choose another 'as'"):
        machine.fill("B", guest="a")
    machine.fill("B", guest="other")


def test_a_store_in_use_is_refused(machine: Machine) -> None:
    make_file(machine.make("backup"), Ino(1), b"f", b"mine")
    with pytest.raises(PeerError, match="in use for something else"):
        machine.fill("A")


def test_a_standby_of_the_same_files_is_no_place_beside_them(machine: Machine) -> None:
    add_standby(machine.path("A"), machine.path("S"), clock=machine.clock)
    with pytest.raises(PeerError, match="of the same files"):
        add_host(machine.path("A"), machine.path("S"))
    with pytest.raises(PeerError, match="is the store itself"):
        add_host(machine.path("A"), machine.path("A"))


def test_an_empty_store_and_one_that_follows_another_primary_take_guests(machine: Machine) -> None:
    backup = machine.make("backup")
    machine.fill("A")
    assert guests.is_host(backup.store)
    assert files(backup.newest_reader())[b"/a/f"] == b"A"


def test_renamed_deleted_and_purged_is_so_there(machine: Machine) -> None:
    tree = machine.trees["A"]
    machine.fill("A")
    backup = machine.open("backup")
    home = tree.store.catalog.fileset_named("home")
    tree.store.catalog.change_fileset(home, name="house")
    machine.put("A", b"g", b"1")
    machine.fill("A")
    assert backup.store.catalog.has_fileset("a-house")
    FileSystem(tree).snapshots.purge("/f", active=True, reason="a key was in it")
    machine.put("A", b"h", b"1")
    machine.fill("A")
    a = backup.store.catalog.fileset_named("a")
    for each in backup.store.catalog.snapshots(a.number):
        reader = backup.snapshot_reader(each)
        assert b"f" not in {name for name, _, _ in reader.all_entries(reader.root)}
    tree.delete_fileset(home, held=True)
    machine.put("A", b"i", b"1")
    machine.fill("A")
    assert not backup.store.catalog.has_fileset("a-house")
    assert backup.store.catalog.has_fileset("a")


def test_after_a_lapsed_hold_the_line_goes_back_alone(machine: Machine) -> None:
    tree = machine.trees["A"]
    manage.create(tree.store, tree.fileset, "monday")
    machine.fill("A")
    backup = machine.open("backup")
    machine.fill("B")
    before = files(backup.newest_reader())[b"/b/f"]
    machine.put("A", b"g", b"1")
    machine.fill("A")
    machine.clock.advance(31 * 86_400)
    gone = [each for each in tree.store.catalog.snapshots(tree.fileset) if each.name != "monday"]
    for each in gone:
        delete.delete(tree.active, each)
    machine.put("A", b"h", b"2")
    machine.fill("A")
    seen = files(backup.newest_reader())
    assert seen[b"/a/h"] == b"2" and seen[b"/b/f"] == before


def test_who_was_primary_before_stops_when_the_line_has_heard_of_a_later_one(machine: Machine) -> None:
    machine.fill("A")
    backup = machine.open("backup")
    fileset = backup.store.catalog.fileset_named("a")
    line = lines.line_of(backup.store, fileset.number)
    assert line is not None
    lines.put_line(backup.store, fileset.number, line._replace(seen_epoch=5))
    outcome = machine.fill("A")
    assert isinstance(outcome.decision, Rest) and "epoch 5" in outcome.decision.reason
    assert machine.trees["A"].role.role is Role.FENCED


def test_a_lost_primary_comes_back_from_there_and_its_link_goes_on(machine: Machine) -> None:
    """As 'idemfs send' and 'idemfs receive' do it, and 'idemfs failover' after them."""
    machine.fill("A")
    backup = machine.open("backup")
    machine.fill("B")
    wanted = files(machine.trees["A"].newest_reader())
    again: Tree | None = None
    for name in ("a", "a-home"):
        fileset = backup.store.catalog.fileset_named(name)
        newest = backup.store.catalog.snapshots(fileset.number)[-1]
        stream = StreamReader(io.BytesIO(b"".join(Frames(backup, None, newest))).read)
        if again is None:
            again = open_standby(machine.path("again"), stream.header, clock=machine.clock)
        receive_into(again, stream)
    assert again is not None
    again.store.close()
    again = machine.open("again")
    assert [each.name for each in again.store.catalog.listed_filesets()] == ["root", "home"]
    actions.promote(again, 2, None)
    assert files(again.newest_reader()) == wanted
    make_file(again, again.root, b"new", b"after")
    (sent,) = machine.fill("again", guest="a").report.transfers  # type: ignore[union-attr]
    assert sent.base is not None
    assert files(backup.newest_reader())[b"/a/new"] == b"after"


def test_directories_named_like_a_line_do_not_meet(machine: Machine) -> None:
    make_directory(machine.trees["A"], machine.trees["A"].root, b"b")
    machine.fill("A")
    backup = machine.open("backup")
    machine.fill("B")
    assert files(backup.newest_reader())[b"/b/f"] == b"B"


def test_consent_to_another_store_at_the_place_of_the_one_before(machine: Machine) -> None:
    machine.fill("A")
    os.rename(machine.path("backup"), machine.path("away"))
    with pytest.raises(PeerError, match=r"not there any more: 'idemfs standby add .* --as a' makes"):
        machine.fill("A")
    add_host(machine.path("A"), machine.path("backup"))
    machine.fill("A")
    assert files(machine.open("backup").newest_reader())[b"/a/f"] == b"A"


def test_a_standby_of_one_of_them_rests_until_it_takes_over(machine: Machine) -> None:
    add_standby(machine.path("A"), machine.path("S"), clock=machine.clock)
    machine.fill("A", KEEP)
    backup, standby = machine.open("backup"), machine.open("S")
    replicate_into(machine.trees["A"], standby)
    assert isinstance(machine.fill("S", KEEP, guest="a").decision, Rest)
    machine.put("A", b"late", b"only in the backup")
    machine.fill("A", KEEP)
    actions.promote(standby, 2, None)
    machine.put("S", b"g", b"after")
    machine.fill("S", KEEP, guest="a")
    seen = files(backup.newest_reader())
    assert seen[b"/a/g"] == b"after" and b"/a/late" not in seen
    kept = [each.name for each, _ in diverged.unreleased(backup.store)]
    assert kept, "what only the lost primary had is kept"
    assert isinstance(machine.fill("A").decision, Rest)
    assert machine.trees["A"].role.role is Role.FENCED
