"""``idemfs snapshot rename STORE NAME NEW``."""

from __future__ import annotations

from idemfs.cli.parser import add_store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def arguments(parser: ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument("name", metavar="NAME", help="the snapshot; FILESET@NAME of another fileset")
    parser.add_argument("new_name", metavar="NEW", help="its new name; its guid stays")


def run(options: Namespace) -> None:
    from idemfs import api

    with api.open(options.store) as fs:
        fs.snapshots.rename(options.name, options.new_name)
