"""``idemfs cat STORE[@SNAPSHOT] PATH``."""

from __future__ import annotations

import os
import sys

from idemfs.cli.parser import add_target

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

_PIECE_BYTES = 1 << 20


def arguments(parser: ArgumentParser) -> None:
    add_target(parser)
    parser.add_argument("paths", metavar="PATH", nargs="+", help="files in the store, written one after another")


def run(options: Namespace) -> None:
    from idemfs.cli.opening import view_of

    with view_of(options.target) as view:
        for path in options.paths:
            with view.open(os.fsencode(path), "rb", buffering=0) as file:
                while piece := file.read(_PIECE_BYTES):
                    sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()
