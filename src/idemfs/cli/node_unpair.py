"""``idemfs node unpair --config FILE NAME``: at once, also for a node that runs."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from idemfs.cli.nodes import keys_of
from idemfs.cli.parser import add_config


def arguments(parser: ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument("name", metavar="NAME", help="the other node, as 'node peers' lists it")


def run(options: Namespace) -> None:
    keys_of(options).remove_peer(options.name)
