"""``idemfs snapshot list STORE [FILESET]``: reads the last committed group, and takes no lock."""

from __future__ import annotations

from idemfs.cli.parser import add_json, add_store
from idemfs.cli.render import Column, format_time_ns, listing, show_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Callable

    from idemfs.cli.render import Json
    from idemfs.format.tables import Fileset
    from idemfs.snapshots.info import SnapshotInfo
    from idemfs.store.catalog import Catalog


def arguments(parser: ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument(
        "fileset", metavar="FILESET", nargs="?", help="a fileset, or '*' and other patterns (default: the root fileset)"
    )
    add_json(parser)


def run(options: Namespace) -> None:
    from idemfs.snapshots.info import SnapshotInfo
    from idemfs.store.peek import read_snapshots

    found = read_snapshots(options.store, None if options.fileset is None else _chooser(options.fileset))
    columns = [
        *([] if options.fileset is None else [Column("fileset")]),
        Column("name"),
        Column("created"),
        Column("owned_bytes", "OWNED", show_size, right=True),
        Column("id", right=True),
        Column("digest"),
    ]
    infos = [SnapshotInfo(each, fileset) for fileset, snapshots in found for each in snapshots]
    infos.sort(key=lambda info: info.id)
    listing([row(info) for info in infos], columns, json=options.json)


def _chooser(pattern: str) -> Callable[[Catalog], list[Fileset]]:
    from idemfs.snapshots.choose import filesets

    return lambda catalog: filesets(catalog, pattern)


def row(info: SnapshotInfo) -> dict[str, Json]:
    return {
        "name": info.name,
        "fileset": info.fileset,
        "id": info.id,
        "guid": info.guid,
        "created": format_time_ns(info.created_ns),
        "created_ns": info.created_ns,
        "owned_bytes": info.owned_bytes,
        "digest": info.digest,
    }
