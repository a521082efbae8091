"""``idemfs fileset promote STORE NAME``."""

from __future__ import annotations

from idemfs.cli.parser import add_store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def arguments(parser: ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument("name", metavar="NAME", help="the clone")


def run(options: Namespace) -> None:
    from idemfs import api

    with api.open(options.store) as fs:
        fs.filesets[options.name].promote()
