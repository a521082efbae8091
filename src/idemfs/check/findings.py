"""What a check finds: its kind, where it is, and what is wrong there.

Names in the texts are as ``os.fsdecode`` gives them.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class Kind(Enum):
    """Each kind of finding breaks one invariant."""

    RECORD = "record"
    """A key or value that the format does not know."""
    FILESET = "fileset"
    """A fileset's counters, its name or its junction, or a record of a fileset that does not exist."""
    SNAPSHOT = "snapshot"
    """A snapshot's own record, or a record of a snapshot that does not exist."""
    INODE = "inode"
    """The fields of one inode contradict each other, or the inode of other records is missing."""
    SEEN = "seen"
    """An inode says that the newest snapshot has its shadow, and it has none; or the other way round."""
    SECTORS = "sectors"
    """The sectors that an inode says it has are not those of its extents."""
    PAST_END = "past end"
    """Something of a file lies past its end."""
    ENTRY = "entry"
    """A directory entry names what does not exist, or says the wrong type."""
    BACK_REFERENCE = "back-reference"
    """An entry without a back-reference, or a back-reference without an entry."""
    LINK_COUNT = "link count"
    """Link count and names of an inode differ."""
    DIRECTORY_SIZE = "directory size"
    """The size of a directory is not the count of its entries."""
    UNREACHABLE = "unreachable"
    """Going up from a directory does not end at the root."""
    ORPHAN = "orphan"
    """The orphans table and the inodes without links differ."""
    ADDRESS = "address"
    """A disk address outside the store, or one that no store can have written."""
    OVERLAP = "overlap"
    """Sectors with more than one owner, or owned and free at once."""
    LEAK = "leak"
    """Sectors that nobody owns and that are not free."""
    SHARED = "shared"
    """An extent is not named by as many records as its shared count says."""
    FREE = "free"
    """Free runs that overlap, or lie outside the store."""
    CHECKSUM = "checksum"
    """Records that share an extent disagree about its checksum."""
    SHADOW = "shadow"
    """A snapshot owns a version of a record that it cannot have."""
    OWNED = "owned"
    """The index of what a snapshot owns differs from the shadow records."""
    USAGE = "usage"
    """The bytes that a snapshot is said to own, or a fileset to hold, are not those that it has."""
    INODE_COUNT = "inode count"
    """A fileset or snapshot has another number of inodes than its record says."""
    DIGEST = "digest"
    """A fileset or snapshot has another state than its digest says."""
    DATA = "data"
    """A block cannot be read, or does not have its checksum."""


class Finding(NamedTuple):
    """One thing that is wrong. ``where``: a path, a snapshot, a range of sectors or a key."""

    kind: Kind
    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what} [{self.kind.value}]"
