"""``idemfs snapshot list STORE [FILESET]``: reads the last committed group, and takes no lock."""

from __future__ import annotations

from time import time_ns

from idemfs.cli.parser import add_json, add_store
from idemfs.cli.render import Column, format_time_ns, listing, show_size
from idemfs.snapshots.info import NEVER_NS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Callable

    from idemfs.cli.render import Json
    from idemfs.format.tables import Fileset
    from idemfs.ids import SnapshotId
    from idemfs.snapshots.info import SnapshotInfo
    from idemfs.store.catalog import Catalog
    from idemfs.store.keeps import Keep


def arguments(parser: ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument(
        "fileset", metavar="FILESET", nargs="?", help="a fileset, or '*' and other patterns (default: the root fileset)"
    )
    add_json(parser)


def run(options: Namespace) -> None:
    from idemfs.snapshots.info import SnapshotInfo
    from idemfs.store.peek import read_snapshots

    keeps: dict[SnapshotId, Keep] = {}
    found = read_snapshots(options.store, None if options.fileset is None else _chooser(options.fileset), keeps)
    now_ns = time_ns()
    columns = [
        *([] if options.fileset is None else [Column("fileset")]),
        Column("name"),
        Column("created"),
        Column("owned_bytes", "OWNED", show_size, right=True),
        Column("id", right=True),
        Column("digest"),
        *([Column("kept")] if keeps else []),
    ]
    infos = [
        SnapshotInfo(each, fileset, keeps.get(each.id), now_ns) for fileset, snapshots in found for each in snapshots
    ]
    infos.sort(key=lambda info: info.id)
    listing(
        [row(info) if options.json else row(info) | {"kept": _kept(info)} for info in infos], columns, json=options.json
    )


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
        "locked_until": format_time_ns(info.locked_until_ns) if info.locked_until_ns else None,
        "holds": [{"owner": owner, "until": _end(until_ns)} for owner, until_ns in info.holds],
    }


def _end(until_ns: int) -> str | None:
    return None if until_ns >= NEVER_NS else format_time_ns(until_ns)


def _kept(info: SnapshotInfo) -> str | None:
    """``locked until 2030-01-01T00:00:00Z, held by backup``."""
    if not info.locked_until_ns and not info.holds:
        return None
    said = [f"locked until {format_time_ns(info.locked_until_ns)}"] if info.locked_until_ns else []
    for owner, until_ns in info.holds:
        end = _end(until_ns)
        said.append(f"held by {owner}" + (f" until {end}" if end else ""))
    return ", ".join(said)
