"""The active table: of a fileset that is a clone, what it lacks is seen in its origin snapshot.

``beneath`` says for which filesets, by the first two bytes of their keys. In these an empty value is a mark of absence:
the origin has the record, and the clone has not. Nobody but the methods that say *own* sees such marks. Indirect blocks
are never seen through here, since a clone may own some entries of one: ``versions.active`` puts them together.

Threads: as in ``records``.
"""

from __future__ import annotations

from idemfs.engines.kv.api import KV, Table
from idemfs.store.records import Records

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Protocol

    from idemfs.format.indirect import IndirectBlock
    from idemfs.ids import Ino

    class Beneath(Protocol):
        """What a clone sees of its origin. Keys and inode numbers are the clone's."""

        def has_inode_number(self, ino: Ino) -> bool: ...
        def get(self, key: bytes) -> bytes | None: ...
        def absence(self, key: bytes) -> bytes | None: ...
        def scan(self, start: bytes, end: bytes, limit: int) -> list[tuple[bytes, bytes]]: ...
        def map(self, ino: Ino, index: int) -> IndirectBlock: ...
        def map_indexes(self, ino: Ino, first: int, limit: int) -> Iterator[int]: ...
        def contribution(self, key: bytes, own: bytes | None) -> int: ...


class ActiveRecords(Records):
    """Reads see through clones; writes go to the open group, with a mark of absence where one is needed."""

    __slots__ = ("beneath",)

    def __init__(self, kv: KV, table: Table) -> None:
        super().__init__(kv, table)
        self.beneath: dict[bytes, Beneath] = {}

    def get(self, key: bytes) -> bytes | None:
        values = self.values
        if key in values:
            value = values[key]
        else:
            sealed = self._sealed.values
            value = sealed[key] if key in sealed else self._kv.get(self._table, key)
        if not value and self.beneath:
            beneath = self.beneath.get(key[:2])
            if beneath is not None:
                return beneath.get(key) if value is None else None
        return value

    def get_own(self, key: bytes) -> bytes | None:
        """What the fileset itself has: None for nothing, empty for a mark of absence."""
        return super().get(key)

    def put(self, key: bytes, value: bytes | None) -> None:
        if value is None and self.beneath:
            beneath = self.beneath.get(key[:2])
            if beneath is not None:
                value = beneath.absence(key)
        if key not in self.values:
            self.pending.append(key)
        self.values[key] = value

    def scan(self, start: bytes, end: bytes, limit: int, reverse: bool = False) -> list[tuple[bytes, bytes]]:
        """As ``Records.scan``; a range that is not all of one fileset gives own records, with marks of absence."""
        if self.beneath and end[:2] == start[:2]:
            beneath = self.beneath.get(start[:2])
            if beneath is not None:
                assert not reverse, "clones are read forward"
                return beneath.scan(start, end, limit)
        return super().scan(start, end, limit, reverse)

    def scan_own(self, start: bytes, end: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        """As ``scan``, of what the filesets themselves have."""
        return super().scan(start, end, limit)
