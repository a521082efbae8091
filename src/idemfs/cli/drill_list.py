"""``idemfs drill list STORE``: reads the last committed group, and takes no lock."""

from __future__ import annotations

from idemfs.cli.parser import add_json, add_store
from idemfs.cli.render import Column, format_time_ns, listing, show_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from idemfs.api.drills import DrillInfo
    from idemfs.cli.render import Json


def arguments(parser: ArgumentParser) -> None:
    add_store(parser)
    add_json(parser)


def run(options: Namespace) -> None:
    from idemfs import api

    with api.open(options.store, readonly=True) as fs:
        rows = [_row(each) for each in fs.drills]
    columns = [
        Column("name"),
        Column("started"),
        Column("of", "SNAPSHOT"),
        Column("fileset"),
        Column("fileset_count", "FILESETS", right=True),
        Column("active_bytes", "CHANGED", show_size, right=True),
    ]
    listing(rows, columns, json=options.json)


def _row(info: DrillInfo) -> dict[str, Json]:
    return {
        "name": info.name,
        "started": format_time_ns(info.started_ns),
        "of": f"{info.snapshot} (deleted)" if info.snapshot_deleted else info.snapshot,
        "snapshot": info.snapshot,
        "snapshot_deleted": info.snapshot_deleted,
        "fileset": info.filesets[0],
        "filesets": info.filesets,
        "fileset_count": len(info.filesets),
        "active_bytes": info.active_bytes,
    }
