"""Change records into the active file system of a standby.

All goes through the same door as a user's changes, so the newest snapshot keeps what it sees, and readers of
the standby, which read snapshots, notice nothing. What a record says is checked as far as the store could
come to harm by it; that everything together is right is what the digest tells at the end.

Invariant: after each step the receiving record says what is applied. A step that was cut short is done again.

Threads: one receiver; the store's lock is held for one step, some hundred records or a few MiB.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from itertools import islice
from typing import NamedTuple

from idemfs.errors import Damaged, DamagedBlock, NotStandby, StreamDamaged, StreamRefused
from idemfs.format import inode as inodes
from idemfs.format import keys
from idemfs.format.address import HOLE
from idemfs.format.inode import DYNAMIC, INLINE, Inode
from idemfs.format.role import Role
from idemfs.ids import NO_SNAPSHOT, ROOT_FILESET, FilesetId, Ino, Number, SnapshotId, make_ino, number_of
from idemfs.limits import FILE_SIZE_MAX, INDIRECT_ENTRY_COUNT, NAME_SIZE_MAX, SCAN_COUNT, SYMLINK_SIZE_MAX
from idemfs.replication import partial
from idemfs.replication.codec import Header
from idemfs.replication.partial import Partial
from idemfs.replication.records import (
    BlockChange,
    Change,
    EntryChange,
    InodeChange,
    InodeRemoved,
    LinkChange,
    XattrChange,
)
from idemfs.snapshots.bring_back import trim_tail
from idemfs.versions.origin import own_tail
from idemfs.versions.resolve import View
from idemfs.versions.state import tail_size
from idemfs.vfs.tree import Tree

OVERTAKEN = "another change set came in, or this one was dropped; send it again"
_STEP_RECORD_COUNT = 256
_STEP_BYTES = 4 << 20
_XATTR_STEP_COUNT = 32
_LIGHT_COUNT = 64
"""An inode with more blocks or records than this to lose loses them in steps of their own, before its record."""
_MAP_BYTES = 20_000
"""An indirect block and its shadow."""
_RECORD_BYTES = 1000
"""A record, its shadow, and their keys, without content."""
_NO_BLOCK = 1 << 62
_EMPTYING_COUNT = 64
"""Inodes that are looked up at once."""


class Losses(NamedTuple):
    """An inode, the first block that goes, and whether everything else of it goes, too."""

    ino: Ino
    first: int
    is_removed: bool


class Applier:
    """Applies the records of one stream, from where ``progress`` says."""

    def __init__(self, tree: Tree, header: Header, progress: Partial, fileset: FilesetId = ROOT_FILESET) -> None:
        self._tree = tree
        self._store = tree.store
        self._active = tree.active
        self._fileset = tree.store.catalog.filesets[fileset]
        self._header = header
        self._resume = progress.cursor
        self._progress = progress
        self._last_number = 0
        self._kept: tuple[Ino, SnapshotId, int] | None = None

    def apply(self, changes: list[Change]) -> None:
        """Apply the records that were not applied before. Raises ``StreamDamaged``, ``StreamRefused``, ``NoSpace``."""
        for step in self._steps(changes):
            for losses in self._heavy(step):
                lose(self._tree, losses, self._check_alone)
            with self._store.lock:
                self._store.admit(*self._weight(step))
                self._check_alone()
                for change in step:
                    self._apply(change)
                self._progress = self._progress._replace(cursor=self._progress.cursor.after_all(step))
                partial.put(self._store, self._progress, self._fileset.number)

    def _check_alone(self) -> None:
        if self._tree.role.role is not Role.STANDBY:
            raise NotStandby("this store is no standby any more: what came of the change set is not used")
        if partial.get(self._store, self._fileset.number) != self._progress:
            raise StreamRefused(OVERTAKEN)

    def _steps(self, changes: list[Change]) -> Iterator[list[Change]]:
        step: list[Change] = []
        size = 0
        for change in changes:
            if change.number < self._last_number or change.number >= self._header.next_number:
                raise StreamDamaged(f"the stream is damaged: inode number {change.number} does not belong there")
            self._last_number = change.number
            if self._resume.is_past(change):
                continue
            step.append(change)
            size += _size(change)
            if size >= _STEP_BYTES or len(step) >= _STEP_RECORD_COUNT:
                yield step
                step, size = [], 0
        if step:
            yield step

    # -- room ----------------------------------------------------------------------------------------

    def _weight(self, step: list[Change]) -> tuple[int, int]:
        """How many records a step changes at most, and their bytes."""
        records, size = 2, partial.RECORD_SIZE_MAX
        maps = set()
        for change in step:
            records += 6
            size += _RECORD_BYTES
            match change:
                case BlockChange(number=number, block=block):
                    maps.add((number, block // INDIRECT_ENTRY_COUNT))
                case InodeChange() | InodeRemoved():
                    size += 2 * _size(change)
                    losses = self._losses(change)
                    if losses is not None:
                        lost, lost_bytes = _weigh(self._tree, losses)
                        records += 3 * lost
                        size += 2 * lost_bytes
                case XattrChange(number=number, name=name):
                    old = self._store.active.get(keys.xattr(make_ino(self._fileset.number, number), name))
                    size += 2 * len(old or b"") + _size(change)
        return records + 2 * len(maps), size + _MAP_BYTES * len(maps)

    def _heavy(self, step: list[Change]) -> list[Losses]:
        """Of the inodes that lose something in a step, those that lose much: they do so in steps of their own."""
        found = []
        with self._store.lock:
            for change in step:
                losses = self._losses(change) if isinstance(change, InodeChange | InodeRemoved) else None
                if losses is not None and _is_heavy(*_weigh(self._tree, losses)):
                    found.append(losses)
        return found

    def _losses(self, change: InodeChange | InodeRemoved) -> Losses | None:
        """What an inode that is there loses."""
        if change.number >= self._fileset.next_number:
            return None
        ino = make_ino(self._fileset.number, change.number)
        before = self._active.inode(ino)
        if before is None:
            return None
        if isinstance(change, InodeRemoved):
            return Losses(ino, 0, True)
        if not _has_blocks(before):
            return None
        return Losses(ino, _block_count(self._tree, self._unpack(change)), False)

    # -- one record ----------------------------------------------------------------------------------

    def _apply(self, change: Change) -> None:
        ino = make_ino(self._fileset.number, change.number)
        match change:
            case BlockChange():
                self._apply_block(ino, change)
            case InodeChange():
                self._apply_inode(ino, change)
            case InodeRemoved():
                if self._active.inode(ino) is not None:
                    self._active.remove_inode(ino)
                self._set_orphan(ino, False)
            case EntryChange(name=name, value=value):
                self._apply_record(ino, keys.entry(ino, name), value)
            case XattrChange(name=name, value=value):
                self._apply_record(ino, keys.xattr(ino, name), None if value is None else keys.PRESENT + value)
            case LinkChange(parent=parent, name=name, is_present=is_present):
                self._apply_record(ino, keys.link(ino, parent, name), keys.PRESENT if is_present else None)

    def _apply_record(self, ino: Ino, key: bytes, value: bytes | None) -> None:
        node = self._existing(ino)
        if value is None:
            self._active.delete_record(key, node)
        else:
            self._active.put_record(key, value, node)

    def _apply_inode(self, ino: Ino, change: InodeChange) -> None:
        wanted = self._unpack(change)
        is_new = change.number >= self._fileset.next_number
        node = None if is_new else self._active.inode(ino)
        if node is None:
            self._active.insert_inode(ino, wanted, is_new=is_new)
            # Greater than every number in use, also while the change set is incomplete.
            self._fileset.next_number = max(self._fileset.next_number, change.number + 1)
        else:
            node = self._existing(ino)
            had_blocks = _has_blocks(node)
            for field in inodes.PORTABLE_FIELDS:
                setattr(node, field, getattr(wanted, field))
            if had_blocks:
                self._active.drop_blocks(ino, node, _block_count(self._tree, node))
                if self._fileset.origin is not None and _has_blocks(node):
                    # Else taking over the last block, now a shorter one, would not tell snapshots what they see of it.
                    trim_tail(self._active, ino, node, node, frees=False)
        self._set_orphan(ino, wanted.nlink == 0)

    def _apply_block(self, ino: Ino, change: BlockChange) -> None:
        node = self._existing(ino)
        inside = tail_size(node.size, change.block, self._store.block_size)
        if not _has_blocks(node) or not inside or len(change.payload) > inside:
            raise StreamDamaged(f"the stream is damaged: block {change.block} lies outside of inode {change.number}")
        start = self._change_start(ino, change)
        address, checksum = self._store.data.write(change.payload)
        if checksum != change.checksum:
            self._store.free(address)
            raise StreamDamaged(
                f"the stream is damaged in block {change.block} of inode {change.number}: send it again"
            )
        self._active.set_block(ino, node, change.block, address, checksum, start)

    def _change_start(self, ino: Ino, change: BlockChange) -> int:
        """The first byte that a block changes, told apart only for an append in the tail block that the newest
        snapshot sees: it needs no copy of that block, as it needs none on the primary."""
        block_size = self._store.block_size
        start = change.block * block_size
        kept = self._kept_size(ino) - start
        if not 0 < kept < block_size:
            return start
        old = self._store.data.read(*self._active.block(ino, change.block))[:kept]
        return start + kept if old.rstrip(b"\0") == bytes(change.payload[:kept]).rstrip(b"\0") else start

    def _kept_size(self, ino: Ino) -> int:
        """Bytes in blocks that the newest snapshot sees of a file."""
        newest = self._fileset.newest
        if self._kept is None or self._kept[:2] != (ino, newest):
            node = View(self._active, newest).inode(ino) if newest else None
            self._kept = ino, newest, node.size if node is not None and _has_blocks(node) else 0
        return self._kept[2]

    def _existing(self, ino: Ino) -> Inode:
        """To be changed now."""
        if self._active.inode(ino) is None:
            raise StreamDamaged(f"the stream is damaged: it changes inode {number_of(ino)}, which is not there")
        node = self._active.change_inode(ino)
        try:
            own_tail(self._active, ino, node)
        except DamagedBlock as damaged:
            raise StreamRefused(
                f"inode {number_of(ino)} of the snapshot that the clone was made from is damaged here "
                f"({damaged.strerror}): run 'idemfs check'"
            ) from damaged
        return node

    def _set_orphan(self, ino: Ino, is_orphan: bool) -> None:
        """A file that was open and unlinked on the primary is reclaimed by whoever becomes primary."""
        key = keys.orphan(ino)
        if is_orphan:
            self._store.small.put(key, b"")
        elif self._store.small.get(key) is not None:
            self._store.small.put(key, None)

    def _unpack(self, change: InodeChange) -> Inode:
        try:
            node = inodes.with_local(change.portable, birth=NO_SNAPSHOT, seen=NO_SNAPSHOT, atime=0, sectors=0)
        except Damaged as bad:
            raise StreamDamaged(f"the stream is damaged: inode {change.number} cannot be read") from bad
        node.atime = node.mtime
        data_size_max = max(self._header.inline_size, SYMLINK_SIZE_MAX)
        if (
            node.size > FILE_SIZE_MAX
            or len(node.data) > data_size_max
            or len(node.name) > NAME_SIZE_MAX
            or node.flags & ~(INLINE | DYNAMIC)
            or (node.is_inline and not node.is_file)
            or (node.is_file and len(node.data) != (node.size if node.is_inline else 0))
        ):
            raise StreamDamaged(f"the stream is damaged: inode {change.number} makes no sense")
        if node.is_dynamic:
            _check_dynamic(node, change.number)
        return node


def _check_dynamic(node: Inode, number: Number) -> None:
    try:
        inodes.named_by(node, number)
    except Damaged as bad:
        raise StreamDamaged(f"the stream is damaged: inode {number}: {bad}") from bad
    if not stat.S_ISLNK(node.mode) or node.nlink > 1:
        raise StreamDamaged(f"the stream is damaged: inode {number} cannot be a dynamic link")


def _weigh(tree: Tree, losses: Losses) -> tuple[int, int]:
    """Records and bytes that go; what is heavy is not counted to its end."""
    ino, first, is_removed = losses
    node = tree.active.inode(ino)
    if node is None:
        return 0, 0
    blocks: list[int] = []
    if _has_blocks(node):
        blocks = list(islice(tree.active.real_blocks(ino, first, _NO_BLOCK), _LIGHT_COUNT + 1))
    count = len(blocks)
    size = len(node.data) + _MAP_BYTES * len({number // INDIRECT_ENTRY_COUNT for number in blocks})
    if is_removed:
        for kinds in ((keys.ENTRY, keys.ENTRY), (keys.LINK, keys.XATTR)):
            start, end = keys.kind_range(ino, kinds[0])[0], keys.kind_range(ino, kinds[1])[1]
            pairs = tree.store.active.scan(start, end, _LIGHT_COUNT + 1)
            count += len(pairs)
            size += sum(_RECORD_BYTES + len(value) for _, value in pairs)
    return count, size


def _is_heavy(count: int, size: int) -> bool:
    return count > _LIGHT_COUNT or size > _STEP_BYTES


def _block_count(tree: Tree, node: Inode) -> int:
    return -(-node.size // tree.store.block_size) if _has_blocks(node) else 0


def lose(tree: Tree, losses: Losses, check: Callable[[], None]) -> None:
    """Take from an inode what it loses, in steps. ``check`` is called at the start of each."""
    active, store = tree.active, tree.store
    ino, first, is_removed = losses
    while True:
        with store.lock:
            store.admit(4 * _STEP_RECORD_COUNT, _STEP_RECORD_COUNT * _MAP_BYTES)
            check()
            if active.inode(ino) is None:
                return
            numbers = list(islice(active.real_blocks(ino, first, _NO_BLOCK), _STEP_RECORD_COUNT))
            if numbers:
                node = active.change_inode(ino)
                for number in numbers:
                    active.set_block(ino, node, number, HOLE, 0, number * store.block_size)
                first = numbers[-1] + 1
            elif not is_removed or not _lose_records(tree, ino):
                return


def _lose_records(tree: Tree, ino: Ino) -> bool:
    """Whether there were any."""
    for kind in (keys.ENTRY, keys.LINK, keys.XATTR):
        limit = _XATTR_STEP_COUNT if kind == keys.XATTR else _STEP_RECORD_COUNT
        pairs = tree.store.active.scan(*keys.kind_range(ino, kind), limit)
        if pairs:
            node = tree.active.change_inode(ino)
            for key, _ in pairs:
                tree.active.delete_record(key, node)
            return True
    return False


def empty(tree: Tree, number: FilesetId) -> None:
    """The active state of a fileset holds nothing; its newest snapshot keeps what it sees. May be repeated."""
    store, active = tree.store, tree.active
    while True:
        with store.lock:
            # The tables alone tell which inodes there are.
            active.settle()
            found = _inodes(tree, number)
        if not found:
            break
        for ino in found:
            lose(tree, Losses(ino, 0, True), lambda: None)
            with store.lock:
                store.admit(16, 20_000)
                if active.inode(ino) is not None:
                    active.remove_inode(ino)
    with store.lock:
        for key, _ in store.small.scan(*keys.orphan_range(number), SCAN_COUNT):
            store.admit(1, 100)
            store.small.put(key, None)


def _inodes(tree: Tree, number: FilesetId) -> list[Ino]:
    """Some of those that there are, once each."""
    start, end = keys.fileset_range(number)
    found: list[Ino] = []
    while len(found) < _EMPTYING_COUNT and (pairs := tree.store.active.scan(start, end, 1)):
        ino = keys.ino_of(pairs[0][0])
        found.append(ino)
        start = (ino + 1).to_bytes(8, "big")
    return found


def _has_blocks(node: Inode) -> bool:
    return node.is_file and not node.is_inline


def _size(change: Change) -> int:
    """Bytes of content."""
    match change:
        case BlockChange(payload=payload):
            return len(payload)
        case InodeChange(portable=portable):
            return len(portable)
        case XattrChange(value=value):
            return len(value or b"")
    return 0
