"""``idemfs archive restore DIR STORE``."""

from __future__ import annotations

from idemfs.cli.archives import add_archive
from idemfs.cli.names import show_name
from idemfs.cli.parser import add_store
from idemfs.cli.render import format_size, format_time_ns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def arguments(parser: ArgumentParser) -> None:
    add_archive(parser)
    add_store(parser)
    parser.add_argument(
        "--to", metavar="SNAPSHOT", help="NAME or FILESET@NAME; all filesets come as they were then (default: newest)"
    )


def run(options: Namespace) -> None:
    from idemfs.replication.archive import open_archive
    from idemfs.replication.archiving import restore

    restored = restore(open_archive(options.archive), options.store, options.to)
    point = restored.point
    print(
        f"{show_name(options.store)} is as {show_name(point.operand)} of {format_time_ns(point.created_ns)}: "
        f"read {format_size(restored.bytes)}, streams: {restored.stream_count}"
    )
    print(f"it is a standby; 'idemfs failover {show_name(options.store)}' makes it writable")
