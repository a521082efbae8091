"""``idemfs diverged list STORE``."""

from __future__ import annotations

from idemfs.cli.parser import add_json, add_store
from idemfs.cli.render import Column, format_time_ns, listing, show_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from idemfs.api.diverged import DivergedInfo
    from idemfs.cli.render import Json


def arguments(parser: ArgumentParser) -> None:
    add_store(parser)
    add_json(parser)


def run(options: Namespace) -> None:
    from idemfs import api

    with api.open(options.store) as fs:
        rows = [_row(each) for each in fs.diverged]
    columns = [
        Column("name"),
        Column("epoch", right=True),
        Column("since"),
        Column("created"),
        Column("files", right=True),
        Column("changed_bytes", "CHANGED", show_size, right=True),
        Column("owned_bytes", "OWNED", show_size, right=True),
    ]
    listing(rows, columns, json=options.json)


def _row(info: DivergedInfo) -> dict[str, Json]:
    return {
        "name": info.name,
        "epoch": info.epoch,
        "since": info.since,
        "created": format_time_ns(info.created_ns),
        "files": info.files,
        "changed_bytes": info.changed_bytes,
        "owned_bytes": info.owned_bytes,
    }
