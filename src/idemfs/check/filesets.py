"""Filesets: their names, where they appear, and what they are said to hold.

Threads: under the store's lock.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from idemfs.check.context import Context
from idemfs.check.findings import Finding, Kind
from idemfs.errors import BadFilesetName
from idemfs.format.tables import (
    COMPLETE,
    DELETING,
    SNAPSHOTS_COUNT,
    SNAPSHOTS_DELETING,
    ZSTD_COMPRESSION,
    Fileset,
)
from idemfs.ids import ROOT_FILESET, FilesetId, Ino, fileset_of
from idemfs.vfs.junctions import check_fileset_name


def check(context: Context, between: Collection[FilesetId], is_standby: bool) -> Iterator[Finding]:
    """All but what they hold. One that is being deleted has lost its name and its junction already.

    On a standby one may appear nowhere, as what came from another store does; and ``between`` are filesets on the way
    to another state, of which nobody sees the directories.
    """
    names: set[str] = set()
    places: dict[Ino, str] = {}
    for number, fileset in context.filesets.items():
        where = f"fileset {fileset.name or number}"
        yield from _fields(fileset, where)
        if fileset.state != COMPLETE:
            if number == ROOT_FILESET:
                yield Finding(Kind.FILESET, where, "is the root fileset, and is being deleted")
            continue
        if fileset.name in names:
            yield Finding(Kind.FILESET, where, "has the name of another fileset")
        names.add(fileset.name)
        if number == ROOT_FILESET:
            if fileset.junction:
                yield Finding(Kind.FILESET, where, "is the root fileset, and appears in a directory")
            continue
        if fileset.junction in places:
            yield Finding(Kind.FILESET, where, f"appears in the directory of {places[fileset.junction]}")
            continue
        if (is_standby and not fileset.junction) or fileset_of(fileset.junction) in between:
            continue
        if not fileset.junction and number in context.drills:
            continue
        what = _wrong_place(context, fileset)
        if what:
            yield Finding(Kind.FILESET, where, what)
        elif fileset.junction:
            places[fileset.junction] = where


def _fields(fileset: Fileset, where: str) -> Iterator[Finding]:
    if fileset.state not in (COMPLETE, DELETING):
        yield Finding(Kind.FILESET, where, f"is in state {fileset.state}, which means nothing")
    if fileset.flags & ~(SNAPSHOTS_COUNT | SNAPSHOTS_DELETING):
        yield Finding(Kind.FILESET, where, f"has flags {fileset.flags:#x}, which mean nothing")
    if fileset.compression > ZSTD_COMPRESSION:
        yield Finding(Kind.FILESET, where, f"has compression {fileset.compression}, which means nothing")
    if fileset.state == COMPLETE:
        try:
            check_fileset_name(fileset.name)
        except BadFilesetName as bad:
            yield Finding(Kind.FILESET, where, str(bad))


def _wrong_place(context: Context, fileset: Fileset) -> str:
    """What is wrong with where a fileset appears; empty when nothing is."""
    attach = "'idemfs fileset attach' gives it another place"
    if not fileset.junction:
        return f"appears nowhere; {attach}"
    if fileset_of(fileset.junction) not in context.filesets:
        return f"appears in fileset {fileset_of(fileset.junction)}, which does not exist; {attach}"
    node = context.inode(fileset.junction)
    if node is None or not node.is_dir or not node.nlink:
        return f"appears in {context.number(fileset.junction)}, which is no directory; {attach}"
    if node.size:
        return f"appears in {context.path(fileset.junction)}, which is not empty: what is in it is hidden; {attach}"
    seen: set[FilesetId] = set()
    at = fileset
    while at.number != ROOT_FILESET and at.junction:
        if at.number in seen:
            return f"appears inside of itself; {attach}"
        seen.add(at.number)
        above = context.filesets.get(fileset_of(at.junction))
        if above is None:
            return ""
        at = above
    return ""


def check_usage(fileset: Fileset, sectors: int, record_bytes: int) -> Iterator[Finding]:
    """``sectors`` and ``record_bytes`` are what the active records have."""
    if not fileset.is_counted:
        return
    where = f"fileset {fileset.name or fileset.number}"
    if fileset.sectors != sectors:
        yield Finding(Kind.USAGE, where, f"says that it has {fileset.sectors} sectors of data; it has {sectors}")
    if fileset.record_bytes != record_bytes:
        yield Finding(
            Kind.USAGE, where, f"says that it has {fileset.record_bytes} bytes of records; it has {record_bytes}"
        )
