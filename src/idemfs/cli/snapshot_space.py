"""``idemfs snapshot space STORE [NAME…]``."""

from __future__ import annotations

from idemfs.cli.parser import add_json, add_store
from idemfs.cli.render import Column, listing, show_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from idemfs.cli.render import Json


def arguments(parser: ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument(
        "names", metavar="NAME", nargs="*", help="or FILESET@NAME; the last row is what they give back together"
    )
    parser.add_argument("--fileset", metavar="FILESET", help="without names: all snapshots of this one")
    add_json(parser)


def run(options: Namespace) -> None:
    from idemfs import api

    with api.open(options.store) as fs:
        names = list(dict.fromkeys(options.names))
        if not names:
            snapshots = fs.snapshots if options.fileset is None else fs.filesets[options.fileset].snapshots
            names = [info.operand for info in snapshots]
        rows: list[dict[str, Json]] = []
        for name in names:
            info = fs.snapshots.info(name)
            rows.append(
                {"name": info.operand, "owned_bytes": info.owned_bytes, "freed_bytes": fs.snapshots.freed(name)}
            )
        rows.append(
            {
                "name": None if options.json else "together",
                "owned_bytes": sum(fs.snapshots.info(name).owned_bytes for name in names),
                "freed_bytes": fs.snapshots.freed(*names),
            }
        )
    columns = [
        Column("name"),
        Column("owned_bytes", "OWNED", show_size, right=True),
        Column("freed_bytes", "FREED", show_size, right=True),
    ]
    listing(rows, columns, json=options.json)
