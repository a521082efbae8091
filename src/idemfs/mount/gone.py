"""What lost its last name, and is still somebody's: the directory that a program is in, or a FIFO that is open.

The kernel opens FIFOs, sockets and devices by itself, and need open nothing to be in a directory, so the mount does not
know who has them, and the tree lets them go with their last name. The kernel may ask for their attributes all the same.

Memory: ``_COUNT_MAX`` attributes, of those that went last. Threads: any.
"""

from __future__ import annotations

from threading import Lock

from idemfs.format.inode import Inode
from idemfs.mount import wire

_COUNT_MAX = 1024


class Gone:
    """Attributes by the kernel's numbers, which are never used again."""

    def __init__(self, block_size: int) -> None:
        self._block_size = block_size
        self._attributes: dict[int, bytes] = {}
        self._lock = Lock()

    def add(self, node: int, inode: Inode) -> None:
        attributes = wire.attributes(inode, node, inode.size, 0, self._block_size)
        with self._lock:
            self._attributes[node] = attributes
            if len(self._attributes) > _COUNT_MAX:
                del self._attributes[next(iter(self._attributes))]

    def get(self, node: int) -> bytes | None:
        """``struct fuse_attr``."""
        return self._attributes.get(node)
