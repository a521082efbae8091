"""Named numbers of idemfs, so that a type checker keeps them apart.

An inode number is *fileset* (16 bits) · *number in the fileset* (48 bits). The
48 bits are the same on a primary and on its standbys; the 16 bits are local to
a store. Nothing here is ever reused within a store.
"""

from __future__ import annotations

# At run time the names are plain types: importing ``typing`` takes a quarter as long as listing snapshots may.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NewType

    FilesetId = NewType("FilesetId", int)
    """0 is the root fileset."""
    Number = NewType("Number", int)
    """The 48 bits of an inode number that are equal in every store."""
    Ino = NewType("Ino", int)
    """Fileset and number together: unique in one store."""
    SnapshotId = NewType("SnapshotId", int)
    """Grows over the whole store; 0 means "no snapshot"; below 2**56."""
    Guid = NewType("Guid", bytes)
    """16 random bytes that name a store or a snapshot across stores."""
    Address = NewType("Address", int)
    """A disk address, ``HOLE`` or ``DITTO``; see ``format.address``."""
else:
    FilesetId = Number = Ino = SnapshotId = Address = int
    Guid = bytes

NUMBER_BITS = 48
NUMBER_MASK = (1 << NUMBER_BITS) - 1

ROOT_FILESET = FilesetId(0)
ROOT_NUMBER = Number(1)
NO_SNAPSHOT = SnapshotId(0)


# Every operation asks these several times: to name the type by a call would double their cost.


def make_ino(fileset: FilesetId, number: Number) -> Ino:
    return fileset << NUMBER_BITS | number  # type: ignore[return-value]


def fileset_of(ino: Ino) -> FilesetId:
    return ino >> NUMBER_BITS  # type: ignore[return-value]


def number_of(ino: Ino) -> Number:
    return ino & NUMBER_MASK  # type: ignore[return-value]


ROOT_INO = make_ino(ROOT_FILESET, ROOT_NUMBER)
