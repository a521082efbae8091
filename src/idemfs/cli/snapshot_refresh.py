"""``idemfs snapshot refresh STORE NAME``."""

from __future__ import annotations

from idemfs.cli.names import show_name
from idemfs.cli.parser import add_store, add_yes
from idemfs.cli.render import confirm

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def arguments(parser: ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument("name", metavar="NAME", help="the snapshot; FILESET@NAME of another fileset")
    parser.add_argument("--to", metavar="NEWER", help="the newer snapshot that it becomes (default: the active state)")
    add_yes(parser)


def run(options: Namespace) -> None:
    from idemfs import api

    with api.open(options.store) as fs:
        for name in (options.name, options.to):
            if name is not None:
                fs.snapshots.info(name)
        target = "the active state" if options.to is None else options.to
        confirm(f"Let {options.name} be what {target} is? What only {options.name} has is lost.", yes=options.yes)
        refreshed = fs.snapshots.refresh(options.name, options.to)
    print(f"{show_name(refreshed.operand)}  {refreshed.guid}  {refreshed.digest}")
