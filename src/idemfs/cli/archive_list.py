"""``idemfs archive list DIR``."""

from __future__ import annotations

from idemfs.cli.archives import add_archive, row
from idemfs.cli.parser import add_json
from idemfs.cli.render import Column, listing, show_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def arguments(parser: ArgumentParser) -> None:
    add_archive(parser)
    parser.add_argument("--all", action="store_true", help="also what is there only because others begin from it")
    add_json(parser)


def run(options: Namespace) -> None:
    from idemfs.replication.archive import open_archive
    from idemfs.replication.manifest import chain_of

    archive = open_archive(options.archive)
    points = archive.manifest.points
    standing = {(each.fileset, each.snapshot) for each in archive.standing()}
    rows = [
        row(archive, each, chain_of(points, each), stands=(each.fileset, each.snapshot) in standing)
        for each in points
        if each.is_kept or options.all or options.json
    ]
    columns = [
        Column("name"),
        Column("fileset"),
        Column("created"),
        Column("kind"),
        Column("bytes", "SIZE", show_size, right=True),
        Column("restore_bytes", "TO RESTORE", show_size, right=True),
        Column("restore_streams", "STREAMS", right=True),
        Column("restorable"),
    ]
    if any(each.is_purged for each in points):
        columns.append(Column("remarks"))
    listing(rows, columns, json=options.json)
