"""Content of active files: blocks that are changed in part wait in memory, whole ones go out at once.

A waiting block has its extent already, so that a full host is noticed by ``write``,
and ``first`` says where it was changed: what is appended past the end of the newest
snapshot's file preserves nothing. All blocks are written when the group is sealed.

Threads: under the store's lock. Callers have admitted the operation's records.
"""

from __future__ import annotations

import errno
from collections.abc import Callable

from idemfs.errors import DamagedBlock, NoSpace
from idemfs.format.address import HOLE
from idemfs.format.inode import INLINE, Inode
from idemfs.format.tables import STORE_COMPRESSION, ZSTD_COMPRESSION
from idemfs.ids import Address, Ino
from idemfs.limits import DIRTY_DATA_BYTES_MAX, FILE_SIZE_MAX, SECTOR_SIZE
from idemfs.versions.active import Active
from idemfs.vfs.reader import posix


class _Waiting:
    """One changed block: its content up to the last byte that counts, its extent, the first changed byte."""

    __slots__ = ("content", "extent", "first")

    def __init__(self, content: bytearray, extent: tuple[int, int], first: int) -> None:
        self.content = content
        self.extent = extent
        self.first = first


class Contents:
    """Writes, truncates and punches files of the active file system."""

    def __init__(self, active: Active) -> None:
        self.active = active
        self.store = active.store
        self.block_size = active.store.block_size
        self._inline_size = active.store.superblock.inline_size
        self.name_damage: Callable[[Ino, int, DamagedBlock], DamagedBlock] = lambda ino, number, damaged: damaged
        """Says which file a damaged block is of; whoever knows paths sets it."""
        self._waiting: dict[Ino, dict[int, _Waiting]] = {}
        self._waiting_count = 0
        self._waiting_count_max = max(2, DIRTY_DATA_BYTES_MAX // self.block_size)
        # Blocks first: writing them changes the indirect blocks that the other hook writes.
        self.store.before_seal.insert(0, self.flush)

    def waiting(self, ino: Ino, number: int) -> bytearray | None:
        blocks = self._waiting.get(ino)
        if blocks is None:
            return None
        block = blocks.get(number)
        return None if block is None else block.content

    def waiting_numbers(self, ino: Ino) -> list[int]:
        return list(self._waiting.get(ino, ()))

    def write(self, ino: Ino, node: Inode, offset: int, data: bytes | bytearray | memoryview) -> int:
        """Write at ``offset``; how many bytes were written: all, or fewer when space ran out after some.

        ``node`` comes from ``change_inode``. Its size is brought up to date, its times are the caller's.
        Raises ``NoSpace`` when nothing could be written, ``OSError`` (EFBIG).
        """
        size = len(data)
        end = offset + size
        if end > FILE_SIZE_MAX:
            raise posix(errno.EFBIG)
        if node.is_inline:
            if end <= self._inline_size:
                old = node.data
                if offset > len(old):
                    old += bytes(offset - len(old))
                node.data = old[:offset] + bytes(data) + old[end:]
                node.size = len(node.data)
                return size
            self._leave_inline(ino, node)
        view = memoryview(data)
        done = 0
        while done < size:
            number, start = divmod(offset + done, self.block_size)
            piece = view[done : done + self.block_size - start]
            try:
                self._write_piece(ino, node, number, start, piece)
            except NoSpace:
                if not done:
                    raise
                break
            done += len(piece)
            node.size = max(node.size, offset + done)
        return done

    def _write_piece(self, ino: Ino, node: Inode, number: int, start: int, piece: memoryview) -> None:
        if start == 0 and len(piece) == self.block_size:
            address, checksum = self.store.data.write(
                piece if piece.readonly else bytes(piece), compress=self._compresses(ino)
            )
            self._forget(ino, number)
            self.active.set_block(ino, node, number, address, checksum, number * self.block_size)
            return
        block = self._changing(ino, number, start)
        content, end = block.content, start + len(piece)
        if len(content) < start:
            content.extend(bytes(start - len(content)))
        content[start:end] = piece
        if end == self.block_size:
            # A file that is written in order: the block will hardly change again soon.
            node.size = max(node.size, (number + 1) * self.block_size)
            self._write_out(ino, node, number)
        elif self._waiting_count > self._waiting_count_max:
            # This block lies past the size until the caller has set it.
            node.size = max(node.size, number * self.block_size + end)
            self.flush()

    def share(self, ino: Ino, node: Inode, number: int, address: Address, checksum: int, length: int) -> None:
        """A block is that of another file too: ``length`` bytes, which are fewer only where both end with it.

        Raises ``NoSpace``.
        """
        if node.is_inline:
            self._leave_inline(ino, node)
        self._forget(ino, number)
        self.store.space.share(address)
        self.active.set_block(ino, node, number, address, checksum, number * self.block_size)
        node.size = max(node.size, number * self.block_size + length)

    def _leave_inline(self, ino: Ino, node: Inode) -> None:
        """The content of an inline file becomes its first block."""
        extent = self._allocate() if node.data else None
        if extent is not None:
            self._add(ino, 0, _Waiting(bytearray(node.data), extent, 0))
        node.flags &= ~INLINE
        node.data = b""

    def _compresses(self, ino: Ino) -> bool | None:
        compression = self.active.fileset(ino).compression
        return None if compression == STORE_COMPRESSION else compression == ZSTD_COMPRESSION

    def _allocate(self, frees: bool = False) -> tuple[int, int]:
        count = self.block_size // SECTOR_SIZE
        return self.store.space.allocate(count, frees=frees), count

    def _add(self, ino: Ino, number: int, block: _Waiting) -> None:
        self._waiting.setdefault(ino, {})[number] = block
        self._waiting_count += 1

    def _changing(self, ino: Ino, number: int, first: int, frees: bool = False) -> _Waiting:
        """The waiting block, read in if need be, of which bytes from ``first`` on are to be changed."""
        blocks = self._waiting.get(ino)
        block = None if blocks is None else blocks.get(number)
        if block is None:
            address, checksum = self.active.block(ino, number)
            try:
                content = bytearray(self.store.data.read(address, checksum))
            except DamagedBlock as damaged:
                raise self.name_damage(ino, number, damaged) from damaged
            block = _Waiting(content, self._allocate(frees), first)
            self._add(ino, number, block)
        elif first < block.first:
            block.first = first
        return block

    def _pop(self, ino: Ino, number: int) -> _Waiting | None:
        blocks = self._waiting.get(ino)
        block = None if blocks is None else blocks.pop(number, None)
        if blocks is not None and not blocks:
            del self._waiting[ino]
        if block is not None:
            self._waiting_count -= 1
        return block

    def _forget(self, ino: Ino, number: int) -> None:
        """A waiting block is not wanted any more."""
        block = self._pop(ino, number)
        if block is not None:
            self.store.space.give_back(*block.extent, 0)

    def _write_out(self, ino: Ino, node: Inode, number: int) -> None:
        block = self._waiting[ino][number]
        start = number * self.block_size
        inside = min(len(block.content), max(0, node.size - start))
        # It waits until it is written: when this fails, nothing is lost that can be tried again.
        content = bytes(memoryview(block.content)[:inside])
        address, checksum = self.store.data.write(content, block.extent, compress=self._compresses(ino))
        self._pop(ino, number)
        self.active.set_block(ino, node, number, address, checksum, start + block.first)

    def flush(self) -> None:
        """Write every waiting block."""
        for ino in list(self._waiting):
            # What waits was told to the log when it was written.
            node = self.active.change_inode(ino, is_logged=True)
            for number in sorted(self._waiting[ino]):
                self._write_out(ino, node, number)

    def truncate(self, ino: Ino, node: Inode, size: int) -> None:
        """Set the size; what is cut off is gone, what is added reads as zeros. Raises ``NoSpace``, EFBIG."""
        if size > FILE_SIZE_MAX:
            raise posix(errno.EFBIG)
        if node.is_inline and size <= self._inline_size:
            node.data = node.data[:size] + bytes(max(0, size - len(node.data)))
            node.size = size
            return
        if node.is_inline:
            self._leave_inline(ino, node)
        if size < node.size:
            self._cut(ino, node, size)
        node.size = size
        if size == 0:
            node.flags |= INLINE

    def _cut(self, ino: Ino, node: Inode, size: int) -> None:
        keep, inside = divmod(size, self.block_size)
        if inside and (self.active.block(ino, keep)[0] != HOLE or self.waiting(ino, keep) is not None):
            block = self._changing(ino, keep, inside, frees=True)
            del block.content[inside:]
            keep += 1
        for number in self.waiting_numbers(ino):
            if number >= keep:
                self._forget(ino, number)
        self.active.drop_blocks(ino, node, keep)

    def punch(self, ino: Ino, node: Inode, offset: int, size: int) -> None:
        """Bytes from ``offset`` on read as zeros, and whole blocks of them take no space. The size stays."""
        end = min(offset + size, node.size)
        if end <= offset:
            return
        if node.is_inline:
            node.data = node.data[:offset] + bytes(end - offset) + node.data[end:]
            return
        first, first_start = divmod(offset, self.block_size)
        last, last_end = divmod(end, self.block_size)
        if end == node.size and last_end:
            last, last_end = last + 1, 0
        if first == last:
            self._zero(ino, first, first_start, last_end)
            return
        if first_start and last_end:
            # Both have their extents before either changes, in case that the host is full.
            self._zero(ino, first, first_start, first_start)
            self._zero(ino, last, 0, 0)
        if first_start:
            self._zero(ino, first, first_start, self.block_size)
            first += 1
        if last_end:
            self._zero(ino, last, 0, last_end)
        self._punch_blocks(ino, node, first, last)

    def _punch_blocks(self, ino: Ino, node: Inode, first: int, last: int) -> None:
        for number in self.waiting_numbers(ino):
            if first <= number < last:
                self._forget(ino, number)
        for number in self.active.real_blocks(ino, first, last):
            self.active.set_block(ino, node, number, HOLE, 0, number * self.block_size)

    def _zero(self, ino: Ino, number: int, start: int, end: int) -> None:
        if self.active.block(ino, number)[0] == HOLE and self.waiting(ino, number) is None:
            return
        content = self._changing(ino, number, start).content
        stop = min(end, len(content))
        if stop > start:
            content[start:stop] = bytes(stop - start)

    def drop(self, ino: Ino) -> None:
        """The file goes: nothing of it need be written."""
        for number in self.waiting_numbers(ino):
            self._forget(ino, number)
