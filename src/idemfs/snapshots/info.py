"""What users are told of a snapshot. Plain, since listing snapshots must not wait for imports."""

from __future__ import annotations

from idemfs.format.tables import Fileset, Snapshot
from idemfs.ids import ROOT_FILESET

TYPE_CHECKING = False
if TYPE_CHECKING:
    from datetime import datetime

    from idemfs.store.keeps import Keep


NEVER_NS = (1 << 63) - 1
"""The end of a hold that has none."""


class SnapshotInfo:
    """One snapshot as it was when it was asked for; what it owns changes later."""

    __slots__ = (
        "created_ns",
        "digest",
        "file_count",
        "fileset",
        "guid",
        "holds",
        "id",
        "locked_until_ns",
        "name",
        "operand",
        "owned_bytes",
    )

    def __init__(self, snapshot: Snapshot, fileset: Fileset, keep: Keep | None = None, now_ns: int = 0) -> None:
        self.name = snapshot.name
        self.fileset = fileset.name
        self.operand = snapshot.name if snapshot.fileset == ROOT_FILESET else f"{fileset.name}@{snapshot.name}"
        """What names it in this store: ``NAME`` in the root fileset, else ``FILESET@NAME``."""
        self.id = int(snapshot.id)
        self.guid = snapshot.guid.hex()
        """Names the snapshot in every store that holds it."""
        self.created_ns = snapshot.created_ns
        self.owned_bytes = snapshot.owned_bytes
        """What deleting it would free, or hand down to the next older one: extents in whole sectors, and records."""
        self.digest = f"{snapshot.digest:032x}"
        """Equal in every store that holds the snapshot."""
        self.file_count = snapshot.inode_count
        """Inodes that the snapshot sees, directories included."""
        self.locked_until_ns = 0
        """Before when nobody can delete it; 0 when somebody may."""
        self.holds: tuple[tuple[str, int], ...] = ()
        """Who holds it, and until when in ns; ``NEVER_NS`` without an end."""
        if keep is not None:
            self.locked_until_ns = keep.locked_until_ns if keep.locked_until_ns > now_ns else 0
            self.holds = tuple(hold for hold in keep.holds if hold[1] > now_ns)

    @property
    def created(self) -> datetime:
        """UTC, in microseconds; ``created_ns`` is exact."""
        from datetime import UTC, datetime, timedelta

        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=self.created_ns // 1000)

    def __repr__(self) -> str:
        return f"<SnapshotInfo {self.name!r} id={self.id} owned_bytes={self.owned_bytes} digest={self.digest}>"
