"""``idemfs fileset create STORE PATH [--name NAME]``."""

from __future__ import annotations

from idemfs.cli.parser import add_store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def arguments(parser: ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument("path", metavar="PATH", help="an empty directory in the store, or one that is to be made")
    parser.add_argument("--name", metavar="NAME", help="of the fileset (default: the last name of PATH)")
    parser.add_argument(
        "--compression",
        choices=("store", "none", "zstd"),
        default="store",
        help="of what is written there (default: as the store)",
    )


def run(options: Namespace) -> None:
    from idemfs import api
    from idemfs.cli.names import show_name

    with api.open(options.store) as fs:
        fileset = fs.filesets.create(options.path, options.name, compression=options.compression)
        print(f"{show_name(fileset.name)}  {show_name(fileset.path or '-')}")
