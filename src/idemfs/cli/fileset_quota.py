"""``idemfs fileset quota STORE NAME [--bytes SIZE] [--inodes N] [--snapshots count|ignore]``."""

from __future__ import annotations

from idemfs.cli.parser import add_store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def arguments(parser: ArgumentParser) -> None:
    from idemfs.cli.operands import parse_size

    add_store(parser)
    parser.add_argument("name", metavar="NAME", help="the fileset")
    parser.add_argument("--bytes", metavar="SIZE", type=parse_size, help="what it may hold, as 10GiB; 0 for no limit")
    parser.add_argument("--inodes", metavar="COUNT", type=int, help="files and directories; 0 for no limit")
    parser.add_argument(
        "--snapshots",
        choices=("count", "ignore"),
        help="whether what snapshots own counts (default: as it was)",
    )


def run(options: Namespace) -> None:
    from idemfs import api
    from idemfs.cli.failures import UsageError
    from idemfs.cli.names import show_name
    from idemfs.cli.render import format_size

    counts = None if options.snapshots is None else options.snapshots == "count"
    is_asking = options.bytes is None and options.inodes is None and counts is None
    with api.open(options.store, readonly=is_asking) as fs:
        fileset = fs.filesets[options.name]
        if not is_asking:
            try:
                fileset.set_quota(options.bytes, options.inodes, counts_snapshots=counts)
            except ValueError as wrong:
                raise UsageError(str(wrong)) from None
        info = fileset.info()
    used = info.active_bytes + (info.snapshot_bytes if info.snapshots_count else 0)
    limit = "no limit" if info.quota_bytes is None else f"of {format_size(info.quota_bytes)}"
    inode_limit = "no limit" if info.quota_inodes is None else f"of {info.quota_inodes:,}"
    what = "with its snapshots" if info.snapshots_count else "without its snapshots"
    print(f"{show_name(info.name)}: {format_size(used)} {what}, {limit}; {info.inode_count:,} inodes, {inode_limit}")
