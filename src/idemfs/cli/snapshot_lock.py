"""``idemfs snapshot lock STORE NAME UNTIL``."""

from __future__ import annotations

from idemfs.cli.operands import parse_time
from idemfs.cli.parser import add_store, add_yes
from idemfs.cli.render import confirm

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def arguments(parser: ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument("name", metavar="NAME", help="the snapshot")
    parser.add_argument("until", metavar="UNTIL", type=parse_time, help="a date, or date and time, such as 2030-01-31")
    add_yes(parser)


def run(options: Namespace) -> None:
    from idemfs import api
    from idemfs.cli.failures import UsageError

    with api.open(options.store) as fs:
        fs.snapshots.info(options.name)
        confirm(
            f"Lock {options.name} until {options.until.isoformat()}? Nobody can delete it before, and nothing takes "
            "this back.",
            yes=options.yes,
        )
        try:
            fs.snapshots.lock(options.name, options.until)
        except ValueError as wrong:
            raise UsageError(str(wrong)) from None
