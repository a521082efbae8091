"""``idemfs archive prune DIR --keep RULES``."""

from __future__ import annotations

import sys

from idemfs.cli.archives import add_archive, add_keep, keep_of
from idemfs.cli.names import show_name
from idemfs.cli.parser import add_dry_run, add_yes
from idemfs.cli.render import confirm, format_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from idemfs.replication.manifest import Pruning


def arguments(parser: ArgumentParser) -> None:
    add_archive(parser)
    add_keep(parser, required=True, what="which automatic snapshots stay: 'last=10 daily=7', words as in a link's keep")
    add_dry_run(parser)
    add_yes(parser)


def run(options: Namespace) -> None:
    keep = keep_of(options.keep, options.zone)
    from time import time_ns

    from idemfs.replication import archiving
    from idemfs.replication.archive import locked, open_archive

    if options.dry_run:
        _show(archiving.plan_pruning(open_archive(options.archive), keep, time_ns()), "would ")
        return
    with locked(options.archive):
        archive = open_archive(options.archive)
        found = archiving.plan_pruning(archive, keep, time_ns())
        if found.gone and sys.stdin.isatty():
            names = ", ".join(each.operand for each in found.gone)
            confirm(f"Delete {names} from the archive?", yes=options.yes)
        archiving.carry_out(archive, found)
    _show(found, "")


def _show(found: Pruning, would: str) -> None:
    for each in found.gone:
        print(f"{would}delete{'' if would else 'd'} {show_name(each.operand)}: {format_size(each.bytes)}")
    kept = [each for each in found.manifest.points if each.is_kept]
    leading = len(found.manifest.points) - len(kept)
    size = format_size(sum(each.bytes for each in found.manifest.points))
    print(
        f"{would}keep{'' if would else 's'} {len(kept)} snapshots, and {leading} streams that only lead to them: {size}"
    )
    if found.restarted:
        print("the next streams are full ones, so that the old chains can go")
