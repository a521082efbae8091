"""One table as the open transaction group sees it.

Three layers, newest first: the changes of the open group, those of the group that
is being committed, and the engine. None in a layer means: removed.

Threads: every call is made under the store's lock. The engine may finish a commit
meanwhile; the sealed layer then equals what it committed, so either answer is right.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice

from idemfs.engines.kv.api import KV, Table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sortedcontainers import SortedList

_MISSING = object()


class _Layer:
    """Changed keys with their values, and their order, which is worked out when a scan first needs it."""

    __slots__ = ("order", "pending", "values")

    def __init__(self) -> None:
        self.values: dict[bytes, bytes | None] = {}
        self.pending: list[bytes] = []
        self.order: SortedList[bytes] | None = None

    def between(self, start: bytes, end: bytes, limit: int, reverse: bool) -> list[bytes]:
        order = self.order
        if order is None:
            # Late, since listing snapshots never comes here and this is slow to import.
            from sortedcontainers import SortedList

            order = self.order = SortedList()
        if self.pending:
            order.update(self.pending)
            self.pending.clear()
        return list(islice(order.irange(start, end, (True, False), reverse), limit))


class Records:
    """Reads see all layers; writes go to the open one."""

    __slots__ = ("_kv", "_open", "_sealed", "_table", "pending", "values")

    def __init__(self, kv: KV, table: Table) -> None:
        self._kv = kv
        self._table = table
        self._sealed = _Layer()
        self._start_layer()

    def _start_layer(self) -> None:
        self._open = _Layer()
        # Hot paths write these two directly, as ``put`` does.
        self.values = self._open.values
        self.pending = self._open.pending

    def get(self, key: bytes) -> bytes | None:
        values = self.values
        if key in values:
            return values[key]
        sealed = self._sealed.values
        if key in sealed:
            return sealed[key]
        return self._kv.get(self._table, key)

    def before_group(self, key: bytes) -> bytes | None:
        """The value that ``key`` had when the open group began."""
        sealed = self._sealed.values
        if key in sealed:
            return sealed[key]
        return self._kv.get(self._table, key)

    def put(self, key: bytes, value: bytes | None) -> None:
        if key not in self.values:
            self.pending.append(key)
        self.values[key] = value

    def put_all(self, changes: Mapping[bytes, bytes | None]) -> None:
        self.pending.extend(changes.keys() - self.values.keys())
        self.values.update(changes)

    def scan(self, start: bytes, end: bytes, limit: int, reverse: bool = False) -> list[tuple[bytes, bytes]]:
        """Up to ``limit`` pairs with ``start <= key < end``, ascending (descending from the last with ``reverse``)."""
        found: list[tuple[bytes, bytes]] = []
        while True:
            base = self._kv.scan(self._table, start, end, limit, reverse)
            if not self.values and not self._sealed.values:
                return base
            merged: dict[bytes, bytes | None] = dict(base)
            ends = [base[-1][0]] if len(base) == limit else []
            changes: dict[bytes, bytes | None] = {}
            for layer in (self._sealed, self._open):
                if layer.values:
                    keys = layer.between(start, end, limit, reverse)
                    if len(keys) == limit:
                        ends.append(keys[-1])
                    for key in keys:
                        changes[key] = layer.values[key]
            merged.update(changes)
            # Past the nearest end of a full page another source may have keys that were not fetched.
            if ends and not reverse:
                bound = min(ends)
                page = sorted(key for key in merged if key <= bound)
            elif ends:
                bound = max(ends)
                page = sorted((key for key in merged if key >= bound), reverse=True)
            else:
                page = sorted(merged, reverse=reverse)
            for key in page:
                value = merged[key]
                if value is not None:
                    found.append((key, value))
            if not ends or len(found) >= limit:
                return found[:limit]
            if reverse:
                end = bound
            else:
                start = bound + b"\0"

    def first(self, start: bytes, end: bytes) -> tuple[bytes, bytes] | None:
        pairs = self.scan(start, end, 1)
        return pairs[0] if pairs else None

    def seal(self) -> dict[bytes, bytes | None]:
        """Close the open layer and start another; the changes of the closed one are returned, for the commit."""
        assert not self._sealed.values, "a group is still being committed"
        self._sealed = self._open
        self._start_layer()
        return self._sealed.values

    def drop_sealed(self) -> None:
        """The engine now holds what was sealed."""
        self._sealed = _Layer()
