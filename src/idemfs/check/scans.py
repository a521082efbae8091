"""Whole tables in key order, a page at a time; active and shadow records side by side.

Threads: under the store's lock.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from idemfs.format import keys
from idemfs.ids import SnapshotId
from idemfs.limits import SCAN_COUNT
from idemfs.store.records import Records
from idemfs.store.store import Store

START = b"\x00"
END = b"\xff" * 10
"""Every key of every table lies between these two."""

Version = tuple[SnapshotId, bytes]
"""The owner of a shadow record, and its value."""


def pairs(records: Records, start: bytes = START, end: bytes = END) -> Iterator[tuple[bytes, bytes]]:
    """Every record with ``start <= key < end``."""
    while page := records.scan(start, end, SCAN_COUNT):
        yield from page
        if len(page) < SCAN_COUNT:
            return
        start = page[-1][0] + b"\0"


def versions(shadow: Records, start: bytes = START, end: bytes = END) -> Iterator[tuple[bytes, list[Version]]]:
    """Each active key that snapshots own versions of, with these, oldest first."""
    for key, group in groupby(pairs(shadow, start, end), key=_record_key):
        yield key, [(keys.shadow_parts(shadow_key)[1], value) for shadow_key, value in group]


def _record_key(pair: tuple[bytes, bytes]) -> bytes:
    return pair[0][:-8]


def merged(
    store: Store, start: bytes, end: bytes, actives: Iterator[tuple[bytes, bytes]] | None = None
) -> Iterator[tuple[bytes, list[Version], bytes | None]]:
    """Each key of the active or shadow table with its versions, oldest first, and its active value.

    ``actives``: what stands for the active records of this range, as what a clone sees does.
    """
    shadows = versions(store.shadow, start, end)
    shadow = next(shadows, None)
    for key, value in pairs(store.active, start, end) if actives is None else actives:
        while shadow is not None and shadow[0] < key:
            yield *shadow, None
            shadow = next(shadows, None)
        if shadow is not None and shadow[0] == key:
            yield *shadow, value
            shadow = next(shadows, None)
        else:
            yield key, [], value
    while shadow is not None:
        yield *shadow, None
        shadow = next(shadows, None)
