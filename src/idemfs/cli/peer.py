"""``idemfs peer STORE``: answers another store over standard input and output."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, Namespace

from idemfs.cli.parser import add_store


def arguments(parser: ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument("--read-only", action="store_true", help="answer questions alone; changes and locks nothing")


def run(options: Namespace) -> None:
    from idemfs.cli.failures import UsageError
    from idemfs.cli.serving import commands
    from idemfs.node.peer import serve_peer
    from idemfs.replication.channel import PipeChannel

    if sys.stdin.isatty() or sys.stdout.isatty():
        raise UsageError("this is what another idemfs runs, over ssh; there is nothing to type")
    channel = PipeChannel(os.dup(sys.stdin.fileno()), os.dup(sys.stdout.fileno()))
    try:
        serve_peer(channel, options.store, readonly=options.read_only, run=commands().run)
    finally:
        channel.close()
