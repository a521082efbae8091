"""``idemfs snapshot clone STORE NAME PATH [--name FILESET]``."""

from __future__ import annotations

from idemfs.cli.parser import add_store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def arguments(parser: ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument("snapshot", metavar="NAME", help="the snapshot; FILESET@NAME for one of another fileset")
    parser.add_argument("path", metavar="PATH", help="an empty directory in the store, or one that is to be made")
    parser.add_argument("--name", metavar="FILESET", help="of the clone (default: the last name of PATH)")


def run(options: Namespace) -> None:
    from idemfs import api
    from idemfs.cli.names import show_name

    with api.open(options.store) as fs:
        fileset = fs.filesets.clone(options.snapshot, options.path, options.name)
        print(f"{show_name(fileset.name)}  {show_name(fileset.path or '-')}  clone of {show_name(options.snapshot)}")
