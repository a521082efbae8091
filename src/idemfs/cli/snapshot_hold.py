"""``idemfs snapshot hold STORE NAME OWNER``."""

from __future__ import annotations

from idemfs.cli.parser import add_store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def arguments(parser: ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument("name", metavar="NAME", help="the snapshot; FILESET@NAME of another fileset")
    parser.add_argument("owner", metavar="OWNER", help="who needs it: a word that 'release' gives again")
    parser.add_argument("--seconds", type=float, help="how long (default: until it is released)")


def run(options: Namespace) -> None:
    from idemfs import api
    from idemfs.cli.failures import UsageError

    with api.open(options.store) as fs:
        try:
            fs.snapshots.hold(options.name, options.owner, options.seconds)
        except ValueError as wrong:
            raise UsageError(str(wrong)) from None
