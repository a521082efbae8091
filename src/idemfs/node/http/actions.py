"""What the network side has others do: the commands of users, and what other parts of the process tell.

``cli/serve.py`` hands both in, so nothing here knows how a command is carried out.

Threads: everything may be called from any thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from idemfs.node.http.answers import PlanAnswer
from idemfs.node.http.gate import Caller
from idemfs.node.owner import OwnedStore
from idemfs.replication.channel import Channel
from idemfs.snapshots.info import SnapshotInfo
from idemfs.snapshots.usage import FilesetInfo


class Actions(Protocol):
    """What callers order. Each raises what the command of the same name raises, and wakes whoever has to know."""

    def snapshots(self, store: OwnedStore) -> list[SnapshotInfo]:
        """Of all filesets, oldest first."""
        ...

    def create_snapshots(self, store: OwnedStore, names: Sequence[str], by: Caller) -> list[SnapshotInfo]: ...

    def delete_snapshot(self, store: OwnedStore, name: str, by: Caller) -> None: ...

    def filesets(self, store: OwnedStore) -> list[FilesetInfo]: ...

    def change_roles(self, store: OwnedStore, command: str, by: Caller, *, dry_run: bool) -> PlanAnswer:
        """``command``: ``switchover``, ``failover`` or ``failback``."""
        ...

    def serve_peer(self, path: str, channel: Channel, by: Caller) -> None:
        """One session of another node with the store at ``path``, or with the place; returns when it is over."""
        ...


class LinkFigures(NamedTuple):
    """What Prometheus is told of a link. What is None nobody knows now."""

    to: str
    state: str
    lag_seconds: float | None
    lag_bytes: int | None
    sent_bytes: int
    transfers: int
    failures: int


class Lists(Protocol):
    """What other parts of the process tell of a store, and the types of their records: msgspec structs."""

    @property
    def link(self) -> Any: ...
    @property
    def event(self) -> Any: ...

    @property
    def link_states(self) -> Sequence[str]: ...

    def link_figures(self, store: OwnedStore) -> Sequence[LinkFigures]: ...

    def links(self, store: OwnedStore) -> Sequence[object]:
        """One ``link`` for each link of the store."""
        ...

    def history(self, store: OwnedStore) -> Sequence[object]:
        """One ``event`` for whatever happened, newest last."""
        ...
