"""``idemfs get STORE[@SNAPSHOT] SRC DEST``."""

from __future__ import annotations

import os

from idemfs.cli.parser import add_target

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def arguments(parser: ArgumentParser) -> None:
    add_target(parser)
    parser.add_argument("source", metavar="SRC", help="a directory in the store, whose content is copied, or a file")
    parser.add_argument("destination", metavar="DEST", help="where on this machine; what is missing of it is made")


def run(options: Namespace) -> None:
    from idemfs.cli.opening import view_of
    from idemfs.cli.progress import CopyProgress, report
    from idemfs.vfs.copying import size_in_store
    from idemfs.vfs.copying_out import get

    source, destination = os.fsencode(options.source), os.fsencode(options.destination)
    with view_of(options.target) as view:
        reader = view.reader
        with CopyProgress("get", lambda: size_in_store(reader, source)) as progress:
            try:
                outcome = get(reader, source, destination, watcher=progress)
            except OSError as error:
                if error.filename is None:
                    error.filename = source
                raise
    report(outcome)
