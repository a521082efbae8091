"""What an archive of streams holds: which chain of them leads to which snapshot. Pure.

``archive.json`` is one JSON object::

    format      1
    guid        of the archive: on the stores that fill it, holds bear it
    line        guid of the root fileset of the store that is archived, as are all guids here in hexadecimal
    epoch       the highest one that was heard of
    full_next   guids of filesets of which the next stream is to be a full one
    gone        {guid of a fileset that was deleted: the last instant that it is of}
    points      [{instant, fileset, fileset_name, snapshot, name, created_ns, digest, base, file, bytes, checksum,
                is_kept, is_purged}, …]
    checksum    xxh3 of all the rest, as JSON with sorted keys and no spaces

A *point* is one snapshot of one fileset, in the order in which they were written. ``base`` is the guid of the snapshot
that its stream begins from, null for a full one: so each point has a *chain*, from a full stream to its own, and all of
it is of one fileset. Points that were taken at one instant, and came together, have one ``instant``, a number that only
grows: clocks may be set back. One with ``is_kept`` false is there only because others begin from it; one with
``is_purged`` shows what was purged from its snapshot in the store since.

Threads: any; everything here is values.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import tzinfo
from json import dumps, loads
from typing import NamedTuple

from xxhash import xxh3_64_hexdigest

from idemfs.errors import ArchiveError
from idemfs.ids import Guid
from idemfs.replication import collapse
from idemfs.snapshots.policy import Policy
from idemfs.snapshots.retention import Candidate

NAME = "archive.json"
FORMAT = 1
_BASES_COUNT_MAX = 10_000
"""So many streams in a chain that only bear others are enough for a new full one."""
_FILE = re.compile(r"[A-Za-z0-9-]{1,100}\.(full|change)\.stream")


class Point(NamedTuple):
    """One stream, and the snapshot that it leads to. ``checksum``: xxh3_128 of the file, in hexadecimal."""

    instant: int
    fileset: Guid
    fileset_name: str
    snapshot: Guid
    name: str
    created_ns: int
    digest: int
    base: Guid | None
    file: str
    bytes: int
    checksum: str
    is_kept: bool = True
    is_purged: bool = False

    @property
    def operand(self) -> str:
        return self.name if self.fileset_name == "root" else f"{self.fileset_name}@{self.name}"


class Manifest(NamedTuple):
    """An archive as its last write left it."""

    guid: Guid
    line: Guid
    epoch: int = 0
    points: tuple[Point, ...] = ()
    full_next: frozenset[Guid] = frozenset()
    gone: Mapping[Guid, int] = {}

    @property
    def next_instant(self) -> int:
        return max((each.instant for each in self.points), default=0) + 1


# -- bytes ---------------------------------------------------------------------------------------------


def pack(manifest: Manifest) -> bytes:
    fields: dict[str, object] = {
        "format": FORMAT,
        "guid": manifest.guid.hex(),
        "line": manifest.line.hex(),
        "epoch": manifest.epoch,
        "full_next": sorted(guid.hex() for guid in manifest.full_next),
        "gone": {guid.hex(): time for guid, time in manifest.gone.items()},
        "points": [_point_fields(each) for each in manifest.points],
    }
    return dumps({**fields, "checksum": _checksum(fields)}, indent=1).encode()


def _point_fields(point: Point) -> dict[str, object]:
    fields = point._asdict()
    return fields | {
        "fileset": point.fileset.hex(),
        "snapshot": point.snapshot.hex(),
        "digest": f"{point.digest:032x}",
        "base": None if point.base is None else point.base.hex(),
    }


def _checksum(fields: Mapping[str, object]) -> str:
    return xxh3_64_hexdigest(dumps(fields, sort_keys=True, separators=(",", ":")).encode())


def unpack(value: bytes) -> Manifest:
    """Raises ``ArchiveError``, which does not say of which archive."""
    try:
        fields = loads(value)
        if fields.get("format") != FORMAT:
            raise ArchiveError(f"has format {fields.get('format')!r}, which this idemfs does not know")
        checksum = fields.pop("checksum")
        if checksum != _checksum(fields):
            raise ArchiveError("is damaged: its checksum does not fit")
        return Manifest(
            Guid(bytes.fromhex(fields["guid"])),
            Guid(bytes.fromhex(fields["line"])),
            int(fields["epoch"]),
            tuple(_point(each) for each in fields["points"]),
            frozenset(Guid(bytes.fromhex(each)) for each in fields["full_next"]),
            {Guid(bytes.fromhex(guid)): int(time) for guid, time in fields["gone"].items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as bad:
        raise ArchiveError("is damaged: it is no manifest") from bad


def _point(fields: Mapping[str, str]) -> Point:
    if not _FILE.fullmatch(fields["file"]):
        # It becomes a path, and may not lead elsewhere.
        raise ValueError(fields["file"])
    base: str | None = fields["base"]
    return Point(
        int(fields["instant"]),
        Guid(bytes.fromhex(fields["fileset"])),
        str(fields["fileset_name"]),
        Guid(bytes.fromhex(fields["snapshot"])),
        str(fields["name"]),
        int(fields["created_ns"]),
        int(fields["digest"], 16),
        None if base is None else Guid(bytes.fromhex(base)),
        fields["file"],
        int(fields["bytes"]),
        str(fields["checksum"]),
        bool(fields["is_kept"]),
        bool(fields.get("is_purged", False)),
    )


# -- chains --------------------------------------------------------------------------------------------


def chain_of(points: Iterable[Point], point: Point) -> list[Point]:
    """What leads to ``point``, a full stream first. Raises ``ArchiveError``."""
    by_guid = {each.snapshot: each for each in points if each.fileset == point.fileset}
    chain = [point]
    while chain[-1].base is not None:
        below = by_guid.get(chain[-1].base)
        if below is None or len(chain) > len(by_guid):
            raise ArchiveError(f"{chain[-1].file}: begins from a snapshot that the archive does not have")
        chain.append(below)
    return chain[::-1]


def standing(points: Sequence[Point], is_whole: Callable[[Point], bool]) -> list[Point]:
    """Those that can be restored: all of their chain is whole. One is written after what it begins from."""
    stands: dict[tuple[Guid, Guid], bool] = {}
    for each in points:
        below = each.base is None or stands.get((each.fileset, each.base), False)
        stands[each.fileset, each.snapshot] = below and is_whole(each)
    return [each for each in points if stands[each.fileset, each.snapshot]]


def with_points(points: Sequence[Point], added: Sequence[Point]) -> tuple[Point, ...]:
    """``points`` and newer ones. One that is there already, and was found damaged, is replaced where it stands."""
    again = {(each.fileset, each.snapshot): each for each in added}
    if not any((each.fileset, each.snapshot) in again for each in points):
        return (*points, *added)
    left = []
    for each in points:
        other = again.pop((each.fileset, each.snapshot), None)
        left.append(each if other is None else other._replace(instant=each.instant))
    return tuple(in_order([*left, *again.values()]))


def in_order(points: Sequence[Point]) -> list[Point]:
    """Each after what it begins from; those that begin from nothing here are left out."""
    placed: set[tuple[Guid, Guid]] = set()
    ordered: list[Point] = []
    waiting = list(points)
    while waiting:
        ready = [each for each in waiting if each.base is None or (each.fileset, each.base) in placed]
        if not ready:
            break
        for each in ready:
            if (each.fileset, each.snapshot) not in placed:
                ordered.append(each)
            placed.add((each.fileset, each.snapshot))
        waiting = [each for each in waiting if each not in ready]
    return ordered


def find(manifest: Manifest, wanted: str | None) -> Point:
    """The newest point, or the newest of this name: ``NAME`` of the root fileset, or ``FILESET@NAME``.

    Raises ``ArchiveError``.
    """
    kept = [each for each in manifest.points if each.is_kept]
    if wanted is None:
        if not kept:
            raise ArchiveError("the archive holds no snapshot yet")
        return max(kept, key=lambda each: (each.instant, each.fileset == manifest.line))
    fileset, at, name = wanted.rpartition("@")
    named = [each for each in kept if each.name == name and each.fileset_name == (fileset if at else "root")]
    if not named:
        raise ArchiveError(f"the archive has no snapshot {wanted!r}; 'idemfs archive list' shows those it has")
    return max(named, key=lambda each: each.instant)


def ends_at(manifest: Manifest, instant: int) -> list[Point]:
    """The newest point of each fileset at an instant: what a restore to it brings back."""
    found: dict[Guid, Point] = {}
    for each in manifest.points:
        if each.instant <= instant and (each.fileset not in found or each.instant >= found[each.fileset].instant):
            found[each.fileset] = each
    return [each for guid, each in found.items() if instant <= manifest.gone.get(guid, instant)]


def restorable(manifest: Manifest, stands: Collection[Point]) -> Point | None:
    """The newest point whose instant can be restored with all filesets, when only these points stand."""
    kept = (each for each in stands if each.is_kept)
    for each in sorted(kept, key=lambda each: (each.instant, each.fileset == manifest.line), reverse=True):
        if all(end in stands for end in ends_at(manifest, each.instant)):
            return each
    return None


# -- pruning -------------------------------------------------------------------------------------------


class Pruning(NamedTuple):
    """``manifest``: what is left, and ``gone`` from it. ``restarted``: filesets whose next stream is now a full one."""

    manifest: Manifest
    gone: tuple[Point, ...]
    restarted: tuple[Guid, ...]


def prune(manifest: Manifest, keep: Policy, now_ns: int, zone: tzinfo) -> Pruning:
    """Let go what ``keep`` does not keep, but for what others begin from."""
    kept: set[tuple[Guid, Guid]] = set()
    for fileset in dict.fromkeys(each.fileset for each in manifest.points):
        kept |= _kept(fileset, manifest.points, keep, now_ns, zone)
    needed = _with_bases(manifest.points, kept)
    left, gone = [], []
    for each in manifest.points:
        at = (each.fileset, each.snapshot)
        if at in needed:
            left.append(each._replace(is_kept=at in kept))
        else:
            gone.append(each)
    restarted = [
        guid
        for guid in dict.fromkeys(each.fileset for each in left)
        if guid not in manifest.full_next and _is_worn(left, guid)
    ]
    after = manifest._replace(points=tuple(left), full_next=manifest.full_next | set(restarted))
    return Pruning(after, tuple(gone), tuple(restarted))


def with_purged(manifest: Manifest, old: Collection[bytes]) -> Manifest:
    """``old``: guids of snapshots from which the store purged something. So that no stream that comes begins from one
    of these points, the next ones of their filesets are full."""
    found = {each.fileset for each in manifest.points if each.snapshot in old and not each.is_purged}
    points = tuple(each._replace(is_purged=True) if each.snapshot in old else each for each in manifest.points)
    return manifest._replace(points=points, full_next=manifest.full_next | found) if found else manifest


def without_purged(manifest: Manifest) -> Pruning:
    """Let go of points that show what was purged, and of all that begin from these."""
    going: set[tuple[Guid, Guid]] = set()
    left, gone = [], []
    for each in manifest.points:
        if each.is_purged or (each.base is not None and (each.fileset, each.base) in going):
            going.add((each.fileset, each.snapshot))
            gone.append(each)
        else:
            left.append(each)
    needed = _with_bases(left, {(each.fileset, each.snapshot) for each in left if each.is_kept})
    gone += [each for each in left if (each.fileset, each.snapshot) not in needed]
    left = [each for each in left if (each.fileset, each.snapshot) in needed]
    restarted = tuple(dict.fromkeys(each.fileset for each in gone))
    after = manifest._replace(points=tuple(left), full_next=manifest.full_next | set(restarted))
    return Pruning(after, tuple(gone), restarted)


def _kept(fileset: Guid, points: Sequence[Point], keep: Policy, now_ns: int, zone: tzinfo) -> set[tuple[Guid, Guid]]:
    """Guids of a fileset's points that the rules keep. What they let go before does not come back."""
    mine = [each for each in points if each.fileset == fileset and each.is_kept]
    candidates = [Candidate(at, each.name, each.created_ns, each.bytes) for at, each in enumerate(mine)]
    going = {each.id for each in collapse.goes(keep._replace(keep_free_bytes=0), candidates, now_ns, zone, 0)}
    return {(fileset, each.snapshot) for at, each in enumerate(mine) if at not in going}


def _with_bases(points: Sequence[Point], wanted: Collection[tuple[Guid, Guid]]) -> set[tuple[Guid, Guid]]:
    found = set(wanted)
    for each in reversed(points):
        if (each.fileset, each.snapshot) in found and each.base is not None:
            found.add((each.fileset, each.base))
    return found


def _is_worn(points: Sequence[Point], fileset: Guid) -> bool:
    """Whether the newest chain of a fileset has more that only bears others than a new full stream would take."""
    chain = chain_of(points, [each for each in points if each.fileset == fileset][-1])
    bearing = [each.bytes for each in chain[1:] if not each.is_kept]
    return sum(bearing) > chain[0].bytes or len(bearing) > _BASES_COUNT_MAX
