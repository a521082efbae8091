"""``idemfs put STORE SRC DEST``."""

from __future__ import annotations

import os

from idemfs.cli.parser import add_store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def arguments(parser: ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument("source", metavar="SRC", help="a directory, whose content is copied, or a file")
    parser.add_argument("target", metavar="DEST", help="where in the store; what is missing of it is made")
    parser.add_argument(
        "--mirror",
        action="store_true",
        help="also remove what SRC does not have, and skip files whose size and time agree",
    )


def run(options: Namespace) -> None:
    from idemfs import api
    from idemfs.cli.progress import CopyProgress, report
    from idemfs.vfs.copying import size_on_host
    from idemfs.vfs.copying_in import put

    source, target = os.fsencode(options.source), os.fsencode(options.target)
    # Before the store is opened: what is not there need not lock it.
    os.stat(source)
    with api.open(options.store) as fs:
        here = os.stat(options.store)
        with CopyProgress("put", lambda: size_on_host(source)) as progress:
            outcome = put(
                fs.tree,
                source,
                target,
                mirror=options.mirror,
                watcher=progress,
                leave_out=((here.st_dev, here.st_ino),),
            )
    report(outcome)
