"""``idemfs fileset attach STORE NAME PATH``: let a fileset appear at another empty directory, or at one again."""

from __future__ import annotations

from idemfs.cli.parser import add_store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def arguments(parser: ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument("name", metavar="NAME", help="the fileset")
    parser.add_argument("path", metavar="PATH", help="an empty directory in the store")


def run(options: Namespace) -> None:
    from idemfs import api

    with api.open(options.store) as fs:
        fs.filesets[options.name].attach(options.path)
