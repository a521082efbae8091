"""The life of ``World``, which a second store follows as standby; transfers stop anywhere, and roles are exchanged.

At all times each snapshot of the standby is what its primary's snapshot with the same guid was when it had that guid.
Whenever a transfer came to its end, the standby's filesets are those of the primary, as of their newest snapshots.

Threads: one.
"""

from __future__ import annotations

from collections.abc import Callable

from idemfs import FileSystem
from idemfs.errors import CommitFailed, PeerError
from idemfs.failover import decisions, records
from idemfs.failover.driver import carry_out
from idemfs.failover.facts import Decision, Refusal
from idemfs.failover.observe import guid_of
from idemfs.failover.stage import Stage
from idemfs.format.role import Role
from idemfs.format.tables import Fileset
from idemfs.ids import Guid
from idemfs.replication.describe import description_of
from idemfs.replication.link import replicate_into
from idemfs.snapshots import audit, lines, manage, received
from idemfs.store.store import Store
from idemfs.vfs.tree import Tree
from tests.property.machine import Machine
from tests.property.states import State, read, without
from tests.property.twins import Twin
from tests.property.world import World
from tests.property.world_snapshots import USER
from tests.sim.scenes import assert_sound


class Stopped(Exception):
    """Somebody stopped a transfer."""


class WorldPair(World):
    """``machine`` is primary."""

    def __init__(self, seed: int, compression: str = "none") -> None:
        super().__init__(seed, compression)
        self.standby = Machine(self.clock, self.rng.choice(("none", "zstd")), Guid(bytes(16)), Role.STANDBY)
        self.paths = {guid_of(self.machine.tree): "/A", guid_of(self.standby.tree): "/B"}
        members = [records.PeerRecord(guid=guid, path=path, name=path[1:]) for guid, path in self.paths.items()]
        for machine in (self.machine, self.standby):
            records.commit_members(machine.store, members)

    def steps(self) -> dict[Callable[[], None], int]:
        return super().steps() | {
            self.replicate: 10,
            self.replicate_as_it_is: 6,
            self.stop: 5,
            self.torn_replicate: 4,
            self.drop_there: 2,
            self.switch_over: 1,
            self.fail_over: 2,
        }

    # -- commands ------------------------------------------------------------------------------------

    def stage(self, me: Tree) -> Stage:
        other = self.standby.tree if me is self.machine.tree else self.machine.tree
        return Stage(me=me, peers={guid_of(other): other}, paths=self.paths)

    def run(self, decide: Callable[..., Decision], me: Tree) -> None:
        stage = self.stage(me)
        decision = decide(*stage.facts())
        if isinstance(decision, Refusal):
            raise decision.error
        for _ in carry_out(decision, stage):
            """Each step."""

    def obey(self, command: Callable[[], object]) -> None:
        """Run a command; what a refusal says is done, and then it runs again.

        What one store alone holds, or has made clones of, is in the way of what the other one has purged.
        """
        try:
            command()
            return
        except PeerError as refusal:
            assert "cannot be purged from those of the other store" in str(refusal)
        for machine in (self.machine, self.standby):
            snapshots = FileSystem(machine.tree).snapshots
            for fileset in machine.store.catalog.listed_filesets():
                for snapshot in machine.store.catalog.snapshots(fileset.number):
                    if USER in manage.holders(machine.store, snapshot):
                        snapshots.release(f"{fileset.name}@{snapshot.name}", USER)
        for twin in self.twins:
            if twin.origin is not None:
                self.fs.filesets[twin.name].promote()
                twin.origin = None
        command()

    def transfer(self, progress: Callable[[Guid, int], None] | None = None) -> None:
        """What snapshots there are."""
        self.obey(lambda: replicate_into(self.machine.tree, self.standby.tree, progress))

    def replicate(self) -> None:
        """As the command does: with a snapshot of what changed."""
        self.note()
        self.obey(lambda: self.run(decisions.replicate, self.machine.tree))
        self.note_taken()
        self.compare_standby()
        self.compare_followed(everywhere=True)

    def replicate_as_it_is(self) -> None:
        """What snapshots there are."""
        self.note()
        if self.twins[0].snapshots:
            self.transfer()
            self.compare_standby()
            self.compare_followed(everywhere=False)

    def note_taken(self) -> None:
        """A command took snapshots of the active state."""
        catalog = self.machine.store.catalog
        for twin in self.twins:
            for snapshot in catalog.snapshots(catalog.fileset_named(twin.name).number):
                if snapshot.name not in twin.snapshots:
                    # What appears nowhere has no path to read its active state by.
                    is_shown = twin.path is not None
                    whole = f"{twin.name}@{snapshot.name}"
                    twin.snapshots[snapshot.name] = dict(twin.state) if is_shown else read(self.fs.snapshots[whole])
        self.note()

    def stop(self) -> None:
        """Somebody stops a transfer after some frames."""
        left = self.rng.randint(1, 12)

        def progress(_guid: Guid, _size: int) -> None:
            nonlocal left
            left -= 1
            if not left:
                raise Stopped

        self.note()
        if not self.twins[0].snapshots:
            return
        try:
            self.transfer(progress)
        except Stopped:
            if self.rng.random() < 0.3:
                self.standby.reopen()
        self.compare_standby()

    def torn_replicate(self) -> None:
        """The power of one of the two goes."""
        self.fs.sync()
        self.note()
        if not self.twins[0].snapshots:
            return
        machine = self.rng.choice((self.machine, self.standby))
        try:
            with machine.cut(self.rng.randint(1, 40)):
                self.transfer()
        except CommitFailed:
            assert machine.is_down
        if machine.is_down:
            machine.crash()
            self.fs = FileSystem(self.machine.tree)
        self.compare()
        self.compare_standby()

    def drop_there(self) -> None:
        """A snapshot that the standby can do without is deleted there."""
        store = self.standby.store
        for fileset in store.catalog.listed_filesets():
            for snapshot in store.catalog.snapshots(fileset.number):
                is_base = snapshot is received.base(store, fileset.number)
                if not is_base and not manage.holders(store, snapshot) and self.rng.random() < 0.3:
                    FileSystem(self.standby.tree).snapshots.delete(f"{fileset.name}@{snapshot.name}")
        self.compare_standby()

    def switch_over(self) -> None:
        if not self.twins[0].snapshots:
            return
        self.note()
        before = {guid: state for guid, (state, path) in self.actives().items() if path is not None}
        self.obey(lambda: self.run(decisions.switchover, self.machine.tree))
        self.exchange(before)
        # Whoever has the role now has what the other one had.
        assert {guid: state for guid, (state, path) in self.actives().items() if path is not None} == before

    def fail_over(self) -> None:
        """The standby takes over; the old primary keeps what only it had, and follows."""
        if received.base(self.standby.store, self.standby.tree.fileset) is None:
            return
        self.note()
        before = {guid: state for guid, (state, path) in self.actives().items() if path is not None}
        self.run(decisions.failover, self.standby.tree)
        self.machine, self.standby = self.standby, self.machine
        self.fs = FileSystem(self.machine.tree)
        self.learn()
        for _ in range(self.rng.choice((0, 3))):
            self.edit()
        guids = self.guids()
        self.obey(lambda: self.run(decisions.failback, self.standby.tree))
        self.note_told(guids)
        self.note_taken()
        self.note_kept(before)
        self.compare()
        self.compare_standby()

    def exchange(self, before: dict[Guid, State]) -> None:
        self.machine, self.standby = self.standby, self.machine
        store = self.machine.store
        for fileset in store.catalog.listed_filesets():
            for snapshot in store.catalog.snapshots(fileset.number):
                if fileset.guid in before and self.known_of(store, snapshot.guid) is None:
                    self.known[snapshot.guid] = before[fileset.guid]
        self.fs = FileSystem(self.machine.tree)
        self.learn()
        self.note()
        self.compare()
        self.compare_standby()

    def actives(self) -> dict[Guid, tuple[State, str | None]]:
        """What each fileset has now, and where it appears."""
        catalog = self.machine.store.catalog
        return {catalog.fileset_named(twin.name).guid: (dict(twin.state), twin.path) for twin in self.twins}

    def note_kept(self, before: dict[Guid, State]) -> None:
        """What the old primary had alone it has in snapshots."""
        for fileset in self.standby.store.catalog.listed_filesets():
            for snapshot in self.standby.store.catalog.snapshots(fileset.number):
                if snapshot.guid not in self.known:
                    assert snapshot.name.startswith("diverged-")
                    # What appeared nowhere had no path to read its active state by.
                    kept = FileSystem(self.standby.tree).snapshots[f"{fileset.name}@{snapshot.name}"]
                    self.known[snapshot.guid] = before[fileset.guid] if fileset.guid in before else read(kept)

    # -- what is -------------------------------------------------------------------------------------

    def check(self, tree: Tree) -> None:
        assert_sound(tree)

    def compare_standby(self) -> None:
        """Its snapshots are what they were on the primary."""
        fs, other = FileSystem(self.standby.tree), self.standby.store
        catalog = other.catalog
        for fileset in catalog.listed_filesets():
            for snapshot in catalog.snapshots(fileset.number):
                whole = f"{fileset.name}@{snapshot.name}"
                found = read(fs.snapshots[whole])
                self.compare_state(found, self.had(other, snapshot.guid), f"{whole} of the standby")
        self.check(self.standby.tree)

    def guids(self) -> dict[tuple[str, str], Guid]:
        return {(twin.name, name): self.record(twin, name).guid for twin in self.twins for name in twin.snapshots}

    def note_told(self, before: dict[tuple[str, str], Guid]) -> None:
        """The old primary had purged something, and told this one so."""
        for (fileset, name), guid in self.guids().items():
            if guid != before.get((fileset, name)):
                twin = next(each for each in self.twins if each.name == fileset)
                twin.snapshots[name] = dict(self.had(self.machine.store, guid))

    def had(self, store: Store, guid: Guid) -> State:
        """What the snapshot of this guid has."""
        known = self.known_of(store, guid)
        assert known is not None, f"nobody knows a snapshot with the guid {guid.hex()}"
        return known

    def known_of(self, store: Store, guid: Guid) -> State | None:
        """As ``had``, if it is known. One that was purged because another store had may have a guid of its own."""
        if guid not in self.known:
            for purge in reversed(audit.purges(store)):
                for each in purge.replaced:
                    if each.new_guid == guid.hex():
                        had = self.had(store, Guid(bytes.fromhex(each.old_guid)))
                        self.known[guid] = without(had, purge.path.removeprefix("/"))
        return self.known.get(guid)

    def compare_followed(self, *, everywhere: bool) -> None:
        """Each fileset of the primary is there, as its newest snapshot has it, with its name and holds.

        ``everywhere``: also where it appears; the newest snapshots of the others show its directory.
        """
        store, other = self.machine.store, self.standby.store
        there = {fileset.guid: fileset for fileset in other.catalog.listed_filesets()}
        for twin in self.twins:
            fileset = store.catalog.fileset_named(twin.name)
            if not twin.snapshots:
                continue
            newest, same = store.catalog.snapshots(fileset.number)[-1], there[fileset.guid]
            base = received.base(other, same.number)
            assert base is not None and base.guid == newest.guid, f"{twin.name} did not follow"
            assert same.digest == newest.digest, f"{twin.name} has another digest on the standby"
            assert lines.line_of(other, same.number) is None
            told, same_told = description_of(store, fileset), description_of(other, same)
            if not everywhere:
                told = told._replace(parent=same_told.parent, junction=same_told.junction)
            assert told == same_told, twin.name
            self.compare_holds(twin, fileset, same)

    def compare_holds(self, twin: Twin, fileset: Fileset, same: Fileset) -> None:
        """What users hold is held there, too."""
        store, other = self.machine.store, self.standby.store
        for snapshot in store.catalog.snapshots(fileset.number):
            copy = other.catalog.by_guid(same.number, snapshot.guid)
            if copy is not None and USER in manage.holders(store, snapshot):
                assert USER in manage.holders(other, copy), f"{twin.name}@{snapshot.name} is held on the primary alone"
