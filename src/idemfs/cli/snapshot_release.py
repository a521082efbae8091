"""``idemfs snapshot release STORE NAME OWNER``."""

from __future__ import annotations

from idemfs.cli.parser import add_store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def arguments(parser: ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument("name", metavar="NAME", help="the snapshot; FILESET@NAME of another fileset")
    parser.add_argument("owner", metavar="OWNER", help="who held it")


def run(options: Namespace) -> None:
    from idemfs import api
    from idemfs.cli.failures import Refused

    with api.open(options.store) as fs:
        if options.owner not in fs.snapshots.holders(options.name):
            held = ", ".join(fs.snapshots.holders(options.name)) or "nobody"
            raise Refused(f"snapshot {options.name!r} is not held by {options.owner!r}, but by: {held}")
        fs.snapshots.release(options.name, options.owner)
