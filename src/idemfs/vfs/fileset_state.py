"""An open store as one file system: its role, readers of its states, orphans, open files.

``namespace.Namespace`` adds changes of names, ``tree.Tree`` changes of attributes and content.

Threads: each call takes the store's lock.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress

from idemfs.errors import DamagedBlock, Fenced, NoSpace, NotPrimary
from idemfs.format import keys, role
from idemfs.format.inode import INLINE, Inode
from idemfs.format.role import Role, RoleRecord
from idemfs.format.tables import Snapshot
from idemfs.ids import NO_SNAPSHOT, ROOT_FILESET, ROOT_NUMBER, FilesetId, Ino, fileset_of, make_ino
from idemfs.limits import INDIRECT_ENTRY_COUNT, SECTOR_SIZE
from idemfs.snapshots import (
    bring_back,
    delete,
    drills,
    drop,
    promote,
    purge,
    quota,
    received,
    refresh,
    restore_path,
    usage,
    write,
)
from idemfs.store.store import Store
from idemfs.versions import origin
from idemfs.versions.active import Active
from idemfs.versions.resolve import View
from idemfs.versions.state import ActiveView
from idemfs.vfs.contents import Contents
from idemfs.vfs.names import Names
from idemfs.vfs.reader import Reader, posix
from idemfs.vfs.received_reader import ReceivedReader
from idemfs.vfs.write_lease import WriteLease, granted_until_ns, lease_of

_PRIMARY = Role.PRIMARY
"""Looked up once: a member of an enum costs as much as a short function."""
RECLAIM_BLOCK_COUNT = 16384
"""Of a file, at most this many blocks are freed in one group."""
RECLAIM_RECORD_COUNT = 20 + 4 * (RECLAIM_BLOCK_COUNT // INDIRECT_ENTRY_COUNT + 1)
RECLAIM_BYTES = 20_000 * (RECLAIM_BLOCK_COUNT // INDIRECT_ENTRY_COUNT + 1)
"""What that changes: indirect blocks, and their shadows in the newest snapshot."""
RECORD_SIZE = 600
"""What an operation's records may take, but for content: names, back-references, shadows."""
_CLONE_RECORD_COUNT = 6
REMOVAL_SIZE = 2 * RECORD_SIZE + 20_000
"""The same for one that may remove a file at once: with one or two indirect blocks, and their shadows."""


class FilesetState:
    """What every operation needs. ``fileset`` and ``root`` are the root fileset's; others appear in it."""

    is_drill = False
    """Whether ``fileset`` is one of a drill, which is changed whatever the store's role is."""
    _orphan_key: Callable[[Ino], bytes] = staticmethod(keys.orphan)
    """Of the record that says that an inode without a name waits to be closed."""

    def __init__(self, store: Store, fileset: FilesetId = ROOT_FILESET) -> None:
        if isinstance(store.lent_by, FilesetState):
            # The same in all but name: what is cached of a store must be cached once.
            self.__dict__ = store.lent_by.__dict__
            return
        self.store = store
        self.fileset = fileset
        self.root = make_ino(fileset, ROOT_NUMBER)
        self.active = Active(store)
        origin.learn(self.active)
        self.contents = Contents(self.active)
        self.names = Names(self.active)
        self.reader = Reader(
            ActiveView(self.active),
            fileset,
            dirty=self.contents.waiting,
            dirty_numbers=self.contents.waiting_numbers,
            link_reader=self.link_reader,
            crosses=True,
        )
        self.contents.name_damage = self.reader.damaged
        self._received: tuple[int, ReceivedReader] | None = None
        """As of how many moves."""
        self._limited = store.catalog.limited
        self._junctions = store.catalog.junctions
        self._clones = store.catalog.clones
        self._open_counts: dict[Ino, int] = {}
        self._unnamed: set[Ino] = set()
        """Files that were made without a name, are open, and may be given one."""
        self.moves = 0
        """Grows when a directory is renamed, removed or restored, or the role is: paths may lead elsewhere then."""
        self._current: tuple[RoleRecord, float] | None = None
        """As a standby: in which role, and at what time of the clock, it had all that its primary had."""
        self.watchers: list[Callable[[], None]] = []
        """Called, without a lock, when another store has had it changed: what was shown of it before may be old."""
        self.write_lease: WriteLease | None = lease_of(store)
        """None: the role alone gives the right to write."""
        self.reload_role()
        self.granted_until_ns = granted_until_ns(store)
        """As a standby it does not take over before, since boot: somebody else may be writing."""
        self.is_taking_over = False
        """It grants no lease meanwhile."""
        if not store.readonly:
            self.recover()

    def recover(self) -> None:
        """What a crash or another primary left: interrupted deletions and restores, files unlinked while open."""
        bring_back.resume(self.active)
        restore_path.resume(self.active)
        delete.resume(self.active)
        drop.resume(self.active)
        promote.resume(self.active)
        refresh.resume(self.active)
        purge.resume(self.active)
        for key, _ in self.store.small.scan(*keys.prefix_range(b"O"), 1 << 30):
            ino = Ino(int.from_bytes(key[1:], "big"))
            if self._may_change(ino):
                self.reclaim(ino)
        if self.role.role is Role.PRIMARY:
            write.resume(self.active)
            if self.active.inode(self.root) is None and self._is_untouched():
                self.make_root()

    def _is_untouched(self) -> bool:
        return self.active.fileset(self.root).next_number == 1

    def make_root(self) -> None:
        """The root directory of a new fileset; a standby gets its primary's instead."""
        with self.store.lock:
            self.store.admit(2, RECORD_SIZE)
            fileset = self.active.fileset(self.root)
            ino = self.store.catalog.new_ino(fileset)
            assert ino == self.root
            now = self.store.clock.now_ns()
            node = new_inode(stat.S_IFDIR | 0o755, os.getuid(), os.getgid(), now)
            node.parent = ROOT_NUMBER
            self.active.insert_inode(ino, node)
            self.store.commit()

    # -- how far a standby is behind ------------------------------------------------------------------

    def note_current(self, age_seconds: float) -> None:
        """Its primary says that so many seconds ago this standby lacked nothing."""
        self._current = self.role, self.store.clock.monotonic_seconds() - max(0.0, age_seconds)

    def current_age(self) -> float | None:
        """How many seconds ago a standby lacked nothing; None: nobody has said so since this process opened it, or
        since its role, or its primary's, became another one."""
        noted = self._current
        if noted is None or noted[0] != self.role:
            return None
        return max(0.0, self.store.clock.monotonic_seconds() - noted[1])

    # -- roles and readers ---------------------------------------------------------------------------

    def reload_role(self) -> None:
        """Take over the role that the store's role record names."""
        self.role: RoleRecord = role.unpack(self.store.small.get(role.KEY))
        # As a standby the active file system may have become any other one.
        self.moves += 1
        if self.write_lease is not None and self.role.role is not _PRIMARY:
            # A later right to write begins with a lease of its own.
            self.write_lease.end()

    def _change(
        self,
        ino: Ino,
        records: int,
        size: int,
        *,
        frees: bool = False,
        grows: bool = False,
        data: int = 0,
        inodes: int = 0,
    ) -> None:
        """Called by every operation first, for an inode of the fileset that it changes.

        ``grows``: the fileset does, by so many bytes of ``data`` and new ``inodes`` beside the records. Then
        ``QuotaExceeded`` is raised too. Raises ``NotPrimary``, ``Fenced``, ``NoSpace``, ``CommitFailed``.
        """
        if self.role.role is not _PRIMARY:
            self.refuse_changing(fileset_of(ino))
        lease = self.write_lease
        if lease is not None and lease.is_over:
            self.refuse_changing(fileset_of(ino))
        if self._clones:
            # A file of a clone takes over its last block.
            records, size = records + _CLONE_RECORD_COUNT, size + RECORD_SIZE
        self.store.admit(records, size, frees=frees)
        if grows and self._limited and fileset_of(ino) in self._limited:
            fileset = self.store.catalog.filesets[fileset_of(ino)]
            if not quota.has_room(self.store, fileset, size + data, inodes):
                # What was estimated, and what was given up since, is known when the group is sealed.
                self.store.commit(wait=False)
                self.store.admit(records, size, frees=frees)
                quota.take_room(self.store, fileset, size + data)
        # Again, since admitting may have waited while the role was taken away, or a drill ended. From here on it
        # is accepted.
        if self.role.role is not _PRIMARY or lease is not None:
            self.refuse_changing(fileset_of(ino))

    def refuse_unless_primary(self) -> None:
        """Raises ``NotPrimary``, ``Fenced``, ``LeaseOver``, unless what this file system shows may be changed."""
        self.refuse_changing(self.fileset)

    def refuse_changing(self, fileset: FilesetId) -> None:
        """Raises ``NotPrimary``, ``Fenced``, ``LeaseOver``, unless the store may be written to, or the fileset is a
        drill's."""
        try:
            self._refuse_without_right()
        except (NotPrimary, Fenced):
            if not drills.is_drill(self.store, fileset):
                raise

    def _refuse_without_right(self) -> None:
        if self.role.role is Role.STANDBY:
            raise NotPrimary("this store is a standby: write to its primary, or 'idemfs failover' makes it one")
        if self.role.role is Role.FENCED:
            raise Fenced(
                f"epoch {self.role.seen_epoch} has ended this store's right to write; "
                "'idemfs failback' makes it a standby of the new primary; "
                "if a switchover was interrupted, the same 'idemfs switchover' goes on with it"
            )
        if self.write_lease is not None:
            self.write_lease.check()

    def _may_change(self, ino: Ino) -> bool:
        return self.role.role is _PRIMARY or drills.is_drill(self.store, fileset_of(ino))

    def snapshot_reader(self, snapshot: Snapshot) -> Reader:
        view = View(self.active, snapshot.id)
        return Reader(view, snapshot.fileset, snapshot=snapshot, link_reader=self.link_reader)

    def newest_reader(self) -> Reader:
        """What readers see: on a standby the snapshots that it received last, else the active file system."""
        if self.shows_active:
            return self.reader
        with self.store.lock:
            known, base = self._received, received.base(self.store, self.fileset)
            if known is None or known[0] != self.moves or known[1].snapshot is not base:
                reader = ReceivedReader(self.active, self.link_reader, self.fileset)
                self._received = known = self.moves, reader
        return known[1]

    @property
    def shows_active(self) -> bool:
        """Whether readers see the active state, and not what was received last."""
        return self.role.role is not Role.STANDBY or self.is_drill

    def newest_snapshot(self, fileset: FilesetId = ROOT_FILESET) -> Snapshot | None:
        """The newest complete snapshot; on a standby the one that it received last."""
        with self.store.lock:
            if self.role.role is Role.STANDBY:
                return received.base(self.store, fileset)
            return self.store.catalog.newest(fileset)

    def link_reader(self, fileset: FilesetId) -> Reader:
        """Where dynamic links of a fileset lead: to its newest snapshot, or without one, to what readers see."""
        newest = self.newest_snapshot(fileset)
        return self.newest_reader() if newest is None else self.snapshot_reader(newest)

    # -- orphans and open files ----------------------------------------------------------------------

    def _gone(self, ino: Ino) -> None:
        """The last link is gone: the inode goes too, or waits as an orphan until it is closed."""
        block_count = self._block_bound(ino)
        if ino in self._open_counts or block_count > INDIRECT_ENTRY_COUNT:
            self.store.small.put(self._orphan_key(ino), b"")
            if ino not in self._open_counts:
                self.reclaim(ino)
        else:
            self.contents.drop(ino)
            self.active.remove_inode(ino, block_count)

    def _block_bound(self, ino: Ino) -> int:
        node = self.active.inode(ino)
        return 0 if node is None or not node.is_file or node.is_inline else -(-node.size // self.store.block_size)

    def is_open(self, ino: Ino) -> bool:
        return ino in self._open_counts

    def reclaim(self, ino: Ino) -> None:
        """Free an orphan, a part at a time, from its end. Without room for that it stays until the next opening."""
        with self.store.lock, suppress(NoSpace):
            while True:
                self.store.admit(RECLAIM_RECORD_COUNT, RECLAIM_BYTES, frees=True)
                node = self.active.inode(ino)
                if node is None:
                    break
                self.contents.drop(ino)
                bound = self._block_bound(ino)
                if bound <= RECLAIM_BLOCK_COUNT:
                    self.active.remove_inode(ino)
                    break
                node = self.active.change_inode(ino)
                if self._clones:
                    with suppress(DamagedBlock):
                        origin.own_tail(self.active, ino, node, frees=True)
                size = (bound - RECLAIM_BLOCK_COUNT) * self.store.block_size
                self.contents.truncate(ino, node, size)
            self.store.small.put(self._orphan_key(ino), None)

    def open(self, ino: Ino) -> None:
        """Somebody uses the inode: unlinked, it stays until the last ``release``."""
        with self.store.lock:
            self.reader.inode(ino)
            self._open_counts[ino] = self._open_counts.get(ino, 0) + 1

    def release(self, ino: Ino) -> None:
        with self.store.lock:
            count = self._open_counts[ino] - 1
            if count:
                self._open_counts[ino] = count
                return
            del self._open_counts[ino]
            self._unnamed.discard(ino)
            node = self.active.inode(ino)
            if node is not None and not node.nlink and self._may_change(ino) and not self.store.readonly:
                self.reclaim(ino)

    def sync(self) -> None:
        """Everything that was changed before is durable on return."""
        self.store.commit()

    def statfs(self, ino: Ino | None = None) -> os.statvfs_result:
        """The host's free space, seen through the store, and through the quota of the fileset that ``ino`` is in."""
        with self.store.lock:
            free = self.store.space.free_sectors() + self.store.blocks.free_bytes() // SECTOR_SIZE
            used = self.store.space.sector_count - self.store.space.free_sectors()
            fileset = self.store.catalog.filesets.get(self.fileset if ino is None else fileset_of(ino))
            if fileset is None:
                raise posix(errno.ENOENT, "the fileset was deleted")
            inode_count = fileset.inode_count
            total, inodes_free = used + free, 1 << 40
            if fileset.quota_inodes:
                inodes_free = max(0, fileset.quota_inodes - inode_count)
            if fileset.quota_bytes:
                total = fileset.quota_bytes // SECTOR_SIZE
                left = fileset.quota_bytes - usage.used_bytes(self.store, fileset)
                free = max(0, min(free, left // SECTOR_SIZE))
        return os.statvfs_result(
            (
                self.store.block_size,
                SECTOR_SIZE,
                total,
                free,
                free,
                inode_count + inodes_free,
                inodes_free,
                inodes_free,
                0,
                255,
            )
        )


def new_inode(mode: int, uid: int, gid: int, now: int, rdev: int = 0, data: bytes = b"") -> Inode:
    kind = mode & 0o170000
    # Not by its constructor: that many named arguments cost as much as the rest of creating a file's inode.
    node = Inode.__new__(Inode)
    node.birth = node.seen = NO_SNAPSHOT
    node.sectors = 0
    node.mode = mode
    node.uid = uid
    node.gid = gid
    node.nlink = 2 if kind == 0o040000 else 1
    node.rdev = rdev
    node.size = len(data)
    node.atime = node.mtime = node.ctime = node.btime = now
    node.flags = INLINE if kind == 0o100000 else 0
    node.parent = ROOT_NUMBER
    node.name = b""
    node.data = data
    return node
