"""Which filesets of a store follow its own primary, and which are something else's. Records of one fileset::

    V fileset line     guid of the root fileset of the store that it comes from(16) · highest epoch of it(8)
    V fileset kept     empty: it has what the primary has not, so the primary's deleting its own does not delete it
    V fileset policy   the policy that the primary has, which takes effect when this store becomes primary
    P gone GUID        empty: a fileset of this guid was deleted on the primary

A store's *line* is the primary and its standbys; their root filesets have one guid. A fileset without a line record
is of the line of its store. One with it was received with a name of its own, and no primary of this store knows it.
Filesets of drills (``drills``) are of no line.

Threads: under the store's lock; what is put is part of the open group.
"""

from __future__ import annotations

from typing import NamedTuple

from idemfs.errors import Damaged
from idemfs.format import keys
from idemfs.format.tables import Fileset
from idemfs.ids import ROOT_FILESET, FilesetId, Guid
from idemfs.limits import SCAN_COUNT
from idemfs.snapshots import drills
from idemfs.store.store import Store

_LINE, _KEPT, _POLICY = "line", "kept", "policy"
_GONE = keys.replication("gone ")
_LINK = keys.replication("link ")


class Line(NamedTuple):
    """Another store's line, and the highest epoch that was heard of in it."""

    root: Guid
    seen_epoch: int


def line_of(store: Store, fileset: FilesetId) -> Line | None:
    """None: the store's own. Raises ``Damaged``."""
    value = store.small.get(keys.fileset_replication(fileset, _LINE)) if fileset != ROOT_FILESET else None
    if value is None:
        return None
    if len(value) != 24:
        raise Damaged("the record that says where a fileset comes from is damaged")
    return Line(Guid(value[:16]), int.from_bytes(value[16:], "little"))


def put_line(store: Store, fileset: FilesetId, line: Line) -> None:
    store.small.put(keys.fileset_replication(fileset, _LINE), line.root + line.seen_epoch.to_bytes(8, "little"))


def home_name(store: Store, fileset: Fileset, line: Line) -> str:
    """What a fileset of another line is called in that line: its root fileset names the others here, too."""
    if fileset.guid == line.root:
        return "root"
    names = [each.name for each in store.catalog.listed_filesets() if each.guid == line.root]
    return fileset.name.removeprefix(f"{names[0]}-") if names else fileset.name


def is_own(store: Store, fileset: FilesetId) -> bool:
    """Whether the fileset is of the store's own line."""
    return line_of(store, fileset) is None and not drills.is_drill(store, fileset)


def own_filesets(store: Store) -> list[Fileset]:
    """Those of the store's own line, the root fileset first."""
    return [each for each in store.catalog.listed_filesets() if is_own(store, each.number)]


def is_kept(store: Store, fileset: FilesetId) -> bool:
    return store.small.get(keys.fileset_replication(fileset, _KEPT)) is not None


def put_kept(store: Store, fileset: FilesetId, is_kept: bool) -> None:
    _put(store, keys.fileset_replication(fileset, _KEPT), b"" if is_kept else None)


def policy_of(store: Store, fileset: FilesetId) -> bytes | None:
    """The record of the policy that the primary has; None: it has none."""
    return store.small.get(keys.fileset_replication(fileset, _POLICY))


def put_policy(store: Store, fileset: FilesetId, policy: bytes | None) -> None:
    _put(store, keys.fileset_replication(fileset, _POLICY), policy)


def gone(store: Store) -> set[Guid]:
    """Guids of filesets that were deleted on a primary of this line."""
    found: set[Guid] = set()
    start, end = _GONE, _GONE + b"\xff" * 17
    while pairs := store.small.scan(start, end, SCAN_COUNT):
        found.update(Guid(key[len(_GONE) :]) for key, _ in pairs)
        start = pairs[-1][0] + b"\0"
    return found


def remember_gone(store: Store, fileset: Fileset) -> None:
    """A primary deletes it, and has peers, or links, that may have it too. The caller has admitted a record."""
    is_known = store.small.get(keys.replication("peers")) is not None or store.small.scan(_LINK, _LINK + b"\xff", 1)
    if is_known and is_own(store, fileset.number):
        put_gone(store, fileset.guid)


def put_gone(store: Store, guid: Guid) -> None:
    store.small.put(_GONE + guid, b"")


def _put(store: Store, key: bytes, value: bytes | None) -> None:
    if store.small.get(key) != value:
        store.small.put(key, value)
