"""``idemfs snapshot delete STORE NAME…``."""

from __future__ import annotations

import sys

from idemfs.cli.names import show_name
from idemfs.cli.parser import add_dry_run, add_store
from idemfs.cli.render import confirm, format_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def arguments(parser: ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument(
        "names",
        metavar="NAME",
        nargs="+",
        help="or FILESET@NAME; all of them are deleted, or none",
    )
    add_dry_run(parser)
    parser.add_argument("--yes", action="store_true", help="do not ask; without a terminal nobody is asked")


def run(options: Namespace) -> None:
    from idemfs import api

    with api.open(options.store, readonly=options.dry_run) as fs:
        fs.snapshots.check_deletable(*options.names)
        infos = [fs.snapshots.info(name) for name in dict.fromkeys(options.names)]
        if options.dry_run:
            for info in infos:
                print(f"would delete {show_name(info.name)}, which owns {format_size(info.owned_bytes)}")
            return
        if sys.stdin.isatty():
            names = ", ".join(info.name for info in infos)
            confirm(f"Delete {names}? What no other snapshot keeps is gone.", yes=options.yes)
        fs.snapshots.delete(*options.names)
