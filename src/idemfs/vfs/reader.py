"""Reading by inode number, from the active file system or from a snapshot, with the same methods.

Threads: each call takes the store's lock. ``OSError`` with the errno of POSIX; a
snapshot that was deleted meanwhile answers ``ESTALE``.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator

from idemfs.errors import DamagedBlock
from idemfs.format import address as addresses
from idemfs.format import inode as inodes
from idemfs.format import keys
from idemfs.format.address import HOLE
from idemfs.format.inode import Inode
from idemfs.format.tables import Snapshot
from idemfs.ids import Address, FilesetId, Ino, fileset_of, make_ino, number_of
from idemfs.limits import (
    INDIRECT_ENTRY_COUNT,
    SECTOR_SIZE,
    SYMLINK_SIZE_MAX,
    XATTR_NAME_SIZE_MAX,
)
from idemfs.versions.state import Records, tail_size
from idemfs.vfs.name_reader import NameReader, posix

__all__ = ["LATEST_PATH", "DirtyBlock", "Reader", "posix"]

DirtyBlock = Callable[[Ino, int], bytes | bytearray | None]
"""Content of a block that is changed and not written yet, or None."""
LATEST_PATH = b".snapshots/latest"
"""Where a mount shows the newest snapshot, from its root and from the root of each snapshot."""


class Reader(NameReader):
    """``dirty`` and ``dirty_numbers`` know the active file system's unwritten blocks, ``link_reader`` the state that
    dynamic links of a fileset lead to."""

    def __init__(
        self,
        view: Records,
        fileset: FilesetId,
        *,
        snapshot: Snapshot | None = None,
        dirty: DirtyBlock | None = None,
        dirty_numbers: Callable[[Ino], list[int]] | None = None,
        link_reader: Callable[[FilesetId], Reader],
        crosses: bool = False,
    ) -> None:
        super().__init__(view, fileset, snapshot=snapshot, crosses=crosses)
        self._dirty = dirty
        self._dirty_numbers = dirty_numbers
        self._link_reader = link_reader

    def snapshot_of(self, ino: Ino) -> Snapshot | None:
        """The snapshot that shows this inode; None: the active file system does."""
        return self.snapshot

    def readlink(self, ino: Ino) -> bytes:
        """The target of a symlink; of a dynamic link, a path in a mount from where it stands to where it leads now."""
        with self.store.lock:
            node = self.inode(ino)
            if node.mode & 0o170000 != 0o120000:
                raise posix(errno.EINVAL)
            if not node.is_dynamic:
                return node.data
            target = self._dynamic_target(ino, node)
            if len(target) > SYMLINK_SIZE_MAX:
                raise posix(errno.ENAMETOOLONG, "the file that the dynamic link names lies too deep")
            return target

    def shown_size(self, ino: Ino, node: Inode) -> int:
        """What ``st_size`` tells: of a symlink the length of its target."""
        if not node.is_dynamic:
            return node.size
        with self.store.lock:
            return len(self._dynamic_target(ino, node))

    def follow(self, ino: Ino, link: Inode) -> tuple[Reader, Ino]:
        """Where dynamic link ``ino`` leads now. Raises ``OSError`` (ENOENT): the newest snapshot has no such file."""
        with self.store.lock:
            reader = self._link_reader(fileset_of(ino))
            named = make_ino(fileset_of(ino), inodes.named_by(link, number_of(ino)))
            node = reader.view.inode(named)
            if node is None or not node.nlink:
                # Without a name, as one that was open when it was removed, no path leads to it either.
                raise posix(errno.ENOENT, f"{reader.what()} has no inode {number_of(named)}")
            return reader, named

    def _dynamic_target(self, ino: Ino, link: Inode) -> bytes:
        up = self.path_inside(ino).count(b"/") - 1
        try:
            reader, named = self.follow(ino, link)
        except FileNotFoundError:
            # No snapshot has an @ in its name, so nothing is there, whatever is made.
            number = inodes.named_by(link, number_of(ino))
            newest = self._link_reader(fileset_of(ino)).snapshot
            where = b"" if newest is None else b"-in-" + newest.name.encode()
            return b"../" * up + b".snapshots/@no-inode-%d" % number + where
        there = reader.path_inside(named).strip(b"/")
        parts = [there] if reader.snapshot is None else [LATEST_PATH, there]
        return (b"../" * up + b"/".join(part for part in parts if part)).rstrip(b"/") or b"."

    def xattr(self, ino: Ino, name: bytes) -> bytes:
        """Raises ``OSError`` (ENODATA, ERANGE)."""
        with self.store.lock:
            self.inode(ino)
            if len(name) > XATTR_NAME_SIZE_MAX:
                raise posix(errno.ERANGE)
            value = self.view.version(keys.xattr(ino, name))
            if value is None:
                raise posix(errno.ENODATA)
            return value[1:]

    def xattr_names(self, ino: Ino) -> list[bytes]:
        with self.store.lock:
            self.inode(ino)
            pairs = self.view.records(*keys.kind_range(ino, keys.XATTR))
            return [key[keys.NAME_AT :] for key, _ in pairs]

    def read(self, ino: Ino, offset: int, size: int) -> bytes:
        """Up to ``size`` bytes from ``offset``; fewer at the end of the file. Raises ``DamagedBlock``."""
        with self.store.lock:
            node = self.inode(ino)
            if not node.is_file:
                raise posix(errno.EISDIR if node.is_dir else errno.EINVAL)
            size = min(size, node.size - offset)
            if size <= 0:
                return b""
            if node.is_inline:
                return node.data[offset : offset + size]
            block_size = self.store.block_size
            number, start = divmod(offset, block_size)
            if start + size <= block_size:
                return self._piece(ino, number, start, size)
            pieces = []
            left = size
            if start:
                pieces.append(self._piece(ino, number, start, block_size - start))
                left -= block_size - start
                number += 1
            while left > 0:
                if left >= 2 * block_size and (run := self._run(ino, number, left // block_size)):
                    pieces.append(run)
                    left -= len(run)
                    number += len(run) // block_size
                    continue
                pieces.append(self._piece(ino, number, 0, min(left, block_size)))
                left -= block_size
                number += 1
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _run(self, ino: Ino, number: int, limit: int) -> bytes:
        """Up to ``limit`` whole blocks that lie in a row on disk, read at once; nothing if there are fewer than two."""
        found: list[tuple[Address, int]] = []
        next_address: int = HOLE
        while len(found) < limit:
            if self.waits(ino, number + len(found)):
                break
            address, checksum = self.view.block(ino, number + len(found))
            is_next = address == next_address if found else addresses.stored_size_of(address) == self.store.block_size
            next_address = addresses.next_whole(address)
            # A hole is followed by nothing, or each hole of a sparse file would be compared with all behind it.
            if not is_next or next_address == HOLE:
                break
            found.append((address, checksum))
        if len(found) < 2:
            return b""
        try:
            return self.store.data.read_row(found)
        except DamagedBlock:
            # Read one by one, which tells the file and the block.
            return b""

    def waits(self, ino: Ino, number: int) -> bool:
        """Whether this block is not on the disk as it is read here."""
        return self._dirty is not None and self._dirty(ino, number) is not None

    def damaged(self, ino: Ino, number: int, damaged: DamagedBlock) -> DamagedBlock:
        """``damaged``, with the file that it is about."""
        path = os.fsdecode(self.path(ino))
        return DamagedBlock(
            f"{path}: block {number} is damaged ({damaged.strerror}); restore the file from a snapshot or a standby"
        )

    def _piece(self, ino: Ino, number: int, start: int, size: int) -> bytes:
        content: bytes | bytearray | None = self._dirty(ino, number) if self._dirty else None
        if content is None:
            address, checksum = self.view.block(ino, number)
            if address == HOLE:
                return bytes(size)
            try:
                content = self.store.data.read(address, checksum, keep=size < self.store.block_size)
            except DamagedBlock as damaged:
                raise self.damaged(ino, number, damaged) from damaged
        if not start and len(content) == size and isinstance(content, bytes):
            return content
        piece = bytes(content[start : start + size])
        return piece if len(piece) == size else piece + bytes(size - len(piece))

    def data_ranges(self, ino: Ino, offset: int = 0) -> Iterator[tuple[int, int]]:
        """(start, end) of the parts of a file from ``offset`` on that are no holes, ascending, joined."""
        node = self.inode(ino)
        if node.is_inline:
            if offset < node.size:
                yield offset, node.size
            return
        start = end = -1
        for number in self._data_numbers(ino, node, offset // self.store.block_size):
            first = number * self.store.block_size
            if first != end:
                if end > start:
                    yield max(start, offset), end
                start = first
            end = first + tail_size(node.size, number, self.store.block_size)
        if end > start and end > offset:
            yield max(start, offset), end

    def _data_numbers(self, ino: Ino, node: Inode, first: int) -> Iterator[int]:
        block_size = self.store.block_size
        with self.store.lock:
            dirty = sorted(self._dirty_numbers(ino)) if self._dirty_numbers else []
            indexes = set(self.view.map_indexes(ino, node.size, first // INDIRECT_ENTRY_COUNT))
            indexes.update(number // INDIRECT_ENTRY_COUNT for number in dirty)
        for index in sorted(indexes):
            base = index * INDIRECT_ENTRY_COUNT
            with self.store.lock:
                entries = {base + at for at, _, _ in self.view.file_map(ino, node, index).real_entries()}
            entries.update(number for number in dirty if number // INDIRECT_ENTRY_COUNT == index)
            yield from (number for number in sorted(entries) if number >= first and number * block_size < node.size)

    def seek(self, ino: Ino, offset: int, *, hole: bool) -> int:
        """Where the next data, or the next hole, begins from ``offset`` on. Raises ``OSError`` (ENXIO)."""
        with self.store.lock:
            node = self.inode(ino)
            if not 0 <= offset < node.size:
                raise posix(errno.ENXIO)
            for start, end in self.data_ranges(ino, offset):
                if not hole:
                    return start
                if start > offset:
                    return offset
                return min(end, node.size)
            if hole:
                return offset
            raise posix(errno.ENXIO)

    def sector_count(self, ino: Ino, node: Inode) -> int:
        """What ``st_blocks`` tells, in sectors. Not 0 for what holds anything: programs would take it for a hole."""
        if not node.is_file or not node.size:
            return node.sectors
        if node.is_inline:
            return 1
        count = node.sectors
        if self._dirty_numbers is not None:
            waiting = len(self._dirty_numbers(ino)) * (self.store.block_size // SECTOR_SIZE)
            count = min(count + waiting, max(count, -(-node.size // SECTOR_SIZE)))
        return count
