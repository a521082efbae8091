"""Whatever is done to a primary, its standby has every snapshot as it was taken; and so after an exchange of roles.

The model is what readers saw when each snapshot was taken, by guid. Steps and seeds are drawn; the changes
themselves follow from the seed.
"""

from __future__ import annotations

from contextlib import ExitStack
from random import Random
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st

from idemfs.errors import SnapshotHeld
from idemfs.format.role import Role, RoleRecord
from idemfs.format.tables import Snapshot
from idemfs.ids import ROOT_FILESET, Guid
from idemfs.replication import applier, codec
from idemfs.replication.apply import drop_partial
from idemfs.replication.link import hold_owner, replicate_into, side_of
from idemfs.replication.plan import Plan, make_plan
from idemfs.snapshots import bring_back, delete, manage, received
from idemfs.testing.builders import assert_clean, memory_tree, random_changes, reopened
from idemfs.testing.clock import Simulated
from idemfs.vfs.tree import Tree
from tests.unit.replication.pairs import listing, set_role, snapshots, standby_of

STEPS = (
    "change",
    "change much",
    "take",
    "take",
    "delete",
    "restore",
    "replicate",
    "interrupt",
    "kill",
    "delete on standby",
    "reopen",
    "exchange",
)


class Stop(Exception):
    """Not more of this transfer."""


class Stores:
    """A primary, its standby, and what every snapshot showed when it was taken."""

    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)
        self.primary = memory_tree(clock=Simulated(seed))
        self.standby = standby_of(self.primary, seed + 1)
        self.taken: dict[Guid, dict[bytes, tuple[object, ...]]] = {}
        self.epoch = 1
        self._count = 0

    def step(self, name: str) -> None:
        match name:
            case "change":
                random_changes(self.primary, self.rng, self.rng.randint(1, 8))
            case "change much":
                random_changes(self.primary, self.rng, 60)
            case "take":
                self.take("s")
            case "delete":
                self.delete(self.primary)
            case "restore":
                self.restore()
            case "replicate":
                self.replicate()
            case "interrupt" | "kill":
                self.interrupt(committed=name == "interrupt")
            case "delete on standby":
                self.delete(self.standby)
            case "reopen":
                self.primary, self.standby = reopened(self.primary), reopened(self.standby)
            case "exchange":
                self.exchange()

    def take(self, prefix: str, tree: Tree | None = None) -> Snapshot:
        tree = tree or self.primary
        self._count += 1
        snapshot = manage.create(tree.store, ROOT_FILESET, f"{prefix}{self._count}")
        self.taken[snapshot.guid] = listing(tree.reader)
        return snapshot

    def pick(self, tree: Tree) -> Snapshot | None:
        found = snapshots(tree)
        return self.rng.choice(found) if found else None

    def delete(self, tree: Tree) -> None:
        snapshot, base = self.pick(tree), received.base(tree.store, ROOT_FILESET)
        if snapshot is None or (tree is self.standby and snapshot is base):
            return
        try:
            delete.delete(tree.active, snapshot)
        except SnapshotHeld:
            assert tree is self.primary

    def restore(self) -> None:
        snapshot = self.pick(self.primary)
        if snapshot is not None:
            undo = self.take("undo")
            bring_back.go_back(self.primary.active, snapshot)
            assert undo.id > snapshot.id

    def replicate(self) -> None:
        if not snapshots(self.primary):
            return
        replicate_into(self.primary, self.standby)
        base = received.base(self.standby.store, ROOT_FILESET)
        assert base is not None and base.guid == snapshots(self.primary)[-1].guid
        self.check()

    def interrupt(self, *, committed: bool) -> None:
        limit = self.rng.randrange(60_000)
        commit_at = self.rng.randrange(60_000)

        def stop(guid: Guid, size: int) -> None:
            if size > commit_at:
                # crash: a part of what came is durable when the standby ends.
                self.standby.store.commit()
            if size > limit:
                raise Stop

        try:
            replicate_into(self.primary, self.standby, stop)
        except Stop:
            self.standby = reopened(self.standby, committed=committed)
        self.check_snapshots(self.standby)

    def exchange(self) -> None:
        """The standby takes over; what the old primary had alone is kept there, and it follows."""
        old, new = self.primary, self.standby
        base = received.base(new.store, ROOT_FILESET)
        if base is None or old.store.catalog.by_guid(ROOT_FILESET, base.guid) is None:
            return
        self.epoch += 1
        drop_partial(new)
        manage.hold(new.store, base, hold_owner(old.store.superblock.guid))
        received.put_base(new.store, None)
        # Numbers that the old primary may have given out unseen are left out, as a failover does.
        new.active.fileset(new.root).next_number += 1000
        self.set_role(new, Role.PRIMARY)
        self.take("diverged", old)
        common = old.store.catalog.by_guid(ROOT_FILESET, base.guid)
        assert common is not None
        with old.store.exclusive():
            received.put_base(old.store, common.guid)
            bring_back.go_back(old.active, common)
        for each in snapshots(old):
            manage.release(old.store, each, hold_owner(new.store.superblock.guid))
        self.set_role(old, Role.STANDBY)
        self.primary, self.standby = new, old
        self.check()

    def set_role(self, tree: Tree, role: Role) -> None:
        set_role(tree.store, RoleRecord(role, self.epoch, self.epoch))
        tree.reload_role()
        tree.recover()

    # -- checks --------------------------------------------------------------------------------------

    def check(self) -> None:
        for tree in (self.primary, self.standby):
            self.check_snapshots(tree)
            assert_clean(tree)

    def check_snapshots(self, tree: Tree) -> None:
        tree.active.resolved.clear()
        for snapshot in snapshots(tree):
            assert listing(tree.snapshot_reader(snapshot)) == self.taken[snapshot.guid], snapshot.name


SMALL = ((codec, "STREAM_BATCH_BYTES", 5000), (applier, "_STEP_RECORD_COUNT", 9), (applier, "_LIGHT_COUNT", 3))
"""Bounds that are as easily reached here as they are by large files."""


def run(seed: int, steps: list[str]) -> None:
    with ExitStack() as stack:
        for module, name, value in SMALL:
            stack.enter_context(mock.patch.object(module, name, value))
        stores = Stores(seed)
        for step in steps:
            stores.step(step)
        stores.take("last")
        if isinstance(make_plan(side_of(stores.primary), side_of(stores.standby)), Plan):
            stores.replicate()
        stores.check()


@settings(max_examples=150)
@given(st.integers(0, 1 << 20), st.lists(st.sampled_from(STEPS), max_size=25))
def test_snapshots_are_the_same_wherever_they_are(seed: int, steps: list[str]) -> None:
    run(seed, steps)


def test_a_number_that_two_primaries_gave_to_inodes_of_different_types() -> None:
    """It was taken for damage: the check looked at the type of one of them only."""
    words = "take,replicate,exchange,change much,delete on standby,exchange,restore,delete,change much,restore"
    run(664, words.split(","))
