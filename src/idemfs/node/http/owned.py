"""What the network side asks of the process that it runs in: its stores, and what to do with them.

``cli/serve.py`` hands both in, so nothing here knows how a command is carried out.

Threads: everything may be called from any thread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from idemfs.node.http.answers import PlanAnswer
from idemfs.node.http.gate import Caller
from idemfs.snapshots.info import SnapshotInfo
from idemfs.snapshots.usage import FilesetInfo
from idemfs.vfs.tree import Tree

if TYPE_CHECKING:
    from idemfs.replication.channel import Channel


class Owned(Protocol):
    """One open store."""

    @property
    def name(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def tree(self) -> Tree: ...
    @property
    def mount(self) -> str | None: ...
    @property
    def problems(self) -> Mapping[str, str]: ...


class Stores(Protocol):
    """The stores of this process now."""

    def configured(self) -> Sequence[str]:
        """The names of all stores that it is to own."""
        ...

    def path_of(self, name: str) -> str | None:
        """Where a configured store is, or is going to be; None: there is none of this name."""
        ...

    def owned(self) -> Sequence[Owned]:
        """Those that are open, in the same order."""
        ...


class Actions(Protocol):
    """What callers order. Each raises what the command of the same name raises, and wakes whoever has to know."""

    def snapshots(self, store: Owned) -> list[SnapshotInfo]:
        """Of all filesets, oldest first."""
        ...

    def create_snapshots(self, store: Owned, names: Sequence[str], by: Caller) -> list[SnapshotInfo]: ...

    def delete_snapshot(self, store: Owned, name: str, by: Caller) -> None: ...

    def filesets(self, store: Owned) -> list[FilesetInfo]: ...

    def change_roles(self, store: Owned, command: str, by: Caller, *, dry_run: bool) -> PlanAnswer:
        """``command``: ``switchover``, ``failover`` or ``failback``."""
        ...

    def serve_peer(self, name: str, channel: Channel, by: Caller) -> None:
        """One session of another node with a configured store; returns when it is over."""
        ...


class Lists(Protocol):
    """What other parts of the process tell of a store, and the types of their records: msgspec structs."""

    @property
    def link(self) -> Any: ...
    @property
    def event(self) -> Any: ...

    def links(self, store: Owned) -> Sequence[object]:
        """One ``link`` for each link of the store."""
        ...

    def history(self, store: Owned) -> Sequence[object]:
        """One ``event`` for whatever happened, newest last."""
        ...
