"""``idemfs drill mount STORE NAME DIR``: after a restart, or for one that was begun without ``--mount``."""

from __future__ import annotations

from idemfs.cli.parser import add_store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def arguments(parser: ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument("name", metavar="NAME", help="the drill")
    parser.add_argument("directory", metavar="DIR", help="where it appears; the mount ends with the drill")


def run(options: Namespace) -> int:
    from idemfs import api
    from idemfs.cli.main import main

    with api.open(options.store, readonly=True) as fs:
        fileset = fs.drills[options.name].fileset
    return main(["mount", options.store, options.directory, "--fileset", fileset])
