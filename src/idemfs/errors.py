"""What can go wrong, as a tree. Each error says what, where, and what to do, in one line.

::

    IdemfsError
    ├── ConfigError · NotPermitted
    ├── StoreError
    │   ├── StoreExists · StoreMissing · StoreInUse
    │   ├── FormatError: FormatTooNew · Damaged
    │   └── CommitFailed
    ├── SnapshotError
    │   ├── SnapshotExists · SnapshotMissing · SnapshotHeld: SnapshotLocked
    │   └── BadSnapshotName · BadPolicy · HookFailed
    ├── FilesetError
    │   ├── FilesetExists · FilesetMissing
    │   └── FilesetInUse · BadFilesetName · DrillError
    ├── StreamError
    │   ├── StreamDamaged · StreamTooNew
    │   ├── StreamRefused · StreamInterrupted
    │   └── ArchiveError
    ├── RoleError
    │   ├── NotPrimary (also an OSError, EROFS) · NotStandby
    │   ├── Fenced (also an OSError, EROFS): LeaseOver
    │   ├── EtcdLost · EtcdRefused
    │   └── PeerError: ConnectionLost
    ├── DamagedBlock (also an OSError, EIO) · NoSpace (also an OSError, ENOSPC)
    └── QuotaExceeded (also an OSError, EDQUOT)

POSIX failures (a name that is missing, a directory that is not empty) are plain
``OSError`` with the errno that ``open(2)`` and its family document.
"""

from __future__ import annotations

import errno


class IdemfsError(Exception):
    """Base of every error that is not a POSIX one."""


class ConfigError(IdemfsError):
    """A configuration file that says what has no meaning; the message names the file, the table and the key."""


class NotPermitted(IdemfsError):
    """Who asked has not the right to; the message says who may what."""


class StoreError(IdemfsError):
    """About a store as a whole."""


class InsideStore(StoreError):
    """A place in the directory of a store, which is the store's own."""


class StoreExists(StoreError):
    """``init`` found a store, or something else, at its path."""


class StoreMissing(StoreError):
    """No store at this path."""


class StoreInUse(StoreError):
    """Another process owns the store; ``pid`` names it."""

    def __init__(self, path: str, pid: int) -> None:
        super().__init__(f"{path}: in use by process {pid}; end it, or wait until it is done")
        self.path = path
        self.pid = pid


class FormatError(StoreError):
    """The bytes of a store or of a record are not what this version reads."""


class FormatTooNew(FormatError):
    """Made by a newer idemfs, or with a feature that this one does not know."""


class Damaged(FormatError):
    """A record breaks the format; nothing was changed."""


class CommitFailed(StoreError):
    """A transaction group could not be made durable. The store takes no more changes until it is opened again."""


class SnapshotError(IdemfsError):
    """About snapshots."""


class SnapshotExists(SnapshotError):
    """The name is taken."""


class SnapshotMissing(SnapshotError):
    """No snapshot has this name."""


class SnapshotHeld(SnapshotError):
    """A hold keeps the snapshot; the message names its owner."""


class SnapshotLocked(SnapshotHeld):
    """Nobody may delete the snapshot before a date, which the message names."""


class BadSnapshotName(SnapshotError):
    """The name is empty, too long, or has a character that names cannot have."""


class BadPolicy(SnapshotError):
    """A schedule or a rule of retention that has no meaning; the message says which part."""


class HookFailed(SnapshotError):
    """A command that is run before or after a snapshot failed, or took too long; the message says which."""


class FilesetError(IdemfsError):
    """About filesets."""


class FilesetExists(FilesetError):
    """The name is taken, or there are as many filesets as a store can have."""


class FilesetMissing(FilesetError):
    """No fileset has this name, or appears at this path."""


class FilesetInUse(FilesetError):
    """Other filesets appear in it, or a snapshot of it is held: the message names them."""


class BadFilesetName(FilesetError):
    """The name is empty, too long, or has a character that names cannot have."""


class DrillError(FilesetError):
    """No drill has this name, or none can be begun; the message says why."""


class StreamError(IdemfsError):
    """About a change set's bytes or their use."""


class StreamDamaged(StreamError):
    """Bytes are missing, changed, or out of order."""


class StreamTooNew(StreamError):
    """Written by a newer idemfs."""


class StreamRefused(StreamError):
    """Whole, but not for this store in its present state; the message has the reason."""


class StreamInterrupted(StreamError):
    """The stream ended early; what came so far is kept, and the same stream goes on from there."""


class ArchiveError(StreamError):
    """A directory of streams is damaged, is none, or has not what is asked for; the message names the file."""


class RoleError(IdemfsError):
    """About primary, standby, and epochs."""


class NotPrimary(RoleError, OSError):
    """A standby refuses writes."""

    def __init__(self, message: str) -> None:
        OSError.__init__(self, errno.EROFS, message)


class NotStandby(RoleError):
    """The command is for a standby, and this store is none."""


class Fenced(RoleError, OSError):
    """A higher epoch exists: this store's right to write has ended."""

    def __init__(self, message: str) -> None:
        OSError.__init__(self, errno.EROFS, message)


class LeaseOver(Fenced):
    """The store takes changes only with a live write lease, and has none now. It may have one again."""


class EtcdLost(RoleError):
    """No endpoint of etcd answers, or none has a majority behind it. What was asked may have been done."""


class EtcdRefused(RoleError):
    """etcd answers that it does not do this; or what stands there has no meaning here."""


class PeerError(RoleError):
    """The other store is missing, unknown, or not related to this one."""


class ConnectionLost(PeerError):
    """The other store was reached, and cannot be any more; what it was told last may have happened, or not."""


class DamagedBlock(IdemfsError, OSError):
    """A block does not have the checksum that its file names; it is never returned as data."""

    def __init__(self, message: str) -> None:
        OSError.__init__(self, errno.EIO, message)


class NoSpace(IdemfsError, OSError):
    """The host has no room left; nothing was changed."""

    def __init__(self, message: str) -> None:
        OSError.__init__(self, errno.ENOSPC, message)


class QuotaExceeded(IdemfsError, OSError):
    """The fileset holds as much as its quota lets it; nothing was changed."""

    def __init__(self, message: str) -> None:
        OSError.__init__(self, errno.EDQUOT, message)
