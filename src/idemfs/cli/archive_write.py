"""``idemfs archive write STORE DIR``."""

from __future__ import annotations

import sys

from idemfs.cli.archives import add_keep, keep_of
from idemfs.cli.names import show_name
from idemfs.cli.parser import add_store
from idemfs.cli.render import format_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def arguments(parser: ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument("archive", metavar="DIR", help="directory of the archive; it is made when there is nothing yet")
    add_keep(
        parser,
        required=False,
        what="write only automatic snapshots that these rules keep, and then prune the archive: 'last=10 daily=7'",
    )


def run(options: Namespace) -> None:
    keep = None if options.keep is None else keep_of(options.keep, options.zone)
    from idemfs.replication import archiving
    from idemfs.replication.archive import locked, open_archive
    from idemfs.store.files import open_files
    from idemfs.vfs.tree import Tree

    store = open_files(options.store, background=False)
    try:
        tree = Tree(store)
        archiving.make_if_missing(tree, options.archive)
        with locked(options.archive):
            archive = open_archive(options.archive)
            report = archiving.archive_into(tree, archive, keep=keep)
            if keep is not None:
                archiving.prune(archive, keep, store.clock.now_ns())
            purged = archiving.purged_since(archive)
    finally:
        store.close()
    for each in report.transfers:
        name = show_name(each.target if each.fileset == "root" else f"{each.fileset}@{each.target}")
        kind = "full" if each.base is None else f"since {show_name(each.base)}"
        print(f"wrote {name}, {kind}: {each.records:,} records, {format_size(each.bytes)}")
    if not report.transfers:
        print("the archive has all snapshots already")
    for point in purged:
        print(
            f"idemfs: {show_name(point.operand)}: in the archive it still has what was purged from it in the store; "
            "'idemfs archive purge' deletes it there",
            file=sys.stderr,
        )
