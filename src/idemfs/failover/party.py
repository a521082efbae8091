"""One store that takes part in a command of roles, wherever it is: open in this process, or at the end of a connection.

``LocalParty`` does what it is asked; ``remote.RemoteParty`` asks another process to.

Threads: one asks; see ``actions`` for what is done.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from idemfs.failover import actions, records
from idemfs.failover.facts import Frozen, Side
from idemfs.failover.measure import bytes_since
from idemfs.failover.observe import observe
from idemfs.failover.records import PeerRecord
from idemfs.ids import Guid
from idemfs.replication import link, purges
from idemfs.replication.apply import drop_partials
from idemfs.replication.purges import Told
from idemfs.replication.receiver import LocalReceiver, Receiver
from idemfs.vfs.tree import Tree


class Party(Protocol):
    """``guid``: of the store. What changes it is durable on return; errors are those of ``actions``."""

    guid: Guid

    def observe(self, path: str) -> Side:
        """What there is now; ``path``: what it is called here."""

    def tell(self, epoch: int) -> None: ...

    def commit_members(self, members: list[PeerRecord]) -> None: ...

    def take_snapshot(self, name: str | None) -> str | None:
        """The name of the first one that was taken."""

    def drop_partials(self) -> None: ...

    def go_back(self, snapshot: Guid) -> None: ...

    def refuse_without_room(self) -> None: ...

    def freeze(self, frozen: Frozen) -> None: ...

    def next_numbers(self) -> dict[Guid, int]: ...

    def promote(self, epoch: int, after: Mapping[Guid, int] | None) -> None: ...

    def demote(self, epoch: int, base: Guid | None, others: tuple[Guid, ...]) -> None: ...

    def release_holds(self, peer: Guid) -> None: ...

    def purges(self) -> list[Told]: ...

    def purge(self, told: Sequence[Told]) -> None: ...

    def bytes_since(self, snapshot: Guid | None, fileset: Guid | None) -> int: ...

    def receiver(self) -> Receiver:
        """This store, as one that follows."""

    def send_to(self, other: Party, progress: link.Progress | None = None) -> link.Report:
        """Every snapshot that the other one lacks. Raises as ``link.replicate_into``."""


class LocalParty:
    """An open store of this process."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.guid = Guid(tree.store.superblock.guid)

    def observe(self, path: str) -> Side:
        return observe(self.tree, path)

    def tell(self, epoch: int) -> None:
        actions.tell(self.tree, epoch)

    def commit_members(self, members: list[PeerRecord]) -> None:
        records.commit_members(self.tree.store, members)

    def take_snapshot(self, name: str | None) -> str | None:
        taken = actions.take_snapshot(self.tree, name)
        return None if taken is None else taken.name

    def drop_partials(self) -> None:
        drop_partials(self.tree)

    def go_back(self, snapshot: Guid) -> None:
        actions.go_back(self.tree, snapshot)

    def refuse_without_room(self) -> None:
        actions.refuse_without_room(self.tree)

    def freeze(self, frozen: Frozen) -> None:
        actions.freeze(self.tree, frozen)

    def next_numbers(self) -> dict[Guid, int]:
        return actions.next_numbers(self.tree)

    def promote(self, epoch: int, after: Mapping[Guid, int] | None) -> None:
        actions.promote(self.tree, epoch, after)

    def demote(self, epoch: int, base: Guid | None, others: tuple[Guid, ...]) -> None:
        actions.demote(self.tree, epoch, base, others)

    def release_holds(self, peer: Guid) -> None:
        actions.release_holds(self.tree, peer)

    def purges(self) -> list[Told]:
        return purges.told_by(self.tree.store)

    def purge(self, told: Sequence[Told]) -> None:
        purges.carry_out(self.tree, told)

    def bytes_since(self, snapshot: Guid | None, fileset: Guid | None) -> int:
        return bytes_since(self.tree, snapshot, fileset)

    def receiver(self) -> Receiver:
        return LocalReceiver(self.tree)

    def send_to(self, other: Party, progress: link.Progress | None = None) -> link.Report:
        return self.send(other.receiver(), progress)

    def send(self, receiver: Receiver, progress: link.Progress | None = None) -> link.Report:
        report = link.replicate_into(self.tree, receiver, progress)
        # crash: a step is durable when it is done, and holds that were let go are not waited for before.
        self.tree.store.commit()
        return report
