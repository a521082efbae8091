"""Send: the difference of two snapshots as a stream.

Threads: the store's lock is held while a group of records is looked up, never while bytes are written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from idemfs.errors import StreamRefused
from idemfs.format.role import FROZEN, Role
from idemfs.format.tables import Snapshot
from idemfs.ids import Guid
from idemfs.replication.codec import Encoder, Header, Point
from idemfs.replication.describe import describe
from idemfs.replication.difference import difference
from idemfs.replication.records import START, Cursor
from idemfs.snapshots import drills, lines
from idemfs.snapshots.clones import is_origin
from idemfs.vfs.tree import Tree


class Sent(NamedTuple):
    """``bytes`` on the wire, ``records``, and the bytes of changed blocks among them, before compression."""

    bytes: int
    records: int
    block_bytes: int


class Frames:
    """The frames of one stream, made as they are asked for; ``sent`` says what they amount to so far."""

    def __init__(
        self,
        tree: Tree,
        base: Snapshot | None,
        target: Snapshot,
        *,
        after: Cursor | None = None,
        compress: bool = False,
    ) -> None:
        """Raises ``StreamRefused`` for what is of a drill, and for a base that is neither older than the target nor
        the origin of its clone."""
        drill = drills.name_of(tree.store, target.fileset)
        if drill is not None:
            raise StreamRefused(f"snapshot {target.name} is of drill {drill!r}, of which nothing is sent")
        if base is not None and base.id >= target.id:
            raise StreamRefused(f"snapshot {base.name} is not older than {target.name}: name an older one as base")
        if base is not None and base.fileset != target.fileset and not is_origin(tree.store, base, target.fileset):
            raise StreamRefused(f"snapshot {base.name} is not older than {target.name}: name an older one as base")
        self._tree = tree
        self._ends = base, target
        self._after = after
        self.header = make_header(tree, base, target, after)
        self._encoder = Encoder(self.header, compress)
        self._size = 0

    @property
    def sent(self) -> Sent:
        return Sent(self._size, self._encoder.records, self._encoder.block_bytes)

    def __iter__(self) -> Iterator[bytes]:
        for frame in self._frames():
            self._size += len(frame)
            yield frame

    def _frames(self) -> Iterator[bytes]:
        yield self._encoder.start()
        for group in difference(self._tree, *self._ends, self._after):
            for change in group.changes:
                frame = self._encoder.add(change)
                if frame:
                    yield frame
        # crash: whoever receives the end has the target, so it must not be one that this store may lose.
        self._tree.store.wait_durable()
        yield self._encoder.finish()


def make_header(tree: Tree, base: Snapshot | None, target: Snapshot, after: Cursor | None = None) -> Header:
    store = tree.store
    fileset = store.catalog.filesets[target.fileset]
    return Header(
        fileset=fileset.guid,
        source=store.superblock.guid,
        block_size=store.block_size,
        inline_size=store.superblock.inline_size,
        entry_count=store.superblock.entry_count,
        epoch=_epoch(tree, target),
        next_number=fileset.next_number,
        target=_point(target),
        inode_count=target.inode_count,
        created_ns=target.created_ns,
        name=target.name,
        base=None if base is None else _point(base),
        after=after or START,
        description=describe(tree, fileset, target, base),
    )


def _epoch(tree: Tree, target: Snapshot) -> int:
    """The one whose right to write this is sent by; of a fileset of another line, that of the line."""
    line = lines.line_of(tree.store, target.fileset)
    return epoch_of(tree) if line is None else line.seen_epoch


def epoch_of(tree: Tree) -> int:
    """The one whose right to write the store's own line is sent by."""
    role = tree.role
    if role.role is Role.STANDBY:
        # What it passes on was written in the epoch that it follows.
        return role.seen_epoch
    if role.role is Role.FENCED and tree.store.small.get(FROZEN) is not None:
        # It gave its right up for a peer, and to it alone it sends, until that one's epoch begins: also to one that has
        # heard of an epoch in which somebody had begun to take over, and has not.
        return max(role.epoch, role.seen_epoch - 1)
    return role.epoch


def _point(snapshot: Snapshot) -> Point:
    return Point(Guid(snapshot.guid), snapshot.digest)


def send(
    tree: Tree,
    base: Snapshot | None,
    target: Snapshot,
    write: Callable[[bytes], object],
    *,
    after: Cursor | None = None,
    compress: bool = False,
    progress: Callable[[int], object] | None = None,
) -> Sent:
    """Write what makes a store with ``base`` (None: an empty one) one with ``target``.

    ``after``: where a receiver that has a part of it goes on. ``progress`` is told the bytes so far.
    Raises ``StreamRefused``, ``SnapshotMissing``, ``DamagedBlock``, and what ``write`` raises.
    """
    frames = Frames(tree, base, target, after=after, compress=compress)
    for frame in frames:
        write(frame)
        if progress is not None:
            progress(frames.sent.bytes)
    return frames.sent
