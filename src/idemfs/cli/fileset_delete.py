"""``idemfs fileset delete STORE NAME``."""

from __future__ import annotations

from idemfs.cli.names import show_name
from idemfs.cli.parser import add_dry_run, add_store, add_yes
from idemfs.cli.render import confirm, format_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def arguments(parser: ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument("name", metavar="NAME", help="the fileset; what is in it goes, and all of its snapshots")
    parser.add_argument("--held", action="store_true", help="also when somebody holds a snapshot of it")
    add_dry_run(parser)
    add_yes(parser)


def run(options: Namespace) -> None:
    from idemfs import api

    with api.open(options.store, readonly=options.dry_run) as fs:
        fileset = fs.filesets[options.name]
        fileset.check_deletable(held=options.held)
        info = fileset.info()
        size = format_size(info.active_bytes + info.snapshot_bytes)
        what = f"fileset {show_name(info.name)} at {show_name(info.path or '-')}"
        holds = f"{info.inode_count:,} inodes, {info.snapshot_count:,} snapshots, {size}"
        origin = fileset.last_origin()
        if origin is not None:
            owned = format_size(origin.owned_bytes)
            holds += f", and the deleted snapshot {show_name(origin.operand)} ({owned}) with its last clone"
        if options.dry_run:
            print(f"would delete {what}: {holds}")
            return
        confirm(f"Delete {what}? {holds} are gone.", yes=options.yes)
        fileset.delete(held=options.held)
