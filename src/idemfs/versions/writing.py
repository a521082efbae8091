"""The records of one snapshot that is written to: a second door, with the methods of ``Active``.

Before a record of the snapshot changes, the next older one is *insulated*: it gets what it saw through this one
as its own version, if it has none. Newer ones and the active state look for versions from themselves on, so they
see nothing of what happens here.

Invariant: digest and counts of the snapshot are exact when ``flush`` returns, and each flush gives it a new guid:
whoever holds what it was holds another snapshot.

Threads: under the store's lock. An operation ends with ``flush``; a seal in the middle of one flushes, too.
"""

from __future__ import annotations

from idemfs.format import digest, keys
from idemfs.format.address import sector_count_of
from idemfs.format.inode import ABSENT, Inode
from idemfs.format.tables import Snapshot
from idemfs.ids import NO_SNAPSHOT, Guid, Ino
from idemfs.limits import SCAN_COUNT, SECTOR_SIZE
from idemfs.store.active_records import ActiveRecords
from idemfs.versions.active import Active
from idemfs.versions.resolve import View
from idemfs.versions.writing_blocks import BlockWriting

_NO_BLOCK = 1 << 62


class Writing(BlockWriting):
    """What ``snapshot`` sees, to be changed. ``close`` it; one at a time for a snapshot."""

    def __init__(self, active: Active, snapshot: Snapshot) -> None:
        super().__init__(active, snapshot)
        self.records = _Seen(self)
        self._delta = 0
        self._is_changed = False
        self.may_ditto = False
        """Whether every snapshot that hands something down to this one sees the inode that is being changed."""
        self.renews_guid = True
        """Unless whoever writes has given the snapshot a new one before."""
        self.store.before_seal.insert(0, self.flush)

    def close(self) -> None:
        self.flush()
        self.store.before_seal.remove(self.flush)

    def touch_atime(self, ino: Ino, atime: int) -> None:
        """Snapshots note no access times."""

    def insert_inode(self, ino: Ino, node: Inode, *, is_new: bool = False) -> None:
        """An inode that the snapshot does not see. Unless ``is_new``, newer ones may."""
        self.begin()
        self.insulating.record(keys.inode(ino))
        older = self.insulating.older()
        node.birth = older.id if older else NO_SNAPSHOT
        if not is_new:
            if older is not None and self.shadows.is_seen(ino, self.snapshot.id):
                node.birth = min(node.birth, self.shadows.birth(ino))
            self.insulating.note_seen(ino, node.birth)
            # Records of an inode that is not seen count for nothing; now they do.
            seen = self.view.records(*keys.ino_range(ino))
            self._delta += sum(digest.contribution(key, value) for key, value in seen)
        node.seen = self.insulating.seen(node.birth)
        self._before.setdefault(ino, None)
        self._nodes[ino] = node
        self.snapshot.inode_count += 1
        self.store.catalog.changed_fileset(self.snapshot.fileset)

    def remove_inode(self, ino: Ino, block_count: int = _NO_BLOCK) -> None:
        node = self.change_inode(ino)
        self.drop_blocks(ino, node, 0, block_count)
        self._delete_records(node, *keys.kind_range(ino, keys.ENTRY))
        self._delete_records(node, keys.kind_range(ino, keys.LINK)[0], keys.kind_range(ino, keys.XATTR)[1])
        self._nodes[ino] = None
        self._put_version(keys.inode(ino), None)
        self.snapshot.inode_count -= 1
        older = self.insulating.older()
        if older is None or not self.insulating.is_known(ino, older):
            self._drop_holes(ino)

    def _drop_holes(self, ino: Ino) -> None:
        """What the snapshot owns of the blocks of a file that neither it nor an older one sees: holes."""
        start, end = keys.kind_range(ino, keys.BLOCK)
        prefix = keys.owned(self.snapshot.id, b"")
        while pairs := self.store.owned.scan(prefix + start, prefix + end, SCAN_COUNT):
            for key, _ in pairs:
                self._release_map(key[8:])

    def _release_map(self, key: bytes) -> None:
        ino, index = keys.ino_of(key), keys.index_of(key)
        self.touch(ino, index)
        block = self.insulating.owned_map(ino, index, self.snapshot)
        for address, _ in block.entries.values():
            self.store.free(address)
            self.snapshot.data_bytes -= sector_count_of(address) * SECTOR_SIZE
        self.shadows.drop(key, self.snapshot)
        self.resolved.pop(ino, None)

    def add_record(self, key: bytes, value: bytes, node: Inode) -> None:
        self.put_record(key, value, node)

    def put_record(self, key: bytes, value: bytes, node: Inode) -> None:
        self._change_record(key, value)

    def delete_record(self, key: bytes, node: Inode) -> None:
        self._change_record(key, None)

    def _change_record(self, key: bytes, value: bytes | None) -> None:
        old = self.view.version(key)
        if old == value:
            return
        self.insulating.record(key)
        self._put_version(key, value)
        self._delta += digest.contribution(key, value) if value is not None else 0
        self._delta -= digest.contribution(key, old) if old is not None else 0
        self._is_changed = True

    def own_record(self, key: bytes) -> None:
        """Let the snapshot own a record that it sees through a ditto."""
        value = self.view.version(key)
        if value is not None and self.store.shadow.get(keys.shadow(key, self.snapshot.id)) is None:
            self.insulating.record(key)
            self.shadows.put(key, self.snapshot, value)
            self._is_changed = True

    def _put_version(self, key: bytes, value: bytes | None) -> None:
        """Let the snapshot see ``value``: through a ditto, if newer ones have that and would hand it down.

        That a record is absent, all hand down that are older than the one that says so.
        """
        if (value is None or self.may_ditto) and self.newer.version(key) == value:
            self.shadows.drop(key, self.snapshot)
        else:
            self.shadows.put(key, self.snapshot, ABSENT if value is None else value)

    def flush(self) -> None:
        """Write what was changed into the open group."""
        if not self._nodes and not self._is_changed:
            return
        self.shadows.flush()
        delta = self._delta
        for (ino, index), before in self._parts.items():
            node = self._nodes.get(ino)
            delta += (0 if node is None else self.part(ino, node, index)) - before
        for ino, node in self._nodes.items():
            key, old = keys.inode(ino), self._before[ino]
            delta -= 0 if old is None else digest.contribution(key, old)
            if node is not None:
                value = node.pack()
                delta += digest.contribution(key, value)
                self.shadows.put(key, self.snapshot, value)
        self.snapshot.digest = (self.snapshot.digest + delta) & digest.MASK
        if self.renews_guid:
            self.snapshot.guid = Guid(self.store.clock.random_bytes(16))
        self.store.catalog.changed(self.snapshot)
        self._active.rewritten_count += 1
        self._forget()

    def _forget(self) -> None:
        self._nodes.clear()
        self._before.clear()
        self._parts.clear()
        self.insulating.forget()
        self._delta = 0
        self._is_changed = False


class _Seen(ActiveRecords):
    """The records that the snapshot sees, to be read; they are changed by ``Writing``."""

    __slots__ = ("_writing",)

    def __init__(self, writing: Writing) -> None:
        self._writing = writing

    def get(self, key: bytes) -> bytes | None:
        return self._writing.view.version(key)

    def scan(self, start: bytes, end: bytes, limit: int, reverse: bool = False) -> list[tuple[bytes, bytes]]:
        assert not reverse
        found: list[tuple[bytes, bytes]] = []
        at: bytes | None = start
        while at is not None and len(found) < limit:
            page, at = self._writing.view.page(at, end, limit)
            found += page
        return found[:limit]


class WritingView(View):
    """What the snapshot sees, also in the middle of an operation."""

    def __init__(self, writing: Writing) -> None:
        super().__init__(writing.view.active, writing.snapshot.id)
        self._writing = writing

    def inode(self, ino: Ino) -> Inode | None:
        return self._writing.inode(ino)
