"""``idemfs archive purge DIR``."""

from __future__ import annotations

import sys

from idemfs.cli.archives import add_archive
from idemfs.cli.names import show_name
from idemfs.cli.parser import add_dry_run, add_yes
from idemfs.cli.render import confirm, format_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from idemfs.replication.manifest import Pruning


def arguments(parser: ArgumentParser) -> None:
    add_archive(parser)
    add_dry_run(parser)
    add_yes(parser)


def run(options: Namespace) -> None:
    from idemfs.replication import archiving, manifest
    from idemfs.replication.archive import locked, open_archive

    if options.dry_run:
        _show(manifest.without_purged(open_archive(options.archive).manifest), "would ")
        return
    with locked(options.archive):
        archive = open_archive(options.archive)
        found = manifest.without_purged(archive.manifest)
        if found.gone and sys.stdin.isatty():
            names = ", ".join(each.operand for each in found.gone)
            confirm(f"Delete {names} from the archive?", yes=options.yes)
        archiving.carry_out(archive, found)
    _show(found, "")


def _show(found: Pruning, would: str) -> None:
    for each in found.gone:
        why = "has what was purged" if each.is_purged else "begins from what has what was purged"
        print(f"{would}delete{'' if would else 'd'} {show_name(each.operand)}, which {why}: {format_size(each.bytes)}")
    if found.gone:
        print("what the store has of these the next write writes again, beginning with full streams")
    else:
        print("nothing in the archive is known to show what was purged; 'idemfs archive write' finds out")
