"""Drills: clones of what a store received, made for testing, and thrown away. A record of each of their filesets::

    Cf fileset    started ns(8, little-endian) · is root(1) · name of the drill

A fileset of a drill is its store's own: no primary or standby knows of it. It is changed whatever the role of the store
is, and is part of no difference, plan or digest that stores compare. It appears in its drill alone; the root of
the drill appears nowhere. The records come with the filesets, in one group, and each goes in the group in which its
fileset begins to be deleted.

Threads: under the store's lock; what is put is part of the open group.
"""

from __future__ import annotations

from struct import Struct, error
from typing import NamedTuple

from idemfs.errors import Damaged
from idemfs.format import keys
from idemfs.ids import FilesetId
from idemfs.limits import FILESET_NAME_SIZE_MAX, SCAN_COUNT
from idemfs.store.store import Store

_LAYOUT = Struct("<QB")
RECORD_SIZE_MAX = 4 + _LAYOUT.size + FILESET_NAME_SIZE_MAX


class Part(NamedTuple):
    """What is noted of one fileset of a drill. ``is_root``: the drill is seen from its root."""

    drill: str
    started_ns: int
    is_root: bool


class Drill(NamedTuple):
    """``filesets``: the root of the drill first; one that was deleted by itself is missing."""

    name: str
    started_ns: int
    filesets: tuple[FilesetId, ...]


def pack(part: Part) -> bytes:
    return _LAYOUT.pack(part.started_ns, part.is_root) + part.drill.encode()


def unpack(value: bytes) -> Part:
    """Raises ``Damaged``."""
    try:
        started_ns, is_root = _LAYOUT.unpack_from(value)
        return Part(value[_LAYOUT.size :].decode(), started_ns, bool(is_root))
    except (error, UnicodeDecodeError) as bad:
        raise Damaged("the record of a drill is damaged") from bad


def is_drill(store: Store, fileset: FilesetId) -> bool:
    """Whether the fileset is one of a drill."""
    return store.small.get(keys.drill(fileset)) is not None


def name_of(store: Store, fileset: FilesetId) -> str | None:
    """The drill that a fileset belongs to; None: it is no drill's."""
    value = store.small.get(keys.drill(fileset))
    return None if value is None else unpack(value).drill


def listed(store: Store) -> list[Drill]:
    """In the order in which they were begun. Raises ``Damaged``."""
    found: dict[str, list[tuple[Part, FilesetId]]] = {}
    start, end = keys.drill_range()
    while pairs := store.small.scan(start, end, SCAN_COUNT):
        for key, value in pairs:
            part = unpack(value)
            found.setdefault(part.drill, []).append((part, FilesetId(int.from_bytes(key[2:], "big"))))
        start = pairs[-1][0] + b"\0"
    drills = []
    for name, parts in found.items():
        parts.sort(key=lambda each: (not each[0].is_root, each[1]))
        drills.append(Drill(name, parts[0][0].started_ns, tuple(number for _, number in parts)))
    return sorted(drills, key=lambda each: each.filesets)


def find(store: Store, name: str) -> Drill | None:
    return next((each for each in listed(store) if each.name == name), None)


def put(store: Store, fileset: FilesetId, part: Part) -> None:
    """The caller has admitted a record of ``RECORD_SIZE_MAX`` bytes."""
    store.small.put(keys.drill(fileset), pack(part))


def forget(store: Store, fileset: FilesetId) -> None:
    """The fileset goes. The caller has admitted a record."""
    if is_drill(store, fileset):
        store.small.put(keys.drill(fileset), None)
