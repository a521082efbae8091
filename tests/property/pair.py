"""A primary and its standby: the steps of one store, and transfers, whole and interrupted, and failovers with failback.

The standby's snapshots are at all times those of the model that it received; what is half
received shows nowhere. Transfers go in very small steps, so that few files make many.

Threads: one.
"""

from __future__ import annotations

from unittest import mock

import pytest

from idemfs.errors import NotPrimary, PeerError, SnapshotHeld
from idemfs.failover import actions as roles
from idemfs.format.role import Role
from idemfs.format.tables import Snapshot
from idemfs.ids import ROOT_FILESET, Guid
from idemfs.replication import applier, difference, link
from idemfs.replication.apply import drop_partial
from idemfs.snapshots import delete, manage, received
from tests.property.compare import check_store, compare_nodes, compare_snapshots
from tests.property.driver import Options
from tests.property.machine import Machine
from tests.property.model import Model, State
from tests.property.path_driver import PathDriver


class Stopped(Exception):
    """Somebody stopped a transfer."""


class Pair(PathDriver):
    """``machine`` is primary; ``states`` are the snapshots of ``standby``, in order."""

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        small = {(difference, "_GROUP_RECORD_COUNT_MAX"): 5, (applier, "_STEP_RECORD_COUNT"): 2}
        for (module, name), count in small.items():
            self.patch(mock.patch.object(module, name, count))
        self._make_standby()

    def _make_standby(self) -> None:
        fileset = self.tree.active.fileset(self.tree.root).guid
        self.standby = Machine(self.clock, self.options.standby or "none", fileset, Role.STANDBY)
        self.states: dict[str, State] = {}

    # -- transfers -----------------------------------------------------------------------------------

    def replicate(self) -> None:
        """Bring the standby to the newest snapshot; if the two have none in common any more, start anew."""
        try:
            link.replicate_into(self.tree, self.standby.tree)
        except PeerError:
            assert self._common() is None, "a standby is refused that could be brought up"
            self._make_standby()
            return
        self._note_received()
        if self.model.snapshots:
            newest = list(self.model.snapshots)[-1]
            base = received.base(self.standby.store, ROOT_FILESET)
            assert base is not None and base.name == newest, "the newest snapshot was not transferred"
            self._compare_newest(newest)
        self.compare_standby()

    def _compare_newest(self, newest: str) -> None:
        """What readers of the standby see, and its active state, which failover would start from."""
        state = self.states[newest]
        compare_nodes(self.standby.tree.newest_reader(), state, state, "what the standby shows")
        compare_nodes(self.standby.tree.reader, state, state, "the active state of the standby")
        with pytest.raises(NotPrimary):
            self.standby.tree.unlink(self.tree.root, b"a")

    def _common(self) -> Snapshot | None:
        """The standby's base, if the primary has it, too."""
        base = received.base(self.standby.store, ROOT_FILESET)
        return None if base is None else self.tree.store.catalog.by_guid(ROOT_FILESET, base.guid)

    def _note_received(self) -> None:
        """The standby has what it had, and what has come, in the order in which the primary has it."""
        names = [snapshot.name for snapshot in self.standby.snapshots()]
        came = names[len(self.states) :]
        assert names == [*self.states, *came], "the standby lost a snapshot"
        order = [name for name in self.model.snapshots if name not in self.states]
        assert came == order[: len(came)] or set(came) <= set(order), "the standby has snapshots that nobody took"
        self.states.update((name, self.model.snapshots[name]) for name in came)

    def stopped_replicate(self, after: int) -> None:
        """Somebody stops it after some bytes; both stores live on."""
        left = after % 12

        def progress(snapshot: Guid, size: int) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise Stopped

        try:
            link.replicate_into(self.tree, self.standby.tree, progress)
        except (Stopped, PeerError):
            self._note_received()
            self.compare_standby()
            return
        self._note_received()

    def torn_replicate(self, side: int, after: int) -> bool | None:
        """The power of one of the two goes."""
        machine = self.standby if side % 2 else self.machine
        commits = self.machine.kv.commit_count
        try:
            with machine.cut(after % 40 + 1):
                link.replicate_into(self.tree, self.standby.tree)
        except PeerError:
            assert self._common() is None, "a standby is refused that could be brought up"
        if self.machine.kv.commit_count > commits:
            self.model.commit()
        if self.standby.is_down:
            self.standby.crash()
        self._note_received()
        self.compare_standby()
        if self.machine.is_down:
            return self.crash()
        return False

    def is_elsewhere(self, name: str) -> bool:
        return name in self.states

    # -- the standby alone ---------------------------------------------------------------------------

    def standby_crash(self) -> None:
        self.standby.crash()
        self.compare_standby()

    def standby_reopen(self) -> None:
        self.standby.reopen()
        self.compare_standby()

    def standby_drop(self) -> None:
        """What is half received goes, and the active state is that of the base again."""
        drop_partial(self.standby.tree)
        base = received.base(self.standby.store, ROOT_FILESET)
        state = self.states[base.name] if base else {}
        compare_nodes(self.standby.tree.reader, state, state, "the active state of the standby")
        assert self.standby.tree.active.fileset(self.tree.root).inode_count == len(state)
        self.compare_standby()

    def standby_delete(self, which: int) -> None:
        """Any snapshot but the base."""
        base = received.base(self.standby.store, ROOT_FILESET)
        names = [name for name in self.states if base is None or name != base.name]
        if not names:
            return
        name = names[which % len(names)]
        try:
            delete.delete(self.standby.tree.active, self.standby.snapshot(name))
        except SnapshotHeld:
            return
        del self.states[name]
        self.compare_standby()

    def standby_check(self) -> None:
        check_store(self.standby.tree)
        self.compare_standby()

    def compare_standby(self) -> None:
        compare_snapshots(self.standby.tree, self.states)

    # -- roles ---------------------------------------------------------------------------------------

    def failover(self) -> bool | None:
        """The standby becomes primary; the old one keeps what only it had, goes back, and follows."""
        base = received.base(self.standby.store, ROOT_FILESET)
        common = self._common()
        if base is None or common is None:
            return None
        self.crash()
        epoch = self.tree.role.epoch + 1
        roles.promote(self.standby.tree, epoch, None)
        self._step_down(epoch, common)
        root = self.model.active[1]
        states, model = self.states, Model(self.now(), root.uid, root.gid)
        self.states = self.model.snapshots
        self.machine, self.standby = self.standby, self.machine
        model.active, model.snapshots = dict(states[base.name]), dict(states)
        model.next_number = self.tree.active.fileset(self.tree.root).next_number
        self.model = model
        self.model.forget_handles()
        owner = link.hold_owner(self.standby.store.superblock.guid)
        manage.hold(self.tree.store, self.machine.snapshot(base.name), owner)
        self.tree.sync()
        self.model.commit()
        self.compare_all()
        self.compare_standby()
        return False

    def _step_down(self, epoch: int, common: Snapshot) -> None:
        """The old primary becomes standby."""
        tree = self.tree
        roles.tell(tree, epoch)
        diverged = roles.take_snapshot(tree, f"diverged-{epoch}")
        if diverged is not None:
            self.model.take(diverged.name)
        roles.go_back(tree, Guid(common.guid))
        roles.release_holds(tree, self.standby.store.superblock.guid)
        roles.demote(tree, epoch, Guid(common.guid))
