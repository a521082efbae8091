"""Random lives of a pair of stores with filesets: made, cloned, promoted, renamed, moved, limited, deleted, written to,
while transfers stop anywhere and roles are exchanged. Whenever a transfer came to its end, the standby is what its
primary is.
"""

from __future__ import annotations

import stat
from contextlib import suppress
from random import Random

import pytest

from idemfs import FileSystem
from idemfs.errors import FilesetError, FilesetInUse, PeerError, RoleError, SnapshotHeld
from idemfs.failover import decisions
from idemfs.format.role import Role
from idemfs.format.tables import Fileset, Snapshot
from idemfs.ids import Guid, fileset_of
from idemfs.replication.describe import description_of
from idemfs.replication.link import replicate_into
from idemfs.snapshots import delete, lines, manage, purge, received
from idemfs.snapshots.audit import Purge
from idemfs.testing.builders import make_file, reopened
from idemfs.vfs.tree import Tree
from tests.sim.scenes import assert_sound
from tests.unit.failover.test_roles_filesets import Two
from tests.unit.replication.test_link_filesets import Stopped, root_of, seen


class Life:
    """``tree`` is that of the present primary."""

    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)
        self.two = Two()
        self.count = 0
        self.purged = 0

    @property
    def tree(self) -> Tree:
        return self.two.a if self.two.a.role.role is Role.PRIMARY else self.two.b

    @property
    def standby(self) -> Tree:
        return self.two.b if self.tree is self.two.a else self.two.a

    def shown(self) -> list[Fileset]:
        """Those that a path leads to."""
        found = []
        for each in self.tree.store.catalog.listed_filesets():
            at = each
            while at.number and at.junction:
                at = self.tree.store.catalog.filesets[fileset_of(at.junction)]
            if not at.number:
                found.append(each)
        return found

    def name(self) -> str:
        self.count += 1
        return f"n{self.count}"

    # -- users -------------------------------------------------------------------------------------

    def make(self) -> None:
        name = self.name()
        made = self.tree.make_fileset(root_of(self.rng.choice(self.shown())), name.encode(), name, 0, 0)
        make_file(self.tree, root_of(made), b"f", name.encode())

    def write(self) -> None:
        root = root_of(self.rng.choice(self.shown()))
        make_file(self.tree, root, self.name().encode(), self.rng.randbytes(self.rng.choice((10, 9000, 40_000))))

    def overwrite(self) -> None:
        """Some of a file, or all past a point, becomes something else."""
        root = root_of(self.rng.choice(self.shown()))
        names = [name for name, _, kind in self.tree.reader.all_entries(root) if kind == stat.S_IFREG >> 12]
        if names:
            ino = self.tree.reader.lookup(root, self.rng.choice(names))
            size = self.tree.reader.inode(ino).size
            if self.rng.random() < 0.5:
                self.tree.write(ino, self.rng.randint(0, size), self.rng.randbytes(self.rng.choice((10, 9000))))
            else:
                self.tree.truncate(ino, self.rng.randint(0, size + 5000))

    def clone(self) -> None:
        snapshots = self.tree.store.catalog.snapshots(self.rng.choice(self.shown()).number)
        if snapshots:
            name, parent = self.name(), root_of(self.rng.choice(self.shown()))
            self.tree.clone_snapshot(self.rng.choice(snapshots), parent, name.encode(), name, 0, 0)

    def promote(self) -> None:
        with suppress(FilesetError):
            self.tree.promote_fileset(self.rng.choice(self.shown()))

    def delete_snapshot(self) -> None:
        """On either store, which have each their own schedule."""
        tree = self.rng.choice((self.tree, self.standby))
        snapshots = tree.store.catalog.snapshots(self.rng.choice(tree.store.catalog.listed_filesets()).number)
        bases = [received.base(tree.store, each.number) for each in tree.store.catalog.listed_filesets()]
        chosen = [each for each in snapshots if tree is self.tree or each not in bases]
        if chosen:
            with suppress(SnapshotHeld):
                delete.delete(tree.active, self.rng.choice(chosen))

    def purge(self) -> None:
        """From all snapshots that have it, and sometimes from the active state."""
        fileset = self.rng.choice(self.shown())
        snapshots = self.tree.store.catalog.snapshots(fileset.number)
        names = self.files(self.rng.choice(snapshots)) if snapshots else []
        if not names:
            return
        name = self.rng.choice(names)
        wanted = Purge(
            self.tree.store.clock.now_ns(), fileset.number, "", name.decode(), 0, "", "", False, (), 0, (), 0
        )
        with suppress(SnapshotHeld):
            purge.purge(self.tree.active, wanted, name)
            self.tree.moves += 1
            self.purged += 1
            if self.rng.random() < 0.5:
                with suppress(FileNotFoundError):
                    self.tree.unlink(root_of(fileset), name)

    def files(self, snapshot: Snapshot) -> list[bytes]:
        reader = self.tree.snapshot_reader(snapshot)
        return [name for name, _, kind in reader.all_entries(reader.root) if kind == stat.S_IFREG >> 12]

    def write_snapshot(self) -> None:
        fileset = self.rng.choice(self.shown())
        snapshots = self.tree.store.catalog.snapshots(fileset.number)
        if snapshots:
            chosen = self.rng.choice(snapshots)
            where = f"{fileset.name}@{chosen.name}" if fileset.number else chosen.name
            with suppress(SnapshotHeld):
                if self.rng.random() < 0.7:
                    with FileSystem(self.tree).snapshots.write(where) as writer:
                        writer.write_bytes(f"/{self.name()}", self.rng.randbytes(9000))
                else:
                    FileSystem(self.tree).snapshots.refresh(where)

    def remove(self) -> None:
        root = root_of(self.rng.choice(self.shown()))
        names = [name for name, _, kind in self.tree.reader.all_entries(root) if kind == stat.S_IFREG >> 12]
        if names:
            self.tree.unlink(root, self.rng.choice(names))

    def rename(self) -> None:
        one, other = self.rng.choice(self.shown()), self.rng.choice(self.shown())
        if one is not other and one.number and other.number:
            names = one.name, other.name
            self.tree.rename_fileset(one, self.name())
            self.tree.rename_fileset(other, names[0])
            self.tree.rename_fileset(one, names[1])

    def move(self) -> None:
        fileset, parent = self.rng.choice(self.shown()), root_of(self.rng.choice(self.shown()))
        name = self.name().encode()
        self.tree.create(parent, name, stat.S_IFDIR | 0o755, 0, 0)
        with suppress(FilesetError):
            self.tree.attach_fileset(fileset, parent, name)

    def limit(self) -> None:
        self.tree.set_quota(self.rng.choice(self.shown()), quota_inodes=self.rng.choice((0, 1000, 2000)))

    def delete(self) -> None:
        with suppress(FilesetError, FilesetInUse):
            self.tree.delete_fileset(self.rng.choice(self.shown()), held=True)

    def take(self) -> None:
        shown = self.rng.sample(self.shown(), self.rng.randint(1, len(self.shown())))
        name = self.name()
        manage.create_all(self.tree.store, [(each.number, name) for each in shown])

    def hold(self) -> None:
        snapshots = self.tree.store.catalog.snapshots(self.rng.choice(self.shown()).number)
        if snapshots:
            call = self.rng.choice((manage.hold, manage.release))
            call(self.tree.store, self.rng.choice(snapshots), "user")

    # -- commands ----------------------------------------------------------------------------------

    def replicate(self) -> None:
        try:
            self.two.replicate(self.tree)
        except PeerError as error:
            # What was primary before keeps what somebody held there, and nobody else knows of.
            assert "is held by user" in str(error)
            self.release_there()
            self.two.replicate(self.tree)
        self.compare()
        self.compare_holds()

    def stop(self) -> None:
        """Somebody stops a transfer after some frames; one of the stores is opened anew."""
        left = self.rng.randint(1, 12)

        def progress(_guid: Guid, _size: int) -> None:
            nonlocal left
            left -= 1
            if not left:
                raise Stopped

        self.release_there()
        with suppress(Stopped):
            replicate_into(self.tree, self.standby, progress)
        if self.rng.random() < 0.5:
            self.two.a, self.two.b = (reopened(tree) for tree in (self.two.a, self.two.b))
        # Whatever was complete by then leads through its junctions.
        assert {path[:1] for path in seen(self.standby)} <= {b"/"}
        assert_sound(self.standby)

    def release_there(self) -> None:
        for fileset in self.standby.store.catalog.listed_filesets():
            for snapshot in self.standby.store.catalog.snapshots(fileset.number):
                manage.release(self.standby.store, snapshot, "user")
        self.standby.store.commit()

    def switchover(self) -> None:
        primary = self.tree
        self.release_there()
        self.two.switchover(primary)
        assert self.tree is not primary
        self.compare()

    def failover(self) -> None:
        lost, taking_over = self.tree, self.standby
        self.release_there()
        self.two.run(decisions.failover(*self.two.stage(taking_over).facts()), taking_over)
        self.write()
        try:
            self.two.failback(lost)
        except PeerError as error:
            # It purged what the new primary has made clones of.
            assert "clones rest on" in str(error)
            for clone in [self.tree.store.catalog.filesets[number] for number in self.tree.store.catalog.clones]:
                self.tree.promote_fileset(clone)
            self.two.failback(lost)
        self.compare()

    def compare(self) -> None:
        """Where something appears, the standby has the same; and the same names, quotas, holds."""
        assert seen(self.standby) == seen(self.tree)
        there = {each.guid: each for each in self.standby.store.catalog.listed_filesets()}
        for fileset in self.shown():
            other = there[fileset.guid]
            told = [description_of(tree.store, each) for tree, each in ((self.tree, fileset), (self.standby, other))]
            assert told[0] == told[1]
            assert other.digest == fileset.digest
        assert all(lines.line_of(self.standby.store, each.number) is None for each in there.values())
        for tree in (self.tree, self.standby):
            assert_sound(tree)

    def compare_holds(self) -> None:
        """The standby's snapshots are as protected; one that it lost its role with may be more so."""
        for fileset in self.tree.store.catalog.listed_filesets():
            for other in self.standby.store.catalog.listed_filesets():
                if fileset.guid == other.guid:
                    self._compare_holds(fileset, other)

    def _compare_holds(self, fileset: Fileset, other: Fileset) -> None:
        for snapshot in self.tree.store.catalog.snapshots(fileset.number):
            twin = self.standby.store.catalog.by_guid(other.number, snapshot.guid)
            if twin is not None and "user" in manage.holders(self.tree.store, snapshot):
                assert "user" in manage.holders(self.standby.store, twin)


USERS = (
    *(Life.make, Life.write, Life.write, Life.write, Life.remove, Life.rename, Life.move, Life.limit, Life.delete),
    *(Life.take, Life.take, Life.hold, Life.clone, Life.overwrite, Life.overwrite, Life.promote, Life.delete_snapshot),
    *(Life.purge, Life.purge, Life.write_snapshot),
)
COMMANDS = (Life.replicate, Life.stop, Life.stop, Life.switchover, Life.failover)


def live(seed: int, length: int) -> None:
    life = Life(seed)
    life.replicate()
    for _ in range(length):
        for tree in (life.two.a, life.two.b):
            tree.store.clock.advance(1)  # type: ignore[attr-defined]
        step = life.rng.choice(USERS if life.rng.random() < 0.75 else COMMANDS)
        step(life)
        life.tree.store.commit()
    with suppress(RoleError):
        life.replicate()


def test_random_lives_of_filesets(seed: int) -> None:
    for offset in range(5):
        print(f"life {offset}")
        live(seed * 1000 + offset, 60)


@pytest.mark.long
def test_many_random_lives_of_filesets(seed: int) -> None:
    for offset in range(100):
        print(f"life {100 + offset}")
        live(seed * 1000 + 100 + offset, 100)
