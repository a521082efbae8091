"""``idemfs drill end STORE NAME``. Nobody is asked: a drill is made to be thrown away."""

from __future__ import annotations

from idemfs.cli.names import show_name
from idemfs.cli.parser import add_dry_run, add_store
from idemfs.cli.render import format_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def arguments(parser: ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument("name", metavar="NAME", help="the drill; what was written there goes with it")
    add_dry_run(parser)


def run(options: Namespace) -> None:
    from idemfs import api

    with api.open(options.store, readonly=options.dry_run) as fs:
        fs.drills.check_endable(options.name)
        info = fs.drills[options.name].info()
        if options.dry_run:
            names = ", ".join(show_name(each) for each in info.filesets)
            print(
                f"would end {show_name(info.name)}: {names}, which have {format_size(info.active_bytes)} of their own"
            )
            return
        fs.drills.end(options.name)
