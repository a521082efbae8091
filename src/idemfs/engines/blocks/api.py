"""What idemfs asks of a block engine: extents of whole sectors at numbered places.

Sector 0 is never used, so that no real address is 0. A write is durable after the
next ``sync`` that starts after it returned; until then any part of it may be lost.
The engine never moves data, and knows nothing of files.

Threads: any call from any thread; callers never write one sector from two threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Blocks(Protocol):
    """A block engine."""

    def reserve(self, sector: int, count: int) -> None:
        """Claim room for these sectors from the host: writing them then cannot fail for space. Raises ``NoSpace``."""
        ...

    def write(self, sector: int, data: bytes | bytearray | memoryview) -> None:
        """Write ``data`` from the start of ``sector``; the rest of its last sector is undefined. Raises ``OSError``."""
        ...

    def read(self, sector: int, size: int) -> bytes:
        """``size`` bytes from the start of ``sector``; zeros, or fewer bytes, where nothing was written."""
        ...

    def sync(self) -> None:
        """Make every write that returned before this call durable. Raises ``OSError``; then rely on none of them."""
        ...

    def discard(self, runs: Sequence[tuple[int, int]]) -> None:
        """Give these (sector, count) runs back to the host; their content becomes undefined."""
        ...

    def used_bytes(self) -> int:
        """Bytes on the host that the extents take."""
        ...

    def free_bytes(self) -> int:
        """Bytes that the host could still give."""
        ...

    def close(self) -> None:
        """Release the host's resources."""
        ...
