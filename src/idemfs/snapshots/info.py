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
    """One snapshot as it was when it was asked for; what it owns changes later.

    What is text here and not in its record is made when it is asked for, since most often it is not.
    """

    __slots__ = (
        "_digest",
        "_guid",
        "_is_of_root",
        "created_ns",
        "file_count",
        "fileset",
        "holds",
        "id",
        "locked_until_ns",
        "name",
        "owned_bytes",
    )

    def __init__(self, snapshot: Snapshot, fileset: Fileset, keep: Keep | None = None, now_ns: int = 0) -> None:
        self.name = snapshot.name
        self.fileset = fileset.name
        self._is_of_root = snapshot.fileset == ROOT_FILESET
        self.id: int = snapshot.id
        self._guid = snapshot.guid
        self.created_ns = snapshot.created_ns
        self.owned_bytes = snapshot.data_bytes + snapshot.record_bytes
        """What deleting it would free, or hand down to the next older one: extents in whole sectors, and records."""
        self._digest = snapshot.digest
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
    def operand(self) -> str:
        """What names it in this store: ``NAME`` in the root fileset, else ``FILESET@NAME``."""
        return self.name if self._is_of_root else f"{self.fileset}@{self.name}"

    @property
    def guid(self) -> str:
        """Names the snapshot in every store that holds it."""
        return self._guid.hex()

    @property
    def digest(self) -> str:
        """Equal in every store that holds the snapshot."""
        return f"{self._digest:032x}"

    @property
    def created(self) -> datetime:
        """UTC, in microseconds; ``created_ns`` is exact."""
        from datetime import UTC, datetime, timedelta

        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=self.created_ns // 1000)

    def __repr__(self) -> str:
        return f"<SnapshotInfo {self.name!r} id={self.id} owned_bytes={self.owned_bytes} digest={self.digest}>"
