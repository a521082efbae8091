"""``idemfs snapshot hold STORE NAME OWNER``."""

from __future__ import annotations

from idemfs.cli.operands import parse_time
from idemfs.cli.parser import add_store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def arguments(parser: ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument("name", metavar="NAME", help="the snapshot; FILESET@NAME of another fileset")
    parser.add_argument(
        "owner", metavar="OWNER", help="who needs it: a word that 'release' gives again, not 'standby:…'"
    )
    parser.add_argument("--seconds", type=float, help="how long (default: until it is released)")
    parser.add_argument("--until", metavar="DATE", type=parse_time, help="the same as a date, such as 2030-01-31")


def run(options: Namespace) -> None:
    from idemfs import api
    from idemfs.cli.failures import UsageError

    if options.until is not None and options.seconds is not None:
        raise UsageError("--seconds and --until say the same: give one of them")
    with api.open(options.store) as fs:
        seconds = options.seconds
        if options.until is not None:
            seconds = options.until.timestamp() - fs.tree.store.clock.now_ns() / 1e9
            if seconds <= 0:
                raise UsageError(f"--until is a date to come, and {options.until.isoformat()} is past")
        try:
            fs.snapshots.hold(options.name, options.owner, seconds)
        except ValueError as wrong:
            raise UsageError(str(wrong)) from None
