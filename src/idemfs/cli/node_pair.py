"""``idemfs node pair --config FILE --offer`` on one node, and ``idemfs node pair --config FILE CODE`` on the other."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace

from idemfs.cli.failures import UsageError
from idemfs.cli.nodes import keys_of
from idemfs.cli.parser import add_config


def arguments(parser: ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument("--offer", action="store_true", help="print a code for the other node, valid for ten minutes")
    parser.add_argument(
        "code", metavar="CODE", nargs="?", help="what --offer printed on the other node; - reads it from standard input"
    )


def run(options: Namespace) -> None:
    from idemfs.cli.names import show_name

    if options.offer == (options.code is not None):
        raise UsageError("give --offer, or the CODE that it printed on the other node")
    keys = keys_of(options)
    if options.offer:
        keys.prepare()
        print(keys.offer().to_text())
        return
    from idemfs.node.pairing import pair

    peer = pair(keys, sys.stdin.readline() if options.code == "-" else options.code)
    print(show_name(f"{keys.name} and {peer.name} at {peer.url} trust each other"))
