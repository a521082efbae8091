"""``idemfs snapshot create STORE NAME…``."""

from __future__ import annotations

from idemfs.cli.parser import add_store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def arguments(parser: ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument(
        "names",
        metavar="NAME",
        nargs="+",
        help="up to 200 bytes, without '/' and '@'; FILESET@NAME of another fileset than the root, '*@NAME' of all "
        "that match. Several are taken at one instant, all or none",
    )
    parser.add_argument(
        "--exclude", metavar="PATTERN", action="append", default=[], help="leave out filesets that a pattern would name"
    )


def run(options: Namespace) -> None:
    from idemfs import api
    from idemfs.cli.names import show_name

    with api.open(options.store) as fs:
        infos = fs.snapshots.create_all(*options.names, exclude=options.exclude)
    for info in infos:
        print(f"{show_name(info.operand)}  {info.guid}  {info.digest}")
