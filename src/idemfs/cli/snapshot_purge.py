"""``idemfs snapshot purge STORE PATH`` and ``idemfs snapshot purge STORE --list``."""

from __future__ import annotations

from idemfs.cli.names import show_name
from idemfs.cli.parser import add_dry_run, add_json, add_store, add_yes
from idemfs.cli.render import Column, confirm, format_time_ns, listing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from idemfs.api import Purge
    from idemfs.cli.render import Json


def arguments(parser: ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument("path", metavar="PATH", nargs="?", help="a file, or a directory with all that is below it")
    parser.add_argument(
        "--fileset", metavar="FILESET", help="the path begins at the root of this fileset (default: of the store)"
    )
    parser.add_argument("--active", action="store_true", help="remove it from the active state, too")
    parser.add_argument("--reason", metavar="TEXT", default="", help="why; it is kept on record")
    parser.add_argument("--list", action="store_true", help="list what was purged, by whom, and why")
    add_json(parser)
    add_dry_run(parser)
    add_yes(parser)


def run(options: Namespace) -> None:
    from idemfs import api
    from idemfs.cli.failures import UsageError

    if options.list == (options.path is not None):
        raise UsageError("name either a PATH, or --list")
    with api.open(options.store) as fs:
        if options.list:
            purges = fs.snapshots.purges()
            if options.fileset is not None:
                purges = [each for each in purges if each.fileset_name == options.fileset]
                if not purges:
                    # One that is gone may have been purged; one that never was is a mistake.
                    fs.filesets[options.fileset].info()
            _print_list([_row(each) for each in purges], json=options.json)
            return
        snapshots = fs.snapshots if options.fileset is None else fs.filesets[options.fileset].snapshots
        names = snapshots.check_purgeable(options.path)
        if options.dry_run:
            where = " and the active state" if options.active else ""
            print(f"would remove {show_name(options.path)} from {len(names)} snapshots{where}: {', '.join(names)}")
            return
        confirm(
            f"Remove {options.path} from {len(names)} snapshots for ever? They become other snapshots than before.",
            yes=options.yes,
        )
        record = snapshots.purge(options.path, active=options.active, reason=options.reason)
    print(
        f"removed {show_name(record.path)}, {record.inode_count} inodes, from {record.snapshot_count} snapshots"
        + (" and the active state" if record.is_active else "")
    )


def _row(purge: Purge) -> dict[str, Json]:
    return {
        "at": format_time_ns(purge.at_ns),
        "fileset": purge.fileset_name,
        "path": purge.path,
        "uid": purge.uid,
        "user": purge.user,
        "reason": purge.reason,
        "active": purge.is_active,
        "inodes": purge.inodes,
        "inode_count": purge.inode_count,
        "snapshots": purge.snapshots,
        "snapshot_count": purge.snapshot_count,
        "replaced": [
            {"name": each.name, "old_guid": each.old_guid, "guid": each.new_guid, "digest": each.digest}
            for each in purge.replaced
        ],
    }


def _print_list(rows: list[dict[str, Json]], *, json: bool) -> None:
    columns = [
        Column("at"),
        Column("user"),
        Column("fileset"),
        Column("path"),
        Column("inode_count", "INODES", right=True),
        Column("snapshot_count", "SNAPSHOTS", right=True),
        Column("active"),
        Column("reason"),
    ]
    listing(rows, columns, json=json)
