"""``idemfs diverged release STORE NAME [--delete]``."""

from __future__ import annotations

from idemfs.cli.names import show_name
from idemfs.cli.parser import add_dry_run, add_store, add_yes
from idemfs.cli.render import confirm

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def arguments(parser: ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument("name", metavar="NAME", help="the snapshot that diverged, or FILESET@NAME; it is kept as it is")
    parser.add_argument("--delete", action="store_true", help="delete it; what no other snapshot has is gone")
    add_dry_run(parser)
    add_yes(parser)


def run(options: Namespace) -> None:
    from idemfs import api

    with api.open(options.store, readonly=options.dry_run) as fs:
        fs.diverged.check_releasable(options.name, delete=options.delete)
        name = show_name(options.name)
        if options.dry_run:
            print(f"would {'delete' if options.delete else 'report no more'} {name}")
            return
        if options.delete:
            confirm(f"Delete {name}? What only it has is gone from every store.", yes=options.yes)
        fs.diverged.release(options.name, delete=options.delete)
