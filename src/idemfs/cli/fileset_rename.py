"""``idemfs fileset rename STORE NAME NEW_NAME``: what a fileset is called; ``mv`` changes where it appears."""

from __future__ import annotations

from idemfs.cli.parser import add_store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def arguments(parser: ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument("name", metavar="NAME", help="the fileset")
    parser.add_argument("new_name", metavar="NEW_NAME", help="up to 200 bytes, without '/', '@', '*', '?' and '['")


def run(options: Namespace) -> None:
    from idemfs import api

    with api.open(options.store) as fs:
        fs.filesets[options.name].rename(options.new_name)
