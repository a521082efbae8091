"""``idemfs standby remove STORE PEER``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from idemfs.cli.names import show_name
from idemfs.cli.parser import add_store


def arguments(parser: ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument("peer", metavar="PEER", help="name or path of the standby; its files stay")


def run(options: Namespace) -> None:
    from idemfs.failover.places import remove_standby

    peer = remove_standby(options.store, options.peer)
    print(f"{show_name(options.store)} has forgotten {show_name(peer.path)}")
