"""Copy a part of a file into another: whole blocks are shared, and the last ones of files; the rest is copied.

The source is any state of any fileset of the store. Blocks are shared where both parts begin at the same place
of a block; a block of the source that waits to be written is copied. So is the last one of a file, unless the target
ends there too, and it is seen without being read that nothing lies behind its end.

Threads: each call takes the store's lock, for as many blocks as one indirect block maps.
"""

from __future__ import annotations

import errno

from idemfs.ids import Ino
from idemfs.limits import CALL_BYTES_MAX, FILE_SIZE_MAX, INDIRECT_ENTRY_COUNT
from idemfs.vfs.reader import Reader, posix
from idemfs.vfs.tree import Tree


def copy_range(tree: Tree, reader: Reader, source: Ino, offset: int, ino: Ino, target_offset: int, size: int) -> int:
    """As ``copy_file_range(2)``: how many bytes were copied; fewer than asked at the end of the source, or to go on.

    Raises ``OSError``, ``NoSpace``, ``QuotaExceeded``.
    """
    with tree.store.lock:
        for each, at in ((reader, source), (tree.reader, ino)):
            node = each.inode(at)
            if not node.is_file:
                raise posix(errno.EISDIR if node.is_dir else errno.EINVAL)
        size = min(size, reader.inode(source).size - offset)
        if size <= 0:
            return 0
        if target_offset + size > FILE_SIZE_MAX:
            raise posix(errno.EFBIG)
        is_one = reader is tree.reader and source == ino
        if is_one and abs(offset - target_offset) < size:
            raise posix(errno.EINVAL, "the two parts of the file overlap")
        block_size = tree.store.block_size
        if (offset - target_offset) % block_size:
            return _copy(tree, reader, source, offset, ino, target_offset, min(size, CALL_BYTES_MAX))
        inside = offset % block_size
        if inside:
            return _copy(tree, reader, source, offset, ino, target_offset, min(size, block_size - inside))
        limit = min(size, INDIRECT_ENTRY_COUNT * block_size)
        done = tree.share_blocks(reader, source, offset // block_size, ino, target_offset // block_size, limit)
        return done or _copy(tree, reader, source, offset, ino, target_offset, min(size, block_size))


def _copy(tree: Tree, reader: Reader, source: Ino, offset: int, ino: Ino, target_offset: int, size: int) -> int:
    return tree.write(ino, target_offset, reader.read(source, offset, size))
