"""Reading many blocks that mostly lie one behind another: of small ones a row is fetched at once.

Blocks next to the wanted one may be freed, and others put there, before they are asked for. Each is taken from what was
fetched only if its checksum is right, and else read anew.

Threads: one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from idemfs.format import address as addresses
from idemfs.limits import SECTOR_SIZE

if TYPE_CHECKING:
    from idemfs.ids import Address
    from idemfs.store.data import Data

_ROW_BYTES = 1 << 18
_SMALL_BYTES_MAX = 1 << 14
"""Where a longer block lies behind another one, there is little to save."""


class Ahead:
    """The payloads of one store."""

    def __init__(self, data: Data) -> None:
        self._data = data
        self._row = b""
        self._start = self._end = 0
        """Sectors: where the row begins, and what lies behind the block that was read last."""

    def read(self, address: Address, checksum: int) -> bytes:
        """The payload at a real address. Raises ``DamagedBlock``, ``OSError``."""
        payload = self._data.cached(address)
        if payload is not None:
            return payload
        sector, size = addresses.sector_of(address), addresses.stored_size_of(address)
        is_behind, self._end = sector == self._end, sector - (-size // SECTOR_SIZE)
        if size > _SMALL_BYTES_MAX:
            return self._data.read_uncached(address, checksum)
        try:
            if is_behind and not self._has(sector, size):
                self._row, self._start = self._data.read_stored(sector, _ROW_BYTES), sector
            if self._has(sector, size):
                at = (sector - self._start) * SECTOR_SIZE
                return self._data.unpacked(address, checksum, self._row[at : at + size])
        except OSError:
            # Perhaps of another time, or another block of the row cannot be read.
            self._row = b""
        return self._data.read_uncached(address, checksum)

    def _has(self, sector: int, size: int) -> bool:
        return 0 <= (sector - self._start) * SECTOR_SIZE <= len(self._row) - size
