"""What the network side has others do: the commands of users.

``cli/serve.py`` hands them in, so nothing here knows how one is carried out.

Threads: everything may be called from any thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

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
