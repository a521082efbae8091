"""``idemfs link create STORE PATH LINK``."""

from __future__ import annotations

import os

from idemfs.cli.parser import add_store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def arguments(parser: ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument("path", metavar="PATH", help="a file or directory in the store; the link follows its renames")
    parser.add_argument("link", metavar="LINK", help="the link to be made; in a directory it gets the name of PATH")


def run(options: Namespace) -> None:
    from idemfs import api
    from idemfs.cli.names import show_name

    path, link = os.fsencode(options.path), os.fsencode(options.link)
    with api.open(options.store) as fs:
        if fs.is_dir(link):
            link = os.path.join(link, os.path.basename(path.rstrip(b"/")))
        fs.dynamic_link(path, link)
        target = fs.readlink(link)
        note = "" if fs.exists(link) else "  (the newest snapshot does not have it: it will once the next one is taken)"
    print(f"{show_name(os.fsdecode(link))} -> {show_name(os.fsdecode(target))}{note}")
