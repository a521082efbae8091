"""``idemfs snapshot find STORE PATH``."""

from __future__ import annotations

from idemfs.cli.parser import add_json, add_store
from idemfs.cli.render import Column, format_time_ns, listing, show_size, show_value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from idemfs.api import Version
    from idemfs.cli.render import Json


def arguments(parser: ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument("path", metavar="PATH", help="of a file, in the active state or a snapshot")
    parser.add_argument(
        "--fileset", metavar="FILESET", help="the path begins at the root of this fileset (default: of the store)"
    )
    add_json(parser)


def run(options: Namespace) -> None:
    from idemfs import api

    with api.open(options.store) as fs:
        snapshots = fs.snapshots if options.fileset is None else fs.filesets[options.fileset].snapshots
        found = snapshots.find(options.path)
    columns = [
        Column("mtime", "MODIFIED"),
        Column("size", show=show_size, right=True),
        Column("type"),
        Column("snapshots", show=_show_rows),
        Column("is_active", "ACTIVE", lambda value: "yes" if value else "-"),
        Column("path"),
    ]
    listing([_row(version) for version in found], columns, json=options.json)


def _row(version: Version) -> dict[str, Json]:
    return {
        "path": version.path,
        "inode": version.number,
        "type": version.type,
        "mode": f"{version.mode & 0o7777:04o}",
        "size": version.size,
        "mtime": format_time_ns(version.mtime_ns),
        "mtime_ns": version.mtime_ns,
        "snapshots": version.seen_by,
        "snapshot_count": version.snapshot_count,
        "is_active": version.is_active,
    }


def _show_rows(value: Json) -> str:
    """``monday … friday, sunday``."""
    if not isinstance(value, tuple) or not value:
        return show_value(None)
    return ", ".join(first if first == last else f"{first} … {last}" for first, last in value)
