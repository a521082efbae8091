"""``idemfs snapshot create STORE NAME``."""

from __future__ import annotations

from idemfs.cli.parser import add_store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def arguments(parser: ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument("name", metavar="NAME", help="up to 200 bytes, without '/' and '@'")


def run(options: Namespace) -> None:
    from idemfs import api
    from idemfs.cli.names import show_name

    with api.open(options.store) as fs:
        info = fs.snapshots.create(options.name)
    print(f"{show_name(info.name)}  {info.guid}  {info.digest}")
